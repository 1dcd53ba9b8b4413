//! Gates: create, decide, list.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::link::{LinkFault, LinkProof};
use super::page::{Page, page};
use super::row;
use super::run::NewStep;
use super::session::{Arg, Session};
use crate::domain::approval::ApprovalRule;
use crate::domain::gate::Decision;
use crate::domain::principal::Principal;
use crate::domain::{GateId, Problem, RunId, StepId, StepStatus, WakeUp};
use crate::error::Error;
use crate::view::{Gate, WhyNot};

/// A gate before a step that has not started, or before a run's end.
#[derive(Debug, Serialize)]
pub struct GateRequest {
    pub id: GateId,
    pub run_id: RunId,
    pub step_id: Option<StepId>,
    pub gate_type: String,
    pub evidence_uri: Option<String>,
    pub reason: Option<String>,
    pub expires_after_s: Option<u32>,
}

/// Result of creating a gate.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum GateCreated {
    Created,
    Conflict(AlreadyStarted),
    NotFound {
        what: GateTarget,
    },
    /// So many gates of clients wait in the run already.
    Full {
        maximum: u32,
    },
}

/// What waits for a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateTarget {
    Run,
    Step,
}

/// Why a gate was not created: what it should stop has already started or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum AlreadyStarted {
    Run { status: ClosedRunStatus },
    Step { status: StepStatus },
}

/// Status of a run that accepts no more gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedRunStatus {
    /// A step has failed, and others are still running.
    Failing,
    Succeeded,
    Failed,
    Cancelled,
}

impl fmt::Display for ClosedRunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A decision about a gate.
#[derive(Debug, Serialize)]
pub struct GateDecision<'a> {
    pub gate_id: GateId,
    pub decision: Decision,
    pub actor: &'a str,
    pub reason: Option<&'a str>,
    /// The digest of the gate as the person saw it, if the request has it.
    pub seen: Option<&'a str>,
}

impl<'a> GateDecision<'a> {
    /// The name under which the decision is recorded. Only the person of a local tenant may choose one.
    pub fn actor_of(&self, who: &'a Principal) -> &'a str
    where
        Self: 'a,
    {
        if who.solo && who.token_id.is_none() && !self.actor.is_empty() { self.actor } else { &who.name }
    }
}

/// Result of deciding a gate, with the gate's current state.
#[derive(Debug, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum GateDecided {
    Decided {
        gate: Gate,
        ready: Vec<WakeUp>,
    },
    /// The approval counts, and the gate needs more.
    Recorded {
        gate: Gate,
    },
    /// The person has approved before.
    Unchanged {
        gate: Gate,
    },
    /// The person may not decide this gate.
    Excluded {
        why: WhyNot,
    },
    /// The gate has changed since the person saw it. The paths say what changed.
    Changed {
        changed: Vec<String>,
    },
    /// The link cannot be used.
    Link {
        why: LinkFault,
    },
    /// The gate was already decided, or has expired.
    Conflict {
        gate: Gate,
    },
    NotFound,
}

pub async fn gate_create(session: &Session, gate: &GateRequest) -> Result<GateCreated, Error> {
    session.transition("select nofx.gate_create($1)", gate).await
}

/// Decides a gate if it is pending. `envelope` is the signed statement about the decision: without one nothing is decided, and
/// a decision that is possible is [`GateDecided::Changed`]. A link must be of this gate and for the caller, and is used up with
/// the decision.
pub async fn gate_decide(
    session: &Session,
    decision: &GateDecision<'_>,
    envelope: Option<&Value>,
    link: Option<&LinkProof>,
) -> Result<GateDecided, Error> {
    #[derive(Debug, Serialize)]
    struct Call<'a> {
        #[serde(flatten)]
        decision: &'a GateDecision<'a>,
        envelope: Option<&'a Value>,
        link: Option<&'a LinkProof>,
    }
    session.transition("select nofx.gate_decide($1)", &Call { decision, envelope, link }).await
}

