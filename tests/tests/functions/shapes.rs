//! Compares every response of the API with the snapshots in `shapes`: names, nulls, absent keys, the format of timestamps.
//! Ids, timestamps and long texts are placeholders. `UPDATE=1` updates the snapshots.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use nofx_tests::{Deliver, Lab, Script, plans, script};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gateway::{Answer, Gateway, Shape};

/// For longer texts, the snapshot has only the length.
const MAX_TEXT_BYTES: usize = 400;

/// The responses of one test, for its snapshot.
#[derive(Default)]
struct Snapshot(BTreeMap<String, Value>);

impl Snapshot {
    fn add(&mut self, name: &str, answer: &Answer) -> Value {
        let response = json!({"status": answer.status, "link": answer.header("link").map(redacted_text), "body": redacted(&answer.body)});
        assert!(self.0.insert(name.to_owned(), response).is_none(), "{name} is added twice");
        answer.body.clone()
    }

    /// Compares with the snapshot file of this name, or replaces it.
    fn compare(self, file: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/functions/shapes/{file}.json"));
        let text = format!("{:#}\n", json!(self.0));
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
            fs::write(&path, text).expect("write the snapshot");
            return;
        }
        let recorded = fs::read_to_string(&path).expect("a snapshot; UPDATE=1 creates it");
        let recorded: BTreeMap<String, Value> = serde_json::from_str(&recorded).expect("the snapshot is JSON");
        for (name, answer) in &self.0 {
            let before = recorded.get(name);
            assert_eq!(before.map(|value| format!("{value:#}")), Some(format!("{answer:#}")), "{file}: {name}");
        }
        assert_eq!(self.0.len(), recorded.len(), "{file}: the snapshot has other responses");
    }
}

fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(redacted_text(text)),
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (redacted_text(key), of_field(key, value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Digests of what differs from run to run, and signatures, differ too.
fn of_field(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("digest" | "keyid", Value::String(_)) => json!("<sha256>"),
        ("sig", Value::String(_)) => json!("<signature>"),
        ("url", Value::String(url)) if url.starts_with("/ui/links/") => json!("/ui/links/<link>"),
        ("from" | "to" | "day" | "starts_on", Value::String(day)) if day.len() == 10 => json!("<day>"),
        ("covers", Value::Object(parts)) => parts.iter().map(|(name, _)| (name.clone(), json!("<digests>"))).collect(),
        _ => redacted(value),
    }
}

fn redacted_text(text: &str) -> String {
    if text.len() > MAX_TEXT_BYTES {
        return format!("<{} bytes>", text.len());
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:+.".contains(c);
    let mut shown = String::new();
    for piece in text.split_inclusive(|c| !is_part(c)) {
        let word = piece.trim_end_matches(|c| !is_part(c) || c == '.');
        // Buckets and prefixes of a test have names like t-<id>.
        let id = word.trim_start_matches("t-");
        let placeholder = match id.parse::<Uuid>() {
            Ok(_) => word.replace(id, "<id>"),
            Err(_) if is_timestamp(word) => "<time>".to_owned(),
            Err(_) => word.to_owned(),
        };
        shown.push_str(&placeholder);
        shown.push_str(&piece[word.len()..]);
    }
    shown
}

/// Whether a text looks like `2026-11-23T10:00:00.123456+00:00`, with up to six digits of a second.
fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = text.strip_suffix("+00:00").and_then(|text| text.split_once('T')) else { return false };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let shaped = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.chars().zip(shape.chars()).all(|(c, s)| if s == '0' { c.is_ascii_digit() } else { c == s })
    };
    shaped(date, "0000-00-00")
        && shaped(clock, "00:00:00")
        && fraction.len() <= 6
        && shaped(fraction, &"0".repeat(fraction.len()))
}

fn plan_of_many_kinds() -> Value {
    let mut ask = plans::step("ask", "manual:deploy", json!({"reason": "may it?"}));
    ask["depends_on"] = json!(["write"]);
    ask["timeout_s"] = json!(600);
    let mut write =
        plans::step("write", "codegen", json!({"topic": "t", "n": 1.50, "text": "${{ steps.large.outputs.text }}"}));
    write["depends_on"] = json!(["large"]);
    json!({"goal": "many kinds", "timeout_s": 3600, "steps": [
        plans::after("large", &[], json!({"text": "x".repeat(20_000)})),
        write,
        ask,
        plans::after("last/ü", &["ask", "large"], json!({"decision": "${{ steps.ask.outputs.decision }}"})),
    ]})
}

