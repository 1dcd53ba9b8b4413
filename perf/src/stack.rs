//! `stack`: the sample plans on the local stack that is running, SQS and functions included.

use anyhow::Result;
use nofx::api::Api;
use nofx::checkout::Checkout;
use nofx::report;
use serde_json::json;

use crate::figures::{self, Times, rounded};
use crate::smoke::{PLANS, api, run_plan};

/// The first run of a plan may install tools and start functions; it is not counted.
const REPEATS: usize = 3;

pub async fn run(checkout: &Checkout) -> Result<()> {
    let api: Api = api().await?;
    let mut waits = Times::default();
    for plan in &PLANS {
        report::line("stack", format_args!("{}, once and {REPEATS} times", plan.file));
        run_plan(&api, checkout, plan).await?;
        let mut walls = Times::default();
        for _ in 0..REPEATS {
            let timeline = run_plan(&api, checkout, plan).await?;
            walls.add(timeline.wall());
            waits.extend(timeline.ready_to_claimed());
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
        "claims": waits.count(),
        "ready_to_claimed_p50_ms": rounded(waits.percentile_ms(50)),
        "ready_to_claimed_p99_ms": rounded(waits.percentile_ms(99)),
    }));
    Ok(())
}
