//! Reads a folder for a comparison.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::changed::{Content, Tree};
use super::sources::is_skipped;

/// The limit on files in a folder.
const MAX_FILES: usize = 200_000;

/// What to read of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Text,
    Hash,
    Nothing,
}

/// The files below a folder, without history and installed dependencies. Links are not followed.
pub fn read_folder(root: &Path, wanted: impl Fn(&str) -> Wanted) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![(root.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| invalid(format!("a name below {prefix:?} is not UTF-8")))?;
            let path = format!("{prefix}{name}");
            if is_skipped(name) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
                continue;
            }
            let content = if kind.is_symlink() {
                Content::Link(fs::read_link(entry.path())?.into_os_string().into_vec())
            } else if kind.is_file() {
                read_file(&entry.path(), wanted(&path))?
            } else {
                return Err(invalid(format!("{path} is neither a file nor a folder")));
            };
            tree.insert(path, content);
            if tree.len() > MAX_FILES {
                return Err(invalid(format!("there are more than {MAX_FILES} files")));
            }
        }
    }
    Ok(tree)
}

fn read_file(path: &Path, wanted: Wanted) -> io::Result<Content> {
    Ok(match wanted {
        Wanted::Text => Content::Text(fs::read(path)?),
        Wanted::Hash => Content::Other(Sha256::digest(fs::read(path)?).into()),
        Wanted::Nothing => Content::Unread,
    })
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_dependencies_are_skipped() {
        let root = tempfile::tempdir().unwrap();
        for path in ["src/a.ts", "b.md", "c.bin", "node_modules/x/d.ts", "p/node_modules/e.ts", ".git/HEAD"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("l.ts")).unwrap();
        let tree = read_folder(root.path(), |path| match path.rsplit_once('.') {
            Some((_, "ts")) => Wanted::Text,
            Some((_, "md")) => Wanted::Hash,
            _ => Wanted::Nothing,
        });
        let tree = tree.unwrap();
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["b.md", "c.bin", "l.ts", "src/a.ts"]);
        assert_eq!(tree["l.ts"], Content::Link(b"/etc/hostname".to_vec()));
        assert_eq!(tree["src/a.ts"], Content::Text(b"x".to_vec()));
        assert!(matches!(tree["b.md"], Content::Other(_)));
        assert_eq!(tree["c.bin"], Content::Unread);
    }
}
