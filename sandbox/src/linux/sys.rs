//! The calls that need `unsafe`, each with its reason. Nothing else of the crate may use it.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::FdFlags;
use rustix::thread::UnshareFlags;

/// Moves this process to new namespaces.
pub(crate) fn unshare(namespaces: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: `unshare` is unsafe because `CLONE_FILES` gives the thread file descriptors of its own. Callers pass `CLONE_NEW*`
    // flags only.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Adds attributes (`MOUNT_ATTR_*`) to a mount, and to all mounts below it if `recursive`. rustix has no `mount_setattr`. A
/// remount instead changes one mount at a time, and the flags that a user namespace locks must be repeated for each.
pub(crate) fn add_mount_attributes(mount: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a string with a final NUL, `change` outlives the call, and its size is passed with it. The kernel only
    // reads from both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes inherited file descriptors above 2 when the next program starts. The parent may hold some without the flag, for example
/// a socket that a C library opened.
pub(crate) fn close_inherited_on_exec() -> io::Result<()> {
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // SAFETY: the launcher has one thread, and nothing closes a descriptor between the listing and this call except the
        // listing's own. For that one the call answers EBADF, which is ignored.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
    Ok(())
}
