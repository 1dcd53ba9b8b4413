//! Keeps installations by key.
//!
//! ```text
//! installs/<key>/        a complete installation, read-only
//! installs/<key>.new/    one that is being made
//! installs/<key>.make    locked while it is being made
//! installs/<key>.lock    shared: in use; exclusive: being deleted. Its time is that of the last use.
//! ```
//! The folder cannot be listed by others, and the key is a digest that covers the tenant: who is shown one installation
//! cannot find another.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::attempt::remove;

#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    max_installs: usize,
}

/// A complete installation. It is not deleted while this exists.
#[derive(Debug)]
pub struct Held {
    pub folder: PathBuf,
    _lock: File,
}

/// The place of a new installation. Dropping it deletes what was made.
#[derive(Debug)]
pub struct Slot {
    target: PathBuf,
    pub folder: PathBuf,
    _lock: File,
}

#[derive(Debug)]
pub enum Begun {
    /// Another attempt has made it meanwhile.
    Complete(Held),
    Empty(Slot),
}

impl Store {
    pub fn new(folder: PathBuf, max_installs: usize) -> Self {
        Self { folder, max_installs }
    }

    /// The folder of an installation, whether it exists or not.
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }

    pub fn find(&self, key: &str) -> io::Result<Option<Held>> {
        let folder = self.path(key);
        if !folder.is_dir() {
            return Ok(None);
        }
        let lock = self.lock(key, "lock", File::lock_shared)?;
        // It may have been deleted before the lock was taken.
        if !folder.is_dir() {
            return Ok(None);
        }
        lock.set_modified(SystemTime::now())?;
        Ok(Some(Held { folder, _lock: lock }))
    }

    /// Waits until nobody else makes this installation.
    pub fn begin(&self, key: &str) -> io::Result<Begun> {
        DirBuilder::new().recursive(true).mode(0o711).create(&self.folder)?;
        let lock = self.lock(key, "make", File::lock)?;
        if let Some(held) = self.find(key)? {
            return Ok(Begun::Complete(held));
        }
        let folder = self.folder.join(format!("{key}.new"));
        // What a killed process left.
        remove(&folder)?;
        DirBuilder::new().mode(0o755).create(&folder)?;
        Ok(Begun::Empty(Slot { target: self.path(key), folder, _lock: lock }))
    }

    /// Opens and locks the lock file. Repeats if another process has deleted it in between.
    fn lock(&self, key: &str, kind: &str, take: fn(&File) -> io::Result<()>) -> io::Result<File> {
        let path = self.folder.join(format!("{key}.{kind}"));
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            take(&file)?;
            if is_same(&file, &path) {
                return Ok(file);
            }
        }
    }

    /// Deletes what killed processes left, with the operator's settings in it. Skips what is in use.
    pub fn clear(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            match name.split_once('.') {
                Some((key, "new")) => self.with_unused(key, "make", || {
                    remove(&entry.path())?;
                    fs::remove_file(entry.path().with_extension("make"))
                })?,
                Some((key, "old")) => self.with_unused(key, "lock", || remove(&entry.path()))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the installations that were not used for longest above the limit, and what killed processes left. Skips
    /// those in use.
    pub fn evict(&self) -> io::Result<()> {
        self.clear()?;
        let mut complete = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.contains('.') {
                let lock = fs::metadata(self.folder.join(format!("{name}.lock"))).and_then(|found| found.modified());
                complete.push((lock.unwrap_or(SystemTime::UNIX_EPOCH), name));
            }
        }
        complete.sort();
        let above = complete.len().saturating_sub(self.max_installs);
        for (_, key) in complete.iter().take(above) {
            self.with_unused(key, "lock", || {
                let (from, old) = (self.path(key), self.folder.join(format!("{key}.old")));
                // Renamed first: a half-deleted installation must not have the name of a complete one.
                fs::rename(from, &old)?;
                fs::remove_file(self.folder.join(format!("{key}.lock")))?;
                remove(&old)
            })?;
        }
        Ok(())
    }

    fn with_unused(&self, key: &str, kind: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let path = self.folder.join(format!("{key}.{kind}"));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        if lock.try_lock().is_ok() && is_same(&lock, &path) { work() } else { Ok(()) }
    }
}

