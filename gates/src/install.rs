//! Installs dependencies: from the cache if possible, else with `npm ci` without install scripts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attempt::Attempt;
use crate::blocking::spawn_blocking;
use crate::config::GateConfig;
use crate::finding::{InfraError, Reason, Toolchain, error_lines};
use crate::install_cache::{CheckedOut, InstallCache};
use crate::package::Package;
use crate::process::{self, Command, CommandResult, Exit};

/// How the dependencies got into the workspace.
#[derive(Debug)]
pub enum Installed {
    /// The package has no dependencies.
    NotNeeded,
    /// An earlier gate installed them.
    FromCache(Duration, CheckedOut),
    /// Installed now. `Some` if the next gate may use them.
    New(Duration, Option<CheckedOut>),
    /// The installation failed, and the workspace is at fault.
    Failed(Reason, Option<Box<CommandResult>>),
}

/// Installs the dependencies of the attempt's workspace.
pub async fn install(
    cache: &Arc<InstallCache>,
    config: &GateConfig,
    attempt: &Arc<Attempt>,
    package: &Package,
    environment: (&str, &Toolchain),
    timeout: Duration,
) -> Result<Installed, InfraError> {
    if !package.has_dependencies() {
        return Ok(Installed::NotNeeded);
    }
    if package.lock.is_none() {
        let message = "package.json declares dependencies, but there is no package-lock.json to pin them; commit one";
        return Ok(Installed::Failed(Reason::new("no_lockfile", message), None));
    }
    let started = Instant::now();
    let (tenant, toolchain) = environment;
    // Tenants never share an installation: one could change files that another runs.
    let key = package.install_key(&[tenant, &toolchain.node, &toolchain.npm, &toolchain.platform]);
    if let Some(key) = key.clone() {
        let (cache, attempt) = (Arc::clone(cache), Arc::clone(attempt));
        let checked_out = spawn_blocking(move || cache.check_out(&key, &attempt.dependencies()));
        if let Some(checked_out) = checked_out.await.map_err(InfraError::task_failed)?? {
            return Ok(Installed::FromCache(started.elapsed(), checked_out));
        }
    }
    let result = process::run(&npm_ci(config, attempt, timeout)).await?;
    if result.exit != Exit::Code(0) {
        return classify_failure(result);
    }
    let Some(key) = key else { return Ok(Installed::New(started.elapsed(), None)) };
    let attempt = Arc::clone(attempt);
    let checked_out = spawn_blocking(move || InstallCache::record(key, &attempt.dependencies()))
        .await
        .map_err(InfraError::task_failed)?;
    // If all packages are optional, npm may have installed nothing. Then there is nothing to cache.
    Ok(Installed::New(started.elapsed(), checked_out.ok()))
}

/// Returns an installation to the cache. Call it once all processes of the command are dead. An error here does not fail
/// the gate.
pub async fn check_in(cache: &Arc<InstallCache>, attempt: &Arc<Attempt>, checked_out: CheckedOut) {
    let (cache, attempt) = (Arc::clone(cache), Arc::clone(attempt));
    let returned = spawn_blocking(move || cache.check_in(checked_out, &attempt.dependencies())).await;
    if let Ok(Err(error)) = returned {
        tracing::debug!(%error, "an installation was not cached");
    }
}

fn npm_ci(config: &GateConfig, attempt: &Attempt, timeout: Duration) -> Command {
    let argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
    let mut environment = minimal_environment(config, attempt);
    environment.retain(|(name, _)| name != "npm_config_cache");
    environment.push(("npm_config_cache".into(), config.npm_cache.to_string_lossy().into_owned()));
    if let Some(user_config) = &config.npm_user_config {
        environment.push(("npm_config_userconfig".into(), user_config.to_string_lossy().into_owned()));
    }
    Command {
        argv: argv.map(str::to_string).to_vec(),
        current_dir: attempt.workspace(),
        environment,
        timeout: timeout.min(config.install_timeout),
        tag: attempt.id.clone(),
    }
}

/// The complete environment of a workspace's command. It has no credentials, no endpoints and no user settings.
pub fn minimal_environment(config: &GateConfig, attempt: &Attempt) -> Vec<(String, String)> {
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

/// Separates failures that a retry may fix from those that the workspace must fix.
fn classify_failure(result: CommandResult) -> Result<Installed, InfraError> {
    const NETWORK_ERRORS: [&str; 12] = [
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
    let output = result.output.tail();
    let has_code = |code: &str| output.lines().any(|line| line.starts_with("npm error code ") && line.ends_with(code));
    if has_code("ENOSPC") {
        return Err(InfraError::new("disk_full", "the disk of the gate is full"));
    }
    if result.exit == Exit::TimedOut {
        return Err(InfraError::new("install_timed_out", "installing the dependencies timed out"));
    }
    if NETWORK_ERRORS.into_iter().any(has_code) {
        return Err(InfraError::new("registry_unavailable", "the package registry cannot be reached"));
    }
    let message = format!("npm ci failed:\n{}", error_lines(&output));
    Ok(Installed::Failed(Reason::new("install_failed", message), Some(Box::new(result))))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn an_unreachable_registry_is_retryable_and_a_wrong_lockfile_is_not() {
        let outcome = |text: &'static str| async move {
            let folder = tempfile::tempdir().unwrap();
            let command = Command {
                argv: vec!["sh".into(), "-c".into(), format!("echo '{text}'; exit 1")],
                current_dir: folder.path().into(),
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                timeout: Duration::from_secs(20),
                tag: Uuid::new_v4().to_string(),
            };
            classify_failure(process::run(&command).await.unwrap())
        };
        assert_eq!(outcome("npm error code ECONNREFUSED").await.unwrap_err().code, "registry_unavailable");
        assert_eq!(outcome("npm error code ENOSPC").await.unwrap_err().code, "disk_full");
        match outcome("npm error code EUSAGE").await.unwrap() {
            Installed::Failed(reason, Some(_)) => assert_eq!(reason.code, "install_failed"),
            other => panic!("{other:?}"),
        }
    }
}
