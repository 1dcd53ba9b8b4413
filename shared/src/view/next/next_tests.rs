use uuid::Uuid;

use super::*;
use crate::domain::{GateStatus, StepStatus, Timestamp};
use crate::view::OnPass;
use crate::view::sentence::plain;

fn at(minute: &str) -> &'static Timestamp {
    Box::leak(Box::new(Timestamp(format!("14:{minute}"))))
}

/// A run without steps and gates.
fn run(status: RunStatus) -> Standing<'static> {
    Standing {
        status,
        failure: None,
        stopped: None,
        deadline_at: None,
        ready_since: None,
        took_ms: None,
        steps: Vec::new(),
        steps_total: 0,
        edges: &[],
        gates: Vec::new(),
        gates_total: 0,
        gates_open: 0,
        artifacts_total: 0,
        artifact: None,
    }
}

/// Steps with these names and states, each a parent of the next one.
fn chain(status: RunStatus, steps: &[(&'static str, StepStatus)]) -> Standing<'static> {
    const EDGES: &[(i64, i64)] = &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)];
    let step = |(ordinal, (name, status)): (usize, &(&'static str, StepStatus))| StepNow {
        ordinal: i64::try_from(ordinal).unwrap(),
        name,
        tool: "gate:unit",
        status: *status,
        attempt: i64::from(*status != StepStatus::Pending),
        failures: 0,
        workers_lost: 0,
        open_since: (*status == StepStatus::Running).then(|| at("31")),
        next_try_at: None,
        error: None,
    };
    let steps: Vec<_> = steps.iter().enumerate().map(step).collect();
    let steps_total = steps.len() as u64;
    let edges = &EDGES[..steps.len().saturating_sub(1)];
    Standing { steps, steps_total, edges, ..run(status) }
}

fn gate(gate_type: &'static str, step: Option<&'static str>, status: GateStatus) -> GateNow<'static> {
    let on_pass = if step.is_some() { OnPass::Finish } else { OnPass::Release };
    let (id, created_at) = (GateId(Uuid::nil()), at("28"));
    GateNow { id, gate_type, step, status, is_over: false, on_pass, actor: None, created_at, expires_at: None }
}

fn with_gates(gates: Vec<GateNow<'static>>, run: Standing<'static>) -> Standing<'static> {
    let open = gates.iter().filter(|gate| gate.status == GateStatus::Pending && !gate.is_over).count();
    Standing { gates_total: gates.len() as u64, gates_open: open as u64, gates, ..run }
}

/// The sentence with its error and its reasons.
fn told(run: &Standing<'_>) -> String {
    let next = next(run);
    let error = next.error.map(|error| format!(": {error}")).unwrap_or_default();
    let mut told = format!("{}{error}.", plain(&next.lead));
    for reason in &next.more {
        told += " ";
        told += &plain(reason);
        told += ".";
    }
    told
}

use RunStatus as R;
use StepStatus as S;

const DECIDE: Action<'_> = Action::Decide(GateId(Uuid::nil()));

#[test]
fn a_queued_run_waits_for_a_worker() {
    let queued =
        Standing { ready_since: Some(at("30")), ..chain(R::Queued, &[("lint", S::Ready), ("unit", S::Pending)]) };
    assert_eq!(
        told(&queued),
        "lint is ready and waits for a worker (since 14:30). \
         A wake-up was sent; if it is lost, the sweeper sends another one."
    );
    assert_eq!(next(&queued).actions, []);
    // Between two reads of the page everything may have moved on.
    assert_eq!(told(&run(R::Queued)), "The next step starts soon.");
}

