//! The files of a checkout, as `nofx gate` judges them: those that Git knows or would add, those that are staged, or
//! those of a commit. It copies them into a folder of its own, exactly as Git stores them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use nofx_local::report::{self, hinted, printable};

use super::git;

/// A folder that holds a workspace: a folder of a Git repository, or any other one.
#[derive(Clone, Debug)]
pub struct SourceTree {
    root: PathBuf,
    is_git: bool,
    /// The index, if a hook runs with another one than the repository's: `git commit FILE` makes one.
    index: Option<PathBuf>,
}

/// Git's modes of what a workspace can hold.
const EXECUTABLE: &str = "100755";
const LINK: &str = "120000";
const SUBMODULE: &str = "160000";

/// The path of a folder from the root.
fn folder(dir: &Path) -> Result<PathBuf> {
    let path = dir.canonicalize().with_context(|| format!("cannot read {}", dir.display()))?;
    if path.is_dir() {
        return Ok(path);
    }
    Err(hinted(format!("{} is no folder", dir.display()), "name the folder that has the files"))
}

/// What `--base` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Folder(PathBuf),
    /// For `copy_base`, which says what is wrong with it.
    Reference,
}

impl SourceTree {
    /// The repository around `dir`, or `dir` itself if there is none.
    pub fn around(dir: &Path) -> Result<Self> {
        let dir = folder(dir)?;
        Self::of(&git::top(&dir)?.unwrap_or(dir))
    }

