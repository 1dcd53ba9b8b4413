//! Repair loops: a failed gate sends its evidence back to the step that generates, within bounds, and nothing counts twice.

use std::sync::{Arc, Mutex};

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::{broken, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::gate::{self, GateDecision, GateRequest};
use shared::db::run::Control;
use shared::db::step_view::step_fetch;
use shared::domain::gate::Decision;
use shared::domain::repair::RepairTask;
use shared::domain::{GateId, Outcome, RunId, StepError, StepStatus};
use shared::flow::control_run::control_run;
use shared::storage::{ArtifactMeta, StepStore};
use uuid::Uuid;

/// What the step that generates had to repair, in order.
type Tasks = Arc<Mutex<Vec<Option<RepairTask>>>>;

fn plan(repair: Value) -> Value {
    let mut generate = plans::step("generate", "codegen", json!({}));
    generate["repair"] = repair;
    json!({ "goal": "a repair", "steps": [
        generate,
        plans::step("write", "echo", json!({ "code": "${{ steps.generate.outputs.artifact_hash }}" })),
        plans::step("unit", "gate:unit", json!({})),
        plans::step("announce", "echo", json!({ "code": "${{ steps.write.outputs.code }}" })),
    ] })
}

/// A gate that fails and leaves its evidence.
async fn fails(store: &StepStore, code: &str) -> Outcome {
    let describe = ArtifactMeta { kind: "gate_evidence", media_type: "application/json", ..ArtifactMeta::default() };
    let evidence = store.put("gate-unit.json", describe, b"{}".to_vec()).await.expect("stored");
    let outcome = Outcome::failed(StepError::new(code, "a line is not covered"));
    Outcome { artifacts: vec![evidence], ..outcome }
}

/// Gates pass from this attempt on.
fn script(passes_at: u32, tasks: &Tasks) -> Script {
    let tasks = tasks.clone();
    Script::overriding(move |step, store| {
        let tasks = tasks.clone();
        async move {
            match step.tool.as_str() {
                "codegen" => {
                    tasks.lock().unwrap().push(step.repair.clone());
                    None
                }
                "gate:unit" if step.attempt < passes_at => Some(fails(&store, "gate_failed").await),
                tool if tool.starts_with("gate:") => Some(succeeded(json!({}))),
                _ => None,
            }
        }
    })
}

async fn events(lab: &Lab, run: RunId, kind: &str) -> Vec<Value> {
    let sql = "select payload from nofx.event where run_id = $1 and type = $2 order by seq";
    lab.admin.query(sql, &[&run.0, &kind]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn attempts(lab: &Lab, run: RunId) -> Vec<(String, i32)> {
    let sql = "select name, attempt from nofx.step where run_id = $1 order by ordinal";
    lab.admin.query(sql, &[&run.0]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_failed_gate_sends_its_evidence_back_until_it_passes() {
    let lab = Lab::with_bucket().await;
    let tasks = Tasks::default();
    let run = lab.submit(&plan(json!({ "gate": "unit", "max_attempts": 4 }))).await;
    lab.settle(&script(3, &tasks), Deliver::Thrice).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
    let names = ["generate", "write", "unit"].map(|name| (name.to_owned(), 3));
    assert_eq!(attempts(&lab, run).await, [names.to_vec(), vec![("announce".to_owned(), 1)]].concat());

    let tasks = tasks.lock().unwrap().clone();
    assert!(tasks.len() == 3 && tasks[0].is_none(), "{tasks:?}");
    let sql = "select a.id, a.attempt from nofx.artifact a join nofx.step s on s.id = a.step_id
                where a.run_id = $1 and s.name = $2 order by a.attempt";
    for (at, round) in [(1, 2), (2, 3)] {
        let task = tasks[at].as_ref().expect("something to repair");
        assert_eq!((task.round, task.max_attempts, task.gate.as_str()), (round, 4, "unit"));
        assert_eq!((task.code.as_str(), task.message.as_str()), ("gate_failed", "a line is not covered"));
        let made = async |name: &str| -> Uuid { lab.admin.query(sql, &[&run.0, &name]).await.unwrap()[at - 1].get(0) };
        assert_eq!(task.evidence.as_ref().map(|evidence| evidence.id.0), Some(made("unit").await));
        assert_eq!(task.previous.iter().map(|made| made.id.0).collect::<Vec<_>>(), [made("generate").await]);
    }
    let repairs = events(&lab, run, "step.repairing").await;
    assert_eq!(repairs.iter().map(|event| event["round"].clone()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(events(&lab, run, "run.failed").await.len(), 0, "a repaired gate never fails the run");
}

#[tokio::test]
async fn a_loop_ends_after_its_last_attempt_and_a_retry_of_the_run_gives_it_new_ones() {
    let lab = Lab::with_bucket().await;
    let tasks = Tasks::default();
    let run = lab.submit(&plan(json!({ "gate": ["unit"], "max_attempts": 2 }))).await;
    lab.settle(&script(4, &tasks), Deliver::Once).await;
    assert_eq!((lab.run_status(run).await.as_str(), attempts(&lab, run).await[0].1), ("failed", 2));
    lab.assert_invariants().await;
    assert_eq!(lab.step_status(lab.step(run, "announce").await).await, "skipped");

    // The gate judges the same bytes again, and fails again.
    control_run(&lab.ctx, &lab.session(), run, Control::Retry, "ann").await.unwrap();
    lab.settle(&script(4, &tasks), Deliver::Once).await;
    assert_eq!((lab.run_status(run).await.as_str(), attempts(&lab, run).await[0].1), ("succeeded", 3));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn only_the_verdict_of_a_named_gate_is_repaired() {
    let lab = Lab::with_bucket().await;
    for (tool, code) in [("gate:unit", "no_workspace"), ("echo", "gate_failed"), ("codegen", "gate_failed")] {
        let run = lab.submit(&plan(json!({ "gate": "unit" }))).await;
        let script = Script::overriding(move |step, _| async move {
            let fails = step.tool == tool && step.name != "announce";
            fails.then(|| Outcome::failed(StepError::new(code, "no")))
        });
        lab.settle(&script, Deliver::Once).await;
        assert_eq!((lab.run_status(run).await.as_str(), attempts(&lab, run).await[0].1), ("failed", 1), "{tool}");
        assert_eq!(events(&lab, run, "step.repairing").await.len(), 0);
    }
}

#[tokio::test]
async fn what_runs_beside_the_failed_gate_is_fenced_and_runs_again() {
    let lab = Lab::with_bucket().await;
    let mut plan = plan(json!({ "gate": "unit" }));
    let steps = plan["steps"].as_array_mut().unwrap();
    let parents = [json!([]), json!(["generate"]), json!(["write"]), json!(["unit", "beside"])];
    for (step, parents) in steps.iter_mut().zip(parents) {
        step["depends_on"] = parents;
    }
    steps.push(json!({ "name": "beside", "tool": "gate:lint", "inputs": {}, "depends_on": ["write"] }));
    let run = lab.submit(&plan).await;
    for handler in ["codegen", "echo"] {
        lab.worker(handler, &Script::deployed()).handle_batch(event(&lab.sent().await, Deliver::Once), None).await;
    }
    let sent = lab.sent().await;
    assert_eq!(sent.len(), 2, "the gate and what runs beside it");
    let watched = lab.another_ctx().await;
    // The gate fails once `beside` runs, and `beside` ends once the gate waits again.
    let script = Script::overriding(move |step, store| {
        let session = session(&watched.db, &watched.config.tenant);
        async move {
            let until = async |name: &str, status: StepStatus| {
                while step_fetch(&session, run, name).await.unwrap().unwrap().status != status {
                    tokio::task::yield_now().await;
                }
            };
            match (step.name.as_str(), step.attempt) {
                ("unit", 1) => {
                    until("beside", StepStatus::Running).await;
                    Some(fails(&store, "gate_failed").await)
                }
                ("beside", 1) => {
                    until("unit", StepStatus::Pending).await;
                    Some(broken())
                }
                ("unit" | "beside", _) => Some(succeeded(json!({}))),
                _ => None,
            }
        }
    });
    let (one, other) = (lab.worker("gate", &script), lab.worker("gate", &script));
    tokio::join!(
        one.handle_batch(event(&sent[..1], Deliver::Once), None),
        other.handle_batch(event(&sent[1..], Deliver::Once), None)
    );
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded", "a fenced failure does not count");
    lab.assert_invariants().await;
    let sql = "select string_agg(status, ' ' order by attempt) from nofx.attempt where step_id = $1";
    assert_eq!(lab.text(sql, lab.step(run, "beside").await.0).await, "cancelled succeeded");
}

#[tokio::test]
async fn a_gate_that_people_passed_is_asked_again_about_what_was_repaired() {
    let lab = Lab::with_bucket().await;
    let tasks = Tasks::default();
    let run = lab.submit(&plan(json!({ "gate": "unit" }))).await;
    let request = GateRequest {
        id: GateId(Uuid::now_v7()),
        run_id: run,
        step_id: Some(lab.step(run, "announce").await),
        gate_type: "review".into(),
        evidence_uri: None,
        reason: None,
        expires_after_s: None,
    };
    gate::gate_create(&lab.session(), &request).await.unwrap();
    lab.admin.execute("update nofx.gate set status = 'passed', decided_at = now(), approved_by = 'ann', approved_at = now() where id = $1", &[&request.id.0]).await.unwrap();
    lab.admin
        .execute("update nofx.step set blockers = blockers - 1 where name = 'announce' and run_id = $1", &[&run.0])
        .await
        .unwrap();
    lab.settle(&script(2, &tasks), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "blocked");
    lab.assert_invariants().await;
    let sql = "select string_agg(status || case when voided_at is null then '' else ' voided' end, ', ' order by created_at) from nofx.gate where run_id = $1 and gate_type = 'review'";
    assert_eq!(lab.text(sql, run.0).await, "passed voided, pending");
}

#[tokio::test]
async fn a_rejection_by_a_person_is_not_repaired_away() {
    let lab = Lab::with_bucket().await;
    let run = lab.submit(&plan(json!({ "gate": "unit", "max_attempts": 4 }))).await;
    let watched = lab.another_ctx().await;
    let announce = lab.step(run, "announce").await;
    // While the gate judges, a person rejects what comes after it.
    let script = Script::overriding(move |step, store| {
        let session = session(&watched.db, &watched.config.tenant);
        async move {
            if step.tool != "gate:unit" {
                return None;
            }
            let request = GateRequest {
                id: GateId(Uuid::new_v4()),
                run_id: run,
                step_id: Some(announce),
                gate_type: "review".to_owned(),
                evidence_uri: None,
                reason: None,
                expires_after_s: None,
            };
            gate::gate_create(&session, &request).await.unwrap();
            let decision = GateDecision {
                gate_id: request.id,
                decision: Decision::Reject,
                actor: "ann",
                reason: Some("not today"),
                seen: None,
            };
            gate::gate_decide(&session, &decision, Some(&json!({})), None).await.unwrap();
            Some(fails(&store, "gate_failed").await)
        }
    });
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "failed");
    assert_eq!(lab.step_status(announce).await, "failed");
    assert_eq!(events(&lab, run, "step.repairing").await.len(), 0);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_loop_within_a_repaired_one_starts_without_a_task_of_its_own() {
    let lab = Lab::with_bucket().await;
    let maker = |name: &str, gate: &str| {
        let mut step = plans::step(name, "codegen", json!({}));
        step["repair"] = json!({ "gate": gate });
        step
    };
    let run = lab
        .submit(&json!({ "goal": "loops", "steps": [
            maker("outer", "last"),
            maker("inner", "unit"),
            plans::step("unit", "gate:unit", json!({})),
            plans::step("last", "gate:lint", json!({})),
        ] }))
        .await;
    let rounds = Arc::new(Mutex::new(Vec::new()));
    let seen = rounds.clone();
    let script = Script::overriding(move |step, store| {
        let seen = seen.clone();
        async move {
            match (step.name.as_str(), step.attempt) {
                ("outer" | "inner", _) => {
                    let round = step.repair.as_ref().map(|task| task.round);
                    seen.lock().unwrap().push((step.name.clone(), round));
                    None
                }
                ("unit" | "last", 1) => Some(fails(&store, "gate_failed").await),
                _ => Some(succeeded(json!({}))),
            }
        }
    });
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let expected = [("outer", None), ("inner", None), ("inner", Some(2)), ("outer", Some(2)), ("inner", None)];
    assert_eq!(*rounds.lock().unwrap(), expected.map(|(name, round)| (name.to_owned(), round)));
    lab.assert_invariants().await;
}
