//! The process table of this machine: parents, children, and whether an id still belongs to the same process.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// One row of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub pid: u32,
    pub parent: u32,
    /// Name of the program. Linux cuts it to 15 bytes.
    pub program: String,
    /// Start time, in a unit of the system. Together with the id it identifies a process.
    pub started: String,
}

/// All live processes, without zombies. Empty if the table cannot be read.
pub fn read() -> Vec<Row> {
    if cfg!(target_os = "linux") { read_proc() } else { read_ps() }
}

/// The row of one process.
pub fn find(pid: u32) -> Option<Row> {
    if cfg!(target_os = "linux") {
        return parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    }
    read_ps().into_iter().find(|row| row.pid == pid)
}

/// The arguments of a process, separated by spaces. Empty if it is gone.
pub fn arguments(pid: u32) -> String {
    if cfg!(target_os = "linux") {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        return String::from_utf8_lossy(&bytes).replace('\0', " ");
    }
    let output = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// A table with at least this process and its descendants, also those that lost their parent. It is read every `period`
/// while the receiver exists, because the kernel notifies only a parent when a process ends.
pub fn poll(period: Duration) -> watch::Receiver<Arc<Vec<Row>>> {
    let (sender, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut scanner = Scanner::of(std::process::id());
        loop {
            tokio::select! {
                () = sender.closed() => return,
                _ = ticks.tick() => {}
            }
            let polled = tokio::task::spawn_blocking(move || {
                let some = |pids: &[u32]| pids.iter().copied().filter_map(find).collect();
                // `ps` reads all processes anyway.
                let table = if cfg!(target_os = "linux") { scanner.scan(&pids(), some) } else { read_ps() };
                (scanner, table)
            });
            let Ok((next, table)) = polled.await else { return };
            scanner = next;
            sender.send_replace(Arc::new(table));
        }
    });
    receiver
}

/// Reads the processes of a family repeatedly, without reading every process of the machine each time.
#[derive(Debug)]
struct Scanner {
    root: u32,
    /// Ids of other processes, which are not read again soon.
    unrelated: BTreeSet<u32>,
    related: BTreeSet<u32>,
    scans: u32,
}

impl Scanner {
    /// The id of an unrelated process may be reused by a related one, so all ids are read again after this many scans.
    const FULL_SCAN_EVERY: u32 = 25;

    fn of(root: u32) -> Self {
        Self { root, unrelated: BTreeSet::new(), related: BTreeSet::new(), scans: 0 }
    }

    /// The rows of related processes among the ids `alive`. `read` reads rows.
    fn scan(&mut self, alive: &[u32], read: impl Fn(&[u32]) -> Vec<Row>) -> Vec<Row> {
        if self.scans.is_multiple_of(Self::FULL_SCAN_EVERY) {
            self.unrelated.clear();
        }
        self.scans = self.scans.wrapping_add(1);
        let unknown: Vec<u32> = alive.iter().copied().filter(|pid| !self.unrelated.contains(pid)).collect();
        let rows = read(&unknown);
        // A related process stays related, because it may have lost its parent.
        let mut related: BTreeSet<u32> = tree(&rows, self.root).into_iter().map(|row| row.pid).collect();
        related.extend(rows.iter().map(|row| row.pid).filter(|pid| self.related.contains(pid)));
        self.unrelated = alive.iter().copied().filter(|pid| !related.contains(pid)).collect();
        self.related = related;
        rows.into_iter().filter(|row| self.related.contains(&row.pid)).collect()
    }
}

/// `pid` and its descendants, parents first.
pub fn tree(table: &[Row], pid: u32) -> Vec<Row> {
    let mut ids = BTreeSet::from([pid]);
    let mut rows: Vec<Row> = table.iter().filter(|row| row.pid == pid).cloned().collect();
    // The table is not a snapshot and could contain a cycle, so stop when a pass adds nothing.
    loop {
        let found: Vec<Row> =
            table.iter().filter(|row| ids.contains(&row.parent) && !ids.contains(&row.pid)).cloned().collect();
        if found.is_empty() {
            return rows;
        }
        ids.extend(found.iter().map(|row| row.pid));
        rows.extend(found);
    }
}

fn read_proc() -> Vec<Row> {
    pids().into_iter().filter_map(find).collect()
}