/// Columns of a gate as the API shows it. The query names the gate `g`.
const GATE: &str =
    "g.id, g.run_id, g.step_id, g.gate_type, g.status, g.on_pass, g.generation, g.subject, g.evidence_uri,
                    (select e.id from nofx.artifact e
                      where e.step_id = g.step_id and e.tenant_id = g.tenant_id and e.uri = g.evidence_uri
                      order by e.id limit 1) as evidence_id,
                    g.reason, g.approved_by, g.approved_at, g.expires_at, g.created_at, g.decided_at,
                    (select to_json(made) from (
                        select a.decision, a.actor, a.reason, a.created_at
                          from nofx.approval a where a.gate_id = g.id and a.decides) made) as decision,
                    g.bound_digest as digest";
/// Columns of a [`crate::view::Standing`] of a gate `g`. The query adds [`STANDING_JOIN`].
pub(super) const STANDING: &str =
    "st.required, st.approved, st.eligible, st.rule, coalesce(st.approvals, '[]') as approvals, st.may_decide";
pub(super) const STANDING_JOIN: &str = "left join lateral nofx.gate_standing(g.id) st on true";

/// A gate. `None` if the tenant has no such gate.
pub async fn gate_fetch(session: &Session, gate: GateId) -> Result<Option<Gate>, Error> {
    let sql = format!(
        "select {GATE}, {STANDING}, g.bound as covers,
                coalesce((select json_agg(a.envelope order by a.created_at, a.id) from nofx.approval a
                           where a.gate_id = g.id and a.envelope is not null), '[]') as attestations
           from nofx.gate g {STANDING_JOIN} where g.tenant_id = $1 and g.id = $2"
    );
    row::fetch(session, &sql, &[(&gate.0, Type::UUID)]).await
}

/// Gates of a run, oldest first, after the one with the id `after`.
pub async fn gate_list_of_run(
    session: &Session,
    run: RunId,
    after: Option<GateId>,
    limit: i64,
) -> Result<Page<Gate>, Error> {
    list(session, Some(run), after, limit).await
}

/// Pending gates, oldest first, after the one with the id `after`, which may be decided by now.
pub async fn gate_list_pending(session: &Session, after: Option<GateId>, limit: i64) -> Result<Page<Gate>, Error> {
    list(session, None, after, limit).await
}

async fn list(session: &Session, run: Option<RunId>, after: Option<GateId>, limit: i64) -> Result<Page<Gate>, Error> {
    let which = if run.is_some() { "g.run_id = $3" } else { "$3::uuid is null and g.status = 'pending'" };
    // Two query texts: with an optional cursor in one text Postgres would not use the index.
    let behind = if after.is_some() {
        "(g.created_at, g.id) > (select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $4)"
    } else {
        "$4::uuid is null"
    };
    let sql = format!(
        "select {GATE}, {STANDING}
           from (select * from nofx.gate g
                  where g.tenant_id = $1 and {which} and {behind} order by g.created_at, g.id limit $2 + 1) g
          {STANDING_JOIN} order by g.created_at, g.id"
    );
    let (run, after) = (run.map(|id| id.0), after.map(|id| id.0));
    let params: [Arg<'_>; 3] = [(&limit, Type::INT8), (&run, Type::UUID), (&after, Type::UUID)];
    page(session, &sql, limit, &params).await
}

/// The rules that result from the approvals of a plan.
#[derive(Debug, Deserialize)]
pub struct ApprovalRules {
    /// By the name of the step.
    pub rules: BTreeMap<String, ApprovalRule>,
    pub problems: Vec<Problem>,
}

/// The rules of the steps of a plan, each the stricter of the plan and the tenant's policy.
pub async fn approval_rules(session: &Session, steps: &[NewStep<'_>]) -> Result<ApprovalRules, Error> {
    let steps = serde_json::to_value(steps).map_err(|error| Error::internal("write the steps of a plan", error))?;
    let rules = session.value("select nofx.approval_rules($2)", &[(&steps, Type::JSONB)]).await?;
    rules.ok_or_else(|| Error::internal("read the rules of a plan", "no row"))
}

/// Whether the tenant has such a gate.
pub async fn gate_exists(session: &Session, gate: GateId) -> Result<bool, Error> {
    let sql = "select from nofx.gate g where g.tenant_id = $1 and g.id = $2";
    row::exists(session, sql, &[(&gate.0, Type::UUID)]).await
}
