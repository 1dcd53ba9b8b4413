//! Caches installed dependencies for the next gate.
//!
//! Dependencies are thousands of files. Installing them takes seconds, copying them takes about as long, and with links
//! the tests of one gate could write into the dependencies of the next. So a gate **checks out** an installation: it
//! moves the folder into the workspace, and moves it back once every process of the command is dead. Each time it
//! compares all files with those that npm wrote: size, mode, inode and time of the last change (ctime), which no program
//! can reset. It removes files that the tests added, and deletes an installation that they changed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use shared::domain::digest::hex;
use uuid::Uuid;

use crate::attempt::{private_folder, remove};

/// Installations in `<folder>/<key>/<id>/{node_modules,manifest}`. Moving `node_modules` out claims it, so any number of
/// processes may share the folder.
#[derive(Debug)]
pub struct InstallCache {
    folder: PathBuf,
    max_installs: usize,
    /// By id. Commands cannot change this map, but they can change the file `manifest`. So the cache reads the file only
    /// for installations that are not in the map: those of an earlier process.
    manifests: Mutex<HashMap<String, Arc<Manifest>>>,
}

/// An installation in a workspace.
#[derive(Debug)]
pub struct CheckedOut {
    key: String,
    id: String,
    manifest: Arc<Manifest>,
}

/// The metadata of every entry below a folder, by path.
type Manifest = BTreeMap<PathBuf, EntryMetadata>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct EntryMetadata {
    mode: u32,
    inode: u64,
    /// Size and ctime. `None` for folders: adding and removing an entry changes them.
    content: Option<(u64, i64, i64)>,
}

impl InstallCache {
    pub fn new(folder: PathBuf, max_installs: usize) -> Self {
        Self { folder, max_installs, manifests: Mutex::default() }
    }

