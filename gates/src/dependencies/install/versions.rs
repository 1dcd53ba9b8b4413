//! The programs of an ecosystem and their versions.
//!
//! They run without a sandbox: they are the operator's, and see nothing of a workspace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;

use super::InstallSettings;
use super::command::{environment, missing, text};
use crate::dependencies::Ecosystem;
use crate::dependencies::programs::{Toolchain, find, npm_version};
use crate::finding::{ExamineError, Reason, error_lines};

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(30);

/// Finds the programs and asks for their versions.
pub async fn toolchain(ecosystem: Ecosystem, settings: &InstallSettings) -> Result<Toolchain, ExamineError> {
    let mut toolchain = Toolchain::default();
    let find = |name: &str| find(name, &settings.search_path).ok_or_else(|| missing(name, settings));
    match ecosystem {
        Ecosystem::Npm => {
            let (node, npm) = (find("node")?, find("npm")?);
            let version = match npm_version(&npm) {
                Some(version) => version,
                None => ask(&npm, &["--version"], settings).await?,
            };
            toolchain.versions.insert("node".into(), ask(&node, &["--version"], settings).await?);
            toolchain.versions.insert("npm".into(), version);
            for program in [&node, &npm] {
                toolchain.folders.extend(outside_of_the_system(program));
            }
            toolchain.folders.dedup();
            toolchain.programs.extend([("node".into(), node), ("npm".into(), npm)]);
        }
        Ecosystem::Pip => {
            const ASK: &str = "import os, sys, pip, venv; \
                print(sys.version.split()[0], pip.__version__, os.path.realpath(sys.executable), sys.base_prefix, sep='\\n')";
            let python = find("python3")?;
            let answer = ask(&python, &["-I", "-c", ASK], settings).await?;
            let mut lines = answer.lines();
            let (version, pip, program, prefix) = (lines.next(), lines.next(), lines.next(), lines.next());
            let (Some(version), Some(pip), Some(program), Some(prefix)) = (version, pip, program, prefix) else {
                return Err(missing("python3 with pip and venv", settings).into());
            };
            if !is_at_least(pip, (22, 3)) {
                return Err(missing("pip 22.3 or later", settings).into());
            }
            toolchain.versions.insert("pip".into(), pip.into());
            toolchain.versions.insert("python".into(), version.into());
            toolchain.programs.insert("python3".into(), PathBuf::from(program));
            toolchain.folders.extend(Some(PathBuf::from(prefix)).filter(|prefix| !is_of_the_system(prefix)));
        }
        Ecosystem::Cargo => {
            // rustup's proxies choose a toolchain by files of the workspace. The real programs do not.
            let sysroot = PathBuf::from(ask(&find("rustc")?, &["--print", "sysroot"], settings).await?);
            for program in ["cargo", "rustc"] {
                let path = Some(sysroot.join("bin").join(program)).filter(|path| path.is_file());
                let path = path.map_or_else(|| find(program), Ok)?;
                toolchain.versions.insert(program.into(), ask(&path, &["--version"], settings).await?);
                toolchain.programs.insert(program.into(), path);
            }
            toolchain.folders.extend(Some(sysroot).filter(|sysroot| !is_of_the_system(sysroot)));
        }
        Ecosystem::Go => {
            let go = find("go")?;
            toolchain.versions.insert("go".into(), ask(&go, &["version"], settings).await?);
            toolchain.programs.insert("go".into(), go);
        }
    }
    Ok(toolchain)
}

fn is_at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// The folder of a version manager's program: that above its `bin`. `None` for the system's own programs.
fn outside_of_the_system(program: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(program).ok()?;
    if is_of_the_system(&real) {
        return None;
    }
    real.ancestors().find(|folder| folder.ends_with("bin"))?.parent().map(Path::to_path_buf)
}

/// Whether every sandbox shows it.
fn is_of_the_system(path: &Path) -> bool {
    ["/usr", "/bin", "/lib"].iter().any(|folder| path.starts_with(folder))
}

/// What a program prints.
async fn ask(program: &Path, arguments: &[&str], settings: &InstallSettings) -> Result<String, ExamineError> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .envs(environment(settings, &std::env::temp_dir(), &[]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let (is_fine, printed, errors) = match tokio::time::timeout(PATIENCE, answer(&mut command)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => return Err(missing(&text(program), settings).into()),
        Err(_) => (false, String::new(), format!("it does not answer within {} seconds", PATIENCE.as_secs())),
    };
    if is_fine {
        return Ok(printed.trim().to_owned());
    }
    let printed = error_lines(&format!("{errors}{printed}"));
    let message = format!("{} cannot say its version, so nothing can be installed:\n{printed}", program.display());
    Err(Reason::new("toolchain_missing", message).into())
}

/// Whether a program succeeds, and the start of its output and errors.
async fn answer(command: &mut tokio::process::Command) -> io::Result<(bool, String, String)> {
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let status = child.wait().await;
        // What it left in the background would keep the pipes open.
        drop(group);
        status
    };
    let (stdout, stderr, status) = tokio::join!(start_of(stdout), start_of(stderr), ended);
    Ok((status?.success(), stdout?, stderr?))
}

/// What comes first. The pipe closes then, so a program that prints more ends.
async fn start_of(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<String> {
    const BYTES: u64 = 64 * 1024;
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process group of a program. What is left of it is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails if nothing is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn asked(script: &str) -> Result<String, ExamineError> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings = crate::run::RunnerSettings::new(folder.path().join("work")).installs();
        settings.environment.clear();
        ask(&program, &["--version"], &settings).await
    }

    #[tokio::test]
    async fn a_program_gets_no_variable_of_this_process() {
        // Cargo sets variables for its tests.
        assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
        let seen = asked("env").await.unwrap();
        let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["CI", "HOME", "LANG", "NO_COLOR", "PATH", "TMPDIR"]);
    }

    #[tokio::test]
    async fn what_a_program_leaves_in_the_background_is_not_waited_for() {
        let started = std::time::Instant::now();
        assert_eq!(asked("sleep 60 & echo 1.2.3").await.unwrap(), "1.2.3");
        assert!(started.elapsed() < PATIENCE);
    }

    #[tokio::test]
    async fn a_program_that_fails_or_never_stops_printing_has_no_version() {
        for script in ["echo broken >&2; exit 3", "yes"] {
            match asked(script).await {
                Err(ExamineError::GateFailed(reason)) => assert_eq!(reason.code, "toolchain_missing", "{script}"),
                other => panic!("{script}: {other:?}"),
            }
        }
    }
}
