//! New namespaces, and the guard that waits outside of them.

use std::fs;
use std::io;

use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

use super::{privileges, processes, sys};
use crate::command::Network;
use crate::error::{Failure, Step};
use crate::host::Through;
use crate::launcher::{self, Channel, Stage};
use crate::wire::Spec;

/// Whether this process may make namespaces without a user namespace, and so can mount what only root can reach.
fn is_privileged(spec: &Spec) -> bool {
    use rustix::thread::CapabilitySet;
    spec.plan.uid.is_some()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn flags(spec: &Spec) -> UnshareFlags {
    let mut flags = UnshareFlags::NEWPID
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    if spec.network == Network::None {
        flags |= UnshareFlags::NEWNET;
    }
    flags
}

/// The names of the namespaces that differ from the parent's, for the report. Read from the kernel in the new process.
pub(super) fn in_force(outside: &[(String, String)]) -> Vec<String> {
    let inside = links();
    let changed = outside.iter().filter(|(name, link)| inside.iter().any(|(other, now)| other == name && now != link));
    changed.map(|(name, _)| name.clone()).collect()
}

/// Names and identities of this process's namespaces.
pub(super) fn links() -> Vec<(String, String)> {
    const NAMES: [(&str, &str); 7] = [
        ("user", "user"),
        ("pid", "pid"),
        ("mount", "mnt"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
    ];
    let link = |file| fs::read_link(format!("/proc/self/ns/{file}")).ok()?.into_os_string().into_string().ok();
    NAMES.into_iter().filter_map(|(name, file)| Some((name.to_owned(), link(file)?))).collect()
}

/// Makes the namespaces, starts process 1 in them, and waits until the kernel has killed everything inside.
pub(super) fn guard(spec: &Spec, channel: &Channel, through: &Through) -> Result<(), Failure> {
    let mut command = match through {
        Through::Launcher => {
            unshare(spec)?;
            launcher::command_line(Stage::Init).step("find the launcher")?
        }
        Through::Bubblewrap(program) => super::bubblewrap::command_line(spec, program)?,
    };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide the guard's memory")?;
    command.stdin(channel.to_stdio().step("pass the socket on")?);
    let child = command.spawn().step("start process 1 of the sandbox")?;
    let pid = processes::pid_of(&child);
    loop {
        let closed = processes::wait_ready(pid, channel, None);
        if closed {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Process 1 counts as ended after all processes of its namespace are gone.
        match rustix::process::waitpid(Some(pid), if closed { WaitOptions::empty() } else { WaitOptions::NOHANG }) {
            Ok(Some(_)) | Err(rustix::io::Errno::CHILD) => return Ok(()),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::new("wait for the sandbox", error.to_string())),
        }
    }
}

fn unshare(spec: &Spec) -> Result<(), Failure> {
    if is_privileged(spec) {
        return sys::unshare(flags(spec)).step("make namespaces");
    }
    if let Some(uid) = spec.plan.uid {
        privileges::change_uid(uid).step("change the uid")?;
    }
    // The files that map ids belong to root unless the process is dumpable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).step("prepare the user namespace")?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(flags(spec) | UnshareFlags::NEWUSER).step("make a user namespace")?;
    map_ids(uid, gid).step("map the uid")?;
    privileges::keep_over_exec().step("keep capabilities for process 1")
}

fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
}

/// Has the kernel kill this process when its parent dies. A change of the uid clears it.
pub(super) fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("follow the guard's end")
}

/// The process that a new namespace counts as its first.
pub(super) fn is_first() -> bool {
    rustix::process::getpid() == Pid::INIT
}
