//! A gate, and decisions about it.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use shared::context::Ctx;
use shared::db::console::{self, Document, Gate};
use shared::db::gate::GateDecision;
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId};
use shared::error::Error;
use shared::flow::decide_gate::decide_gate;
use shared::http::{self, ACTOR, Form, REASON, id_param};

use super::evidence::{bytes, unreadable};
use super::{evidence, failure, redirect, show};
use crate::csrf;
use crate::evidence::GateChange;
use crate::page::{self, Base, DecisionPage, Refused};

/// A gate, and the difference that it asks about.
struct Asked {
    gate: Gate,
    change: Option<(Document, GateChange)>,
}

impl Asked {
    async fn find(ctx: &Ctx, id: GateId) -> Result<Self, Error> {
        let gate = console::gate_fetch(&ctx.db, &ctx.config.tenant, id).await?;
        let gate = gate.ok_or_else(|| Error::NotFound(format!("gate {id}")))?;
        let Some(artifact) = gate.evidence_id.filter(|_| gate.is_about_change()) else {
            return Ok(Self { gate, change: None });
        };
        let document = evidence::find(ctx, artifact).await?;
        let change = GateChange::read(&bytes(ctx, &document).await?).map_err(unreadable)?;
        Ok(Self { gate, change: Some((document, change)) })
    }

    fn show(&self, base: Base, headers: &HeaderMap, refused: Option<Refused<'_>>) -> Response {
        let change = self.change.as_ref().map(|(document, change)| (document, change));
        show(headers, |token| page::decision_page(&DecisionPage { base, gate: &self.gate, change, token, refused }))
    }
}

/// `GET /ui/gates/{id}`.
pub async fn page(State(ctx): State<Ctx>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let read = async || Asked::find(&ctx, id_param("gate", &id)?).await;
    match read().await {
        Ok(asked) => asked.show(Base::RUN, &headers, None),
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `POST /ui/gates/{id}/{approve|reject|waive}`: redirects to the run (303), or shows the gate with the reason why not.
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
        Err(error @ (Error::Conflict(..) | Error::Invalid(_))) => refused(&ctx, &headers, gate_id, &form, &error).await,
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

/// The gate as it is now, with the error on top and what was typed in the form.
async fn refused(ctx: &Ctx, headers: &HeaderMap, gate_id: GateId, form: &Form, error: &Error) -> Response {
    let asked = match Asked::find(ctx, gate_id).await {
        Ok(asked) => asked,
        Err(error) => return failure(Base::GATE, &error),
    };
    let why = error.to_string();
    let typed = Refused { why: &why, actor: form.text("actor"), reason: form.text("reason") };
    let mut response = asked.show(Base::GATE, headers, Some(typed));
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
