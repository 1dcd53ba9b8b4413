//! HTTP routes of gates: create, list, read, approve, reject, waive.

#[cfg(feature = "openapi")]
pub mod contract;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use shared::auth::LinkToken;
use shared::context::Ctx;
use shared::db::Session;
use shared::db::gate::{self, AlreadyStarted, GateCreated, GateDecision, GateRequest, GateTarget};
use shared::db::link::NewLink;
use shared::domain::access::MAX_EMAIL_BYTES;
use shared::domain::fields::{self, Most, Names};
use shared::domain::gate::{Decision, check_type};
use shared::domain::hidden::Lines;
use shared::domain::principal::Permission;
use shared::domain::{GateId, LinkId};
use shared::error::{Code, Error};
use shared::flow::decide_gate::decide_gate;
use shared::flow::link_gate::{DEFAULT_LINK_S, LINK_S, link_gate};
use shared::http::{
    ACTOR, BasePath, Body, Query, REASON, Routes, actor, id_param, link_url, not_given_out, page_of, reason, reason_of,
};
use shared::view::{Gate, GateLink};
use uuid::Uuid;

/// Fields of a new gate, with their names in the first version.
const NEW_GATE: &[Names] = &[
    &["run_id", "runId"],
    &["step_id", "stepId"],
    &["gate_type", "gateType"],
    &["evidence_uri", "evidenceUri"],
    REASON,
    &["expires_after_s"],
];
/// Fields of a decision. `digest` is that of what the person has seen.
const DECISION: &[Names] = &[ACTOR, REASON, &["digest"]];
/// Fields of a link.
const LINK: &[Names] = &[&["for"], &["expires_in_s"]];
/// A year.
const MAX_EXPIRY_S: u64 = 31_536_000;

/// All routes of the function.
pub fn routes() -> Routes<Ctx> {
    use Permission::{GatesCreate, GatesDecide, GatesLink, GatesWaive, RunsRead};
    Routes::default()
        .post(GatesCreate, "/gates", create)
        .get_with(RunsRead, "/gates", &["after", "limit"], inbox)
        .get(RunsRead, "/gates/{id}", fetch)
        .post(GatesDecide, "/gates/{id}/approve", approve)
        .post(GatesDecide, "/gates/{id}/reject", reject)
        .post(GatesWaive, "/gates/{id}/waive", waive)
        .post(GatesLink, "/gates/{id}/links", link)
}

/// The function over a context.
pub fn router(ctx: Ctx) -> Result<Router, Error> {
    Ok(routes().into_router(&ctx)?.with_state(ctx))
}

/// `POST /gates {run_id, step_id, gate_type, evidence_uri, reason, expires_after_s}` -> 201 with the gate. The
/// names of the first version work too: `runId, stepId, gateType, evidenceUri`.
async fn create(session: Session, body: Body) -> Result<Response, Error> {
    let request = parse(&body)?;
    let started = match gate::gate_create(&session, &request).await? {
        GateCreated::Created => {
            let gate = gate::gate_fetch(&session, request.id).await?;
            return Ok((StatusCode::CREATED, Json(gate)).into_response());
        }
        GateCreated::Conflict(AlreadyStarted::Run { status }) => format!("the run is {status}"),
        GateCreated::Conflict(AlreadyStarted::Step { status }) => format!("the step is {status}"),
        GateCreated::NotFound { what: GateTarget::Step } => return Err(Error::NotFound("that step of the run".into())),
        GateCreated::NotFound { what: GateTarget::Run } => {
            return Err(Error::NotFound(format!("run {}", request.run_id)));
        }
        GateCreated::Full { maximum } => {
            let problem = format!("has {maximum} gates that wait for a decision; decide some of them first");
            return Err(Error::invalid("run_id", problem));
        }
    };
    let detail =
        format!("{started}; a gate can only be put before a step that has not started or a run that has not ended");
    Err(Error::Conflict(Code::AlreadyStarted, detail))
}

/// `GET /gates?after=&limit=` -> the gates that wait for a decision, oldest first; a bare array.
async fn inbox(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<GateId>()?, query.limit()?);
    let page = gate::gate_list_pending(&session, after, limit).await?;
    if let (true, Some(after)) = (page.items.is_empty(), after)
        && !gate::gate_exists(&session, after).await?
    {
        return Err(not_given_out());
    }
    let next = page.next(|gate| gate.id);
    Ok(page_of(page.items, next, &query))
}