    /// `dir` as a workspace of its own. Paths are relative to it, also if a repository is around it.
    pub fn of(dir: &Path) -> Result<Self> {
        let root = folder(dir)?;
        // Git knows nothing about a folder that it ignores.
        let is_git = git::top(&root)?.is_some() && git::run(&root, &["check-ignore", "--quiet", "."]).is_err();
        let index = if is_git { index_of_hook(&root) } else { None };
        Ok(Self { root, is_git, index })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn is_git(&self) -> bool {
        self.is_git
    }

    /// Copies the files as they are now: those that Git tracks, and new ones that it does not ignore.
    pub fn copy_worktree(&self, to: &Path) -> Result<()> {
        if !self.is_git {
            return copy_folder(&self.root, to);
        }
        let listed = self.index("ls-files", &["-t", "--cached", "--others", "--exclude-standard"])?;
        let mut sparse = BTreeSet::new();
        for record in listed.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
            // `tag path`
            let (tag, path) = text(record)?.split_once(' ').context("git ls-files printed something unexpected")?;
            let from = self.root.join(path);
            let found = match fs::symlink_metadata(&from) {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    // A sparse checkout leaves files out. Without this tag the file is deleted, and still listed.
                    if tag == "S" {
                        sparse.insert(path.to_owned());
                    }
                    continue;
                }
                found => found.with_context(|| format!("cannot read {path}"))?,
            };
            if found.is_dir() {
                left_out(path.trim_end_matches('/'));
            } else if found.is_file() || found.is_symlink() {
                copy_file(&from, &to.join(path))?;
            } else {
                return Err(hinted(format!("{path:?} is neither a file nor a link"), "remove it"));
            }
        }
        if sparse.is_empty() {
            return Ok(());
        }
        let mut entries = self.staged()?;
        entries.retain(|path, _| sparse.contains(path));
        self.write(&entries, to)
    }

    /// Writes the files of the index.
    pub fn copy_staged(&self, to: &Path) -> Result<()> {
        self.needs_git("nothing is staged", "leave out --staged")?;
        self.write(&self.staged()?, to)
    }

    /// The mode and the id of each file that a commit of the index would have, by its path from the root.
    fn staged(&self) -> Result<BTreeMap<String, (String, String)>> {
        let empty =
            git::line(&self.root, &["hash-object", "-t", "tree", "/dev/null"]).context("git has no empty tree")?;
        // `ls-files` has also the files of `git add --intent-to-add`, which are not staged.
        let options = ["--cached", "--ita-invisible-in-index", "--no-renames", "--relative", "--no-abbrev", &empty];
        let listed = self.index("diff-index", &options)?;
        let mut entries = BTreeMap::new();
        let mut fields = listed.split(|byte| *byte == 0);
        // `:old-mode mode old-id id status`, path
        while let (Some(head), Some(path)) = (fields.next(), fields.next()) {
            let (head, path) = (text(head)?, text(path)?);
            let &[_, mode, _, id, status] = head.split(' ').collect::<Vec<_>>().as_slice() else {
                bail!("git diff-index printed something unexpected: {head}");
            };
            if status != "A" {
                return Err(hinted(format!("{path:?} has a merge conflict"), "resolve it, and stage it with git add"));
            }
            entries.insert(path.to_owned(), (mode.to_owned(), id.to_owned()));
        }
        Ok(entries)
    }

    /// Whether Git knows a commit by this name.
    pub fn has_commit(&self, name: &str) -> bool {
        self.is_git && self.commit(name).is_some()
    }

    /// Whether a base is a folder, relative to the current one, or a Git reference. An error if it is both.
    pub fn base(&self, name: &str) -> Result<Base> {
        match Path::new(name) {
            folder if !folder.is_dir() => Ok(Base::Reference),
            _ if self.has_commit(name) => {
                let hint = format!("write ./{name} for the folder, or refs/heads/{name} for the branch");
                Err(hinted(format!("--base {name} names a folder and a commit"), hint))
            }
            folder => Ok(Base::Folder(folder.to_owned())),
        }
    }

    /// Writes the files of the commit at which HEAD left `reference`: what came to it since is no change of this checkout.
    pub fn copy_base(&self, reference: &str, to: &Path) -> Result<()> {
        self.needs_git("no base has a name", "name a folder: --base DIR")?;
        let commit = self.commit(reference).ok_or_else(|| {
            let hint = "fetch it with its history, or name another base; actions/checkout needs fetch-depth: 0";
            hinted(format!("{reference:?} is neither a folder nor a commit"), hint)
        })?;
        let start = match self.commit("HEAD") {
            // The first commit of a repository.
            None => commit,
            Some(head) => git::line(&self.root, &["merge-base", &head, &commit]).unwrap_or_else(|| {
                let message = "and HEAD have no commit in common here, so all that differs is judged; git fetch --unshallow may help";
                report::line("base", format_args!("{reference} {message}"));
                commit
            }),
        };
        let entries = self.list_commit(&start)?;
        if entries.is_empty() {
            let message = format!("the base {reference} has no files in {}", self.root.display());
            return Err(hinted(message, "leave out --base: nothing can be compared with a new project"));
        }
        self.write(&entries, to)
    }

    fn commit(&self, name: &str) -> Option<String> {
        let commit = format!("{name}^{{commit}}");
        git::line(&self.root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
    }

    /// What git prints about the index of the hook that this process runs in.
    fn index(&self, name: &str, options: &[&str]) -> Result<Vec<u8>> {
        let mut command = git::command(&self.root);
        command.args([name, "-z"]).args(options);
        if let Some(index) = &self.index {
            command.env("GIT_INDEX_FILE", index);
        }
        let done = command.output().context("cannot run git")?;
        if !done.status.success() {
            bail!("git {name}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(done.stdout)
    }

    /// The mode and the id of each file of a commit below the root, by its path from there.
    fn list_commit(&self, commit: &str) -> Result<BTreeMap<String, (String, String)>> {
        let listed = git::run(&self.root, &["ls-tree", "-r", "-z", commit])?;
        let mut entries = BTreeMap::new();
        for record in listed.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
            // `mode type id<TAB>path`
            let (head, path) = text(record)?.split_once('\t').context("git ls-tree printed something unexpected")?;
            let mut words = head.split(' ');
            let (Some(mode), Some(_), Some(id)) = (words.next(), words.next(), words.next()) else {
                bail!("git ls-tree printed something unexpected: {head}");
            };
            entries.insert(path.to_owned(), (mode.to_owned(), id.to_owned()));
        }
        Ok(entries)
    }

    fn needs_git(&self, so: &str, hint: &str) -> Result<()> {
        if self.is_git {
            return Ok(());
        }
        let message = format!("{} is not in a Git repository, or ignored there, so {so}", self.root.display());
        Err(hinted(message, hint))
    }

    /// Reads every object through one `git cat-file`, so that no filter or attribute changes its bytes.
    fn write(&self, entries: &BTreeMap<String, (String, String)>, to: &Path) -> Result<()> {
        let (submodules, entries): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, (mode, _))| mode == SUBMODULE);
        for (path, _) in submodules {
            left_out(path);
        }
        let mut child = git::command(&self.root)
            .args(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run git")?;
        let (mut requests, answers) =
            (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        let ids: Vec<u8> = entries.iter().flat_map(|(_, (_, id))| [id.as_bytes(), b"\n"].concat()).collect();
        // git answers while it reads, so another thread writes.
        let writer = std::thread::spawn(move || requests.write_all(&ids));
        let mut answers = BufReader::new(answers);
        for (path, (mode, id)) in entries {
            let content = read_object(&mut answers, id).with_context(|| format!("cannot read {path:?} from Git"))?;
            write_file(&to.join(path), mode, &content).with_context(|| format!("cannot write {path}"))?;
        }
        writer.join().ok().context("the writer panicked")??;
        child.wait().context("cannot run git")?;
        Ok(())
    }
}

fn read_object(answers: &mut impl BufRead, id: &str) -> Result<Vec<u8>> {
    let mut header = String::new();
    answers.read_line(&mut header)?;
    let answer = header.trim_end().strip_prefix(id);
    if answer == Some(" missing") {
        return Err(hinted(
            "it is not here",
            "fetch the files of a partial clone first: git archive COMMIT > /dev/null",
        ));
    }
    let size = answer.and_then(|rest| rest.strip_prefix(" blob "));
    let size: usize = size.and_then(|size| size.parse().ok()).with_context(|| format!("git answered {header:?}"))?;
    // A newline follows the content.
    let mut content = vec![0; size + 1];
    answers.read_exact(&mut content)?;
    content.truncate(size);
    Ok(content)
}

fn write_file(path: &Path, mode: &str, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if mode == LINK {
        return Ok(symlink(std::ffi::OsStr::from_bytes(content), path)?);
    }
    fs::write(path, content)?;
    if mode == EXECUTABLE {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("cannot copy {}", from.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(context)?;
    }
    if fs::symlink_metadata(from).with_context(context)?.is_symlink() {
        return symlink(fs::read_link(from).with_context(context)?, to).with_context(context);
    }
    fs::copy(from, to).with_context(context)?;
    Ok(())
}

/// Copies a folder, without history and installed dependencies.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let snapshot =
        nofx_gates::snapshot::Snapshot::take(from).with_context(|| format!("cannot read {}", from.display()))?;
    for path in snapshot.files().keys() {
        copy_file(&from.join(path), &to.join(path))?;
    }
    Ok(())
}

/// Part of no archive, here and on a server.
fn left_out(path: &str) {
    report::line(
        "workspace",
        format_args!("{} is a repository of its own, so its files are not judged", printable(path)),
    );
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| {
        hinted(
            format!("the name {:?} is not UTF-8", String::from_utf8_lossy(bytes)),
            "rename the file, or let Git ignore it",
        )
    })
}

/// The index that Git gave a hook, if it belongs to the repository around `dir`.
fn index_of_hook(dir: &Path) -> Option<PathBuf> {
    let index = std::path::absolute(std::env::var_os("GIT_INDEX_FILE")?).ok()?;
    let folder = git::line(dir, &["rev-parse", "--absolute-git-dir"])?;
    let is_own = index.parent()?.canonicalize().ok()? == Path::new(&folder).canonicalize().ok()?;
    is_own.then_some(index)
}

#[cfg(test)]
#[path = "source_tree_tests.rs"]
mod tests;
