//! POST /runs: checks the plan, writes the run, sends the wake-ups of its roots.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::wake;
use crate::context::Ctx;
use crate::db::Session;
use crate::db::run::{self, NewEdge, NewRun, NewStep, RunCreated};
use crate::domain::plan::{self, Limits, Plan, PlanWorkspace};
use crate::domain::trace::TraceParent;
use crate::domain::{ArtifactId, RunId, RunStatus, StepId, digest};
use crate::error::{Code, Error, Problem};

/// A run that was created, now or earlier with the same idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub id: RunId,
    pub status: RunStatus,
    pub created: bool,
}

/// A request to create a run.
#[derive(Debug)]
pub struct Request<'a> {
    /// `{"plan": {...}, "actor": ".."}`. The caller has read the actor.
    pub body: &'a Value,
    pub idempotency_key: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    /// Who starts it, if a person does.
    pub actor: Option<&'a str>,
}

const MAX_KEY_BYTES: usize = 255;

/// Creates the run and sends the wake-ups of its roots.
pub async fn create_run(ctx: &Ctx, session: &Session, request: &Request<'_>) -> Result<Accepted, Error> {
    let (value, plan) = read_plan(request.body, &ctx.config.limits)?;
    if let Some(key) = request.idempotency_key
        && (key.is_empty() || key.len() > MAX_KEY_BYTES)
    {
        return Err(Error::invalid("Idempotency-Key", format!("must have 1 to {MAX_KEY_BYTES} bytes")));
    }
    let trace = request
        .traceparent
        .and_then(TraceParent::parse)
        .map_or_else(|| TraceParent::root(Uuid::new_v4()), |parent| parent.child(Uuid::new_v4()));
    let unreadable = |error| Error::internal("digest the plan", error);
    let (steps, edges) = steps_and_edges(&plan);
    let created = run::run_create(
        session,
        &NewRun {
            id: RunId(Uuid::now_v7()),
            goal: &plan.goal,
            plan: value,
            plan_digest: digest::canonical_sha256(value).map_err(unreadable)?,
            request_digest: digest::canonical_sha256(request.body).map_err(unreadable)?,
            idempotency_key: request.idempotency_key,
            actor: request.actor,
            timeout_s: plan.timeout_s,
            budget: plan.budget,
            traceparent: trace.to_string(),
            workspace: plan.workspace.map(workspace_ids),
            artifacts: named_artifacts(&plan),
            asks: plan.steps.iter().any(|step| step.approval.is_some()),
            steps,
            edges,
        },
    )
    .await?;
    match created {
        RunCreated::Created { id, status, ready } => {
            wake(&ctx.queue, ready).await;
            Ok(Accepted { id, status, created: true })
        }
        RunCreated::Existing { id, status } => Ok(Accepted { id, status, created: false }),
        RunCreated::Conflict { id } => {
            let detail = format!("this Idempotency-Key was used for another request, which created run {id}");
            Err(Error::Conflict(Code::IdempotencyConflict, detail))
        }
        RunCreated::Invalid { problems } => Err(missing_artifacts(problems)),
    }
}

/// The plan of a request, after all checks that need no database.
pub(super) fn read_plan<'a>(body: &'a Value, limits: &Limits) -> Result<(&'a Value, Plan), Error> {
    let value = plan_of(body)?;
    let plan = plan::parse(value, limits).map_err(Error::Invalid)?;
    Ok((value, plan))
}

fn plan_of(body: &Value) -> Result<&Value, Error> {
    let object = body.as_object().ok_or_else(|| Error::invalid("", "the body must be a JSON object"))?;
    let unknown: Vec<_> = object
        .keys()
        .filter(|key| !["plan", "actor"].contains(&key.as_str()))
        .map(|key| Problem::new(key.clone(), "is not known; the body has a plan and may have an actor"))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::Invalid(unknown));
    }
    object.get("plan").ok_or_else(|| Error::invalid("plan", "is missing"))
}

/// Ids in the inputs of steps, which may be those of artifacts.
fn named_artifacts(plan: &Plan) -> Vec<ArtifactId> {
    let mut ids = BTreeSet::new();
    let mut values: Vec<&Value> = plan.steps.iter().map(|step| &step.inputs).collect();
    while let Some(value) = values.pop() {
        match value {
            Value::String(text) => ids.extend(text.parse::<ArtifactId>().ok()),
            Value::Array(list) => values.extend(list),
            Value::Object(fields) => values.extend(fields.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    ids.into_iter().collect()
}

pub(super) fn steps_and_edges(plan: &Plan) -> (Vec<NewStep<'_>>, Vec<NewEdge>) {
    let ids: Vec<StepId> = plan.steps.iter().map(|_| StepId(Uuid::now_v7())).collect();
    let steps = plan.steps.iter().enumerate().map(|(index, step)| NewStep {
        id: ids[index],
        ordinal: index,
        name: &step.name,
        tool: &step.tool,
        handler: step.handler,
        inputs: &step.inputs,
        refs: step.refs.iter().map(|reference| reference.step.as_str()).collect(),
        ref_paths: step.refs.iter().map(|reference| array_text(&reference.path)).collect(),
        blockers: step.parents.len(),
        max_attempts: step.max_attempts,
        backoff_ms: step.backoff_ms,
        timeout_s: step.timeout_s,
        // A step that only asks has its rule in its inputs.
        approval: step.approval.as_ref().filter(|_| step.handler != "manual"),
        repair: step.repair.as_ref(),
    });
    let edges = plan.steps.iter().enumerate().flat_map(|(child, step)| {
        let ids = &ids;
        step.parents.iter().map(move |&parent| NewEdge { parent: ids[parent], child: ids[child] })
    });
    (steps.collect(), edges.collect())
}

/// The text of a Postgres array with every element quoted (PostgreSQL documentation, section 8.15.6).
fn array_text(elements: &[String]) -> String {
    let quoted = elements.iter().map(|element| format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// The error for missing artifacts of a workspace, in the order of their paths.
pub(super) fn missing_artifacts(mut problems: Vec<Problem>) -> Error {
    problems.sort_by(|one, other| one.path.cmp(&other.path));
    Error::Invalid(problems)
}

/// Artifact ids by role, as `nofx.run_create` takes them.
pub(super) fn workspace_ids(workspace: PlanWorkspace) -> Value {
    let roles = [("archive", Some(workspace.archive)), ("base", workspace.base), ("diff", workspace.diff)];
    let given = roles.into_iter().filter_map(|(role, id)| Some((role.to_owned(), json!(id?))));
    Value::Object(given.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_array_of_quoted_elements() {
        let path = ["a".to_owned(), "b,\"c\"\\".to_owned(), String::new()];
        assert_eq!(array_text(&path), r#"{"a","b,\"c\"\\",""}"#);
        assert_eq!(array_text(&[]), "{}");
    }
}