/// `GET /gates/{id}`.
async fn fetch(session: Session, Path(id): Path<String>) -> Result<Json<Gate>, Error> {
    let id: GateId = id_param("gate", &id)?;
    let gate = gate::gate_fetch(&session, id).await?;
    gate.map(Json).ok_or_else(|| Error::NotFound(format!("gate {id}")))
}

/// `POST /gates/{id}/approve {actor, reason}`.
async fn approve(state: State<Ctx>, session: Session, path: Path<String>, body: Body) -> Result<Json<Gate>, Error> {
    decide(state, session, path, &body, Decision::Approve).await
}

/// `POST /gates/{id}/reject {actor, reason}`.
async fn reject(state: State<Ctx>, session: Session, path: Path<String>, body: Body) -> Result<Json<Gate>, Error> {
    decide(state, session, path, &body, Decision::Reject).await
}

/// `POST /gates/{id}/waive {actor, reason}`.
async fn waive(state: State<Ctx>, session: Session, path: Path<String>, body: Body) -> Result<Json<Gate>, Error> {
    decide(state, session, path, &body, Decision::Waive).await
}

/// `POST /gates/{id}/links {for, expires_in_s}` -> 201 with the link, whose secret nobody can read again.
async fn link(
    State(ctx): State<Ctx>,
    session: Session,
    base_path: BasePath,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Error> {
    let gate_id: GateId = id_param("gate", &id)?;
    let (person, expires_in_s) = body.read(LINK, |fields| {
        fields.require(&["for"]);
        let expires_in_s = fields.whole("expires_in_s", LINK_S).unwrap_or(DEFAULT_LINK_S);
        Some((fields.filled("for", Most::Bytes(MAX_EMAIL_BYTES))?, expires_in_s))
    })?;
    let token = LinkToken::generate(LinkId(Uuid::now_v7()))?;
    let new =
        NewLink { id: token.id, gate_id, person: person.trim(), secret_sha256: token.hash().to_hex(), expires_in_s };
    let made = link_gate(&session, &new).await?;
    let url = link_url(ctx.config.public_url.as_deref(), &base_path, &token);
    let (id, name, subject, digest, expires_at) = (made.id, made.name, made.subject, made.digest, made.expires_at);
    let link = GateLink { id, url, name, subject, gate_id, digest, expires_at };
    Ok((StatusCode::CREATED, Json(link)).into_response())
}

async fn decide(
    State(ctx): State<Ctx>,
    session: Session,
    Path(id): Path<String>,
    body: &Body,
    decision: Decision,
) -> Result<Json<Gate>, Error> {
    let gate_id: GateId = id_param("gate", &id)?;
    let (actor, reason, seen) = body.read_if_any(DECISION, |fields| {
        let seen = fields.text("digest", Most::Bytes(64)).map(str::to_owned);
        Some((actor(fields), reason_of(fields, decision), seen))
    })?;
    let decision = GateDecision { gate_id, decision, actor: &actor, reason: reason.as_deref(), seen: seen.as_deref() };
    decide_gate(&ctx, &session, &decision).await.map(Json)
}

fn parse(body: &Body) -> Result<GateRequest, Error> {
    body.read(NEW_GATE, |fields| {
        fields.require(&["run_id", "gate_type"]);
        let (run_id, step_id) = (fields.id("run_id", "a run"), fields.id("step_id", "a step"));
        let gate_type = fields.readable("gate_type", Most::Chars(100), Lines::One);
        let gate_type = gate_type.and_then(|given| fields.read("gate_type", |_| check_type(given).map(|()| given)));
        let evidence_uri = fields.read("evidence_uri", |value| {
            fields::text(value, Most::Chars(2_000)).and_then(|uri| fields::readable(uri, Lines::One))
        });
        let (reason, expires_after_s) = (reason(fields), fields.whole("expires_after_s", 1..=MAX_EXPIRY_S));
        Some(GateRequest {
            id: GateId(Uuid::now_v7()),
            run_id: run_id?,
            step_id,
            gate_type: gate_type?.to_owned(),
            evidence_uri: evidence_uri.map(str::to_owned),
            reason,
            expires_after_s,
        })
    })
}
