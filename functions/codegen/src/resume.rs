//! Where an attempt goes on after its step has waited for money.
//!
//! The gate `budget` names the request that the budget refused, and the models that failed before it. They are not asked again: what
//! they answered is paid for.

use shared::domain::budget_gate::{FailedModel, PendingRequest};

use crate::fault::{FaultKind, Scope};
use crate::plan::{Attempt, Plan};
use crate::router::{ModelFailure, RouteFailure};

/// How many failures a gate names.
const MAX_FAILURES: usize = 50;
/// The longest reason that it repeats, in characters.
const MAX_REASON: usize = 500;

/// What a gate says about the request that the budget refused.
pub(crate) fn pending(stopped: &RouteFailure) -> Option<PendingRequest> {
    let Attempt { position, provider, model, .. } = stopped.asked.as_deref()?;
    let earlier = stopped.failures.iter().filter(|failure| failure.position < *position);
    let failed = |failure: &ModelFailure| FailedModel {
        provider: failure.provider.as_str().to_owned(),
        model: failure.model.clone(),
        kind: failure.kind.as_str().to_owned(),
        reason: failure.reason.chars().take(MAX_REASON).collect(),
        status: failure.status,
        tries: failure.tries,
    };
    let failures = earlier.take(MAX_FAILURES).map(failed).collect();
    Some(PendingRequest { provider: provider.as_str().to_owned(), model: model.clone(), failures })
}

/// Lets the plan begin with the request that the budget refused. If that cannot be asked any more, only the models that have failed are left out.
/// Returns their failures.
pub(crate) fn resume(plan: &mut Plan, pending: &PendingRequest) -> Vec<ModelFailure> {
    let is_pending = |attempt: &&Attempt| is(attempt, &pending.provider, &pending.model);
    let begin = plan.attempts.iter().find(is_pending).map(|attempt| attempt.position);
    let has_failed = |attempt: &Attempt| {
        pending.failures.iter().any(|failed| failed.tries > 0 && is(attempt, &failed.provider, &failed.model))
    };
    let is_done = |attempt: &Attempt| match begin {
        Some(begin) => attempt.position < begin || (attempt.position > begin && has_failed(attempt)),
        None => has_failed(attempt),
    };
    if plan.attempts.iter().all(is_done) {
        return Vec::new();
    }
    let failures: Vec<_> = pending.failures.iter().filter_map(|failed| failure(plan, failed)).collect();
    plan.attempts.retain(|attempt| !is_done(attempt));
    plan.left_out.retain(|left_out| !failures.iter().any(|failure| failure.position == left_out.position));
    failures
}

fn is(attempt: &Attempt, provider: &str, model: &str) -> bool {
    attempt.provider.as_str() == provider && attempt.model == model
}

/// The failure at the place that its model has in the plan of today. None if it has no place any more.
fn failure(plan: &Plan, failed: &FailedModel) -> Option<ModelFailure> {
    let provider = failed.provider.parse().ok()?;
    let attempts = plan.attempts.iter().map(|one| (one.position, one.provider, &one.model));
    let left_out = plan.left_out.iter().map(|one| (one.position, one.provider, &one.model));
    let mut places = attempts.chain(left_out);
    let (position, ..) = places.find(|(_, at, model)| *at == provider && **model == failed.model)?;
    Some(ModelFailure {
        provider,
        model: failed.model.clone(),
        kind: FaultKind::of_name(&failed.kind),
        reason: failed.reason.clone(),
        status: failed.status,
        tries: failed.tries,
        retry_after: None,
        unpriced_in: None,
        // Other models of its key are asked or left out by their cooldowns.
        scope: Scope::Request,
        position,
        deployment: String::new(),
    })
}
