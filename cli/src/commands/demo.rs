//! `nofx demo`: runs the sample plans, checks how each ends, and verifies the proof of the last one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nofx_local::checkout::Checkout;
use nofx_local::port;
use nofx_local::process::signals::Signals;
use nofx_local::report::{self, printable};
use nofx_local::tools::node;
use shared::domain::gate::Decision;
use shared::domain::{GateStatus, RunId, RunStatus, StepStatus};
use shared::view::{RunDetail, SigningKeys};
use tokio::time::timeout;

use crate::client::api::Api;
use crate::client::gate;
use crate::client::keyring::{self, Keyring};
use crate::client::submission::{self, Submission};
use crate::commands::artifacts::size;
use crate::commands::dev::{self, DevStack};
use crate::commands::watch::follow;
use crate::commands::{proof, verify_proof};
use crate::output::color::command;
use crate::output::{self, count, state};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Port of the local stack; if none runs there, the demo starts one
    #[arg(long, default_value_t = dev::DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

/// The first time, gates install a TypeScript toolchain.
const PLAN_LIMIT: Duration = Duration::from_mins(15);

/// How long to wait for a seal: several rounds of the sweeper.
const SEAL_LIMIT: Duration = Duration::from_secs(150);

/// A sample plan and its expected end.
struct Sample {
    title: &'static str,
    file: &'static str,
    workspace: bool,
    overlay: Option<&'static str>,
    /// The step that must fail. Without one, the plan must succeed.
    fails_at: Option<&'static str>,
}

const SAMPLES: [Sample; 7] = [
    Sample {
        title: "gated codegen: text that is written only after three gates passed",
        file: "gated-codegen.json",
        workspace: true,
        overlay: None,
        fails_at: None,
    },
    Sample {
        title: "manual deploy: waits for an approval",
        file: "manual-deploy.json",
        workspace: false,
        overlay: None,
        fails_at: None,
    },
    Sample {
        title: "database write: only what a rule allows",
        file: "db-write.json",
        workspace: false,
        overlay: None,
        fails_at: None,
    },
    Sample {
        title: "lint failure: the gate stops the rest",
        file: "lint-failure.json",
        workspace: true,
        overlay: Some("overlay-lint-failure"),
        fails_at: Some("lint"),
    },
    Sample {
        title: "code of a step, first attempt: the gates judge what the step wrote, and its tests leave a branch out",
        file: "code-attempt.yaml",
        workspace: true,
        overlay: None,
        fails_at: Some("unit"),
    },
    Sample {
        title: "code of a step, mended: a patch adds the missing test, and the plan goes on",
        file: "code-mended.yaml",
        workspace: true,
        overlay: None,
        fails_at: None,
    },
    Sample {
        title: "code of a model, repaired: the gate's evidence goes back to the model, which answers again",
        file: "code-repaired.yaml",
        workspace: true,
        overlay: None,
        fails_at: None,
    },
];

/// Runs the samples on the running local stack, or starts one.
pub async fn run(checkout: &Checkout, args: &Args) -> Result<()> {
    let port = args.port;
    node::check().await?;
    let api = Api::at(&format!("http://127.0.0.1:{port}"));
    let mut signals = Signals::listen()?;
    let interrupted = || anyhow::anyhow!("interrupted");
    let healthy = !port::is_free(port) && api.is_healthy().await;
    if healthy {
        report::line("demo", "using the running local stack");
        return tokio::select! {
            done = run_samples(&api, &api, checkout) => next_steps(&api, port, true, done?.as_deref()),
            _ = signals.next() => Err(interrupted()),
        };
    }
    let mut stack = DevStack::prepare(checkout, &dev::Args::on_port(port)).await?;
    let done = tokio::select! {
        done = async {
            stack.start(port).await?;
            run_samples(&api, &api, checkout).await
        } => done,
        _ = signals.next() => Err(interrupted()),
    };
    println!();
    report::line("stop", "stopping the stack");
    stack.stop(&mut signals).await;
    next_steps(&api, port, false, done?.as_deref())
}

/// Runs the samples as one caller, decides their gates as another, and checks how each ends. Returns one that failed as it
/// should.
pub async fn run_samples(api: &Api, decider: &Api, checkout: &Checkout) -> Result<Option<String>> {
    let (mut problems, mut failed, mut succeeded) = (Vec::new(), None, None);
    for sample in &SAMPLES {
        println!("\n{}", sample.title);
        let problem = match timeout(PLAN_LIMIT, run_sample(api, decider, checkout, sample)).await {
            Ok(Ok(detail)) => {
                print_result(&detail)?;
                match detail.run.status {
                    RunStatus::Failed => {
                        failed.get_or_insert(detail.run.id.to_string());
                    }
                    RunStatus::Succeeded => succeeded = Some(detail.run.id),
                    _ => {}
                }
                mismatch(sample, &detail)
            }
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("did not end within {} minutes", PLAN_LIMIT.as_secs() / 60)),
        };
        if let Some(problem) = problem {
            println!("  not as expected: {problem}");
            problems.push(format!("{}: {problem}", sample.file));
        }
    }
    if let Some(run) = succeeded {
        println!("\nthe proof of the last run, verified with public keys alone");
        if let Err(error) = prove(api, checkout, run).await {
            println!("  not as expected: {error:#}");
            problems.push(format!("its proof: {error:#}"));
        }
    }
    if problems.is_empty() {
        println!("\n{} all {} plans ended as expected", state::run(RunStatus::Succeeded).symbol, SAMPLES.len());
        return Ok(failed);
    }
    bail!("{} of {} plans did not end as expected: {}", problems.len(), SAMPLES.len(), problems.join("; "));
}

