//! Lists, exports and verifies the audit through the API and with `nofx audit`.

use std::fs;
use std::process::Output;

use nofx_tests::Lab;
use serde_json::{Value, json};

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
