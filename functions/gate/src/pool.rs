//! Keeps installed dependencies for the next gate.
//!
//! Dependencies are thousands of files. Installing them takes seconds, copying them takes about as long, and links
//! would let the tests of one gate write into the dependencies of the next. So an installation is **lent**: it is moved
//! into the workspace, and moved back once every process of the command is dead. Each time all files are compared with
//! what npm had written: size, mode, inode and time of the last change (ctime), which no program can set back. Files
//! that the tests added are removed. An installation that they changed is deleted.

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

/// Kept installations, in `<folder>/<key>/<id>/{node_modules,manifest}`. Whoever moves `node_modules` out has claimed
/// it, so any number of processes may share the folder.
#[derive(Debug)]
pub struct Pool {
    folder: PathBuf,
    most: usize,
    /// By id. Commands cannot change this map. They could change the file `manifest`, which outlives the process, so
    /// the file is used only for installations that are not in the map.
    known: Mutex<HashMap<String, Arc<Manifest>>>,
}

/// An installation that is in a workspace, with what is needed to give it back.
#[derive(Debug)]
pub struct Lent {
    key: String,
    id: String,
    manifest: Arc<Manifest>,
}

/// The facts of every entry below a folder, by path.
type Manifest = BTreeMap<PathBuf, Facts>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    mode: u32,
    inode: u64,
    /// Size and time of change. None for folders, which change when an entry is added and removed again.
    content: Option<(u64, i64, i64)>,
}

impl Pool {
    pub fn new(folder: PathBuf, most: usize) -> Self {
        Self { folder, most, known: Mutex::default() }
    }

    /// Moves an unchanged installation with this key to `target`, if there is one.
    pub fn lend(&self, key: &str, target: &Path) -> io::Result<Option<Lent>> {
        let Ok(kept) = fs::read_dir(self.folder.join(key)) else { return Ok(None) };
        for id in kept.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let place = self.folder.join(key).join(&id);
            if fs::rename(place.join("node_modules"), target).is_err() {
                // Another attempt has it.
                continue;
            }
            let found = manifest(target, usize::MAX)?;
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
            let is_untouched = match &known {
                Some(known) => **known == found,
                None => fs::read_to_string(place.join("manifest")).is_ok_and(|written| written == digest(&found)),
            };
            if is_untouched {
                let manifest = known.unwrap_or_else(|| Arc::new(found));
                return Ok(Some(Lent { key: key.to_string(), id, manifest }));
            }
            tracing::warn!(key, "a kept installation was changed and is deleted");
            self.forget(&id);
            remove(target)?;
            remove(&place)?;
        }
        Ok(None)
    }

    /// Records a new installation at `target`, before any code of the workspace can change it.
    pub fn note(key: String, target: &Path) -> io::Result<Lent> {
        let id = Uuid::new_v4().simple().to_string();
        Ok(Lent { key, id, manifest: Arc::new(manifest(target, usize::MAX)?) })
    }

    /// Moves an installation back if its files are unchanged.
    pub fn give_back(&self, lent: Lent, target: &Path) -> io::Result<()> {
        let Lent { key, id, manifest } = lent;
        if !settle(target, &manifest)? {
            self.forget(&id);
            return remove(&self.folder.join(key).join(id));
        }
        let place = self.folder.join(key).join(&id);
        private_folder(&place)?;
        fs::write(place.join("manifest"), digest(&manifest))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id, manifest);
        fs::rename(target, place.join("node_modules"))?;
        self.forget_oldest()
    }

    fn forget(&self, id: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Deletes the oldest above the limit. A process that takes one of them meanwhile finds it incomplete and installs
    /// anew.
    fn forget_oldest(&self) -> io::Result<()> {
        let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
        for key in fs::read_dir(&self.folder)? {
            for place in fs::read_dir(key?.path())? {
                let place = place?;
                kept.push((place.metadata()?.modified()?, place.path()));
            }
        }
        kept.sort();
        for (_, oldest) in kept.iter().take(kept.len().saturating_sub(self.most)) {
            if let Some(id) = oldest.file_name().and_then(|name| name.to_str()) {
                self.forget(id);
            }
            remove(oldest)?;
        }
        Ok(())
    }
}

/// Removes what was added. True if the rest is unchanged.
fn settle(root: &Path, expected: &Manifest) -> io::Result<bool> {
    const MOST_ADDED: usize = 20_000;
    match fs::symlink_metadata(root) {
        Ok(found) if found.is_dir() => {}
        _ => return Ok(false),
    }
    let Ok(found) = manifest(root, expected.len() + MOST_ADDED) else { return Ok(false) };
    let mut removed: Option<&PathBuf> = None;
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        // In this order a folder comes right before its contents.
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
    Ok(expected.iter().all(|(path, facts)| found.get(path) == Some(facts)))
}

fn manifest(root: &Path, most: usize) -> io::Result<Manifest> {
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
            entries.insert(path, Facts { mode: found.mode(), inode: found.ino(), content });
            if entries.len() > most {
                return Err(io::Error::other("too many entries"));
            }
        }
    }
    Ok(entries)
}

