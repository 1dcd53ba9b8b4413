//! The processes of this machine: who is whose child, and whether a process id still means the same process.

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
    /// The name of the program; Linux cuts it to 15 bytes.
    pub program: String,
    /// When the process started, in whatever unit the system gives: together with the id it names a process for good.
    pub started: String,
}

/// All live processes; zombies are dead. An unreadable table is an empty one.
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

/// The command line of a process, its arguments separated by spaces; empty if it is gone.
pub fn arguments(pid: u32) -> String {
    if cfg!(target_os = "linux") {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        return String::from_utf8_lossy(&bytes).replace('\0', " ");
    }
    let output = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// A table that holds this process and everything that was ever seen below it, at least; read again every `period` for as long as somebody looks: no
/// system tells a process when the child of another one ends.
pub fn census(period: Duration) -> watch::Receiver<Arc<Vec<Row>>> {
    let (sender, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut census = Census::of(std::process::id());
        loop {
            tokio::select! {
                () = sender.closed() => return,
                _ = ticks.tick() => {}
            }
            let counted = tokio::task::spawn_blocking(move || {
                let some = |pids: &[u32]| pids.iter().copied().filter_map(find).collect();
                // `ps` reads all of them anyway.
                let table = if cfg!(target_os = "linux") { census.count(&pids(), some) } else { read_ps() };
                (census, table)
            });
            let Ok((next, table)) = counted.await else { return };
            census = next;
            sender.send_replace(Arc::new(table));
        }
    });
    receiver
}

/// Counts a family again and again without reading every process of the machine each time.
#[derive(Debug)]
struct Census {
    root: u32,
    /// Processes of others, which need not be read again soon.
    strangers: BTreeSet<u32>,
    family: BTreeSet<u32>,
    counts: u32,
}

impl Census {
    /// An id may pass from a stranger to a relative between two counts: it is read again after so many.
    const FULL_EVERY: u32 = 25;

    fn of(root: u32) -> Self {
        Self { root, strangers: BTreeSet::new(), family: BTreeSet::new(), counts: 0 }
    }

    /// The rows of the family among the processes `alive`, of which `read` gives the rows.
    fn count(&mut self, alive: &[u32], read: impl Fn(&[u32]) -> Vec<Row>) -> Vec<Row> {
        if self.counts.is_multiple_of(Self::FULL_EVERY) {
            self.strangers.clear();
        }
        self.counts = self.counts.wrapping_add(1);
        let unknown: Vec<u32> = alive.iter().copied().filter(|pid| !self.strangers.contains(pid)).collect();
        let rows = read(&unknown);
        // Who was of the family stays: it may have lost the parent through which it belonged.
        let mut family: BTreeSet<u32> = tree(&rows, self.root).into_iter().map(|row| row.pid).collect();
        family.extend(rows.iter().map(|row| row.pid).filter(|pid| self.family.contains(pid)));
        self.strangers = alive.iter().copied().filter(|pid| !family.contains(pid)).collect();
        self.family = family;
        rows.into_iter().filter(|row| self.family.contains(&row.pid)).collect()
    }
}

/// `pid` and everything below it, parents first.
pub fn tree(table: &[Row], pid: u32) -> Vec<Row> {
    let mut ids = BTreeSet::from([pid]);
    let mut rows: Vec<Row> = table.iter().filter(|row| row.pid == pid).cloned().collect();
    // A table holds no cycle, but it is not a snapshot either: a pass that adds nothing ends the walk.
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

/// The ids of all processes, of Linux.
fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// `pid (program) state parent ... starttime ...`; the program's name may hold spaces and parentheses.
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
    fn a_tree_holds_grandchildren_and_no_strangers() {
        let row = |pid, parent| Row { pid, parent, program: String::new(), started: String::new() };
        let table = [row(1, 0), row(10, 1), row(13, 12), row(12, 10), row(20, 1)];
        let ids: Vec<u32> = tree(&table, 10).iter().map(|row| row.pid).collect();
        assert_eq!(ids, [10, 12, 13]);
    }

    #[test]
    fn a_census_reads_strangers_once_and_misses_no_relative() {
        let row = |pid, parent| Row { pid, parent, program: String::new(), started: String::new() };
        let mut census = Census::of(10);
        let mut count = |table: &[Row]| {
            let alive: Vec<u32> = table.iter().map(|row| row.pid).collect();
            let read = std::cell::RefCell::new(Vec::new());
            let counted = census.count(&alive, |pids| {
                read.borrow_mut().extend_from_slice(pids);
                table.iter().filter(|row| pids.contains(&row.pid)).cloned().collect()
            });
            (counted.iter().map(|row| row.pid).collect::<Vec<_>>(), read.into_inner())
        };
        let (one, ten, eleven, stranger) = (row(1, 0), row(10, 1), row(11, 10), row(20, 1));
        let mut table = vec![one, ten, eleven, stranger];
        assert_eq!(count(&table), (vec![10, 11], vec![1, 10, 11, 20]));
        assert_eq!(count(&table), (vec![10, 11], vec![10, 11]));
        // A grandchild comes; then its parent ends and init takes it.
        table.push(row(12, 11));
        assert_eq!(count(&table), (vec![10, 11, 12], vec![10, 11, 12]));
        table.retain(|row| row.pid != 11);
        table[3].parent = 1;
        assert_eq!(count(&table), (vec![10, 12], vec![10, 12]));
        // A new stranger is read once; the id of an old one may come to a relative.
        table.push(row(21, 1));
        assert_eq!(count(&table).1, [10, 12, 21]);
        table[2] = row(20, 10);
        let found = (0..Census::FULL_EVERY).any(|_| count(&table).0.contains(&20));
        assert!(found);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = find(std::process::id()).expect("this process");
        assert!(read().contains(&me));
    }
}
