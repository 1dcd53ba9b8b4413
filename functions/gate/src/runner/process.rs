//! A process of the program `gate_runner`. It gets files in a folder of its own, and no variable of ours but those that
//! name its folders and its npm settings.

use std::env;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nofx_gates::judge::{Archive, RunnerLost};
use nofx_gates::run::{Bundle, Job, Location, RunAnswer, RunSpec};
use shared::domain::digest::sha256_hex;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::{fs, time};

/// How much longer than the job the process may take.
const GRACE: Duration = Duration::from_secs(20);
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "TMPDIR", "RUST_LOG", "GATE_RUNNER_WORK_DIR", "GATE_NPM_USER_CONFIG"];

pub struct ProcessRunner<'a> {
    program: &'a Path,
}

impl<'a> ProcessRunner<'a> {
    pub fn new(program: &'a Path) -> Self {
        Self { program }
    }

    pub async fn run(&self, archive: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        let unusable = |error: std::io::Error| RunnerLost::unavailable("work_folder_unavailable", error.to_string());
        // Commands of other attempts may see it, with uids of their own.
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("nofx-gate-").permissions(private).tempdir().map_err(unusable)?;
        let (archive_path, bundle_path) = (folder.path().join("workspace.tar.gz"), folder.path().join("bundle.tar.gz"));
        fs::write(&archive_path, archive.bytes.as_slice()).await.map_err(unusable)?;
        let limit = Duration::from_millis(job.timeout_ms) + GRACE;
        let spec = RunSpec {
            archive: Location::File(archive_path),
            archive_sha256: archive.sha256.clone(),
            bundle: Location::File(bundle_path.clone()),
            job,
        };
        let answer = time::timeout(limit, self.call(&spec)).await;
        let answer =
            answer.map_err(|_| RunnerLost::ended(format!("it did not end within {} s", limit.as_secs())))??;
        let bytes = fs::read(&bundle_path).await.map_err(unusable)?;
        if sha256_hex(&bytes) != answer.sha256 {
            return Err(RunnerLost::ended("its bundle is not the one that it announced"));
        }
        Bundle::unpack(&bytes).map_err(|error| RunnerLost::ended(format!("its bundle cannot be read: {error}")))
    }

    async fn call(&self, spec: &RunSpec) -> Result<RunAnswer, RunnerLost> {
        let request = serde_json::to_vec(spec).map_err(|error| RunnerLost::ended(error.to_string()))?;
        let variables = PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        let lost = |error: std::io::Error| {
            RunnerLost::unavailable("runner_unavailable", format!("cannot run {}: {error}", self.program.display()))
        };
        let mut child = Command::new(self.program)
            .arg("run")
            .env_clear()
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(lost)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&request).await.map_err(lost)?;
        }
        let done = child.wait_with_output().await.map_err(lost)?;
        if !done.status.success() {
            return Err(RunnerLost::ended(done.status.to_string()));
        }
        serde_json::from_slice(&done.stdout)
            .map_err(|error| RunnerLost::ended(format!("its answer is invalid: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nofx_gates::run::CommandSpec;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn other_users_cannot_read_the_workspace() {
        let folder = tempfile::tempdir().unwrap();
        let (program, seen) = (folder.path().join("gate_runner"), folder.path().join("mode"));
        let script =
            "#!/bin/sh\nfile=$(grep -o '[^\"]*/workspace.tar.gz')\nls -ld \"${file%/*}\" | cut -c1-10 > SEEN\nexit 1\n";
        let script = script.replace("SEEN", &seen.display().to_string());
        fs::write(&program, script).await.unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).await.unwrap();
        let command = CommandSpec {
            argv: vec!["true".into()],
            directory: String::new(),
            environment: BTreeMap::new(),
            companions: Vec::new(),
            reports: Vec::new(),
            network: false,
            minimum_sandbox: serde_json::from_value(json!("limits")).unwrap(),
            timeout_ms: 1_000,
        };
        let (tenant, ecosystem, variants) = ("t".to_owned(), None, Vec::new());
        let job = Job { tenant, command, ecosystem, audit: false, variants, timeout_ms: 10_000 };
        let lost = ProcessRunner::new(&program).run(&Archive::new(b"x".to_vec()), job).await.unwrap_err();
        assert_eq!(fs::read_to_string(&seen).await.unwrap(), "drwx------\n", "{lost:?}");
    }
}
