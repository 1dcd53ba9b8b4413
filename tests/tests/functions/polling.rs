//! ETags: each change of an answer changes its tag, and a 304 costs one query.

use nofx::client::api::{Api, Polled};
use nofx_tests::lab::context;
use nofx_tests::script::{flaky, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::{RunId, TenantId};
use shared::flow::sweep::sweep;
use shared::storage::ArtifactMeta;

use crate::gateway::{Answer, Gateway, SHAPES, Shape};
use crate::submit::serve;

/// Paths with an ETag below `/runs/{id}`.
const PATHS: [&str; 7] =
    ["", "/steps", "/steps?limit=1", "/steps/build", "/timeline", "/timeline?after=3", "/artifacts"];

async fn get_if_none_match(api: &Gateway, path: &str, tag: &str) -> Answer {
    api.send("GET", path, &[("If-None-Match", tag)], None).await
}

fn tag(answer: &Answer) -> String {
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("vary"), Some("accept-encoding, authorization, nofx-authorization, cookie"));
    let tag = answer.header("etag").expect("a tag");
    assert!(tag.starts_with("W/\"") && tag.ends_with('"') && tag.len() == 36, "{tag}");
    tag.to_owned()
}

/// The tag and body of each path that the client has.
struct Cache(Vec<(String, Value)>);

impl Cache {
    async fn fill(api: &Gateway, run: RunId) -> Self {
        let mut entries = Vec::new();
        for path in PATHS {
            let answer = api.get(&format!("/runs/{run}{path}")).await;
            assert_eq!(answer.status, 200, "{path}");
            entries.push((tag(&answer), answer.body));
        }
        Self(entries)
    }

    /// Requests all paths again. Each answer is 304 or has a new tag. Returns the paths whose bodies changed.
    async fn revalidate(&mut self, api: &Gateway, run: RunId) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for ((old_tag, body), path) in self.0.iter_mut().zip(PATHS) {
            let answer = get_if_none_match(api, &format!("/runs/{run}{path}"), old_tag).await;
            let current = api.get(&format!("/runs/{run}{path}")).await;
            if answer.status == 304 {
                assert_eq!((answer.bytes, tag(&answer)), (0, old_tag.clone()), "{path}");
                assert_eq!(&current.body, body, "{path} changed, but its tag did not");
            } else {
                assert_eq!(answer.status, 200, "{path}");
                assert_ne!(&tag(&answer), old_tag, "{path}");
                if current.body != *body {
                    changed.push(path);
                }
            }
            (*old_tag, *body) = (tag(&current), current.body);
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
    let mut cache = Cache::fill(&api, run).await;
    assert_eq!(cache.revalidate(&api, run).await, [""; 0], "nothing happened");

    // Uploads and wake-ups change no tag.
    let upload = json!({"sha256": "0".repeat(64), "size_bytes": 1});
    assert_eq!(api.post("/workspaces", &upload).await.status, 201);
    lab.wakeups_due(run).await;
    sweep(&lab.ctx).await.unwrap();
    assert_eq!(cache.revalidate(&api, run).await, [""; 0], "an upload, and a wake-up");

    let post = async |path: String, body: Value| approvals.post(&path, &body).await;
    let control = async |verb: &str| api.post(&format!("/runs/{run}/{verb}"), &json!({})).await.status;
    let run_and_events = ["", "/timeline", "/timeline?after=3"];
    assert_eq!(control("pause").await, 200);
    assert_eq!(cache.revalidate(&api, run).await, run_and_events, "paused");
    assert_eq!(control("resume").await, 200);
    assert_eq!(cache.revalidate(&api, run).await, run_and_events, "resumed");
    let gate = post("/gates".into(), json!({"run_id": run, "gate_type": "own", "expires_after_s": 60})).await;
    assert_eq!(gate.status, 201);
    // How a gate stands also depends on members, the policy and the clock.
    assert_eq!(api.get(&format!("/runs/{run}/gates")).await.header("etag"), None);
    assert!(cache.revalidate(&api, run).await.contains(&"/timeline"), "a gate of the run");
    let step = api.get(&format!("/runs/{run}/steps/build")).await.body["id"].take();
    let before = post("/gates".into(), json!({"run_id": run, "step_id": step, "gate_type": "before"})).await;
    assert_eq!(before.status, 201);
    let changed = cache.revalidate(&api, run).await;
    assert!(changed.contains(&"/steps/build") && changed.contains(&"/steps?limit=1"), "{changed:?}");
    let id = before.body["id"].as_str().expect("an id");
    assert_eq!(post(format!("/gates/{id}/waive"), json!({"reason": "fine"})).await.status, 200);
    assert!(cache.revalidate(&api, run).await.contains(&"/timeline"), "a decision");

    // Runs the steps, with an artifact and a retried failure.
    let script = Script::overriding(|step, store| async move {
        match (step.name.as_str(), step.attempt) {
            ("build", 1) => Some(flaky()),
            ("build", _) => {
                let meta = ArtifactMeta { kind: "text", media_type: "text/plain", ..ArtifactMeta::default() };
                let artifact = store.put("x", meta, b"x".to_vec()).await.expect("stored");
                let mut outcome = succeeded(json!({}));
                outcome.artifacts.push(artifact);
                Some(outcome)
            }
            _ => None,
        }
    });
    let build = lab.step(run, "build").await;
    let mut changed_paths = Vec::new();
    for _ in 0..4 {
        lab.settle(&script, Deliver::Once).await;
        changed_paths.extend(cache.revalidate(&api, run).await);
        lab.delay_over(build).await;
        lab.wakeups_due(run).await;
        sweep(&lab.ctx).await.unwrap();
        // delay_over changed timestamps without a transition.
        cache = Cache::fill(&api, run).await;
    }
    for path in ["", "/steps", "/steps/build", "/timeline", "/artifacts"] {
        assert!(changed_paths.contains(&path), "{path} never changed: {changed_paths:?}");
    }
    assert_eq!(lab.run_status(run).await, "blocked");
    lab.deadline_over(run).await;
    cache = Cache::fill(&api, run).await;
    sweep(&lab.ctx).await.unwrap();
    let changed = cache.revalidate(&api, run).await;
    assert!(["", "/steps", "/timeline"].iter().all(|path| changed.contains(path)), "{changed:?}");
    assert_eq!(control("retry").await, 200);
    assert!(cache.revalidate(&api, run).await.contains(&"/steps"), "a retry");
    assert_eq!(control("cancel").await, 200);
    assert!(cache.revalidate(&api, run).await.contains(&"/steps"), "a cancel");
    assert_eq!(cache.revalidate(&api, run).await, [""; 0], "nothing happened");
}

#[tokio::test]
async fn a_304_costs_one_query_and_has_no_body() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("build", "echo", json!({}))]})).await;
        let mut tags = Vec::new();
        for path in PATHS {
            let path = format!("/runs/{run}{path}");
            let current = tag(&api.get(&path).await);
            for sent in [&current, current.trim_start_matches("W/"), &format!("\"a,b\", {current}")] {
                let before = lab.ctx.db.round_trips();
                let answer = get_if_none_match(&api, &path, sent).await;
                assert_eq!((answer.status, answer.bytes, tag(&answer)), (304, 0, current.clone()), "{path} {sent}");
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
            assert_eq!(get_if_none_match(&api, &path, "*").await.status, 304, "{path}");
            for other in ["\"x\"", "nonsense", "*, \"x\""] {
                assert_eq!(get_if_none_match(&api, &path, other).await.status, 200, "{path} {other}");
            }
            tags.push(current);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), PATHS.len(), "each URL has its own tag");

        let unknown = "0198c0de-0000-7000-8000-000000000001";
        for (path, status) in [
            (format!("/runs/{unknown}"), 404),
            (format!("/runs/{unknown}/timeline"), 404),
            (format!("/runs/{run}/steps/none"), 404),
            (format!("/runs/{run}/steps?after={unknown}"), 400),
            (format!("/runs/{run}/gates?after={unknown}"), 400),
            (format!("/runs/{run}/artifacts?after={unknown}"), 400),
            (format!("/runs/{run}/timeline?limit=0"), 400),
        ] {
            let answer = get_if_none_match(&api, &path, "*").await;
            assert_eq!((answer.status, answer.header("etag")), (status, None), "{path}");
        }
    }
}

