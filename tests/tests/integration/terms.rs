//! What a step that judges code gets with its claim: the tenant's policy, and the decisions about it. A gate can block on a
//! person, and is judged again with the decision.

use std::sync::{Arc, Mutex};

use nofx_tests::lab::session;
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Map, Value, json};
use shared::db::gate::{self, GateDecision};
use shared::db::policy::{NewPolicy, PolicySet, policy_set};
use shared::db::run::Control;
use shared::domain::gate::Decision;
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::policy::OnWeakening;
use shared::domain::tool::HANDLERS;
use shared::domain::{ClaimedStep, GateId, GateStatus, NewGate, Outcome, RunId, Verdict};
use shared::flow::control_run::control_run;
use shared::flow::decide_gate::decide_gate;
use shared::storage::{ArtifactMeta, StepStore};
use uuid::Uuid;

fn subject() -> Map<String, Value> {
    let tree = json!({ "sha1": "1".repeat(40), "sha256": "2".repeat(64) });
    Map::from_iter([("tree".to_owned(), tree), ("base".to_owned(), Value::Null)])
}

fn a_gate(kind: &str, status: NewGateStatus) -> NewGate {
    NewGate {
        id: GateId(Uuid::now_v7()),
        gate_type: kind.into(),
        status,
        subject: Some(subject()),
        evidence_uri: None,
        on_pass: OnPass::Resume,
        expires_after_s: None,
        reason: Some("the change deletes a test".into()),
    }
}

/// What the attempts of a step were given.
type Seen = Arc<Mutex<Vec<ClaimedStep>>>;

/// A gate as it will be: the first attempt stores evidence, passes what it can, and blocks on a person; the next one succeeds
/// if a decision fits its subject.
async fn judge(step: &ClaimedStep, store: &StepStore) -> Outcome {
    let fits = |decision: &&shared::domain::GateDecision| {
        decision.gate_type == "manual:gate-change" && decision.subject.as_ref() == Some(&subject())
    };
    if let Some(decision) = step.decisions.iter().find(fits) {
        return succeeded(json!({ "decided_by": decision.decided_by }));
    }
    let meta = ArtifactMeta { kind: "gate_evidence", media_type: "application/json", ..ArtifactMeta::default() };
    let evidence = store.put("gate-unit.json", meta, b"{}".to_vec()).await.expect("stored");
    let asked =
        NewGate { evidence_uri: Some(evidence.uri.clone()), ..a_gate("manual:gate-change", NewGateStatus::Pending) };
    Outcome {
        artifacts: vec![evidence],
        gates: vec![a_gate("gate:unit", NewGateStatus::Passed), asked],
        ..Outcome { verdict: Verdict::Blocked, artifacts: vec![], gates: vec![], events: vec![] }
    }
}

fn judging(seen: &Seen) -> Script {
    let seen = seen.clone();
    Script::overriding(move |step, store| {
        let seen = seen.clone();
        async move {
            seen.lock().unwrap().push(step.clone());
            if step.tool.starts_with("gate:") { Some(judge(&step, &store).await) } else { None }
        }
    })
}

async fn pending(lab: &Lab, run: RunId) -> shared::view::Gate {
    let page = gate::gate_list_of_run(&session(&lab.ctx.db, &lab.tenant), run, None, 10).await.unwrap();
    let mut pending = page.items.into_iter().filter(|gate| gate.status == GateStatus::Pending);
    let gate = pending.next().expect("a pending gate");
    assert!(pending.next().is_none());
    gate
}

async fn decide(lab: &Lab, gate_id: GateId, decision: Decision) {
    let decision = GateDecision { gate_id, decision, actor: "ann", reason: Some("so"), seen: None };
    decide_gate(&lab.ctx, &lab.session(), &decision).await.unwrap();
}

async fn set(lab: &Lab, document: &Value, if_version: Option<u32>) -> PolicySet {
    let policy = NewPolicy { document, actor: "ann", reason: None, if_version };
    policy_set(&lab.session(), &policy).await.unwrap()
}

