//! Node.js. Only the gates of TypeScript workspaces need it.

use tokio::process::Command;

use crate::report::hinted;

const MIN_VERSION: u32 = 20;

/// Fails if Node.js is missing or too old.
pub async fn check() -> anyhow::Result<()> {
    let hint = "the gates of the sample workspace run TypeScript: install Node.js 20 or newer";
    let output = Command::new("node").arg("--version").kill_on_drop(true).output().await;
    let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= MIN_VERSION => Ok(()),
        Some(_) => Err(hinted(format!("Node.js {} is too old", version.trim()), hint)),
        None => Err(hinted("Node.js is missing", hint)),
    }
}