#[tokio::test]
async fn responses_about_a_run() {
    let lab = Lab::with_bucket().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http));
    let mut snapshot = Snapshot::default();
    let key = [("Idempotency-Key", "one")];
    let body = json!({"plan": plan_of_many_kinds()}).to_string();
    let created = snapshot.add("POST /runs", &api.send("POST", "/runs", &key, Some(body.clone())).await);
    snapshot.add("POST /runs again", &api.send("POST", "/runs", &key, Some(body)).await);
    let other = json!({"plan": plans::chain(1)}).to_string();
    snapshot.add("POST /runs with another plan", &api.send("POST", "/runs", &key, Some(other)).await);
    let run = format!("/runs/{}", created["id"].as_str().expect("an id"));
    snapshot.add("why, ready", &api.get(&format!("{run}/steps/large/why")).await);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    for (what, at) in [("blocked", "ask"), ("pending", "last%2F%C3%BC"), ("succeeded", "large")] {
        snapshot.add(&format!("why, {what}"), &api.get(&format!("{run}/steps/{at}/why")).await);
    }
    snapshot.add("GET /gates", &approvals.get("/gates").await);
    let gates = snapshot.add("GET /runs/{id}/gates", &api.get(&format!("{run}/gates")).await);
    let gate = format!("/gates/{}", gates[0]["id"].as_str().expect("a gate"));
    let on_step = json!({"runId": created["id"], "gateType": "release", "evidenceUri": "s3://x/y", "reason": "r",
        "expires_after_s": 60});
    let own = snapshot.add("POST /gates", &approvals.post("/gates", &on_step).await);
    snapshot
        .add("approve", &approvals.post(&format!("{gate}/approve"), &json!({"actor": "ann", "reason": "ok"})).await);
    snapshot.add("approve again", &approvals.post(&format!("{gate}/approve"), &json!({"actor": "bob"})).await);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    snapshot.add("GET /runs/{id}, blocked", &api.get(&run).await);
    let own = format!("/gates/{}", own["id"].as_str().expect("a gate"));
    snapshot.add("reject", &approvals.post(&format!("{own}/reject"), &json!({"actor": "ann", "reason": "no"})).await);
    snapshot.add("GET /gates/{id}", &approvals.get(&own).await);
    snapshot.add("POST /gates, too late", &approvals.post("/gates", &on_step).await);
    let read = snapshot.add("GET /runs/{id}, failed", &api.get(&run).await);
    for path in [
        "steps",
        "steps?limit=1",
        "steps/large",
        "steps/write",
        "steps/none",
        "artifacts",
        "timeline",
        "timeline?limit=2",
        "lineage",
        "costs",
        "plan",
        "gates?limit=1",
    ] {
        snapshot.add(&format!("GET /runs/{{id}}/{path}"), &api.get(&format!("{run}/{path}")).await);
    }
    snapshot.add("GET /costs", &api.get("/costs").await);
    snapshot.add("GET /runs", &api.get("/runs?limit=1").await);
    let artifact = read["artifacts"][0]["id"].as_str().expect("an artifact").to_owned();
    snapshot.add("GET /artifacts/{id}", &api.get(&format!("/artifacts/{artifact}")).await);
    let sql = "update nofx.artifact set metadata = jsonb_build_object('text', repeat('x', 20000))";
    lab.admin.execute(sql, &[]).await.expect("make the metadata large");
    snapshot.add("GET /runs/{id}/artifacts, large", &api.get(&format!("{run}/artifacts?limit=1")).await);
    let artifact = format!("/artifacts/{artifact}");
    let restore = json!({"days": 7, "actor": "ann"});
    snapshot.add("restore, hot", &api.post(&format!("{artifact}/restore"), &restore).await);
    let reason = json!({"reason": "it has a secret", "actor": "ann"}).to_string();
    snapshot.add("delete artifact", &api.send("DELETE", &artifact, &[], Some(reason)).await);
    snapshot.add("restore, deleted", &api.post(&format!("{artifact}/restore"), &restore).await);
    snapshot.add("download, deleted", &api.get(&format!("{artifact}/download")).await);
    snapshot.add("GET /runs/{id}/lineage, deleted", &api.get(&format!("{run}/lineage")).await);
    snapshot.compare("run");
}

