//! Applies the events to Postgres with the calls of the functions.

use std::collections::{BTreeMap, BTreeSet};

use nofx_tests::Lab;
use nofx_tests::lab::session;
use serde_json::{Map, Value, json};
use shared::db::gate::{self, AlreadyStarted, GateCreated, GateDecided, GateDecision, GateRequest, GateTarget};
use shared::db::run::{self, Control, Controlled};
use shared::db::step::{self, ClaimItem, Claimed, Continuation, FinishItem, FinishTo};
use shared::db::sweep::{self, Sweep};
use shared::db::{event, step_view};
use shared::domain::gate::Decision;
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::{GateId, NewGate, RunId, StepError, StepId};
use shared::queue::WakeUp;
use uuid::Uuid;

use super::History;
use super::event::{Event, Finish, To};
use super::machine::{Answer, VisibleState, VisibleStep};

/// One run in Postgres.
pub struct Postgres<'a> {
    lab: &'a Lab,
    pub run: RunId,
    steps: Vec<StepId>,
    /// The steps whose failure can start a repair.
    judges: Vec<usize>,
}

/// The run, its steps, events and gates, with the version from which the API makes their ETags.
pub struct ApiAnswers {
    pub version: String,
    pub content: Value,
}

const AN_HOUR_S: u32 = 3_600;

impl<'a> Postgres<'a> {
    pub async fn create(lab: &'a Lab, history: &History) -> (Self, BTreeSet<usize>) {
        let name = |step: usize| format!("s{step}");
        let judges: Vec<usize> = history.loops.iter().flat_map(|one| one.gates.clone()).collect();
        let steps: Vec<_> = history
            .parents
            .iter()
            .enumerate()
            .map(|(at, parents)| {
                let parents: Vec<_> = parents.iter().copied().map(name).collect();
                let mut step = json!({ "name": name(at), "tool": "echo", "depends_on": parents });
                if history.asks == Some(at) {
                    step["approval"] = json!({});
                }
                if judges.contains(&at) {
                    step["tool"] = json!("gate:unit");
                }
                if let Some(repair) = history.loops.iter().find(|one| one.maker == at) {
                    let gates: Vec<_> = repair.gates.iter().copied().map(name).collect();
                    step["tool"] = json!("codegen");
                    step["repair"] = json!({ "gate": gates, "max_attempts": repair.max_attempts });
                }
                step
            })
            .collect();
        let run = lab.submit(&json!({ "goal": "a model", "timeout_s": AN_HOUR_S, "steps": steps })).await;
        let rows = lab.admin.query("select id from nofx.step where run_id = $1 order by ordinal", &[&run.0]).await;
        let steps = rows.unwrap().iter().map(|row| StepId(row.get(0))).collect();
        let postgres = Self { lab, run, steps, judges };
        let ready = postgres.named(&lab.sent().await);
        (postgres, ready)
    }

    /// Deletes the run, so that the sweeps of the next history do not see it.
    pub async fn delete_run(&self) {
        self.lab.admin.execute("delete from nofx.run", &[]).await.unwrap();
    }

    pub async fn apply(&self, event: &Event) -> Answer {
        let lab = self.lab;
        match event {
            Event::Claim(steps) => return self.claim(steps).await,
            Event::Finish { ends, continues } => return self.finish(ends, *continues).await,
            Event::LeaseOver(step) => lab.lease_over(self.steps[*step]).await,
            Event::DelayOver(step) => lab.delay_over(self.steps[*step]).await,
            Event::SweepLeases => return self.sweep(Sweep::Leases).await,
            Event::GateCreate { name, step, expires } => return self.gate_create(name, *step, *expires).await,
            Event::Decide { name, generation, decision } => return self.decide(name, *generation, *decision).await,
            Event::GatesDue => lab.gates_due(self.run).await,
            Event::SweepGates => return self.sweep(Sweep::Gates).await,
            Event::SweepWakeUps => {
                lab.wakeups_due(self.run).await;
                return self.sweep(Sweep::WakeUps).await;
            }
            Event::Undeliverable(step) => {
                self.no_wakeup_due().await;
                lab.wakeups_exhausted(self.steps[*step]).await;
                return self.sweep(Sweep::WakeUps).await;
            }
            Event::Pause => return self.control(Control::Pause).await,
            Event::Resume => return self.control(Control::Resume).await,
            Event::Cancel => return self.control(Control::Cancel).await,
            Event::Retry => return self.control(Control::Retry).await,
            Event::RunTimeout => {
                lab.deadline_over(self.run).await;
                return self.sweep(Sweep::Runs).await;
            }
        }
        Answer::default()
    }