impl Slot {
    /// Makes the installation read-only and gives it its name.
    pub fn publish(self, store: &Store, key: &str) -> io::Result<Held> {
        make_read_only(&self.folder)?;
        fs::rename(&self.folder, &self.target)?;
        drop(self);
        store.find(key)?.ok_or_else(|| io::Error::from(io::ErrorKind::Interrupted))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // After a rename there is nothing. If this fails, the next attempt repeats it.
        let _ = remove(&self.folder);
        // Still locked. Who waits for it notices that its file is gone.
        let _ = fs::remove_file(self.folder.with_extension("make"));
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(named)) if open.ino() == named.ino() && open.dev() == named.dev())
}

/// Everybody may read and nobody may write, the owner included.
pub fn make_read_only(root: &Path) -> io::Result<()> {
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode();
                let read_only = if mode & 0o100 == 0 { 0o444 } else { 0o555 };
                fs::set_permissions(entry.path(), Permissions::from_mode(read_only))?;
            }
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o555))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn store(max_installs: usize) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("installs"), max_installs);
        (folder, store)
    }

    fn add(store: &Store, key: &str) -> Held {
        match store.begin(key).unwrap() {
            Begun::Complete(held) => held,
            Begun::Empty(slot) => {
                fs::create_dir(slot.folder.join("a")).unwrap();
                fs::write(slot.folder.join("a/index.js"), key).unwrap();
                slot.publish(store, key).unwrap()
            }
        }
    }

    fn names(store: &Store) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&store.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_installation_is_complete_and_read_only() {
        let (_folder, store) = store(4);
        assert!(store.find("k").unwrap().is_none());
        let held = add(&store, "k");
        for path in ["", "a", "a/index.js"] {
            let mode = fs::metadata(held.folder.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o222, 0, "{path}");
            assert_eq!(mode & 0o444, 0o444, "{path}");
        }
        assert_eq!(fs::metadata(&store.folder).unwrap().permissions().mode() & 0o777, 0o711);
        assert_eq!(store.find("k").unwrap().unwrap().folder, held.folder);
    }

    #[test]
    fn a_failed_or_killed_installation_leaves_nothing_to_use() {
        let (_folder, store) = store(4);
        let Begun::Empty(slot) = store.begin("k").unwrap() else { panic!("it is new") };
        fs::write(slot.folder.join("half"), "").unwrap();
        drop(slot);
        assert!(store.find("k").unwrap().is_none());
        // A process that was killed deletes nothing.
        fs::create_dir(store.folder.join("k.new")).unwrap();
        fs::write(store.folder.join("k.new/half"), "").unwrap();
        assert!(store.find("k").unwrap().is_none());
        assert!(!add(&store, "k").folder.join("half").exists());
        fs::create_dir(store.folder.join("j.new")).unwrap();
        store.evict().unwrap();
        assert_eq!(names(&store), ["k", "k.lock"]);
    }

    #[test]
    fn one_of_many_concurrent_attempts_installs() {
        let (_folder, store) = store(4);
        let (store, made) = (Arc::new(store), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (store, made) = (Arc::clone(&store), Arc::clone(&made));
                std::thread::spawn(move || match store.begin("k").unwrap() {
                    Begun::Complete(held) => held,
                    Begun::Empty(slot) => {
                        made.fetch_add(1, Ordering::SeqCst);
                        fs::write(slot.folder.join("file"), "whole").unwrap();
                        slot.publish(&store, "k").unwrap()
                    }
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(fs::read_to_string(thread.join().unwrap().folder.join("file")).unwrap(), "whole");
        }
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_deleted_unless_another_one_makes_it() {
        let (_folder, store) = store(1);
        store.clear().unwrap();
        let Begun::Empty(slot) = store.begin("made").unwrap() else { panic!("it is complete") };
        fs::create_dir(store.folder.join("left.new")).unwrap();
        store.clear().unwrap();
        assert!(slot.folder.is_dir() && !store.folder.join("left.new").exists());
    }

    #[test]
    fn the_least_recently_used_installation_goes_first_and_one_in_use_stays() {
        let (_folder, store) = store(2);
        let in_use = add(&store, "a");
        for (age, key) in [(30, "b"), (20, "c"), (10, "d")] {
            drop(add(&store, key));
            let lock = File::options().write(true).open(store.folder.join(format!("{key}.lock"))).unwrap();
            lock.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let lock = File::options().write(true).open(store.folder.join("a.lock")).unwrap();
        lock.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        store.evict().unwrap();
        assert_eq!(names(&store), ["a", "a.lock", "c", "c.lock", "d", "d.lock"]);
        drop(in_use);
        store.evict().unwrap();
        assert_eq!(names(&store), ["c", "c.lock", "d", "d.lock"]);
    }
}
