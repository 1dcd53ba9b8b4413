//! The limits that the kernel does not enforce here: the memory and the disk space of all processes together.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::Limits;
use crate::platform::{self, Scope};
use crate::report::Limit;

const MEMORY_INTERVAL: Duration = Duration::from_millis(50);
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// If the free space shrinks by this multiple of the limit, the command is killed although its files cannot be found: they may be
/// deleted but open.
const CERTAIN: u64 = 4;

pub(crate) struct Watch {
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    writable: Vec<Writable>,
    next_memory: Instant,
    next_disk: Instant,
}

struct Writable {
    path: PathBuf,
    /// Free bytes of its file system, when the command started or when its files were last counted.
    free_bytes: u64,
    free_at_start: u64,
}

impl Watch {
    pub fn new(limits: &Limits, writable: &[PathBuf]) -> Self {
        let now = Instant::now();
        let writable = writable.iter().map(|path| {
            let free_bytes = free_bytes(path);
            Writable { path: path.clone(), free_bytes, free_at_start: free_bytes }
        });
        Self {
            memory_bytes: limits.memory_bytes,
            disk_bytes: limits.disk_bytes,
            writable: writable.collect(),
            next_memory: now + MEMORY_INTERVAL,
            next_disk: now + DISK_INTERVAL,
        }
    }

    /// When to check again.
    pub fn next(&self) -> Instant {
        self.next_memory.min(self.next_disk)
    }

    pub fn check(&mut self, now: Instant, scope: Scope) -> Option<Limit> {
        if now >= self.next_memory {
            self.next_memory = now + MEMORY_INTERVAL;
            if let Some(limit) = self.memory_bytes
                && platform::memory_bytes(&platform::members(scope), limit) > limit
            {
                return Some(Limit::Memory);
            }
        }
        if now >= self.next_disk {
            self.next_disk = now + DISK_INTERVAL;
            if self.disk_bytes.is_some_and(|limit| self.is_disk_over(limit)) {
                return Some(Limit::Disk);
            }
        }
        None
    }

    /// Counting files is slow. The free space tells cheaply that it may be necessary, but others use it too.
    fn is_disk_over(&mut self, limit: u64) -> bool {
        let shrunk = self.writable.iter().any(|writable| free_bytes(&writable.path) + limit < writable.free_bytes);
        if !shrunk {
            return false;
        }
        let certain =
            self.writable.iter().any(|writable| free_bytes(&writable.path) + CERTAIN * limit < writable.free_at_start);
        for writable in &mut self.writable {
            writable.free_bytes = free_bytes(&writable.path);
        }
        certain || self.writable.iter().map(|writable| used_bytes(&writable.path)).sum::<u64>() > limit
    }
}

fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |statistics| statistics.f_bavail * statistics.f_frsize)
}

/// Allocated bytes of a tree. Folders that cannot be read count as empty.
fn used_bytes(path: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * BLOCK_BYTES;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}
