//! The files of a workspace, listed and hashed once, before any of its code runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use shared::domain::digest::hex;

/// Folders that are not part of a workspace, at any depth: history and installed dependencies.
pub const SKIPPED: [&str; 2] = [".git", "node_modules"];

/// The limit on files in a workspace.
const MAX_FILES: usize = 200_000;

/// The files of a folder by path: relative, with slashes. It holds no contents; [`Snapshot::read`] reads a file.
#[derive(Debug, Clone)]
pub struct Snapshot {
    root: PathBuf,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// Of the content, or of a link's target, in bytes.
    pub size: u64,
    /// Git's blob ids of the content, or of a link's target.
    pub sha1: [u8; 20],
    pub sha256: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File { executable: bool },
    Link,
}

/// The id of a tree, as `git write-tree` prints it in a repository with each object format. Empty folders do not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TreeDigest {
    pub sha1: String,
    pub sha256: String,
}

impl Snapshot {
    /// Lists and hashes the files below `root`. Fails if one is neither a file nor a link, or has a name that is not
    /// UTF-8.
    pub fn take(root: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![(root.to_path_buf(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|error| at(&prefix, error))? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_str().ok_or_else(|| invalid(format!("a name below {prefix:?} is not UTF-8")))?;
                if SKIPPED.contains(&name) {
                    continue;
                }
                let path = format!("{prefix}{name}");
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push((entry.path(), format!("{path}/")));
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path())?;
                    let target = target.as_os_str().as_bytes();
                    files.insert(path, hash(Kind::Link, target.len() as u64, &mut &*target)?);
                } else if kind.is_file() {
                    let hashed = hash_file(&entry.path()).map_err(|error| at(&path, error))?;
                    files.insert(path, hashed);
                } else {
                    return Err(invalid(format!("{path} is neither a file nor a folder")));
                }
                if files.len() > MAX_FILES {
                    return Err(invalid(format!("there are more than {MAX_FILES} files")));
                }
            }
        }
        Ok(Self { root: root.to_path_buf(), files })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn files(&self) -> &BTreeMap<String, Entry> {
        &self.files
    }

    /// The content of a file. `None` if there is no such file, or if it is a link.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.files.get(path) {
            Some(Entry { kind: Kind::File { .. }, .. }) => fs::read(self.root.join(path)).map(Some),
            _ => Ok(None),
        }
    }

    /// The tree's id.
    pub fn digest(&self) -> TreeDigest {
        TreeDigest {
            sha1: hex(&tree_id(&self.files, |entry| entry.sha1.to_vec(), |tree| Sha1::digest(tree).to_vec())),
            sha256: hex(&tree_id(&self.files, |entry| entry.sha256.to_vec(), |tree| Sha256::digest(tree).to_vec())),
        }
    }
}

/// The error with the path that it is about.
fn at(path: &str, error: io::Error) -> io::Error {
    if path.is_empty() { error } else { io::Error::new(error.kind(), format!("{path}: {error}")) }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn hash_file(path: &Path) -> io::Result<Entry> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    let executable = found.permissions().mode() & 0o100 != 0;
    hash(Kind::File { executable }, found.len(), &mut file)
}

fn hash(kind: Kind, size: u64, content: &mut impl Read) -> io::Result<Entry> {
    let header = format!("blob {size}\0");
    let (mut sha1, mut sha256) = (Sha1::new_with_prefix(&header), Sha256::new_with_prefix(&header));
    let mut buffer = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let count = content.read(&mut buffer)?;
        let chunk = buffer.get(..count).unwrap_or_default();
        if chunk.is_empty() || chunk.len() as u64 > left {
            return Err(invalid("a file changed while it was read".to_owned()));
        }
        left -= chunk.len() as u64;
        sha1.update(chunk);
        sha256.update(chunk);
    }
    Ok(Entry { kind, size, sha1: sha1.finalize().into(), sha256: sha256.finalize().into() })
}

