//! Steps: listed, whole, and why one waits.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::db::{Page, step_view};
use shared::domain::{RunId, StepId};
use shared::error::Error;
use shared::http::{Query, encoded, id_param, not_given_out, page_of, shown};

use crate::runs::must_exist;

/// Names in a sentence.
const NAMES: usize = 20;

/// `GET /runs/{id}/steps?after=&limit=` -> `{steps, next}` in the plan's order.
pub async fn list(State(ctx): State<Ctx>, Path(id): Path<String>, query: Query) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after::<StepId>()?, query.limit()?);
    if let Some(after) = after
        && !step_view::step_exists(&ctx.db, &ctx.config.tenant, id, after).await?
    {
        must_exist(&ctx, id).await?;
        return Err(not_given_out());
    }
    let page = page(&ctx, id, after, limit).await?;
    if page.items.is_empty() {
        must_exist(&ctx, id).await?;
    }
    let next = page.next();
    Ok(page_of("steps", page.items, next.as_deref(), limit))
}

/// Steps of a run. What is too large for a list has the address of the step that shows it.
pub async fn page(ctx: &Ctx, run: RunId, after: Option<StepId>, limit: i64) -> Result<Page, Error> {
    let mut page = step_view::step_list(&ctx.db, &ctx.config.tenant, run, after, limit).await?;
    for step in &mut page.items {
        let name = encoded(step["name"].as_str().unwrap_or_default());
        for key in ["inputs_omitted", "outputs_omitted"] {
            if let Some(Value::Object(omitted)) = step.get_mut(key) {
                omitted.insert("href".to_owned(), json!(format!("/runs/{run}/steps/{name}")));
            }
        }
    }
    Ok(page)
}

/// `GET /runs/{id}/steps/{name}` -> the step with its inputs and outputs, however large.
pub async fn fetch(State(ctx): State<Ctx>, Path((id, name)): Path<(String, String)>) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    let step = step_view::step_fetch(&ctx.db, &ctx.config.tenant, id, &name).await?;
    step.map(Json).ok_or_else(|| no_step(id, &name))
}

/// `GET /runs/{id}/steps/{name}/why` -> what exactly the step waits for: a sentence, and the facts behind it.
pub async fn why(State(ctx): State<Ctx>, Path((id, name)): Path<(String, String)>) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    let facts = step_view::step_why(&ctx.db, &ctx.config.tenant, id, &name).await?;
    let mut facts = facts.ok_or_else(|| no_step(id, &name))?;
    facts["why"] = json!(sentence(&facts));
    Ok(Json(facts))
}

fn no_step(run: RunId, name: &str) -> Error {
    Error::NotFound(format!("step \"{}\" of run {run}", shown(name, 80)))
}

fn sentence(facts: &Value) -> String {
    let text = |key: &str| facts[key].as_str().unwrap_or_default();
    let names = |key: &str, field: &str, wanted: &str| {
        let listed = facts[key].as_array().into_iter().flatten();
        let named: Vec<_> = listed.filter(|item| wanted.is_empty() || item["status"] == wanted).collect();
        let more = named.len().saturating_sub(NAMES);
        let more = (more > 0).then(|| format!("{more} more"));
        let named = named.into_iter().take(NAMES);
        named
            .map(|item| match (wanted, item["status"].as_str()) {
                ("", Some(status)) => format!("{} ({status})", item[field].as_str().unwrap_or_default()),
                _ => item[field].as_str().unwrap_or_default().to_owned(),
            })
            .chain(more)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let error = facts["error"]["message"].as_str();
    match text("status") {
        "pending" => {
            let waits: Vec<String> =
                [("its parents", names("parents", "name", "")), ("its gates", names("gates", "gate_type", "pending"))]
                    .into_iter()
                    .filter(|(_, names)| !names.is_empty())
                    .map(|(what, names)| format!("{what}: {names}"))
                    .collect();
            format!("It waits for {}.", waits.join("; and for "))
        }
        "ready" if text("run_status") == "paused" => "It is ready, but its run is paused.".into(),
        "ready" => match error {
            Some(error) => format!("It is tried again at {} after a failure: {error}", text("ready_at")),
            None => format!(
                "It has been ready since {} and waits for a worker of handler {}.",
                text("ready_at"),
                text("handler")
            ),
        },
        "running" => format!(
            "Attempt {} is at work; if its worker is lost, it is tried again after {}.",
            facts["attempt"],
            text("lease_until")
        ),
        "blocked" => format!("It waits for a decision about {}.", names("gates", "gate_type", "pending")),
        "failed" => format!("It failed: {}", error.unwrap_or("no reason was recorded")),
        "skipped" => "It was skipped because another step of the run failed.".into(),
        other => format!("It waits for nothing: it is {other}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_step_names_its_parents_and_gates() {
        let facts = json!({"status": "pending", "parents": [{"name": "build", "status": "running"}],
            "gates": [{"gate_type": "manual:go", "status": "pending"}]});
        assert_eq!(sentence(&facts), "It waits for its parents: build (running); and for its gates: manual:go.");
    }

    #[test]
    fn a_step_of_a_paused_run_says_so() {
        assert!(sentence(&json!({"status": "ready", "run_status": "paused"})).contains("paused"));
    }
}