#[test]
fn a_running_run_says_what_runs_and_what_follows() {
    let steps = [("lint", S::Succeeded), ("unit", S::Running), ("notes", S::Pending), ("release", S::Pending)];
    let mut one = Standing { deadline_at: Some(at("59")), ..chain(R::Running, &steps) };
    assert_eq!(
        told(&one),
        "Running unit (since 14:31). 1 of 4 steps is done. notes follows. The run times out at 14:59."
    );
    one.steps[1] =
        StepNow { attempt: 3, failures: 1, workers_lost: 1, error: Some("no answer.\nat 7"), ..one.steps[1].clone() };
    one.deadline_at = None;
    assert_eq!(
        told(&one),
        "Running unit, attempt 3 (since 14:31). 1 of 4 steps is done. notes follows. \
         A worker was lost before; that does not count as a failure. The attempt before failed: no answer."
    );
    let two = chain(R::Running, &[("lint", S::Succeeded), ("unit", S::Running), ("notes", S::Running)]);
    assert_eq!(told(&two), "Running unit and notes, the last 2 of 3 steps. 1 of 3 steps is done.");
    assert_eq!(next(&two).tone, Tone::Busy);
}

#[test]
fn a_large_run_says_numbers() {
    let steps: Vec<_> = [S::Running; 4].into_iter().chain([S::Ready; 2]).map(|status| ("x", status)).collect();
    let large = Standing { ready_since: Some(at("30")), ..chain(R::Running, &steps) };
    assert_eq!(told(&large), "Running 4 steps. 2 are ready and wait for a worker, the oldest since 14:30.");
    // Only some of its steps are known, so no number of them is given.
    let cut = Standing { steps_total: 9_000, ..chain(R::Running, &[("lint", S::Succeeded), ("unit", S::Running)]) };
    assert_eq!(told(&cut), "Running unit (since 14:31).");
}

#[test]
fn a_step_that_failed_once_is_tried_again() {
    let mut retried = chain(R::Running, &[("lint", S::Ready), ("unit", S::Pending)]);
    retried.steps[0] = StepNow {
        failures: 1,
        next_try_at: Some(at("40")),
        error: Some("the model did not answer"),
        ..retried.steps[0].clone()
    };
    assert_eq!(
        told(&retried),
        "Tries lint again at 14:40: the model did not answer. 1 attempt of this generation failed."
    );
    assert_eq!(next(&retried).actions, [Action::Look { step: "lint", ordinal: 0 }]);
    assert_eq!(next(&retried).tone, Tone::Warn);
    // Beside a running step it is only a remark.
    retried.steps[1].status = S::Running;
    assert_eq!(told(&retried), "Running unit. lint waits for its next attempt.");
}

#[test]
fn a_run_with_a_failed_step_says_that_it_will_fail() {
    let mut failing = chain(R::Running, &[("lint", S::Failed), ("unit", S::Running), ("notes", S::Skipped)]);
    failing.steps[0].error = Some("2 findings.");
    assert_eq!(
        told(&failing),
        "Fails: lint failed, and unit still runs. lint: 2 findings. \
         Nothing else starts. The run ends as failed when the last step has finished."
    );
    let next = next(&failing);
    assert_eq!((next.tone, next.actions), (Tone::Bad, vec![Action::Look { step: "lint", ordinal: 0 }]));
}

#[test]
fn a_gate_beside_running_steps_is_the_first_action() {
    let steps = [("unit", S::Running), ("release", S::Blocked)];
    let pending = gate("manual:release", Some("release"), GateStatus::Pending);
    let run = with_gates(vec![pending], chain(R::Running, &steps));
    assert_eq!(told(&run), "Running unit (since 14:31). manual:release waits for a decision.");
    assert_eq!(next(&run).actions, [DECIDE]);
}

