//! Decides which provider to ask, and whether to retry. No other code between the step and the model retries.
//!
//! *Retry* asks the same model again. *Fallback* asks the next provider. *Cooldown* makes later steps of this process
//! skip a provider that failed recently while another one can be asked. While other providers remain, one provider may
//! use half of the remaining time, so that a hanging provider cannot use up the whole step. The router checks that the
//! worker still owns the step before each request, and every two seconds during one. So a cancelled step spends no more.

use std::time::Duration;

use serde::Serialize;
use shared::worker::Ownership;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::ask::{Answer, Prompt, ask};
use crate::config::{CodegenConfig, default_order};
use crate::cooldown::Cooldowns;
use crate::exchange::client;
use crate::fault::{Fault, FaultKind};
use crate::inputs::Request;
use crate::keys::{ApiKey, ProviderKeys, StepKeys};
use crate::provider::Provider;
use crate::usage::TokenUsage;

/// If a provider asks for a longer wait, the router falls back to the next provider.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// With less time left than this, the router sends no request: it would cost money and time out.
const MIN_TRY_TIME: Duration = Duration::from_millis(100);
/// A timeout after this long is the provider's failure. A shorter one may only mean that the step had little time.
const HANG_TIMEOUT: Duration = Duration::from_mins(1);

/// A provider that gave no usable answer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderFailure {
    pub provider: Provider,
    pub model: String,
    pub kind: FaultKind,
    /// Safe to show.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Number of requests: 0 if the provider was cooling down or has no key.
    pub tries: u32,
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// Tokens of unusable answers, one entry for each that reported them.
    #[serde(skip)]
    pub usage: Vec<TokenUsage>,
    /// The provider may be healthy: the step gave it too little time.
    #[serde(skip)]
    pub too_little_time: bool,
}

/// An answer, and which providers failed before it.
#[derive(Debug)]
pub(crate) struct Routed {
    pub provider: Provider,
    pub model_requested: String,
    pub answer: Answer,
    pub duration: Duration,
    pub tries: u32,
    pub failures: Vec<ProviderFailure>,
}

/// No provider gave a usable answer.
pub(crate) struct RouteFailure {
    pub failures: Vec<ProviderFailure>,
    /// The worker no longer owns the step.
    pub ownership_lost: bool,
}

/// What to ask, and within which limits.
pub(crate) struct Task<'a> {
    pub request: &'a Request,
    pub prompt: Prompt<'a>,
    pub ownership: &'a Ownership,
    pub deadline: Instant,
}

pub(crate) struct Router {
    config: CodegenConfig,
    /// Built on first use, so that a cold start does not wait for it.
    client: OnceCell<reqwest::Client>,
    cooldowns: Cooldowns,
}

/// The result of one provider: an answer with its duration and the number of tries, or why there is none.
type ProviderResult = Result<(Answer, Duration, u32), ProviderFailure>;

/// The requests of one step to one provider.
struct ProviderCall<'a> {
    provider: Provider,
    model: &'a str,
    /// Replaced if the provider rejects it and the secret has a new one.
    key: ApiKey,
    /// When the provider's share of the step's time ends.
    deadline: Instant,
    tries: u32,
    usage: Vec<TokenUsage>,
    /// At least one fault was the provider's fault.
    has_failed: bool,
    ownership_lost: bool,
}

impl Router {
    pub(crate) fn new(config: CodegenConfig) -> Self {
        Self { config, client: OnceCell::new(), cooldowns: Cooldowns::default() }
    }

    /// The providers that this request may ask, best first.
    pub(crate) fn candidates(&self, request: &Request) -> Vec<Provider> {
        let order = self.config.order.clone().unwrap_or_else(|| default_order(request.kind).to_vec());
        order.into_iter().filter(|provider| request.provider.is_none_or(|only| only == *provider)).collect()
    }

    /// Whether a provider recently rejected one of these keys.
    pub(crate) fn has_rejected(&self, candidates: &[Provider], keys: &ProviderKeys) -> bool {
        let is_rejected = |provider: &Provider| {
            let cooldown = keys.get(*provider).and_then(|key| self.cooldowns.get(*provider, key));
            cooldown.is_some_and(|cooldown| cooldown.kind == FaultKind::Auth)
        };
        candidates.iter().any(is_rejected)
    }

