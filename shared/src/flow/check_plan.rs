//! POST /plans/check: the answer that POST /runs would give to a plan, without creating a run.

use serde_json::Value;

use super::create_run::{missing_artifacts, read_plan, steps_and_edges, workspace_ids};
use crate::context::Ctx;
use crate::db::{Session, artifact, gate};
use crate::error::Error;
use crate::view::PlanChecked;

/// Reads the body `{"plan": {...}}`. Returns the plan with its defaults, or the error that `create_run` would return.
pub async fn check_plan(ctx: &Ctx, session: &Session, body: &Value) -> Result<PlanChecked, Error> {
    let (_, plan) = read_plan(body, &ctx.config.limits)?;
    if let Some(workspace) = plan.workspace {
        let problems = artifact::workspace_problems(session, &workspace_ids(workspace)).await?;
        if !problems.is_empty() {
            return Err(missing_artifacts(problems));
        }
    }
    let mut checked = PlanChecked::from(&plan);
    if plan.steps.iter().any(|step| step.approval.is_some()) {
        let (steps, _) = steps_and_edges(&plan);
        let mut asked = gate::approval_rules(session, &steps).await?;
        if !asked.problems.is_empty() {
            return Err(Error::Invalid(asked.problems));
        }
        for (step, given) in checked.steps.iter_mut().zip(&plan.steps) {
            step.approval = asked.rules.remove(&step.name).filter(|_| given.approval.is_some());
        }
    }
    Ok(checked)
}
