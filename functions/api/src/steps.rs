//! Steps: list, read, and what one waits for.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use shared::db::{Page, Session, run, step_view};
use shared::domain::{GateStatus, RunId, RunStatus, StepId, StepStatus, Timestamp};
use shared::error::Error;
use shared::http::{BasePath, Condition, Query, encoded, id_param, not_given_out, page_of, shown};
use shared::view::{Step, StepPage, StepWhy};

use crate::runs::version;

/// Maximum number of names in a sentence.
const NAMES: usize = 20;

/// `GET /runs/{id}/steps?after=&limit=` -> `{steps, next}` in the plan's order.
pub async fn list(
    session: Session,
    base_path: BasePath,
    Path(id): Path<String>,
    query: Query,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let (after, limit) = (query.after::<StepId>()?, query.limit()?);
    let version = version(&session, id).await?;
    let answer = async {
        if let Some(after) = after
            && !step_view::step_exists(&session, id, after).await?
        {
            return Err(not_given_out());
        }
        let page = page(&session, &base_path, id, after, limit).await?;
        let next = page.next(|step| step.id);
        Ok(page_of(StepPage { steps: page.items, next }, next, &query))
    };
    condition.answer(&version, answer).await
}

/// A page of steps. A value that is too large for a list has the address of its step.
pub async fn page(
    session: &Session,
    base_path: &BasePath,
    run: RunId,
    after: Option<StepId>,
    limit: i64,
) -> Result<Page<Step>, Error> {
    let mut page = step_view::step_list(session, run, after, limit).await?;
    for step in &mut page.items {
        for omitted in [&mut step.inputs_omitted, &mut step.outputs_omitted].into_iter().flatten() {
            omitted.href = base_path.to(&format!("/runs/{run}/steps/{}", encoded(&step.name)));
        }
    }
    Ok(page)
}

/// `GET /runs/{id}/steps/{name}` -> the step with its inputs and outputs, however large.
pub async fn fetch(
    session: Session,
    Path((id, name)): Path<(String, String)>,
    condition: Condition,
) -> Result<Response, Error> {
    let id: RunId = id_param("run", &id)?;
    let version = run::run_version(&session, id).await?.ok_or_else(|| no_step(id, &name))?;
    let answer = async {
        let step = step_view::step_fetch(&session, id, &name).await?;
        step.map(|step| Json(step).into_response()).ok_or_else(|| no_step(id, &name))
    };
    condition.answer(&version, answer).await
}

/// `GET /runs/{id}/steps/{name}/why` -> what the step waits for: a sentence, and the facts behind it.
pub async fn why(session: Session, Path((id, name)): Path<(String, String)>) -> Result<Json<StepWhy>, Error> {
    let id: RunId = id_param("run", &id)?;
    let facts = step_view::step_why(&session, id, &name).await?;
    let mut facts = facts.ok_or_else(|| no_step(id, &name))?;
    facts.why = sentence(&facts);
    Ok(Json(facts))
}

fn no_step(run: RunId, name: &str) -> Error {
    Error::NotFound(format!("step \"{}\" of run {run}", shown(name, 80)))
}

fn sentence(facts: &StepWhy) -> String {
    let error = facts.error.as_ref().map(|error| error.message.as_str());
    let moment = |at: &Option<Timestamp>| at.as_ref().map(Timestamp::to_string).unwrap_or_default();
    match facts.status {
        StepStatus::Pending => {
            let parents = facts.parents.iter().map(|parent| format!("{} ({})", parent.name, parent.status));
            let waits: Vec<String> = [("its parents", listed(parents)), ("its gates", listed(pending_gates(facts)))]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(what, names)| format!("{what}: {names}"))
                .collect();
            format!("It waits for {}.", waits.join("; and for "))
        }
        StepStatus::Ready if facts.run_status == RunStatus::Paused => "It is ready, but its run is paused.".into(),
        StepStatus::Ready => match error {
            Some(error) => format!("It is retried at {} after a failure: {error}", moment(&facts.ready_at)),
            None => format!(
                "It has been ready since {} and waits for a worker of handler {}.",
                moment(&facts.ready_at),
                facts.handler
            ),
        },
        StepStatus::Running => format!(
            "Attempt {} is running; if its worker is lost, the step is retried after {}.",
            facts.attempt,
            moment(&facts.lease_until)
        ),
        StepStatus::Blocked => format!("It waits for a decision about {}.", listed(pending_gates(facts))),
        StepStatus::Failed => format!("It failed: {}", error.unwrap_or("no reason was recorded")),
        StepStatus::Skipped => "It was skipped because another step of the run failed.".into(),
        StepStatus::Succeeded | StepStatus::Cancelled => format!("It waits for nothing: it is {}.", facts.status),
    }
}

fn pending_gates(facts: &StepWhy) -> impl Iterator<Item = String> {
    facts.gates.iter().filter(|gate| gate.status == GateStatus::Pending).map(|gate| gate.gate_type.clone())
}

/// The first names, and how many more there are.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(NAMES);
    if more > 0 {
        names.truncate(NAMES);
        names.push(format!("{more} more"));
    }
    names.join(", ")
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
        assert_eq!(of(&facts), "It waits for its parents: build (running); and for its gates: manual:go.");
    }

    #[test]
    fn a_step_of_a_paused_run_says_so() {
        assert!(of(&json!({"status": "ready", "run_status": "paused"})).contains("paused"));
    }

    #[test]
    fn many_names_are_counted() {
        assert!(listed((0..23).map(|index| format!("s{index}"))).ends_with("s18, s19, 3 more"));
    }
}
