//! Lists, exports and verifies the audit through the API and with `nofx audit`.

use std::fs;
use std::process::Output;

use nofx_tests::command::Nofx;
use nofx_tests::database::TestDatabase;
use nofx_tests::lab::config;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Map, Value, json};
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::{GateId, NewGate, Outcome};
use shared::signing::{PrivateKey, private_key};
use uuid::Uuid;

use crate::commands::serve;
use crate::gateway::{Gateway, SHAPES, Shape};

/// A tenant with some entries of ann and ben.
async fn changed() -> Lab {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    for (actor, network) in [("ann", "never"), ("ben", "when_asked"), ("ann", "never")] {
        let body = json!({"document": {"gates": {"network": network}}, "actor": actor, "reason": "naïve \"quote\""});
        let set = api.send("PUT", "/policy", &[], Some(body.to_string())).await;
        assert_eq!(set.status, 200, "{}", set.body);
    }
    let rule = json!({"allowed_ops": ["insert"], "actor": "ben"});
    assert_eq!(api.send("PUT", "/rules/public.t", &[], Some(rule.to_string())).await.status, 201);
    lab
}

fn seqs(page: &Value) -> Vec<u64> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn entries_are_listed_newest_first_in_pages_and_with_filters() {
    for shape in SHAPES {
        let lab = changed().await;
        let api = Gateway::api(&lab, shape);
        let all = api.get("/audit").await.body;
        assert_eq!((seqs(&all), &all["next"]), (vec![6, 5, 4, 3, 2, 1], &Value::Null));
        let newest = &all["entries"][0];
        assert_eq!(all["head"], json!({"seq": 6, "hash": newest["hash"]}));
        assert_eq!(
            (&newest["action"], &newest["actor"], &newest["subject"]),
            (&json!("rule.set"), &json!("ben"), &json!("public.t"))
        );
        assert!(newest["ip"].is_string() && newest["request_id"].is_string(), "{newest}");

        let page = api.get("/audit?limit=4").await;
        assert_eq!((seqs(&page.body), &page.body["next"]), (vec![6, 5, 4, 3], &json!(3)));
        assert!(page.header("link").is_some_and(|link| link.starts_with("<?after=3&limit=4>")));
        let rest = api.get("/audit?limit=4&after=3").await;
        assert_eq!((seqs(&rest.body), &rest.body["next"], rest.header("link")), (vec![2, 1], &Value::Null, None));

        assert_eq!(seqs(&api.get("/audit?action=policy.set").await.body), [5, 4, 3]);
        assert_eq!(seqs(&api.get("/audit?actor=ben").await.body), [6, 4]);
        let both = api.get("/audit?actor=ann&action=policy.set&limit=1").await;
        assert_eq!(seqs(&both.body), [5]);
        assert!(both.header("link").is_some_and(|link| link.contains("action=policy.set&actor=ann")));
        assert_eq!(seqs(&api.get("/audit?actor=nobody").await.body), [0; 0]);
        for bad in ["after=-1", "after=x", "after=99999999999", "limit=0", "action=", "by=ann"] {
            assert_eq!(api.get(&format!("/audit?{bad}")).await.status, 400, "{bad}");
        }
    }
}

