//! Child processes that never outlive the command: each leads its own process group, is written down in a ledger
//! while it lives, and is ended with everything below it.

pub mod server;
pub mod signals;
pub(crate) mod stop;
pub(crate) mod supervision;
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

/// A log above this size is put aside (`.old`) when its process starts.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How long processes may take to vanish after SIGKILL: they only wait for the kernel.
const KILL_WAIT: Duration = Duration::from_secs(3);

/// Prefixes of what is kept back from children.
const KEPT_BACK: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "AWS_"];

/// How a process is asked to end, and how long it may take before it is killed.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub signal: Signal,
    pub grace: Duration,
}

impl Ending {
    pub const fn new(signal: Signal, grace: Duration) -> Self {
        Self { signal, grace }
    }
}

/// The processes that are alive now, on disk: what a killed `nofx` leaves behind is found by the next one.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Entry {
    name: String,
    pid: u32,
    started: String,
}

impl Ledger {
    pub fn new(path: PathBuf) -> Self {
        Self { path, entries: Arc::default() }
    }

    /// Ends what an earlier command left running; gives the names.
    pub async fn end_leftovers(&self) -> Vec<String> {
        let Ok(text) = fs::read_to_string(&self.path) else { return Vec::new() };
        let entries: Vec<Entry> = serde_json::from_str(&text).unwrap_or_default();
        let table = table::read();
        // The last started is ended first. An id that was given to another process since is left alone.
        let alive: Vec<&Entry> = entries
            .iter()
            .rev()
            .filter(|entry| table.iter().any(|row| row.pid == entry.pid && row.started == entry.started))
            .collect();
        for entry in &alive {
            // SIGINT is the fast, clean shutdown of Postgres, and every other part takes it too.
            end_tree(entry.pid, Ending::new(Signal::INT, Duration::from_secs(5))).await;
        }
        let _ = fs::remove_file(&self.path);
        alive.into_iter().map(|entry| entry.name.clone()).collect()
    }

    /// Kills everything that is written down now.
    pub async fn kill_all(&self) {
        let table = table::read();
        let pids: Vec<u32> =
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|entry| entry.pid).collect();
        let rows: Vec<Row> = pids.into_iter().flat_map(|pid| table::tree(&table, pid)).collect();
        kill_rows(&rows);
        wait_gone(&rows, KILL_WAIT).await;
    }

    /// Writes a process down.
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
        // The ledger only helps after a crash of this very command: that it cannot be written must not stop the stack.
        let temporary = self.path.with_extension("new");
        if let Ok(json) = serde_json::to_vec(&*entries)
            && fs::write(&temporary, json).is_ok()
        {
            let _ = fs::rename(&temporary, &self.path);
        }
    }
}

/// The processes below a child, as they were last seen: when the child ends first, nothing else leads to them.
#[derive(Clone, Debug, Default)]
pub struct Family(Arc<Mutex<Vec<Row>>>);

