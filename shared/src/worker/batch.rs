//! A batch, from event to response.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tracing::Span;

use super::attempt::attempt;
use super::claim::{Claim, claim};
use super::delivery;
use super::execute::{Ended, Executor};
use super::{Invocation, span};
use crate::context::Ctx;
use crate::db::step::Claimed;
use crate::domain::tool::HandlerSpec;
use crate::domain::{StepId, WakeUp};
use crate::flow::finish_step::{AttemptEnd, Recorded, record_ends};
use crate::flow::wake;

/// Works on batches of one handler.
pub struct Worker<E> {
    ctx: Ctx,
    spec: &'static HandlerSpec,
    executor: Arc<E>,
    continues: bool,
}

impl<E> Clone for Worker<E> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx.clone(), spec: self.spec, executor: self.executor.clone(), continues: self.continues }
    }
}

impl<E: Executor> Worker<E> {
    pub fn new(ctx: Ctx, spec: &'static HandlerSpec, executor: E) -> Self {
        Self { ctx, spec, executor: Arc::new(executor), continues: true }
    }

    /// Works on the steps of its messages only, so that whoever polls can stop between two steps.
    #[must_use]
    pub fn without_continuation(self) -> Self {
        Self { continues: false, ..self }
    }

    /// Works on one batch. `left` is the rest of the invocation. If it is missing or longer than the function's
    /// timeout, as in some emulators, the whole timeout counts.
    pub async fn handle_batch(&self, event: SqsEvent, left: Option<Duration>) -> SqsBatchResponse {
        let invocation = Invocation::new(self.spec, left, self.ctx.config.limits.resolved_bytes);
        let invocation = if self.continues { invocation } else { invocation.without_continuation() };
        let (deliveries, unreadable) = delivery::read(event);
        let mut failed = Vec::new();
        if !deliveries.is_empty() {
            let Claim { claimed, unclaimed } = claim(&self.ctx, &deliveries, invocation).await;
            failed.extend(unclaimed);
            failed.extend(Batch::new(self, invocation).run(claimed).await);
        }
        // A step that the invocation continued with has no delivery. If it was not recorded, the sweeper recovers it.
        delivery::response(&deliveries, unreadable, &failed)
    }
}

/// The work of an invocation. One task polls all of it. Attempts run concurrently. At most one record of their ends is
/// in flight; attempts that end meanwhile share the next one.
struct Batch<'a, E> {
    worker: &'a Worker<E>,
    invocation: Invocation,
    in_flight: FuturesUnordered<BoxFuture<'a, Event>>,
    /// Whether a record of ends is in flight.
    recording: bool,
    /// Steps to start: those of the batch, and those that a finish has claimed.
    claimed: Vec<Claimed>,
    /// Wake-ups to send.
    ready: Vec<WakeUp>,
    /// Ends to record.
    ended: Vec<AttemptEnd>,
    /// Steps whose end could not be recorded.
    unrecorded: Vec<StepId>,
}

/// What can happen in a batch.
enum Event {
    Ended(Ended, Span),
    Recorded(Recorded),
    WakeUpsSent,
}

impl<'a, E: Executor> Batch<'a, E> {
    fn new(worker: &'a Worker<E>, invocation: Invocation) -> Self {
        Self {
            worker,
            invocation,
            in_flight: FuturesUnordered::new(),
            recording: false,
            claimed: Vec::new(),
            ready: Vec::new(),
            ended: Vec::new(),
            unrecorded: Vec::new(),
        }
    }

    /// Runs until nothing is in flight. Returns the steps whose end could not be recorded.
    async fn run(mut self, claimed: Vec<Claimed>) -> Vec<StepId> {
        self.claimed = claimed;
        loop {
            // Leases run from the claim, so attempts start before wake-ups are sent.
            self.start_attempts();
            self.send_wakeups();
            self.record_ends();
            let Some(event) = self.in_flight.next().await else { return self.unrecorded };
            self.take(event);
            // Attempts that end at the same moment share a commit.
            while let Some(Some(event)) = self.in_flight.next().now_or_never() {
                self.take(event);
            }
        }
    }

    fn start_attempts(&mut self) {
        let Worker { ctx, executor, .. } = self.worker;
        let invocation = self.invocation;
        for claimed in self.claimed.drain(..) {
            let span = span::of_attempt(&claimed);
            let work = attempt(ctx, executor.as_ref(), invocation, claimed, span.clone());
            self.in_flight.push(work.map(|ended| Event::Ended(ended, span)).boxed());
        }
    }

    fn send_wakeups(&mut self) {
        if !self.ready.is_empty() {
            let sent = wake(&self.worker.ctx.queue, mem::take(&mut self.ready));
            self.in_flight.push(sent.map(|()| Event::WakeUpsSent).boxed());
        }
    }

    fn record_ends(&mut self) {
        if !self.recording && !self.ended.is_empty() {
            self.recording = true;
            let (ended, invocation) = (mem::take(&mut self.ended), self.invocation);
            let recorded = record_ends(&self.worker.ctx, ended, move |call| invocation.continuation(call));
            self.in_flight.push(recorded.map(Event::Recorded).boxed());
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ended(Ended::ToRecord(item), span) => self.ended.push(AttemptEnd { item: *item, span }),
            Event::Ended(Ended::Recorded(recorded), _) => self.take_recorded(recorded),
            Event::Recorded(recorded) => {
                self.recording = false;
                self.take_recorded(recorded);
            }
            Event::WakeUpsSent => {}
        }
    }

    fn take_recorded(&mut self, recorded: Recorded) {
        self.claimed.extend(recorded.claimed);
        self.ready.extend(recorded.ready);
        self.unrecorded.extend(recorded.unrecorded);
    }
}