#[tokio::test]
async fn an_export_has_the_rows_of_the_chain_and_its_last_page_the_head() {
    for shape in SHAPES {
        let lab = changed().await;
        let api = Gateway::api(&lab, shape);
        let lines = |body: &Value| -> Vec<Value> {
            body.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let first = api.get("/audit/export?limit=4").await;
        assert_eq!(first.header("content-type"), Some("application/jsonl"));
        assert_eq!(first.header("link"), Some("<?after=4&limit=4>; rel=\"next\""));
        let rows = lines(&first.body);
        assert_eq!((rows.len(), &rows[0]["prev_hash"]), (4, &json!("0".repeat(64))));
        let last = api.get("/audit/export?limit=4&after=4").await;
        assert_eq!(last.header("link"), None);
        let rest = lines(&last.body);
        assert_eq!((rest.len(), &rest[0]["prev_hash"]), (3, &rows[3]["hash"]));
        assert_eq!(rest[2], json!({"tenant": "acme", "head": {"seq": 6, "hash": rest[1]["hash"]}}));
        assert_eq!(api.get("/audit/export?after=-1").await.status, 400);
    }
}

fn printed(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn the_command_verifies_the_chain_and_remembers_its_head() {
    let lab = changed().await;
    let nofx = serve(&lab).await;
    let (listed, table) = printed(&nofx.output(&["audit", "list", "--by", "ben"]).await);
    assert!(listed && table.contains("rule.set") && !table.contains("ann"), "{table}");
    let (whole, text) = printed(&nofx.output(&["audit", "verify"]).await);
    assert!(whole && text.contains("the audit of acme is intact: 6 entries, the last is 6"), "{text}");
    let api = Gateway::api(&lab, Shape::Http);
    api.send("DELETE", "/rules/public.t", &[], None).await;
    let (whole, text) = printed(&nofx.output(&["audit", "verify", "--after", "6"]).await);
    assert!(whole && text.contains("intact: 1 entry, the last is 7"), "{text}");
    assert!(text.contains("it contains entry 6"), "{text}");
    let (_, text) = printed(&nofx.output(&["audit", "verify", "--json"]).await);
    let verified: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&verified["entries"], &verified["seen"]["seq"], &verified["head"]["seq"]),
        (&json!(7), &json!(7), &json!(7))
    );

    // What this machine has seen, changed: so it is another chain, or a shorter one.
    let file = nofx.folder().join("audit-heads.toml");
    let seen = fs::read_to_string(&file).unwrap();
    let hash = verified["head"]["hash"].as_str().unwrap();
    for (now, expected) in [
        (seen.replace(hash, &"0".repeat(64)), "entry 7 is different"),
        (seen.replace("seq = 7", "seq = 8"), "it ends before entry 8"),
    ] {
        assert_ne!(now, seen);
        fs::write(&file, &now).unwrap();
        let (whole, text) = printed(&nofx.output(&["audit", "verify"]).await);
        assert!(!whole && text.contains(expected) && text.contains("audit-heads.toml"), "{text}");
        assert_eq!(fs::read_to_string(&file).unwrap(), now, "a head that was not verified is not remembered");
    }
    fs::write(&file, seen.replace("seq = 7", "seq = 3")).unwrap();
    let (whole, text) = printed(&nofx.output(&["audit", "verify", "--after", "5"]).await);
    assert!(!whole && text.contains("start with --after 3 or less"), "{text}");
}

#[tokio::test]
async fn the_command_names_the_line_of_an_export_that_is_wrong() {
    let lab = changed().await;
    let nofx = serve(&lab).await;
    let export = nofx.output(&["audit", "export"]).await.stdout;
    let text = String::from_utf8(export.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 7);
    let file = nofx.folder().join("audit.jsonl");
    let verify = async |content: &[u8], more: &[&str]| {
        fs::write(&file, content).unwrap();
        printed(&nofx.output(&[&["audit", "verify", "audit.jsonl"][..], more].concat()).await)
    };
    let (whole, said) = verify(&export, &[]).await;
    assert!(whole && said.contains("6 entries"), "{said}");
    assert!(!nofx.folder().join("audit-heads.toml").exists(), "a file is not what the API has");
    let (whole, said) = verify(lines[4..].concat().as_bytes(), &["--after", "4"]).await;
    assert!(whole && said.contains("2 entries"), "{said}");

    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().concat();
    let swapped = [&lines[..1], &[lines[2], lines[1]], &lines[3..]].concat().concat();
    let flipped = text.replacen("\\\"version\\\": 2", "\\\"version\\\": 3", 1);
    let mut binary = export.clone();
    binary[lines[0].len() + 20] ^= 0x80;
    for (content, expected) in [
        (without(2).into_bytes(), "audit.jsonl, line 3: row 3 is missing or out of order"),
        (swapped.into_bytes(), "audit.jsonl, line 2: row 2 is missing or out of order"),
        (flipped.into_bytes(), "audit.jsonl, line 4: row 4 was changed"),
        (binary, "audit.jsonl, line 2: this is not a row of an audit"),
        (
            without(5).into_bytes(),
            "line 6: the export ends with row 5, but says that the chain ends with another row 6",
        ),
        (lines[..6].concat().into_bytes(), "the export ends after row 6 without the head of the chain"),
        (lines[4..].concat().into_bytes(), "line 1: row 1 is missing or out of order: row 5 is there instead"),
        (b"{}\n".to_vec(), "line 1: this is not a row of an audit"),
        (Vec::new(), "the export ends after row 0 without the head"),
    ] {
        let (whole, said) = verify(&content, &[]).await;
        assert!(!whole && said.contains(expected), "{expected}: {said}");
    }
}

