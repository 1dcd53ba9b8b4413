//! Counts failed logins, so that nobody can try many passwords. The issuer has its own limits. These apply to one process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Failures of one person from one address in a window, before further attempts are refused.
const MOST_OF_PERSON: u32 = 5;
/// Failures from one address in a window, whomever they name.
const MOST_OF_ADDRESS: u32 = 50;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses, and pairs of address and person, that are counted.
const MOST_COUNTED: usize = 20_000;

/// Who tried, and when the first failure of the window was.
#[derive(Debug, Default)]
pub struct Attempts(HashMap<String, (Instant, u32)>);

impl Attempts {
    /// Whether another attempt is allowed.
    pub fn allow(&self, address: &str, person: &str, now: Instant) -> bool {
        self.failures(address, now) < MOST_OF_ADDRESS && self.failures(&pair(address, person), now) < MOST_OF_PERSON
    }

    /// Counts a failure.
    pub fn fail(&mut self, address: &str, person: &str, now: Instant) {
        if self.0.len() + 2 > MOST_COUNTED {
            self.0.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        for key in [address.to_owned(), pair(address, person)] {
            if self.0.len() >= MOST_COUNTED && !self.0.contains_key(&key) {
                continue;
            }
            let (since, failures) = self.0.entry(key).or_insert((now, 0));
            if now.duration_since(*since) >= WINDOW {
                (*since, *failures) = (now, 0);
            }
            *failures += 1;
        }
    }

    fn failures(&self, key: &str, now: Instant) -> u32 {
        self.0.get(key).filter(|(since, _)| now.duration_since(*since) < WINDOW).map_or(0, |(_, failures)| *failures)
    }
}

/// No address has a space.
fn pair(address: &str, person: &str) -> String {
    format!("{address} {person}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_of_a_person_in_a_minute_are_enough() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for _ in 0..MOST_OF_PERSON {
            assert!(attempts.allow("::1", "ann", start));
            attempts.fail("::1", "ann", start);
        }
        assert!(!attempts.allow("::1", "ann", start + Duration::from_secs(59)));
        assert!(attempts.allow("::1", "ben", start) && attempts.allow("::2", "ann", start));
        assert!(attempts.allow("::1", "ann", start + WINDOW));
        attempts.fail("::1", "ann", start + WINDOW);
        assert!(attempts.allow("::1", "ann", start + WINDOW));
    }

    #[test]
    fn an_address_that_tries_many_people_is_refused() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for at in 0..MOST_OF_ADDRESS {
            assert!(attempts.allow("::1", &at.to_string(), start), "{at}");
            attempts.fail("::1", &at.to_string(), start);
        }
        assert!(!attempts.allow("::1", "ann", start) && attempts.allow("::2", "ann", start));
        assert!(attempts.allow("::1", "ann", start + WINDOW));
    }

    #[test]
    fn the_memory_for_failures_is_bounded_and_recovers() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for at in 0..2 * MOST_COUNTED {
            attempts.fail(&at.to_string(), "ann", start);
        }
        assert_eq!(attempts.0.len(), MOST_COUNTED);
        attempts.fail("late", "ann", start + WINDOW);
        assert_eq!(attempts.0.len(), 2);
    }
}