    pub async fn visible_state(&self) -> VisibleState {
        let (admin, run) = (&self.lab.admin, &self.run.0);
        let row = admin.query_one("select status, generation from nofx.run where id = $1", &[run]).await.unwrap();
        let steps = "select s.status, s.failures, s.workers_lost,
                            array(select a.status from nofx.attempt a where a.step_id = s.id order by a.attempt)
                       from nofx.step s where s.run_id = $1 order by s.ordinal";
        let steps = admin.query(steps, &[run]).await.unwrap();
        let gates = admin.query("select gate_type, generation, status from nofx.gate where run_id = $1", &[run]).await;
        let count = |number: i32| u32::try_from(number).unwrap();
        let mut states = BTreeMap::<(String, u32), Vec<String>>::new();
        for gate in gates.unwrap() {
            states.entry((gate.get(0), count(gate.get(1)))).or_default().push(gate.get(2));
        }
        for words in states.values_mut() {
            words.sort();
        }
        VisibleState {
            run: row.get(0),
            generation: count(row.get(1)),
            steps: steps
                .iter()
                .map(|row| VisibleStep {
                    status: row.get(0),
                    failures: count(row.get(1)),
                    workers_lost: count(row.get(2)),
                    attempts: row.get(3),
                })
                .collect(),
            gates: states,
        }
    }

    /// What the API answers for the run.
    pub async fn api_answers(&self) -> ApiAnswers {
        let (db, tenant, run) = (&self.lab.ctx.db, &self.lab.tenant, self.run);
        let version = run::run_version(&session(db, tenant), run).await.unwrap().expect("the run exists");
        let content = json!({
            "run": run::run_fetch(&session(db, tenant), run).await.unwrap(),
            "steps": step_view::step_list(&session(db, tenant), run, None, 1_000).await.unwrap().items,
            "events": event::event_list(&session(db, tenant), run, 0, 1_000).await.unwrap().items,
            "gates": gate::gate_list_of_run(&session(db, tenant), run, None, 1_000).await.unwrap().items,
        });
        ApiAnswers { version, content }
    }

    async fn claim(&self, steps: &[usize]) -> Answer {
        let item = |&at: &usize| ClaimItem {
            tenant_id: self.lab.tenant.clone(),
            run_id: self.run,
            step_id: self.steps[at],
            lease_s: AN_HOUR_S,
            refs_bytes: 1 << 20,
            terms: false,
        };
        let items: Vec<_> = steps.iter().map(item).collect();
        let claims = step::steps_claim(&self.lab.ctx.db, &items).await.unwrap();
        assert_eq!(claims.claimed.len() + claims.skipped.len(), steps.len(), "every delivery is answered once");
        let mut results = self.attempts(&claims.claimed);
        results.sort();
        Answer { results, wakes: BTreeSet::new() }
    }

    fn attempts(&self, claimed: &[Claimed]) -> Vec<String> {
        claimed.iter().map(|step| format!("{} attempt {}", self.at(step.step_id), step.attempt)).collect()
    }

    async fn finish(&self, ends: &[Finish], continues: bool) -> Answer {
        let items: Vec<_> = ends.iter().map(|end| self.item(end)).collect();
        let next = Continuation {
            call: Uuid::new_v4(),
            handler: "echo",
            lease_s: AN_HOUR_S,
            timeout_s: AN_HOUR_S,
            refs_bytes: 1 << 20,
            terms: false,
        };
        let finishes = step::steps_finish(&self.lab.ctx.db, &items, continues.then_some(&next)).await.unwrap();
        let word = |item: &step::Finished| format!("{} {:?}", self.at(item.step_id), item.result).to_lowercase();
        let mut results: Vec<_> = finishes.items.iter().map(word).collect();
        results.extend(self.attempts(&finishes.claimed));
        results.sort();
        Answer { results, wakes: self.named(&finishes.ready) }
    }

