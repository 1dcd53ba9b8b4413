//! `stack`: the sample plans on the local stack, with SQS and functions. The functions are built with the dev profile.

use anyhow::Result;
use nofx::client::api::Api;
use nofx_local::checkout::Checkout;
use nofx_local::report;
use serde_json::json;

use crate::figures::{self, Times, rounded};
use crate::smoke::{PLANS, SmokeStack, run_plan};

/// Measured runs of each plan. A first run, which may install tools and start functions, is not measured.
const REPEATS: usize = 10;

pub async fn run(checkout: &Checkout) -> Result<()> {
    let stack = SmokeStack::find_or_start(checkout).await?;
    let done = measure(checkout, &stack.api).await;
    stack.stop(done.is_ok()).await;
    done
}

async fn measure(checkout: &Checkout, api: &Api) -> Result<()> {
    let (mut waits, mut went_on) = (Times::default(), 0);
    for plan in &PLANS {
        report::line("stack", format_args!("{}, once and {REPEATS} times", plan.file));
        run_plan(api, checkout, plan).await?;
        let mut walls = Times::default();
        for _ in 0..REPEATS {
            let timeline = run_plan(api, checkout, plan).await?;
            walls.add(timeline.wall());
            for attempt in timeline.attempts() {
                match attempt.waited {
                    Some(waited) => waits.add(waited),
                    None => went_on += 1,
                }
            }
        }
        figures::print(&json!({
            "bench": "stack",
            "plan": plan.file,
            "runs": REPEATS,
            "wall_p50_ms": rounded(walls.percentile_ms(50)),
            "wall_max_ms": rounded(walls.percentile_ms(100)),
        }));
    }
    figures::print(&json!({
        "bench": "stack",
        "claims_by_message": waits.count(),
        "claims_without_message": went_on,
        "ready_to_claimed_p50_ms": rounded(waits.percentile_ms(50)),
        "ready_to_claimed_p99_ms": rounded(waits.percentile_ms(99)),
    }));
    Ok(())
}