async fn run_sample(api: &Api, decider: &Api, checkout: &Checkout, sample: &Sample) -> Result<RunDetail> {
    let examples = checkout.root().join("examples");
    let file = examples.join(sample.file);
    let workspace: Option<PathBuf> = sample.workspace.then(|| examples.join("workspace"));
    let overlay = sample.overlay.map(|overlay| examples.join(overlay));
    let submission = Submission {
        file: &file,
        workspace: workspace.as_deref(),
        overlay: overlay.as_deref(),
        base: None,
        actor: None,
    };
    let created = submission::create(api, &submission).await?;
    let id = created.id.to_string();
    println!("  run {id}  {}", api.url(&format!("/ui/runs/{id}")));
    follow(api, created.id, async |_| approve_all(decider, &id).await).await
}

/// Saves the proof of a run as `nofx proof` does, and verifies it as `nofx verify` does.
async fn prove(api: &Api, checkout: &Checkout, run: RunId) -> Result<()> {
    let file = checkout.local().join("demo-proof.json");
    let bytes = proof::fetch(api, &run.to_string(), SEAL_LIMIT).await?;
    fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let SigningKeys { keys } = api.get("/keys").await?;
    let options = verify_proof::Options {
        keys: Keyring::of(&keyring::pem(&keys))?,
        repo: None,
        builders: Vec::new(),
        is_strict: false,
    };
    let report = verify_proof::check(&bytes, &options);
    for line in report.text().lines() {
        output::line(format_args!("  {line}"))?;
    }
    ensure!(report.passes, "the proof does not pass");
    let save = command(format!("{} keys --pem --all > keys.pem", output::program()));
    let verify = command(format!("{} verify {} --key keys.pem", output::program(), file.display()));
    output::line(format_args!("  again, without the stack: {save}, then {verify}"))?;
    Ok(())
}

/// Approves all pending gates of a run.
async fn approve_all(api: &Api, run_id: &str) -> Result<()> {
    for gate in api.gates(run_id).await? {
        if gate.status == GateStatus::Pending {
            println!("  approving the gate {} ({})", printable(&gate.gate_type), gate.id);
            gate::decide(api, Decision::Approve, &gate.id.to_string(), Some("demo"), Some("nofx demo"), None).await?;
        }
    }
    Ok(())
}

/// How it ended, and what it made for people. The story above has the steps and their errors.
fn print_result(detail: &RunDetail) -> Result<()> {
    let (steps, artifacts) = (count(detail.steps.len(), "step"), count(detail.artifacts.len(), "artifact"));
    output::line(format_args!("{}  {steps}, {artifacts}", state::run(detail.run.status).painted()))?;
    for artifact in detail.artifacts.iter().filter(|artifact| matches!(artifact.kind.as_str(), "text" | "code")) {
        let get = command(format!("{} get {}", output::program(), artifact.id));
        output::line(format_args!("  made {} ({}): {get}", printable(&artifact.name), size(artifact.size_bytes)))?;
    }
    Ok(())
}

/// What a reader can try now. `failed` is a run that failed as it should.
fn next_steps(api: &Api, port: u16, stays: bool, failed: Option<&str>) -> Result<()> {
    let url = if port == dev::DEFAULT_PORT { String::new() } else { format!("NOFX_API_URL=http://127.0.0.1:{port} ") };
    let (nofx, mut steps) = (output::program(), Vec::new());
    if !stays {
        let port = if port == dev::DEFAULT_PORT { String::new() } else { format!(" --port {port}") };
        steps.push(("start the stack again, with these runs", format!("{nofx} dev{port}")));
    }
    steps.push(("see them in the console", api.url("/ui/runs")));
    steps.extend(failed.map(|run| ("see why one failed", format!("{url}{nofx} why {run}"))));
    steps
        .push(("decide a gate yourself", format!("{url}{nofx} run examples/release.yaml --watch --exit-when-blocked")));
    output::line("\nnext:")?;
    let width = steps.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    steps.iter().try_for_each(|(what, how)| output::line(format_args!("  {what:width$}  {}", command(how))))
}

/// The difference between a run's end and the expected one.
fn mismatch(sample: &Sample, detail: &RunDetail) -> Option<String> {
    let expected = if sample.fails_at.is_some() { RunStatus::Failed } else { RunStatus::Succeeded };
    let status = detail.run.status;
    if status != expected {
        return Some(format!("{status} instead of {expected}"));
    }
    let expected = sample.fails_at?;
    let mut from_failure = detail.steps.iter().skip_while(|step| step.status != StepStatus::Failed);
    match from_failure.next() {
        Some(failed) if failed.name == expected => {}
        Some(failed) => return Some(format!("the step {} failed instead of {expected}", failed.name)),
        None => return Some("no step failed".to_owned()),
    }
    let ran = from_failure.find(|step| step.status != StepStatus::Skipped)?;
    Some(format!("the step {} is {} although a step before it failed", ran.name, ran.status))
}
