//! Child processes that never outlive the command. Each leads its own process group, is listed in a PID file while it
//! runs, and is ended together with its descendants.

pub mod server;
pub mod signals;
pub(crate) mod stop;
pub mod supervision;
pub mod table;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use self::table::Row;

/// A larger log is renamed to `.log.old` when its process starts.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Longest wait for a process to disappear after SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(3);

/// Prefixes of variables that child processes do not inherit.
const CLEARED_PREFIXES: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "AWS_"];

/// The signal that ends a process, and how long it may take before it is killed.
#[derive(Clone, Copy, Debug)]
pub struct Termination {
    pub signal: Signal,
    pub grace: Duration,
}

impl Termination {
    pub const fn new(signal: Signal, grace: Duration) -> Self {
        Self { signal, grace }
    }
}

/// A file that lists the running processes, so that the next `nofx` finds what a killed one left behind.
#[derive(Clone, Debug)]
pub struct PidFile {
    path: PathBuf,
    entries: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Entry {
    name: String,
    pid: u32,
    started: String,
}

impl PidFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, entries: Arc::default() }
    }

    /// Ends processes that an earlier command left running. Returns their names.
    pub async fn end_leftovers(&self) -> Vec<String> {
        let Ok(text) = fs::read_to_string(&self.path) else { return Vec::new() };
        let entries: Vec<Entry> = serde_json::from_str(&text).unwrap_or_default();
        let table = table::read();
        // Last started, first ended. An id that now belongs to another process is skipped.
        let alive: Vec<&Entry> = entries
            .iter()
            .rev()
            .filter(|entry| table.iter().any(|row| row.pid == entry.pid && row.started == entry.started))
            .collect();
        for entry in &alive {
            // SIGINT is the fast shutdown of Postgres, and ends every other part too.
            end_tree(entry.pid, Termination::new(Signal::INT, Duration::from_secs(5))).await;
        }
        let _ = fs::remove_file(&self.path);
        alive.into_iter().map(|entry| entry.name.clone()).collect()
    }

    /// Kills all listed processes and their descendants.
    pub async fn kill_all(&self) {
        let table = table::read();
        let pids: Vec<u32> =
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|entry| entry.pid).collect();
        let rows: Vec<Row> = pids.into_iter().flat_map(|pid| table::tree(&table, pid)).collect();
        kill_rows(&rows);
        wait_gone(&rows, KILL_WAIT).await;
    }

    /// Adds a process to the file.
    pub fn add(&self, name: &str, pid: u32) {
        let started = table::find(pid).map(|row| row.started).unwrap_or_default();
        self.change(|entries| entries.push(Entry { name: name.to_owned(), pid, started }));
    }

    fn remove(&self, pid: u32) {
        self.change(|entries| entries.retain(|entry| entry.pid != pid));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        // The file only helps after a crash of this command, so a failed write must not stop the stack.
        let temporary = self.path.with_extension("new");
        if let Ok(json) = serde_json::to_vec(&*entries)
            && fs::write(&temporary, json).is_ok()
        {
            let _ = fs::rename(&temporary, &self.path);
        }
    }
}

/// The known descendants of a child. After the child has ended, the process table no longer shows whose descendants
/// they are.
#[derive(Clone, Debug, Default)]
pub struct Descendants(Arc<Mutex<Vec<Row>>>);

impl Descendants {
    /// Adds the current descendants of `pid`. Known ones stay while they run, because they may have lost their parent.
    pub fn update(&self, table: &[Row], pid: u32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|row| table.contains(row));
        for row in table::tree(table, pid) {
            if row.pid != pid && !known.contains(&row) {
                known.push(row);
            }
        }
    }

    fn rows(&self) -> Vec<Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running child. Dropping it kills it and its descendants.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Child,
    termination: Termination,
    pid_file: PidFile,
    descendants: Descendants,
    ended: bool,
}

