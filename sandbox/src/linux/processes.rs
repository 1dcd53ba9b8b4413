//! The processes of a sandbox: listing, measuring, waiting and killing.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open};

use super::privileges;

/// Which processes are the command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of this PID namespace but this process, which is its first.
    Namespace,
    /// All with this uid. Nobody else uses it.
    Uid(u32),
    /// The descendants of this process. As a sub-reaper it inherits those whose parents died.
    Descendants,
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Waits until a child ended, the channel closed, or the time is over. Returns whether the channel closed.
pub(crate) fn wait_ready(child: Pid, channel: impl AsFd, timeout: Option<Duration>) -> bool {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // Without a handle the child has been reaped, so there is nothing to wait for.
    let Ok(handle) = pidfd_open(child, PidfdFlags::empty()) else { return false };
    // The kernel always reports a hang-up. Frames for the next launcher must not wake this one.
    let mut fds = [PollFd::new(&channel, PollFlags::empty()), PollFd::new(&handle, PollFlags::IN)];
    poll(&mut fds, timeout.as_ref()).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// What `/proc` tells about a process.
struct Process {
    pid: Pid,
    parent: i32,
    is_zombie: bool,
    threads: u64,
}

fn all() -> Vec<Process> {
    pids().into_iter().filter_map(read).collect()
}

fn pids() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw).collect()
}

fn read(pid: Pid) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is a name in brackets, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads = fields.nth(15)?.parse().ok()?;
    // A process whose first thread ended looks like a zombie too. Its other threads live.
    Some(Process { pid, parent, is_zombie: matches!(state, "Z" | "X") && threads <= 1, threads })
}

/// Whether a process has an effective uid. It owns the folder, also if the process hides its memory.
fn has_uid(pid: Pid, uid: u32) -> bool {
    fs::metadata(format!("/proc/{}", pid.as_raw_nonzero())).is_ok_and(|metadata| metadata.uid() == uid)
}

/// How many tasks the kernel counts for a uid.
pub(super) fn tasks_of(uid: u32) -> u64 {
    pids().into_iter().filter(|pid| has_uid(*pid, uid)).filter_map(read).map(|process| process.threads).sum()
}

/// The living processes of the command.
pub(crate) fn members(scope: Scope) -> Vec<Pid> {
    let own = rustix::process::getpid();
    if let Scope::Uid(uid) = scope {
        let owned = pids().into_iter().filter(|pid| *pid != own && has_uid(*pid, uid)).filter_map(read);
        return owned.filter(|process| !process.is_zombie).map(|process| process.pid).collect();
    }
    let processes: Vec<Process> = all().into_iter().filter(|process| process.pid != own).collect();
    let living = processes.iter().filter(|process| !process.is_zombie);
    match scope {
        Scope::Namespace | Scope::Uid(_) => living.map(|process| process.pid).collect(),
        Scope::Descendants => {
            let mut family = HashSet::from([own.as_raw_nonzero().get()]);
            loop {
                let before = family.len();
                let children = processes.iter().filter(|process| family.contains(&process.parent));
                let children: Vec<i32> = children.map(|process| process.pid.as_raw_nonzero().get()).collect();
                family.extend(children);
                if family.len() == before {
                    break;
                }
            }
            living.map(|process| process.pid).filter(|pid| family.contains(&pid.as_raw_nonzero().get())).collect()
        }
    }
}

/// Memory that only these processes use, plus memory that they share with each other. Program files do not count.
pub(crate) fn memory_bytes(pids: &[Pid], limit: u64) -> u64 {
    // The fast measure counts a shared page once for each process. It is exact enough below the limit.
    let fast: u64 = pids.iter().map(|pid| sum_kib(*pid, "status", &["RssAnon:", "RssShmem:"]).unwrap_or(0)).sum();
    if fast * 1024 <= limit {
        return fast * 1024;
    }
    let exact = |pid: &Pid| {
        let proportional = sum_kib(*pid, "smaps_rollup", &["Pss_Anon:", "Pss_Shmem:"]);
        // A process can hide its exact measure, but not the fast one.
        proportional.or_else(|| sum_kib(*pid, "status", &["RssAnon:", "RssShmem:"])).unwrap_or(0)
    };
    pids.iter().map(exact).sum::<u64>() * 1024
}

fn sum_kib(pid: Pid, file: &str, names: &[&str]) -> Option<u64> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    if let Some(sum) = fs::read_to_string(format!("{folder}/{file}")).ok().and_then(|text| sum_lines(&text, names)) {
        return Some(sum);
    }
    // The first thread ended, and its files are empty. The other threads have the same memory.
    let threads = fs::read_dir(format!("{folder}/task")).ok()?.flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok())
        .find_map(|text| sum_lines(&text, names))
}

fn sum_lines(text: &str, names: &[&str]) -> Option<u64> {
    let value = |name: &&str| {
        let line = text.lines().find_map(|line| line.strip_prefix(*name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let values: Vec<u64> = names.iter().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills all processes of the command and reaps them. Returns how many there were, and how many are left after ten seconds.
pub(crate) fn kill_all(scope: Scope) -> (u32, u32) {
    // The end of process 1 kills its namespace.
    if scope == Scope::Namespace {
        return (count(members(scope).len()), 0);
    }
    if members(scope).is_empty() {
        reap_the_dead();
        return (0, 0);
    }
    let mut seen = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        stop_and_kill(scope, &mut seen);
        if let Scope::Uid(uid) = scope
            && !seen.is_empty()
        {
            kill_uid(uid);
        }
        reap();
        let left = members(scope);
        if left.is_empty() {
            reap_the_dead();
        }
        if left.is_empty() || Instant::now() > deadline {
            return (count(seen.len()), count(left.len()));
        }
        wait_briefly(left[0]);
    }
}

/// Kills processes whose launcher died. They are not children of this process, which has others that it must not reap.
pub(crate) fn kill_orphans(uid: u32) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(first) = members(Scope::Uid(uid)).first()
        && Instant::now() < deadline
    {
        stop_and_kill(Scope::Uid(uid), &mut HashSet::new());
        wait_briefly(*first);
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Waits until a process ended, which need not be a child, or a short time is over.
fn wait_briefly(pid: Pid) {
    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&MOMENT));
    }
}

/// Stops all processes until no new one appears, then kills them. A stopped process cannot fork.
fn stop_and_kill(scope: Scope, seen: &mut HashSet<i32>) {
    const ROUNDS: usize = 100;
    let mut stopped = HashSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<Pid> =
            members(scope).into_iter().filter(|pid| stopped.insert(pid.as_raw_nonzero().get())).collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            let _ = kill_process(pid, Signal::STOP);
        }
    }
    for pid in members(scope) {
        let _ = kill_process(pid, Signal::KILL);
    }
    seen.extend(stopped);
}

/// Sends one signal to all processes of a uid. The kernel does it under a lock, so that a process that forks cannot run ahead. The
/// processes must be stopped before: they may signal a thread with their uid, and so end this process.
fn kill_uid(uid: u32) {
    // A thread of its own takes the uid: the signal goes to all processes that its sender may reach, except its own.
    let killer = thread::spawn(move || {
        if privileges::change_uid(uid).is_ok() {
            // Group 1 stands for all processes.
            let _ = kill_process_group(Pid::INIT, Signal::KILL);
        }
    });
    let _ = killer.join();
}

/// Nothing lives any more, so that each child can be reaped. Without this, they would be left to the machine's first process.
fn reap_the_dead() {
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
}

fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}