#[tokio::test]
async fn a_restore_changes_the_tag_even_if_event_numbers_repeat() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let (api, path) = (Gateway::api(&lab, Shape::Http), format!("/runs/{run}/timeline"));
    let before = tag(&api.get(&path).await);
    // After the restore, another event got the number of the last one.
    let sql = "update nofx.event e set timestamp = e.timestamp + interval '1 microsecond'
                 from nofx.run r where r.id = $1 and e.run_id = r.id and e.seq = r.event_seq";
    assert_eq!(lab.rewrite("event", sql, &[&run.0]).await, 1);
    assert_eq!(get_if_none_match(&api, &path, &before).await.status, 200);
}

#[tokio::test]
async fn another_tenant_with_the_tag_gets_404() {
    let mut lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let path = format!("/runs/{run}");
    let current = tag(&Gateway::api(&lab, Shape::Http).get(&path).await);
    let mut config = lab.ctx.config.clone();
    config.tenant = TenantId("other".into());
    lab.ctx = context(config).await;
    assert_eq!(get_if_none_match(&Gateway::api(&lab, Shape::Http), &path, &current).await.status, 404);
}

#[tokio::test]
async fn the_client_revalidates_with_one_query() {
    let lab = Lab::new().await;
    let api: Api = serve(&lab).await;
    let run = lab.submit(&plans::chain(2)).await;
    let mut polled = Polled::<Value>::new(format!("/runs/{run}"));
    assert_eq!(api.poll(&mut polled).await.unwrap()["run"]["status"], "queued");
    let before = lab.ctx.db.round_trips();
    assert_eq!(api.poll(&mut polled).await.unwrap()["run"]["status"], "queued");
    assert_eq!(lab.ctx.db.round_trips() - before, 1, "a 304 costs one query");
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(api.poll(&mut polled).await.unwrap()["run"]["status"], "succeeded");
    let mut missing = Polled::<Value>::new("/runs/none".into());
    assert_eq!(api.poll(&mut missing).await.unwrap_err().to_string(), "run none was not found");
}