/// A tenant whose one person approved, rejected and waived a gate each, with the gates, and its functions, which list the key of
/// decisions.
async fn decided() -> (Lab, Nofx, [String; 3]) {
    let database = TestDatabase::create().await;
    let mut config = config(&database.url);
    let key = private_key(config.decisions.key_file.as_ref().unwrap()).unwrap();
    config.decisions.public_keys = Some(key.public().to_pem());
    let lab = Box::pin(Lab::on(database, config)).await;
    let nofx = serve(&lab).await;
    let mut gates = Vec::new();
    for verb in ["approve", "reject", "waive"] {
        let ask = plans::step("ask", "manual:go", json!({}));
        let run = lab.submit(&json!({"goal": "g", "steps": [ask]})).await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let gate = lab.text("select id::text from nofx.gate where run_id = $1", run.0).await;
        let (done, text) = printed(&nofx.output(&[verb, &gate, "--reason", "so"]).await);
        assert!(done, "{text}");
        gates.push(gate);
    }
    (lab, nofx, gates.try_into().unwrap())
}

#[tokio::test]
async fn every_decision_of_the_audit_must_be_signed_by_its_person() {
    let (lab, nofx, [approved, rejected, waived]) = decided().await;
    let verify = async |more: &[&str]| {
        let output = nofx.output(&[&["audit", "verify", "--decisions"][..], more].concat()).await;
        (output.status.code(), printed(&output).1)
    };
    let (code, text) = verify(&[]).await;
    assert!(code == Some(0) && text.contains("3 decisions are signed"), "{text}");
    assert!(text.contains("the keys came from the same API; keep them with nofx keys --pem --decisions"), "{text}");
    let keys = nofx.output(&["keys", "--pem", "--decisions"]).await.stdout;
    fs::write(nofx.folder().join("people.pem"), keys).unwrap();
    let (code, text) = verify(&["--key", "people.pem"]).await;
    assert!(code == Some(0) && !text.contains("the same API"), "{text}");
    let document = nofx.json(&["audit", "verify", "--decisions", "--key", "people.pem", "--json"]).await;
    assert_eq!(document["decisions"], json!({"entries": 3, "keys_are_kept": true, "problems": []}));
    // Whom the chain names decided: with other keys nobody did.
    fs::write(nofx.folder().join("other.pem"), PrivateKey::generate().unwrap().public().to_pem()).unwrap();
    let (code, text) = verify(&["--key", "other.pem"]).await;
    assert!(code == Some(1) && text.contains("the audit of acme is intact"), "{text}");
    for (gate, what) in [(&approved, "approved"), (&rejected, "rejected"), (&waived, "waived")] {
        assert!(text.contains(&format!("ann {what} the gate {gate}, and no signed statement says so")), "{text}");
        assert!(text.contains(&format!("the gate {gate}: a statement cannot be accepted: ")), "{text}");
    }

    // A statement about another gate is none about this one.
    let sql =
        "update nofx.approval set envelope = (select o.envelope from nofx.approval o where o.gate_id = $2::text::uuid)
                where gate_id = $1::text::uuid";
    assert_eq!(lab.rewrite("approval", sql, &[&rejected, &waived]).await, 1);
    let (code, text) = verify(&[]).await;
    assert!(
        code == Some(1) && text.contains(&format!("the gate {rejected}: a statement is about the gate {waived}")),
        "{text}"
    );
    assert!(
        text.contains(&format!("ann rejected the gate {rejected}, and no")) && !text.contains("ann waived"),
        "{text}"
    );
}

