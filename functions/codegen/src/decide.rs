//! Decides what follows a fault: a retry, the next model, or the end. Pure.
//!
//! *Retry* asks the same model again. *Next* falls back to the next model of the plan. *Cooldown* makes later attempts of
//! all workers skip a model or a whole deployment, while another one can be asked.

use std::time::Duration;

use crate::fault::{Fault, FaultKind, Scope};

/// If a provider asks for a longer wait, the router falls back to the next model.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// With less time left than this, the router sends no request: it would cost money and time out.
pub(crate) const MIN_TRY_TIME: Duration = Duration::from_millis(100);
/// A timeout after this long is the provider's failure. A shorter one may only mean that the step had little time.
const HANG_TIMEOUT: Duration = Duration::from_mins(1);
const TRANSIENT_COOLDOWN: Duration = Duration::from_secs(15);
const AUTH_COOLDOWN: Duration = Duration::from_mins(1);
const MAX_COOLDOWN: Duration = Duration::from_mins(5);

/// What to do after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Retry {
        delay: Duration,
    },
    Next,
    /// The step has no time for another request.
    Stop,
}

/// Where a model's requests stand when one of them failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    /// Requests to this model so far, including the failed one.
    pub tries: u32,
    pub max_tries: u32,
    /// Delay before the second try. Each further try doubles it.
    pub backoff: Duration,
    /// What is left of the model's share of the step's time.
    pub share_left: Duration,
    /// What is left of the step's time.
    pub step_left: Duration,
    /// The provider rejected the key, and the secret has another one now.
    pub has_new_key: bool,
}

/// What follows a fault. `jitter` is in 0..1.
pub(crate) fn after(fault: &Fault, state: &State, jitter: f64) -> Decision {
    if state.step_left < MIN_TRY_TIME {
        return Decision::Stop;
    }
    if fault.kind == FaultKind::Auth && state.has_new_key {
        return Decision::Retry { delay: Duration::ZERO };
    }
    // Retry only once after a timeout, because each try takes its whole limit.
    let allowed = if fault.timed_out { state.max_tries.min(2) } else { state.max_tries };
    if fault.kind != FaultKind::Transient || fault.do_not_retry || state.tries >= allowed {
        return Decision::Next;
    }
    let doublings = state.tries.saturating_sub(1).min(10);
    let backoff = state.backoff.saturating_mul(1 << doublings).min(MAX_RETRY_DELAY);
    let backoff = backoff.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    // Wait at least for the backoff, even if the provider asks for a wait of 0.
    let delay = fault.retry_after.map_or(backoff, |wait| wait.max(backoff));
    let fits = delay <= MAX_RETRY_DELAY && delay.saturating_add(MIN_TRY_TIME) < state.share_left;
    if fits { Decision::Retry { delay } } else { Decision::Next }
}

/// How long all workers skip what the fault holds for. `None` if it may be healthy.
pub(crate) fn cooldown(fault: &Fault, decision: Decision, is_providers_fault: bool) -> Option<Duration> {
    match fault.kind {
        // A deployment has one key, so this holds also if a retry uses another one.
        FaultKind::Auth => Some(AUTH_COOLDOWN),
        FaultKind::Billing => Some(MAX_COOLDOWN),
        FaultKind::Transient
            if is_providers_fault && fault.scope != Scope::Request && !matches!(decision, Decision::Retry { .. }) =>
        {
            let asked = fault.retry_after.filter(|wait| !wait.is_zero());
            Some(asked.unwrap_or(TRANSIENT_COOLDOWN).min(MAX_COOLDOWN))
        }
        _ => None,
    }
}

/// Whether a fault is the provider's. It is not if the step gave the request too little time.
pub(crate) fn is_providers_fault(fault: &Fault, took: Duration, limit: Duration, request_timeout: Duration) -> bool {
    !fault.timed_out || took < limit || took >= HANG_TIMEOUT.min(request_timeout)
}

