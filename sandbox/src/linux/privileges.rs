//! Limits, uid and capabilities.

use std::io;

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::command::Limits;
use crate::error::{Failure, Step};

/// Sets the limits of this process, which the command inherits. `others` is the number of tasks that the kernel counts for the
/// same uid although they are not the command's.
pub(super) fn set_limits(limits: &Limits, others: u64) -> Result<(), Failure> {
    // 1 instead of 0: with 0 the kernel still starts the program that `core_pattern` pipes to.
    lower(Resource::Core, 1).step("limit core files")?;
    if let Some(cpu) = limits.cpu {
        lower(Resource::Cpu, cpu.as_secs().max(1)).step("limit CPU time")?;
    }
    if let Some(bytes) = limits.file_bytes {
        lower(Resource::Fsize, bytes).step("limit the size of files")?;
    }
    if let Some(files) = limits.open_files {
        lower(Resource::Nofile, files).step("limit open files")?;
    }
    if let Some(processes) = limits.processes {
        lower(Resource::Nproc, processes + others).step("limit processes")?;
    }
    Ok(())
}

fn lower(resource: Resource, wanted: u64) -> io::Result<()> {
    let current = rustix::process::getrlimit(resource);
    let limit = current.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

/// Changes this thread to a uid and gid without supplementary groups.
pub(super) fn change_uid(id: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Keeps the capabilities of a user namespace when this process starts process 1. A program of a uid other than 0 otherwise starts
/// without.
pub(super) fn keep_over_exec() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    for capability in sets.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Removes all capabilities from this thread, for good, and changes its uid if one is given.
pub(super) fn drop_all(uid: Option<u32>) -> Result<(), Failure> {
    // Without CAP_SETPCAP the bounding set cannot be changed. Then `no_new_privs` alone keeps capabilities away.
    for capability in CapabilitySet::all().iter() {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    // In a user namespace the guard has changed it already, and groups can no longer be set.
    if let Some(uid) = uid.filter(|uid| rustix::process::geteuid().as_raw() != *uid) {
        change_uid(uid).step("change the uid")?;
    }
    // Kernels without ambient capabilities (before 4.3) are not supported by anything else here either.
    rustix::thread::clear_ambient_capability_set().step("clear ambient capabilities")?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).step("drop capabilities")?;
    rustix::thread::set_no_new_privs(true).step("set no_new_privs")
}

/// Whether this thread holds no capability and can get none.
pub(super) fn has_none() -> bool {
    let empty = |set: CapabilitySet| set.is_empty();
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| empty(sets.effective) && empty(sets.permitted) && empty(sets.inheritable))
        && rustix::thread::no_new_privs().unwrap_or(false)
}
