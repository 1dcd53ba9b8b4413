//! Which lines of which sources changed between a base and the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};

use super::CoverageError;
use super::lines::{Lines, classify};
use super::sources::SourceRules;
use super::unified::{self, FileDiff};

/// The files of a folder by path: relative, with slashes.
pub type Tree = BTreeMap<String, Content>;

/// The content of a file, for a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with the name of a source.
    Text(Vec<u8>),
    /// The sha256 of any other file.
    Other([u8; 32]),
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
    /// The file has a NUL near its start. It is ignored unless a report measures it.
    pub binary: bool,
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
    const SNIFFED_BYTES: usize = 8000;
    let lines = classify(text);
    let changed = match changed {
        Changed::All => (1_u32..).take(lines.kinds.len()).collect(),
        Changed::Lines(lines) => lines,
    };
    let binary = text.iter().take(SNIFFED_BYTES).any(|byte| *byte == 0);
    (!changed.is_empty()).then_some(ChangedSource { path, changed, lines, binary })
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
            (Some(_), _) | (None, Content::Other(_)) => Changed::All,
        };
        found.insert(path.clone(), changed);
    }
    found
}

/// The lines of `new` that are not in `old`. A line includes its line break, so CRLF instead of LF is a change.
fn changed_lines(old: &[u8], new: &[u8]) -> Vec<u32> {
    // After this time the diff is no longer minimal: more lines than necessary may count as changed.
    const DIFF_TIMEOUT: Duration = Duration::from_secs(2);
    let split = |text| <[u8]>::split_inclusive(text, |byte| *byte == b'\n').collect::<Vec<_>>();
    let (old, new) = (split(old), split(new));
    let operations =
        capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Instant::now().checked_add(DIFF_TIMEOUT));
    let added = operations.iter().filter(|operation| matches!(operation.tag(), DiffTag::Insert | DiffTag::Replace));
    added.flat_map(similar::DiffOp::new_range).filter_map(|index| u32::try_from(index + 1).ok()).collect()
}

