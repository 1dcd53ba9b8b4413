//! `start`: the time from exec to the first `next` of the Runtime API, for each function's release binary.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use nofx::deploy::package::{self, Architecture};
use nofx_local::checkout::Checkout;
use nofx_local::report::{self, hinted};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::stats::{self, Times, float, rounded};

const STARTS: usize = 20;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const NEXT: &str = "GET /2018-06-01/runtime/invocation/next ";
/// Headers of a zip archive with one entry named `bootstrap`.
const ZIP_OVERHEAD_BYTES: u64 = 134;

pub async fn run(checkout: &Checkout) -> Result<()> {
    let mut missing = Vec::new();
    for name in functions(checkout)? {
        match binary(checkout, &name) {
            Some(path) => measure(&name, &path).await?,
            None => missing.push(name),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!("no release binary of {}", missing.join(", ")),
        "run: cargo build --release (or make deploy, if it builds for this machine's architecture)",
    ))
}

/// The functions of the checkout: the folders in `functions/` that have a `main.rs`.
fn functions(checkout: &Checkout) -> Result<Vec<String>> {
    let folder = checkout.root().join("functions");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.path().join("src/main.rs").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The newest binary for this machine, built by cargo or by cargo-lambda, which `make deploy` uses.
fn binary(checkout: &Checkout, name: &str) -> Option<PathBuf> {
    let candidates =
        [package::dir(checkout, name).join("bootstrap"), checkout.root().join("target/release").join(name)];
    let native = Architecture::native().ok()?;
    let built = candidates.into_iter().filter(|path| Architecture::of_file(path) == Some(native));
    built.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok())
}

async fn measure(name: &str, path: &Path) -> Result<()> {
    report::line("start", format_args!("{name}, {STARTS} times"));
    let (mut times, mut memory) = (Times::default(), Vec::new());
    for _ in 0..STARTS {
        let (time, rss_kib) = start_once(name, path).await?;
        times.add(time);
        memory.push(rss_kib);
    }
    memory.sort_unstable();
    let mb = |bytes: u64| rounded(float(bytes) / 1_000_000.0);
    stats::print(&json!({
        "bench": "start",
        "function": name,
        "start_p50_ms": rounded(times.percentile_ms(50)),
        "start_p99_ms": rounded(times.percentile_ms(99)),
        "memory_mb": mb(memory[memory.len() / 2] * 1_024),
        "zip_mb": mb(zip_bytes(path)?),
    }));
    Ok(())
}

/// Starts a binary as Lambda does. Returns the time to its first `next` and its resident memory at that time.
async fn start_once(name: &str, path: &Path) -> Result<(Duration, u64)> {
    let runtime_api = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let address = runtime_api.local_addr().context("cannot listen")?;
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.envs([
        ("AWS_LAMBDA_RUNTIME_API", address.to_string().as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", name),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "bench"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "bench"),
        ("AWS_SECRET_ACCESS_KEY", "bench"),
        // Nothing listens at this URL: a function must not connect before its first event.
        ("DATABASE_URL", "postgresql://bench@127.0.0.1:1/bench?sslmode=require"),
    ]);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {}", path.display()))?;
    let pid = child.id().with_context(|| format!("{name} ended at once"))?;
    let start_and_memory = timeout(START_TIMEOUT, async {
        let (connection, _) = runtime_api.accept().await.context("cannot accept")?;
        let mut line = String::new();
        let mut reader = BufReader::new(connection);
        reader.read_line(&mut line).await.context("cannot read")?;
        if !line.starts_with(NEXT) {
            bail!("{name} did not start: its first request was {}", line.trim_end());
        }
        let took = start.elapsed();
        // Keep the connection open until the memory is read, so that the function keeps waiting for its first event.
        let memory = resident_kib(pid).await?;
        drop(reader);
        Ok((took, memory))
    });
    let measured = tokio::select! {
        measured = start_and_memory => measured.with_context(|| format!("{name} did not request its first event"))?,
        status = child.wait() => bail!("{name} exited with {} before its first event", status?),
    };
    child.kill().await.context("cannot end the function")?;
    measured
}

/// Resident memory in KiB, from `ps`, which works the same on Linux and macOS.
async fn resident_kib(pid: u32) -> Result<u64> {
    let output = Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().await.context("ps")?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("ps did not print a number")
}

fn zip_bytes(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes)?;
    Ok(u64::try_from(encoder.finish()?.len())? + ZIP_OVERHEAD_BYTES)
}
