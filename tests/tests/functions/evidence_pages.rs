//! Pages of what gates stored: read by their row, of this tenant alone, and only if the object is the one that was recorded.

use nofx_tests::lab::{s3, sdk};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::gate::{GateCreated, GateRequest, gate_create};
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::{GateId, NewGate, Outcome};
use shared::storage::ArtifactMeta;
use uuid::Uuid;

use crate::gateway::{Gateway, Shape};

const COOKIE: (&str, &str) = ("cookie", "nofx-csrf=0123456789abcdef0123456789abcdef");

fn evidence() -> Value {
    json!({
        "schema": "nofx.gate_evidence.v2", "gate": "unit", "verdict": "blocked",
        "reason": {"code": "checks_weakened", "message": "a <test> is gone"},
        "findings": {"total": 1, "listed": [{"severity": "error", "file": "a.ts", "line": 2, "message": "bad <b>"}]},
        "context": [{"path": "a.ts", "first_line": 1, "lines": ["one", "two <i>"]}]
    })
}

/// A step that stores evidence and a difference, and asks about it.
pub fn asking() -> Script {
    Script::new(|_, store| async move {
        let meta = |kind| ArtifactMeta { kind, media_type: "application/json", ..ArtifactMeta::default() };
        let change = json!({"weakenings": [{"kind": "test_deleted", "path": "a.test.ts", "message": "gone", "difference": "-it <b>"}]});
        let put = async |name, kind, document: Value| {
            store.put(name, meta(kind), document.to_string().into_bytes()).await.expect("stored")
        };
        let evidence = put("gate-unit.json", "gate_evidence", evidence()).await;
        let change = put("gate-unit-gate-change.json", "gate_attachment", change).await;
        let gate = NewGate {
            id: GateId(Uuid::now_v7()),
            gate_type: "manual:gate-change".into(),
            status: NewGateStatus::Pending,
            subject: None,
            evidence_uri: Some(change.uri.clone()),
            on_pass: OnPass::Resume,
            expires_after_s: None,
            reason: Some("a test is gone".into()),
        };
        Outcome { artifacts: vec![change, evidence], ..Outcome::blocked(gate) }
    })
}

