//! The keys of an issuer, cached in the process.
//!
//! A known key never waits for the network. Once the document is 10 minutes old, the next request starts another read of it
//! in the background. An unknown key id starts a read at most once in 10 seconds, for all requests together, and its request
//! waits up to 2 seconds. A document without a usable key changes nothing. While the endpoint is down, the last keys stay
//! valid for 24 hours, and the time between two reads doubles up to 5 minutes.
//!
//! The clock is the wall clock, because Lambda freezes a process between requests, and because documents are stored with
//! the time at which they were read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::Refused;
use super::issuer::Endpoint;
use super::key::{Key, KeySet};
use crate::error::Error;

/// The time since 1970.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The clock of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// How often the document is read, and how long it stays valid.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A document of this age is read again.
    pub refresh: Duration,
    /// The time between two reads, before any of them fails.
    pub interval: Duration,
    /// The longest time between two reads after failures.
    pub max_interval: Duration,
    /// How long a request with an unknown key waits.
    pub wait: Duration,
    /// The limit of one read.
    pub fetch: Duration,
    /// The age at which a document becomes invalid, if no newer one can be read.
    pub max_stale: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh: Duration::from_mins(10),
            interval: Duration::from_secs(10),
            max_interval: Duration::from_mins(5),
            wait: Duration::from_secs(2),
            fetch: Duration::from_secs(5),
            max_stale: Duration::from_hours(24),
        }
    }
}

/// A document, and when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub document: String,
    /// Since 1970.
    pub fetched_at: Duration,
}

/// Keeps the last document outside of the process, for a process that starts while the endpoint is down. Both functions log
/// their own failures.
#[derive(Clone)]
pub struct KeyStore {
    /// Called if a process has no keys and the endpoint does not answer, at most once in 10 seconds.
    pub load: Arc<dyn Fn() -> BoxFuture<'static, Option<Stored>> + Send + Sync>,
    /// Called after a read that returned a new document, and otherwise every hour, so that the stored document does not
    /// become stale. Many processes call it, so it should skip a write that changes nothing.
    pub store: Arc<dyn Fn(Stored) -> BoxFuture<'static, ()> + Send + Sync>,
}

const STORE_AGAIN: Duration = Duration::from_hours(1);

/// The keys of an issuer.
#[derive(Clone)]
pub struct Jwks(Source);

#[derive(Clone)]
enum Source {
    Fixed(KeySet),
    Endpoint(Arc<Cache>),
}

impl Jwks {
    /// Keys that never change.
    pub fn fixed(document: &str) -> Result<Self, &'static str> {
        KeySet::parse(document).map(|keys| Self(Source::Fixed(keys)))
    }

    /// Keys of an endpoint, which is asked on first use.
    pub fn of_endpoint(
        address: &str,
        timing: Timing,
        clock: Clock,
        key_store: Option<KeyStore>,
    ) -> Result<Self, Error> {
        Ok(Self(Source::Endpoint(Arc::new(Cache {
            endpoint: Endpoint::new(address, timing.fetch)?,
            timing,
            clock,
            key_store,
            state: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            settled: watch::Sender::new(()),
        }))))
    }

    /// The key with this id.
    pub async fn get(&self, kid: &str) -> Result<Arc<Key>, Refused> {
        match &self.0 {
            Source::Fixed(keys) => keys.get(kid).cloned().ok_or(Refused("unknown_key")),
            Source::Endpoint(cache) => cache.get(kid).await,
        }
    }
}

struct Cache {
    endpoint: Endpoint,
    timing: Timing,
    clock: Clock,
    key_store: Option<KeyStore>,
    state: Mutex<State>,
    /// Held while the key store is asked.
    loading: tokio::sync::Mutex<()>,
    /// Changes when a read ends.
    settled: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    is_fetching: bool,
    /// The start of the last read.
    tried_at: Option<Duration>,
    /// Failed reads since the last successful one.
    failures: u32,
    /// When the key store was asked.
    asked_at: Option<Duration>,
    stored_at: Option<Duration>,
}

struct Current {
    keys: KeySet,
    document: String,
    fetched_at: Duration,
}

impl State {
    /// The key, unless the document is too old.
    fn key(&self, kid: &str, now: Duration, timing: &Timing) -> Option<Arc<Key>> {
        let current = self.current.as_ref()?;
        let counts = now.saturating_sub(current.fetched_at) <= timing.max_stale;
        counts.then(|| current.keys.get(kid).cloned())?
    }

    /// Whether the document should be read, for a key that is known or unknown. If so, the caller reads it.
    fn start(&mut self, is_known: bool, now: Duration, timing: &Timing) -> bool {
        let is_fresh = self.current.as_ref().is_some_and(|current| is_within(timing.refresh, current.fetched_at, now));
        let pause = timing.interval.saturating_mul(1 << self.failures.min(16)).min(timing.max_interval);
        let is_too_soon = self.tried_at.is_some_and(|tried_at| is_within(pause, tried_at, now));
        if self.is_fetching || (is_known && is_fresh) || is_too_soon {
            return false;
        }
        (self.is_fetching, self.tried_at) = (true, Some(now));
        true
    }

