//! Which lines of which sources changed between a base and the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};

use super::CoverageError;
use super::lines::{Lines, classify};
use super::sources::{SourceRules, is_skipped};
use super::unified::{self, FileDiff, candidates};

/// The files of a folder by path: relative, with slashes.
pub type Tree = BTreeMap<String, Content>;

/// The content of a file, for a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file that may be a source, or that a diff names.
    Text(Vec<u8>),
    /// The target of a symbolic link.
    Link(Vec<u8>),
    /// The sha256 of any other file.
    Other([u8; 32]),
    /// A file that the change does not touch.
    Unread,
}

/// What to compare the workspace with.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// Nothing: every line is new.
    None,
    Tree(&'a Tree),
    /// A unified diff from the base to the workspace.
    Diff(&'a [u8]),
}

/// A changed file that needs no coverage, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    pub path: String,
    pub why: &'static str,
}

/// A source with its changed lines, read before any command runs.
#[derive(Debug, Clone)]
pub struct ChangedSource {
    pub path: String,
    /// Line numbers from 1, ascending.
    pub changed: Vec<u32>,
    pub lines: Lines,
    /// Why no report can measure the lines of this file, if so.
    pub unreadable: Option<&'static str>,
}

/// The changes that [`judge`](super::judge) judges.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// Sources with at least one changed line.
    pub sources: Vec<ChangedSource>,
    pub ignored: Vec<Ignored>,
    /// All files of the workspace, and whether each is a source. The judge looks up a report's paths here.
    pub files: BTreeMap<String, bool>,
    /// No file differs from the base.
    pub is_empty: bool,
}

enum Changed {
    All,
    Lines(Vec<u32>),
}

impl ChangeSet {
    /// Compares the workspace with its base. Fails only if a diff cannot be read or does not match the workspace.
    pub fn between(base: Base<'_>, head: &Tree, rules: &SourceRules) -> Result<Self, CoverageError> {
        let projects = |tree: &Tree| tree.keys().filter_map(|path| project_folder(path)).collect::<BTreeSet<String>>();
        let head_projects = projects(head);
        let exclusion = |path: &str| rules.exclusion(path, &head_projects);
        let (changed, deleted) = match base {
            Base::None => (head.keys().map(|path| (path.clone(), Changed::All)).collect(), Vec::new()),
            Base::Tree(base) => {
                let base_projects = projects(base);
                let changed = tree_changes(
                    base,
                    head,
                    |path| rules.exclusion(path, &base_projects).is_none(),
                    |path| exclusion(path).is_none(),
                );
                (changed, base.keys().filter(|path| !head.contains_key(*path)).cloned().collect())
            }
            Base::Diff(diff) => diff_changes(&unified::parse(diff)?, head, |path| exclusion(path).is_none())?,
        };
        let mut set = Self {
            sources: Vec::new(),
            ignored: Vec::new(),
            files: head.keys().map(|path| (path.clone(), exclusion(path).is_none())).collect(),
            is_empty: changed.is_empty() && deleted.is_empty(),
        };
        for (path, changed) in changed {
            let why = match (exclusion(&path), head.get(&path)) {
                (None, Some(content)) => match source(&path, content, changed) {
                    Some(source) => {
                        set.sources.push(source);
                        continue;
                    }
                    None => "unedited",
                },
                (why, _) => why.unwrap_or("not_a_source"),
            };
            set.ignored.push(Ignored { path, why });
        }
        set.ignored.extend(deleted.into_iter().map(|path| Ignored { path, why: "deleted" }));
        Ok(set)
    }
}

fn project_folder(path: &str) -> Option<String> {
    const MARKERS: [&str; 4] = ["package.json", "Cargo.toml", "pyproject.toml", "go.mod"];
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    MARKERS.contains(&name).then(|| folder.to_string())
}

