//! POST /plans/check: the answer that POST /runs would give to a plan, without creating a run.

use serde_json::Value;

use super::create_run::{missing_artifacts, read_plan, workspace_ids};
use crate::context::Ctx;
use crate::db::{Session, artifact};
use crate::domain::plan::{Plan, PlanStep};
use crate::error::Error;
use crate::view::{CheckedStep, OutputReference, PlanChecked};

/// Reads the body `{"plan": {...}}`. Returns the plan with its defaults, or the error that `create_run` would return.
pub async fn check_plan(ctx: &Ctx, session: &Session, body: &Value) -> Result<PlanChecked, Error> {
    let (_, plan) = read_plan(body, &ctx.config.limits)?;
    if let Some(workspace) = plan.workspace {
        let problems = artifact::workspace_problems(session, &workspace_ids(workspace)).await?;
        if !problems.is_empty() {
            return Err(missing_artifacts(problems));
        }
    }
    Ok(resolved(&plan))
}

fn resolved(plan: &Plan) -> PlanChecked {
    let step = |(step, level): (&PlanStep, usize)| CheckedStep {
        name: step.name.clone(),
        tool: step.tool.clone(),
        handler: step.handler.to_owned(),
        level,
        depends_on: step.parents.iter().map(|&parent| plan.steps[parent].name.clone()).collect(),
        references: step.refs.iter().cloned().map(|of| OutputReference { step: of.step, path: of.path }).collect(),
        timeout_s: step.timeout_s,
        max_attempts: step.max_attempts,
        backoff_ms: step.backoff_ms,
    };
    PlanChecked {
        goal: plan.goal.clone(),
        timeout_s: plan.timeout_s,
        steps: plan.steps.iter().zip(plan.levels()).map(step).collect(),
    }
}
