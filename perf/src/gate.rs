//! `gate`: what a gate costs besides its command, on `examples/workspace` with dependencies stored. It takes the way of the
//! function `gate`: a process of `gate_runner` for each run, evidence, signature. Storing them in S3 is not included.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use gate::Runners;
use nofx_gates::archive;
use nofx_gates::attestation;
use nofx_gates::evidence::{Evidence, GivenBy, Verdict};
use nofx_gates::judge::{self, Archive, BaseInput, Request, Settings};
use nofx_gates::snapshot::Snapshot;
use nofx_local::checkout::Checkout;
use nofx_local::report::{self, hinted};
use serde_json::{Value, json};
use shared::domain::policy::GatePolicy;
use shared::invoke::Functions;
use shared::signing::{PrivateKey, Signer};

use crate::stats::{self, Times, float, rounded};

const GATES: [&str; 3] = ["lint", "typecheck", "unit"];
const REPEATS: usize = 10;

pub async fn run(checkout: &Checkout) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("gate_runner");
    if !program.is_file() {
        let hint = "run: cargo build --profile perf --package gate_runner";
        return Err(hinted(format!("{} does not exist", program.display()), hint));
    }
    let folder = checkout.root().join("examples/workspace");
    let settings = Settings::new(std::env::temp_dir().join("nofx-bench-gate"));
    let archive = pack(&folder, &settings)?;
    let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1")).build();
    let runners = Runners::new(&format!("process:{}", program.display()), Functions::new(&sdk));
    let signer = Signer::with_key(PrivateKey::generate().map_err(|error| anyhow::anyhow!("{error}"))?);
    for gate in GATES {
        report::line("gate", format_args!("{gate}, 1 warm-up run and {REPEATS} measured runs"));
        measure(gate, &archive, &settings, &runners, &signer).await?;
    }
    Ok(())
}

fn pack(folder: &Path, settings: &Settings) -> Result<Archive> {
    let snapshot = Snapshot::take(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(Archive::new(archive::pack(&archive::sources(&snapshot), settings.unpack)?))
}

async fn measure(gate: &str, archive: &Archive, settings: &Settings, runners: &Runners, signer: &Signer) -> Result<()> {
    // The first run may install the dependencies.
    judge_once(gate, archive, settings, runners, signer).await?;
    let (mut all, mut command, mut own) = (Times::default(), Times::default(), Times::default());
    let mut phases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..REPEATS {
        let (took, evidence) = judge_once(gate, archive, settings, runners, signer).await?;
        let ran = Duration::from_millis(evidence.timings_ms.get("runner_run").copied().unwrap_or_default());
        all.add(took);
        command.add(ran);
        own.add(took.saturating_sub(ran));
        for (phase, ms) in evidence.timings_ms {
            phases.entry(phase).or_default().push(float(ms));
        }
    }
    let phases: BTreeMap<String, Value> =
        phases.into_iter().map(|(phase, ms)| (phase, rounded(stats::median(&ms)))).collect();
    stats::print(&json!({
        "bench": "gate",
        "gate": gate,
        "runs": REPEATS,
        "all_p50_ms": rounded(all.percentile_ms(50)),
        "command_p50_ms": rounded(command.percentile_ms(50)),
        "own_p50_ms": rounded(own.percentile_ms(50)),
        "own_max_ms": rounded(own.percentile_ms(100)),
        "phases_p50_ms": phases,
    }));
    Ok(())
}

async fn judge_once(
    gate: &str,
    archive: &Archive,
    settings: &Settings,
    runners: &Runners,
    signer: &Signer,
) -> Result<(Duration, Evidence)> {
    let request = Request {
        gate: gate.to_owned(),
        tenant: "bench".to_owned(),
        attempt: None,
        timeout: Duration::from_mins(5),
        workspace: archive.clone(),
        base: Some(BaseInput::Archive(archive.clone())),
        base_given_by: GivenBy::Plan,
        base_origin: None,
        policy: GatePolicy::default(),
        approvals: Vec::new(),
        risky: true,
    };
    let runner = runners.without_storage().context("the runner is no process")?;
    let started = Instant::now();
    let evidence = judge::judge(&request, settings, &runner).await.evidence;
    let encoded = evidence.encode()?;
    let statement = attestation::statement(&evidence, &encoded.sha256)?;
    attestation::sign(statement.payload()?, signer).await?.to_json()?;
    let took = started.elapsed();
    if evidence.verdict != Verdict::Passed {
        bail!("{gate} did not pass: {}", evidence.reason.message);
    }
    Ok((took, evidence))
}
