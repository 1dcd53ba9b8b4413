//! Steps: list, read, and what one waits for.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use shared::context::Ctx;
use shared::db::{Page, run, step_view};
use shared::domain::{GateStatus, RunId, StepId};
use shared::error::Error;
use shared::http::{BasePath, Condition, Query, encoded, id_param, not_given_out, page_of, shown};
use shared::view::next::{AskedNow, ParentNow, StepNext, StepStanding, next_of_step};
use shared::view::sentence::plain;
use shared::view::{Step, StepPage, StepWhy};

use crate::runs::version;

/// `GET /runs/{id}/steps?after=&limit=` -> `{steps, next}` in the plan's order.
pub async fn list(
    State(ctx): State<Ctx>,
    base_path: BasePath,
    Path(id): Path<String>,
    query: Query,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after::<StepId>()?, query.limit()?);
    let version = version(&ctx, id).await?;
    let answer = async {
        if let Some(after) = after
            && !step_view::step_exists(&ctx.db, &ctx.config.tenant, id, after).await?
        {
            return Err(not_given_out());
        }
        let page = page(&ctx, &base_path, id, after, limit).await?;
        let next = page.next(|step| step.id);
        Ok(page_of(StepPage { steps: page.items, next }, next, &query))
    };
    condition.answer(&version, answer).await
}

/// A page of steps. A value that is too large for a list has the address of its step.
pub async fn page(
    ctx: &Ctx,
    base_path: &BasePath,
    run: RunId,
    after: Option<StepId>,
    limit: i64,
) -> Result<Page<Step>, Error> {
    let mut page = step_view::step_list(&ctx.db, &ctx.config.tenant, run, after, limit).await?;
    for step in &mut page.items {
        for omitted in [&mut step.inputs_omitted, &mut step.outputs_omitted].into_iter().flatten() {
            omitted.href = base_path.to(&format!("/runs/{run}/steps/{}", encoded(&step.name)));
        }
    }
    Ok(page)
}

/// `GET /runs/{id}/steps/{name}` -> the step with its inputs and outputs, however large.
pub async fn fetch(
    State(ctx): State<Ctx>,
    Path((id, name)): Path<(String, String)>,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let version = run::run_version(&ctx.db, &ctx.config.tenant, id).await?.ok_or_else(|| no_step(id, &name))?;
    let answer = async {
        let step = step_view::step_fetch(&ctx.db, &ctx.config.tenant, id, &name).await?;
        step.map(|step| Json(step).into_response()).ok_or_else(|| no_step(id, &name))
    };
    condition.answer(&version, answer).await
}

/// `GET /runs/{id}/steps/{name}/why` -> what the step waits for: a sentence, and the facts behind it.
pub async fn why(State(ctx): State<Ctx>, Path((id, name)): Path<(String, String)>) -> Result<Json<StepWhy>, Error> {
    let id: RunId = id_param("run", &id)?;
    let facts = step_view::step_why(&ctx.db, &ctx.config.tenant, id, &name).await?;
    let mut facts = facts.ok_or_else(|| no_step(id, &name))?;
    facts.why = sentence(&facts);
    Ok(Json(facts))
}

fn no_step(run: RunId, name: &str) -> Error {
    Error::NotFound(format!("step \"{}\" of run {run}", shown(name, 80)))
}

fn sentence(facts: &StepWhy) -> String {
    let pending = facts.gates.iter().filter(|gate| gate.status == GateStatus::Pending);
    let parents = facts.parents.iter();
    // The time of a ready step after a failure is that of its next attempt.
    let is_again = facts.error.is_some();
    let StepNext { lead, error } = next_of_step(&StepStanding {
        status: facts.status,
        run_status: facts.run_status,
        attempt: facts.attempt.into(),
        attempt_at: None,
        lease_until: facts.lease_until.as_ref(),
        ready_at: facts.ready_at.as_ref(),
        next_try_at: facts.ready_at.as_ref().filter(|_| is_again),
        error: facts.error.as_ref().map(|error| error.message.as_str()),
        parents: parents.map(|one| ParentNow { name: &one.name, ordinal: None, status: one.status }).collect(),
        parents_total: facts.parents.len() as u64,
        gates: pending
            .map(|gate| AskedNow { id: gate.id, gate_type: &gate.gate_type, is_over: gate.is_over })
            .collect(),
        culprit: None,
    });
    match error {
        Some(error) => format!("{}: {error}", plain(&lead)),
        None => format!("{}.", plain(&lead)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(more: &Value) -> String {
        let mut facts = json!({"name": "s", "tool": "echo", "handler": "echo", "status": "ready", "run_status": "running",
            "attempt": 0, "failures": 0, "max_attempts": 3, "workers_lost": 0, "blockers": 0, "error": null,
            "ready_at": null, "notify_count": 0, "lease_until": null, "parents": [], "gates": []});
        facts.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        sentence(&serde_json::from_str(&facts.to_string()).unwrap())
    }

    #[test]
    fn a_pending_step_names_its_parents_and_gates() {
        let gate = |gate_type: &str, status: &str| json!({"id": uuid::Uuid::nil(), "gate_type": gate_type, "status": status, "reason": null, "expires_at": null});
        let facts = json!({"status": "pending", "parents": [{"name": "build", "status": "running"}],
            "gates": [gate("manual:go", "pending"), gate("manual:gone", "waived")]});
        assert_eq!(of(&facts), "Waits for build, and for a decision about manual:go.");
    }

    #[test]
    fn a_step_that_failed_once_says_when_it_is_tried_again_and_why() {
        let error = json!({"code": "c", "message": "no answer"});
        let facts = json!({"status": "ready", "attempt": 1, "ready_at": "2026-11-29T10:00:00+00:00", "error": error});
        assert_eq!(of(&facts), "Attempt 2 follows at 2026-11-29T10:00:00+00:00: no answer");
        assert!(of(&json!({"status": "ready", "run_status": "paused", "error": error})).contains("paused"));
    }
}
