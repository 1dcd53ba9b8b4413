//! The install phase: `npm ci` without install scripts, unless a kept installation can be used.

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

/// How the dependencies got into the workspace.
#[derive(Debug)]
pub enum Installed {
    /// There are none.
    None,
    /// Installed by an earlier gate.
    Stored(Duration, Lent),
    /// Installed now. `Some` if the next gate may use them.
    Fresh(Duration, Option<Lent>),
    /// Not installed, by the workspace's fault.
    Refused(Reason, Option<Box<Ended>>),
}

/// Installs the dependencies of the attempt's workspace.
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
        let message =
            "package.json declares dependencies, but there is no package-lock.json that pins them; commit one";
        return Ok(Installed::Refused(Reason::new("no_lockfile", message), None));
    }
    let started = Instant::now();
    let (tenant, toolchain) = surroundings;
    // Tenants never share an installation, so that none runs files that another could change.
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
    // If all packages are optional, nothing may have been installed. Then there is nothing to keep.
    Ok(Installed::Fresh(started.elapsed(), lent.ok()))
}

/// Keeps an installation for the next gate. Call it once all processes of the command are dead. An error here does not
/// fail the gate.
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

/// The whole environment of a workspace's command: no credentials, no endpoints, no settings of the user.
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

/// Separates what a retry may fix from what the workspace must change.
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
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_registry_that_is_away_is_trouble_and_a_wrong_lock_is_not() {
        let outcome = |text: &'static str| async move {
            let folder = tempfile::tempdir().unwrap();
            let command = Command {
                line: vec!["sh".into(), "-c".into(), format!("echo '{text}'; exit 1")],
                folder: folder.path().into(),
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                limit: Duration::from_secs(20),
                mark: Uuid::new_v4().to_string(),
            };
            blame(process::run(&command).await.unwrap())
        };
        assert_eq!(outcome("npm error code ECONNREFUSED").await.unwrap_err().code, "registry_unavailable");
        assert_eq!(outcome("npm error code ENOSPC").await.unwrap_err().code, "disk_full");
        match outcome("npm error code EUSAGE").await.unwrap() {
            Installed::Refused(reason, Some(_)) => assert_eq!(reason.code, "install_failed"),
            other => panic!("{other:?}"),
        }
    }
}