#[test]
fn a_blocked_run_says_who_must_act_and_what_follows() {
    let steps = [("unit", S::Succeeded), ("release", S::Blocked), ("rates", S::Pending)];
    let pending = gate("manual:release", Some("release"), GateStatus::Pending);
    let mut one = with_gates(vec![pending.clone()], chain(R::Blocked, &steps));
    assert_eq!(
        told(&one),
        "Has waited since 14:28 for a decision about release. 1 of 3 steps is done. After an approval rates starts. \
         The gate has no expiry."
    );
    assert_eq!(next(&one).actions, [DECIDE]);
    one.steps[2].tool = "db_write";
    one.gates[0].expires_at = Some(at("58"));
    assert!(
        told(&one).ends_with("After an approval rates starts and writes to the database. The gate expires at 14:58.")
    );
    let of_run = with_gates(vec![gate("legal", None, GateStatus::Pending)], chain(R::Blocked, &steps));
    assert!(told(&of_run).starts_with("Has waited since 14:28 for a decision about legal."));
    let two = with_gates(vec![pending.clone(), gate("legal", None, GateStatus::Pending)], chain(R::Blocked, &steps));
    assert_eq!(told(&two), "Has waited since 14:28 for 2 decisions. 1 of 3 steps is done. The oldest has no expiry.");
    let change = gate("manual:gate-change", Some("release"), GateStatus::Pending);
    let change = with_gates(vec![change.clone(), change], chain(R::Blocked, &steps));
    assert_eq!(
        told(&change),
        "Has waited since 14:28 for a decision about a change of its own checks. \
         One decision answers all gates that ask about the same change. 1 of 3 steps is done. The oldest has no expiry."
    );
    assert_eq!(told(&run(R::Blocked)), "Waits: no step can go on before a gate passes.");
}

#[test]
fn a_run_without_money_says_so() {
    let steps = [("write", S::Blocked), ("rates", S::Blocked)];
    let gate = GateNow { on_pass: OnPass::Resume, ..gate("budget", Some("write"), GateStatus::Pending) };
    let one = with_gates(vec![gate.clone()], chain(R::Blocked, &steps));
    assert_eq!(told(&one), "Has waited since 14:28 for money for write.");
    let two = with_gates(vec![gate.clone(), gate.clone()], chain(R::Blocked, &steps));
    assert_eq!(told(&two), "Has waited since 14:28 for money for 2 steps.");
    let busy = with_gates(vec![gate.clone(), gate], chain(R::Running, &steps));
    assert!(told(&busy).ends_with("2 steps wait for money."), "{}", told(&busy));
}

#[test]
fn the_oldest_gate_is_named_and_gates_that_are_not_listed_count() {
    let steps = [("unit", S::Succeeded), ("release", S::Blocked), ("rates", S::Pending)];
    let named = |number: u128, minute: &str| {
        let created_at = Box::leak(Box::new(Timestamp(format!("2026-11-29T14:{minute}:00+00:00"))));
        let id = GateId(Uuid::from_u128(number));
        GateNow { id, created_at, ..gate("legal", Some("release"), GateStatus::Pending) }
    };
    // The page lists the gate first that its address names.
    let mut two = with_gates(vec![named(1, "40"), named(2, "05")], chain(R::Blocked, &steps));
    assert!(told(&two).starts_with("Has waited since 2026-11-29T14:05:00+00:00 for 2 decisions."), "{}", told(&two));
    assert_eq!(next(&two).actions, [Action::Decide(GateId(Uuid::from_u128(2)))]);
    (two.gates_open, two.gates_total) = (1_200, 1_300);
    assert!(told(&two).contains(" for 1,200 decisions."), "{}", told(&two));
    two.status = R::Running;
    assert!(told(&two).ends_with("1,200 gates wait for a decision."), "{}", told(&two));
}

#[test]
fn a_gate_whose_time_is_over_asks_nobody() {
    let steps = [("unit", S::Succeeded), ("release", S::Blocked)];
    let late = GateNow { is_over: true, ..gate("manual:release", Some("release"), GateStatus::Pending) };
    let mut run = with_gates(vec![late.clone()], chain(R::Blocked, &steps));
    assert_eq!(
        told(&run),
        "The time for a decision about release is over. Nobody decided. The next sweep ends the gate, and the run fails. \
         1 of 2 steps is done."
    );
    assert_eq!(next(&run).actions, []);
    run.status = R::Paused;
    assert!(!told(&run).contains("decision"), "{}", told(&run));
    assert_eq!(next(&run).actions, [Action::Resume]);
    let open = gate("legal", None, GateStatus::Pending);
    let both = with_gates(vec![late, open], chain(R::Blocked, &steps));
    assert!(told(&both).starts_with("Has waited since 14:28 for a decision about legal."), "{}", told(&both));
}

