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
    let why: Vec<_> = set.ignored.iter().map(|ignored| (ignored.path.as_str(), ignored.why)).collect();
    assert_eq!(why, [("src/b.ts", "unedited"), ("src/a.ts", "deleted")]);
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
    let diff = b"diff --git a/test/a.ts b/src/a.ts\nsimilarity index 100%\nrename from test/a.ts\nrename to src/a.ts\n";
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
    for head in [tree(&[("a.ts", "3\n")]), tree(&[("b.ts", "2\n")]), tree(&[("a.ts", "2")]), tree(&[("a.ts", "2\r\n")])]
    {
        assert_eq!(between(Base::Diff(diff), &head).unwrap_err().code, "diff_mismatch");
    }
    assert!(between(Base::Diff(diff), &tree(&[("a.ts", "2\n")])).is_ok());
    let twice = [diff.as_slice(), diff].concat();
    assert_eq!(between(Base::Diff(&twice), &tree(&[("a.ts", "2\n")])).unwrap_err().code, "diff_mismatch");
}

#[test]
fn a_file_with_a_nul_is_unreadable() {
    let set = between(Base::None, &tree(&[("a.ts", "a\0b\n")])).unwrap();
    assert_eq!(set.sources[0].unreadable, Some("nul_bytes"));
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