fn diff_changes(
    diff: &[FileDiff],
    head: &Tree,
    is_source: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Changed>, CoverageError> {
    let mut found = BTreeMap::new();
    for file in diff {
        let Some(path) = &file.new else { continue };
        let content = head.get(path).ok_or_else(|| mismatch(path, "the workspace has no such file"))?;
        let from_source = file.old.as_deref().is_some_and(&is_source);
        let is_new_file = file.copied || file.binary || !from_source;
        let lines = match content {
            Content::Text(text) => hunk_lines(path, file, text)?,
            Content::Other(_) => Vec::new(),
        };
        let changed = if is_new_file { Changed::All } else { Changed::Lines(lines) };
        if found.insert(path.clone(), changed).is_some() {
            return Err(mismatch(path, "the diff lists the file twice"));
        }
    }
    Ok(found)
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

fn deleted(base: Base<'_>, head: &Tree) -> Result<Vec<String>, CoverageError> {
    Ok(match base {
        Base::None => Vec::new(),
        Base::Tree(base) => base.keys().filter(|path| !head.contains_key(*path)).cloned().collect(),
        Base::Diff(diff) => {
            unified::parse(diff)?.into_iter().filter(|file| file.new.is_none()).filter_map(|file| file.old).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let content = |path: &str, text: &str| match path.rsplit_once('.') {
            Some((_, "ts" | "js")) => Content::Text(text.as_bytes().to_vec()),
            _ => Content::Other([u8::try_from(text.len()).unwrap_or(0); 32]),
        };
        files.iter().map(|(path, text)| ((*path).to_string(), content(path, text))).collect()
    }

    fn between(base: Base<'_>, head: &Tree) -> Result<ChangeSet, CoverageError> {
        ChangeSet::between(base, head, &SourceRules::default())
    }

    fn changed(set: &ChangeSet) -> Vec<(&str, &[u32])> {
        set.sources.iter().map(|source| (source.path.as_str(), source.changed.as_slice())).collect()
    }

    #[test]
    fn without_a_base_every_line_of_every_source_is_changed() {
        let set = between(Base::None, &tree(&[("src/a.ts", "a\nb\n"), ("README.md", "x")])).unwrap();
        assert_eq!(changed(&set), [("src/a.ts", [1, 2].as_slice())]);
        assert_eq!(set.ignored, [Ignored { path: "README.md".into(), why: "not_a_source" }]);
        assert!(!set.is_empty);
    }

    #[test]
    fn added_and_modified_lines_are_changed_and_deleted_ones_are_not() {
        let base = tree(&[("a.ts", "1\n2\n3\n4\n")]);
        let set = between(Base::Tree(&base), &tree(&[("a.ts", "1\nII\n4\n5\n")])).unwrap();
        assert_eq!(changed(&set), [("a.ts", [2, 4].as_slice())]);
    }

    #[test]
    fn a_change_of_line_breaks_alone_is_a_change() {
        let base = tree(&[("a.ts", "1\n2\n")]);
        let set = between(Base::Tree(&base), &tree(&[("a.ts", "1\r\n2\r\n")])).unwrap();
        assert_eq!(changed(&set), [("a.ts", [1, 2].as_slice())]);
    }

    #[test]
    fn a_rename_without_edits_changes_no_line_but_is_not_an_empty_diff() {
        let base = tree(&[("src/a.ts", "1\n")]);
        let set = between(Base::Tree(&base), &tree(&[("src/b.ts", "1\n")])).unwrap();
        assert!(changed(&set).is_empty());
        assert!(!set.is_empty);
        assert_eq!(set.ignored, [Ignored { path: "src/a.ts".into(), why: "deleted" }]);
    }

    #[test]
    fn a_copy_and_a_second_move_are_new_code() {
        let base = tree(&[("src/a.ts", "1\n")]);
        let set = between(Base::Tree(&base), &tree(&[("src/a.ts", "1\n"), ("src/b.ts", "1\n")])).unwrap();
        assert_eq!(changed(&set), [("src/b.ts", [1].as_slice())]);
        let set = between(Base::Tree(&base), &tree(&[("src/b.ts", "1\n"), ("src/c.ts", "1\n")])).unwrap();
        assert_eq!(changed(&set), [("src/c.ts", [1].as_slice())]);
    }

    #[test]
    fn a_test_that_becomes_a_source_is_new_code() {
        let base = tree(&[("test/a.ts", "1\n")]);
        let set = between(Base::Tree(&base), &tree(&[("src/a.ts", "1\n")])).unwrap();
        assert_eq!(changed(&set), [("src/a.ts", [1].as_slice())]);
        let diff =
            b"diff --git a/test/a.ts b/src/a.ts\nsimilarity index 100%\nrename from test/a.ts\nrename to src/a.ts\n";
        let set = between(Base::Diff(diff), &tree(&[("src/a.ts", "1\n")])).unwrap();
        assert_eq!(changed(&set), [("src/a.ts", [1].as_slice())]);
    }

    #[test]
    fn an_unchanged_file_that_becomes_a_source_is_new_code() {
        let base = tree(&[("p/package.json", "{}"), ("p/x.config.ts", "1\n")]);
        let set = between(Base::Tree(&base), &tree(&[("p/x.config.ts", "1\n")])).unwrap();
        assert_eq!(changed(&set), [("p/x.config.ts", [1].as_slice())]);
    }

    #[test]
    fn equal_trees_are_an_empty_diff() {
        let head = tree(&[("a.ts", "1\n"), ("b.md", "x")]);
        assert!(between(Base::Tree(&head), &head).unwrap().is_empty);
        assert!(between(Base::Diff(b""), &head).unwrap().is_empty);
    }

    #[test]
    fn a_diff_names_the_changed_lines() {
        let diff = b"--- a/a.ts\n+++ b/a.ts\n@@ -1,2 +1,3 @@\n 1\n-2\n+II\n+III\n--- a/gone.ts\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
        let set = between(Base::Diff(diff), &tree(&[("a.ts", "1\nII\nIII\n")])).unwrap();
        assert_eq!(changed(&set), [("a.ts", [2, 3].as_slice())]);
        assert_eq!(set.ignored, [Ignored { path: "gone.ts".into(), why: "deleted" }]);
    }

    #[test]
    fn a_diff_that_does_not_match_the_workspace_is_rejected() {
        let diff = b"--- a/a.ts\n+++ b/a.ts\n@@ -1 +1 @@\n-1\n+2\n";
        for head in
            [tree(&[("a.ts", "3\n")]), tree(&[("b.ts", "2\n")]), tree(&[("a.ts", "2")]), tree(&[("a.ts", "2\r\n")])]
        {
            assert_eq!(between(Base::Diff(diff), &head).unwrap_err().code, "diff_mismatch");
        }
        assert!(between(Base::Diff(diff), &tree(&[("a.ts", "2\n")])).is_ok());
        let twice = [diff.as_slice(), diff].concat();
        assert_eq!(between(Base::Diff(&twice), &tree(&[("a.ts", "2\n")])).unwrap_err().code, "diff_mismatch");
    }

    #[test]
    fn a_file_with_a_nul_is_marked_as_binary() {
        let set = between(Base::None, &tree(&[("a.ts", "a\0b\n")])).unwrap();
        assert!(set.sources[0].binary);
    }

    proptest! {
        #[test]
        fn a_line_that_the_base_does_not_have_is_always_changed(
            old in proptest::collection::vec("[ab]{0,2}\n", 0..12),
            new in proptest::collection::vec("[abc]{0,2}\n", 0..12),
        ) {
            let changed = changed_lines(old.concat().as_bytes(), new.concat().as_bytes());
            for (line, number) in new.iter().zip(1_u32..) {
                if !old.contains(line) {
                    prop_assert!(changed.contains(&number), "line {number} of {new:?} against {old:?}");
                }
            }
            // Without the changed lines, the rest is a subsequence of the base.
            let kept: Vec<&String> = new.iter().zip(1_u32..).filter(|(_, n)| !changed.contains(n)).map(|(line, _)| line).collect();
            let mut rest = old.iter();
            prop_assert!(kept.iter().all(|line| rest.any(|other| other == *line)));
        }
    }
}