#[test]
fn what_an_approval_starts_depends_on_the_gate() {
    let steps = [("unit", S::Blocked), ("release", S::Pending), ("rates", S::Pending)];
    let asks = |on_pass, step| GateNow { on_pass, ..gate("look", Some(step), GateStatus::Pending) };
    let of = |gates, steps: &[(&'static str, S)]| told(&with_gates(gates, chain(R::Blocked, steps)));
    let again = of(vec![asks(OnPass::Resume, "unit")], &steps);
    assert!(again.contains("After an approval unit runs again."), "{again}");
    let before_unit = GateNow { on_pass: OnPass::Resume, ..gate("approval:echo", Some("unit"), GateStatus::Pending) };
    let first = of(vec![before_unit], &steps);
    assert!(first.contains("After an approval unit starts."), "{first}");
    // The gate is before its step, not after it.
    let before = [("unit", S::Succeeded), ("release", S::Pending), ("rates", S::Pending)];
    let starts = of(vec![asks(OnPass::Release, "release")], &before);
    assert!(starts.contains("After an approval release starts."), "{starts}");
    let waits = of(vec![asks(OnPass::Release, "release")], &steps);
    assert!(!waits.contains("After an approval"), "it waits for unit too: {waits}");
}

#[test]
fn what_follows_later_without_another_question_is_said() {
    let steps = [("ask", S::Blocked), ("log", S::Pending), ("rates", S::Pending), ("draft", S::Pending)];
    let gate = gate("manual:notes", Some("ask"), GateStatus::Pending);
    let mut run = with_gates(vec![gate], chain(R::Blocked, &steps));
    for (step, tool) in run.steps.iter_mut().zip(["manual:notes", "echo", "db_write", "codegen"]) {
        step.tool = tool;
    }
    let said = "After an approval log starts. Later, without another question, rates writes to the database, draft asks a model.";
    assert!(told(&run).contains(said), "{}", told(&run));
    // What waits for other steps too does not start at once, and still needs no other decision.
    let edges = Box::leak(Box::new([(0, 1), (0, 2), (1, 2)]));
    let both = Standing { edges, ..run.clone() };
    let said = "After an approval log starts. Later, without another question, rates writes to the database.";
    assert!(told(&both).contains(said), "{}", told(&both));
    // Another question is in between.
    run.steps[1].tool = "manual:other";
    let said = told(&run);
    assert!(said.contains("After an approval log starts.") && !said.contains("Later"), "{said}");
    run.steps[1].tool = "echo";
    run.gates.push(GateNow { on_pass: OnPass::Release, status: GateStatus::Passed, ..run.gates[0].clone() });
    run.gates[1].step = Some("rates");
    assert!(told(&run).contains("rates writes"), "a gate that passed asks nothing: {}", told(&run));
}

#[test]
fn a_paused_run_says_who_paused_it_and_what_still_runs() {
    let steps = [("unit", S::Succeeded), ("lint", S::Ready), ("notes", S::Running)];
    let by_ben =
        Standing { stopped: Some((Some("ben"), at("17"))), deadline_at: Some(at("59")), ..chain(R::Paused, &steps) };
    assert_eq!(
        told(&by_ben),
        "Paused by ben, 14:17. 1 of 3 steps is done. notes still runs; its result counts. \
         lint is ready and starts when somebody resumes the run. The clock of the run goes on: it times out at 14:59."
    );
    assert_eq!(next(&by_ben).actions, [Action::Resume]);
    let pending = gate("legal", None, GateStatus::Pending);
    let waiting = with_gates(vec![pending], Standing { failure: Some("disputed"), ..run(R::Paused) });
    assert_eq!(
        told(&waiting),
        "Paused: disputed. Nothing starts before somebody resumes the run. legal waits for a decision."
    );
    assert_eq!(next(&waiting).actions, [Action::Resume, DECIDE]);
}

#[test]
fn a_run_that_succeeded_says_on_what_grounds() {
    let passed = |actor| GateNow { actor, ..gate("g", Some("unit"), GateStatus::Passed) };
    let waived = GateNow { actor: Some("ann"), ..gate("g", None, GateStatus::Waived) };
    let gates = vec![passed(None), passed(None), passed(Some("ben")), waived, gate("g", None, GateStatus::Cancelled)];
    let artifact = Some(("notes.md", ArtifactId(Uuid::nil())));
    let steps = chain(R::Succeeded, &[("unit", S::Succeeded), ("notes", S::Succeeded)]);
    let run = Standing { took_ms: Some(61_000), artifacts_total: 4, artifact, ..with_gates(gates, steps) };
    assert_eq!(
        told(&run),
        "Succeeded: 2 gates passed on evidence, 1 approved by ben, 1 waived by ann. \
         All 2 steps succeeded in 1 min 1 s. The run stored 4 artifacts."
    );
    assert_eq!(next(&run).actions, [Action::Open { name: "notes.md", id: ArtifactId(Uuid::nil()) }]);
    // There are more gates than are known, so none is counted.
    assert!(told(&Standing { gates_total: 99, ..run }).starts_with("Succeeded. All"));
    assert_eq!(told(&chain(R::Succeeded, &[("unit", S::Succeeded)])), "Succeeded. The step succeeded.");
}

#[test]
fn a_failed_run_names_its_step_and_what_a_retry_keeps() {
    let mut failed = chain(R::Failed, &[("lint", S::Succeeded), ("unit", S::Failed), ("notes", S::Skipped)]);
    failed.steps[1].error = Some("2 tests failed");
    assert_eq!(
        told(&failed),
        "Failed at unit: 2 tests failed. notes was skipped. \
         A retry judges the same workspace again: if the code is wrong, change it first. \
         1 step had succeeded; a retry keeps it and runs the other 2 steps again."
    );
    assert_eq!(next(&failed).actions, [Action::Look { step: "unit", ordinal: 1 }, Action::Retry]);
    failed.steps[1].error = Some("unit: 2 tests failed");
    assert!(told(&failed).starts_with("Failed at unit: 2 tests failed. "));
    let late = Standing { failure: Some("its time was over"), ..chain(R::Failed, &[("lint", S::Skipped)]) };
    assert_eq!(
        told(&late),
        "Failed: its time was over. lint was skipped. No step had succeeded; a retry runs all of them again."
    );
    assert_eq!(next(&late).actions, [Action::Retry]);
    let mut both = chain(R::Failed, &[("lint", S::Failed), ("unit", S::Failed)]);
    both.steps.iter_mut().for_each(|step| step.tool = "echo");
    assert_eq!(told(&both), "Failed at lint. unit failed too. No step had succeeded; a retry runs all of them again.");
}

#[test]
fn a_cancelled_run_says_who_cancelled_it() {
    let steps = [("a", S::Succeeded), ("b", S::Succeeded), ("c", S::Cancelled)];
    let run = Standing { stopped: Some((Some("ann"), at("33"))), ..chain(R::Cancelled, &steps) };
    assert_eq!(
        told(&run),
        "Cancelled by ann, 14:33. 2 steps had succeeded; a retry keeps them and runs the other step again. \
         Results of attempts that still run are discarded."
    );
    assert_eq!(next(&run).actions, [Action::Retry]);
    assert_eq!(next(&run).tone, Tone::Quiet);
}