    /// Moves an unchanged installation with this key to `target`. `None` if there is none.
    pub fn check_out(&self, key: &str, target: &Path) -> io::Result<Option<CheckedOut>> {
        let Ok(cached) = fs::read_dir(self.folder.join(key)) else { return Ok(None) };
        for id in cached.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let entry = self.folder.join(key).join(&id);
            if fs::rename(entry.join("node_modules"), target).is_err() {
                // Another attempt has checked it out.
                continue;
            }
            let found = manifest(target, usize::MAX)?;
            let known = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
            let is_unchanged = match &known {
                Some(known) => **known == found,
                None => fs::read_to_string(entry.join("manifest")).is_ok_and(|written| written == digest(&found)),
            };
            if is_unchanged {
                let manifest = known.unwrap_or_else(|| Arc::new(found));
                return Ok(Some(CheckedOut { key: key.to_string(), id, manifest }));
            }
            tracing::warn!(key, "a cached installation was changed; deleting it");
            self.forget(&id);
            remove(target)?;
            remove(&entry)?;
        }
        Ok(None)
    }

    /// Records a new installation at `target`. Call it before any code of the workspace runs.
    pub fn record(key: String, target: &Path) -> io::Result<CheckedOut> {
        let id = Uuid::new_v4().simple().to_string();
        Ok(CheckedOut { key, id, manifest: Arc::new(manifest(target, usize::MAX)?) })
    }

    /// Moves an installation back if its files are unchanged, else deletes it.
    pub fn check_in(&self, checked_out: CheckedOut, target: &Path) -> io::Result<()> {
        let CheckedOut { key, id, manifest } = checked_out;
        if !remove_added(target, &manifest)? {
            self.forget(&id);
            return remove(&self.folder.join(key).join(id));
        }
        let entry = self.folder.join(key).join(&id);
        private_folder(&entry)?;
        fs::write(entry.join("manifest"), digest(&manifest))?;
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).insert(id, manifest);
        fs::rename(target, entry.join("node_modules"))?;
        self.evict_oldest()
    }

    fn forget(&self, id: &str) {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Deletes the oldest installations above the limit. A process that checks out one of them meanwhile finds it changed
    /// and installs again.
    fn evict_oldest(&self) -> io::Result<()> {
        let mut cached: Vec<(SystemTime, PathBuf)> = Vec::new();
        for key in fs::read_dir(&self.folder)? {
            for entry in fs::read_dir(key?.path())? {
                let entry = entry?;
                cached.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        cached.sort();
        for (_, oldest) in cached.iter().take(cached.len().saturating_sub(self.max_installs)) {
            if let Some(id) = oldest.file_name().and_then(|name| name.to_str()) {
                self.forget(id);
            }
            remove(oldest)?;
        }
        Ok(())
    }
}

/// Removes entries that are not in the manifest. Returns whether all others are unchanged.
fn remove_added(root: &Path, expected: &Manifest) -> io::Result<bool> {
    const MAX_ADDED: usize = 20_000;
    match fs::symlink_metadata(root) {
        Ok(found) if found.is_dir() => {}
        _ => return Ok(false),
    }
    let Ok(found) = manifest(root, expected.len() + MAX_ADDED) else { return Ok(false) };
    let mut removed: Option<&PathBuf> = None;
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        // Paths are sorted, so a folder comes right before its contents.
        if removed.is_none_or(|folder| !path.starts_with(folder)) {
            let full = root.join(path);
            if fs::symlink_metadata(&full)?.is_dir() {
                remove(&full)?;
            } else {
                fs::remove_file(&full)?;
            }
            removed = Some(path);
        }
    }
    Ok(expected.iter().all(|(path, metadata)| found.get(path) == Some(metadata)))
}

fn manifest(root: &Path, max_entries: usize) -> io::Result<Manifest> {
    let mut entries = Manifest::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let found = entry.metadata()?;
            let path = folder.join(entry.file_name());
            let content = (!found.is_dir()).then(|| (found.size(), found.ctime(), found.ctime_nsec()));
            if found.is_dir() {
                folders.push(path.clone());
            }
            entries.insert(path, EntryMetadata { mode: found.mode(), inode: found.ino(), content });
            if entries.len() > max_entries {
                return Err(io::Error::other("too many entries"));
            }
        }
    }
    Ok(entries)
}

