//! One request as the worker accounts for it: a start that reserves its money, and an end that settles it.

use std::time::Duration;

use shared::domain::model_call::{Because, CallFault, Charge, Cooldown};
use shared::domain::price::PriceRef;
use shared::domain::{CallEnd, CallStart, MicroUsd, Permit, TokenUsage};
use shared::error::Error;
use shared::worker::ModelCalls;
use tokio::time::Instant;
use uuid::Uuid;

use crate::ask::Answer;
use crate::fault::{Fault, Scope, Spent};
use crate::plan::Attempt;

/// A request that was started. It must be ended, whatever happens to it.
pub(crate) struct Call<'a> {
    calls: &'a ModelCalls,
    id: Uuid,
    price: Option<PriceRef>,
    started: Instant,
}

/// The exact size of a request: what is sent, and how many tokens may come back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub body_bytes: usize,
    pub max_output_tokens: u32,
}

impl<'a> Call<'a> {
    /// Reserves the most that the request can cost. `Err` is why it may not be sent.
    pub(crate) async fn start(
        calls: &'a ModelCalls,
        attempt: &Attempt,
        size: Size,
        limit: Duration,
        because: Because,
    ) -> Result<Self, Refusal> {
        let id = Uuid::now_v7();
        let price = attempt.price.clone();
        let start = CallStart {
            id,
            provider: attempt.provider.as_str().to_owned(),
            model: attempt.model.clone(),
            deployment: attempt.deployment.clone(),
            reserve: price.as_ref().map(|price| ceiling(price, size)),
            price: price.clone(),
            limit_ms: millis(limit),
            because,
        };
        match calls.start(start).await {
            Ok(Permit::Granted) => Ok(Self { calls, id, price, started: Instant::now() }),
            Ok(refused) => Err(Refusal::Refused(refused)),
            Err(error) => Err(Refusal::Unknown(error)),
        }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// How long it has taken.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Settles a request with a usable answer. The deployment works, and so does the model.
    pub(crate) async fn succeed(self, answer: &Answer) {
        let usage = answer.usage.is_reported().then_some(answer.usage);
        let end = CallEnd {
            model_served: answer.model_served.clone(),
            usable: true,
            recovered: true,
            ..self.end(Charge::of(self.price.as_ref(), usage.as_ref()), usage)
        };
        self.settle(end).await;
    }

    /// Settles a request without a usable answer.
    pub(crate) async fn fail(self, fault: &Fault, cooldown: Option<Duration>) {
        let (charge, usage) = match &fault.spent {
            Spent::Nothing => (Charge::Nothing, None),
            Spent::Unknown => (Charge::of(self.price.as_ref(), None), None),
            Spent::Usage(usage) => (Charge::of(self.price.as_ref(), Some(usage)), Some(**usage)),
        };
        let kind = fault.kind.as_str().to_owned();
        let cooldown = cooldown.map(|lasts| Cooldown {
            for_ms: millis(lasts),
            of_model: fault.scope != Scope::Key,
            kind: kind.clone(),
            reason: fault.reason.clone(),
        });
        let fault = CallFault { kind, reason: fault.reason.clone(), status: fault.status };
        let end = CallEnd { fault: Some(fault), cooldown, ..self.end(charge, usage) };
        self.settle(end).await;
    }

    fn end(&self, charge: Charge, usage: Option<TokenUsage>) -> CallEnd {
        CallEnd {
            id: self.id,
            usage,
            charge,
            model_served: None,
            usable: false,
            fault: None,
            duration_ms: millis(self.elapsed()),
            cooldown: None,
            recovered: false,
        }
    }

    /// If this fails, the sweeper charges what was reserved. The answer is paid for, so it counts anyway.
    async fn settle(&self, end: CallEnd) {
        if self.calls.end(end).await.is_err() {
            tracing::warn!(call = %self.id, "the request is not settled; the sweeper charges what was reserved");
        }
    }
}

/// Why a request may not be sent.
pub(crate) enum Refusal {
    Refused(Permit),
    /// Nobody knows whether the money was reserved.
    Unknown(Error),
}

fn ceiling(price: &PriceRef, size: Size) -> MicroUsd {
    price.price.ceiling(size.body_bytes, size.max_output_tokens)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
