//! Gates, on every page.

use serde::Deserialize;
use tokio_postgres::types::Type;

use crate::db::pool::Database;
use crate::db::row;
use crate::domain::gate::GATE_CHANGE;
use crate::domain::{ArtifactId, GateId, GateStatus, RunId, TenantId, Timestamp};
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
    pub reason: Option<String>,
    pub evidence_uri: Option<String>,
    /// Id of the artifact at `evidence_uri`.
    pub evidence_id: Option<ArtifactId>,
    /// The type of that artifact.
    pub evidence_type: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub decided_at: Option<Timestamp>,
    pub actor: Option<String>,
    pub decision_reason: Option<String>,
}

impl Gate {
    /// Whether a person decides about a difference that the console can show.
    pub fn is_about_change(&self) -> bool {
        // Older runs may have gates of this type that a client created. But only a handler makes a step run again, and only
        // `gate` stores attachments.
        let is_asked_by_gate = self.gate_type == GATE_CHANGE && self.on_pass == OnPass::Resume;
        is_asked_by_gate && self.evidence_id.is_some() && self.evidence_type.as_deref() == Some("gate_attachment")
    }

    pub fn is_pending(&self) -> bool {
        self.status == GateStatus::Pending
    }
}

/// Columns of a gate with its run, step and decision. The query names the gate `g` and adds [`GATE_JOINS`].
pub(super) const GATE: &str =
    "g.id, g.run_id, left(gr.goal, 300) as goal, gs.name as step, g.gate_type, g.status, g.on_pass,
        left(g.reason, 2000) as reason, g.evidence_uri,
        ge.id as evidence_id, ge.type as evidence_type, g.created_at, g.expires_at, g.decided_at, d.actor,
        d.reason as decision_reason";
pub(super) const GATE_JOINS: &str = "join nofx.run gr on gr.id = g.run_id
        left join nofx.step gs on gs.id = g.step_id
        left join nofx.approval d on d.gate_id = g.id
        left join lateral (
            select a.id, left(a.type, 200) as type from nofx.artifact a
             where a.tenant_id = $1 and a.run_id = g.run_id and a.uri = g.evidence_uri
             order by a.id limit 1) ge on true";

/// A gate of the tenant.
pub async fn gate_fetch(db: &Database, tenant: &TenantId, gate: GateId) -> Result<Option<Gate>, Error> {
    let sql = format!("select {GATE} from nofx.gate g {GATE_JOINS} where g.tenant_id = $1 and g.id = $2");
    row::fetch(db, &sql, &[(&tenant.0, Type::TEXT), (&gate.0, Type::UUID)]).await
}
