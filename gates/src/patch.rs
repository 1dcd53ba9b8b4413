//! Applies a unified diff to a workspace, exactly: each hunk at its line, each line of context as the file has it. There
//! is no fuzz and no search for another place, because a hunk that lands elsewhere changes what somebody has reviewed.
//!
//! It reads what `git diff` and `diff -u` print: changed, new, deleted, renamed and copied files, modes, and files without
//! a newline at the end. It refuses binary patches, links, submodules, and text around the diff.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::edit::{self, EditError, FileContent};
use crate::path::{self, Names};

mod parse;

pub use parse::parse;

/// Maximum number of files that a patch changes, and of problems that are reported.
pub const MAX_FILES: usize = 2_000;
const MAX_PROBLEMS: usize = 100;

/// The change of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch<'a> {
    /// Line of the patch, from 1.
    pub line: usize,
    /// The path before. `None` for a new file.
    pub old: Option<String>,
    /// The path after. `None` for a deleted file.
    pub new: Option<String>,
    /// The old file stays.
    pub is_copy: bool,
    /// The executable bits, if the patch names modes.
    pub old_executable: Option<bool>,
    pub new_executable: Option<bool>,
    pub hunks: Vec<Hunk<'a>>,
}

/// A change of consecutive lines. Lines include their newline, if they have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Line of the patch, from 1.
    pub line: usize,
    /// Where the old lines start, from 1; without old lines, the line after which the new ones come.
    pub old_start: usize,
    pub old: Vec<&'a [u8]>,
    pub new: Vec<&'a [u8]>,
}

/// Applies a patch, or changes nothing and says every reason, each with the patch's line.
pub fn apply(root: &Path, patch: &[u8]) -> Result<(), PatchError> {
    let files = parse(patch).map_err(|problem| PatchError::Refused(vec![problem]))?;
    change(root, &files, Plan::default())
}

/// The same for a patch that a model wrote: the reasons name files and lines, and repeat no line.
pub fn apply_private(root: &Path, patch: &[u8]) -> Result<(), PatchError> {
    let files = parse(patch).map_err(|problem| PatchError::Refused(vec![without_text(&problem)]))?;
    change(root, &files, Plan { hides_lines: true, ..Plan::default() })
}

/// A problem of [`parse_unique`] that says where it is, and repeats nothing of the patch.
pub fn without_text(problem: &str) -> String {
    let line = problem.split(':').next().filter(|line| line.starts_with("line ")).unwrap_or("line 1");
    format!("{line}: it is no unified diff, or changes what no patch may change, or names a file twice")
}

/// Takes a patch back, as exactly as [`apply`]: the tree must be the one that the patch leads to.
pub fn revert(root: &Path, patch: &[u8]) -> Result<(), PatchError> {
    if patch.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let files = parse(patch).map_err(|problem| PatchError::Refused(vec![problem]))?;
    let reversed: Result<Vec<_>, _> = files.into_iter().map(FilePatch::reversed).collect();
    change(root, &reversed.map_err(|problem| PatchError::Refused(vec![problem]))?, Plan::default())
}

/// Reads a patch, as far as it can be checked without the workspace that it is for: it has each file once, also on a file
/// system that ignores case.
pub fn parse_unique(patch: &[u8]) -> Result<Vec<FilePatch<'_>>, String> {
    let files = parse(patch)?;
    let (mut seen, mut names) = (BTreeSet::new(), Names::default());
    for file in &files {
        if !seen.insert(file.path()) {
            return Err(format!("line {}: {} is in the patch twice; put its hunks together", file.line, file.path()));
        }
        if let Some(new) = &file.new {
            names.insert(new).map_err(|message| format!("line {}: {message}", file.line))?;
        }
    }
    Ok(files)
}

impl FilePatch<'_> {
    /// The path after the patch, or of a deleted file the one before.
    pub fn path(&self) -> &str {
        self.new.as_ref().or(self.old.as_ref()).map_or("", String::as_str)
    }

    fn reversed(self) -> Result<Self, String> {
        if self.is_copy {
            return Err(format!("line {}: a copy cannot be taken back; make the diff without copies", self.line));
        }
        let (mut before, mut after) = (0, 0);
        let hunks = self.hunks.into_iter().map(|hunk| {
            // Line numbers of the other side are shifted by what earlier hunks added and removed.
            let first = if hunk.old.is_empty() { hunk.old_start + 1 } else { hunk.old_start } + after - before;
            let old_start = if hunk.new.is_empty() { first.saturating_sub(1) } else { first };
            before += hunk.old.len();
            after += hunk.new.len();
            Hunk { line: hunk.line, old_start, old: hunk.new, new: hunk.old }
        });
        Ok(Self {
            hunks: hunks.collect(),
            line: self.line,
            old: self.new,
            new: self.old,
            is_copy: false,
            old_executable: self.new_executable,
            new_executable: self.old_executable,
        })
    }
}

fn change(root: &Path, files: &[FilePatch<'_>], mut plan: Plan) -> Result<(), PatchError> {
    for file in files {
        match plan.add(root, file) {
            Ok(()) => {}
            Err(EditError::Refused(message)) => plan.problems.push(format!("line {}: {message}", file.line)),
            Err(EditError::Io(error)) => return Err(PatchError::Io(error)),
        }
    }
    plan.check_new(root)?;
    plan.problems.truncate(MAX_PROBLEMS);
    if !plan.problems.is_empty() {
        return Err(PatchError::Refused(plan.problems));
    }
    plan.run(root)
}

/// Why a patch does not apply.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<EditError> for PatchError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Refused(message) => Self::Refused(vec![message]),
            EditError::Io(error) => Self::Io(error),
        }
    }
}