    /// Asks one provider after another until one gives a usable answer.
    pub(crate) async fn route(&self, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Result<Routed, RouteFailure> {
        let candidates = self.candidates(task.request);
        let mut failures = Vec::new();
        let is_cooling = |provider: &Provider| {
            keys.current().get(*provider).is_some_and(|key| self.cooldowns.get(*provider, key).is_some())
        };
        let with_key = candidates.iter().filter(|provider| keys.current().get(**provider).is_some()).count();
        let cooling = candidates.iter().filter(|provider| is_cooling(provider)).count();
        // If all are cooling down, ask them anyway rather than fail without a request.
        let ignore_cooldowns = cooling == with_key;
        let mut remaining = if ignore_cooldowns { with_key } else { with_key - cooling };
        for provider in candidates {
            let model = task.request.model.as_ref().unwrap_or(self.config.models.get(provider));
            let not_asked = |fault: Fault| ProviderFailure::new(provider, model, 0, fault);
            let Some(key) = keys.current().get(provider).cloned() else {
                failures.push(not_asked(Fault::new(FaultKind::NoKey, keys.current().problem(provider))));
                continue;
            };
            if let Some(cooldown) = self.cooldowns.get(provider, &key).filter(|_| !ignore_cooldowns) {
                let reason = format!("cooling down after: {}", cooldown.reason);
                let retry_after = Some(cooldown.until.saturating_duration_since(Instant::now()));
                failures.push(not_asked(Fault { retry_after, ..Fault::new(cooldown.kind, reason) }));
                continue;
            }
            remaining = remaining.saturating_sub(1);
            let time_left = task.deadline.saturating_duration_since(Instant::now());
            let deadline = Instant::now() + if remaining == 0 { time_left } else { time_left / 2 };
            let mut call = ProviderCall::new(provider, model, key, deadline);
            match self.ask_provider(&mut call, task, keys).await {
                Ok((answer, duration, tries)) => {
                    self.cooldowns.end(provider);
                    let model_requested = model.clone();
                    return Ok(Routed { provider, model_requested, answer, duration, tries, failures });
                }
                Err(failure) => {
                    tracing::warn!(%provider, model, kind = ?failure.kind, status = failure.status, reason = failure.reason, tries = failure.tries,
                        "no usable answer from the provider");
                    if call.ownership_lost {
                        failures.push(failure);
                        return Err(RouteFailure { failures, ownership_lost: true });
                    }
                    self.cooldowns.start(&failure, &call.key);
                    failures.push(failure);
                }
            }
        }
        Err(RouteFailure { failures, ownership_lost: false })
    }

    /// Asks one provider until it answers or no retry makes sense.
    async fn ask_provider(
        &self,
        call: &mut ProviderCall<'_>,
        task: &Task<'_>,
        keys: &mut StepKeys<'_>,
    ) -> ProviderResult {
        let client = self.client.get_or_try_init(|| async { client(&self.config) }).await;
        let client = client.map_err(|fault| call.fail(fault))?;
        loop {
            let limit = self.config.request_timeout.min(call.deadline.saturating_duration_since(Instant::now()));
            if limit < MIN_TRY_TIME {
                return Err(call.fail(Fault::new(FaultKind::Transient, "the step had no time left")));
            }
            if !task.ownership.holds().await {
                call.ownership_lost = true;
                return Err(call.fail(Fault::new(FaultKind::Transient, "the step was cancelled or its lease was lost")));
            }
            let (started, sent_at) = (Instant::now(), std::time::Instant::now());
            call.tries += 1;
            let target = (call.provider, call.model, &call.key);
            let answer = tokio::select! {
                answer = ask(client, &self.config, target, task.prompt, limit) => answer,
                () = task.ownership.lost() => {
                    call.ownership_lost = true;
                    // The request may be billed, but its tokens stay unknown.
                    call.usage.push(TokenUsage::default());
                    let reason = "stopped: the step was cancelled or its lease was lost";
                    return Err(call.fail(Fault::new(FaultKind::Transient, reason)));
                }
            };
            let fault = match answer {
                Ok(answer) => return Ok((answer, started.elapsed(), call.tries)),
                Err(fault) => fault,
            };
            call.usage.extend(fault.usage.as_deref().copied());
            let elapsed = started.elapsed();
            call.has_failed |=
                !fault.timed_out || elapsed >= HANG_TIMEOUT.min(self.config.request_timeout) || elapsed < limit;
            if fault.kind == FaultKind::Auth
                && let Ok(Some(key)) = timeout_at(call.deadline, keys.refresh(call.provider, &call.key, sent_at)).await
            {
                tracing::info!(provider = %call.provider, model = call.model, "retrying with the new key from the secret");
                call.key = key;
                continue;
            }
            let time_left = call.deadline.saturating_duration_since(Instant::now());
            let Some(delay) = retry_delay(&fault, call.tries, &self.config, time_left, fastrand::f64()) else {
                return Err(call.fail(fault));
            };
            tracing::info!(provider = %call.provider, model = call.model, reason = fault.reason, tries = call.tries,
                delay_ms = delay.as_secs_f64() * 1e3, "retrying");
            tokio::time::sleep(delay).await;
        }
    }
}

impl<'a> ProviderCall<'a> {
    fn new(provider: Provider, model: &'a str, key: ApiKey, deadline: Instant) -> Self {
        Self { provider, model, key, deadline, tries: 0, usage: Vec::new(), has_failed: false, ownership_lost: false }
    }