    /// Records the answer of a read. Returns what the key store should store.
    fn settle(&mut self, answer: Result<(KeySet, String), String>, now: Duration) -> Option<Stored> {
        let (keys, document) = match answer {
            Ok(answer) => answer,
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                warn!(reason, failures = self.failures, "the issuer's keys cannot be read");
                return None;
            }
        };
        self.failures = 0;
        let is_same = self.current.as_ref().is_some_and(|current| current.document == document);
        let is_stored = is_same && self.stored_at.is_some_and(|stored_at| is_within(STORE_AGAIN, stored_at, now));
        self.current = Some(Current { keys, document: document.clone(), fetched_at: now });
        if is_stored {
            return None;
        }
        self.stored_at = Some(now);
        Some(Stored { document, fetched_at: now })
    }
}

/// Whether less than `time` has passed since `start`. A clock that was set back counts as if it had passed.
fn is_within(time: Duration, start: Duration, now: Duration) -> bool {
    now.checked_sub(start).is_some_and(|passed| passed < time)
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(self: &Arc<Self>, kid: &str) -> Result<Arc<Key>, Refused> {
        // Subscribe before looking at the state, so that the end of a read is not missed.
        let mut settled = self.settled.subscribe();
        let (known, is_fetching) = {
            let (now, mut state) = ((self.clock)(), self.state());
            let known = state.key(kid, now, &self.timing);
            if state.start(known.is_some(), now, &self.timing) {
                tokio::spawn(self.clone().fetch());
            }
            (known, state.is_fetching)
        };
        if let Some(key) = known {
            return Ok(key);
        }
        if is_fetching {
            // Whether the read ended or the wait is over, the state has the result.
            let _ = timeout(self.timing.wait, settled.changed()).await;
        }
        self.ask_key_store().await;
        self.state().key(kid, (self.clock)(), &self.timing).ok_or(Refused("unknown_key"))
    }

    /// Reads the document once. This runs in its own task, so that a request that ends early does not stop it.
    async fn fetch(self: Arc<Self>) {
        let ending = Ending(&self);
        let answer = self.endpoint.fetch().await.and_then(|document| {
            let keys = KeySet::parse(&document).map_err(str::to_owned)?;
            Ok((keys, document))
        });
        let to_store = self.state().settle(answer, (self.clock)());
        drop(ending);
        if let (Some(key_store), Some(stored)) = (&self.key_store, to_store) {
            (key_store.store)(stored).await;
        }
    }

    /// Asks the key store if the process has no document. Concurrent requests ask once.
    async fn ask_key_store(&self) {
        let Some(last) = self.key_store.as_ref().filter(|_| self.needs_key_store()) else { return };
        let _loading = self.loading.lock().await;
        if !self.needs_key_store() {
            return;
        }
        let stored = (last.load)().await;
        let mut state = self.state();
        state.asked_at = Some((self.clock)());
        // Meanwhile a read may have ended.
        if let (None, Some(stored)) = (&state.current, stored) {
            match KeySet::parse(&stored.document) {
                Ok(keys) => {
                    let fetched_at = stored.fetched_at.min((self.clock)());
                    state.current = Some(Current { keys, document: stored.document, fetched_at });
                }
                Err(reason) => warn!(reason, "the stored keys of the issuer cannot be used"),
            }
        }
    }

    fn needs_key_store(&self) -> bool {
        let (now, state) = ((self.clock)(), self.state());
        let is_too_soon = state.asked_at.is_some_and(|asked_at| is_within(self.timing.interval, asked_at, now));
        state.current.is_none() && !is_too_soon
    }
}

/// Marks a read as ended, even if it panics.
struct Ending<'a>(&'a Cache);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.state().is_fetching = false;
        self.0.settled.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::FORGE;
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    fn failed(state: &mut State, now: Duration) {
        assert_eq!(state.settle(Err("down".into()), now), None);
        state.is_fetching = false;
    }

    #[test]
    fn the_pause_between_two_reads_doubles_while_they_fail_and_is_bounded() {
        let (mut state, timing) = (State::default(), Timing::default());
        let mut now = 0;
        for pause in [20, 40, 80, 160, 300, 300, 300] {
            assert!(state.start(false, at(now), &timing));
            assert!(!state.start(false, at(now), &timing), "one read at a time");
            failed(&mut state, at(now));
            assert!(!state.start(false, at(now + pause - 1), &timing), "{pause} s");
            now += pause;
        }
        assert!(state.start(true, at(now), &timing));
    }

    #[test]
    fn a_read_that_succeeds_ends_the_pauses() {
        let (mut state, timing) = (State::default(), Timing::default());
        for second in [0, 100, 200] {
            assert!(state.start(false, at(second), &timing));
            failed(&mut state, at(second));
        }
        assert!(!state.start(false, at(279), &timing));
        assert!(state.start(false, at(280), &timing));
        let document = FORGE.jwks().to_string();
        let answer = Ok((KeySet::parse(&document).unwrap(), document.clone()));
        assert_eq!(state.settle(answer, at(280)), Some(Stored { document, fetched_at: at(280) }));
        state.is_fetching = false;
        assert!(!state.start(false, at(289), &timing));
        assert!(state.start(false, at(290), &timing));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_reads() {
        let (mut state, timing) = (State::default(), Timing::default());
        assert!(state.start(false, at(1_000), &timing));
        failed(&mut state, at(1_000));
        assert!(state.start(false, at(0), &timing));
    }
}