/// The payloads of a run's events of a type.
async fn payloads(lab: &Lab, run: RunId, kind: &str) -> Vec<Value> {
    let sql = "select payload from nofx.event where run_id = $1 and type = $2 order by seq";
    lab.admin.query(sql, &[&run.0, &kind]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A plan whose gate may fail once only.
fn one_gate() -> Value {
    let mut plan = json!({ "goal": "judge", "steps": [
        plans::step("unit", "gate:unit", json!({})), plans::after("deploy", &["unit"], json!({})) ] });
    plan["steps"][0]["retry"] = json!({ "max_attempts": 1 });
    plan
}

#[tokio::test]
async fn a_gate_blocks_on_a_person_and_its_next_attempt_sees_the_decision() {
    for decision in [Decision::Approve, Decision::Waive] {
        let lab = Lab::with_bucket().await;
        let (seen, run) = (Seen::default(), lab.submit(&one_gate()).await);
        let script = judging(&seen);
        lab.settle(&script, Deliver::Thrice).await;
        assert_eq!(lab.run_status(run).await, "blocked");
        lab.assert_invariants().await;

        // The evidence is there before the decision, and the gate leads to it.
        let asked = pending(&lab, run).await;
        assert_eq!((asked.gate_type.as_str(), asked.subject.as_ref()), ("manual:gate-change", Some(&subject())));
        let uri = lab.text("select uri from nofx.artifact where id = $1", asked.evidence_id.expect("evidence").0).await;
        assert_eq!(Some(uri), asked.evidence_uri);
        decide(&lab, asked.id, decision).await;
        lab.settle(&script, Deliver::Thrice).await;

        let snapshot = lab.snapshot(run).await;
        let unit = &snapshot["steps"]["unit"];
        assert_eq!(snapshot["run"]["status"], "succeeded");
        assert_eq!((&unit["attempts"], &unit["failures"]), (&json!(["blocked", "succeeded"]), &json!(0)));
        assert_eq!(unit["outputs"], json!({ "decided_by": "ann" }));
        let seen = seen.lock().unwrap().clone();
        let kinds: Vec<_> = seen[1].decisions.iter().map(|decision| decision.gate_type.as_str()).collect();
        assert_eq!((seen[0].decisions.len(), kinds), (0, vec!["gate:unit", "manual:gate-change"]));
        let [passed, decided] = &seen[1].decisions[..] else { panic!("two decisions") };
        let expected = if decision == Decision::Waive { GateStatus::Waived } else { GateStatus::Passed };
        assert_eq!((decided.gate_id, decided.status), (asked.id, expected));
        assert_eq!((&passed.decided_by, passed.status), (&None, GateStatus::Passed));

        // Verdicts name what they are about, nulls included.
        let mut about = payloads(&lab, run, "gate.created").await;
        about.extend(payloads(&lab, run, "gate.passed").await);
        about.extend(payloads(&lab, run, "gate.waived").await);
        assert_eq!(about.len(), 3);
        assert!(about.iter().all(|payload| payload["subject"] == json!(subject())), "{about:?}");
        lab.assert_invariants().await;
    }
}

/// A plan with three gates, side by side.
fn three_gates() -> Value {
    let mut plan = json!({ "goal": "judge", "steps": [
        plans::step("lint", "gate:lint", json!({})), plans::step("types", "gate:typecheck", json!({})),
        plans::step("unit", "gate:unit", json!({})) ] });
    for step in plan["steps"].as_array_mut().unwrap() {
        step["retry"] = json!({ "max_attempts": 1 });
        step["depends_on"] = json!([]);
    }
    plan
}

/// The questions of a run, by status.
async fn questions(lab: &Lab, run: RunId, status: GateStatus) -> Vec<shared::view::Gate> {
    let page = gate::gate_list_of_run(&session(&lab.ctx.db, &lab.tenant), run, None, 50).await.unwrap();
    page.items.into_iter().filter(|gate| gate.status == status && gate.gate_type == "manual:gate-change").collect()
}

#[tokio::test]
async fn one_approval_answers_the_same_question_of_every_step() {
    for decision in [Decision::Approve, Decision::Waive] {
        let lab = Lab::with_bucket().await;
        let (run, other) = (lab.submit(&three_gates()).await, lab.submit(&three_gates()).await);
        let script = judging(&Seen::default());
        lab.settle(&script, Deliver::Thrice).await;
        let asked = questions(&lab, run, GateStatus::Pending).await;
        assert_eq!(asked.len(), 3, "{}", lab.snapshot(run).await);
        decide(&lab, asked[1].id, decision).await;
        let status = if decision == Decision::Waive { GateStatus::Waived } else { GateStatus::Passed };
        let decided = questions(&lab, run, status).await;
        assert!(decided.len() == 3 && decided.iter().all(|gate| gate.approved_by.as_deref() == Some("ann")));
        let sql = "select count(*) from nofx.approval where run_id = $1 and actor = 'ann' and reason = 'so'";
        assert_eq!(lab.admin.query_one(sql, &[&run.0]).await.unwrap().get::<_, i64>(0), 3, "one record for each");
        lab.settle(&script, Deliver::Thrice).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        assert_eq!(lab.run_status(other).await, "blocked", "another run decides for itself");
        assert_eq!(questions(&lab, other, GateStatus::Pending).await.len(), 3);
        lab.assert_invariants().await;
    }
}

#[tokio::test]
async fn a_later_gate_of_the_run_sees_the_decision_and_does_not_ask_again() {
    let lab = Lab::with_bucket().await;
    let mut plan = one_gate();
    plan["steps"][1] = plans::after("lint", &["unit"], json!({}));
    plan["steps"][1]["tool"] = json!("gate:lint");
    let (seen, run) = (Seen::default(), lab.submit(&plan).await);
    let script = judging(&seen);
    lab.settle(&script, Deliver::Once).await;
    let asked = pending(&lab, run).await;
    decide(&lab, asked.id, Decision::Approve).await;
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let seen = seen.lock().unwrap().clone();
    let lint = seen.iter().find(|step| step.tool == "gate:lint").unwrap();
    let [decision] = &lint.decisions[..] else { panic!("{:?}", lint.decisions) };
    assert_eq!((decision.gate_id, decision.decided_by.as_deref()), (asked.id, Some("ann")), "and no gate of a handler");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_rejection_and_a_decision_about_something_else_leave_other_gates_pending() {
    let lab = Lab::new().await;
    let run = lab.submit(&three_gates()).await;
    let script = Script::new(|step, _| async move {
        let answered = step.decisions.iter().find(|decision| decision.gate_type == "manual:gate-change");
        if let Some(decision) = answered {
            return succeeded(json!({ "decided_by": decision.decided_by }));
        }
        let mut asked = a_gate("manual:gate-change", NewGateStatus::Pending);
        if step.tool == "gate:lint" {
            asked.subject = Some(Map::from_iter([("tree".to_owned(), json!("another"))]));
        }
        Outcome::blocked(asked)
    });
    lab.settle(&script, Deliver::Once).await;
    let asked = questions(&lab, run, GateStatus::Pending).await;
    let about = |same: bool| asked.iter().filter(move |gate| (gate.subject.as_ref() == Some(&subject())) == same);
    decide(&lab, about(false).next().unwrap().id, Decision::Approve).await;
    assert_eq!(questions(&lab, run, GateStatus::Pending).await.len(), 2);
    decide(&lab, about(true).next().unwrap().id, Decision::Reject).await;
    let failed = questions(&lab, run, GateStatus::Failed).await;
    assert_eq!(failed.iter().map(|gate| gate.id).collect::<Vec<_>>(), [about(true).next().unwrap().id]);
    // The run failed, so nobody needs to decide the last one.
    assert_eq!(questions(&lab, run, GateStatus::Cancelled).await.len(), 1);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_rejected_gate_fails_its_step_and_keeps_the_evidence() {
    let lab = Lab::with_bucket().await;
    let run = lab.submit(&one_gate()).await;
    let script = judging(&Seen::default());
    lab.settle(&script, Deliver::Once).await;
    decide(&lab, pending(&lab, run).await.id, Decision::Reject).await;
    lab.settle(&script, Deliver::Once).await;
    let snapshot = lab.snapshot(run).await;
    let unit = &snapshot["steps"]["unit"];
    assert_eq!((&unit["status"], &unit["error"]), (&json!("failed"), &json!("gate_rejected")));
    assert_eq!(snapshot["steps"]["deploy"]["status"], "skipped");
    assert_eq!(unit["artifacts"].as_array().map(Vec::len), Some(1));
    assert_eq!(payloads(&lab, run, "gate.failed").await[0]["subject"], json!(subject()));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_decision_counts_only_in_its_generation() {
    let lab = Lab::with_bucket().await;
    let run = lab.submit(&one_gate()).await;
    let (seen, script) = (Seen::default(), judging(&Seen::default()));
    lab.settle(&script, Deliver::Once).await;
    decide(&lab, pending(&lab, run).await.id, Decision::Approve).await;
    let failing = Script::new(|_, _| async { nofx_tests::script::broken() });
    lab.settle(&failing, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "failed");
    control_run(&lab.ctx, &session(&lab.ctx.db, &lab.tenant), run, Control::Retry, "ann").await.unwrap();
    lab.settle(&judging(&seen), Deliver::Once).await;
    assert_eq!(seen.lock().unwrap()[0].decisions, []);
    assert_eq!(lab.run_status(run).await, "blocked", "it asks again");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn only_steps_that_judge_get_the_policy_and_the_current_one() {
    let lab = Lab::with_bucket().await;
    let (seen, run) = (Seen::default(), lab.submit(&one_gate()).await);
    let script = judging(&seen);
    assert_eq!(set(&lab, &json!({ "gates": { "require_base": true } }), None).await, PolicySet::Set { version: 1 });
    lab.settle(&script, Deliver::Once).await;
    set(&lab, &json!({ "gates": { "on_weakening": "fail" } }), None).await;
    decide(&lab, pending(&lab, run).await.id, Decision::Approve).await;
    lab.settle(&script, Deliver::Once).await;

    let seen = seen.lock().unwrap();
    let policies: Vec<_> = seen.iter().map(|step| (step.tool.as_str(), &step.policy)).collect();
    let [("gate:unit", first), ("gate:unit", second), ("echo", other)] = policies[..] else { panic!("{policies:?}") };
    assert_eq!((first.version, first.gates.require_base), (1, true));
    assert_eq!((second.version, second.gates.require_base, second.gates.on_weakening), (2, false, OnWeakening::Fail));
    assert_eq!(*other, shared::domain::Policy::default());
    assert!(HANDLERS.iter().any(|handler| handler.name == "gate" && handler.takes_workspace));
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_fails_the_gate() {
    let lab = Lab::with_bucket().await;
    let sql = "insert into nofx.policy (tenant_id, version, document, changed_by)
               values ('acme', 1, '{\"gates\": {\"later\": 1}}', 'sql')";
    lab.admin.batch_execute(sql).await.unwrap();
    let run = lab.submit(&one_gate()).await;
    lab.settle(&judging(&Seen::default()), Deliver::Once).await;
    assert_eq!(lab.snapshot(run).await["steps"]["unit"]["error"], "policy_unreadable");
    let message = lab.text("select error ->> 'message' from nofx.step where id = $1", lab.step(run, "unit").await.0);
    assert!(message.await.contains("gates.later"));
}

#[tokio::test]
async fn a_step_that_blocks_on_no_gate_or_on_two_fails() {
    for gates in [0, 2] {
        let lab = Lab::new().await;
        let run = lab.submit(&one_gate()).await;
        let script = Script::new(move |_, _| async move {
            let gates = (0..gates).map(|_| a_gate("manual:x", NewGateStatus::Pending)).collect();
            Outcome { verdict: Verdict::Blocked, artifacts: Vec::new(), gates, events: Vec::new() }
        });
        lab.settle(&script, Deliver::Once).await;
        assert_eq!(lab.run_status(run).await, "failed");
        assert_eq!(lab.snapshot(run).await["steps"]["unit"]["error"], "blocked_without_gate");
        lab.assert_invariants().await;
    }
}

#[tokio::test]
async fn a_subject_that_is_too_large_is_replaced_by_a_note() {
    let lab = Lab::new().await;
    let run = lab.submit(&one_gate()).await;
    let script = Script::new(|_, _| async {
        let large = Map::from_iter([("x".to_owned(), json!("x".repeat(5_000)))]);
        Outcome::blocked(NewGate { subject: Some(large), ..a_gate("manual:x", NewGateStatus::Pending) })
    });
    lab.settle(&script, Deliver::Once).await;
    let keys: Vec<_> = pending(&lab, run).await.subject.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["omitted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_changes_of_a_policy_get_one_version_each_and_one_wins_a_race() {
    let lab = Lab::new().await;
    let document = |at: u32| json!({ "gates": { "max_timeout_s": at } });
    let all = futures::future::join_all((1..=8).map(|at| {
        let session = lab.session();
        tokio::spawn(async move {
            let document = json!({ "gates": { "max_timeout_s": at } });
            let policy = NewPolicy { document: &document, actor: "ann", reason: Some("race"), if_version: None };
            policy_set(&session, &policy).await.unwrap()
        })
    }));
    let mut versions: Vec<_> = all
        .await
        .into_iter()
        .map(|set| match set.unwrap() {
            PolicySet::Set { version } => version,
            other => panic!("{other:?}"),
        })
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=8).collect::<Vec<_>>());

    assert_eq!(set(&lab, &document(9), Some(7)).await, PolicySet::Conflict { version: 8 });
    assert_eq!(set(&lab, &document(9), Some(8)).await, PolicySet::Set { version: 9 });
    // The same call again, because its answer was lost.
    assert_eq!(set(&lab, &document(9), Some(8)).await, PolicySet::Unchanged { version: 9 });
    assert_eq!(set(&lab, &document(9), None).await, PolicySet::Unchanged { version: 9 });
    assert_eq!(set(&lab, &document(9), Some(3)).await, PolicySet::Conflict { version: 9 });
    let sql = "select count(*) from nofx.tenant_event where type = 'policy.set' and tenant_id = 'acme'";
    let events: i64 = lab.admin.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(events, 9, "one for each version");
    for sql in ["update nofx.policy set document = '{}'", "delete from nofx.policy"] {
        assert!(lab.admin.batch_execute(sql).await.is_err(), "{sql}");
    }
    lab.assert_invariants().await;
}
