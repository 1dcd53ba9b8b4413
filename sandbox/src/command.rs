//! What to run, and what it may use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::identity::Identity;

/// How strongly a command is isolated. The order is from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Resource limits, a uid of its own if the host is root, and everything killed at the end. Files are readable as their
    /// modes say.
    Limits,
    /// Landlock for files and signals, and a seccomp filter.
    Landlock,
    /// Namespaces: the command sees only its own files, processes and loopback. Landlock and seccomp apply inside if the host
    /// has them.
    Namespaces,
}

impl Level {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Landlock => "landlock",
            Self::Namespaces => "namespaces",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// No network. At the level `namespaces` the command has a loopback of its own.
    None,
    /// The network of the host, its loopback included.
    Open,
}

/// Resource limits. `None` leaves a limit as the host has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of each process.
    pub cpu: Option<Duration>,
    /// Memory of all processes together. The launcher measures it every 50 ms and kills the command.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at the same time.
    pub processes: Option<u64>,
    /// Size of each file.
    pub file_bytes: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// What the command may write to `/tmp` and `/dev/shm` of the sandbox, each, and to the writable paths together. The
    /// launcher measures the writable paths every second and kills the command.
    pub disk_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self {
            cpu: None,
            memory_bytes: Some(4 * GIB),
            processes: Some(1024),
            file_bytes: Some(2 * GIB),
            open_files: Some(4096),
            disk_bytes: Some(8 * GIB),
        }
    }
}

/// How much of the start and the end of the output to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputBounds {
    pub head_bytes: usize,
    pub tail_bytes: usize,
    /// How much of the output to write to `Command::log` and to `Command::stdout`, each.
    pub file_bytes: u64,
}

impl Default for OutputBounds {
    fn default() -> Self {
        Self { head_bytes: 8 * 1024, tail_bytes: 64 * 1024, file_bytes: 64 * 1024 * 1024 }
    }
}

/// When a companion counts as started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It accepts a TCP connection.
    Tcp,
    /// It answers `GET path` with a status below 400.
    Http { path: String },
}

/// A program that runs beside the command in the same sandbox, for example a stub of a service. It starts before the command
/// and is killed after it. Its output goes to the output of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    pub name: String,
    pub argv: Vec<String>,
    pub current_dir: PathBuf,
    /// Its complete environment.
    pub environment: Vec<(String, String)>,
    /// The variable that holds its port on 127.0.0.1, in its own environment and in the command's.
    pub port_variable: String,
    pub health: Health,
    pub start_timeout: Duration,
}

/// One untrusted command.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments. The program is looked up in the PATH of `environment`.
    pub argv: Vec<String>,
    pub current_dir: PathBuf,
    /// The complete environment. The command inherits no variable.
    pub environment: Vec<(String, String)>,
    pub timeout: Duration,
    /// Files and folders that the command may read and execute. Paths that do not exist are skipped.
    pub read_only: Vec<PathBuf>,
    /// Files inside of read-only folders that the command must not read. They are empty at the level `namespaces`. Below it,
    /// the report names them if the command can read them.
    pub hidden: Vec<PathBuf>,
    /// Files and folders that the command may change. They must exist. A read-only path inside a writable one stays read-only
    /// at the level `namespaces` and cannot be renamed or removed there.
    pub writable: Vec<PathBuf>,
    pub network: Network,
    pub limits: Limits,
    pub output: OutputBounds,
    /// A file for the whole output, as far as `OutputBounds::file_bytes`.
    pub log: Option<PathBuf>,
    /// A file for the standard output alone. If it is given, the two streams are read apart, and `Output` has them in the order
    /// of arrival instead of the order of writing.
    pub stdout: Option<PathBuf>,
    /// The weakest acceptable level.
    pub minimum: Level,
    pub companions: Vec<Companion>,
    /// The uid to run as, which must own the writable paths. If none is given and the process is root, [`crate::run`] takes a free
    /// one, gives it the writable paths, and takes them back at the end.
    pub identity: Option<Arc<Identity>>,
    /// What to use of the host at most. Tests use it to force a lower level.
    pub at_most: Option<Host>,
}

impl Command {
    /// A command without access to anything, with default limits.
    pub fn new(argv: Vec<String>, current_dir: PathBuf) -> Self {
        Self {
            argv,
            current_dir,
            environment: Vec::new(),
            timeout: Duration::from_mins(10),
            read_only: Vec::new(),
            hidden: Vec::new(),
            writable: Vec::new(),
            network: Network::None,
            limits: Limits::default(),
            output: OutputBounds::default(),
            log: None,
            stdout: None,
            minimum: Level::Limits,
            companions: Vec::new(),
            identity: None,
            at_most: None,
        }
    }
}
