//! Whom to ask, again or next: the only retry loop on the way to a model.
//!
//! *Retry* asks the same model again, *fallback* asks the next provider, *cooldown* lets later steps of this process ask a
//! provider last that has just failed them. While other providers remain, one may use half of the time that is left, so
//! that a hanging provider cannot take the whole step with it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::ask::{Answer, Question, ask, client};
use crate::config::{CodegenConfig, default_order};
use crate::fault::{Fault, FaultKind};
use crate::inputs::Request;
use crate::keys::ProviderKeys;
use crate::provider::{PerProvider, Provider};
use crate::usage::TokenUsage;

/// A provider that asks for a longer wait is left for the next one.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// With less time left than this a request is not worth its cost.
const MIN_TRY: Duration = Duration::from_millis(100);
const TRANSIENT_COOLDOWN: Duration = Duration::from_secs(15);
const AUTH_COOLDOWN: Duration = Duration::from_mins(1);
const MAX_COOLDOWN: Duration = Duration::from_mins(5);

/// A provider that was left without an answer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    pub provider: Provider,
    pub model: String,
    pub kind: FaultKind,
    /// Safe to show.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Requests that were made; none if the provider was cooling down or has no key.
    pub tries: u32,
    #[serde(skip)]
    pub wait: Option<Duration>,
    /// What unusable answers may have cost, one entry for each that told it.
    #[serde(skip)]
    pub usage: Vec<TokenUsage>,
}

/// An answer, and the way to it.
#[derive(Debug)]
pub(crate) struct Routed {
    pub provider: Provider,
    pub model_requested: String,
    pub answer: Answer,
    pub duration: Duration,
    pub tries: u32,
    pub left: Vec<Left>,
}

/// A provider that failed lately.
#[derive(Debug, Clone)]
struct Cooldown {
    until: Instant,
    kind: FaultKind,
    reason: String,
}

pub(crate) struct Router {
    config: CodegenConfig,
    /// Built on first use, off the path of a cold start.
    client: OnceCell<genai::Client>,
    cooldowns: Mutex<PerProvider<Option<Cooldown>>>,
}

/// What one provider gave: an answer and the number of tries, or why it was left.
type Tried = Result<(Answer, Duration, u32), Left>;

impl Router {
    pub(crate) fn new(config: CodegenConfig) -> Self {
        Self { config, client: OnceCell::new(), cooldowns: Mutex::default() }
    }

    /// Whom this request may ask, best first.
    pub(crate) fn line(&self, request: &Request) -> Vec<Provider> {
        let order = self.config.order.clone().unwrap_or_else(|| default_order(request.kind).to_vec());
        order.into_iter().filter(|provider| request.provider.is_none_or(|only| only == *provider)).collect()
    }

    /// Asks one provider after the other until one gives a usable answer. `Err` tells why each was left.
    pub(crate) async fn route(
        &self,
        request: &Request,
        question: Question<'_>,
        keys: &ProviderKeys,
        deadline: Instant,
    ) -> Result<Routed, Vec<Left>> {
        let line = self.line(request);
        let mut left = Vec::new();
        let askable = line.iter().filter(|provider| keys.get(**provider).is_some()).count();
        let cooling: Vec<_> = line.iter().filter(|p| keys.get(**p).is_some() && self.cooldown(**p).is_some()).collect();
        // When all are cooling down, asking is better than failing without having asked.
        let ignore_cooldowns = cooling.len() == askable;
        let mut remaining = if ignore_cooldowns { askable } else { askable - cooling.len() };
        for provider in line {
            let model = request.model.as_ref().unwrap_or(self.config.models.get(provider));
            let entry = |fault: Fault| Left::of(provider, model, 0, fault);
            let Some(key) = keys.get(provider) else {
                left.push(entry(Fault::new(FaultKind::NoKey, format!("{} is not configured", provider.key_name()))));
                continue;
            };
            if let Some(cooldown) = self.cooldown(provider).filter(|_| !ignore_cooldowns) {
                let reason = format!("cooling down after: {}", cooldown.reason);
                let wait = Some(cooldown.until.saturating_duration_since(Instant::now()));
                left.push(entry(Fault { wait, ..Fault::new(cooldown.kind, reason) }));
                continue;
            }
            remaining = remaining.saturating_sub(1);
            let time_left = deadline.saturating_duration_since(Instant::now());
            let slot = Instant::now() + if remaining == 0 { time_left } else { time_left / 2 };
            match self.try_provider((provider, model, key), question, slot).await {
                Ok((answer, duration, tries)) => {
                    self.warm_up(provider);
                    let model_requested = model.clone();
                    return Ok(Routed { provider, model_requested, answer, duration, tries, left });
                }
                Err(why) => {
                    tracing::warn!(%provider, model, kind = ?why.kind, status = why.status, reason = why.reason, tries = why.tries,
                        "provider left without an answer");
                    self.cool_down(&why);
                    left.push(why);
                }
            }
        }
        Err(left)
    }

