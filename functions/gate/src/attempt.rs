//! The folder of one attempt: empty at its start and deleted at its end.
//!
//! Layout below the work folder:
//! ```text
//! attempts/<id>/{workspace,base,home,tmp}   attempts/<id>.lock   installs/
//! ```
//! The attempt holds a file lock, which the operating system releases when the process dies. An attempt whose lock is free
//! is therefore dead, and the next attempt deletes its folder.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

/// The folder is deleted when the last owner drops this. Work on other threads owns it too, so nothing is written after
/// the deletion.
#[derive(Debug)]
pub struct Attempt {
    /// Unique. Its processes carry it as their mark.
    pub id: String,
    root: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    cancelled: AtomicBool,
}

impl Attempt {
    /// Creates a folder below `work_dir`, and deletes what dead attempts left there.
    pub fn begin(work_dir: &Path) -> io::Result<Self> {
        let attempts = work_dir.join("attempts");
        private_folder(&attempts)?;
        // Absolute and free of links, because coverage reports name files by the path that the tests saw.
        let attempts = attempts.canonicalize()?;
        wipe_dead(&attempts);
        let id: String = Uuid::new_v4().simple().to_string().chars().take(16).collect();
        let lock_path = attempts.join(format!("{id}.lock"));
        let lock = File::create_new(&lock_path)?;
        lock.lock()?;
        let attempt = Self { root: attempts.join(&id), id, lock_path, _lock: lock, cancelled: AtomicBool::new(false) };
        for folder in [attempt.workspace(), attempt.home(), attempt.temporary()] {
            private_folder(&folder)?;
        }
        Ok(attempt)
    }

    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// Where npm installs the dependencies of the workspace.
    pub fn dependencies(&self) -> PathBuf {
        self.workspace().join("node_modules")
    }

    pub fn base(&self) -> PathBuf {
        self.root.join("base")
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Makes work on other threads stop at its next check.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns an error once the attempt is cancelled.
    pub fn check(&self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(()) }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // If the deletion fails, the next attempt repeats it, because the lock is free then.
        if remove(&self.root).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Creates a folder that other users cannot read, and its parents.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a folder, even if parts of it are not writable.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn unlock(path: &Path) -> io::Result<()> {
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

fn wipe_dead(attempts: &Path) {
    let Ok(entries) = fs::read_dir(attempts) else { return };
    for lock_path in
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "lock"))
    {
        let Ok(lock) = File::open(&lock_path) else { continue };
        if lock.try_lock().is_ok() && remove(&lock_path.with_extension("")).is_ok() {
            let _ = fs::remove_file(&lock_path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_leaves_nothing_behind() {
        let work = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(work.path()).unwrap();
        let locked = attempt.workspace().join("a");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("b"), "x").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
        drop(attempt);
        assert_eq!(fs::read_dir(work.path().join("attempts")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_process_left_is_wiped_and_what_another_uses_is_not() {
        let work = tempfile::tempdir().unwrap();
        let living = Attempt::begin(work.path()).unwrap();
        let attempts = work.path().join("attempts");
        fs::create_dir_all(attempts.join("dead/workspace")).unwrap();
        fs::write(attempts.join("dead.lock"), "").unwrap();
        let next = Attempt::begin(work.path()).unwrap();
        assert!(!attempts.join("dead").exists() && !attempts.join("dead.lock").exists());
        assert!(living.workspace().exists() && next.workspace().exists());
        assert_ne!(living.id, next.id);
    }

    #[test]
    fn others_cannot_read_an_attempt() {
        let work = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(work.path()).unwrap();
        assert_eq!(fs::metadata(attempt.workspace()).unwrap().permissions().mode() & 0o077, 0);
    }
}
