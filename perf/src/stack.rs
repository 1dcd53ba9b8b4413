//! `stack`: the sample plans on the local stack, through SQS and the functions, which are dev-profile builds.

use anyhow::Result;
use nofx::client::api::Api;
use nofx_local::checkout::Checkout;
use nofx_local::report;
use serde_json::json;

use crate::smoke::{PLANS, SmokeStack, run_plan};
use crate::stats::{self, Times, rounded};

/// Measured runs of each plan. An earlier run, which may install tools and start functions, is not measured.
const REPEATS: usize = 10;

pub async fn run(checkout: &Checkout) -> Result<()> {
    let stack = SmokeStack::find_or_start(checkout).await?;
    let result = measure(checkout, &stack.api).await;
    stack.stop(result.is_ok()).await;
    result
}

async fn measure(checkout: &Checkout, api: &Api) -> Result<()> {
    let (mut waits, mut continued) = (Times::default(), 0);
    for plan in &PLANS {
        report::line("stack", format_args!("{}, 1 warm-up run and {REPEATS} measured runs", plan.file));
        run_plan(api, checkout, plan).await?;
        let mut wall_times = Times::default();
        for _ in 0..REPEATS {
            let timeline = run_plan(api, checkout, plan).await?;
            wall_times.add(timeline.wall_time());
            for attempt in timeline.attempts() {
                match attempt.wait {
                    Some(wait) => waits.add(wait),
                    None => continued += 1,
                }
            }
        }
        stats::print(&json!({
            "bench": "stack",
            "plan": plan.file,
            "runs": REPEATS,
            "wall_p50_ms": rounded(wall_times.percentile_ms(50)),
            "wall_max_ms": rounded(wall_times.percentile_ms(100)),
        }));
    }
    stats::print(&json!({
        "bench": "stack",
        "claims_by_message": waits.count(),
        "claims_without_message": continued,
        "ready_to_claimed_p50_ms": rounded(waits.percentile_ms(50)),
        "ready_to_claimed_p99_ms": rounded(waits.percentile_ms(99)),
    }));
    Ok(())
}
