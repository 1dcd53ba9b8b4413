//! The folder of one attempt. It is empty when the attempt starts and deleted when it ends.
//!
//! Layout below the work folder:
//! ```text
//! attempts/<id>/{workspace,workspace-N,base,tmp}   attempts/<id>.lock
//! ```
//! Each attempt holds a file lock, which the operating system releases when the process dies. If the lock is free, the
//! attempt is dead, and the next attempt deletes its folder.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

/// Others can pass a folder, but not list it.
const PASSABLE: u32 = 0o711;

/// Dropping the last owner deletes the folder. Work on other threads is an owner too, so nothing writes after the
/// deletion.
#[derive(Debug)]
pub struct Attempt {
    /// Unique.
    pub id: String,
    root: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    cancelled: AtomicBool,
}

impl Attempt {
    /// Creates a folder below `work_dir`, and deletes the folders of dead attempts.
    pub fn begin(work_dir: &Path) -> io::Result<Self> {
        let attempts = work_dir.join("attempts");
        passable(work_dir)?;
        // Before anything of it is changed, because its folders could be links to others.
        check_owner(work_dir)?;
        passable_folder(&attempts)?;
        // Resolve links, because coverage reports name files by their resolved paths.
        let attempts = attempts.canonicalize()?;
        remove_dead_attempts(&attempts);
        let id: String = Uuid::new_v4().simple().to_string().chars().take(16).collect();
        let lock_path = attempts.join(format!("{id}.lock"));
        let lock = File::create_new(&lock_path)?;
        lock.lock()?;
        let attempt = Self { root: attempts.join(&id), id, lock_path, _lock: lock, cancelled: AtomicBool::new(false) };
        passable_folder(&attempt.temporary())?;
        for folder in [attempt.workspace(), attempt.base()] {
            private_folder(&folder)?;
        }
        Ok(attempt)
    }

    /// The workspace of one of several runs.
    pub fn variant(&self, index: usize) -> PathBuf {
        self.root.join(format!("workspace-{index}"))
    }

    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    pub fn base(&self) -> PathBuf {
        self.root.join("base")
    }

    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Stops work on other threads at its next check.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns an error once the attempt is cancelled.
    pub fn check_cancelled(&self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(()) }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // If the deletion fails, the next attempt repeats it, because the lock is free.
        if remove(&self.root).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Cancels an attempt whose future is dropped: its work on other threads stops, and the last owner deletes the folder.
pub struct CancelOnDrop(pub Arc<Attempt>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The work folder may have a well-known name in a folder for everybody. Whoever made it could plant installations.
fn check_owner(work_dir: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    for found in [fs::symlink_metadata(work_dir)?, fs::metadata(work_dir)?] {
        let others_write = !found.is_symlink() && found.mode() & 0o022 != 0;
        if found.uid() != own || others_write {
            let why = if others_write { "other users can write to it" } else { "it belongs to another user" };
            let message = format!("{}: {why}; name another folder", work_dir.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
    }
    Ok(())
}

/// Creates a folder, and its parents, that other users cannot read.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates a folder, and its parents, that other users can pass but not list. Where there are no namespaces, a command with a
/// uid of its own reaches its private folders through it.
pub fn passable_folder(path: &Path) -> io::Result<()> {
    passable(path)?;
    fs::set_permissions(path, Permissions::from_mode(PASSABLE))
}

/// Leaves a folder that exists as it is.
fn passable(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PASSABLE).create(path)
}

/// Removes a folder, even if parts of it are not writable.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_writable(path: &Path) -> io::Result<()> {
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

fn remove_dead_attempts(attempts: &Path) {
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
    fn a_dropped_attempt_deletes_its_folder() {
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
    fn the_folder_of_a_dead_attempt_is_deleted_and_one_in_use_is_not() {
        let work = tempfile::tempdir().unwrap();
        let live = Attempt::begin(work.path()).unwrap();
        let attempts = work.path().join("attempts");
        fs::create_dir_all(attempts.join("dead/workspace")).unwrap();
        fs::write(attempts.join("dead.lock"), "").unwrap();
        let next = Attempt::begin(work.path()).unwrap();
        assert!(!attempts.join("dead").exists() && !attempts.join("dead.lock").exists());
        assert!(live.workspace().exists() && next.workspace().exists());
        assert_ne!(live.id, next.id);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let work = tempfile::tempdir().unwrap();
        fs::set_permissions(work.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(Attempt::begin(work.path()).unwrap_err().to_string().contains("other users can write"));
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(work.path(), Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(work.path(), Some(12_345), None).unwrap();
            assert!(Attempt::begin(work.path()).unwrap_err().to_string().contains("another user"));
        }
    }

    #[test]
    fn other_users_cannot_read_an_attempt() {
        let work = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(work.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
        assert_eq!((mode(&attempt.workspace()), mode(&attempt.base())), (0, 0));
        // A command with another uid gets to its own folders, and finds no others.
        assert_eq!(
            (mode(&work.path().join("attempts")), mode(&attempt.root), mode(&attempt.temporary())),
            (0o11, 0o11, 0o11)
        );
    }
}
