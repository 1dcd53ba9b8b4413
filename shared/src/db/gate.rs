//! Gates: create, decide, list.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::page::{Page, page};
use super::pool::{Database, Param};
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

/// Gates of a run, oldest first, after the one with the id `after`.
pub async fn gate_list_of_run(
    db: &Database,
    tenant: &TenantId,
    run: RunId,
    after: Option<GateId>,
    limit: i64,
) -> Result<Page, Error> {
    list(db, tenant, Some(run), after, limit).await
}

/// Gates that wait for somebody, oldest first, after the one with the id `after`, which may have been decided since.
pub async fn gate_list_pending(
    db: &Database,
    tenant: &TenantId,
    after: Option<GateId>,
    limit: i64,
) -> Result<Page, Error> {
    list(db, tenant, None, after, limit).await
}

async fn list(
    db: &Database,
    tenant: &TenantId,
    run: Option<RunId>,
    after: Option<GateId>,
    limit: i64,
) -> Result<Page, Error> {
    let which = if run.is_some() { "g.run_id = $3" } else { "$3::uuid is null and g.status = 'pending'" };
    // Two texts, because the index is not used where the cursor may be absent.
    let behind = if after.is_some() {
        "(g.created_at, g.id) > (select c.created_at, c.id from nofx.gate c where c.tenant_id = $1 and c.id = $4)"
    } else {
        "$4::uuid is null"
    };
    let sql = format!(
        "select nofx.gate_json(g.id) as json from nofx.gate g
          where g.tenant_id = $1 and {which} and {behind} order by g.created_at, g.id limit $2 + 1"
    );
    let (run, after) = (run.map(|id| id.0), after.map(|id| id.0));
    let params: [Param<'_>; 4] =
        [(&tenant.0, Type::TEXT), (&limit, Type::INT8), (&run, Type::UUID), (&after, Type::UUID)];
    page(db, &sql, limit, &params).await
}

/// Whether the tenant has such a gate.
pub async fn gate_exists(db: &Database, tenant: &TenantId, gate: GateId) -> Result<bool, Error> {
    let sql = "select exists (select from nofx.gate g where g.tenant_id = $1 and g.id = $2)";
    Ok(db.query_value(sql, &[(&tenant.0, Type::TEXT), (&gate.0, Type::UUID)]).await?.unwrap_or(false))
}