#[tokio::test]
async fn responses_of_controlling_a_run() {
    let lab = Lab::new().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http));
    let mut snapshot = Snapshot::default();
    let large = json!({"goal": "large", "steps": (0..12).map(|index| plans::step(&format!("s{index}"), "echo", json!({"text": "y".repeat(9_000)}))).collect::<Vec<_>>()});
    let created = api.post("/runs", &json!({"plan": large})).await.body;
    let run = format!("/runs/{}", created["id"].as_str().expect("an id"));
    for (name, verb) in [
        ("pause", "pause"),
        ("pause again", "pause"),
        ("why, paused", ""),
        ("resume", "resume"),
        ("resume again", "resume"),
        ("retry too early", "retry"),
        ("cancel", "cancel"),
        ("cancel again", "cancel"),
        ("pause too late", "pause"),
        ("resume too late", "resume"),
        ("retry", "retry"),
    ] {
        let answer = match verb {
            "" => api.get(&format!("{run}/steps/s0/why")).await,
            verb => api.send("POST", &format!("{run}/{verb}"), &[], None).await,
        };
        snapshot.add(name, &answer);
    }
    let step = api.get(&format!("{run}/steps/s7")).await.body["id"].clone();
    let before_step = json!({"run_id": created["id"], "step_id": step, "gate_type": "look"});
    snapshot.add("POST /gates before a step", &approvals.post("/gates", &before_step).await);
    snapshot.add("GET /runs/{id}, large", &api.get(&run).await);
    let break_down = Script::overriding(|step, _| async move {
        (step.name == "s2").then(|| match step.attempt {
            1 => script::flaky(),
            _ => shared::domain::Outcome::failed(
                shared::domain::StepError::new("broken", "z".repeat(3_000))
                    .with_details(json!({"a": ["b".repeat(20_000)]})),
            ),
        })
    });
    lab.settle(&break_down, Deliver::Once).await;
    for name in ["s2", "s3"] {
        snapshot.add(&format!("why, {name}"), &api.get(&format!("{run}/steps/{name}/why")).await);
        snapshot.add(&format!("step {name}"), &api.get(&format!("{run}/steps/{name}")).await);
    }
    snapshot.add("GET /runs/{id}/steps", &api.get(&format!("{run}/steps?limit=4")).await);
    snapshot.add("GET /runs", &api.get("/runs").await);
    snapshot.add("cancel too late", &api.send("POST", &format!("{run}/cancel"), &[], None).await);
    let missing = json!({"run_id": created["id"], "step_id": Uuid::nil(), "gate_type": "look"});
    snapshot.add("POST /gates before no step", &approvals.post("/gates", &missing).await);
    let nowhere = json!({"run_id": Uuid::nil(), "gate_type": "look"});
    snapshot.add("POST /gates of no run", &approvals.post("/gates", &nowhere).await);
    for verb in ["cancel", "pause", "resume", "retry"] {
        let path = format!("/runs/{}/{verb}", Uuid::nil());
        snapshot.add(&format!("{verb} no run"), &api.send("POST", &path, &[], None).await);
    }
    snapshot.compare("control");
}

#[tokio::test]
async fn responses_about_gates() {
    let lab = Lab::new().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http));
    let mut snapshot = Snapshot::default();
    let created = api.post("/runs", &json!({"plan": plans::approval(60)})).await.body;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let run = format!("/runs/{}", created["id"].as_str().expect("an id"));
    let step = api.get(&format!("{run}/steps/build")).await.body["id"].clone();
    let late = json!({"run_id": created["id"], "step_id": step, "gate_type": "look"});
    snapshot.add("POST /gates, step done", &approvals.post("/gates", &late).await);
    let gate = api.get(&format!("{run}/gates")).await.body[0]["id"].clone();
    let gate = format!("/gates/{}", gate.as_str().expect("a gate"));
    lab.admin.execute("update nofx.gate set expires_at = now() - interval '1 s'", &[]).await.expect("let it expire");
    snapshot.add("approve, expired", &approvals.post(&format!("{gate}/approve"), &json!({})).await);
    lab.admin.execute("update nofx.gate set expires_at = null", &[]).await.expect("let it wait");
    for (name, body) in [
        ("POST /gates/{id}/links", json!({"for": "local", "expires_in_s": 3_600})),
        ("POST /gates/{id}/links for nobody", json!({"for": "nobody"})),
    ] {
        snapshot.add(name, &approvals.post(&format!("{gate}/links"), &body).await);
    }
    let why = json!({"reason": "not needed"});
    snapshot.add("waive", &approvals.post(&format!("{gate}/waive"), &why).await);
    snapshot.add("waive without a reason", &approvals.post(&format!("{gate}/waive"), &json!({})).await);
    let nothing = format!("/gates/{}", Uuid::nil());
    snapshot.add("link to nothing", &approvals.post(&format!("{nothing}/links"), &json!({"for": "local"})).await);
    snapshot.add("approve nothing", &approvals.post(&format!("{nothing}/approve"), &json!({})).await);
    snapshot.add("GET nothing", &approvals.get(&nothing).await);
    snapshot.compare("gate");
}