/// The results of all files, computed from the tree before the patch. So a patch may exchange two names.
#[derive(Default)]
struct Plan {
    /// Paths that are gone after the patch, unless something is written there.
    removed: BTreeSet<String>,
    written: BTreeMap<String, FileContent>,
    /// Paths that must not exist before, with the patch's line.
    created: Vec<(usize, String)>,
    problems: Vec<String>,
    /// Problems repeat no line of the file or the patch.
    hides_lines: bool,
}

impl Plan {
    fn add(&mut self, root: &Path, file: &FilePatch<'_>) -> Result<(), EditError> {
        let refused = |message: String| Err(EditError::Refused(message));
        let before = match &file.old {
            None => FileContent { bytes: Vec::new(), executable: false },
            Some(old) => match edit::read_file(root, old)? {
                Some(before) => before,
                None => return refused(format!("{old} does not exist; make the patch from this workspace")),
            },
        };
        if let (Some(old), Some(expected)) = (&file.old, file.old_executable)
            && expected != before.executable
        {
            let is = if before.executable { "is" } else { "is not" };
            return refused(format!("{old} {is} executable, and the patch expects otherwise"));
        }
        let name = file.path();
        let bytes = apply_hunks(&before.bytes, &file.hunks, self.hides_lines).map_err(|(line, message)| {
            let at = if line == file.line { String::new() } else { format!("hunk at line {line}: ") };
            EditError::Refused(format!("{name}: {at}{message}"))
        })?;
        let Some(new) = &file.new else {
            if !bytes.is_empty() {
                return refused(format!("{name} is deleted, but the patch does not remove all of its lines"));
            }
            return self.remove(name);
        };
        if file.old.as_ref() != Some(new) {
            if let (Some(old), false) = (&file.old, file.is_copy) {
                self.remove(old)?;
            }
            self.created.push((file.line, new.clone()));
        }
        let executable = file.new_executable.unwrap_or(before.executable);
        if self.written.insert(new.clone(), FileContent { bytes, executable }).is_some() {
            return refused(format!("{new} is in the patch twice; put its hunks together"));
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), EditError> {
        if self.removed.insert(path.to_owned()) {
            return Ok(());
        }
        Err(EditError::Refused(format!("{path} is removed twice")))
    }

    fn check_new(&mut self, root: &Path) -> Result<(), PatchError> {
        for (line, path) in &self.created {
            let exists = match edit::read_file(root, path) {
                Ok(found) => found.is_some(),
                // A file in the way may be removed by this patch. Writing the file finds out.
                Err(EditError::Refused(_)) => false,
                Err(EditError::Io(error)) => return Err(error.into()),
            };
            if exists && !self.removed.contains(path) {
                self.problems.push(format!("line {line}: {path} exists already, and the patch makes it anew"));
            }
        }
        let both = self.removed.iter().filter(|path| self.written.contains_key(*path));
        let unclear = both.filter(|path| !self.created.iter().any(|(_, created)| created == *path));
        self.problems.extend(unclear.map(|path| format!("{path} is both changed and removed")));
        Ok(())
    }

    fn run(self, root: &Path) -> Result<(), PatchError> {
        for path in &self.removed {
            edit::delete(root, path)?;
        }
        for (path, file) in &self.written {
            edit::write_file(root, path, &file.bytes, Some(file.executable))?;
        }
        Ok(())
    }
}

/// The content after the hunks. The error has the patch's line.
fn apply_hunks(before: &[u8], hunks: &[Hunk<'_>], hides_lines: bool) -> Result<Vec<u8>, (usize, String)> {
    let lines: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let mut after = Vec::with_capacity(before.len());
    let mut at = 0;
    for hunk in hunks {
        let refused = |message: String| Err((hunk.line, message));
        let start = if hunk.old.is_empty() { hunk.old_start } else { hunk.old_start.saturating_sub(1) };
        if start < at {
            return refused("it overlaps the hunk before it, or is out of order".to_owned());
        }
        let Some(unchanged) = lines.get(at..start) else {
            return refused(format!("the file has {} lines, and the hunk starts at {}", lines.len(), hunk.old_start));
        };
        after.extend(unchanged.iter().copied());
        for (offset, expected) in hunk.old.iter().enumerate() {
            let found = lines.get(start + offset).copied().unwrap_or_default();
            if found != *expected {
                let number = start + offset + 1;
                if hides_lines {
                    return refused(format!("line {number} of the file is not what the patch expects"));
                }
                let (found, expected) = (line_text(found), line_text(expected));
                return refused(format!("line {number} of the file is {found}, and the patch expects {expected}"));
            }
        }
        after.extend(hunk.new.iter().copied());
        at = start + hunk.old.len();
    }
    after.extend(lines.get(at..).unwrap_or_default().iter().copied());
    let whole = after.len();
    if after.iter().take(whole.saturating_sub(1)).any(|line| !line.ends_with(b"\n")) {
        let line = hunks.last().map_or(0, |hunk| hunk.line);
        return Err((line, "a line without a newline is not the last one of the file".to_owned()));
    }
    Ok(after.concat())
}

fn line_text(line: &[u8]) -> String {
    match line {
        [] => "missing".to_owned(),
        line => path::shown(&String::from_utf8_lossy(line)),
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
