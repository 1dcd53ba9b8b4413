//! Routes, each with both event formats.

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SHAPES};

fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}

fn chain_body() -> Value {
    json!({"plan": plans::chain(3)})
}

#[tokio::test]
async fn a_run_is_created_listed_and_read() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let created = api.post("/runs", &chain_body()).await;
        assert_eq!((created.status, &created.body["status"]), (201, &json!("queued")), "{created:?}");
        let run = id(&created.body);
        assert_eq!(created.header("location"), Some(format!("/runs/{run}").as_str()));
        assert_eq!(created.header("x-request-id"), Some("gateway-1"));

        lab.settle(&Script::deployed(), Deliver::Once).await;
        let read = api.get(&format!("/runs/{run}")).await.body;
        assert_eq!(read["run"]["status"], "succeeded");
        assert_eq!(read["steps"].as_array().map(Vec::len), Some(3));
        assert_eq!(read["steps"][1]["depends_on"], json!(["s0"]));
        assert_eq!(read["artifacts"], json!([]));
        assert_eq!(api.get("/runs").await.body["runs"][0]["id"], json!(run));
        assert_eq!(api.get(&format!("/runs/{run}/gates")).await.body, json!([]));
        assert_eq!(api.get(&format!("/runs/{run}/lineage")).await.body["nodes"], json!([]));
        assert_eq!(api.get("/health").await.body["status"], "ok");
    }
}

#[tokio::test]
async fn pages_of_timelines_and_runs_have_no_gaps_and_no_repetitions() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let run = id(&api.post("/runs", &chain_body()).await.body);
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let mut seen = Vec::new();
        let mut next = format!("/runs/{run}/timeline?limit=5");
        loop {
            let page = api.get(&next).await;
            seen.extend(page.body.as_array().expect("a bare array").iter().map(|event| event["seq"].clone()));
            let Some(link) = page.header("link") else { break };
            let query = link.trim_start_matches('<').split('>').next().expect("a link target");
            assert!(query.starts_with("?after="), "{query}");
            next = format!("/runs/{run}/timeline{query}");
        }
        let whole: Vec<_> = (1..=seen.len()).map(|seq| json!(seq)).collect();
        assert_eq!(seen, whole);
        assert!(seen.len() > 10);

        let mut all = vec![json!(run)];
        for _ in 0..4 {
            all.insert(0, json!(id(&api.post("/runs", &chain_body()).await.body)));
        }
        let (mut listed, mut next) = (Vec::new(), "/runs?limit=2".to_owned());
        loop {
            let page = api.get(&next).await.body;
            listed.extend(page["runs"].as_array().expect("runs").iter().map(|run| run["id"].clone()));
            let Some(cursor) = page["next"].as_str() else { break };
            next = format!("/runs?limit=2&after={cursor}");
        }
        assert_eq!(listed, all);
    }
}

#[tokio::test]
async fn invalid_input_gets_a_problem_document_with_every_path() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let plan = json!({"plan": {"goal": "g", "steps": [{"name": "", "tool": "bash"}]}});
        let rejected = api.post("/runs", &plan).await;
        assert_eq!(rejected.status, 400);
        assert_eq!(rejected.header("content-type"), Some("application/problem+json"));
        assert_eq!(rejected.body["request_id"], "gateway-1");
        let errors = rejected.body["errors"].as_array().expect("errors");
        let paths: Vec<_> = errors.iter().filter_map(|error| error["path"].as_str()).collect();
        assert_eq!(paths, ["plan.steps[0].name", "plan.steps[0].tool"]);

        let broken = api.send("POST", "/runs", &[], Some("{".into())).await;
        assert_eq!(broken.status, 400);
        assert!(broken.body["errors"][0]["message"].as_str().is_some_and(|text| text.contains("not JSON")));
        let archive = "0190a0a0-0000-7000-8000-000000000001";
        let missing = json!({"plan": {"goal": "g", "steps": [{"name": "a", "tool": "echo"}],
            "workspace": {"archive": archive}}});
        let missing = api.post("/runs", &missing).await;
        assert_eq!((missing.status, &missing.body["errors"][0]["path"]), (400, &json!("plan.workspace.archive")));
        assert_eq!(api.get("/runs?limit=0").await.status, 400);
        assert_eq!(api.get("/runs?after=xyz").await.status, 400);
        assert_eq!(api.get("/runs/nope").await.status, 404);
        assert_eq!(api.get(&format!("/runs/{archive}/timeline")).await.status, 404);
        assert_eq!(api.get("/nothing").await.status, 404);
        assert_eq!(api.send("DELETE", "/runs", &[], None).await.status, 405);
        let count: i64 = lab.admin.query_one("select count(*) from nofx.run", &[]).await.unwrap().get(0);
        assert_eq!(count, 0, "a rejected request stores nothing");
    }
}