/// `None` if no line changed.
fn source(path: &str, content: &Content, changed: Changed) -> Option<ChangedSource> {
    let (text, unreadable) = match content {
        Content::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => (text, Some("nul_bytes")),
            Ok(text) => (text, None),
            Err(_) => ("", Some("not_utf8")),
        },
        Content::Link(_) => ("", Some("symbolic_link")),
        Content::Other(_) | Content::Unread => ("", Some("not_read")),
    };
    let changed = match (changed, content) {
        (Changed::All, Content::Text(bytes)) => numbers(bytes).collect(),
        (Changed::All, _) => vec![1],
        (Changed::Lines(lines), _) => lines,
    };
    let lines = if unreadable.is_some() || changed.is_empty() { Lines::default() } else { classify(path, text) };
    (!changed.is_empty()).then(|| ChangedSource { path: path.to_owned(), changed, lines, unreadable })
}

/// The numbers of the lines of a text.
fn numbers(text: &[u8]) -> impl Iterator<Item = u32> {
    text.split_inclusive(|byte| *byte == b'\n').zip(1_u32..).map(|(_, number)| number)
}

fn tree_changes(
    base: &Tree,
    head: &Tree,
    was_source: impl Fn(&str) -> bool,
    is_source: impl Fn(&str) -> bool,
) -> BTreeMap<String, Changed> {
    // A source that moved without an edit has no changed lines. A test that becomes a source is new code. Each deleted
    // file matches one new file with the same content. Further ones are copies and count as new.
    let mut moved: BTreeMap<&Vec<u8>, usize> = BTreeMap::new();
    for (path, content) in base {
        if let Content::Text(text) = content
            && !head.contains_key(path)
            && was_source(path)
        {
            *moved.entry(text).or_default() += 1;
        }
    }
    let mut found = BTreeMap::new();
    for (path, content) in head {
        let changed = match (base.get(path), content) {
            // An unchanged file may have become a source, because the reason to exclude it is gone.
            (Some(old), new) if old == new && (was_source(path) || !is_source(path)) => continue,
            (Some(Content::Text(old)), Content::Text(new)) if was_source(path) => {
                Changed::Lines(changed_lines(old, new))
            }
            (None, Content::Text(text)) => match moved.get_mut(text) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    Changed::Lines(Vec::new())
                }
                _ => Changed::All,
            },
            (Some(_) | None, _) => Changed::All,
        };
        found.insert(path.clone(), changed);
    }
    found
}

/// The lines of `new` that are not in `old`. A line includes its line break, so CRLF instead of LF is a change.
pub(crate) fn changed_lines(old: &[u8], new: &[u8]) -> Vec<u32> {
    // After this time the diff is no longer minimal: more lines than necessary may count as changed.
    const DIFF_TIMEOUT: Duration = Duration::from_secs(2);
    let split = |text| <[u8]>::split_inclusive(text, |byte| *byte == b'\n').collect::<Vec<_>>();
    let (old, new) = (split(old), split(new));
    let operations =
        capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Instant::now().checked_add(DIFF_TIMEOUT));
    let added = operations.iter().filter(|operation| matches!(operation.tag(), DiffTag::Insert | DiffTag::Replace));
    added.flat_map(similar::DiffOp::new_range).filter_map(|index| u32::try_from(index + 1).ok()).collect()
}