/// The ids of all processes, on Linux.
fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Parses `pid (program) state parent ... starttime ...`. The program's name may contain spaces and parentheses.
fn parse_stat(stat: &str) -> Option<Row> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (pid, program) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
    if matches!(*state, "Z" | "X") {
        return None;
    }
    Some(Row {
        pid: pid.trim().parse().ok()?,
        parent: parent.parse().ok()?,
        program: program.to_owned(),
        started: (*started).to_owned(),
    })
}

fn read_ps() -> Vec<Row> {
    let output = Command::new("ps").args(["-axo", "pid=,ppid=,stat=,lstart=,comm="]).output();
    let Ok(output) = output else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_ps).collect()
}

/// `pid parent state Mon Nov 23 01:27:00 2026 /path/of/program`.
fn parse_ps(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let (pid, parent, state) = (words.next()?, words.next()?, words.next()?);
    if state.starts_with('Z') {
        return None;
    }
    let started = words.by_ref().take(5).collect::<Vec<_>>().join(" ");
    let program = words.collect::<Vec<_>>().join(" ");
    Some(Row {
        pid: pid.parse().ok()?,
        parent: parent.parse().ok()?,
        program: program.rsplit('/').next()?.to_owned(),
        started,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_parentheses_and_spaces_is_read_from_stat() {
        let row = parse_stat("12 (a) b (c) S 3 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2").unwrap();
        assert_eq!((row.pid, row.parent), (12, 3));
        assert_eq!((row.program.as_str(), row.started.as_str()), ("a) b (c", "9876"));
        assert!(parse_stat("12 (dead) Z 3 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2").is_none());
    }

    #[test]
    fn a_line_of_ps_is_read() {
        let row = parse_ps("  501     1 Ss   Mon Nov 23 01:27:00 2026     /Applications/My App/bin/echo").unwrap();
        assert_eq!((row.pid, row.parent, row.program.as_str()), (501, 1, "echo"));
        assert_eq!(row.started, "Mon Nov 23 01:27:00 2026");
    }

    #[test]
    fn a_tree_contains_grandchildren_and_no_unrelated_processes() {
        let row = |pid, parent| Row { pid, parent, program: String::new(), started: String::new() };
        let table = [row(1, 0), row(10, 1), row(13, 12), row(12, 10), row(20, 1)];
        let ids: Vec<u32> = tree(&table, 10).iter().map(|row| row.pid).collect();
        assert_eq!(ids, [10, 12, 13]);
    }

    #[test]
    fn a_scanner_reads_unrelated_processes_once_and_misses_no_related_one() {
        let row = |pid, parent| Row { pid, parent, program: String::new(), started: String::new() };
        let mut scanner = Scanner::of(10);
        let mut count = |table: &[Row]| {
            let alive: Vec<u32> = table.iter().map(|row| row.pid).collect();
            let read = std::cell::RefCell::new(Vec::new());
            let rows = scanner.scan(&alive, |pids| {
                read.borrow_mut().extend_from_slice(pids);
                table.iter().filter(|row| pids.contains(&row.pid)).cloned().collect()
            });
            (rows.iter().map(|row| row.pid).collect::<Vec<_>>(), read.into_inner())
        };
        let (one, ten, eleven, other) = (row(1, 0), row(10, 1), row(11, 10), row(20, 1));
        let mut table = vec![one, ten, eleven, other];
        assert_eq!(count(&table), (vec![10, 11], vec![1, 10, 11, 20]));
        assert_eq!(count(&table), (vec![10, 11], vec![10, 11]));
        // A grandchild starts. Then its parent ends, and init becomes its parent.
        table.push(row(12, 11));
        assert_eq!(count(&table), (vec![10, 11, 12], vec![10, 11, 12]));
        table.retain(|row| row.pid != 11);
        table[3].parent = 1;
        assert_eq!(count(&table), (vec![10, 12], vec![10, 12]));
        // A new unrelated process is read once. The id of an old one may be reused by a related one.
        table.push(row(21, 1));
        assert_eq!(count(&table).1, [10, 12, 21]);
        table[2] = row(20, 10);
        let found = (0..Scanner::FULL_SCAN_EVERY).any(|_| count(&table).0.contains(&20));
        assert!(found);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = find(std::process::id()).expect("this process");
        assert!(read().contains(&me));
    }
}
