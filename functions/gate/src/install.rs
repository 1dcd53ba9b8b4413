//! The install phase: `npm ci` without scripts, unless a kept installation serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attempt::Attempt;
use crate::blocking::spawn_blocking;
use crate::config::GateConfig;
use crate::finding::{Reason, Toolchain, Trouble, telling_lines};
use crate::package::Package;
use crate::pool::{Lent, Pool};
use crate::process::{self, Command, Ended, Exit};

/// How the dependencies came into the workspace.
#[derive(Debug)]
pub enum Installed {
    /// There are none.
    None,
    /// From an earlier gate.
    Stored(Duration, Lent),
    /// Just now; `Some` if the next gate may have them.
    Fresh(Duration, Option<Lent>),
    /// They did not, and the workspace is to blame.
    Refused(Reason, Option<Box<Ended>>),
}

/// Brings the dependencies of the attempt's workspace in place.
pub async fn install(
    pool: &Arc<Pool>,
    config: &GateConfig,
    attempt: &Arc<Attempt>,
    package: &Package,
    surroundings: (&str, &Toolchain),
    limit: Duration,
) -> Result<Installed, Trouble> {
    if !package.has_dependencies() {
        return Ok(Installed::None);
    }
    if package.lock.is_none() {
        let message = "dependencies are declared but there is no package-lock.json, so what is installed would be a matter of luck";
        return Ok(Installed::Refused(Reason::new("no_lockfile", message), None));
    }
    let started = Instant::now();
    let (tenant, toolchain) = surroundings;
    // Tenants never share an installation: what one could tamper with, another must not run.
    let key = package.install_key(&[tenant, &toolchain.node, &toolchain.npm, &toolchain.platform]);
    if let Some(key) = key.clone() {
        let (pool, attempt) = (Arc::clone(pool), Arc::clone(attempt));
        let lent = spawn_blocking(move || pool.lend(&key, &attempt.dependencies()));
        if let Some(lent) = lent.await.map_err(Trouble::stopped)?? {
            return Ok(Installed::Stored(started.elapsed(), lent));
        }
    }
    let ended = process::run(&npm_ci(config, attempt, limit)).await?;
    if ended.exit != Exit::Code(0) {
        return blame(ended);
    }
    let Some(key) = key else { return Ok(Installed::Fresh(started.elapsed(), None)) };
    let noted = Arc::clone(attempt);
    let lent = spawn_blocking(move || Pool::note(key, &noted.dependencies())).await.map_err(Trouble::stopped)?;
    // A lock whose packages are all optional may install nothing; then there is nothing to keep.
    Ok(Installed::Fresh(started.elapsed(), lent.ok()))
}

/// Keeps an installation for the next gate, once no process of the command is left. Failing to is no failure of the gate.
pub async fn give_back(pool: &Arc<Pool>, attempt: &Arc<Attempt>, lent: Lent) {
    let (pool, attempt) = (Arc::clone(pool), Arc::clone(attempt));
    let kept = spawn_blocking(move || pool.give_back(lent, &attempt.dependencies())).await;
    if let Ok(Err(error)) = kept {
        tracing::debug!(%error, "an installation was not kept");
    }
}

fn npm_ci(config: &GateConfig, attempt: &Attempt, limit: Duration) -> Command {
    let line = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
    let mut environment = bare_environment(config, attempt);
    environment.retain(|(name, _)| name != "npm_config_cache");
    environment.push(("npm_config_cache".into(), config.npm_cache.to_string_lossy().into_owned()));
    if let Some(user_config) = &config.npm_user_config {
        environment.push(("npm_config_userconfig".into(), user_config.to_string_lossy().into_owned()));
    }
    Command {
        line: line.map(str::to_string).to_vec(),
        folder: attempt.workspace(),
        environment,
        limit: limit.min(config.install_timeout),
        mark: attempt.id.clone(),
    }
}

/// All that a command of a workspace sees: no credentials, no endpoints, no settings of the user.
pub fn bare_environment(config: &GateConfig, attempt: &Attempt) -> Vec<(String, String)> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    [
        ("PATH", config.search_path.clone()),
        ("HOME", text(attempt.home())),
        ("TMPDIR", text(attempt.temporary())),
        ("LANG", "C.UTF-8".into()),
        ("CI", "1".into()),
        ("NO_COLOR", "1".into()),
        ("npm_config_cache", text(attempt.home().join("npm"))),
        ("npm_config_update_notifier", "false".into()),
        ("npm_config_logs_max", "0".into()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// Tells what another attempt may cure from what the workspace has to change.
fn blame(ended: Ended) -> Result<Installed, Trouble> {
    const AWAY: [&str; 12] = [
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNREFUSED",
        "ECONNRESET",
        "ETIMEDOUT",
        "EHOSTUNREACH",
        "ENETUNREACH",
        "ERR_SOCKET_TIMEOUT",
        "EIDLETIMEOUT",
        "E429",
        "E500",
        "E503",
    ];
    let output = ended.output.tail();
    let has_code = |code: &str| output.lines().any(|line| line.starts_with("npm error code ") && line.ends_with(code));
    if has_code("ENOSPC") {
        return Err(Trouble::new("disk_full", "the disk of the gate is full"));
    }
    if ended.exit == Exit::TimedOut {
        return Err(Trouble::new("install_timed_out", "the dependencies could not be installed in time"));
    }
    if AWAY.into_iter().any(has_code) {
        return Err(Trouble::new("registry_unavailable", "the package registry cannot be reached"));
    }
    let message = format!("npm ci failed:\n{}", telling_lines(&output));
    Ok(Installed::Refused(Reason::new("install_failed", message), Some(Box::new(ended))))
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