#[tokio::test]
async fn an_idempotency_key_creates_one_run_and_rejects_another_request() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let key = [("Idempotency-Key", "k1")];
        let first = api.send("POST", "/runs", &key, Some(chain_body().to_string())).await;
        let again = api.send("POST", "/runs", &key, Some(chain_body().to_string())).await;
        assert_eq!((first.status, again.status), (201, 200));
        assert_eq!(first.body["id"], again.body["id"]);
        let other = json!({"plan": plans::chain(2)}).to_string();
        assert_eq!(api.send("POST", "/runs", &key, Some(other)).await.status, 409);
        for bad in ["", "a\tb", "ü", &"k".repeat(256)] {
            let refused = api.send("POST", "/runs", &[("Idempotency-Key", bad)], Some(chain_body().to_string())).await;
            assert_eq!((refused.status, &refused.body["errors"][0]["path"]), (400, &json!("Idempotency-Key")), "{bad}");
        }
    }
}

#[tokio::test]
async fn a_run_is_paused_resumed_cancelled_and_retried() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let run = id(&api.post("/runs", &chain_body()).await.body);
        let post = async |what: &str| {
            let answer = api.send("POST", &format!("/runs/{run}/{what}"), &[], None).await;
            (answer.status, answer.body["status"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(post("pause").await, (200, "paused".into()));
        let why = api.get(&format!("/runs/{run}/steps/s0/why")).await.body;
        assert!(why["why"].as_str().is_some_and(|why| why.contains("paused")), "{why}");
        assert_eq!(post("resume").await, (200, "queued".into()));
        assert_eq!(post("retry").await.0, 409);
        assert_eq!(post("cancel").await, (200, "cancelled".into()));
        assert_eq!(post("cancel").await, (200, "cancelled".into()));
        assert_eq!(post("pause").await.0, 409);
        assert_eq!(post("retry").await, (200, "queued".into()));
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(api.get(&format!("/runs/{run}")).await.body["run"]["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_gate_is_decided_once_and_the_second_decision_changes_nothing() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let (api, approvals) = (Gateway::api(&lab, shape), Gateway::approvals(&lab, shape));
        let run = id(&api.post("/runs", &json!({"plan": plans::approval(60)})).await.body);
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let gates = api.get(&format!("/runs/{run}/gates")).await.body;
        let gate = id(&gates[0]);
        assert_eq!(gates[0]["status"], "pending");
        assert_eq!(approvals.get("/gates").await.body[0]["id"], json!(gate));
        let why = api.get(&format!("/runs/{run}/steps/ask/why")).await.body;
        assert!(why["why"].as_str().is_some_and(|why| why.contains("manual:deploy")), "{why}");

        let approve = approvals.post(&format!("/gates/{gate}/approve"), &json!({"actor": "ann"})).await;
        assert_eq!((approve.status, &approve.body["status"]), (200, &json!("passed")));
        assert_eq!(approve.body["approved_by"], "ann");
        for decision in ["approve", "reject", "waive"] {
            let again =
                approvals.post(&format!("/gates/{gate}/{decision}"), &json!({"actor": "bob", "reason": "late"})).await;
            assert_eq!(again.status, 409, "{decision}");
        }
        assert_eq!(approvals.get(&format!("/gates/{gate}")).await.body["approved_by"], "ann");
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(api.get(&format!("/runs/{run}")).await.body["run"]["status"], "succeeded");
    }
}

#[tokio::test]
async fn to_reject_or_waive_needs_a_reason() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let approvals = Gateway::approvals(&lab, shape);
        lab.submit(&plans::approval(60)).await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let gate = id(&approvals.get("/gates").await.body[0]);
        for (verb, why) in [
            ("reject", "reason: must say why the gate is rejected"),
            ("waive", "reason: must say why the gate is waived"),
        ] {
            for body in [json!({}), json!({"actor": "ann"}), json!({"reason": null}), json!({"reason": " \n"})] {
                let refused = approvals.post(&format!("/gates/{gate}/{verb}"), &body).await;
                assert_eq!((refused.status, refused.body["detail"].as_str()), (400, Some(why)), "{verb} {body}");
                assert_eq!(refused.body["errors"].as_array().map(Vec::len), Some(1), "{refused:?}");
                assert_eq!(refused.body["errors"][0]["path"], "reason");
            }
            let both = approvals.post(&format!("/gates/{gate}/{verb}"), &json!({"actor": "", "reason": 7})).await;
            assert_eq!(both.status, 400);
            assert_eq!(both.body["errors"].as_array().map(Vec::len), Some(2), "each problem once: {both:?}");
        }
        assert_eq!(approvals.get(&format!("/gates/{gate}")).await.body["status"], "pending");
        let rejected = approvals.post(&format!("/gates/{gate}/reject"), &json!({"reason": "no"})).await;
        assert_eq!((rejected.status, &rejected.body["decision"]["reason"]), (200, &json!("no")));
    }
}

#[tokio::test]
async fn a_run_says_who_started_it() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let mut body = chain_body();
        let nobody = api.post("/runs", &body).await;
        body["actor"] = json!(" ann ");
        let by_ann = api.post("/runs", &body).await;
        for (made, name) in [(nobody, json!("local")), (by_ann, json!("ann"))] {
            assert_eq!(made.status, 201, "{made:?}");
            let run = id(&made.body);
            assert_eq!(api.get(&format!("/runs/{run}")).await.body["run"]["created_by"], name);
            assert_eq!(api.get(&format!("/runs/{run}/timeline")).await.body[0]["payload"]["actor"], name);
        }
        let listed = api.get("/runs?created_by=ann").await.body;
        assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1), "{listed}");
        assert_eq!(listed["runs"][0]["created_by"], "ann");
        for (actor, why) in
            [(json!(""), "must be a name"), (json!(7), "must be a name"), (json!("x".repeat(201)), "must be a name")]
        {
            body["actor"] = actor;
            let refused = api.post("/runs", &body).await;
            assert_eq!((refused.status, &refused.body["errors"][0]["path"]), (400, &json!("actor")));
            assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{refused:?}");
            let checked = api.post("/plans/check", &body).await;
            assert_eq!((checked.status, &checked.body["errors"]), (400, &refused.body["errors"]));
        }
    }
}

