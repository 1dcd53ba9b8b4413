//! Claims the steps of a batch.

use tracing::{debug, warn};

use super::Invocation;
use super::delivery::Delivery;
use super::span;
use crate::context::Ctx;
use crate::db::step::{self, Claimed, ReportedStatus, Skipped};
use crate::domain::StepId;
use crate::error::Error;
use crate::telemetry;

/// The message of a step that could not be claimed becomes visible again after this time, not after the queue's
/// visibility timeout.
const RELEASE_AFTER_S: i32 = 5;

/// Result of claiming a batch.
#[derive(Default)]
pub(super) struct Claim {
    pub claimed: Vec<Claimed>,
    /// Steps whose claim failed. Their messages return to the queue.
    pub unclaimed: Vec<StepId>,
}

/// Claims the steps of a batch in one round trip. If the database refuses the batch, each step is claimed by itself, so
/// that one bad step does not affect the others. Stale, early and repeated deliveries find nothing to claim.
pub(super) async fn claim(ctx: &Ctx, deliveries: &[Delivery], invocation: Invocation) -> Claim {
    let mut claim = Claim::default();
    match claim_deliveries(ctx, deliveries, invocation).await {
        Ok(claimed) => claim.claimed = claimed,
        Err(error @ Error::Unavailable { .. }) => {
            telemetry::report(&error, "claim steps");
            for delivery in deliveries {
                claim.release(ctx, delivery, invocation).await;
            }
        }
        Err(_) => {
            for delivery in deliveries {
                match claim_deliveries(ctx, std::slice::from_ref(delivery), invocation).await {
                    Ok(claimed) => claim.claimed.extend(claimed),
                    Err(error) => {
                        let span = span::of_wakeup(&delivery.message, invocation.spec);
                        span.in_scope(|| telemetry::report(&error, "claim a step"));
                        claim.release(ctx, delivery, invocation).await;
                    }
                }
            }
        }
    }
    claim
}

async fn claim_deliveries(ctx: &Ctx, deliveries: &[Delivery], invocation: Invocation) -> Result<Vec<Claimed>, Error> {
    let items: Vec<_> = deliveries.iter().map(|delivery| invocation.claim_item(&delivery.message)).collect();
    let claims = step::steps_claim(&ctx.db, &items).await?;
    for skipped in &claims.skipped {
        let woken = deliveries.iter().find(|delivery| delivery.message.step_id == skipped.step_id);
        if let Some(delivery) = woken {
            span::of_wakeup(&delivery.message, invocation.spec).in_scope(|| log_skipped(skipped));
        }
    }
    Ok(claims.claimed)
}

fn log_skipped(skipped: &Skipped) {
    match skipped.status {
        ReportedStatus::Unknown => warn!("dropped a wake-up for a step that does not exist"),
        ReportedStatus::Known(status) => debug!(%status, "nothing to claim"),
    }
}

impl Claim {
    async fn release(&mut self, ctx: &Ctx, delivery: &Delivery, invocation: Invocation) {
        self.unclaimed.push(delivery.message.step_id);
        let Some(receipt) = delivery.receipt_handle.as_deref() else { return };
        if let Err(error) = ctx.queue.release(invocation.spec.name, receipt, RELEASE_AFTER_S).await {
            let span = span::of_wakeup(&delivery.message, invocation.spec);
            span.in_scope(|| warn!(%error, "the message returns only after its visibility timeout"));
        }
    }
}
