//! The remaining time of an invocation.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::db::step::{ClaimItem, Continuation};
use crate::domain::tool::HandlerSpec;
use crate::queue::Message;

/// Time that is reserved to record the end of an attempt.
const FINISH_RESERVE: Duration = Duration::from_secs(3);

/// An invocation, its deadline, and what fits into the rest of it.
#[derive(Debug, Clone, Copy)]
pub struct Invocation {
    pub(super) spec: &'static HandlerSpec,
    deadline: Instant,
    /// Maximum size of the values of a step's references, in bytes.
    refs_bytes: usize,
    /// Whether a finish may claim the next steps.
    continues: bool,
}

impl Invocation {
    /// `left` is the rest of the invocation. If it is missing or longer than the function's timeout, the whole timeout
    /// counts.
    pub(super) fn new(spec: &'static HandlerSpec, left: Option<Duration>, refs_bytes: usize) -> Self {
        let whole = Duration::from_secs(spec.function_timeout_s.into());
        let left = left.filter(|left| *left <= whole).unwrap_or(whole);
        Self { spec, deadline: Instant::now() + left, refs_bytes, continues: true }
    }

    /// Ends with the steps of its messages: no finish claims further ones.
    pub(super) fn without_continuation(self) -> Self {
        Self { continues: false, ..self }
    }

    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Longest time that an attempt which starts now may take.
    pub(super) fn longest_attempt(self) -> Duration {
        self.left().saturating_sub(FINISH_RESERVE)
    }

    /// The claim of a step, from its wake-up.
    pub(super) fn claim_item(self, message: &Message) -> ClaimItem {
        ClaimItem {
            tenant_id: message.tenant_id.clone(),
            run_id: message.run_id,
            step_id: message.step_id,
            lease_s: whole_seconds(self.left()),
            refs_bytes: self.refs_bytes,
            terms: self.spec.needs_terms(),
        }
    }

    /// What a finish may claim if it happens now.
    pub(super) fn continuation(self, call: Uuid) -> Continuation {
        Continuation {
            call,
            handler: self.spec.name,
            lease_s: whole_seconds(self.left()),
            // No step has a timeout of zero.
            timeout_s: if self.continues { whole_seconds(self.longest_attempt()) } else { 0 },
            refs_bytes: self.refs_bytes,
            terms: self.spec.needs_terms(),
        }
    }
}

/// Rounded down, so that nothing exceeds the time that is left.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
