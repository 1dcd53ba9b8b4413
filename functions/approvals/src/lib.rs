//! HTTP routes of gates: create, list, read, approve, reject, waive.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::Value;
use shared::context::Ctx;
use shared::db::gate::{self, GateDecision, GateRequest};
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId, StepId};
use shared::error::{Error, Problem};
use shared::flow::decide_gate::decide_gate;
use shared::http::{Routes, actor_of, id_param, json_body};
use uuid::Uuid;

/// Most gates of the inbox.
const INBOX: i64 = 200;
const MAX_REASON_CHARS: usize = 2_000;

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    Routes::default()
        .post("/gates", create)
        .get("/gates", inbox)
        .get("/gates/{id}", fetch)
        .post("/gates/{id}/approve", approve)
        .post("/gates/{id}/reject", reject)
        .post("/gates/{id}/waive", waive)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Router {
    routes().into_router().with_state(ctx)
}

/// `POST /gates {run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}` -> 201 with the gate. Also in the
/// first version's spelling: `runId, stepId, gateType, evidenceUri`.
async fn create(State(ctx): State<Ctx>, body: Bytes) -> Result<Response, Error> {
    let request = parse(&ctx, &json_body(&body)?)?;
    let created = gate::gate_create(&ctx.db, &request).await?;
    let what = created.what.as_deref().unwrap_or("run");
    match created.result.as_str() {
        "created" => {
            let gate = gate::gate_fetch(&ctx.db, &request.tenant_id, request.id).await?;
            Ok((StatusCode::CREATED, Json(gate)).into_response())
        }
        "conflict" => {
            let status = created.status.unwrap_or_default();
            Err(Error::Conflict(format!("the {what} is {status}: a gate can only stand before what has not started")))
        }
        _ if what == "step" => Err(Error::NotFound("that step of the run".into())),
        _ => Err(Error::NotFound(format!("run {}", request.run_id))),
    }
}

/// `GET /gates` -> the gates that wait for a decision, oldest first.
async fn inbox(State(ctx): State<Ctx>) -> Result<Json<Vec<Value>>, Error> {
    gate::gate_list_pending(&ctx.db, &ctx.config.tenant, INBOX).await.map(Json)
}

/// `GET /gates/{id}`.
async fn fetch(State(ctx): State<Ctx>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let id: GateId = id_param("gate", &id)?;
    let gate = gate::gate_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    gate.map(Json).ok_or_else(|| Error::NotFound(format!("gate {id}")))
}

/// `POST /gates/{id}/approve {actor, reason}`.
async fn approve(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    decide(state, path, &body, Decision::Approve).await
}

/// `POST /gates/{id}/reject {actor, reason}`.
async fn reject(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    decide(state, path, &body, Decision::Reject).await
}

/// `POST /gates/{id}/waive {actor, reason}`.
async fn waive(state: State<Ctx>, path: Path<String>, body: Bytes) -> Result<Json<Value>, Error> {
    decide(state, path, &body, Decision::Waive).await
}

async fn decide(
    State(ctx): State<Ctx>,
    Path(id): Path<String>,
    body: &Bytes,
    decision: Decision,
) -> Result<Json<Value>, Error> {
    let gate_id: GateId = id_param("gate", &id)?;
    let body = json_body(body)?;
    let actor = actor_of(&body)?;
    let reason = text(&body, &["reason"], MAX_REASON_CHARS)?;
    let tenant_id = &ctx.config.tenant;
    let decision = GateDecision { tenant_id, gate_id, decision, actor: &actor, reason: reason.as_deref() };
    decide_gate(&ctx, &decision).await.map(Json)
}

fn parse(ctx: &Ctx, body: &Value) -> Result<GateRequest, Error> {
    if !body.is_object() {
        return Err(Error::invalid("", "the body must be a JSON object"));
    }
    let run_id = text(body, &["run_id", "runId"], 36)?
        .and_then(|id| id.parse::<RunId>().ok())
        .ok_or_else(|| Error::invalid("run_id", "must be the id of a run"))?;
    let step_id = text(body, &["step_id", "stepId"], 36)?
        .map(|id| id.parse::<StepId>().map_err(|_| Error::invalid("step_id", "must be the id of a step")))
        .transpose()?;
    let expires_after_s = match &body["expires_after_s"] {
        Value::Null => None,
        value => Some(
            value
                .as_u64()
                .and_then(|seconds| u32::try_from(seconds).ok())
                .filter(|seconds| (1..=31_536_000).contains(seconds))
                .ok_or_else(|| Error::invalid("expires_after_s", "must be a whole number from 1 to 31536000"))?,
        ),
    };
    Ok(GateRequest {
        id: GateId(Uuid::now_v7()),
        tenant_id: ctx.config.tenant.clone(),
        run_id,
        step_id,
        gate_type: text(body, &["gate_type", "gateType"], 100)?
            .filter(|kind| !kind.trim().is_empty())
            .ok_or_else(|| Error::Invalid(vec![Problem::new("gate_type", "is missing")]))?,
        evidence_uri: text(body, &["evidence_uri", "evidenceUri"], 2_000)?,
        reason: text(body, &["reason"], MAX_REASON_CHARS)?,
        expires_after_s,
    })
}

/// The first of the keys that is there, as text.
fn text(body: &Value, keys: &[&str], most: usize) -> Result<Option<String>, Error> {
    let Some((key, value)) = keys.iter().map(|key| (key, &body[*key])).find(|(_, value)| !value.is_null()) else {
        return Ok(None);
    };
    match value {
        Value::String(text) if text.chars().count() <= most && !text.contains('\0') => Ok(Some(text.clone())),
        _ => Err(Error::invalid(*key, format!("must be a text of at most {most} characters"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_spellings_are_read_and_a_wrong_type_names_its_key() {
        let keys = ["gate_type", "gateType"];
        assert_eq!(text(&json!({"gateType": "x"}), &keys, 9).unwrap().as_deref(), Some("x"));
        assert_eq!(text(&json!({}), &keys, 9).unwrap(), None);
        assert!(text(&json!({"gateType": 3}), &keys, 9).unwrap_err().to_string().starts_with("gateType"));
    }
}
