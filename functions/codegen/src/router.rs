//! Decides which provider to ask, and whether to ask again. This is the only retry loop on the way to a model.
//!
//! *Retry* asks the same model again. *Fallback* asks the next provider. *Cooldown* makes later steps of this process
//! ask a provider last that has just failed. While other providers remain, one provider may use half of the remaining
//! time, so that a hanging provider cannot use up the whole step. Before each request, and every two seconds during
//! one, the router checks that the worker still owns the step, so that a cancelled step spends nothing more.

use std::time::Duration;

use serde::Serialize;
use shared::worker::Ownership;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::ask::{Answer, Question, ask};
use crate::config::{CodegenConfig, default_order};
use crate::cooldown::Cooldowns;
use crate::exchange::client;
use crate::fault::{Fault, FaultKind};
use crate::inputs::Request;
use crate::keys::{ApiKey, ProviderKeys, StepKeys};
use crate::provider::Provider;
use crate::usage::TokenUsage;

/// If a provider asks for a longer wait, the next provider is asked.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// With less time than this no request is sent: it could only cost money.
const MIN_TRY: Duration = Duration::from_millis(100);
/// A provider that did not answer for this long has failed. One that had less time, because the step had, has not.
const PATIENCE: Duration = Duration::from_mins(1);

/// A provider that gave no usable answer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
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
    pub wait: Option<Duration>,
    /// Tokens of unusable answers, one entry for each that reported them.
    #[serde(skip)]
    pub usage: Vec<TokenUsage>,
    /// Only the step's short time prevented an answer.
    #[serde(skip)]
    pub cut_short: bool,
}

/// An answer, and which providers failed before it.
#[derive(Debug)]
pub(crate) struct Routed {
    pub provider: Provider,
    pub model_requested: String,
    pub answer: Answer,
    pub duration: Duration,
    pub tries: u32,
    pub left: Vec<Left>,
}

/// No usable answer, and why not from each provider.
pub(crate) struct RouteFailure {
    pub left: Vec<Left>,
    /// The worker no longer owns the step.
    pub ownership_lost: bool,
}

/// A step's work.
pub(crate) struct Task<'a> {
    pub request: &'a Request,
    pub question: Question<'a>,
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
type Tried = Result<(Answer, Duration, u32), Left>;

/// One provider's turn in a step.
struct Turn<'a> {
    provider: Provider,
    model: &'a str,
    /// Replaced if the provider refuses it and the secret holds another.
    key: ApiKey,
    /// When the turn ends.
    slot: Instant,
    tries: u32,
    spent: Vec<TokenUsage>,
    /// At least one fault was the provider's own.
    has_failed: bool,
    ownership_lost: bool,
}

impl Router {
    pub(crate) fn new(config: CodegenConfig) -> Self {
        Self { config, client: OnceCell::new(), cooldowns: Cooldowns::default() }
    }

    /// The providers that this request may ask, best first.
    pub(crate) fn line(&self, request: &Request) -> Vec<Provider> {
        let order = self.config.order.clone().unwrap_or_else(|| default_order(request.kind).to_vec());
        order.into_iter().filter(|provider| request.provider.is_none_or(|only| only == *provider)).collect()
    }

    /// Whether a provider recently refused one of these keys.
    pub(crate) fn has_refused(&self, line: &[Provider], keys: &ProviderKeys) -> bool {
        let refused = |provider: &Provider| {
            let cooldown = keys.get(*provider).and_then(|key| self.cooldowns.get(*provider, key));
            cooldown.is_some_and(|cooldown| cooldown.kind == FaultKind::Auth)
        };
        line.iter().any(refused)
    }

