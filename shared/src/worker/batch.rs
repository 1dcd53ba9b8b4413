//! A batch, from its event to its response.

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
use crate::flow::finish_step::{End, Recorded, record_ends};
use crate::flow::wake;

/// The loop of one handler.
pub struct Worker<E> {
    ctx: Ctx,
    spec: &'static HandlerSpec,
    executor: Arc<E>,
}

impl<E> Clone for Worker<E> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx.clone(), spec: self.spec, executor: self.executor.clone() }
    }
}

impl<E: Executor> Worker<E> {
    pub fn new(ctx: Ctx, spec: &'static HandlerSpec, executor: E) -> Self {
        Self { ctx, spec, executor: Arc::new(executor) }
    }

    /// Works on one batch. `left` is the rest of the invocation; a missing or absurd one (an emulator's) counts as the
    /// function's whole timeout.
    pub async fn handle_batch(&self, event: SqsEvent, left: Option<Duration>) -> SqsBatchResponse {
        let invocation = Invocation::new(self.spec, left, self.ctx.config.limits.resolved_bytes);
        let (deliveries, unreadable) = delivery::read(event);
        let mut failed = Vec::new();
        if !deliveries.is_empty() {
            let Claim { claimed, unclaimed } = claim(&self.ctx, &deliveries, invocation).await;
            failed.extend(unclaimed);
            failed.extend(Batch::new(self, invocation).run(claimed).await);
        }
        // A step that the invocation continued with has no delivery: the sweeper recovers it after its lease.
        delivery::response(&deliveries, unreadable, &failed)
    }
}

/// The claimed steps of an invocation, and what they lead to. One task polls all of it: attempts run side by side, at most
/// one record of their ends is under way, and what ends meanwhile shares the next one.
struct Batch<'a, E> {
    worker: &'a Worker<E>,
    invocation: Invocation,
    under_way: FuturesUnordered<BoxFuture<'a, Event>>,
    /// A record of ends is under way.
    recording: bool,
    /// Steps to start: those of the batch, and those that a finish claimed.
    claimed: Vec<Claimed>,
    /// Wake-ups to send.
    ready: Vec<WakeUp>,
    /// Ends to record.
    ended: Vec<End>,
    /// Steps whose end could not be recorded.
    unrecorded: Vec<StepId>,
}

/// What a batch waits for.
enum Event {
    Ended(Ended, Span),
    Recorded(Recorded),
    Woken,
}

impl<'a, E: Executor> Batch<'a, E> {
    fn new(worker: &'a Worker<E>, invocation: Invocation) -> Self {
        Self {
            worker,
            invocation,
            under_way: FuturesUnordered::new(),
            recording: false,
            claimed: Vec::new(),
            ready: Vec::new(),
            ended: Vec::new(),
            unrecorded: Vec::new(),
        }
    }

    /// Works until nothing is under way; gives the steps whose end could not be recorded.
    async fn run(mut self, claimed: Vec<Claimed>) -> Vec<StepId> {
        self.claimed = claimed;
        loop {
            // Leases run from the claim: attempts start before anybody else is woken.
            self.start_attempts();
            self.send_wakeups();
            self.record_ends();
            let Some(event) = self.under_way.next().await else { return self.unrecorded };
            self.take(event);
            // What ends at the same moment shares a commit.
            while let Some(Some(event)) = self.under_way.next().now_or_never() {
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
            self.under_way.push(work.map(|ended| Event::Ended(ended, span)).boxed());
        }
    }

    fn send_wakeups(&mut self) {
        if !self.ready.is_empty() {
            let woken = wake(&self.worker.ctx.queue, mem::take(&mut self.ready));
            self.under_way.push(woken.map(|()| Event::Woken).boxed());
        }
    }

    fn record_ends(&mut self) {
        if !self.recording && !self.ended.is_empty() {
            self.recording = true;
            let (ended, invocation) = (mem::take(&mut self.ended), self.invocation);
            let recorded = record_ends(&self.worker.ctx, ended, move |call| invocation.continuation(call));
            self.under_way.push(recorded.map(Event::Recorded).boxed());
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ended(Ended::ToRecord(item), span) => self.ended.push(End { item: *item, span }),
            Event::Ended(Ended::Recorded(recorded), _) => self.take_recorded(recorded),
            Event::Recorded(recorded) => {
                self.recording = false;
                self.take_recorded(recorded);
            }
            Event::Woken => {}
        }
    }

    fn take_recorded(&mut self, recorded: Recorded) {
        self.claimed.extend(recorded.claimed);
        self.ready.extend(recorded.ready);
        self.unrecorded.extend(recorded.unrecorded);
    }
}
