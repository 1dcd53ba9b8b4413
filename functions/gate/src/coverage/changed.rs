//! Which lines of which sources changed between a base and the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};

use super::CannotJudge;
use super::lines::{Lines, classify};
use super::sources::SourceRules;
use super::unified::{self, FileDiff};

/// The files of a folder by path: relative, with slashes.
pub type Tree = BTreeMap<String, Content>;

/// What a comparison needs of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with the name of a source.
    Text(Vec<u8>),
    /// The sha256 of any other file.
    Other([u8; 32]),
}

/// What the workspace is compared with.
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

/// A source with its changed lines, read before any command ran.
#[derive(Debug, Clone)]
pub struct ChangedSource {
    pub path: String,
    /// Line numbers from 1, ascending.
    pub changed: Vec<u32>,
    pub lines: Lines,
    /// It contains a NUL near its start. It is ignored unless a report measures it.
    pub binary: bool,
}

/// Everything that judging needs to know about the workspace.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// Sources with at least one changed line.
    pub sources: Vec<ChangedSource>,
    pub ignored: Vec<Ignored>,
    /// All files of the workspace, and whether each is a source. Paths of a report are looked up here.
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
    pub fn between(base: Base<'_>, head: &Tree, rules: &SourceRules) -> Result<Self, CannotJudge> {
        let projects = |tree: &Tree| tree.keys().filter_map(|path| project_folder(path)).collect::<BTreeSet<String>>();
        let head_projects = projects(head);
        let exclusion = |path: &str| rules.exclusion(path, &head_projects);
        let changed = match base {
            Base::None => head.keys().map(|path| (path.clone(), Changed::All)).collect(),
            Base::Tree(base) => {
                let base_projects = projects(base);
                tree_changes(
                    base,
                    head,
                    |path| rules.exclusion(path, &base_projects).is_none(),
                    |path| exclusion(path).is_none(),
                )
            }
            Base::Diff(diff) => diff_changes(&unified::parse(diff)?, head, |path| exclusion(path).is_none())?,
        };
        let deleted = deleted(base, head)?;
        let mut set = Self {
            sources: Vec::new(),
            ignored: Vec::new(),
            files: head.keys().map(|path| (path.clone(), exclusion(path).is_none())).collect(),
            is_empty: changed.is_empty() && deleted.is_empty(),
        };
        for (path, changed) in changed {
            match (exclusion(&path), head.get(&path)) {
                (None, Some(Content::Text(text))) => set.sources.extend(source(path, text, changed)),
                (why, _) => set.ignored.push(Ignored { path, why: why.unwrap_or("not_a_source") }),
            }
        }
        set.ignored.extend(deleted.into_iter().map(|path| Ignored { path, why: "deleted" }));
        Ok(set)
    }
}

fn project_folder(path: &str) -> Option<String> {
    match path.rsplit_once('/') {
        None => (path == "package.json").then(String::new),
        Some((folder, name)) => (name == "package.json").then(|| folder.to_string()),
    }
}

fn source(path: String, text: &[u8], changed: Changed) -> Option<ChangedSource> {
    const LOOKED_AT: usize = 8000;
    let lines = classify(text);
    let changed = match changed {
        Changed::All => (1_u32..).take(lines.kinds.len()).collect(),
        Changed::Lines(lines) => lines,
    };
    let binary = text.iter().take(LOOKED_AT).any(|byte| *byte == 0);
    (!changed.is_empty()).then_some(ChangedSource { path, changed, lines, binary })
}

fn tree_changes(
    base: &Tree,
    head: &Tree,
    was_source: impl Fn(&str) -> bool,
    is_source: impl Fn(&str) -> bool,
) -> BTreeMap<String, Changed> {
    // A source that moved without an edit has no changed lines. A test that becomes a source is new code. Each file
    // that is gone accounts for one new file with the same contents. Further ones are copies, and count as new.
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
            // A file with the same bytes may be a source now, because the reason to exclude it is gone.
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
            (Some(_), _) | (None, Content::Other(_)) => Changed::All,
        };
        found.insert(path.clone(), changed);
    }
    found
}

/// The lines of `new` that have no counterpart in `old`. A line includes its line break, so CRLF instead of LF is a
/// change.
fn changed_lines(old: &[u8], new: &[u8]) -> Vec<u32> {
    // After this time the search for the smallest difference stops, and more lines than necessary may count as changed.
    const PATIENCE: Duration = Duration::from_secs(2);
    let split = |text| <[u8]>::split_inclusive(text, |byte| *byte == b'\n').collect::<Vec<_>>();
    let (old, new) = (split(old), split(new));
    let operations = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Instant::now().checked_add(PATIENCE));
    let added = operations.iter().filter(|operation| matches!(operation.tag(), DiffTag::Insert | DiffTag::Replace));
    added.flat_map(similar::DiffOp::new_range).filter_map(|index| u32::try_from(index + 1).ok()).collect()
}

fn diff_changes(
    diff: &[FileDiff],
    head: &Tree,
    is_source: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Changed>, CannotJudge> {
    let mut found = BTreeMap::new();
    for file in diff {
        let Some(path) = &file.new else { continue };
        let content = head.get(path).ok_or_else(|| mismatch(path, "the workspace has no such file"))?;
        let from_source = file.old.as_deref().is_some_and(&is_source);
        let wholly_new = file.copied || file.binary || !from_source;
        let lines = match content {
            Content::Text(text) => hunk_lines(path, file, text)?,
            Content::Other(_) => Vec::new(),
        };
        let changed = if wholly_new { Changed::All } else { Changed::Lines(lines) };
        if found.insert(path.clone(), changed).is_some() {
            return Err(mismatch(path, "the diff names it twice"));
        }
    }
    Ok(found)
}

/// The added lines. Each is compared with the workspace, because a diff of another state would name the wrong lines.
fn hunk_lines(path: &str, file: &FileDiff, text: &[u8]) -> Result<Vec<u32>, CannotJudge> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut changed = Vec::new();
    let mut after = 0;
    for hunk in &file.hunks {
        if !hunk.lines.is_empty() && hunk.new_start <= after {
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
            after = number;
        }
    }
    Ok(changed)
}

fn mismatch(path: &str, why: &str) -> CannotJudge {
    CannotJudge::new("diff_mismatch", format!("the diff does not match the workspace: {path}: {why}"))
}

fn deleted(base: Base<'_>, head: &Tree) -> Result<Vec<String>, CannotJudge> {
    Ok(match base {
        Base::None => Vec::new(),
        Base::Tree(base) => base.keys().filter(|path| !head.contains_key(*path)).cloned().collect(),
        Base::Diff(diff) => {
            unified::parse(diff)?.into_iter().filter(|file| file.new.is_none()).filter_map(|file| file.old).collect()
        }
    })
}

#[cfg(test)]
#[path = "changed_tests.rs"]
mod tests;
