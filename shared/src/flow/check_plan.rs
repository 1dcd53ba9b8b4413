//! POST /plans/check: the answer that POST /runs would give to a plan, without creating a run.

use serde_json::Value;

use super::create_run::{missing_artifacts, read_plan, workspace_ids};
use crate::context::Ctx;
use crate::db::artifact;
use crate::domain::TenantId;
use crate::error::Error;
use crate::view::PlanChecked;

/// Reads the body `{"plan": {...}}`. Returns the plan with its defaults, or the error that `create_run` would return.
pub async fn check_plan(ctx: &Ctx, tenant: &TenantId, body: &Value) -> Result<PlanChecked, Error> {
    let (_, plan) = read_plan(body, &ctx.config.limits)?;
    if let Some(workspace) = plan.workspace {
        let problems = artifact::workspace_problems(&ctx.db, tenant, &workspace_ids(workspace)).await?;
        if !problems.is_empty() {
            return Err(missing_artifacts(problems));
        }
    }
    Ok(PlanChecked::from(&plan))
}
