//! `nofx logs`: what a step's command printed.

use anyhow::Result;
use nofx_gates::evidence::Evidence;
use nofx_local::report::printable;
use shared::domain::StepId;
use shared::view::{ArtifactSummary, Step};

use crate::client::api::Api;
use crate::client::error::ApiError;
use crate::client::{download, resolve};
use crate::output::color::{DIM, command, paint};
use crate::output::{self, Format, printable_lines, shell_word};

/// A larger output is only named. `nofx get` downloads it.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    /// Name of the step
    step: String,
    /// Number of an attempt [default: the last one]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    #[command(flatten)]
    format: Format,
}

/// Prints the whole output if the gate stored it, else the parts in its evidence, else the step's error and outputs.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    let step = resolve::step(api, run, &args.step).await?;
    let attempt = args.attempt.unwrap_or(step.attempt);
    check_attempt(&step, attempt)?;
    let detail = api.whole_run(&run.to_string()).await?;
    let stored: Vec<&ArtifactSummary> =
        detail.artifacts.iter().filter(|artifact| is_of(artifact, step.id, attempt)).collect();
    if args.format.json {
        return output::json(&stored);
    }
    let texts: Vec<_> = stored.iter().filter(|artifact| is_log(artifact)).collect();
    for artifact in &texts {
        let name = format!("{} of attempt {attempt}", artifact.name);
        output::note(paint(DIM, name));
        let (_, bytes) = download::bytes(api, artifact.id, MAX_BYTES).await?;
        print(&String::from_utf8_lossy(&bytes))?;
    }
    let evidence = stored.iter().find(|artifact| artifact.kind == "gate_evidence");
    match evidence {
        _ if !texts.is_empty() => Ok(()),
        Some(artifact) => {
            let (_, bytes) = download::bytes(api, artifact.id, MAX_BYTES).await?;
            print_output(&serde_json::from_slice(&bytes)?)
        }
        None => print_rest(&step, &run.to_string()),
    }
}

/// Refuses an attempt that the step has not had.
fn check_attempt(step: &Step, attempt: u32) -> Result<(), ApiError> {
    if attempt <= step.attempt && (attempt > 0 || step.attempt == 0) {
        return Ok(());
    }
    let hint = match step.attempt {
        0 => format!("it is {}", step.status),
        last => format!("the last one is {last}"),
    };
    Err(ApiError::not_found(format!("the step {} has no attempt {attempt}", printable(&step.name)), hint))
}

fn is_of(artifact: &ArtifactSummary, step: StepId, attempt: u32) -> bool {
    artifact.step_id == Some(step) && artifact.attempt == Some(attempt)
}

/// Whether it is text that a gate kept.
fn is_log(artifact: &ArtifactSummary) -> bool {
    artifact.kind == "gate_attachment" && artifact.media_type.starts_with("text/")
}

/// The output as far as the evidence has it.
fn print_output(evidence: &Evidence) -> Result<()> {
    let Some(command) = &evidence.command else {
        output::note(format_args!("the gate ran no command: {}", evidence.reason.message));
        return Ok(());
    };
    let shown = command.output.head.as_ref().map_or(0, String::len) + command.output.tail.len();
    if let Some(head) = &command.output.head {
        print(head)?;
        let left_out = command.output.bytes.saturating_sub(shown as u64);
        output::note(paint(DIM, format_args!("... {left_out} bytes were not kept ...")));
    }
    print(&command.output.tail)?;
    if command.output.bytes == 0 {
        output::note("the command printed nothing");
    }
    Ok(())
}

/// A step without a command has only its error and its outputs.
fn print_rest(step: &Step, run: &str) -> Result<()> {
    if let Some(error) = &step.error {
        print(&error.message)?;
    }
    let show = command(format!("nofx show {run} {}", shell_word(&step.name)));
    let name = printable(&step.name);
    output::note(format_args!("{name} ({}) kept no output of a command; {show} has the rest", step.status));
    Ok(())
}

fn print(text: &str) -> Result<()> {
    printable_lines(text).try_for_each(output::line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_attempt_of_the_step_has_logs() {
        let step = |attempt: u32| -> Step {
            let step = json!({
                "id": "0193c0de-0000-7000-8000-000000000002", "name": "a", "tool": "echo", "status": "pending",
                "inputs": null, "outputs": null, "error": null, "attempt": attempt, "blockers": 0, "depends_on": [],
                "ready_at": null, "started_at": null, "finished_at": null,
            });
            serde_json::from_value(step).unwrap()
        };
        for (had, asked, is_there) in
            [(0, 0, true), (2, 1, true), (2, 2, true), (2, 3, false), (2, 0, false), (0, 1, false)]
        {
            assert_eq!(check_attempt(&step(had), asked).is_ok(), is_there, "{asked} of {had}");
        }
        let error = check_attempt(&step(2), 7).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.hint.as_deref()),
            ("the step a has no attempt 7", Some("the last one is 2"))
        );
    }
}
