//! Counts failed logins, so that nobody can try many passwords. The issuer has its own limits. These apply to one process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Failed logins of one person from one address in a window, after which further ones are refused.
const MOST: u32 = 5;
const WINDOW: Duration = Duration::from_mins(1);
/// Maximum number of pairs of person and address that are counted. More are an attack.
const MOST_PAIRS: usize = 10_000;

/// Who tried, and when the first failure of the window was.
#[derive(Debug, Default)]
pub struct Attempts(HashMap<String, (Instant, u32)>);

impl Attempts {
    /// Whether another attempt is allowed.
    pub fn allow(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_none_or(|(since, failures)| *failures < MOST || now.duration_since(*since) >= WINDOW)
    }

    /// Counts a failure.
    pub fn fail(&mut self, key: &str, now: Instant) {
        if self.0.len() >= MOST_PAIRS {
            self.0.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        if self.0.len() >= MOST_PAIRS && !self.0.contains_key(key) {
            return;
        }
        let (since, failures) = self.0.entry(key.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *failures) = (now, 0);
        }
        *failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_minute_are_enough() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for _ in 0..MOST {
            assert!(attempts.allow("ann", start));
            attempts.fail("ann", start);
        }
        assert!(!attempts.allow("ann", start + Duration::from_secs(59)) && attempts.allow("ben", start));
        assert!(attempts.allow("ann", start + WINDOW));
        attempts.fail("ann", start + WINDOW);
        assert!(attempts.allow("ann", start + WINDOW));
    }

    #[test]
    fn the_memory_for_failures_is_bounded_and_recovers() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for at in 0..2 * MOST_PAIRS {
            attempts.fail(&at.to_string(), start);
        }
        assert_eq!(attempts.0.len(), MOST_PAIRS);
        attempts.fail("late", start + WINDOW);
        assert_eq!(attempts.0.len(), 1);
    }
}
