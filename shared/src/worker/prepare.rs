//! Turns a claimed row into what a handler gets: resolves references within their limits, and looks up the artifacts that
//! the inputs name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Invocation;
use crate::context::Ctx;
use crate::db::step::{self, Claimed, FoundArtifact, PolicyVersion, Ref, Terms};
use crate::domain::artifact_inputs::ArtifactInputs;
use crate::domain::artifact_storage::StorageState;
use crate::domain::base_origin::BaseOrigin;
use crate::domain::bounds::Shape;
use crate::domain::outcome::ArtifactRef;
use crate::domain::plan::{Limits, MAX_JSON_DEPTH, MAX_JSON_MEMORY};
use crate::domain::policy::TrustedBase;
use crate::domain::reference::{self, Reference, ReferencedValue, ReferencedValues, SizeLimits, Unresolved};
use crate::domain::repair::RepairTask;
use crate::domain::{
    ArtifactId, ClaimedStep, GateDecision, ModelTerms, Outcome, Policy, Problem, StepError, TenantId, Workspace,
};
use crate::error::Error;
use crate::storage;
use crate::telemetry;

/// The step that the handler gets, or the outcome if that fails.
pub(super) async fn prepare(ctx: &Ctx, claimed: &Claimed, invocation: Invocation) -> Result<ClaimedStep, Box<Outcome>> {
    let inputs = resolved_inputs(claimed, &ctx.config.limits)
        .map_err(|(code, message)| Box::new(Outcome::failed(StepError::new(code, message))))?;
    let (workspace, artifacts) = if invocation.spec.takes_workspace || invocation.spec.calls_models {
        let named = ArtifactInputs::read(&claimed.tool, &inputs)
            .map_err(|problems| Box::new(Outcome::failed(StepError::invalid_inputs(problems))))?;
        let artifacts = find(ctx, &claimed.tenant_id, &named).await?;
        let takes_workspace = invocation.spec.takes_workspace;
        let workspace = if takes_workspace { workspace_of(claimed, &named, &artifacts)? } else { None };
        (workspace, artifacts)
    } else {
        (None, BTreeMap::new())
    };
    let StepTerms { policy, decisions, models, repair } = terms(claimed, invocation)?;
    let base_origin = base_origin(ctx, &claimed.tenant_id, &policy, workspace.as_ref()).await?;
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
        base_origin,
        artifacts,
        timeout: asked.min(most),
        timeout_s: claimed.timeout_s,
        policy,
        decisions,
        models,
        repair,
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

/// The artifacts that the inputs name, such as an output of an upstream step. Takes one more round trip if there are any.
async fn find(
    ctx: &Ctx,
    tenant: &TenantId,
    named: &ArtifactInputs,
) -> Result<BTreeMap<ArtifactId, ArtifactRef>, Box<Outcome>> {
    let wanted: Vec<_> = named.ids().into_iter().collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = step::artifacts_by_id(&ctx.db, tenant, &wanted).await.map_err(|error| unavailable(&error))?;
    let missing = named.places.iter().filter(|(_, id)| !found.contains_key(id));
    let problems: Vec<_> =
        missing.map(|(path, id)| Problem::new(path.clone(), format!("no artifact has the id {id}"))).collect();
    if problems.is_empty() {
        if let Some(unreadable) = wanted.iter().filter_map(|id| found.get(id)).find_map(not_readable) {
            return Err(Box::new(Outcome::failed(unreadable)));
        }
        return Ok(found.into_iter().map(|(id, found)| (id, found.artifact)).collect());
    }
    let is_workspace = |path: &str| path.starts_with("inputs.workspace") || path == "inputs.base";
    let code =
        if problems.iter().all(|problem| is_workspace(&problem.path)) { "no_workspace" } else { "invalid_inputs" };
    Err(Box::new(Outcome::failed(StepError { code: code.to_owned(), ..StepError::invalid_inputs(problems) })))
}

/// Why a step cannot read this artifact. What is about to be deleted can still be read by a run that started before.
fn not_readable(found: &FoundArtifact) -> Option<StepError> {
    let id = found.artifact.id;
    match found.storage {
        StorageState::Deleted => Some(StepError::new("artifact_deleted", format!("the artifact {id} was deleted"))),
        StorageState::Archived | StorageState::Restoring => {
            Some(StepError::new("artifact_archived", storage::archived(id).to_string()))
        }
        StorageState::Hot | StorageState::Archiving | StorageState::Restored | StorageState::Deleting => None,
    }
}

/// The workspace that the inputs name, else the plan's, with the base that the inputs name.
fn workspace_of(
    claimed: &Claimed,
    named: &ArtifactInputs,
    artifacts: &BTreeMap<ArtifactId, ArtifactRef>,
) -> Result<Option<Workspace>, Box<Outcome>> {
    let take = |id: ArtifactId| artifacts.get(&id).cloned();
    let asked = named.workspace.and_then(|asked| {
        let (base, diff) = (asked.base.and_then(take), asked.diff.and_then(take));
        Some(Workspace { archive: take(asked.archive)?, base, diff })
    });
    let workspace = match asked {
        Some(asked) => Some(asked),
        None => planned_workspace(claimed)?,
    };
    let Some(base) = named.base.and_then(take) else { return Ok(workspace) };
    let Some(workspace) = workspace else {
        let message = "inputs.base: the step has no workspace to compare with this base; set inputs.workspace";
        return Err(Box::new(Outcome::failed(StepError::new("no_workspace", message))));
    };
    Ok(Some(Workspace { base: Some(base), diff: None, ..workspace }))
}

/// The workspace that the plan names.
fn planned_workspace(claimed: &Claimed) -> Result<Option<Workspace>, Box<Outcome>> {
    let read = |raw: &RawValue| serde_json::from_str(raw.get());
    claimed.workspace.as_deref().map(read).transpose().map_err(|error| {
        let message = format!("the workspace of the run cannot be read: {error}");
        Box::new(Outcome::failed(StepError::new("no_workspace", message)))
    })
}

/// Where the base comes from, if the policy trusts only those from a repository. Takes one more round trip then.
async fn base_origin(
    ctx: &Ctx,
    tenant: &TenantId,
    policy: &Policy,
    workspace: Option<&Workspace>,
) -> Result<Option<BaseOrigin>, Box<Outcome>> {
    match workspace {
        Some(Workspace { archive, base: Some(base), .. }) if policy.gates.trusted_base == TrustedBase::Git => {
            step::artifact_origin(&ctx.db, tenant, base, archive.id).await.map_err(|error| unavailable(&error))
        }
        _ => Ok(None),
    }
}

fn unavailable(error: &Error) -> Box<Outcome> {
    telemetry::report(error, "look up artifacts");
    Box::new(Outcome::retryable(StepError::new("database_unavailable", error.to_string())))
}

#[derive(Default)]
struct StepTerms {
    policy: Policy,
    decisions: Vec<GateDecision>,
    models: ModelTerms,
    repair: Option<RepairTask>,
}

/// The tenant's policy, the decisions about the step, and what binds its model calls. A policy that cannot be read, because a later release or
/// somebody with SQL wrote it, fails the step: the defaults may allow more.
fn terms(claimed: &Claimed, invocation: Invocation) -> Result<StepTerms, Box<Outcome>> {
    let Some(raw) = &claimed.terms else { return Ok(StepTerms::default()) };
    let failed = |message| Box::new(Outcome::failed(StepError::new("policy_unreadable", message)));
    let Terms { policy, decisions, cooldowns, is_budgeted, repair } = serde_json::from_str(raw.get())
        .map_err(|error| failed(format!("the terms of the step cannot be read: {error}")))?;
    let with = |policy: Policy| {
        let mut models = ModelTerms::default();
        if invocation.spec.calls_models {
            let (policy, policy_version) = (policy.models.clone(), policy.version);
            models = ModelTerms { policy, policy_version, cooldowns, is_budgeted };
        }
        StepTerms { policy, decisions, models, repair }
    };
    let Some(PolicyVersion { version, document }) = policy else { return Ok(with(Policy::default())) };
    let read = Policy::parse(&document, "").map_err(|problems| {
        let first: Vec<_> =
            problems.iter().take(10).map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        failed(format!("version {version} of the policy cannot be read: {}", first.join("; ")))
    })?;
    Ok(with(Policy { version, ..read }))
}