    /// Asks one provider after another until one gives a usable answer.
    pub(crate) async fn route(&self, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Result<Routed, RouteFailure> {
        let line = self.line(task.request);
        let mut left = Vec::new();
        let is_cooling = |provider: &Provider| {
            keys.current().get(*provider).is_some_and(|key| self.cooldowns.get(*provider, key).is_some())
        };
        let askable = line.iter().filter(|provider| keys.current().get(**provider).is_some()).count();
        let cooling = line.iter().filter(|provider| is_cooling(provider)).count();
        // If all are cooling down, ask them anyway: failing without a request would be worse.
        let ignore_cooldowns = cooling == askable;
        let mut remaining = if ignore_cooldowns { askable } else { askable - cooling };
        for provider in line {
            let model = task.request.model.as_ref().unwrap_or(self.config.models.get(provider));
            let entry = |fault: Fault| Left::of(provider, model, 0, fault);
            let Some(key) = keys.current().get(provider).cloned() else {
                left.push(entry(Fault::new(FaultKind::NoKey, keys.current().problem(provider))));
                continue;
            };
            if let Some(cooldown) = self.cooldowns.get(provider, &key).filter(|_| !ignore_cooldowns) {
                let reason = format!("cooling down after: {}", cooldown.reason);
                let wait = Some(cooldown.until.saturating_duration_since(Instant::now()));
                left.push(entry(Fault { wait, ..Fault::new(cooldown.kind, reason) }));
                continue;
            }
            remaining = remaining.saturating_sub(1);
            let time_left = task.deadline.saturating_duration_since(Instant::now());
            let slot = Instant::now() + if remaining == 0 { time_left } else { time_left / 2 };
            let mut turn = Turn::new(provider, model, key, slot);
            match self.ask_provider(&mut turn, task, keys).await {
                Ok((answer, duration, tries)) => {
                    self.cooldowns.end(provider);
                    let model_requested = model.clone();
                    return Ok(Routed { provider, model_requested, answer, duration, tries, left });
                }
                Err(why) => {
                    tracing::warn!(%provider, model, kind = ?why.kind, status = why.status, reason = why.reason, tries = why.tries,
                        "no usable answer from the provider");
                    if turn.ownership_lost {
                        left.push(why);
                        return Err(RouteFailure { left, ownership_lost: true });
                    }
                    self.cooldowns.start(&why, &turn.key);
                    left.push(why);
                }
            }
        }
        Err(RouteFailure { left, ownership_lost: false })
    }

    /// Asks one provider until it answers or no retry makes sense.
    async fn ask_provider(&self, turn: &mut Turn<'_>, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Tried {
        let client = self.client.get_or_try_init(|| async { client(&self.config) }).await;
        let client = client.map_err(|fault| turn.leave(fault))?;
        loop {
            let limit = self.config.request_timeout.min(turn.slot.saturating_duration_since(Instant::now()));
            if limit < MIN_TRY {
                return Err(turn.leave(Fault::new(FaultKind::Transient, "the step had no time left")));
            }
            if !task.ownership.holds().await {
                turn.ownership_lost = true;
                return Err(
                    turn.leave(Fault::new(FaultKind::Transient, "the step was cancelled or its lease was lost"))
                );
            }
            let (started, asked) = (Instant::now(), std::time::Instant::now());
            turn.tries += 1;
            let target = (turn.provider, turn.model, &turn.key);
            let answer = tokio::select! {
                answer = ask(client, &self.config, target, task.question, limit) => answer,
                () = task.ownership.lost() => {
                    turn.ownership_lost = true;
                    // It may still be billed, and its tokens will never be known.
                    turn.spent.push(TokenUsage::default());
                    let reason = "stopped: the step was cancelled or its lease was lost";
                    return Err(turn.leave(Fault::new(FaultKind::Transient, reason)));
                }
            };
            let fault = match answer {
                Ok(answer) => return Ok((answer, started.elapsed(), turn.tries)),
                Err(fault) => fault,
            };
            turn.spent.extend(fault.usage.as_deref().copied());
            let had = started.elapsed();
            turn.has_failed |= !fault.timed_out || had >= PATIENCE.min(self.config.request_timeout) || had < limit;
            if fault.kind == FaultKind::Auth
                && let Ok(Some(key)) = timeout_at(turn.slot, keys.renew(turn.provider, &turn.key, asked)).await
            {
                tracing::info!(provider = %turn.provider, model = turn.model, "asking again with the new key from the secret");
                turn.key = key;
                continue;
            }
            let time_left = turn.slot.saturating_duration_since(Instant::now());
            let Some(delay) = retry_delay(&fault, turn.tries, &self.config, time_left, fastrand::f64()) else {
                return Err(turn.leave(fault));
            };
            tracing::info!(provider = %turn.provider, model = turn.model, reason = fault.reason, tries = turn.tries,
                delay_ms = delay.as_secs_f64() * 1e3, "asking again");
            tokio::time::sleep(delay).await;
        }
    }
}

impl<'a> Turn<'a> {
    fn new(provider: Provider, model: &'a str, key: ApiKey, slot: Instant) -> Self {
        Self { provider, model, key, slot, tries: 0, spent: Vec::new(), has_failed: false, ownership_lost: false }
    }

    fn leave(&mut self, fault: Fault) -> Left {
        Left {
            usage: std::mem::take(&mut self.spent),
            cut_short: !self.has_failed,
            ..Left::of(self.provider, self.model, self.tries, fault)
        }
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
            cut_short: false,
        }
    }
}

/// How long to wait before asking the same model again. `None` if it should not be asked again. `jitter` is in 0..1.
fn retry_delay(
    fault: &Fault,
    tries: u32,
    config: &CodegenConfig,
    time_left: Duration,
    jitter: f64,
) -> Option<Duration> {
    // Only one more try after a timeout, because each takes its whole limit.
    let allowed = if fault.timed_out { config.tries_per_provider.min(2) } else { config.tries_per_provider };
    if fault.kind != FaultKind::Transient || fault.final_word || tries >= allowed {
        return None;
    }
    let backoff = config.backoff.saturating_mul(1 << (tries - 1).min(10)).min(MAX_WAIT);
    let backoff = backoff.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    // Wait at least the backoff, even if the provider asks for a wait of 0.
    let delay = fault.wait.map_or(backoff, |wait| wait.max(backoff));
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
        assert_eq!(retry_delay(&asks(0), 1, &config, LONG, 0.0), Some(config.backoff), "its own backoff at least");
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
