//! Decides whether and when a failed attempt is retried.

use std::time::Duration;

/// Longest delay. SQS delays a message by at most 15 minutes.
pub const MAX_DELAY: Duration = Duration::from_mins(15);

/// Retry settings of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of attempts, the first included.
    pub max_attempts: u32,
    /// Delay before the second attempt. It doubles with each further attempt.
    pub backoff: Duration,
}

/// What happens to a step after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    Retry(Duration),
    Fail,
}

/// Decides after a failed attempt. `failures` counts earlier failures of this generation, `jitter` is in 0..1, and
/// `floor` is the minimum delay that a called service asked for.
pub fn after_failure(
    policy: RetryPolicy,
    failures: u32,
    retryable: bool,
    floor: Option<Duration>,
    jitter: f64,
) -> AfterFailure {
    if !retryable || failures.saturating_add(1) >= policy.max_attempts {
        return AfterFailure::Fail;
    }
    let doubled = policy.backoff.saturating_mul(2u32.saturating_pow(failures.min(20))).min(MAX_DELAY);
    // A random time between half of the delay and all of it.
    let spread = doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    AfterFailure::Retry(spread.max(floor.unwrap_or_default()).min(MAX_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: RetryPolicy = RetryPolicy { max_attempts: 3, backoff: Duration::from_secs(1) };

    #[test]
    fn max_attempts_counts_the_first_attempt() {
        assert_eq!(after_failure(POLICY, 0, true, None, 1.0), AfterFailure::Retry(Duration::from_secs(1)));
        assert_eq!(after_failure(POLICY, 1, true, None, 1.0), AfterFailure::Retry(Duration::from_secs(2)));
        assert_eq!(after_failure(POLICY, 2, true, None, 1.0), AfterFailure::Fail);
    }

    #[test]
    fn a_failure_that_is_not_retryable_is_final() {
        assert_eq!(after_failure(POLICY, 0, false, None, 1.0), AfterFailure::Fail);
    }

    proptest! {
        #[test]
        fn delay_stays_between_its_floor_and_what_sqs_can_delay(
            failures in 0u32..100, backoff_ms in 0u64..10_000_000, jitter in 0.0f64..1.0, floor_s in 0u64..2000,
        ) {
            let policy = RetryPolicy { max_attempts: 1000, backoff: Duration::from_millis(backoff_ms) };
            let floor = Duration::from_secs(floor_s);
            match after_failure(policy, failures, true, Some(floor), jitter) {
                AfterFailure::Retry(delay) => {
                    prop_assert!(delay <= MAX_DELAY);
                    prop_assert!(delay >= floor.min(MAX_DELAY));
                }
                AfterFailure::Fail => prop_assert!(false, "attempts were left"),
            }
        }
    }
}