/// The time that a model may use: half of what is left while others remain, so that one that hangs cannot use up the step.
pub(crate) fn share(step_left: Duration, others_remain: bool) -> Duration {
    if others_remain { step_left / 2 } else { step_left }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn state() -> State {
        State {
            tries: 1,
            max_tries: 3,
            backoff: Duration::from_millis(500),
            share_left: MINUTE,
            step_left: MINUTE,
            has_new_key: false,
        }
    }

    fn transient() -> Fault {
        Fault::new(FaultKind::Transient, "503")
    }

    fn retry(delay_ms: u64) -> Decision {
        Decision::Retry { delay: Duration::from_millis(delay_ms) }
    }

    #[test]
    fn retries_stop_at_the_deadline_and_at_the_maximum_of_tries() {
        assert_eq!(after(&transient(), &state(), 0.0), retry(500));
        assert_eq!(after(&transient(), &State { tries: 2, ..state() }, 1.0), retry(500));
        assert_eq!(after(&transient(), &State { tries: 3, ..state() }, 0.0), Decision::Next);
        let share_left = Duration::from_millis(550);
        assert_eq!(after(&transient(), &State { share_left, ..state() }, 0.0), Decision::Next);
        let step_left = Duration::from_millis(99);
        assert_eq!(after(&transient(), &State { step_left, ..state() }, 0.0), Decision::Stop);
    }

    #[test]
    fn a_requested_wait_is_honoured_unless_it_is_too_long() {
        let asks = |seconds| Fault { retry_after: Some(Duration::from_secs(seconds)), ..transient() };
        assert_eq!(after(&asks(7), &state(), 0.5), retry(7000));
        assert_eq!(after(&asks(0), &state(), 0.0), retry(500), "at least the backoff");
        for too_long in [11, u64::MAX] {
            assert_eq!(after(&asks(too_long), &state(), 0.5), Decision::Next);
        }
    }

    #[test]
    fn only_transient_faults_and_replaced_keys_are_retried() {
        for kind in [FaultKind::Billing, FaultKind::Auth, FaultKind::Rejected, FaultKind::Unusable, FaultKind::NoKey] {
            assert_eq!(after(&Fault::new(kind, ""), &state(), 0.0), Decision::Next);
        }
        let replaced = State { has_new_key: true, tries: 3, ..state() };
        assert_eq!(after(&Fault::new(FaultKind::Auth, ""), &replaced, 0.0), retry(0));
        assert_eq!(after(&Fault { do_not_retry: true, ..transient() }, &state(), 0.0), Decision::Next);
        assert_eq!(after(&Fault::timed_out(MINUTE), &state(), 0.0), retry(500));
        assert_eq!(after(&Fault::timed_out(MINUTE), &State { tries: 2, ..state() }, 0.0), Decision::Next);
    }

    #[test]
    fn a_step_with_little_time_does_not_put_a_healthy_provider_into_cooldown() {
        let fault = Fault::timed_out(Duration::from_secs(2));
        let two = Duration::from_secs(2);
        assert!(!is_providers_fault(&fault, two, two, Duration::from_mins(4)));
        assert!(is_providers_fault(&fault, two, two, two), "the operator's limit of a request");
        assert!(is_providers_fault(&fault, MINUTE, MINUTE, Duration::from_mins(4)));
        assert!(is_providers_fault(&Fault::stalled(two), two, MINUTE, Duration::from_mins(4)), "it had more time");
        assert_eq!(cooldown(&fault, Decision::Next, false), None);
        assert_eq!(cooldown(&fault, Decision::Next, true), Some(TRANSIENT_COOLDOWN));
    }

    #[test]
    fn a_cooldown_lasts_as_long_as_the_fault_suggests() {
        let asks = |seconds| Fault { retry_after: Some(Duration::from_secs(seconds)), ..transient() };
        let of = |fault: &Fault, decision| cooldown(fault, decision, true).map(|cooldown| cooldown.as_secs());
        assert_eq!(of(&asks(90), Decision::Next), Some(90));
        assert_eq!(of(&asks(9000), Decision::Next), Some(300));
        assert_eq!(of(&asks(0), Decision::Next), Some(15));
        assert_eq!(of(&transient(), retry(1)), None, "it is asked again");
        assert_eq!(of(&Fault::new(FaultKind::Auth, ""), retry(0)), Some(60), "the rejected key");
        assert_eq!(of(&Fault::new(FaultKind::Billing, ""), Decision::Next), Some(300));
        assert_eq!(of(&Fault::new(FaultKind::Rejected, ""), Decision::Next), None);
        assert_eq!(of(&Fault::unusable(""), Decision::Next), None);
        assert_eq!(of(&Fault::empty(), Decision::Next), None, "another request may have an answer");
    }
}
