//! Changes the files of an unpacked workspace. Nothing is written or read through a link.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::path;

/// Why a change is not possible.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The change does not fit the workspace. The text names the path and says what to do.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn refused<T>(message: impl Into<String>) -> Result<T, EditError> {
    Err(EditError::Refused(message.into()))
}

/// A file of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    pub bytes: Vec<u8>,
    pub executable: bool,
}

/// Reads a regular file. `None` if nothing has this path.
pub fn read_file(root: &Path, path: &str) -> Result<Option<FileContent>, EditError> {
    let path = path::parse_file(path.as_bytes()).map_err(EditError::Refused)?;
    let Some(folder) = real_folder(root, &path)? else { return Ok(None) };
    let full = folder.join(name(&path));
    match lookup(&full)? {
        None => Ok(None),
        Some(found) if found.is_file() => {
            Ok(Some(FileContent { bytes: fs::read(&full)?, executable: found.permissions().mode() & 0o100 != 0 }))
        }
        Some(found) if found.is_symlink() => refused(format!("{path} is a link; only files can be changed")),
        Some(_) => refused(format!("{path} is a folder; name a file")),
    }
}

/// Writes a file, with its folders. Replaces a file or link of that path. Without `executable`, a file that exists keeps
/// its bit, and a new one gets none.
pub fn write_file(root: &Path, path: &str, bytes: &[u8], executable: Option<bool>) -> Result<(), EditError> {
    let path = path::parse_file(path.as_bytes()).map_err(EditError::Refused)?;
    let mut folder = root.to_path_buf();
    for part in parents(&path) {
        folder.push(part);
        match lookup(&folder)? {
            Some(found) if found.is_dir() => {}
            Some(found) => return not_a_folder(root, &folder, &path, found.is_symlink()),
            None => fs::create_dir(&folder)?,
        }
    }
    let full = folder.join(name(&path));
    let mut is_executable = false;
    match lookup(&full)? {
        None => {}
        Some(found) if found.is_dir() => {
            return refused(format!("{path} is a folder; delete it in a step before, or name a file in it"));
        }
        Some(found) => {
            is_executable = found.is_file() && found.permissions().mode() & 0o100 != 0;
            fs::remove_file(&full)?;
        }
    }
    let mode = if executable.unwrap_or(is_executable) { 0o755 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&full)?;
    file.write_all(bytes)?;
    // The umask may have removed bits.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Deletes a file or link, or with a slash at the end a folder and all that is in it. Also deletes folders that become
/// empty: to a tree they do not exist.
pub fn delete(root: &Path, asked: &str) -> Result<(), EditError> {
    let path = path::parse_file(asked.as_bytes()).map_err(EditError::Refused)?;
    let missing = || refused(format!("{path} does not exist, so it cannot be deleted; check its name"));
    let Some(folder) = real_folder(root, &path)? else { return missing() };
    let full = folder.join(name(&path));
    match (lookup(&full)?, asked.ends_with('/')) {
        (None, _) => return missing(),
        (Some(found), true) if found.is_dir() => fs::remove_dir_all(&full)?,
        (Some(found), false) if found.is_dir() => {
            return refused(format!(
                "{path} is a folder; end the path with a slash to delete it and all that is in it"
            ));
        }
        (Some(_), true) => return refused(format!("{path} is not a folder; name it without a slash at the end")),
        (Some(_), false) => fs::remove_file(&full)?,
    }
    remove_empty_folders(root, &folder)
}

/// Deletes a file or link. A folder is refused.
pub fn delete_file(root: &Path, path: &str) -> Result<(), EditError> {
    let parsed = path::parse_file(path.as_bytes()).map_err(EditError::Refused)?;
    if let Some(folder) = real_folder(root, &parsed)?
        && lookup(&folder.join(name(&parsed)))?.is_some_and(|found| found.is_dir())
    {
        return refused(format!("{parsed} is a folder, and only files can be deleted: name each of its files"));
    }
    delete(root, &parsed)
}

fn remove_empty_folders(root: &Path, folder: &Path) -> Result<(), EditError> {
    let mut folder = folder;
    while folder != root && fs::read_dir(folder)?.next().is_none() {
        fs::remove_dir(folder)?;
        folder = folder.parent().unwrap_or(root);
    }
    Ok(())
}

/// The folder of a path. `None` if it does not exist. An error if a part of it is a link or a file.
fn real_folder(root: &Path, path: &str) -> Result<Option<PathBuf>, EditError> {
    let mut folder = root.to_path_buf();
    for part in parents(path) {
        folder.push(part);
        match lookup(&folder)? {
            Some(found) if found.is_dir() => {}
            Some(found) => return not_a_folder(root, &folder, path, found.is_symlink()),
            None => return Ok(None),
        }
    }
    Ok(Some(folder))
}

fn not_a_folder<T>(root: &Path, found: &Path, path: &str, is_link: bool) -> Result<T, EditError> {
    let found = found.strip_prefix(root).unwrap_or(found).display();
    if is_link {
        refused(format!("{path} goes through {found}, which is a link; use the path that it points to"))
    } else {
        refused(format!(
            "{path} goes through {found}, which is a file; delete it in a step before, or use another path"
        ))
    }
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    let folders = path.rsplit_once('/').map(|(folders, _)| folders.split('/'));
    folders.into_iter().flatten()
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn lookup(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write_file(root.path(), "src/a.ts", b"a", None).unwrap();
        write_file(root.path(), "run.sh", b"#!", Some(true)).unwrap();
        symlink("src", root.path().join("link")).unwrap();
        symlink("src/a.ts", root.path().join("file-link")).unwrap();
        root
    }

    fn message(result: Result<(), EditError>) -> String {
        match result {
            Err(EditError::Refused(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_keeps_its_bit_unless_told_otherwise() {
        let root = sample();
        for (executable, expected) in [(None, true), (Some(false), false), (None, false), (Some(true), true)] {
            write_file(root.path(), "run.sh", b"x", executable).unwrap();
            assert_eq!(read_file(root.path(), "run.sh").unwrap().unwrap().executable, expected, "{executable:?}");
        }
    }

    #[test]
    fn nothing_goes_through_a_link() {
        let root = sample();
        assert!(message(write_file(root.path(), "link/b.ts", b"x", None)).contains("which is a link"));
        assert!(message(delete(root.path(), "link/a.ts")).contains("which is a link"));
        assert!(read_file(root.path(), "link/a.ts").is_err() && read_file(root.path(), "file-link").is_err());
        write_file(root.path(), "file-link", b"new", None).unwrap();
        assert_eq!(fs::read(root.path().join("src/a.ts")).unwrap(), b"a");
        assert!(!fs::symlink_metadata(root.path().join("file-link")).unwrap().is_symlink());
        delete(root.path(), "link").unwrap();
        assert!(root.path().join("src/a.ts").exists());
    }

    #[test]
    fn unsafe_paths_are_refused_everywhere() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("workspace");
        fs::create_dir(&root).unwrap();
        for path in ["../x", "/x", ".git/hooks/x", "a/node_modules/x", "", ".", "a\nb", ".GIT/x"] {
            message(write_file(&root, path, b"x", None));
            message(delete(&root, path));
            assert!(read_file(&root, path).is_err());
        }
        assert!(!outer.path().join("x").exists());
    }

    #[test]
    fn files_and_folders_are_not_confused() {
        let root = sample();
        assert!(message(write_file(root.path(), "src", b"x", None)).contains("is a folder"));
        assert!(message(write_file(root.path(), "run.sh/x", b"x", None)).contains("which is a file"));
        assert!(message(delete(root.path(), "src")).contains("slash"));
        assert!(message(delete_file(root.path(), "src")).contains("name each of its files"));
        assert!(message(delete_file(root.path(), "nothing")).contains("does not exist"));
        assert!(message(delete(root.path(), "run.sh/")).contains("without a slash"));
        assert!(message(delete(root.path(), "nothing")).contains("does not exist"));
        assert!(message(delete(root.path(), "nothing/x")).contains("does not exist"));
        delete(root.path(), "src/").unwrap();
        assert!(!root.path().join("src").exists());
    }

    #[test]
    fn folders_that_become_empty_are_deleted() {
        let root = sample();
        write_file(root.path(), "a/b/c/d", b"x", None).unwrap();
        write_file(root.path(), "a/e", b"x", None).unwrap();
        delete(root.path(), "a/b/c/d").unwrap();
        assert!(root.path().join("a/e").exists() && !root.path().join("a/b").exists());
    }
}
