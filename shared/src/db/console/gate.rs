//! Gates, on every page.

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use crate::db::row;
use crate::db::session::Session;
use crate::domain::budget_gate::WaitsFor;
use crate::domain::gate::GATE_CHANGE;
use crate::domain::{ArtifactId, GateId, GateStatus, RunId, Timestamp};
use crate::error::Error;
use crate::view::OnPass;

/// A gate, on any page.
#[derive(Debug, Clone, Deserialize)]
pub struct Gate {
    pub id: GateId,
    pub run_id: RunId,
    pub goal: String,
    /// Name of the step that waits for it; none for a gate of the run itself.
    pub step: Option<String>,
    pub gate_type: String,
    pub status: GateStatus,
    pub on_pass: OnPass,
    /// What a gate `budget` asks for: its subject.
    #[serde(default)]
    pub money: Option<Map<String, Value>>,
    pub reason: Option<String>,
    pub evidence_uri: Option<String>,
    /// Id of the artifact at `evidence_uri`.
    pub evidence_id: Option<ArtifactId>,
    /// The type of that artifact.
    pub evidence_type: Option<String>,
    /// The attempt of its step that left that artifact, if it is the evidence of a gate.
    pub judged_at: Option<AttemptAt>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// Whether it is pending and its time is over: nobody can decide it any more, and the next sweep ends it.
    pub is_over: bool,
    pub decided_at: Option<Timestamp>,
    pub actor: Option<String>,
    pub decision_reason: Option<String>,
}

/// An attempt of a step of the gate's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct AttemptAt {
    pub ordinal: i64,
    pub attempt: i64,
}

impl Gate {
    /// Whether a person decides about a difference that the console can show.
    pub fn is_about_change(&self) -> bool {
        // Older runs may have gates of this type that a client created. But only a handler makes a step run again, and only
        // `gate` stores attachments.
        let is_asked_by_gate = self.gate_type == GATE_CHANGE && self.on_pass == OnPass::Resume;
        is_asked_by_gate && self.evidence_id.is_some() && self.evidence_type.as_deref() == Some("gate_attachment")
    }

    /// Whether its step goes on without an approval.
    pub fn asks_nobody(&self) -> bool {
        WaitsFor::of(&self.gate_type, self.money.as_ref()).and_then(WaitsFor::by_itself).is_some()
    }

    pub fn is_pending(&self) -> bool {
        self.status == GateStatus::Pending
    }

    /// Whether people can decide it.
    pub fn is_open(&self) -> bool {
        self.is_pending() && !self.is_over
    }
}

/// Columns of a gate with its run, step and decision. The query names the gate `g` and adds [`GATE_JOINS`]. It limits the
/// gates first, because the joins may read all artifacts of a run for a gate whose evidence is not of its own step.
pub(super) const GATE: &str = concat!(
    "g.id, g.run_id, ",
    cut!("gr.goal", 300),
    " as goal, gs.name as step, g.gate_type, g.status, g.on_pass,
        case when g.gate_type = 'budget' then g.subject end as money,
        ",
    cut!("g.reason", 2000),
    " as reason, g.evidence_uri,
        coalesce(own.id, other.id) as evidence_id, coalesce(own.type, other.type) as evidence_type,
        case when own.type = 'gate_evidence' and own.attempt is not null
             then json_build_object('ordinal', gs.ordinal, 'attempt', own.attempt) end as judged_at, g.created_at,
        g.expires_at, coalesce(g.status = 'pending' and g.expires_at < now(), false) as is_over, g.decided_at, d.actor,
        d.reason as decision_reason"
);
pub(super) const GATE_JOINS: &str = "join nofx.run gr on gr.id = g.run_id
        left join nofx.step gs on gs.id = g.step_id
        left join nofx.approval d on d.gate_id = g.id and d.decides
        left join lateral (
            select a.id, left(a.type, 200) as type, a.attempt from nofx.artifact a
             where a.tenant_id = $1 and a.step_id = g.step_id and a.uri = g.evidence_uri
             order by a.id limit 1) own on true
        left join lateral (
            select a.id, left(a.type, 200) as type from nofx.artifact a
             where a.tenant_id = $1 and a.run_id = g.run_id and a.uri = g.evidence_uri
               and own.id is null and g.evidence_uri is not null
             order by a.created_at, a.id limit 1) other on true";

/// A gate of the tenant.
pub async fn gate_fetch(session: &Session, gate: GateId) -> Result<Option<Gate>, Error> {
    let sql = format!("select {GATE} from nofx.gate g {GATE_JOINS} where g.tenant_id = $1 and g.id = $2");
    row::fetch(session, &sql, &[(&gate.0, Type::UUID)]).await
}