#[tokio::test]
async fn a_gate_with_camel_case_fields_blocks_the_end_of_its_run() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let (api, approvals) = (Gateway::api(&lab, shape), Gateway::approvals(&lab, shape));
        let run = id(&api.post("/runs", &chain_body()).await.body);
        let body = json!({"runId": run, "gateType": "release", "evidenceUri": "s3://x/y"});
        let gate = approvals.post("/gates", &body).await;
        assert_eq!((gate.status, &gate.body["gate_type"]), (201, &json!("release")));
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(api.get(&format!("/runs/{run}")).await.body["run"]["status"], "blocked");
        let waived = approvals.post(&format!("/gates/{}/waive", id(&gate.body)), &json!({"reason": "fine"})).await;
        assert_eq!(waived.body["status"], "waived");
        assert_eq!(api.get(&format!("/runs/{run}")).await.body["run"]["status"], "succeeded");
        let late = approvals.post("/gates", &body).await;
        assert_eq!(late.status, 409, "{late:?}");
    }
}

#[tokio::test]
async fn nobody_can_ask_in_the_name_of_the_system_or_with_text_that_readers_cannot_see() {
    let lab = Lab::new().await;
    for shape in SHAPES {
        let (api, approvals) = (Gateway::api(&lab, shape), Gateway::approvals(&lab, shape));
        let refused = |answer: &Answer| {
            let errors = answer.body["errors"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
            let text = |error: &Value, key: &str| error[key].as_str().unwrap_or_default().to_owned();
            assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid")), "{answer:?}");
            errors.iter().map(|error| (text(error, "path"), text(error, "message"))).collect::<Vec<_>>()
        };
        let run = id(&api.post("/runs", &chain_body()).await.body);
        let gate =
            json!({"run_id": run, "gate_type": "release", "evidence_uri": "https://x.test/y", "reason": "a\r\nb"});
        for (field, value, words) in [
            ("gate_type", "manual:gate-change", "only the system creates it"),
            ("gate_type", "gate:unit", "only the system creates gates that evidence decides"),
            ("gate_type", "rel\u{200b}ease", "U+200B"),
            ("evidence_uri", "https://x.test/\u{202e}y", "U+202E"),
            ("reason", "pay \u{2066}3", "U+2066"),
        ] {
            let mut body = gate.clone();
            body[field] = json!(value);
            let found = refused(&approvals.post("/gates", &body).await);
            assert!(
                matches!(found.as_slice(), [(path, message)] if path == field && message.contains(words)),
                "{found:?}"
            );
        }
        let gate = approvals.post("/gates", &gate).await;
        assert_eq!(gate.status, 201, "{gate:?}");
        let decision = format!("/gates/{}/reject", id(&gate.body));
        for (field, body) in [
            ("actor", json!({"actor": "ann\u{202e}", "reason": "no"})),
            ("reason", json!({"actor": "ann", "reason": "no\u{200b}"})),
        ] {
            let found = refused(&approvals.post(&decision, &body).await);
            assert!(
                matches!(found.as_slice(), [(path, message)] if path == field && message.contains("U+20")),
                "{found:?}"
            );
        }
        let asks = json!({"name": "a\u{202e}", "tool": "manual:gate-change", "inputs": {"reason": "b\u{200b}"}});
        let plan = json!({"plan": {"goal": "c\u{feff}", "steps": [asks]}});
        for path in ["/runs", "/plans/check"] {
            let found = refused(&api.post(path, &plan).await);
            let places: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(places, ["plan.goal", "plan.steps[0].name", "plan.steps[0].tool"], "{found:?}");
            assert!(found[2].1.contains("only the system creates it"), "{found:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_creates_an_artifact_that_only_its_tenant_sees() {
    let lab = Lab::with_bucket().await;
    for shape in SHAPES {
        let api = Gateway::api(&lab, shape);
        let body = json!({"sha256": "a".repeat(64), "size_bytes": 3, "media_type": "application/gzip"});
        let upload = api.post("/workspaces", &body).await;
        assert_eq!(upload.status, 201, "{upload:?}");
        let artifact = id(&upload.body);
        assert!(upload.body["upload_url"].as_str().is_some_and(|url| url.contains(&artifact)));
        assert_eq!(api.get(&format!("/artifacts/{artifact}")).await.body["hash"], json!("a".repeat(64)));
        let download = api.get(&format!("/artifacts/{artifact}/download")).await;
        assert_eq!(download.status, 302);
        let signed_url = download.header("location").expect("an address");
        assert!(signed_url.contains("X-Amz-Signature") && signed_url.contains("X-Amz-Expires=300&"), "{signed_url}");
        assert_eq!(download.header("cache-control"), Some("no-store"));
        let refused = api.post("/workspaces", &json!({"sha256": "A", "size_bytes": 0})).await;
        assert_eq!(refused.body["errors"].as_array().map(Vec::len), Some(2), "{refused:?}");
        let sql = "update nofx.artifact set tenant_id = 'other' where id = $1::text::uuid";
        lab.admin.execute(sql, &[&artifact]).await.unwrap();
        assert_eq!(api.get(&format!("/artifacts/{artifact}")).await.status, 404);
        assert_eq!(api.get(&format!("/artifacts/{artifact}/download")).await.status, 404);
    }
}
