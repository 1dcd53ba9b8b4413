//! Reads that clients poll: each change of an answer changes its `ETag`, and an answer that the client has costs one read.

use nofx::client::api::{Api, Polled};
use nofx_tests::lab::context;
use nofx_tests::script::{flaky, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::{RunId, TenantId};
use shared::flow::sweep::sweep;
use shared::storage::Describe;

use crate::gateway::{Answer, Gateway, SHAPES, Shape};
use crate::submit::serve;

/// The reads of a run, by their paths below it.
const READS: [&str; 8] =
    ["", "/steps", "/steps?limit=1", "/steps/build", "/timeline", "/timeline?after=3", "/gates", "/artifacts"];

async fn read(api: &Gateway, path: &str, tag: &str) -> Answer {
    api.send("GET", path, &[("If-None-Match", tag)], None).await
}

fn tag(answer: &Answer) -> String {
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("vary"), Some("accept-encoding"));
    let tag = answer.header("etag").expect("a tag");
    assert!(tag.starts_with("W/\"") && tag.ends_with('"') && tag.len() == 36, "{tag}");
    tag.to_owned()
}

/// What a client knows of each read: tag and body.
struct Known(Vec<(String, Value)>);

impl Known {
    async fn of(api: &Gateway, run: RunId) -> Self {
        let mut known = Vec::new();
        for path in READS {
            let answer = api.get(&format!("/runs/{run}{path}")).await;
            assert_eq!(answer.status, 200, "{path}");
            known.push((tag(&answer), answer.body));
        }
        Self(known)
    }

    /// Reads all again. Each answer is 304, or new in tag and body. Returns the paths of those that changed.
    async fn again(&mut self, api: &Gateway, run: RunId) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for ((known, body), path) in self.0.iter_mut().zip(READS) {
            let answer = read(api, &format!("/runs/{run}{path}"), known).await;
            let whole = api.get(&format!("/runs/{run}{path}")).await;
            if answer.status == 304 {
                assert_eq!((answer.bytes, tag(&answer)), (0, known.clone()), "{path}");
                assert_eq!(&whole.body, body, "{path} has changed under its tag");
            } else {
                assert_eq!(answer.status, 200, "{path}");
                assert_ne!(&tag(&answer), known, "{path}");
                if whole.body != *body {
                    changed.push(path);
                }
            }
            (*known, *body) = (tag(&whole), whole.body);
        }
        changed
    }
}

#[tokio::test]
async fn every_change_of_an_answer_changes_its_tag() {
    let lab = Lab::with_bucket().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http));
    let mut plan = json!({"goal": "g", "timeout_s": 3600, "steps": [
        plans::step("build", "codegen", json!({})),
        plans::after("test", &["build"], json!({})),
        plans::step("ask", "manual:deploy", json!({})),
        plans::after("deploy", &["test", "ask"], json!({})),
    ]});
    plan["steps"][2]["timeout_s"] = json!(600);
    plan["steps"][2]["depends_on"] = json!(["test"]);
    let run = lab.submit(&plan).await;
    let mut known = Known::of(&api, run).await;
    assert_eq!(known.again(&api, run).await, [""; 0], "nothing happened");

    // What belongs to no run changes none.
    let upload = json!({"sha256": "0".repeat(64), "size_bytes": 1});
    assert_eq!(api.post("/workspaces", &upload).await.status, 201);
    lab.wakeups_due(run).await;
    sweep(&lab.ctx).await.unwrap();
    assert_eq!(known.again(&api, run).await, [""; 0], "an upload, and a wake-up");

    let post = async |path: String, body: Value| approvals.post(&path, &body).await;
    let control = async |verb: &str| api.post(&format!("/runs/{run}/{verb}"), &json!({})).await.status;
    let all_but_lists = ["", "/timeline", "/timeline?after=3"];
    assert_eq!(control("pause").await, 200);
    assert_eq!(known.again(&api, run).await, all_but_lists, "paused");
    assert_eq!(control("resume").await, 200);
    assert_eq!(known.again(&api, run).await, all_but_lists, "resumed");
    let gate = post("/gates".into(), json!({"run_id": run, "gate_type": "own", "expires_after_s": 60})).await;
    assert_eq!(gate.status, 201);
    assert!(known.again(&api, run).await.contains(&"/gates"), "a gate of the run");
    let step = api.get(&format!("/runs/{run}/steps/build")).await.body["id"].take();
    let before = post("/gates".into(), json!({"run_id": run, "step_id": step, "gate_type": "before"})).await;
    assert_eq!(before.status, 201);
    let changed = known.again(&api, run).await;
    assert!(changed.contains(&"/steps/build") && changed.contains(&"/steps?limit=1"), "{changed:?}");
    let id = before.body["id"].as_str().expect("an id");
    assert_eq!(post(format!("/gates/{id}/waive"), json!({"reason": "fine"})).await.status, 200);
    assert!(known.again(&api, run).await.contains(&"/gates"), "a decision");

    // One step after the other, each from its claim on, with an artifact and a failure that is retried.
    let script = Script::overriding(|step, store| async move {
        match (step.name.as_str(), step.attempt) {
            ("build", 1) => Some(flaky()),
            ("build", _) => {
                let describe = Describe { kind: "text", media_type: "text/plain", ..Describe::default() };
                let artifact = store.put("x", describe, b"x".to_vec()).await.expect("stored");
                let mut outcome = succeeded(json!({}));
                outcome.artifacts.push(artifact);
                Some(outcome)
            }
            _ => None,
        }
    });
    let build = lab.step(run, "build").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        lab.settle(&script, Deliver::Once).await;
        seen.extend(known.again(&api, run).await);
        lab.delay_over(build).await;
        lab.wakeups_due(run).await;
        sweep(&lab.ctx).await.unwrap();
        // Moving time writes into rows without a transition.
        known = Known::of(&api, run).await;
    }
    for path in ["", "/steps", "/steps/build", "/timeline", "/artifacts", "/gates"] {
        assert!(seen.contains(&path), "{path} never changed: {seen:?}");
    }
    assert_eq!(lab.run_status(run).await, "blocked");
    lab.deadline_over(run).await;
    known = Known::of(&api, run).await;
    sweep(&lab.ctx).await.unwrap();
    let changed = known.again(&api, run).await;
    assert!(["", "/steps", "/timeline", "/gates"].iter().all(|path| changed.contains(path)), "{changed:?}");
    assert_eq!(control("retry").await, 200);
    assert!(known.again(&api, run).await.contains(&"/steps"), "a retry");
    assert_eq!(control("cancel").await, 200);
    assert!(known.again(&api, run).await.contains(&"/steps"), "a cancel");
    assert_eq!(known.again(&api, run).await, [""; 0], "nothing happened since");
}

