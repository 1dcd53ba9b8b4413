//! Runs the program `git` without trust in the repository, in the machine's settings, or in the server.
//!
//! It gets an environment of its own: no system or user settings, no credentials, no questions, no hooks, no templates. It
//! speaks https only, to the one URL that it is given: no redirects, no bundle, no submodules. Nothing is checked out, so
//! no filter and no attribute of the repository runs.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// Settings on the command line, which win over those of a repository.
const SETTINGS: [&str; 20] = [
    "core.askPass=",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.sshCommand=false",
    "core.symlinks=false",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "maintenance.auto=false",
    "protocol.allow=never",
    "protocol.version=2",
    "submodule.recurse=false",
    "transfer.bundleURI=false",
    "transfer.unpackLimit=1",
];
/// How often the size of a fetch is looked at.
const WATCH: Duration = Duration::from_millis(100);
/// Maximum output of a command, except of file contents.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;
/// How much of git's error text goes into a message.
const MAX_ERROR_CHARS: usize = 400;
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// How to call `git`.
#[derive(Debug, Clone)]
pub struct Git {
    search_path: String,
    /// The protocol of the URLs that it may read.
    protocol: &'static str,
    /// What it reads instead of a URL, for tests.
    mirror: Option<String>,
}

/// Why a command has no result.
#[derive(Debug)]
pub enum GitError {
    /// There is no `git` on this machine.
    Missing,
    TimedOut,
    /// Its output, or the files that it wrote, exceed the limit.
    TooLarge,
    /// It ended with an error.
    Failed(String),
    Io(io::Error),
}

impl From<io::Error> for GitError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Limits of a command.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub deadline: Instant,
    /// Of the folder that it works in.
    pub max_bytes: u64,
}

impl Git {
    pub fn new(search_path: String) -> Self {
        Self { search_path, protocol: "https", mirror: None }
    }

    /// Reads repositories on the disk, by `file` URLs. For tests: a plan could read every repository of the machine.
    #[must_use]
    pub fn of_files(search_path: String) -> Self {
        Self { search_path, protocol: "file", mirror: None }
    }

    /// Reads repositories below a folder of the disk, as if they were at this beginning of an https URL. For tests.
    #[must_use]
    pub fn mirrored(search_path: String, url: &str, folder: &Path) -> Self {
        let mirror = format!("url.file://{}/.insteadOf={url}/", folder.display());
        Self { search_path, protocol: "https", mirror: Some(mirror) }
    }

    /// The protocol of the URLs that it may read.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// A command in `folder`, whose repository, if there is one, is `folder/git`.
    pub fn command<S: AsRef<OsStr>>(&self, folder: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("git");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let transport = if self.mirror.is_some() { "file" } else { self.protocol };
        command.args(["-c", &format!("protocol.{transport}.allow=always")]);
        if let Some(setting) = &self.mirror {
            command.args(["-c", setting]);
        }
        command
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("PATH", &self.search_path)
            .env("HOME", folder)
            .env("LC_ALL", "C")
            .env("GIT_ALLOW_PROTOCOL", transport)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // git starts a program for the transport. Both end together.
            .process_group(0)
            .kill_on_drop(true);
        if folder.join("git").is_dir() {
            command.env("GIT_DIR", folder.join("git"));
        }
        command
    }

    /// Runs a command and returns its output.
    pub async fn run<S: AsRef<OsStr>>(
        &self,
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
        bounds: Bounds,
    ) -> Result<Vec<u8>, GitError> {
        let mut child = spawn(self.command(folder, arguments))?;
        let group = Group::of(&child);
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = collect(&mut child);
        tokio::pin!(ended);
        let (output, error_text, status) = loop {
            tokio::select! {
                ended = timeout_at(bounds.deadline, &mut ended) => break ended.map_err(|_| GitError::TimedOut)??,
                _ = watch.tick() => if size_of(folder)? > bounds.max_bytes {
                    return Err(GitError::TooLarge);
                },
            }
        };
        group.has_ended();
        if !status.success() {
            return Err(GitError::Failed(one_line(&error_text)));
        }
        if size_of(folder)? > bounds.max_bytes { Err(GitError::TooLarge) } else { Ok(output) }
    }
}

