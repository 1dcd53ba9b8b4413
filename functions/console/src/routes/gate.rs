//! A gate, and decisions about it.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use shared::context::Ctx;
use shared::db::console::{self, Focus};
use shared::db::gate::{self, GateDecision};
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId};
use shared::error::Error;
use shared::flow::decide_gate::decide_gate;
use shared::http::{self, ACTOR, Form, REASON, id_param};

use super::evidence::{bytes, unreadable};
use super::{evidence, failure, redirect, run, show};
use crate::csrf;
use crate::evidence::GateChange;
use crate::page::{self, Base, DecisionPage, Notice, RunPage};

/// `GET /ui/gates/{id}`.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let read = async || {
        let id: GateId = id_param("gate", &id)?;
        let gate = console::gate_fetch(&ctx.db, &ctx.config.tenant, id).await?;
        let gate = gate.ok_or_else(|| Error::NotFound(format!("gate {id}")))?;
        let Some(artifact) = gate.evidence_id.filter(|_| gate.is_about_change()) else { return Ok((gate, None)) };
        let document = evidence::find(&ctx, artifact).await?;
        let change = GateChange::read(&bytes(&ctx, &document).await?).map_err(unreadable)?;
        Ok((gate, Some((document, change))))
    };
    match read().await {
        Ok((gate, change)) => show(&headers, |token| {
            let change = change.as_ref().map(|(document, change)| (document, change));
            page::decision_page(&DecisionPage { base: Base::RUN, gate: &gate, change, token })
        }),
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `POST /ui/gates/{id}/{approve|reject|waive}`: redirects to the run (303), or shows the run with the reason why not.
pub async fn decide(
    State(ctx): State<Ctx>,
    Path((id, decision)): Path<(String, String)>,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let (decision, gate_id) = match (verb(&decision), id_param::<GateId>("gate", &id)) {
        (Some(decision), Ok(id)) => (decision, id),
        (None, _) => return failure(Base::GATE, &Error::NotFound("This page".into())),
        (_, Err(error)) => return failure(Base::GATE, &error),
    };
    // Check this first: a forged form must not learn whether the gate exists.
    if let Err(sentence) = csrf::check(&headers, ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(Base::GATE, &Error::Forbidden(sentence.to_owned()));
    }
    match record(&ctx, gate_id, decision, &form).await {
        Ok(run_id) => redirect(&Base::GATE.to(&format!("runs/{run_id}?decided={gate_id}"))),
        Err(error @ (Error::Conflict(..) | Error::Invalid(_))) => rejected(&ctx, &headers, gate_id, &error).await,
        Err(error) => failure(Base::GATE, &error),
    }
}

/// Records the decision. Returns the id of the gate's run.
async fn record(ctx: &Ctx, gate_id: GateId, decision: Decision, form: &Form) -> Result<RunId, Error> {
    let (actor, reason) = form.read(&[ACTOR, REASON, &["csrf"]], |fields| {
        fields.require(&["actor"]);
        let (actor, reason) = (http::actor(fields), http::reason(fields));
        let is_invisible = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if reason.as_deref().is_some_and(|reason| reason.contains(is_invisible)) {
            fields.problem("reason", "must not contain control characters");
        }
        Some((actor, reason))
    })?;
    let reason = reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let tenant_id = &ctx.config.tenant;
    let gate = decide_gate(ctx, &GateDecision { tenant_id, gate_id, decision, actor: &actor, reason }).await?;
    Ok(gate.run_id)
}

/// The current run, with the error on top.
async fn rejected(ctx: &Ctx, headers: &HeaderMap, gate_id: GateId, error: &Error) -> Response {
    let run = match gate::gate_fetch(&ctx.db, &ctx.config.tenant, gate_id).await {
        Ok(Some(gate)) => {
            let focus = Focus { gate: Some(gate_id), ..Focus::default() };
            run::find(ctx, gate.run_id, focus, None).await
        }
        Ok(None) => Err(Error::NotFound(format!("gate {gate_id}"))),
        Err(error) => Err(error),
    };
    let run = match run {
        Ok(run) => run,
        Err(error) => return failure(Base::GATE, &error),
    };
    let sentence = error.to_string();
    let mut response = show(headers, |token| {
        let notice = Some(Notice::Refused(&sentence));
        page::run_page(&RunPage { base: Base::GATE, run: &run, token, notice, before: None })
    });
    let is_conflict = matches!(error, Error::Conflict(..));
    *response.status_mut() = if is_conflict { StatusCode::CONFLICT } else { StatusCode::BAD_REQUEST };
    response
}

fn verb(text: &str) -> Option<Decision> {
    match text {
        "approve" => Some(Decision::Approve),
        "reject" => Some(Decision::Reject),
        "waive" => Some(Decision::Waive),
        _ => None,
    }
}
