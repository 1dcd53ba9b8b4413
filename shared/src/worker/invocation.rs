//! The time of an invocation.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::db::step::{ClaimItem, Continuation};
use crate::domain::tool::HandlerSpec;
use crate::queue::Message;

/// Kept back from every attempt, to record its end.
const FINISH_RESERVE: Duration = Duration::from_secs(3);

/// What is left of an invocation, and what fits into it.
#[derive(Debug, Clone, Copy)]
pub struct Invocation {
    pub(super) spec: &'static HandlerSpec,
    deadline: Instant,
    /// The most bytes that the values of a step's references may have.
    refs_bytes: usize,
}

impl Invocation {
    /// One of which `left` is left. A missing or absurd time (an emulator's) counts as the function's whole timeout.
    pub(super) fn new(spec: &'static HandlerSpec, left: Option<Duration>, refs_bytes: usize) -> Self {
        let whole = Duration::from_secs(spec.function_timeout_s.into());
        let left = left.filter(|left| *left <= whole).unwrap_or(whole);
        Self { spec, deadline: Instant::now() + left, refs_bytes }
    }

    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The longest that an attempt which starts now may take.
    pub(super) fn longest_attempt(self) -> Duration {
        self.left().saturating_sub(FINISH_RESERVE)
    }

    /// The claim of a step whose wake-up was delivered.
    pub(super) fn claim_item(self, message: &Message) -> ClaimItem {
        ClaimItem {
            tenant_id: message.tenant_id.clone(),
            run_id: message.run_id,
            step_id: message.step_id,
            lease_s: whole_seconds(self.left()),
            refs_bytes: self.refs_bytes,
        }
    }

    /// What a finish that happens now may continue with.
    pub(super) fn continuation(self, call: Uuid) -> Continuation {
        Continuation {
            call,
            handler: self.spec.name,
            lease_s: whole_seconds(self.left()),
            timeout_s: whole_seconds(self.longest_attempt()),
            refs_bytes: self.refs_bytes,
        }
    }
}

/// Rounded down: nothing may be promised for a part of a second.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