fn digest(manifest: &Manifest) -> String {
    let mut sum = Sha256::new();
    for (path, Facts { mode, inode, content }) in manifest {
        sum.update(path.as_os_str().as_encoded_bytes());
        sum.update(format!("\0{mode} {inode} {content:?}\0"));
    }
    hex(&sum.finalize())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A workspace with an installation, as npm leaves it, that was kept once.
    struct Kept {
        work: tempfile::TempDir,
        pool: Pool,
    }

    impl Kept {
        fn new() -> Self {
            let work = tempfile::tempdir().unwrap();
            let kept = Self { pool: Pool::new(work.path().join("installs"), 4), work };
            kept.install();
            kept
        }

        fn install(&self) {
            let target = self.target();
            fs::create_dir_all(target.join("a")).unwrap();
            fs::create_dir(target.join(".bin")).unwrap();
            fs::write(target.join("a/index.js"), "good").unwrap();
            symlink("../a/index.js", target.join(".bin/a")).unwrap();
            let lent = Pool::note("key".into(), &target).unwrap();
            self.pool.give_back(lent, &target).unwrap();
            assert!(!target.exists());
        }

        fn target(&self) -> PathBuf {
            self.work.path().join("node_modules")
        }

        fn lend(&self) -> Option<Lent> {
            self.pool.lend("key", &self.target()).unwrap()
        }

        fn kept_file(&self) -> PathBuf {
            let place = fs::read_dir(self.work.path().join("installs/key")).unwrap().next().unwrap().unwrap().path();
            place.join("node_modules/a/index.js")
        }
    }

    /// Keeps the length, and sets the modification time back.
    fn tamper(file: &Path) {
        let modified = fs::metadata(file).unwrap().modified().unwrap();
        fs::write(file, "evil").unwrap();
        fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
    }

    #[test]
    fn an_installation_is_lent_to_one_at_a_time_and_comes_back() {
        let kept = Kept::new();
        let lent = kept.lend().unwrap();
        assert_eq!(fs::read_to_string(kept.target().join(".bin/a")).unwrap(), "good");
        assert!(kept.pool.lend("key", &kept.work.path().join("other")).unwrap().is_none());
        kept.pool.give_back(lent, &kept.target()).unwrap();
        assert!(kept.lend().is_some());
    }

    #[test]
    fn what_tests_changed_is_not_kept() {
        let kept = Kept::new();
        let lent = kept.lend().unwrap();
        tamper(&kept.target().join("a/index.js"));
        kept.pool.give_back(lent, &kept.target()).unwrap();
        fs::remove_dir_all(kept.target()).unwrap();
        assert!(kept.lend().is_none());
    }

    #[test]
    fn what_tests_removed_or_replaced_is_not_kept() {
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
            let kept = Kept::new();
            let lent = kept.lend().unwrap();
            change(&kept.target());
            kept.pool.give_back(lent, &kept.target()).unwrap();
            assert!(kept.pool.lend("key", &kept.work.path().join("next")).unwrap().is_none());
        }
    }

    #[test]
    fn what_tests_added_is_removed_and_the_rest_is_kept() {
        let kept = Kept::new();
        let lent = kept.lend().unwrap();
        fs::create_dir_all(kept.target().join(".vite/vitest")).unwrap();
        fs::write(kept.target().join(".vite/vitest/results.json"), "{}").unwrap();
        fs::write(kept.target().join("a/added.js"), "evil").unwrap();
        kept.pool.give_back(lent, &kept.target()).unwrap();
        assert!(kept.lend().is_some());
        assert!(!kept.target().join(".vite").exists() && !kept.target().join("a/added.js").exists());
    }

    #[test]
    fn an_installation_that_was_changed_while_kept_is_not_lent_whatever_its_manifest_says() {
        let kept = Kept::new();
        let file = kept.kept_file();
        tamper(&file);
        let root = file.parent().unwrap().parent().unwrap();
        fs::write(root.parent().unwrap().join("manifest"), digest(&manifest(root, 100).unwrap())).unwrap();
        assert!(kept.lend().is_none());
        assert!(!kept.target().exists() && !file.exists());
    }

    #[test]
    fn an_installation_survives_a_restart_only_with_its_manifest() {
        let mut kept = Kept::new();
        kept.pool = Pool::new(kept.work.path().join("installs"), 4);
        let lent = kept.lend().unwrap();
        kept.pool.give_back(lent, &kept.target()).unwrap();
        kept.pool = Pool::new(kept.work.path().join("installs"), 4);
        fs::write(kept.kept_file().parent().unwrap().parent().unwrap().with_file_name("manifest"), "").unwrap();
        assert!(kept.lend().is_none());
    }

    #[test]
    fn only_so_many_installations_are_kept() {
        let mut kept = Kept::new();
        kept.pool.most = 2;
        kept.install();
        kept.install();
        assert_eq!(fs::read_dir(kept.work.path().join("installs/key")).unwrap().count(), 2);
    }
}