/// The changed files, and the deleted ones. The diff must lead to the workspace.
fn diff_changes(
    diff: &[FileDiff],
    head: &Tree,
    is_source: impl Fn(&str) -> bool,
) -> Result<(BTreeMap<String, Changed>, Vec<String>), CoverageError> {
    let resolved: Vec<Resolved> = diff.iter().map(|file| Resolved::new(file, head)).collect();
    let created: BTreeSet<&str> = resolved.iter().filter_map(|file| file.new).collect();
    let mut found = BTreeMap::new();
    let mut deleted = Vec::new();
    for file in &resolved {
        let moved = file.old.filter(|old| Some(*old) != file.new && !file.diff.copied && !created.contains(old));
        if let Some(old) = moved {
            if head.contains_key(old) {
                let what = if file.new.is_some() { "renamed" } else { "deleted" };
                return Err(mismatch(old, &format!("the diff says that it was {what}, but it is there")));
            }
            deleted.push(old.to_owned());
        }
        let Some(path) = file.new else { continue };
        if found.contains_key(path) {
            return Err(mismatch(path, "the diff lists the file twice"));
        }
        let changed = match head.get(path) {
            // What is installed is not part of the workspace.
            None if is_skipped(path) => Changed::Lines(Vec::new()),
            None => return Err(mismatch(path, "the workspace has no such file")),
            Some(content) => file.changed(path, content, &is_source)?,
        };
        found.insert(path.to_owned(), changed);
    }
    Ok((found, deleted))
}

/// A part of a diff with its paths in the workspace.
struct Resolved<'a> {
    diff: &'a FileDiff,
    old: Option<&'a str>,
    new: Option<&'a str>,
}

impl<'a> Resolved<'a> {
    fn new(diff: &'a FileDiff, head: &Tree) -> Self {
        let whole = (diff.old.as_deref(), diff.new.as_deref());
        let place =
            diff.new.as_deref().and_then(|new| candidates(new, diff.loose).position(|path| head.contains_key(path)));
        let at = |path: Option<&'a str>| {
            path.map(|path| candidates(path, diff.loose).nth(place.unwrap_or(0)).unwrap_or(path))
        };
        let (old, new) = (at(whole.0), at(whole.1));
        // `diff -N` names a deleted file on both sides.
        let emptied =
            !diff.hunks.is_empty() && diff.hunks.iter().all(|hunk| hunk.new_start == 0 && hunk.lines.is_empty());
        let gone = diff.loose && emptied && place.is_none();
        Self { diff, old, new: new.filter(|_| !gone) }
    }

    /// The changed lines of a file that the workspace has.
    fn changed(
        &self,
        path: &str,
        content: &Content,
        is_source: impl Fn(&str) -> bool,
    ) -> Result<Changed, CoverageError> {
        let text = match content {
            Content::Text(text) | Content::Link(text) => text,
            Content::Other(_) | Content::Unread => return Ok(Changed::All),
        };
        let lines = hunk_lines(path, self.diff, text)?;
        let from_source = self.old.is_some_and(&is_source);
        if self.old.is_none() && !self.diff.binary && lines.len() != numbers(text).count() {
            return Err(mismatch(path, "the diff creates the file with fewer lines than it has"));
        }
        let is_new = self.diff.copied || self.diff.binary || !from_source;
        Ok(if is_new { Changed::All } else { Changed::Lines(lines) })
    }
}

/// The added lines. Each line of a hunk must match the workspace, because a diff of another version would name the wrong
/// lines.
fn hunk_lines(path: &str, file: &FileDiff, text: &[u8]) -> Result<Vec<u32>, CoverageError> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut changed = Vec::new();
    let mut previous = 0;
    for hunk in &file.hunks {
        if !hunk.lines.is_empty() && hunk.new_start <= previous {
            return Err(mismatch(path, "its hunks are out of order"));
        }
        for (number, (expected, added)) in (hunk.new_start..).zip(&hunk.lines) {
            let actual =
                usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).and_then(|at| lines.get(at));
            if actual != Some(&expected.as_slice()) {
                return Err(mismatch(path, &format!("line {number} differs in the workspace")));
            }
            if *added {
                changed.push(number);
            }
            previous = number;
        }
    }
    Ok(changed)
}

fn mismatch(path: &str, why: &str) -> CoverageError {
    CoverageError::new("diff_mismatch", format!("the diff does not match the workspace: {path}: {why}"))
}

#[cfg(test)]
#[path = "changed_tests.rs"]
mod tests;
