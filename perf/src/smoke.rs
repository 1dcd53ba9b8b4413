//! Runs the sample plans on a local stack through its API, and reads their timelines.

use std::collections::HashMap;
use std::env;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use nofx::client::api::Api;
use nofx::client::gate;
use nofx::client::submission::{self, Submission};
use nofx_local::checkout::Checkout;
use nofx_local::stack::{Options, Stack};
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::node;
use nofx_local::{port, report};
use serde_json::Value;
use shared::domain::gate::Decision;
use shared::domain::{GateStatus, RunStatus, tool};
use shared::view::{Event, RunDetail};
use tokio::time::{sleep, timeout};

/// A sample plan that succeeds.
pub struct SmokePlan {
    pub file: &'static str,
    workspace: bool,
}

pub const PLANS: [SmokePlan; 3] = [
    SmokePlan { file: "gated-codegen.json", workspace: true },
    SmokePlan { file: "manual-deploy.json", workspace: false },
    SmokePlan { file: "db-write.json", workspace: false },
];

const RUN_TIMEOUT: Duration = Duration::from_mins(10);
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// The stack of `make dev` or at `NOFX_API_URL` if there is one, else a new one.
pub struct SmokeStack {
    pub api: Api,
    own: Option<(Stack, Throwaway)>,
}

impl SmokeStack {
    pub async fn find_or_start(checkout: &Checkout) -> Result<Self> {
        node::check().await?;
        let api = Api::from_env().await?;
        if env::var_os("NOFX_API_URL").is_some() || api.is_healthy().await {
            report::line("stack", format_args!("using the stack at {}", api.url("")));
            return Ok(Self { api, own: None });
        }
        let throwaway = Throwaway::make(checkout, "bench").await?;
        let http_port = port::any_free()?;
        let options = Options::throwaway(&throwaway, Some(http_port))?;
        let mut stack = Stack::new(checkout.clone(), options, throwaway.pid_file.clone());
        if let Err(error) = stack.start().await {
            stack.stop().await;
            throwaway.end(false);
            return Err(error);
        }
        Ok(Self { api: Api::at(&format!("http://127.0.0.1:{http_port}")), own: Some((stack, throwaway)) })
    }

    /// Stops the stack if this process started it. Keeps its logs unless `succeeded`.
    pub async fn stop(self, succeeded: bool) {
        if let Some((mut stack, throwaway)) = self.own {
            stack.stop().await;
            throwaway.end(succeeded);
        }
    }
}

/// The events of one run.
pub struct Timeline {
    events: Vec<Event>,
    /// The handler of each step, by the step's name.
    handlers: HashMap<String, &'static str>,
}

/// An attempt of a step.
pub struct Attempt {
    pub handler: &'static str,
    /// From ready to claimed, if a message started the attempt. `None` if the invocation of another step continued with
    /// this one: then both events are of one transaction and have the same time.
    pub wait: Option<Duration>,
    /// From claimed to finished.
    pub work: Duration,
}

impl Timeline {
    /// From the creation of the run to its end, by the database's clock.
    pub fn wall_time(&self) -> Duration {
        match (self.events.first(), self.events.last()) {
            (Some(first), Some(last)) => at(last).saturating_sub(at(first)),
            _ => Duration::ZERO,
        }
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        let (mut ready, mut running, mut attempts) = (HashMap::new(), HashMap::new(), Vec::new());
        for event in &self.events {
            let (Some(step), at) = (&event.step, at(event)) else { continue };
            match event.kind.as_str() {
                "step.ready" | "step.worker_lost" => drop(ready.insert(step, at)),
                "step.started" => {
                    let wait = ready.remove(step).map(|since| at.saturating_sub(since));
                    running.insert(step, (at, wait.filter(|wait| !wait.is_zero())));
                }
                "step.succeeded" | "step.failed" | "step.blocked" | "step.retrying" => {
                    if let (Some((since, wait)), Some(handler)) = (running.remove(step), self.handlers.get(step)) {
                        attempts.push(Attempt { handler, wait, work: at.saturating_sub(since) });
                    }
                    if event.kind == "step.retrying" {
                        ready.insert(step, at + delay(event));
                    }
                }
                _ => {}
            }
        }
        attempts
    }

    pub fn count(&self, kind: &str) -> u64 {
        self.events.iter().filter(|event| event.kind == kind).map(|_| 1).sum()
    }
}

/// Runs a plan to its end. Approves pending gates at once.
pub async fn run_plan(api: &Api, checkout: &Checkout, plan: &SmokePlan) -> Result<Timeline> {
    let examples = checkout.root().join("examples");
    let (file, workspace) = (examples.join(plan.file), examples.join("workspace"));
    let workspace = plan.workspace.then_some(workspace.as_path());
    let created =
        submission::create(api, &Submission { file: &file, workspace, overlay: None, base: None, actor: None }).await?;
    let id = created.id.to_string();
    let detail = timeout(RUN_TIMEOUT, run_to_end(api, &id)).await;
    let detail = detail.with_context(|| format!("{} did not end", plan.file))??;
    if detail.run.status != RunStatus::Succeeded {
        bail!("{} {}", plan.file, detail.run.status);
    }
    let handler = |tool: &str| tool::handler_for(tool).map(|handler| handler.name).map_err(anyhow::Error::msg);
    let handlers = detail.steps.into_iter().map(|step| Ok((step.name, handler(&step.tool)?))).collect::<Result<_>>()?;
    Ok(Timeline { events: api.timeline(&id, 0).await?, handlers })
}

async fn run_to_end(api: &Api, run_id: &str) -> Result<RunDetail> {
    loop {
        let detail = api.run(run_id).await?;
        match detail.run.status {
            status if status.is_terminal() => return Ok(detail),
            RunStatus::Blocked => {
                for gate in api.gates(run_id).await?.iter().filter(|gate| gate.status == GateStatus::Pending) {
                    gate::decide(api, Decision::Approve, &gate.id.to_string(), Some("bench"), None, None).await?;
                }
            }
            _ => {}
        }
        sleep(POLL_PERIOD).await;
    }
}

/// The delay of a retry.
fn delay(event: &Event) -> Duration {
    let payload: Value = serde_json::from_str(event.payload.get()).unwrap_or_default();
    Duration::from_millis(payload["delay_ms"].as_u64().unwrap_or_default())
}

/// The time of an event since 1970.
fn at(event: &Event) -> Duration {
    let at = DateTime::from_str(&event.timestamp.0, DateTimeFormat::DateTimeWithOffset);
    let nanos = at.ok().and_then(|at| u64::try_from(at.as_nanos()).ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
