//! Providers that failed recently. Later steps of this process skip them while another provider can be asked.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::FaultKind;
use crate::keys::ApiKey;
use crate::provider::{PerProvider, Provider};
use crate::router::ProviderFailure;

const TRANSIENT_COOLDOWN: Duration = Duration::from_secs(15);
const AUTH_COOLDOWN: Duration = Duration::from_mins(1);
const MAX_COOLDOWN: Duration = Duration::from_mins(5);

/// A provider that failed recently.
#[derive(Debug, Clone)]
pub(crate) struct Cooldown {
    pub until: Instant,
    pub kind: FaultKind,
    pub reason: String,
    /// The key that failed, if another key may work.
    key: Option<ApiKey>,
}

/// The cooldowns of a process.
#[derive(Default)]
pub(crate) struct Cooldowns(Mutex<PerProvider<Option<Cooldown>>>);

impl Cooldowns {
    /// The cooldown that applies to a provider and key.
    pub(crate) fn get(&self, provider: Provider, key: &ApiKey) -> Option<Cooldown> {
        let cooldowns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cooldown = cooldowns.get(provider).clone()?;
        let is_other_key = cooldown.key.as_ref().is_some_and(|failed| failed != key);
        (cooldown.until > Instant::now() && !is_other_key).then_some(cooldown)
    }

    pub(crate) fn start(&self, failure: &ProviderFailure, key: &ApiKey) {
        let duration = match failure.kind {
            // A provider that was not asked, or that the step gave too little time, may be healthy.
            FaultKind::Transient if failure.tries > 0 && !failure.too_little_time => {
                failure.retry_after.unwrap_or(TRANSIENT_COOLDOWN).min(MAX_COOLDOWN)
            }
            FaultKind::Auth => AUTH_COOLDOWN,
            FaultKind::Billing => MAX_COOLDOWN,
            FaultKind::Transient | FaultKind::Rejected | FaultKind::Unusable | FaultKind::NoKey => return,
        };
        let key = matches!(failure.kind, FaultKind::Auth | FaultKind::Billing).then(|| key.clone());
        let cooldown =
            Cooldown { until: Instant::now() + duration, kind: failure.kind, reason: failure.reason.clone(), key };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(failure.provider) = Some(cooldown);
    }

    pub(crate) fn end(&self, provider: Provider) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(provider) = None;
    }
}