#[tokio::test]
async fn an_answer_that_the_client_has_costs_one_read_and_has_no_body() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("build", "echo", json!({}))]})).await;
        let mut tags = Vec::new();
        for path in READS {
            let path = format!("/runs/{run}{path}");
            let current = tag(&api.get(&path).await);
            for known in [&current, current.trim_start_matches("W/"), &format!("\"a,b\", {current}")] {
                let before = lab.ctx.db.round_trips();
                let answer = read(&api, &path, known).await;
                assert_eq!((answer.status, answer.bytes, tag(&answer)), (304, 0, current.clone()), "{path} {known}");
                assert_eq!(lab.ctx.db.round_trips() - before, 1, "{path}");
                assert_eq!((answer.header("content-type"), answer.header("link")), (None, None), "{path}");
            }
            for head in [
                api.send("HEAD", &path, &[], None).await,
                api.send("HEAD", &path, &[("If-None-Match", "\"x\"")], None).await,
            ] {
                assert_eq!((head.status, head.bytes, tag(&head)), (200, 0, current.clone()), "{path}");
            }
            let head = api.send("HEAD", &path, &[("If-None-Match", &current)], None).await;
            assert_eq!((head.status, head.bytes), (304, 0), "{path}");
            assert_eq!(read(&api, &path, "*").await.status, 304, "{path}");
            for other in ["\"x\"", "nonsense", "*, \"x\""] {
                assert_eq!(read(&api, &path, other).await.status, 200, "{path} {other}");
            }
            tags.push(current);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), READS.len(), "each address has a tag of its own");

        let stranger = "0198c0de-0000-7000-8000-000000000001";
        for (path, status) in [
            (format!("/runs/{stranger}"), 404),
            (format!("/runs/{stranger}/timeline"), 404),
            (format!("/runs/{run}/steps/none"), 404),
            (format!("/runs/{run}/steps?after={stranger}"), 400),
            (format!("/runs/{run}/gates?after={stranger}"), 400),
            (format!("/runs/{run}/artifacts?after={stranger}"), 400),
            (format!("/runs/{run}/timeline?limit=0"), 400),
        ] {
            let answer = read(&api, &path, "*").await;
            assert_eq!((answer.status, answer.header("etag")), (status, None), "{path}");
        }
    }
}

#[tokio::test]
async fn a_tag_shows_nothing_to_another_tenant() {
    let mut lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let path = format!("/runs/{run}");
    let current = tag(&Gateway::api(&lab, Shape::Http).get(&path).await);
    let mut config = lab.ctx.config.clone();
    config.tenant = TenantId("other".into());
    lab.ctx = context(config).await;
    assert_eq!(read(&Gateway::api(&lab, Shape::Http), &path, &current).await.status, 404);
}

#[tokio::test]
async fn a_client_that_polls_gets_each_answer_once() {
    let lab = Lab::new().await;
    let api: Api = serve(&lab).await;
    let run = lab.submit(&plans::chain(2)).await;
    let mut polled = Polled::<Value>::of(format!("/runs/{run}"));
    assert_eq!(api.poll(&mut polled).await.unwrap()["run"]["status"], "queued");
    let before = lab.ctx.db.round_trips();
    assert_eq!(api.poll(&mut polled).await.unwrap()["run"]["status"], "queued");
    assert_eq!(lab.ctx.db.round_trips() - before, 1, "the answer that it has");
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(api.poll(&mut polled).await.unwrap()["run"]["status"], "succeeded");
    let mut missing = Polled::<Value>::of("/runs/none".into());
    assert!(api.poll(&mut missing).await.unwrap_err().to_string().contains("404"));
}