#[tokio::test]
async fn evidence_and_differences_are_shown_to_their_tenant_and_only_as_they_were_recorded() {
    let lab = Lab::with_bucket().await;
    let console = Gateway::console(&lab, Shape::Http);
    let page = async |path: String| {
        let answer = console.get(&path).await;
        (answer.status, answer.body.as_str().unwrap_or_default().to_owned())
    };
    let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("unit", "gate:unit", json!({}))]})).await;
    lab.settle(&asking(), Deliver::Once).await;
    let id = async |sql: &str| lab.admin.query_one(sql, &[]).await.unwrap().get::<_, Uuid>(0);
    let gate = id("select id from nofx.gate").await;
    let evidence = id("select id from nofx.artifact where type = 'gate_evidence'").await;
    let change = id("select id from nofx.artifact where type = 'gate_attachment'").await;

    let (status, shown) = page(format!("/ui/gates/{gate}")).await;
    assert_eq!(status, 200, "{shown}");
    for words in
        ["it &lt;b&gt;", "Test deleted", "formaction=\"../gates/", &format!("../runs/{run}/steps/0?attempt=1#evidence")]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // A client asks in the name of the gate, with its document.
    let uri: String =
        lab.admin.query_one("select uri from nofx.artifact where id = $1", &[&change]).await.unwrap().get(0);
    let forged = json!({"run_id": run, "gate_type": "manual:gate-change", "evidence_uri": uri, "reason": "harmless"});
    let refused = Gateway::approvals(&lab, Shape::Http).post("/gates", &forged).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    // Nor does a gate that was made before the type was reserved.
    let older = GateRequest {
        id: GateId(Uuid::now_v7()),
        tenant_id: lab.ctx.config.tenant.clone(),
        run_id: run,
        step_id: None,
        gate_type: "manual:gate-change".into(),
        evidence_uri: Some(uri),
        reason: Some("harmless".into()),
        expires_after_s: None,
    };
    assert_eq!(gate_create(&lab.ctx.db, &older).await.unwrap(), GateCreated::Created);
    let (_, shown) = page(format!("/ui/gates/{}", older.id)).await;
    assert!(shown.contains("the question of who made the gate") && !shown.contains("Test deleted"), "{shown}");
    // The link leads to the attempt that left the evidence, whose page has the findings.
    let place = format!("/ui/runs/{run}/steps/0?attempt=1");
    let (status, shown) = page(place.clone()).await;
    assert_eq!(status, 200, "{shown}");
    for words in [
        "<div id=\"evidence\">",
        "bad &lt;b&gt;",
        "two &lt;i&gt;",
        &format!("gates/{gate}"),
        &format!("artifacts/{evidence}"),
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let (_, list) = page("/ui/inbox".into()).await;
    assert!(list.contains(&format!("gates/{gate}")), "the inbox links the decision");
    let (_, shown) = page(format!("/ui/runs/{run}")).await;
    assert!(shown.contains(&format!("../artifacts/{evidence}")) && shown.contains(&format!("../gates/{gate}")));

    // The object was replaced after it was recorded.
    let uri = lab.text("select uri from nofx.artifact where id = $1", evidence).await;
    let bucket = &lab.ctx.config.artifacts.bucket;
    let key = uri.strip_prefix(&format!("s3://{bucket}/")).expect("in the bucket");
    let other = br#"{"schema": "nofx.gate_evidence.v2", "verdict": "passed"}"#.to_vec();
    s3(&sdk().await).put_object().bucket(bucket).key(key).body(other.into()).send().await.expect("replaced");
    let refused = async |why: &str| {
        let (status, shown) = page(place.clone()).await;
        assert_eq!(status, 200, "what cannot be read must not hide the step: {shown}");
        assert!(shown.contains("The evidence cannot be shown") && shown.contains(why), "{why}: {shown}");
        assert!(!shown.contains("bad &lt;b&gt;") && !shown.contains("What was judged"), "{shown}");
    };
    refused("has changed since it was recorded").await;

    let too_large = "update nofx.artifact set size_bytes = 5000000 where id = $1";
    lab.admin.execute(too_large, &[&evidence]).await.unwrap();
    refused("has 5000000 bytes").await;
    for table in ["artifact", "gate"] {
        let sql = format!("update nofx.{table} set tenant_id = 'other'");
        lab.admin.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(page(format!("/ui/gates/{gate}")).await.0, 404);
}

#[tokio::test]
async fn a_difference_that_nobody_can_see_can_only_be_rejected() {
    let lab = Lab::with_bucket().await;
    let console = Gateway::console(&lab, Shape::Http);
    lab.submit(&json!({"goal": "g", "steps": [plans::step("unit", "gate:unit", json!({}))]})).await;
    lab.settle(&asking(), Deliver::Once).await;
    let row = lab.admin.query_one("select g.id, g.evidence_uri from nofx.gate g", &[]).await.unwrap();
    let (gate, uri): (Uuid, String) = (row.get(0), row.get(1));
    let bucket = &lab.ctx.config.artifacts.bucket;
    let key = uri.strip_prefix(&format!("s3://{bucket}/")).expect("in the bucket");
    s3(&sdk().await).put_object().bucket(bucket).key(key).body(b"{}".to_vec().into()).send().await.expect("replaced");

    let path = format!("/ui/gates/{gate}");
    let opened = console.get(&path).await;
    let shown = opened.body.as_str().unwrap_or_default().to_owned();
    assert_eq!(opened.status, 200, "{shown}");
    for words in ["The difference cannot be shown: ", "has changed since it was recorded", "You can reject the gate"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.contains("id=\"o-reject\"") && !shown.contains("id=\"o-approve\""), "{shown}");

    let decide = async |verb: &str| {
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin"), COOKIE];
        let form = "actor=ann&reason=unseen&csrf=0123456789abcdef0123456789abcdef".to_owned();
        console.send("POST", &format!("{path}/{verb}"), &headers, Some(form)).await
    };
    for verb in ["approve", "waive"] {
        let refused = decide(verb).await;
        let shown = refused.body.as_str().unwrap_or_default();
        assert_eq!(refused.status, 400, "{shown}");
        assert!(shown.contains("Nothing was decided.") && shown.contains("Only a rejection is possible."), "{shown}");
        assert_eq!(lab.text("select status from nofx.gate where id = $1", gate).await, "pending");
    }
    assert_eq!(decide("reject").await.status, 303);
    assert_eq!(lab.text("select status from nofx.gate where id = $1", gate).await, "failed");
}