    async fn try_provider(
        &self,
        target: (Provider, &String, &crate::keys::ApiKey),
        question: Question<'_>,
        slot: Instant,
    ) -> Tried {
        let (provider, model, key) = target;
        let client = self.client.get_or_try_init(|| async { client(&self.config) }).await;
        let client = client.map_err(|fault| Left::of(provider, model, 0, fault))?;
        let mut spent = Vec::new();
        let mut tries = 0;
        loop {
            let started = Instant::now();
            let limit = self.config.request_timeout.min(slot.saturating_duration_since(started));
            if limit < MIN_TRY {
                let fault = Fault::new(FaultKind::Transient, "the step has no time left for it");
                return Err(Left::of(provider, model, tries, fault));
            }
            tries += 1;
            let fault = match ask(client, &self.config, (provider, model, key), question, limit).await {
                Ok(answer) => return Ok((answer, started.elapsed(), tries)),
                Err(fault) => fault,
            };
            spent.extend(fault.usage.as_deref().copied());
            let time_left = slot.saturating_duration_since(Instant::now());
            let Some(delay) = retry_delay(&fault, tries, &self.config, time_left, fastrand::f64()) else {
                return Err(Left { usage: spent, ..Left::of(provider, model, tries, fault) });
            };
            tracing::info!(%provider, model, reason = fault.reason, tries, delay_ms = delay.as_secs_f64() * 1e3, "asking again");
            tokio::time::sleep(delay).await;
        }
    }

    fn cooldown(&self, provider: Provider) -> Option<Cooldown> {
        let cooldowns = self.cooldowns.lock().unwrap_or_else(PoisonError::into_inner);
        cooldowns.get(provider).clone().filter(|cooldown| cooldown.until > Instant::now())
    }

    fn cool_down(&self, left: &Left) {
        let time = match left.kind {
            // A provider that was not even asked (no time left) has shown nothing.
            FaultKind::Transient if left.tries > 0 => left.wait.unwrap_or(TRANSIENT_COOLDOWN).min(MAX_COOLDOWN),
            FaultKind::Auth => AUTH_COOLDOWN,
            FaultKind::Billing => MAX_COOLDOWN,
            FaultKind::Transient | FaultKind::Rejected | FaultKind::Unusable | FaultKind::NoKey => return,
        };
        let cooldown = Cooldown { until: Instant::now() + time, kind: left.kind, reason: left.reason.clone() };
        *self.cooldowns.lock().unwrap_or_else(PoisonError::into_inner).get_mut(left.provider) = Some(cooldown);
    }

    fn warm_up(&self, provider: Provider) {
        *self.cooldowns.lock().unwrap_or_else(PoisonError::into_inner).get_mut(provider) = None;
    }
}

impl Left {
    fn of(provider: Provider, model: &str, tries: u32, fault: Fault) -> Self {
        Self {
            provider,
            model: model.to_owned(),
            kind: fault.kind,
            reason: fault.reason,
            status: fault.status,
            tries,
            wait: fault.wait,
            usage: Vec::new(),
        }
    }
}

/// How long to wait before the same model is asked again; `None` if it should not be. `jitter` is in 0..1.
fn retry_delay(
    fault: &Fault,
    tries: u32,
    config: &CodegenConfig,
    time_left: Duration,
    jitter: f64,
) -> Option<Duration> {
    // One more try after a timeout: each costs its whole limit.
    let allowed = if fault.timed_out { config.tries_per_provider.min(2) } else { config.tries_per_provider };
    if fault.kind != FaultKind::Transient || fault.final_word || tries >= allowed {
        return None;
    }
    let backoff = config.backoff.saturating_mul(1 << (tries - 1).min(10)).min(MAX_WAIT);
    let delay = fault.wait.unwrap_or_else(|| backoff.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0));
    (delay <= MAX_WAIT && delay + MIN_TRY < time_left).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn transient() -> Fault {
        Fault::new(FaultKind::Transient, "503")
    }

    #[test]
    fn a_retry_never_outlives_the_time_left_nor_the_number_of_tries() {
        let config = CodegenConfig::default();
        let ms = Duration::from_millis;
        assert_eq!(retry_delay(&transient(), 1, &config, LONG, 0.0), Some(ms(500)));
        assert_eq!(retry_delay(&transient(), 2, &config, LONG, 1.0), Some(ms(500)));
        assert_eq!(retry_delay(&transient(), 3, &config, LONG, 0.0), None);
        assert_eq!(retry_delay(&transient(), 1, &config, ms(550), 0.0), None);
    }

    #[test]
    fn the_wait_a_provider_asks_for_is_kept_or_the_provider_is_left() {
        let config = CodegenConfig::default();
        let asks = |seconds| Fault { wait: Some(Duration::from_secs(seconds)), ..transient() };
        assert_eq!(retry_delay(&asks(7), 1, &config, LONG, 0.5), Some(Duration::from_secs(7)));
        assert_eq!(retry_delay(&asks(11), 1, &config, LONG, 0.5), None);
        assert_eq!(retry_delay(&asks(u64::MAX), 1, &config, LONG, 0.5), None);
    }

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        let config = CodegenConfig::default();
        for kind in [FaultKind::Billing, FaultKind::Auth, FaultKind::Rejected, FaultKind::Unusable, FaultKind::NoKey] {
            assert_eq!(retry_delay(&Fault::new(kind, ""), 1, &config, LONG, 0.0), None);
        }
        assert_eq!(retry_delay(&Fault { final_word: true, ..transient() }, 1, &config, LONG, 0.0), None);
        assert!(retry_delay(&Fault::timed_out(LONG), 1, &config, LONG, 0.0).is_some());
        assert_eq!(retry_delay(&Fault::timed_out(LONG), 2, &config, LONG, 0.0), None);
    }
}