    fn fail(&mut self, fault: Fault) -> ProviderFailure {
        ProviderFailure {
            usage: std::mem::take(&mut self.usage),
            too_little_time: !self.has_failed,
            ..ProviderFailure::new(self.provider, self.model, self.tries, fault)
        }
    }
}

impl ProviderFailure {
    fn new(provider: Provider, model: &str, tries: u32, fault: Fault) -> Self {
        Self {
            provider,
            model: model.to_owned(),
            kind: fault.kind,
            reason: fault.reason,
            status: fault.status,
            tries,
            retry_after: fault.retry_after,
            usage: Vec::new(),
            too_little_time: false,
        }
    }
}

/// The delay before the next try. `None` means no retry. `jitter` is in 0..1.
fn retry_delay(
    fault: &Fault,
    tries: u32,
    config: &CodegenConfig,
    time_left: Duration,
    jitter: f64,
) -> Option<Duration> {
    // Retry only once after a timeout, because each try takes its whole limit.
    let allowed = if fault.timed_out { config.tries_per_provider.min(2) } else { config.tries_per_provider };
    if fault.kind != FaultKind::Transient || fault.do_not_retry || tries >= allowed {
        return None;
    }
    let backoff = config.backoff.saturating_mul(1 << (tries - 1).min(10)).min(MAX_RETRY_DELAY);
    let backoff = backoff.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    // Wait at least for the backoff, even if the provider asks for a wait of 0.
    let delay = fault.retry_after.map_or(backoff, |wait| wait.max(backoff));
    (delay <= MAX_RETRY_DELAY && delay + MIN_TRY_TIME < time_left).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn transient() -> Fault {
        Fault::new(FaultKind::Transient, "503")
    }

    #[test]
    fn retries_stop_at_the_deadline_and_at_the_maximum_of_tries() {
        let config = CodegenConfig::default();
        let ms = Duration::from_millis;
        assert_eq!(retry_delay(&transient(), 1, &config, LONG, 0.0), Some(ms(500)));
        assert_eq!(retry_delay(&transient(), 2, &config, LONG, 1.0), Some(ms(500)));
        assert_eq!(retry_delay(&transient(), 3, &config, LONG, 0.0), None);
        assert_eq!(retry_delay(&transient(), 1, &config, ms(550), 0.0), None);
    }

    #[test]
    fn a_requested_wait_is_honoured_unless_it_is_too_long() {
        let config = CodegenConfig::default();
        let asks = |seconds| Fault { retry_after: Some(Duration::from_secs(seconds)), ..transient() };
        assert_eq!(retry_delay(&asks(7), 1, &config, LONG, 0.5), Some(Duration::from_secs(7)));
        assert_eq!(retry_delay(&asks(0), 1, &config, LONG, 0.0), Some(config.backoff), "at least the backoff");
        assert_eq!(retry_delay(&asks(11), 1, &config, LONG, 0.5), None);
        assert_eq!(retry_delay(&asks(u64::MAX), 1, &config, LONG, 0.5), None);
    }

    #[test]
    fn only_transient_faults_are_retried() {
        let config = CodegenConfig::default();
        for kind in [FaultKind::Billing, FaultKind::Auth, FaultKind::Rejected, FaultKind::Unusable, FaultKind::NoKey] {
            assert_eq!(retry_delay(&Fault::new(kind, ""), 1, &config, LONG, 0.0), None);
        }
        assert_eq!(retry_delay(&Fault { do_not_retry: true, ..transient() }, 1, &config, LONG, 0.0), None);
        assert!(retry_delay(&Fault::timed_out(LONG), 1, &config, LONG, 0.0).is_some());
        assert_eq!(retry_delay(&Fault::timed_out(LONG), 2, &config, LONG, 0.0), None);
    }
}