/// Reads what a command prints, and waits for its end. A small repository may list more files than fit into memory, because
/// folders can share their content.
async fn collect(child: &mut Child) -> Result<(Vec<u8>, Vec<u8>, ExitStatus), GitError> {
    let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("git has no output").into());
    };
    let output = async {
        let mut output = Vec::new();
        stdout.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut output).await?;
        if output.len() as u64 > MAX_OUTPUT_BYTES { Err(GitError::TooLarge) } else { Ok(output) }
    };
    let error_text = async {
        let mut text = Vec::new();
        (&mut stderr).take(MAX_ERROR_BYTES).read_to_end(&mut text).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        Ok(text)
    };
    let status = async { child.wait().await.map_err(GitError::from) };
    tokio::try_join!(output, error_text, status)
}

/// Starts a command.
pub fn spawn(mut command: Command) -> Result<Child, GitError> {
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => GitError::Missing,
        _ => error.into(),
    })
}

/// What git says, in one line.
fn one_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown: String = lines.join("; ").chars().filter(|character| !character.is_control()).collect();
    shown.chars().take(MAX_ERROR_CHARS).collect()
}

/// A process group. It is killed when this is dropped, unless it has ended.
pub struct Group(Option<Pid>);

impl Group {
    pub fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// Its leader has ended and was waited for, so its number may soon be another process's.
    pub fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Bytes in the files below a folder. Files may vanish meanwhile.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(max_bytes: u64) -> Bounds {
        Bounds { deadline: Instant::now() + Duration::from_mins(1), max_bytes }
    }

    fn search_path() -> String {
        std::env::var("PATH").unwrap()
    }

    #[tokio::test]
    async fn settings_and_credentials_of_the_machine_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".gitconfig"), "[user]\n\tname = canary\n").unwrap();
        let git = Git::new(search_path());
        let listed = git.run(folder.path(), ["config", "--list", "--show-origin"], bounds(1 << 20)).await.unwrap();
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.lines().all(|line| line.starts_with("command line:")), "{listed}");
        let mut command = git.command(folder.path(), ["version"]);
        let names: Vec<_> =
            command.as_std_mut().get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert!(
            names.iter().all(|name| name.starts_with("GIT_") || ["PATH", "HOME", "LC_ALL"].contains(&name.as_str()))
        );
    }

    #[tokio::test]
    async fn only_https_is_spoken() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("ran");
        let git = Git::new(search_path());
        for url in [
            format!("file://{}", folder.path().display()),
            format!("{}", folder.path().display()),
            format!("ext::sh -c touch% {}", target.display()),
            "git://127.0.0.1:1/x".to_owned(),
            "ssh://127.0.0.1:1/x".to_owned(),
            "http://127.0.0.1:1/x".to_owned(),
        ] {
            let refused = git.run(folder.path(), ["ls-remote", "--", &url], bounds(1 << 20)).await;
            let Err(GitError::Failed(why)) = refused else { panic!("{url}: {refused:?}") };
            assert!(why.contains("not allowed"), "{url}: {why}");
        }
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn a_machine_without_git_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let git = Git::new(folder.path().display().to_string());
        let missing = git.run(folder.path(), ["version"], bounds(1 << 20)).await;
        assert!(matches!(missing, Err(GitError::Missing)), "{missing:?}");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_or_too_much_is_killed_with_its_children() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("git");
        // A program that starts another one in its group, and waits for it.
        let script = "#!/bin/sh\nPATH=/bin:/usr/bin\nhead -c 3000 /dev/zero > big\nsleep 600 & echo $! > child\nwait\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let git = Git::new(folder.path().display().to_string());
        let work = tempfile::tempdir().unwrap();
        let too_large = git.run(work.path(), ["fetch"], bounds(2000)).await;
        assert!(matches!(too_large, Err(GitError::TooLarge)), "{too_large:?}");
        let work = tempfile::tempdir().unwrap();
        let late = Bounds { deadline: Instant::now() + Duration::from_millis(500), max_bytes: 1 << 20 };
        let timed_out = git.run(work.path(), ["fetch"], late).await;
        assert!(matches!(timed_out, Err(GitError::TimedOut)), "{timed_out:?}");
        let child = fs::read_to_string(work.path().join("child")).unwrap();
        // The kill has been sent. A killed process without a waiting parent vanishes or stays a zombie for a moment.
        let stat = format!("/proc/{}/stat", child.trim());
        let gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(std::time::Instant::now() < deadline, "the child still runs");
            tokio::task::yield_now().await;
        }
    }
}
