//! `nofx proof`: downloads the proof of a run.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nofx_local::report::hinted;
use serde::Serialize;
use serde_json::Value;
use shared::domain::digest::sha256_hex;
use shared::domain::proof::{self, MAX_BYTES};
use shared::error::Code;
use shared::view::Lineage;

use crate::client::api::Api;
use crate::client::error::ApiError;
use crate::client::resolve;
use crate::output::color::command;
use crate::output::{self, Format, count};

/// Between two questions whether the run is sealed.
const PERIOD: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nofx proof last -o proof.json
  nofx keys --pem --all > keys.pem              keep the keys that you trust
  nofx verify proof.json --key keys.pem         without an API")]
pub struct Args {
    /// The run: its id, the beginning or end of its id, or `last`
    run: String,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How long to wait until the run is sealed, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 150)]
    timeout: u64,
    #[command(flatten)]
    format: Format,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Saved {
    run: String,
    file: String,
    sha256: String,
    size_bytes: usize,
}

/// Waits until the run is sealed. A file is written completely or not at all.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let run = resolve::run(api, &args.run).await?;
    let bytes = fetch(api, &run.to_string(), Duration::from_secs(args.timeout)).await?;
    let file: Value =
        proof::read(&bytes).map_err(|fault| anyhow::anyhow!("the proof is damaged: {}", fault.message))?;
    if file["content"]["run"]["id"] != run.to_string() {
        bail!("the API answers with the proof of another run");
    }
    let name = args.output.file_name().context("name a file with -o")?;
    let mut partial = name.to_owned();
    partial.push(".part");
    let partial = args.output.with_file_name(partial);
    let cannot_write = || format!("cannot write {}", args.output.display());
    fs::write(&partial, &bytes).with_context(cannot_write)?;
    fs::rename(&partial, &args.output).with_context(cannot_write)?;
    let file = args.output.display().to_string();
    if args.format.json {
        return output::json(&Saved {
            run: run.to_string(),
            file,
            sha256: sha256_hex(&bytes),
            size_bytes: bytes.len(),
        });
    }
    // The file itself cannot say what happened after it was sealed.
    let lineage: Lineage = api.get(&format!("/runs/{run}/lineage")).await?;
    let gone = lineage.nodes.iter().filter(|node| node.is_gone()).count();
    if gone > 0 {
        output::note(format_args!(
            "the bytes of {} were deleted: the proof still verifies, and no file can be compared with it",
            count(gone, "artifact")
        ));
    }
    let next = command(format!("nofx verify {} --key keys.pem", output::shell_word(&file)));
    output::note(format_args!("{file} ({} bytes, sha256 {}); {next} verifies it", bytes.len(), sha256_hex(&bytes)));
    Ok(())
}

/// Downloads a proof, and waits at most `limit` until the run is sealed.
pub async fn fetch(api: &Api, run: &str, limit: Duration) -> Result<Vec<u8>> {
    let start = Instant::now();
    loop {
        match api.download_path(&format!("/runs/{run}/proof")).await {
            Ok(mut response) => {
                let mut bytes = Vec::new();
                while let Some(chunk) = response.chunk().await.context("the download broke off; try again")? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MAX_BYTES {
                        bail!("the proof has more than {MAX_BYTES} bytes");
                    }
                }
                return Ok(bytes);
            }
            Err(error) => {
                let code = error.downcast_ref::<ApiError>().map(|error| error.code.clone()).unwrap_or_default();
                if code == Code::RunNotFinished.as_str() {
                    return Err(hinted(error.to_string(), format!("nofx watch {run} follows it")));
                }
                if code != Code::NotSealed.as_str() || start.elapsed() > limit {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}
