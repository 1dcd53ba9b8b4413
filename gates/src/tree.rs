//! Walks, copies and hashes folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use shared::domain::digest::hex;

use crate::attempt::Attempt;
use crate::coverage::{Content, SourceRules, Tree};

/// Folders to skip at any depth: dependencies and history.
pub const SKIPPED: [&str; 2] = ["node_modules", ".git"];

/// The limit on files in a folder.
const MAX_FILES: usize = 200_000;

/// A file of a folder. Paths are relative, with slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File { executable: bool },
    Link,
}

/// The files below a folder by path, except those in [`SKIPPED`] folders. Also skips a folder `coverage` next to a
/// package.json, because it holds reports of earlier runs.
pub fn walk(root: &Path) -> io::Result<BTreeMap<String, Kind>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![(root.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let is_project = folder.join("package.json").is_file();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| invalid(&format!("a name below {prefix:?} is not UTF-8")))?;
            if SKIPPED.contains(&name) || (is_project && name == "coverage") {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
            } else if kind.is_symlink() {
                files.insert(path, Kind::Link);
            } else if kind.is_file() {
                let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                files.insert(path, Kind::File { executable });
            } else {
                return Err(invalid(&format!("{path} is neither a file nor a folder")));
            }
            if files.len() > MAX_FILES {
                return Err(invalid(&format!("there are more than {MAX_FILES} files")));
            }
        }
    }
    Ok(files)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_string())
}

/// Copies a workspace without its links, because a link could point outside the copy.
pub fn copy_workspace(from: &Path, to: &Path, attempt: &Attempt) -> io::Result<()> {
    for (path, kind) in walk(from)? {
        attempt.check_cancelled()?;
        if let Kind::File { .. } = kind {
            let target = to.join(&path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(from.join(&path), target)?;
        }
    }
    Ok(())
}

/// sha256 over the path, executable bit and content of each file, in path order.
pub fn digest(root: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    for (path, kind) in walk(root)? {
        let (flag, content) = match kind {
            Kind::File { executable: true } => ("x", file_digest(&root.join(&path))?),
            Kind::File { executable: false } => ("-", file_digest(&root.join(&path))?),
            Kind::Link => ("l", Sha256::digest(fs::read_link(root.join(&path))?.as_os_str().as_encoded_bytes()).into()),
        };
        hasher.update(format!("{flag} {} {path}\0", hex(&content)));
    }
    Ok(hex(&hasher.finalize()))
}

/// sha256 of a file.
pub fn file_digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

/// Reads a workspace for a comparison: the text of files that may be sources, the hash of other files.
pub fn read(root: &Path, rules: &SourceRules) -> io::Result<Tree> {
    let mut tree = Tree::new();
    for (path, kind) in walk(root)? {
        let full = root.join(&path);
        let content = match kind {
            Kind::File { .. } if rules.may_be_source(&path) => Content::Text(fs::read(full)?),
            Kind::File { .. } => Content::Other(file_digest(&full)?),
            Kind::Link => Content::Link(fs::read_link(full)?.into_os_string().into_encoded_bytes()),
        };
        tree.insert(path, content);
    }
    Ok(tree)
}

/// The folders that hold a package.json, as paths from the root.
pub fn projects(root: &Path) -> io::Result<Vec<PathBuf>> {
    let files = walk(root)?;
    let folder = |path: &String| match path.strip_suffix("package.json") {
        Some("") => Some(PathBuf::new()),
        Some(folder) if folder.ends_with('/') => Some(PathBuf::from(folder)),
        _ => None,
    };
    Ok(files.keys().filter_map(folder).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    #[test]
    fn dependencies_history_and_old_reports_are_skipped() {
        let root = folder(&[
            "package.json",
            "coverage/coverage-final.json",
            "src/coverage/a.ts",
            "node_modules/a/b.js",
            "p/.git/c",
            "p/d.ts",
        ]);
        assert_eq!(
            walk(root.path()).unwrap().into_keys().collect::<Vec<_>>(),
            ["p/d.ts", "package.json", "src/coverage/a.ts"]
        );
    }

    #[test]
    fn a_copy_has_the_same_digest_and_every_change_gives_another() {
        let root = folder(&["a.ts", "b/c.sh"]);
        let work = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(work.path()).unwrap();
        copy_workspace(root.path(), &attempt.workspace(), &attempt).unwrap();
        let before = digest(root.path()).unwrap();
        assert_eq!(digest(&attempt.workspace()).unwrap(), before);
        fs::set_permissions(root.path().join("b/c.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(digest(root.path()).unwrap(), before);
        fs::write(attempt.workspace().join("a.ts"), "y").unwrap();
        assert_ne!(digest(&attempt.workspace()).unwrap(), before);
    }

    #[test]
    fn a_link_that_points_outside_the_workspace_is_not_followed() {
        let root = folder(&["a.ts"]);
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("b.ts")).unwrap();
        let work = tempfile::tempdir().unwrap();
        let attempt = Attempt::begin(work.path()).unwrap();
        copy_workspace(root.path(), &attempt.workspace(), &attempt).unwrap();
        assert!(!attempt.workspace().join("b.ts").exists());
        assert!(matches!(read(root.path(), &SourceRules::default()).unwrap()["b.ts"], Content::Link(_)));
    }

    #[test]
    fn projects_are_found_in_a_monorepo() {
        let root = folder(&["package.json", "packages/a/package.json", "x-package.json"]);
        assert_eq!(projects(root.path()).unwrap(), [PathBuf::new(), PathBuf::from("packages/a/")]);
    }
}
