//! The launcher on systems other than Linux: resource limits, and the process groups of what it started.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, test_kill_process_group};

use crate::command::{Level, Limits, Network};
use crate::error::{Failure, Step};
use crate::host::Host;
use crate::launcher::{Channel, Stage};
use crate::report::{NetworkInForce, Report};
use crate::supervisor::{self, Spawn};
use crate::wire::Spec;

/// Which processes are the command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those in the process groups that the launcher started.
    Groups,
}

/// The groups that this launcher started.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> Vec<Pid> {
    GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// Other processes of the same user cannot be kept from this one's memory here.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn hide_memory() -> io::Result<()> {
    Ok(())
}

pub(crate) fn probe() -> Host {
    let reasons = vec!["this system has no namespaces, no Landlock and no seccomp".to_owned()];
    Host { own_uid: false, namespaces: None, landlock_abi: 0, seccomp: false, reasons }
}

pub(crate) fn host_namespaces() -> Vec<(String, String)> {
    Vec::new()
}

/// Runs the launcher until the command has ended.
pub(crate) fn serve(_: Stage, spec: &Spec, channel: &mut Channel) -> Result<(), Failure> {
    let _ = rustix::process::setsid();
    set_limits(&spec.limits)?;
    let mut gaps = vec![
        "the command sees the processes of the host",
        "processes that leave their group are not killed at the end",
        "files outside of the given paths can be read and changed as their modes allow",
        "memory, processes and disk space are not limited",
        "the command can kill its launcher and its parent",
    ];
    if spec.network == Network::None {
        gaps.push("the network is open");
    }
    let report = Report {
        level: Level::Limits,
        through: None,
        uid: rustix::process::geteuid().as_raw(),
        own_uid: false,
        namespaces: Vec::new(),
        network: NetworkInForce::Open,
        landlock_abi: None,
        seccomp: false,
        no_new_privs: false,
        capabilities_dropped: false,
        limits: Limits { memory_bytes: None, processes: None, disk_bytes: None, ..spec.limits.clone() },
        measured_limits: Vec::new(),
        killed_at_end: 0,
        not_in_force: gaps.into_iter().map(str::to_owned).collect(),
    };
    supervisor::supervise(spec, channel, report, Scope::Groups, &Grouped)
}

fn set_limits(limits: &Limits) -> Result<(), Failure> {
    let lower = |resource, wanted: Option<u64>| {
        let Some(wanted) = wanted else { return Ok(()) };
        let limit = rustix::process::getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
    };
    lower(Resource::Core, Some(0)).step("limit core files")?;
    lower(Resource::Cpu, limits.cpu.map(|cpu| cpu.as_secs().max(1))).step("limit CPU time")?;
    lower(Resource::Fsize, limits.file_bytes).step("limit the size of files")?;
    lower(Resource::Nofile, limits.open_files).step("limit open files")
}

/// Starts each program in a group of its own and remembers the group.
struct Grouped;

impl Spawn for Grouped {
    fn spawn(&self, command: &mut std::process::Command) -> io::Result<Child> {
        let child = command.process_group(0).spawn()?;
        GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(pid_of(&child));
        Ok(child)
    }
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Waits until the channel closes or a short time is over: this system has no handle to wait for a process. Returns whether the
/// channel closed.
pub(crate) fn wait_ready(_: Pid, channel: impl AsFd, timeout: Option<Duration>) -> bool {
    const INTERVAL: Duration = Duration::from_millis(5);
    let timeout = Timespec::try_from(timeout.unwrap_or(INTERVAL).min(INTERVAL)).ok();
    let mut fds = [PollFd::new(&channel, PollFlags::empty())];
    poll(&mut fds, timeout.as_ref()).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// The leaders of the groups that still have processes.
pub(crate) fn members(_: Scope) -> Vec<Pid> {
    groups().into_iter().filter(|group| test_kill_process_group(*group).is_ok()).collect()
}

/// Not measured here.
pub(crate) fn memory_bytes(_: &[Pid], _: u64) -> u64 {
    0
}

/// Kills all groups. Returns how many there were. Members that cannot be reaped here end soon after.
pub(crate) fn kill_all(scope: Scope) -> (u32, u32) {
    let living = members(scope);
    for group in &living {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    (u32::try_from(living.len()).unwrap_or(u32::MAX), 0)
}

/// Nothing runs with a uid of its own here.
pub(crate) fn kill_orphans(_: u32) {}
