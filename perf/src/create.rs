//! `create`: `POST /runs` through the function's router, with plans of several sizes.

use std::time::Instant;

use anyhow::{Result, ensure};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use nofx_local::report;
use serde_json::json;
use tower::ServiceExt;

use crate::lambda;
use crate::load::chain;
use crate::server::Server;
use crate::stats::{self, Times, rounded};

/// Number of steps in the plan, and number of requests.
const PLANS: [(u64, usize); 3] = [(1, 500), (10, 500), (1_000, 50)];
const WARM_UP: usize = 10;

pub async fn run(server: &Server) -> Result<()> {
    let database = server.create_database().await?;
    // No worker runs here, so drain the wake-ups below.
    let (queue, event_source) = lambda::queue();
    let router = api::router(lambda::context(&database.url, &queue, lambda::WORKER_POOL_SIZE)?)?;
    for (steps, count) in PLANS {
        report::line("create", format_args!("{count} plans of {steps} steps"));
        let body = chain(steps).to_string();
        let mut times = Times::default();
        for index in 0..WARM_UP + count {
            let request = Request::post("/runs").header("host", "127.0.0.1").header("content-type", "application/json");
            let request = request.body(Body::from(body.clone()))?;
            let start = Instant::now();
            let response = router.clone().oneshot(request).await?;
            if index >= WARM_UP {
                times.add(start.elapsed());
            }
            ensure!(response.status() == StatusCode::CREATED, "POST /runs answered {}", response.status());
            event_source.receive().await;
        }
        stats::print(&json!({
            "bench": "create",
            "steps": steps,
            "posts": times.count(),
            "p50_ms": rounded(times.percentile_ms(50)),
            "p99_ms": rounded(times.percentile_ms(99)),
        }));
    }
    drop(router);
    server.drop_database(database).await
}