fn digest(manifest: &Manifest) -> String {
    let mut hasher = Sha256::new();
    for (path, EntryMetadata { mode, inode, content }) in manifest {
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update(format!("\0{mode} {inode} {content:?}\0"));
    }
    hex(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A cache that holds one installation, as npm writes it.
    struct Fixture {
        work: tempfile::TempDir,
        cache: InstallCache,
    }

    impl Fixture {
        fn new() -> Self {
            let work = tempfile::tempdir().unwrap();
            let fixture = Self { cache: InstallCache::new(work.path().join("installs"), 4), work };
            fixture.install();
            fixture
        }

        fn install(&self) {
            let target = self.target();
            fs::create_dir_all(target.join("a")).unwrap();
            fs::create_dir(target.join(".bin")).unwrap();
            fs::write(target.join("a/index.js"), "good").unwrap();
            symlink("../a/index.js", target.join(".bin/a")).unwrap();
            let checked_out = InstallCache::record("key".into(), &target).unwrap();
            self.cache.check_in(checked_out, &target).unwrap();
            assert!(!target.exists());
        }

        fn target(&self) -> PathBuf {
            self.work.path().join("node_modules")
        }

        fn check_out(&self) -> Option<CheckedOut> {
            self.cache.check_out("key", &self.target()).unwrap()
        }

        fn cached_file(&self) -> PathBuf {
            let entry = fs::read_dir(self.work.path().join("installs/key")).unwrap().next().unwrap().unwrap().path();
            entry.join("node_modules/a/index.js")
        }
    }

    /// Changes a file but keeps its length and restores its modification time.
    fn tamper(file: &Path) {
        let modified = fs::metadata(file).unwrap().modified().unwrap();
        fs::write(file, "evil").unwrap();
        fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
    }

    #[test]
    fn only_one_attempt_at_a_time_checks_out_an_installation() {
        let fixture = Fixture::new();
        let checked_out = fixture.check_out().unwrap();
        assert_eq!(fs::read_to_string(fixture.target().join(".bin/a")).unwrap(), "good");
        assert!(fixture.cache.check_out("key", &fixture.work.path().join("other")).unwrap().is_none());
        fixture.cache.check_in(checked_out, &fixture.target()).unwrap();
        assert!(fixture.check_out().is_some());
    }

    #[test]
    fn an_installation_that_tests_changed_is_not_cached() {
        let fixture = Fixture::new();
        let checked_out = fixture.check_out().unwrap();
        tamper(&fixture.target().join("a/index.js"));
        fixture.cache.check_in(checked_out, &fixture.target()).unwrap();
        fs::remove_dir_all(fixture.target()).unwrap();
        assert!(fixture.check_out().is_none());
    }

    #[test]
    fn an_installation_with_removed_or_replaced_files_is_not_cached() {
        let changes: [fn(&Path); 3] = [
            |target| fs::remove_file(target.join(".bin/a")).unwrap(),
            |target| {
                fs::write(target.join("b"), "good").unwrap();
                fs::rename(target.join("b"), target.join("a/index.js")).unwrap();
            },
            |target| {
                fs::rename(target, target.with_extension("away")).unwrap();
                symlink(target.with_extension("away"), target).unwrap();
            },
        ];
        for change in changes {
            let fixture = Fixture::new();
            let checked_out = fixture.check_out().unwrap();
            change(&fixture.target());
            fixture.cache.check_in(checked_out, &fixture.target()).unwrap();
            assert!(fixture.cache.check_out("key", &fixture.work.path().join("next")).unwrap().is_none());
        }
    }

    #[test]
    fn files_that_tests_added_are_removed_and_the_rest_is_cached() {
        let fixture = Fixture::new();
        let checked_out = fixture.check_out().unwrap();
        fs::create_dir_all(fixture.target().join(".vite/vitest")).unwrap();
        fs::write(fixture.target().join(".vite/vitest/results.json"), "{}").unwrap();
        fs::write(fixture.target().join("a/added.js"), "evil").unwrap();
        fixture.cache.check_in(checked_out, &fixture.target()).unwrap();
        assert!(fixture.check_out().is_some());
        assert!(!fixture.target().join(".vite").exists() && !fixture.target().join("a/added.js").exists());
    }

    #[test]
    fn an_installation_that_changed_in_the_cache_is_not_used_even_with_a_matching_manifest_file() {
        let fixture = Fixture::new();
        let file = fixture.cached_file();
        tamper(&file);
        let root = file.parent().unwrap().parent().unwrap();
        fs::write(root.parent().unwrap().join("manifest"), digest(&manifest(root, 100).unwrap())).unwrap();
        assert!(fixture.check_out().is_none());
        assert!(!fixture.target().exists() && !file.exists());
    }

    #[test]
    fn an_installation_survives_a_restart_only_with_its_manifest() {
        let mut fixture = Fixture::new();
        fixture.cache = InstallCache::new(fixture.work.path().join("installs"), 4);
        let checked_out = fixture.check_out().unwrap();
        fixture.cache.check_in(checked_out, &fixture.target()).unwrap();
        fixture.cache = InstallCache::new(fixture.work.path().join("installs"), 4);
        fs::write(fixture.cached_file().parent().unwrap().parent().unwrap().with_file_name("manifest"), "").unwrap();
        assert!(fixture.check_out().is_none());
    }

    #[test]
    fn the_cache_never_exceeds_its_limit() {
        let mut fixture = Fixture::new();
        fixture.cache.max_installs = 2;
        fixture.install();
        fixture.install();
        assert_eq!(fs::read_dir(fixture.work.path().join("installs/key")).unwrap().count(), 2);
    }
}