#[tokio::test]
async fn responses_about_rules() {
    let lab = Lab::new().await;
    let sql = "create table public.notes (id int primary key, of int references public.notes on delete cascade);
               create function public.note() returns trigger language plpgsql as $$ begin return new; end $$;
               create trigger note before insert on public.notes for each row execute function public.note()";
    lab.admin.batch_execute(sql).await.expect("a table");
    let api = Gateway::api(&lab, Shape::Http);
    let mut snapshot = Snapshot::default();
    let rule = json!({"allowed_ops": ["insert", "delete"], "columns": ["id"], "key": ["id"], "max_rows": 7,
        "dependants": {"public.notes": 5}, "allow": ["view"], "actor": "ann"});
    let put = async |table: &str, rule: &Value| {
        api.send("PUT", &format!("/rules/{table}"), &[], Some(rule.to_string())).await
    };
    let mut stored = put("public.notes", &rule).await;
    // These differ between versions of Postgres.
    stored.body["target"]["oid"] = json!("<oid>");
    stored.body["target"]["triggers"]["public.notes.note"] = json!("<sha256>");
    snapshot.add("PUT /rules/{table}", &stored);
    snapshot.add("PUT /rules/{table} again", &put("public.absent", &json!({"allowed_ops": ["update"]})).await);
    snapshot.add("GET /rules", &api.get("/rules").await);
    snapshot.add("GET /rules, a page", &api.get("/rules?limit=1").await);
    snapshot.add("GET /rules/{table}", &api.get("/rules/public.absent").await);
    snapshot.add("DELETE /rules/{table}", &api.send("DELETE", "/rules/public.absent", &[], None).await);
    snapshot.add("DELETE /rules/{table} again", &api.send("DELETE", "/rules/public.absent", &[], None).await);
    snapshot.add("PUT /rules/{table}, closed", &put("nofx.run", &json!({"allowed_ops": ["update"]})).await);
    snapshot.add("GET /health", &api.get("/health").await);
    let policy =
        json!({"document": {"gates": {"require_base": true}}, "actor": "ann", "reason": "releases need a base"});
    snapshot.add("PUT /policy", &api.send("PUT", "/policy", &[], Some(policy.to_string())).await);
    snapshot.add("GET /policy", &api.get("/policy").await);
    snapshot.add("GET /policy/history", &api.get("/policy/history").await);
    let mut audit = api.get("/audit?limit=2&actor=ann").await;
    audit.body["head"]["hash"] = json!("<sha256>");
    for entry in audit.body["entries"].as_array_mut().expect("entries") {
        for digest in ["after", "hash", "prev_hash"] {
            assert!(entry[digest].as_str().is_some_and(|hex| hex.len() == 64), "{entry}");
            entry[digest] = json!("<sha256>");
        }
    }
    snapshot.add("GET /audit", &audit);
    snapshot.compare("rule");
}

#[tokio::test]
async fn responses_about_callers() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let mut snapshot = Snapshot::default();
    snapshot.add("GET /whoami", &api.get("/whoami").await);
    snapshot.add("GET /auth/config", &api.get("/auth/config").await);
    let agent = json!({"kind": "agent", "name": "planner", "role": "operator", "scopes": ["runs.read", "runs.create"]});
    let mut made = api.post("/tokens", &agent).await;
    let id = made.body["id"].as_str().expect("an id").to_owned();
    made.body["token"] = json!("<token>");
    snapshot.add("POST /tokens", &made);
    snapshot.add("GET /tokens", &api.get("/tokens").await);
    snapshot.add("DELETE /tokens/{id}", &api.send("DELETE", &format!("/tokens/{id}"), &[], None).await);
    snapshot.add("POST /sessions, local", &api.post("/sessions", &json!({})).await);
    snapshot.add("DELETE /sessions/current, local", &api.send("DELETE", "/sessions/current", &[], None).await);
    let member = json!({"role": "approver", "name": "Ann", "email": "ann@example.com"}).to_string();
    snapshot.add("PUT /members/{subject}", &api.send("PUT", "/members/ann%20a", &[], Some(member)).await);
    snapshot.add("GET /members", &api.get("/members").await);
    snapshot.add("GET /members, a page", &api.get("/members?limit=1").await);
    snapshot.add("DELETE /members/{subject}", &api.send("DELETE", "/members/ann%20a", &[], None).await);
    snapshot.add("DELETE /members/{subject}, last", &api.send("DELETE", "/members/local", &[], None).await);
    snapshot.compare("access");
}
