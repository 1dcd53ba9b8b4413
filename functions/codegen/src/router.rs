//! Whom to ask, again or next: the only retry loop on the way to a model.
//!
//! *Retry* asks the same model again, *fallback* asks the next provider, *cooldown* lets later steps of this process ask a
//! provider last that has just failed them. While other providers remain, one may use half of the time that is left, so
//! that a hanging provider cannot take the whole step with it. Before each request, and every two seconds while one is under
//! way, the router looks whether the step is still its own: a cancelled step spends nothing more.

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

/// A provider that asks for a longer wait is left for the next one.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// With less time left than this a request is not worth its cost.
const MIN_TRY: Duration = Duration::from_millis(100);
/// A provider that gave no answer for so long has failed. One that had less time, because its step had, has not.
const PATIENCE: Duration = Duration::from_mins(1);

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
    /// The step had less time than an answer may take, and nothing else went wrong.
    #[serde(skip)]
    pub cut_short: bool,
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

/// No usable answer, and why each provider was left.
pub(crate) struct RouteFailure {
    pub left: Vec<Left>,
    /// The step is owned no longer.
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
    /// Built on first use, off the path of a cold start.
    client: OnceCell<reqwest::Client>,
    cooldowns: Cooldowns,
}

/// What one provider gave: an answer and the number of tries, or why it was left.
type Tried = Result<(Answer, Duration, u32), Left>;

/// One provider's turn in a step.
struct Turn<'a> {
    provider: Provider,
    model: &'a str,
    /// The newest one: a refused key is replaced when the secret holds another.
    key: ApiKey,
    /// When the turn ends.
    slot: Instant,
    tries: u32,
    spent: Vec<TokenUsage>,
    /// A fault that was the provider's own.
    has_failed: bool,
    ownership_lost: bool,
}

impl Router {
    pub(crate) fn new(config: CodegenConfig) -> Self {
        Self { config, client: OnceCell::new(), cooldowns: Cooldowns::default() }
    }

    /// Whom this request may ask, best first.
    pub(crate) fn line(&self, request: &Request) -> Vec<Provider> {
        let order = self.config.order.clone().unwrap_or_else(|| default_order(request.kind).to_vec());
        order.into_iter().filter(|provider| request.provider.is_none_or(|only| only == *provider)).collect()
    }

    /// Whether one of these keys was refused lately.
    pub(crate) fn has_refused(&self, line: &[Provider], keys: &ProviderKeys) -> bool {
        let refused = |provider: &Provider| {
            let cooldown = keys.get(*provider).and_then(|key| self.cooldowns.get(*provider, key));
            cooldown.is_some_and(|cooldown| cooldown.kind == FaultKind::Auth)
        };
        line.iter().any(refused)
    }

    /// Asks one provider after the other until one gives a usable answer.
    pub(crate) async fn route(&self, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Result<Routed, RouteFailure> {
        let line = self.line(task.request);
        let mut left = Vec::new();
        let is_cooling = |provider: &Provider| {
            keys.current().get(*provider).is_some_and(|key| self.cooldowns.get(*provider, key).is_some())
        };
        let askable = line.iter().filter(|provider| keys.current().get(**provider).is_some()).count();
        let cooling = line.iter().filter(|provider| is_cooling(provider)).count();
        // When all are cooling down, asking is better than failing without having asked.
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
                        "provider left without an answer");
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

    /// Asks one provider until it answers, or is left.
    async fn ask_provider(&self, turn: &mut Turn<'_>, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Tried {
        let client = self.client.get_or_try_init(|| async { client(&self.config) }).await;
        let client = client.map_err(|fault| turn.leave(fault))?;
        loop {
            let limit = self.config.request_timeout.min(turn.slot.saturating_duration_since(Instant::now()));
            if limit < MIN_TRY {
                return Err(turn.leave(Fault::new(FaultKind::Transient, "the step has no time left for it")));
            }
            if !task.ownership.holds().await {
                turn.ownership_lost = true;
                return Err(turn.leave(Fault::new(FaultKind::Transient, "the step was cancelled or taken over")));
            }
            let (started, asked) = (Instant::now(), std::time::Instant::now());
            turn.tries += 1;
            let target = (turn.provider, turn.model, &turn.key);
            let answer = tokio::select! {
                answer = ask(client, &self.config, target, task.question, limit) => answer,
                () = task.ownership.lost() => {
                    turn.ownership_lost = true;
                    // It may be billed all the same, and nobody will tell how much.
                    turn.spent.push(TokenUsage::default());
                    let reason = "given up: the step was cancelled or taken over";
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
                tracing::info!(provider = %turn.provider, model = turn.model, "asking again with the key that the secret holds now");
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
    let backoff = backoff.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    // A wait of nothing is not an invitation to ask in a loop.
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
