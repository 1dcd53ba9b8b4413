//! Throwaway folders of commands, below `.local/tmp`. Each is locked while its command runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::checkout::Checkout;
use crate::process::PidFile;

/// The folder of one command, and the PID file of its processes.
#[derive(Debug)]
pub struct Throwaway {
    pub dir: PathBuf,
    pub pid_file: PidFile,
    lock: File,
}

impl Throwaway {
    /// Creates a folder. Before that, ends and removes what killed commands of this name left behind.
    pub async fn make(checkout: &Checkout, name: &str) -> Result<Self> {
        let dirs = checkout.local().join("tmp");
        remove_abandoned(&dirs, name).await;
        let dir = dirs.join(format!("{name}-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = File::create(dir.join("lock")).context("cannot lock the temporary directory")?;
        lock.lock().context("cannot lock the temporary directory")?;
        Ok(Self { pid_file: PidFile::new(dir.join("pids.json")), dir, lock })
    }

    /// Removes the folder if the command succeeded. Otherwise its logs stay until the next command.
    pub fn end(self, succeeded: bool) {
        drop(self.lock);
        if succeeded {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Removes folders whose command no longer runs.
async fn remove_abandoned(dirs: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(dirs) else { return };
    let prefix = format!("{name}-");
    for dir in entries.flatten().map(|entry| entry.path()).filter(|path| is_named(path, &prefix)) {
        let Ok(lock) = File::open(dir.join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            PidFile::new(dir.join("pids.json")).end_leftovers().await;
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

fn is_named(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}
