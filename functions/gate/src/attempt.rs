//! The folder of one attempt: fresh when it begins, gone when it ends.
//!
//! Layout below the work folder:
//! ```text
//! attempts/<id>/{workspace,base,home,tmp}   attempts/<id>.lock   installs/
//! ```
//! The lock is held as long as the attempt lives, by the operating system: what a killed process left behind is told from
//! what another process still uses, and wiped by the next attempt.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

/// Wiped when the last owner lets go; work on other threads holds it too, so that nothing is written after the wipe.
#[derive(Debug)]
pub struct Attempt {
    /// Unique; also the mark of its processes.
    pub id: String,
    root: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    cancelled: AtomicBool,
}

impl Attempt {
    /// A fresh folder below `work_dir`; wipes what dead attempts left there.
    pub fn begin(work_dir: &Path) -> io::Result<Self> {
        let attempts = work_dir.join("attempts");
        private_folder(&attempts)?;
        // Absolute and without links: coverage reports name files by the path that the tests saw.
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

    /// Where npm puts what the workspace depends on.
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

    /// Tells work on other threads to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// An error once the attempt is over.
    pub fn check(&self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(()) }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // What cannot be wiped now is wiped by the next attempt: its lock is free then.
        if remove(&self.root).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// A folder that other users cannot read, and its parents.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a folder, also when its owner made parts of it unwritable.
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
