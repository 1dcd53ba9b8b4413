//! Why a step waits.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use shared::context::Ctx;
use shared::db::step;
use shared::domain::RunId;
use shared::error::Error;
use shared::http::id_param;

/// `GET /runs/{id}/steps/{name}/why` -> what exactly the step waits for: a sentence, and the facts behind it.
pub async fn why(State(ctx): State<Ctx>, Path((id, name)): Path<(String, String)>) -> Result<Json<Value>, Error> {
    let id: RunId = id_param("run", &id)?;
    let mut facts = step::step_why(&ctx.db, &ctx.config.tenant, id, &name)
        .await?
        .ok_or_else(|| Error::NotFound(format!("step \"{}\" of run {id}", name.escape_debug())))?;
    facts["why"] = json!(sentence(&facts));
    Ok(Json(facts))
}

fn sentence(facts: &Value) -> String {
    let text = |key: &str| facts[key].as_str().unwrap_or_default();
    let names = |key: &str, field: &str, wanted: &str| {
        let listed = facts[key].as_array().into_iter().flatten();
        let named = listed.filter(|item| wanted.is_empty() || item["status"] == wanted);
        named
            .map(|item| match (wanted, item["status"].as_str()) {
                ("", Some(status)) => format!("{} ({status})", item[field].as_str().unwrap_or_default()),
                _ => item[field].as_str().unwrap_or_default().to_owned(),
            })
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
