//! Download caches of the installers.
//!
//! An installer can do what it likes with its cache, and pip takes wheels of a cache without comparing their digests. So a
//! cache serves one tenant, one installer at a time, and never where tested code could write to it. It moves into the
//! folder of the installation and back. If it does not come back, because the process died, it is lost.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;

use crate::attempt::passable_folder;
use crate::dependencies::Ecosystem;
use shared::domain::digest::sha256_hex;

/// How many caches to keep, of all tenants and ecosystems.
const MAX_CACHES: usize = 8;
/// A larger cache is not kept. npm and pip delete nothing by themselves.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The idle caches: `<ecosystem>-<tenant>.<id>`.
#[derive(Debug, Clone)]
pub struct Caches {
    folder: PathBuf,
}

impl Caches {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Moves a cache to a new path, or makes an empty one there.
    pub fn lend(&self, ecosystem: Ecosystem, tenant: &str, to: &Path) -> io::Result<()> {
        let mut own = self.idle()?;
        own.retain(|(_, name)| name.starts_with(&prefix(ecosystem, tenant)));
        // The last one used has most of what is needed.
        for (_, name) in own.into_iter().rev() {
            // Else another installer was faster, or it is on another disk.
            if fs::rename(self.folder.join(name), to).is_ok() {
                return Ok(());
            }
        }
        DirBuilder::new().mode(0o700).create(to)
    }

    /// Keeps a cache, unless it is too large. Caches that are too old go to `waste`, which the caller deletes.
    pub fn put_back(&self, ecosystem: Ecosystem, tenant: &str, from: &Path, waste: &Path) -> io::Result<()> {
        passable_folder(&self.folder)?;
        let is_folder = fs::symlink_metadata(from).is_ok_and(|found| found.is_dir());
        if !is_folder || is_larger(from, MAX_BYTES)? {
            return Ok(());
        }
        let kept = self.folder.join(format!("{}{}", prefix(ecosystem, tenant), Uuid::new_v4().simple()));
        fs::File::open(from)?.set_modified(SystemTime::now())?;
        match fs::rename(from, kept) {
            Err(error) if is_gone(&error) => return Ok(()),
            other => other?,
        }
        let idle = self.idle()?;
        for (_, name) in idle.iter().take(idle.len().saturating_sub(MAX_CACHES)) {
            match fs::rename(self.folder.join(name), waste.join(name)) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All idle caches, the last one used last.
    fn idle(&self) -> io::Result<Vec<(SystemTime, String)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut idle: Vec<(SystemTime, String)> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.file_name().into_string().ok()?)))
            .collect();
        idle.sort();
        Ok(idle)
    }
}

fn prefix(ecosystem: Ecosystem, tenant: &str) -> String {
    let digest: String = sha256_hex(tenant.as_bytes()).chars().take(32).collect();
    format!("{ecosystem}-{digest}.")
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::CrossesDevices)
}

fn is_larger(root: &Path, limit: u64) -> io::Result<bool> {
    let (mut bytes, mut folders) = (0, vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.len();
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
        if bytes > limit {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches() -> (tempfile::TempDir, Caches) {
        let folder = tempfile::tempdir().unwrap();
        let caches = Caches::new(folder.path().join("caches"));
        (folder, caches)
    }

    #[test]
    fn a_cache_serves_one_installer_of_its_tenant_at_a_time() {
        let (folder, caches) = caches();
        let path = |name: &str| folder.path().join(name);
        let is_used = |name: &str| path(name).join("file").exists();
        caches.lend(Ecosystem::Npm, "a", &path("first")).unwrap();
        fs::write(path("first/file"), "").unwrap();
        caches.put_back(Ecosystem::Npm, "a", &path("first"), folder.path()).unwrap();
        assert!(!path("first").exists());
        caches.lend(Ecosystem::Npm, "b", &path("other-tenant")).unwrap();
        caches.lend(Ecosystem::Pip, "a", &path("other-ecosystem")).unwrap();
        caches.lend(Ecosystem::Npm, "a", &path("second")).unwrap();
        caches.lend(Ecosystem::Npm, "a", &path("third")).unwrap();
        let used = ["other-tenant", "other-ecosystem", "second", "third"].map(is_used);
        assert_eq!(used, [false, false, true, false]);
    }

    #[test]
    fn old_and_large_caches_are_not_kept() {
        let (folder, caches) = caches();
        let waste = folder.path().join("waste");
        fs::create_dir(&waste).unwrap();
        for number in 0..=MAX_CACHES {
            let (cache, tenant) = (folder.path().join("cache"), number.to_string());
            caches.lend(Ecosystem::Npm, &tenant, &cache).unwrap();
            fs::write(cache.join("file"), &tenant).unwrap();
            caches.put_back(Ecosystem::Npm, &tenant, &cache, &waste).unwrap();
        }
        assert_eq!(caches.idle().unwrap().len(), MAX_CACHES);
        assert_eq!(fs::read_dir(&waste).unwrap().count(), 1);
        caches.lend(Ecosystem::Npm, "0", &folder.path().join("oldest")).unwrap();
        assert!(!folder.path().join("oldest/file").exists());
        caches.lend(Ecosystem::Npm, "8", &folder.path().join("large")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("large/file")).unwrap(), "8");
        fs::File::create(folder.path().join("large/more")).unwrap().set_len(MAX_BYTES).unwrap();
        caches.put_back(Ecosystem::Npm, "8", &folder.path().join("large"), &waste).unwrap();
        assert!(folder.path().join("large/file").exists());
    }
}