impl Family {
    /// Takes in what is below `pid` now. Who was seen before stays in: it may have lost its parent.
    pub fn see(&self, table: &[Row], pid: u32) {
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

/// A running child. Dropping it kills it and everything below it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Child,
    ending: Ending,
    ledger: Ledger,
    family: Family,
    ended: bool,
}

impl Process {
    /// Starts `command` as the leader of a process group of its own: a Ctrl-C in the terminal reaches only `nofx`,
    /// which ends its children in order.
    pub fn spawn(name: &str, mut command: Command, ending: Ending, ledger: &Ledger) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().with_context(|| format!("{name}: cannot start {}", program.display()))?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        ledger.add(name, pid);
        Ok(Self {
            name: name.to_owned(),
            pid,
            child,
            ending,
            ledger: ledger.clone(),
            family: Family::default(),
            ended: false,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What is below it; whoever can look regularly should.
    pub fn family(&self) -> Family {
        self.family.clone()
    }

    /// Waits for the process to end by itself, and ends what it leaves behind.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await.with_context(|| format!("{} is lost", self.name))?;
        self.end_family().await;
        self.forget();
        Ok(status)
    }

    /// Ends the process and everything below it: politely, and after its grace for good.
    pub async fn end(mut self) {
        if self.ended {
            return;
        }
        self.family.see(&table::read(), self.pid);
        signal_group(self.pid, self.ending.signal);
        let _ = timeout(self.ending.grace, self.child.wait()).await;
        signal_group(self.pid, Signal::KILL);
        let _ = timeout(KILL_WAIT, self.child.wait()).await;
        self.end_family().await;
        self.forget();
    }

    /// Kills what was below the process, and waits until it is gone: a signal only asks the kernel.
    async fn end_family(&self) {
        let rows = self.family.rows();
        kill_rows(&rows);
        wait_gone(&rows, KILL_WAIT).await;
    }

    fn forget(&mut self) {
        self.ended = true;
        self.ledger.remove(self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.family.see(&table::read(), self.pid);
            signal_group(self.pid, Signal::KILL);
            kill_rows(&self.family.rows());
            self.forget();
        }
    }
}

/// Runs `command` to its end; false if it failed.
pub async fn run(name: &str, command: Command, ledger: &Ledger) -> Result<bool> {
    let ending = Ending::new(Signal::TERM, Duration::from_secs(5));
    Ok(Process::spawn(name, command, ending, ledger)?.wait().await?.success())
}

/// Leaves out of `command` what cargo set for this very command (`cargo run`), which the next cargo must not see, and
/// whatever of the user's shell points at a real AWS account.
pub fn keep_back(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if KEPT_BACK.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(&name);
        }
    }
}

/// Sends the output of `command` to the end of the file `log`.
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

/// Sends `signal` to the group that `leader` leads; a group that is gone is no error.
pub fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = to_pid(leader) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Sends `signal` to one process; one that is gone is no error.
pub fn signal_one(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends a process that is no child of this one, and everything below it.
async fn end_tree(pid: u32, ending: Ending) {
    let rows = table::tree(&table::read(), pid);
    signal_group(pid, ending.signal);
    signal_one(pid, ending.signal);
    wait_gone(&rows[..rows.len().min(1)], ending.grace).await;
    kill_rows(&rows);
    wait_gone(&rows, KILL_WAIT).await;
}

/// Kills those of `rows` that still are the processes they were.
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

/// A process that is no child of ours tells nobody when it ends: it can only be looked at.
async fn wait_gone(rows: &[Row], limit: Duration) {
    let start = Instant::now();
    while start.elapsed() < limit && rows.iter().any(is_alive) {
        sleep(Duration::from_millis(20)).await;
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    // Zero and one would address this process's own group and init: never a child of ours.
    Pid::from_raw(i32::try_from(pid).ok()?).filter(|pid| pid.as_raw_nonzero().get() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell, and below it one in a process group of its own, whose 100 MB take the kernel some time to take back.
    const SLOW_TO_DIE: &str = r"set -m
        (x=$(head -c 100000000 /dev/zero | tr '\0' x); : > ready; sleep 1000; echo $x) &
        wait";

    async fn shell(dir: &Path) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SLOW_TO_DIE]).current_dir(dir);
        let ledger = Ledger::new(dir.join("pids.json"));
        let process = Process::spawn("shell", command, Ending::new(Signal::TERM, KILL_WAIT), &ledger).unwrap();
        while !dir.join("ready").exists() {
            sleep(Duration::from_millis(10)).await;
        }
        process
    }

    #[tokio::test]
    async fn an_ended_process_has_left_nothing_behind_when_its_end_returns() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell(dir.path()).await;
        let below = table::tree(&table::read(), process.pid());
        assert!(below.len() >= 3, "{below:?}");
        process.end().await;
        let alive: Vec<_> = below.into_iter().filter(is_alive).collect();
        assert_eq!(alive, []);
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_takes_along_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell(dir.path()).await;
        let table = table::read();
        process.family().see(&table, process.pid());
        let below = table::tree(&table, process.pid());
        signal_one(process.pid(), Signal::KILL);
        process.wait().await.unwrap();
        let alive: Vec<_> = below.into_iter().filter(is_alive).collect();
        assert_eq!(alive, []);
    }
}
