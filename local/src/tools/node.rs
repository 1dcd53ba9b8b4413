//! Node.js: only the gates of TypeScript workspaces need it.

use tokio::process::Command;

use crate::report::hinted;

const OLDEST: u32 = 20;

/// An error unless a Node is there that is new enough.
pub async fn check() -> anyhow::Result<()> {
    let hint = "the gates of the sample workspace run TypeScript: install Node.js 20 or newer";
    let output = Command::new("node").arg("--version").kill_on_drop(true).output().await;
    let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST => Ok(()),
        Some(_) => Err(hinted(format!("Node.js {} is too old", version.trim()), hint)),
        None => Err(hinted("Node.js is missing", hint)),
    }
}
