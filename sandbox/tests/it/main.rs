//! Attacks on the sandbox and honest work in it, at every level that the host offers.
#![cfg(target_os = "linux")]

mod files;
mod host_user;
mod lifecycle;
mod limits;
mod network;
mod processes;
mod tools;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nofx_sandbox::{Command, Exit, Finished, Host, Level, SandboxError, host, set_launcher};
use tempfile::TempDir;

/// The levels that this host offers, strongest first.
fn levels() -> Vec<Level> {
    prepare();
    [Level::Namespaces, Level::Landlock, Level::Limits].into_iter().filter(|level| host().level() >= *level).collect()
}

/// The levels that keep files, network and system calls away.
fn closed_levels() -> Vec<Level> {
    levels().into_iter().filter(|level| *level > Level::Limits).collect()
}

fn prepare() {
    set_launcher(PathBuf::from(env!("CARGO_BIN_EXE_nofx-sandbox")));
}

fn at(level: Level) -> Host {
    host().at(level)
}

/// A folder that commands may write, and the tools of the system.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new() -> Self {
        prepare();
        let folder = tempfile::Builder::new().prefix("nofx-sandbox-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, level: Level, argv: &[&str]) -> Command {
        let path = "/usr/local/bin:/usr/bin:/bin";
        let mut command = Command::new(argv.iter().map(ToString::to_string).collect(), self.path().to_owned());
        command.read_only = nofx_sandbox::toolchain(path.as_ref()).read_only;
        command.writable = vec![self.path().to_owned()];
        let folder = self.path().display().to_string();
        let variables = [("PATH", path), ("HOME", &folder), ("TMPDIR", &folder), ("OWN_CANARY", "kiwi")];
        command.environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        command.timeout = Duration::from_secs(30);
        command.at_most = Some(at(level));
        command
    }

    fn shell(&self, level: Level, script: &str) -> Command {
        self.command(level, &["sh", "-c", script])
    }

    fn python(&self, level: Level, script: &str) -> Command {
        self.command(level, &["/usr/bin/python3", "-I", "-c", script])
    }

    /// A file that the command opens for writing, and whose end tells that no process of the command is left.
    fn fifo(&self) -> PathBuf {
        let path = self.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        path
    }
}

fn run_blocking(command: &Command) -> Result<Finished, SandboxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(nofx_sandbox::run(command))
}

/// Runs a command that must start and returns what it printed.
fn printed(command: &Command) -> String {
    let finished = run_blocking(command).unwrap();
    let text = text(&finished);
    assert_eq!(finished.exit, Exit::Code(0), "{text}\n{:?}", finished.report);
    text
}

fn text(finished: &Finished) -> String {
    let bytes = [&finished.output.head[..], &finished.output.tail].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a process of this machine has a text in its command line.
fn is_running(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // The test's own process does not have the marker: it is computed.
        String::from_utf8_lossy(&line).contains(marker)
    })
}

/// A text that no other process has.
fn marker(name: &str) -> String {
    format!("marker-{name}-{}", std::process::id())
}
