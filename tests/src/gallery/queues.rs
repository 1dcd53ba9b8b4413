//! The pages again with queues of the emulator, and a sweeper that has just run.

use aws_sdk_sqs::Client;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;
use shared::context::Ctx;
use shared::db::sweep::{SweepRecord, sweep_record};
use shared::domain::{RunId, TenantId, tool};
use shared::queue::{Queue, WakeUp};

use super::site::Site;
use crate::Lab;
use crate::delivery::body;
use crate::lab::sdk;

/// The prefix of the pages of a deployment without problems, and of one with dead letters.
pub const HEALTHY: &str = "/healthy";
pub const DEAD: &str = "/dead";

/// A context whose queues exist and are empty.
pub async fn context(lab: &Lab, tenant: &TenantId, name: &str) -> Ctx {
    let client = Client::new(&sdk().await);
    let mut ctx = lab.another_ctx().await;
    ctx.config.tenant = tenant.clone();
    let prefix = prefix(lab, name);
    for handler in tool::HANDLERS {
        for queue in [handler.queue(&prefix), handler.dead_letter_queue(&prefix)] {
            client.create_queue().queue_name(queue).send().await.expect("a queue");
        }
    }
    ctx.queue = Queue::sqs(client, &prefix);
    ctx
}

fn prefix(lab: &Lab, name: &str) -> String {
    format!("{}{}-", lab.ctx.config.sqs_prefix, name.trim_start_matches('/'))
}

/// The sweeper of a deployment runs every minute. Here it would wake the steps that wait, so only its record is new.
pub async fn swept(State(ctx): State<Ctx>, request: Request, next: Next) -> Response {
    let report = json!({ "runs_ended": 0, "gates_expired": 0, "leases_ended": 0, "wakeups_sent": 0 });
    let record = SweepRecord { tenant_id: &ctx.config.tenant, duration_ms: 38, failed: false, report: &report };
    sweep_record(&ctx.db, &record).await.expect("a record");
    next.run(request).await
}

/// Two wake-ups that nobody could deliver, and a message that is none.
pub async fn put_dead(site: &Site, run: RunId, steps: [&str; 2]) {
    let client = Client::new(&sdk().await);
    let name = tool::dead_letter_queue_name(&prefix(&site.lab, DEAD), "echo");
    let url = client.get_queue_url().queue_name(name).send().await.expect("a queue").queue_url.expect("its address");
    let mut bodies = vec!["{\"detail\": \"not a wake-up\"}".to_owned()];
    for step in steps {
        let (tenant_id, step_id) = (site.lab.tenant.clone(), site.lab.step(run, step).await);
        let wakeup = WakeUp { tenant_id, run_id: run, step_id, handler: "echo".into(), delay_ms: 0, traceparent: None };
        bodies.push(body(&wakeup));
    }
    for body in bodies {
        client.send_message().queue_url(&url).message_body(body).send().await.expect("a message");
    }
}
