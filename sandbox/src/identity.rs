//! A uid that belongs to one command.
//!
//! Two commands with the same uid could signal each other and read each other's files. A lock on a file holds each uid, so that
//! two processes that run commands never share one. The kernel drops the lock when its process dies.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

use crate::error::SandboxError;

/// Free on usual systems: above the ids of accounts and system services, below the ranges that `/etc/subuid` hands to containers.
const PREFERRED: std::ops::Range<u32> = 70_000..74_095;
/// For containers that map 65,536 ids only. systemd uses it for services with `DynamicUser`, which rarely run in containers.
const SMALL: std::ops::Range<u32> = 61_184..65_519;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// How deep `give` follows folders. Each level holds an open file.
const DEPTH: usize = 256;

/// A uid, and a gid with the same number, that no other command uses.
#[derive(Debug)]
pub struct Identity {
    uid: u32,
    in_use: AtomicBool,
    _lock: File,
}

impl Identity {
    /// Takes a free uid. `None` means that the process is not root, so that commands run with its own uid.
    pub fn acquire() -> Result<Option<Self>, SandboxError> {
        if !crate::host().own_uid {
            return Ok(None);
        }
        let folder = lock_folder()?;
        let range = range();
        // Processes start their search at different places, so that they rarely meet. Within a process, a uid rests after its
        // use: files and dying processes of the last command have it.
        let turn = std::process::id().wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let start = turn % (range.end - range.start);
        for offset in 0..range.end - range.start {
            let uid = range.start + (start + offset) % (range.end - range.start);
            let in_use_by_systemd = Path::new("/run/systemd/dynamic-uid").join(uid.to_string()).exists();
            if in_use_by_systemd {
                continue;
            }
            if let Some(lock) = lock(&folder.join(uid.to_string()))? {
                return Ok(Some(Self { uid, in_use: AtomicBool::new(false), _lock: lock }));
            }
        }
        Err(SandboxError::NoIdentity)
    }

    /// The uid, and the gid.
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

/// One command runs with an identity.
pub(crate) struct Use(Arc<Identity>);

impl Use {
    /// `None` if another command runs with it: the end of one would kill the other.
    pub fn begin(identity: Arc<Identity>) -> Option<Self> {
        let taken = identity.in_use.swap(true, Ordering::AcqRel);
        (!taken).then(|| Self(identity))
    }

    pub fn uid(&self) -> u32 {
        self.0.uid
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.in_use.store(false, Ordering::Release);
    }
}

/// Makes the identity the owner of a file or folder tree. Links are changed themselves, not what they point to. Files must not
/// have hard links outside of the tree: those change their owner too.
pub fn give(path: &Path, identity: &Identity) -> io::Result<()> {
    chown_tree(path, identity.uid)
}

/// Makes this process the owner of a tree again, so that a later command with the same uid cannot reach it.
pub fn take(path: &Path) -> io::Result<()> {
    chown_tree(path, rustix::process::geteuid().as_raw())
}

fn chown_tree(path: &Path, id: u32) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    chown_at(&parent, Path::new(name), (Uid::from_raw(id), Gid::from_raw(id)), 0)
}

fn chown_at(folder: &OwnedFd, name: &Path, (uid, gid): (Uid, Gid), depth: usize) -> io::Result<()> {
    if depth > DEPTH {
        return Err(io::Error::other(format!("the folders are more than {DEPTH} levels deep")));
    }
    rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let child = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(child) => child,
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in Dir::read_from(&child)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            let name = Path::new(std::ffi::OsStr::new(std::str::from_utf8(name.to_bytes()).map_err(io::Error::other)?));
            chown_at(&child, name, (uid, gid), depth + 1)?;
        } else {
            rustix::fs::chownat(child.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

fn lock_folder() -> io::Result<PathBuf> {
    let base = ["/run", "/var/tmp", "/tmp"].into_iter().map(Path::new).find(|base| base.is_dir());
    let folder = base.ok_or(io::ErrorKind::NotFound)?.join("nofx-sandbox");
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(&folder)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{} belongs to somebody else", folder.display())));
    }
    Ok(folder)
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn range() -> std::ops::Range<u32> {
    if is_mapped(PREFERRED.end) { PREFERRED } else { SMALL }
}

/// A uid to try things with, which no command gets.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(crate) fn candidate() -> u32 {
    range().end
}

/// Whether the user namespace of this process knows an id.
fn is_mapped(id: u32) -> bool {
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&u64::from(id))
    })
}