impl Process {
    /// Starts `command` as the leader of its own process group. So Ctrl-C in the terminal reaches only `nofx`, which
    /// ends its children in order.
    pub fn spawn(name: &str, mut command: Command, termination: Termination, pid_file: &PidFile) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().with_context(|| format!("{name}: cannot start {}", program.display()))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        pid_file.add(name, pid);
        Ok(Self {
            name: name.to_owned(),
            pid,
            child,
            termination,
            pid_file: pid_file.clone(),
            descendants: Descendants::default(),
            ended: false,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its descendants. Update them regularly.
    pub fn descendants(&self) -> Descendants {
        self.descendants.clone()
    }

    /// Waits until the process ends by itself, and kills its descendants.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await.with_context(|| format!("{} is lost", self.name))?;
        self.kill_descendants().await;
        self.forget();
        Ok(status)
    }

    /// Ends the process and its descendants: with its signal, and after the grace period with SIGKILL.
    pub async fn end(mut self) {
        if self.ended {
            return;
        }
        self.descendants.update(&table::read(), self.pid);
        signal_group(self.pid, self.termination.signal);
        let _ = timeout(self.termination.grace, self.child.wait()).await;
        signal_group(self.pid, Signal::KILL);
        let _ = timeout(KILL_WAIT, self.child.wait()).await;
        self.kill_descendants().await;
        self.forget();
    }

    /// Kills the descendants and waits until they are gone.
    async fn kill_descendants(&self) {
        let rows = self.descendants.rows();
        kill_rows(&rows);
        wait_gone(&rows, KILL_WAIT).await;
    }

    fn forget(&mut self) {
        self.ended = true;
        self.pid_file.remove(self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.descendants.update(&table::read(), self.pid);
            signal_group(self.pid, Signal::KILL);
            kill_rows(&self.descendants.rows());
            self.forget();
        }
    }
}

/// Runs `command` to its end. False if it failed.
pub async fn run(name: &str, command: Command, pid_file: &PidFile) -> Result<bool> {
    let termination = Termination::new(Signal::TERM, Duration::from_secs(5));
    Ok(Process::spawn(name, command, termination, pid_file)?.wait().await?.success())
}

/// Removes inherited variables from `command`: those of `cargo run`, which would confuse a nested cargo, and those that
/// point to a real AWS account.
pub fn clear_inherited_env(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if CLEARED_PREFIXES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(&name);
        }
    }
}

/// Appends the output of `command` to the file `log`.
pub fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_MAX_BYTES) {
        let _ = fs::rename(log, log.with_extension("log.old"));
    }
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file.try_clone().context("cannot share a log file")?;
    command.stdout(file).stderr(copy);
    Ok(())
}

/// Sends `signal` to the process group of `leader`. Does nothing if it is gone.
pub fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = to_pid(leader) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Sends `signal` to one process. Does nothing if it is gone.
pub fn signal_one(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends a process that is not a child of this one, and its descendants.
async fn end_tree(pid: u32, termination: Termination) {
    let rows = table::tree(&table::read(), pid);
    signal_group(pid, termination.signal);
    signal_one(pid, termination.signal);
    wait_gone(&rows[..rows.len().min(1)], termination.grace).await;
    kill_rows(&rows);
    wait_gone(&rows, KILL_WAIT).await;
}

/// Kills the processes of `rows`, unless their ids now belong to others.
fn kill_rows(rows: &[Row]) {
    for row in rows {
        if is_alive(row) {
            signal_one(row.pid, Signal::KILL);
        }
    }
}

fn is_alive(row: &Row) -> bool {
    table::find(row.pid).is_some_and(|now| now.started == row.started)
}

/// Polls until the processes are gone, because the kernel notifies only the parent.
async fn wait_gone(rows: &[Row], limit: Duration) {
    let start = Instant::now();
    while start.elapsed() < limit && rows.iter().any(is_alive) {
        sleep(Duration::from_millis(20)).await;
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    // Zero and one are this process's own group and init.
    Pid::from_raw(i32::try_from(pid).ok()?).filter(|pid| pid.as_raw_nonzero().get() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell with a child shell in its own process group. Freeing the child's 100 MB takes the kernel some time.
    const SLOW_TO_DIE: &str = r"set -m
        (x=$(head -c 100000000 /dev/zero | tr '\0' x); : > ready; sleep 1000; echo $x) &
        wait";

    async fn shell(dir: &Path) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SLOW_TO_DIE]).current_dir(dir);
        let pid_file = PidFile::new(dir.join("pids.json"));
        let process = Process::spawn("shell", command, Termination::new(Signal::TERM, KILL_WAIT), &pid_file).unwrap();
        // The child is ready before it has started `sleep`.
        while !dir.join("ready").exists() || table::tree(&table::read(), process.pid()).len() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        process
    }

    #[tokio::test]
    async fn no_descendant_is_left_when_end_returns() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell(dir.path()).await;
        let below = table::tree(&table::read(), process.pid());
        assert!(below.len() >= 3, "{below:?}");
        process.end().await;
        let alive: Vec<_> = below.into_iter().filter(is_alive).collect();
        assert_eq!(alive, []);
    }

    #[tokio::test]
    async fn the_descendants_of_a_process_that_ends_by_itself_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(dir.path()).await;
        let table = table::read();
        process.descendants().update(&table, process.pid());
        let below = table::tree(&table, process.pid());
        signal_one(process.pid(), Signal::KILL);
        process.wait().await.unwrap();
        let alive: Vec<_> = below.into_iter().filter(is_alive).collect();
        assert_eq!(alive, []);
    }
}
