//! Gates: create, decide, list.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::pool::{Database, column};
use crate::domain::WakeUp;
use crate::domain::gate::Decision;
use crate::domain::{GateId, RunId, StepId, TenantId};
use crate::error::Error;

/// A gate in front of a step that has not started, or of a run's end.
#[derive(Debug, Serialize)]
pub struct GateRequest {
    pub id: GateId,
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub step_id: Option<StepId>,
    pub gate_type: String,
    pub evidence_uri: Option<String>,
    pub reason: Option<String>,
    pub expires_after_s: Option<u32>,
}

/// What creating a gate gave.
#[derive(Debug, Deserialize)]
pub struct GateCreated {
    /// created, conflict or not_found.
    pub result: String,
    /// run or step: what stood in the way.
    pub what: Option<String>,
    pub status: Option<String>,
}

/// Somebody's decision about a gate.
#[derive(Debug, Serialize)]
pub struct GateDecision<'a> {
    pub tenant_id: &'a TenantId,
    pub gate_id: GateId,
    pub decision: Decision,
    pub actor: &'a str,
    pub reason: Option<&'a str>,
}

/// What deciding gave.
#[derive(Debug, Deserialize)]
pub struct GateDecided {
    /// decided, conflict or not_found.
    pub result: String,
    /// The gate as it is now.
    pub gate: Option<Value>,
    #[serde(default)]
    pub ready: Vec<WakeUp>,
}

/// Creates a pending gate.
pub async fn gate_create(db: &Database, gate: &GateRequest) -> Result<GateCreated, Error> {
    db.transition("select nofx.gate_create($1)", gate).await
}

/// Decides a pending gate, once.
pub async fn gate_decide(db: &Database, decision: &GateDecision<'_>) -> Result<GateDecided, Error> {
    db.transition("select nofx.gate_decide($1)", decision).await
}

/// A gate; `None` when the tenant has no such gate.
pub async fn gate_fetch(db: &Database, tenant: &TenantId, gate: GateId) -> Result<Option<Value>, Error> {
    let sql = "select nofx.gate_json(g.id) from nofx.gate g where g.tenant_id = $1 and g.id = $2";
    db.query_value(sql, &[(&tenant.0, Type::TEXT), (&gate.0, Type::UUID)]).await
}

/// Gates of a run, oldest first.
pub async fn gate_list_of_run(db: &Database, tenant: &TenantId, run: RunId) -> Result<Vec<Value>, Error> {
    let sql = "select nofx.gate_json(g.id) from nofx.gate g
                where g.tenant_id = $1 and g.run_id = $2 order by g.created_at, g.id limit 1000";
    let rows = db.query(sql, &[(&tenant.0, Type::TEXT), (&run.0, Type::UUID)]).await?;
    rows.iter().map(column).collect()
}

/// Gates that wait for somebody, oldest first.
pub async fn gate_list_pending(db: &Database, tenant: &TenantId, limit: i64) -> Result<Vec<Value>, Error> {
    let sql = "select nofx.gate_json(g.id) from nofx.gate g
                where g.tenant_id = $1 and g.status = 'pending' order by g.created_at, g.id limit $2";
    let rows = db.query(sql, &[(&tenant.0, Type::TEXT), (&limit, Type::INT8)]).await?;
    rows.iter().map(column).collect()
}
