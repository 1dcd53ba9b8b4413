//! Providers that failed recently. Later steps of this process ask them last.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::FaultKind;
use crate::keys::ApiKey;
use crate::provider::{PerProvider, Provider};
use crate::router::Left;

const TRANSIENT: Duration = Duration::from_secs(15);
const AUTH: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_mins(5);

/// A provider that failed recently.
#[derive(Debug, Clone)]
pub(crate) struct Cooldown {
    pub until: Instant,
    pub kind: FaultKind,
    pub reason: String,
    /// The key with which it failed, if another key may work.
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

    pub(crate) fn start(&self, left: &Left, key: &ApiKey) {
        let time = match left.kind {
            // Nothing is known about a provider that was not asked (no time left), or that a short step did not wait
            // for.
            FaultKind::Transient if left.tries > 0 && !left.cut_short => left.wait.unwrap_or(TRANSIENT).min(LONGEST),
            FaultKind::Auth => AUTH,
            FaultKind::Billing => LONGEST,
            FaultKind::Transient | FaultKind::Rejected | FaultKind::Unusable | FaultKind::NoKey => return,
        };
        let key = matches!(left.kind, FaultKind::Auth | FaultKind::Billing).then(|| key.clone());
        let cooldown = Cooldown { until: Instant::now() + time, kind: left.kind, reason: left.reason.clone(), key };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(left.provider) = Some(cooldown);
    }

    pub(crate) fn end(&self, provider: Provider) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(provider) = None;
    }
}
