//! The claim of a batch.

use tracing::{debug, warn};

use super::Invocation;
use super::delivery::Delivery;
use super::span;
use crate::context::Ctx;
use crate::db::step::{self, Claimed, Known, Skipped};
use crate::domain::StepId;
use crate::error::Error;
use crate::telemetry;

/// When a step could not be claimed, its message comes back after this long instead of the queue's visibility timeout.
const RELEASE_AFTER_S: i32 = 5;

/// What a claim gave.
#[derive(Default)]
pub(super) struct Claim {
    pub claimed: Vec<Claimed>,
    /// Steps that could not even be asked for: their messages come back.
    pub unclaimed: Vec<StepId>,
}

/// Claims the steps of a batch in one round trip. A refused batch is claimed step by step: what is wrong with one step must
/// not keep its neighbours. Stale, early and repeated deliveries find nothing to claim.
pub(super) async fn claim(ctx: &Ctx, deliveries: &[Delivery], invocation: Invocation) -> Claim {
    let mut claim = Claim::default();
    match claim_some(ctx, deliveries, invocation).await {
        Ok(claimed) => claim.claimed = claimed,
        Err(error @ Error::Unavailable { .. }) => {
            telemetry::report(&error, "claim steps");
            for delivery in deliveries {
                claim.give_back(ctx, delivery, invocation).await;
            }
        }
        Err(_) => {
            for delivery in deliveries {
                match claim_some(ctx, std::slice::from_ref(delivery), invocation).await {
                    Ok(claimed) => claim.claimed.extend(claimed),
                    Err(error) => {
                        let span = span::of_wakeup(&delivery.message, invocation.spec);
                        span.in_scope(|| telemetry::report(&error, "claim a step"));
                        claim.give_back(ctx, delivery, invocation).await;
                    }
                }
            }
        }
    }
    claim
}

async fn claim_some(ctx: &Ctx, deliveries: &[Delivery], invocation: Invocation) -> Result<Vec<Claimed>, Error> {
    let items: Vec<_> = deliveries.iter().map(|delivery| invocation.claim_item(&delivery.message)).collect();
    let claims = step::steps_claim(&ctx.db, &items).await?;
    for skipped in &claims.skipped {
        let woken = deliveries.iter().find(|delivery| delivery.message.step_id == skipped.step_id);
        if let Some(delivery) = woken {
            span::of_wakeup(&delivery.message, invocation.spec).in_scope(|| note_skipped(skipped));
        }
    }
    Ok(claims.claimed)
}

fn note_skipped(skipped: &Skipped) {
    match skipped.status {
        Known::Unknown => warn!("a wake-up for no step of its tenant: dropped"),
        Known::Is(status) => debug!(%status, "nothing to claim"),
    }
}

impl Claim {
    async fn give_back(&mut self, ctx: &Ctx, delivery: &Delivery, invocation: Invocation) {
        self.unclaimed.push(delivery.message.step_id);
        let Some(receipt) = delivery.receipt_handle.as_deref() else { return };
        if let Err(error) = ctx.queue.release(invocation.spec.name, receipt, RELEASE_AFTER_S).await {
            let span = span::of_wakeup(&delivery.message, invocation.spec);
            span.in_scope(|| warn!(%error, "the message comes back only after its visibility timeout"));
        }
    }
}