    fn item(&self, end: &Finish) -> FinishItem {
        let (mut outputs, mut error, mut delay_ms, mut gates) = (None, None, 0, Vec::new());
        let to = match end.to {
            To::Succeeded => {
                outputs = serde_json::value::to_raw_value(&Map::new()).ok();
                FinishTo::Succeeded
            }
            To::Failed | To::Retry { .. } => {
                let code = if self.judges.contains(&end.step) { "gate_failed" } else { "chosen" };
                error = Some(StepError::new(code, "by the model"));
                delay_ms = if end.to == (To::Retry { delayed: true }) { u64::from(AN_HOUR_S) * 1_000 } else { 0 };
                if end.to == To::Failed { FinishTo::Failed } else { FinishTo::Ready }
            }
            To::Blocked { resume, expires } => {
                gates.push(NewGate {
                    id: GateId(Uuid::new_v4()),
                    gate_type: end.gate.clone(),
                    status: NewGateStatus::Pending,
                    subject: None,
                    evidence_uri: None,
                    on_pass: if resume { OnPass::Resume } else { OnPass::Finish },
                    expires_after_s: expires.then_some(AN_HOUR_S),
                    reason: None,
                });
                FinishTo::Blocked
            }
        };
        FinishItem {
            tenant_id: self.lab.tenant.clone(),
            run_id: self.run,
            step_id: self.steps[end.step],
            attempt: end.attempt,
            call: None,
            to,
            outputs,
            error,
            delay_ms,
            artifacts: Vec::new(),
            gates,
            events: Vec::new(),
            made_by: None,
        }
    }

    async fn gate_create(&self, name: &str, step: Option<usize>, expires: bool) -> Answer {
        let request = GateRequest {
            id: GateId(Uuid::new_v4()),
            run_id: self.run,
            step_id: step.map(|at| self.steps[at]),
            gate_type: name.to_owned(),
            evidence_uri: None,
            reason: None,
            expires_after_s: expires.then_some(AN_HOUR_S),
        };
        Answer::of(match gate::gate_create(&self.lab.session(), &request).await.unwrap() {
            GateCreated::Created => "created",
            GateCreated::Conflict(AlreadyStarted::Run { .. }) => "conflict run",
            GateCreated::Conflict(AlreadyStarted::Step { .. }) => "conflict step",
            GateCreated::NotFound { what: GateTarget::Run } => "not_found run",
            GateCreated::NotFound { what: GateTarget::Step } => "not_found step",
            GateCreated::Full { .. } => "full",
        })
    }

    async fn decide(&self, name: &str, generation: u32, decision: Decision) -> Answer {
        let sql = "select id from nofx.gate where run_id = $1 and gate_type = $2 and generation = $3
                    order by status = 'pending' desc, created_at desc limit 1";
        let generation = i32::try_from(generation).unwrap();
        let row = self.lab.admin.query_one(sql, &[&self.run.0, &name, &generation]).await.unwrap();
        let id = GateId(row.get(0));
        let decision = GateDecision { gate_id: id, decision, actor: "ann", reason: Some("so"), seen: None };
        match gate::gate_decide(&self.lab.session(), &decision, Some(&json!({})), None).await.unwrap() {
            GateDecided::Decided { ready, .. } => Answer { wakes: self.named(&ready), ..Answer::of("decided") },
            GateDecided::Conflict { .. } => Answer::of("conflict"),
            GateDecided::NotFound => Answer::of("not_found"),
            other => panic!("one person of a local tenant decides alone: {other:?}"),
        }
    }

    async fn control(&self, control: Control) -> Answer {
        let lab = self.lab;
        let (result, changes) =
            match run::run_control(&session(&lab.ctx.db, &lab.tenant), self.run, control, "ann").await.unwrap() {
                Controlled::Cancelled(changes) => ("cancelled", changes),
                Controlled::Paused(changes) => ("paused", changes),
                Controlled::Resumed(changes) => ("resumed", changes),
                Controlled::Retried(changes) => ("retried", changes),
                Controlled::Unchanged(changes) => ("unchanged", changes),
                Controlled::Conflict { .. } => return Answer::of("conflict"),
                Controlled::NotFound => return Answer::of("not_found"),
                Controlled::Gone(_) => return Answer::of("gone"),
            };
        Answer { wakes: self.named(&changes.ready), ..Answer::of(result) }
    }

    async fn sweep(&self, kind: Sweep) -> Answer {
        let swept = sweep::sweep(&self.lab.ctx.db, kind, 100).await.unwrap();
        Answer { results: Vec::new(), wakes: self.named(&swept.ready) }
    }

    async fn no_wakeup_due(&self) {
        let sql = "update nofx.step set notify_at = now() + interval '1 hour'
                    where run_id = $1 and status = 'ready' and notify_at < 'infinity'";
        self.lab.admin.execute(sql, &[&self.run.0]).await.unwrap();
    }

    fn at(&self, step: StepId) -> usize {
        self.steps.iter().position(|id| *id == step).expect("a step of this run")
    }

    fn named(&self, wakeups: &[WakeUp]) -> BTreeSet<usize> {
        wakeups.iter().map(|wakeup| self.at(wakeup.step_id)).collect()
    }
}
