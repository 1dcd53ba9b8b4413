//! A worker that no longer owns a step changes nothing. A repeated finish gets the stored result.

use nofx_tests::delivery::event;
use nofx_tests::script::{flaky, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Map, Value, json};
use shared::db::step::{self, ClaimItem, Claimed, Continuation, FinishItem, FinishResult};
use shared::domain::outcome::NewEvent;
use shared::domain::{ArtifactId, NewArtifact, Outcome, RunId, StepError, StepId};
use shared::flow::finish_step::finish_item;
use uuid::Uuid;

const LEASE_S: u32 = 60;

async fn claim(lab: &Lab, run: RunId, step: StepId) -> Claimed {
    let item = ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id: step,
        lease_s: LEASE_S,
        refs_bytes: 1 << 20,
        terms: false,
    };
    let mut claims = step::steps_claim(&lab.ctx.db, &[item]).await.unwrap();
    claims.claimed.pop().expect("the step can be claimed")
}

fn end(claimed: &Claimed, outcome: Outcome) -> FinishItem {
    finish_item(claimed, outcome, 1 << 20, 0.0)
}

async fn finish(lab: &Lab, item: &FinishItem) -> (FinishResult, Vec<StepId>) {
    let finishes = step::steps_finish(&lab.ctx.db, std::slice::from_ref(item), None).await.unwrap();
    assert_eq!(finishes.items.len(), 1, "one answer for one finish");
    (finishes.items[0].result, finishes.ready.iter().map(|wakeup| wakeup.step_id).collect())
}

fn artifact() -> NewArtifact {
    NewArtifact {
        id: ArtifactId(Uuid::new_v4()),
        name: "a".into(),
        kind: "text".into(),
        uri: "s3://b/k".into(),
        hash: "0".repeat(64),
        size_bytes: 1,
        media_type: "text/plain".into(),
        metadata: json!({}),
        made_from: Vec::new(),
    }
}

#[tokio::test]
async fn late_finish_of_a_dead_lease_changes_nothing() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let id = lab.step(run, "s0").await;
    let first = claim(&lab, run, id).await;
    lab.lease_over(id).await;
    let second = claim(&lab, run, id).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    let before = lab.everything(run).await;

    let mut late = Outcome::succeeded(Map::new());
    late.artifacts.push(artifact());
    late.events.push(NewEvent { kind: "codegen.usage".into(), payload: json!({}) });
    assert_eq!(finish(&lab, &end(&first, late)).await, (FinishResult::Stale, Vec::new()));
    lab.assert_unchanged(run, &before).await;

    let child = lab.step(run, "s1").await;
    assert_eq!(
        finish(&lab, &end(&second, Outcome::succeeded(Map::new()))).await,
        (FinishResult::Finished, vec![child])
    );
}

#[tokio::test]
async fn a_finish_after_the_lease_counts_until_another_worker_claims_the_step() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let id = lab.step(run, "s0").await;
    let claimed = claim(&lab, run, id).await;
    lab.lease_over(id).await;
    assert_eq!(finish(&lab, &end(&claimed, Outcome::succeeded(Map::new()))).await.0, FinishResult::Finished);
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_repeated_finish_returns_the_owed_wakeups_again() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::diamond(3)).await;
    let root = lab.step(run, "root").await;
    let claimed = claim(&lab, run, root).await;
    let mut outcome = Outcome::succeeded(Map::new());
    outcome.artifacts.push(artifact());
    let item = end(&claimed, outcome);
    let (result, mut ready) = finish(&lab, &item).await;
    assert_eq!((result, ready.len()), (FinishResult::Finished, 3));
    let before = lab.everything(run).await;

    // The answer was lost, so the worker retries the call.
    let (again, mut owed) = finish(&lab, &item).await;
    ready.sort();
    owed.sort();
    assert_eq!((again, &owed), (FinishResult::Repeated, &ready));
    lab.assert_unchanged(run, &before).await;

    // Steps that were claimed in the meantime need no wake-up.
    claim(&lab, run, ready[0]).await;
    let mut owed = finish(&lab, &item).await.1;
    owed.sort();
    assert_eq!(owed, ready[1..]);
}

#[tokio::test]
async fn a_repeated_failure_returns_the_wakeup_of_its_retry_again() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let id = lab.step(run, "s0").await;
    let item = end(&claim(&lab, run, id).await, flaky());
    assert_eq!(finish(&lab, &item).await, (FinishResult::Finished, vec![id]));
    assert_eq!(finish(&lab, &item).await, (FinishResult::Repeated, vec![id]));
    let step = &lab.snapshot(run).await["steps"]["s0"];
    assert_eq!((&step["failures"], &step["attempts"]), (&json!(1), &json!(["failed"])));
}

#[tokio::test]
async fn a_different_finish_of_a_finished_attempt_is_stale() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let claimed = claim(&lab, run, lab.step(run, "s0").await).await;
    finish(&lab, &end(&claimed, Outcome::succeeded(Map::new()))).await;
    let before = lab.everything(run).await;
    let contrary = end(&claimed, Outcome::failed(StepError::new("late", "no")));
    assert_eq!(finish(&lab, &contrary).await.0, FinishResult::Stale);
    lab.assert_unchanged(run, &before).await;
}

