//! Fetches commits, and writes their files as git stores them: no filter, no attribute and no line ending changes a byte.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Limits, edit, path};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout_at;

use super::RepositoryError;
use crate::git::{self, Bounds, Git, GitError, Group};

/// An entry of a commit's tree.
struct Listed {
    id: String,
    size: u64,
    path: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File { executable: bool },
    Link,
}

/// Makes an empty repository in `folder/git`, of the format of this id.
pub async fn init(git: &Git, folder: &Path, id: &str, bounds: Bounds) -> Result<(), RepositoryError> {
    std::fs::create_dir_all(folder)?;
    let format = if id.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    git.run(folder, ["init", "--quiet", "--bare", "--template=", format, "git"], bounds).await?;
    Ok(())
}

/// Fetches these commits without their history. Returns the folder of the repository.
pub async fn fetch<'a>(
    git: &Git,
    folder: &Path,
    url: &'a str,
    commits: impl Iterator<Item = &'a String> + Clone,
    bounds: Bounds,
) -> Result<PathBuf, RepositoryError> {
    let folder = folder.join("content");
    let first = commits.clone().next().map_or("", String::as_str);
    init(git, &folder, first, bounds).await?;
    let start = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", url];
    git.run(&folder, start.into_iter().chain(commits.map(String::as_str)), bounds).await?;
    Ok(folder)
}

/// Writes the files of a commit into a folder.
pub async fn lay_out(
    git: &Git,
    repository: &Path,
    commit: &str,
    target: &Path,
    bounds: Bounds,
) -> Result<(), RepositoryError> {
    let tree = format!("{commit}^{{tree}}");
    let listing = git.run(repository, ["ls-tree", "-r", "-z", "--long", "--full-tree", &tree], bounds).await?;
    let listed = parse_listing(&listing).map_err(RepositoryError::Refused)?;
    std::fs::create_dir_all(target)?;

    let mut command = git.command(repository, ["cat-file", "--batch"]);
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = git::spawn(command)?;
    let group = Group::of(&child);
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(std::io::Error::other("git has no input or output").into());
    };
    let copied = async {
        // Both at once, because each side stops when the other's buffer is full.
        let (asked, written) = tokio::join!(ask(input, &listed), write_all(output, &listed, target));
        written?;
        asked?;
        child.wait().await.map_err(RepositoryError::from)
    };
    timeout_at(bounds.deadline, copied).await.map_err(|_| GitError::TimedOut)??;
    group.has_ended();
    Ok(())
}

/// Reads `git ls-tree -r -z --long`, and checks limits before any content is read.
fn parse_listing(listing: &[u8]) -> Result<Vec<Listed>, String> {
    let limits = Limits::default();
    let (mut listed, mut bytes) = (Vec::new(), 0_u64);
    for line in listing.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let entry = parse_entry(line)?;
        bytes = bytes.saturating_add(entry.size);
        listed.push(entry);
        if listed.len() > limits.entries || bytes > limits.unpacked_bytes {
            let Limits { entries, unpacked_bytes } = limits;
            return Err(format!("the commit has more than {entries} files or {unpacked_bytes} bytes"));
        }
    }
    Ok(listed)
}

/// `MODE TYPE ID SIZE<tab>PATH`.
fn parse_entry(line: &[u8]) -> Result<Listed, String> {
    let unreadable = || "git's listing of the commit cannot be read".to_owned();
    let tab = line.iter().position(|byte| *byte == b'\t').ok_or_else(unreadable)?;
    let facts = line.get(..tab).and_then(|facts| std::str::from_utf8(facts).ok()).ok_or_else(unreadable)?;
    let name = line.get(tab + 1..).unwrap_or_default();
    let mut facts = facts.split_ascii_whitespace();
    let (Some(mode), Some(_), Some(id), Some(size)) = (facts.next(), facts.next(), facts.next(), facts.next()) else {
        return Err(unreadable());
    };
    let path = path::parse_file(name)?;
    let kind = match mode {
        // git has written 100664 long ago. It would read it as 100644, but the tree's id counts the mode.
        "100644" => Kind::File { executable: false },
        "100755" => Kind::File { executable: true },
        "120000" => Kind::Link,
        "160000" => return Err(format!("{path} is a submodule; a workspace holds files alone")),
        other => return Err(format!("{path} has the mode {other}; only files and links can be in a workspace")),
    };
    let size = size.parse().map_err(|_| unreadable())?;
    Ok(Listed { id: id.to_owned(), size, path, kind })
}

async fn ask(mut input: ChildStdin, listed: &[Listed]) -> Result<(), RepositoryError> {
    for entry in listed {
        input.write_all(format!("{}\n", entry.id).as_bytes()).await?;
    }
    // Closing the input ends git.
    input.shutdown().await?;
    Ok(())
}

async fn write_all(output: ChildStdout, listed: &[Listed], target: &Path) -> Result<(), RepositoryError> {
    let mut output = BufReader::new(output);
    let broken = || RepositoryError::Git(GitError::Failed("an object of the commit is missing or damaged".to_owned()));
    let mut header = String::new();
    for entry in listed {
        header.clear();
        (&mut output).take(200).read_line(&mut header).await?;
        if header.trim_end() != format!("{} blob {}", entry.id, entry.size) {
            return Err(broken());
        }
        let size = usize::try_from(entry.size).map_err(|_| broken())?;
        let mut content = vec![0; size + 1];
        output.read_exact(&mut content).await?;
        content.truncate(size);
        write_entry(target, entry, &content)?;
    }
    Ok(())
}

fn write_entry(target: &Path, entry: &Listed, content: &[u8]) -> Result<(), RepositoryError> {
    let refused = |error: edit::EditError| match error {
        edit::EditError::Refused(message) => RepositoryError::Refused(message),
        edit::EditError::Io(error) => error.into(),
    };
    match entry.kind {
        Kind::File { executable } => {
            edit::write_file(target, &entry.path, content, Some(executable)).map_err(refused)?;
        }
        Kind::Link => {
            path::check_link(&entry.path, content).map_err(RepositoryError::Refused)?;
            // This makes the folders, and refuses to go through links.
            edit::write_file(target, &entry.path, b"", None).map_err(refused)?;
            let full = target.join(&entry.path);
            std::fs::remove_file(&full)?;
            symlink(String::from_utf8_lossy(content).as_ref(), full)?;
        }
    }
    Ok(())
}

/// The tree that gates will see must be the commit's.
pub async fn check_digest(
    git: &Git,
    repository: &Path,
    commit: &str,
    snapshot: &Snapshot,
    bounds: Bounds,
) -> Result<(), RepositoryError> {
    let tree = git.run(repository, ["rev-parse", "--verify", &format!("{commit}^{{tree}}")], bounds).await?;
    let tree = String::from_utf8_lossy(&tree).trim().to_owned();
    let digest = snapshot.digest();
    if tree == digest.sha1 || tree == digest.sha256 {
        return Ok(());
    }
    Err(RepositoryError::Refused(format!(
        "the files of {commit} give the tree {}, and the commit says {tree}; it has something that a workspace cannot hold",
        digest.sha1
    )))
}
