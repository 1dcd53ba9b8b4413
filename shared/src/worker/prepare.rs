//! Turns a claimed row into what a handler gets: resolves references within their limits, and looks up the workspace.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Invocation;
use crate::context::Ctx;
use crate::db::step::{self, Claimed, PolicyVersion, Ref, Terms};
use crate::domain::bounds::Shape;
use crate::domain::outcome::ArtifactRef;
use crate::domain::plan::{Limits, MAX_JSON_DEPTH, MAX_JSON_MEMORY};
use crate::domain::reference::{self, Reference, ReferencedValue, ReferencedValues, SizeLimits, Unresolved};
use crate::domain::{ArtifactId, ClaimedStep, GateDecision, Outcome, Policy, StepError, TenantId, Workspace};
use crate::telemetry;

/// The step that the handler gets, or the outcome if that fails.
pub(super) async fn prepare(ctx: &Ctx, claimed: &Claimed, invocation: Invocation) -> Result<ClaimedStep, Box<Outcome>> {
    let inputs = resolved_inputs(claimed, &ctx.config.limits)
        .map_err(|(code, message)| Box::new(Outcome::failed(StepError::new(code, message))))?;
    let workspace = match inputs.get("workspace") {
        _ if !invocation.spec.takes_workspace => None,
        Some(asked) => Some(workspace_of(ctx, &claimed.tenant_id, asked).await?),
        None => planned_workspace(claimed)?,
    };
    let (policy, decisions) = terms(claimed)?;
    let most = invocation.longest_attempt();
    let asked = claimed.timeout_s.map_or(most, |seconds| Duration::from_secs(seconds.into()));
    Ok(ClaimedStep {
        tenant_id: claimed.tenant_id.clone(),
        run_id: claimed.run_id,
        step_id: claimed.step_id,
        name: claimed.name.clone(),
        tool: claimed.tool.clone(),
        attempt: claimed.attempt,
        inputs,
        goal: claimed.goal.clone(),
        workspace,
        timeout: asked.min(most),
        timeout_s: claimed.timeout_s,
        policy,
        decisions,
    })
}

/// A step's inputs with every reference resolved, or a code and a message. Sizes are checked before any value is built.
fn resolved_inputs(claimed: &Claimed, limits: &Limits) -> Result<Value, (&'static str, String)> {
    let unreadable = |error: serde_json::Error| ("unreadable_inputs", format!("the inputs cannot be read: {error}"));
    let max = SizeLimits { bytes: limits.resolved_bytes, memory: MAX_JSON_MEMORY, depth: MAX_JSON_DEPTH };
    let too_large = |message: String| ("inputs_too_large", message);
    let Some(refs) = &claimed.refs else {
        return Err(too_large(format!(
            "the values that the inputs refer to, or the outputs around them, have too many bytes; at most {} are resolved",
            max.bytes
        )));
    };
    let memory: usize = refs.iter().map(|found| Shape::of(found.value.get()).memory).sum();
    if memory > max.memory {
        let most = max.memory;
        return Err(too_large(format!(
            "the values that the inputs refer to take {memory} bytes of memory; at most {most} may"
        )));
    }
    let mut values = ReferencedValues::new();
    for Ref { step, path, value } in refs {
        let reference = Reference { step: step.clone(), path: path.clone() };
        let read = serde_json::from_str(value.get()).map_err(unreadable)?;
        values.insert(reference, ReferencedValue::new(read, value.get()));
    }
    let shape = Shape::of(claimed.inputs.get());
    if shape.memory > max.memory {
        return Err(too_large(format!("the inputs take {} bytes of memory; at most {} may", shape.memory, max.memory)));
    }
    let inputs = serde_json::from_str(claimed.inputs.get()).map_err(unreadable)?;
    reference::add_nested_values(&inputs, &mut values);
    reference::resolve(inputs, shape, &values, max).map_err(|why| match why {
        Unresolved::Missing(message) => ("unresolved_reference", message),
        Unresolved::TooLarge(message) => too_large(message),
    })
}

/// The workspace that the plan names.
fn planned_workspace(claimed: &Claimed) -> Result<Option<Workspace>, Box<Outcome>> {
    let read = |raw: &RawValue| serde_json::from_str(raw.get());
    claimed.workspace.as_deref().map(read).transpose().map_err(|error| {
        let message = format!("the workspace of the run cannot be read: {error}");
        Box::new(Outcome::failed(StepError::new("no_workspace", message)))
    })
}

/// The tenant's policy, and the decisions about the step. A policy that cannot be read, because a later release or
/// somebody with SQL wrote it, fails the step: the defaults may allow more.
fn terms(claimed: &Claimed) -> Result<(Policy, Vec<GateDecision>), Box<Outcome>> {
    let Some(raw) = &claimed.terms else { return Ok(Default::default()) };
    let failed = |message| Box::new(Outcome::failed(StepError::new("policy_unreadable", message)));
    let Terms { policy, decisions } = serde_json::from_str(raw.get())
        .map_err(|error| failed(format!("the terms of the step cannot be read: {error}")))?;
    let Some(PolicyVersion { version, document }) = policy else { return Ok((Policy::default(), decisions)) };
    let read = Policy::parse(&document, "").map_err(|problems| {
        let first: Vec<_> =
            problems.iter().take(10).map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        failed(format!("version {version} of the policy cannot be read: {}", first.join("; ")))
    })?;
    Ok((Policy { version, ..read }, decisions))
}

/// The workspace that a step's inputs name, such as an upstream step's output. Takes one more round trip.
async fn workspace_of(ctx: &Ctx, tenant: &TenantId, asked: &Value) -> Result<Workspace, Box<Outcome>> {
    let failed = |message: String| Box::new(Outcome::failed(StepError::new("no_workspace", message)));
    let id = |role: &str| match &asked[role] {
        Value::Null => Ok(None),
        value => value
            .as_str()
            .and_then(|text| text.parse::<ArtifactId>().ok())
            .map(Some)
            .ok_or_else(|| failed(format!("inputs.workspace.{role} must be the id of an artifact"))),
    };
    let archive = id("archive")?.ok_or_else(|| failed("inputs.workspace.archive is missing".into()))?;
    let (base, diff) = (id("base")?, id("diff")?);
    let wanted: Vec<_> = [Some(archive), base, diff].into_iter().flatten().collect();
    let found = step::artifacts_by_id(&ctx.db, tenant, &wanted).await.map_err(|error| {
        telemetry::report(&error, "look up artifacts");
        Box::new(Outcome::retryable(StepError::new("database_unavailable", error.to_string())))
    })?;
    let take = |id: ArtifactId| -> Result<ArtifactRef, Box<Outcome>> {
        found.get(&id).cloned().ok_or_else(|| failed(format!("no artifact has the id {id}")))
    };
    Ok(Workspace { archive: take(archive)?, base: base.map(&take).transpose()?, diff: diff.map(&take).transpose()? })
}