#[tokio::test]
async fn a_finish_by_another_tenant_or_for_another_run_changes_nothing() {
    let lab = Lab::new().await;
    let (run, other) = (lab.submit(&plans::wide(1)).await, lab.submit(&plans::wide(1)).await);
    let claimed = claim(&lab, run, lab.step(run, "s0").await).await;
    let before = (lab.everything(run).await, lab.everything(other).await);
    let mut of_another = end(&claimed, Outcome::succeeded(Map::new()));
    of_another.tenant_id.0 = "mallory".into();
    assert_eq!(finish(&lab, &of_another).await.0, FinishResult::Stale);
    let mut misplaced = end(&claimed, Outcome::succeeded(Map::new()));
    misplaced.run_id = other;
    assert_eq!(finish(&lab, &misplaced).await.0, FinishResult::Stale);
    lab.assert_unchanged(run, &before.0).await;
    lab.assert_unchanged(other, &before.1).await;
}

#[tokio::test]
async fn a_forged_item_next_to_the_real_one_leaves_no_event() {
    let lab = Lab::new().await;
    let (run, other) = (lab.submit(&plans::chain(1)).await, lab.submit(&plans::chain(1)).await);
    let claimed = claim(&lab, run, lab.step(run, "s0").await).await;
    let mut real = end(&claimed, Outcome::succeeded(Map::new()));
    real.events.push(NewEvent { kind: "codegen.usage".into(), payload: json!({}) });
    let forged = FinishItem { run_id: other, ..real.clone() };
    let late = FinishItem { attempt: 7, ..real.clone() };
    step::steps_finish(&lab.ctx.db, &[forged, late, real], None).await.unwrap();
    for (run, expected) in [(run, 1), (other, 0)] {
        let events = lab.event_types(run).await;
        assert_eq!(events.iter().filter(|kind| *kind == "codegen.usage").count(), expected, "{events:?}");
    }
}

#[tokio::test]
async fn a_child_of_a_new_and_of_a_repeated_finish_is_claimed_once() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({})),
        plans::step("b", "echo", json!({})),
        plans::after("c", &["a", "b"], json!({})),
    ] });
    let run = lab.submit(&plan).await;
    let a = end(&claim(&lab, run, lab.step(run, "a").await).await, Outcome::succeeded(Map::new()));
    let b = end(&claim(&lab, run, lab.step(run, "b").await).await, Outcome::succeeded(Map::new()));
    let next = Continuation {
        call: Uuid::new_v4(),
        handler: "echo",
        lease_s: LEASE_S,
        timeout_s: LEASE_S,
        refs_bytes: 1 << 20,
        terms: false,
    };
    step::steps_finish(&lab.ctx.db, std::slice::from_ref(&b), Some(&next)).await.unwrap();
    let finishes = step::steps_finish(&lab.ctx.db, &[a, b], Some(&next)).await.unwrap();
    let names: Vec<_> = finishes.claimed.iter().map(|claimed| claimed.name.as_str()).collect();
    assert_eq!(names, ["c"]);
}

#[tokio::test]
async fn a_lease_ends_five_seconds_after_the_steps_timeout() {
    let lab = Lab::new().await;
    let mut plan = plans::wide(2);
    plan["steps"][0]["timeout_s"] = json!(3);
    let run = lab.submit(&plan).await;
    for name in ["s0", "s1"] {
        claim(&lab, run, lab.step(run, name).await).await;
    }
    let sql = "select name, extract(epoch from lease_until - started_at)::float8 from nofx.step
                where run_id = $1 order by ordinal";
    let rows = lab.admin.query(sql, &[&run.0]).await.unwrap();
    let leases: Vec<f64> = rows.iter().map(|row| row.get(1)).collect();
    // Five seconds more than the step's timeout (20 s by default for `echo`), which is less than the remaining time.
    assert_eq!(leases, [8.0, 25.0]);
}

#[tokio::test]
async fn artifacts_of_an_attempt_are_recorded_once() {
    let lab = Lab::with_bucket().await;
    let plan = json!({ "goal": "write", "steps": [plans::step("write", "codegen", json!({}))] });
    let run = lab.submit(&plan).await;
    let sent = lab.sent().await;
    let worker = lab.worker("codegen", &Script::deployed());
    worker.handle_batch(event(&sent, Deliver::Thrice), None).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(snapshot["steps"]["write"]["artifacts"].as_array().map(Vec::len), Some(1));
    let created = lab.event_types(run).await.into_iter().filter(|kind| kind == "artifact.created").count();
    assert_eq!(created, 1);
}

#[tokio::test]
async fn each_attempt_writes_to_its_own_folder() {
    let lab = Lab::with_bucket().await;
    let plan = json!({ "goal": "write", "steps": [plans::step("write", "codegen", json!({}))] });
    let run = lab.submit(&plan).await;
    let script = Script::new(|step, store| async move {
        let artifact = store.put("x", shared::storage::ArtifactMeta::default(), b"x".to_vec()).await.unwrap();
        let mut outcome = if step.attempt == 1 { flaky() } else { succeeded(json!({})) };
        outcome.artifacts.push(artifact);
        outcome
    });
    lab.settle(&script, Deliver::Once).await;
    let everything = lab.everything(run).await;
    let mut uris: Vec<_> = everything["artifacts"].as_array().unwrap().iter().map(uri_without_ids).collect();
    uris.sort();
    assert_eq!(uris, ["attempt-2/x", "x"]);
}

/// The part of the URI after the step's folder.
fn uri_without_ids(artifact: &Value) -> String {
    let folder = format!("steps/{}/", artifact["step_id"].as_str().unwrap());
    artifact["uri"].as_str().unwrap().split_once(&folder).unwrap().1.to_owned()
}