/// A folder of the tree: its files, and its folders with theirs. Git sorts a folder as if its name ended in a slash.
#[derive(Default)]
struct Folder<'a> {
    entries: BTreeMap<String, Node<'a>>,
}

enum Node<'a> {
    File(&'a Entry),
    Folder(Folder<'a>),
}

fn tree_id(
    files: &BTreeMap<String, Entry>,
    blob: impl Fn(&Entry) -> Vec<u8> + Copy,
    hash: impl Fn(&[u8]) -> Vec<u8> + Copy,
) -> Vec<u8> {
    let mut root = Folder::default();
    for (path, entry) in files {
        let mut folder = &mut root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                folder.entries.insert(part.to_owned(), Node::File(entry));
                break;
            }
            let node = folder.entries.entry(format!("{part}/")).or_insert_with(|| Node::Folder(Folder::default()));
            let Node::Folder(next) = node else { break };
            folder = next;
        }
    }
    folder_id(&root, blob, hash)
}

fn folder_id(
    folder: &Folder<'_>,
    blob: impl Fn(&Entry) -> Vec<u8> + Copy,
    hash: impl Fn(&[u8]) -> Vec<u8> + Copy,
) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, node) in &folder.entries {
        let (mode, id) = match node {
            Node::Folder(folder) => ("40000", folder_id(folder, blob, hash)),
            Node::File(entry) => {
                let mode = match entry.kind {
                    Kind::File { executable: false } => "100644",
                    Kind::File { executable: true } => "100755",
                    Kind::Link => "120000",
                };
                (mode, blob(entry))
            }
        };
        body.extend_from_slice(format!("{mode} {}\0", name.trim_end_matches('/')).as_bytes());
        body.extend_from_slice(&id);
    }
    hash(&[format!("tree {}\0", body.len()).as_bytes(), &body].concat())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let done = Command::new("git").args(arguments).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/b.txt", "a.txt", "a-b", "é/x.sh", "node_modules/n/index.js", "z/node_modules/m.js"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text\n").unwrap();
        }
        fs::set_permissions(root.path().join("é/x.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.path().join("empty")).unwrap();
        fs::write(root.path().join("nothing"), "").unwrap();
        symlink("a/b.txt", root.path().join("link")).unwrap();
        root
    }

    #[test]
    fn the_digest_is_what_git_write_tree_prints() {
        let root = sample();
        fs::write(root.path().join(".gitignore"), "node_modules\n").unwrap();
        let digest = Snapshot::take(root.path()).unwrap().digest();
        for (format, expected) in [("sha1", digest.sha1), ("sha256", digest.sha256)] {
            let objects = tempfile::tempdir().unwrap();
            let objects = format!("--git-dir={}", objects.path().join("git").display());
            git(root.path(), &[&objects, "init", "--quiet", "--object-format", format]);
            let with_tree = [objects.as_str(), "--work-tree=.", "-c", "core.autocrlf=false"];
            git(root.path(), &[&with_tree[..], &["add", "--all"]].concat());
            assert_eq!(git(root.path(), &[&with_tree[..], &["write-tree"]].concat()), expected);
        }
    }

    #[test]
    fn a_mode_a_name_and_a_byte_change_the_digest() {
        let root = sample();
        let first = Snapshot::take(root.path()).unwrap().digest();
        fs::set_permissions(root.path().join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
        let second = Snapshot::take(root.path()).unwrap().digest();
        fs::write(root.path().join("a.txt"), "texT\n").unwrap();
        let third = Snapshot::take(root.path()).unwrap().digest();
        assert!(first != second && second != third && first.sha1 != second.sha1);
    }

    #[test]
    fn only_the_content_of_files_is_read() {
        let root = sample();
        let snapshot = Snapshot::take(root.path()).unwrap();
        assert_eq!(snapshot.read("a.txt").unwrap().as_deref(), Some(b"text\n".as_slice()));
        for path in ["link", "a", "none", "../a.txt"] {
            assert_eq!(snapshot.read(path).unwrap(), None, "{path}");
        }
    }
}