#[tokio::test]
async fn a_decision_that_nobody_signed_is_named() {
    let (lab, nofx, [approved, rejected, _]) = decided().await;
    // Somebody decides with a login of the database.
    let sql =
        "insert into nofx.approval (tenant_id, run_id, gate_id, decision, actor, created_at, subject, is_self, decides)
               select g.tenant_id, g.run_id, g.id, 'approve', 'mallory', now(), 'local', false, false
                 from nofx.gate g where g.id = $1::text::uuid";
    assert_eq!(lab.admin.execute(sql, &[&rejected]).await.unwrap(), 1);
    let sql = "update nofx.approval set envelope = null where gate_id = $1::text::uuid";
    assert_eq!(lab.rewrite("approval", sql, &[&approved]).await, 1);
    let output = nofx.output(&["audit", "verify", "--decisions", "--json"]).await;
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = document["decisions"]["problems"].as_array().unwrap();
    let named: Vec<_> = problems.iter().map(|problem| (problem["gate"].as_str(), problem["entry"].is_u64())).collect();
    assert_eq!(named, [(Some(approved.as_str()), true), (Some(rejected.as_str()), true)], "{document}");
    assert_eq!((output.status.code(), &document["decisions"]["entries"]), (Some(1), &json!(4)));
    let (_, text) = printed(&output);
    assert!(text.contains(&format!(" approved the gate {rejected}, and no signed statement says so")), "{text}");
    assert!(text.contains("2 problems") && text.contains("database:"), "{text}");

    let wrong: [&[&str]; 2] =
        [&["audit", "verify", "audit.jsonl", "--decisions"], &["audit", "verify", "--key", "k.pem"]];
    for arguments in wrong {
        assert_eq!(nofx.output(arguments).await.status.code(), Some(2), "{arguments:?}");
    }
}

/// A step that asks whether a change counts, and succeeds once somebody has said so.
fn asking_the_same() -> Script {
    Script::new(|step, _| async move {
        if !step.decisions.is_empty() {
            return Outcome::succeeded(Map::new());
        }
        Outcome::blocked(NewGate {
            id: GateId(Uuid::now_v7()),
            gate_type: "manual:gate-change".into(),
            status: NewGateStatus::Pending,
            subject: Some(Map::from_iter([("tree".to_owned(), json!("t")), ("base".to_owned(), Value::Null)])),
            evidence_uri: None,
            on_pass: OnPass::Resume,
            expires_after_s: None,
            reason: Some("a test is gone".into()),
        })
    })
}

#[tokio::test]
async fn a_decision_at_one_gate_proves_the_others_that_asked_the_same() {
    let (lab, nofx, [other, ..]) = decided().await;
    let step = |name: &str| json!({"name": name, "tool": format!("gate:{name}"), "depends_on": []});
    let run = lab.submit(&json!({"goal": "g", "steps": [step("lint"), step("unit")]})).await;
    lab.settle(&asking_the_same(), Deliver::Once).await;
    let sql = "select id::text from nofx.gate where run_id = $1 order by id";
    let gates: Vec<String> = lab.admin.query(sql, &[&run.0]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let [first, second] = &gates[..] else { panic!("{gates:?}") };
    let approved = Gateway::approvals(&lab, Shape::Http).post(&format!("/gates/{first}/approve"), &json!({})).await;
    assert_eq!(approved.status, 200, "{}", approved.body);
    for (gate, is_shared) in [(first, false), (second, true)] {
        let (done, text) = printed(&nofx.output(&["verify", gate]).await);
        assert!(done && text.contains("PASSED"), "{text}");
        assert_eq!(text.contains(&format!("made at the gate {first}, about the same change")), is_shared, "{text}");
    }
    let (done, text) = printed(&nofx.output(&["audit", "verify", "--decisions"]).await);
    assert!(done && text.contains("5 decisions are signed"), "{text}");
    // Only questions about the same change share an answer.
    let sql =
        "update nofx.approval set envelope = (select o.envelope from nofx.approval o where o.gate_id = $2::text::uuid)
                where gate_id = $1::text::uuid";
    assert_eq!(lab.rewrite("approval", sql, &[second, &other]).await, 1);
    let (done, text) = printed(&nofx.output(&["verify", second]).await);
    assert!(!done && text.contains("a statement is about another gate"), "{text}");
}
