use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::snapshot::Snapshot;

fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        edit::write_file(root.path(), path, content.as_bytes(), None).unwrap();
    }
    root
}

fn text(root: &tempfile::TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).unwrap()
}

/// The reason why a patch is refused. Nothing has changed then.
fn refusal(root: &tempfile::TempDir, patch: &str) -> String {
    let before = Snapshot::take(root.path()).unwrap().digest();
    let Err(PatchError::Refused(problems)) = apply(root.path(), patch.as_bytes()) else { panic!("applied: {patch}") };
    assert_eq!(Snapshot::take(root.path()).unwrap().digest(), before, "{patch}");
    problems.join("; ")
}

fn git(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let settings = ["-c", "core.autocrlf=false", "-c", "user.name=t", "-c", "user.email=t@t"];
    let done = Command::new("git").args(settings).args(arguments).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

#[test]
fn a_change_applies_at_its_line() {
    let root = workspace(&[("src/a.ts", "one\ntwo\nthree\nfour\n"), ("b", "x\n")]);
    let patch = "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+2b\n@@ -4 +5 @@ fn\n-four\n+4\n";
    apply(root.path(), patch.as_bytes()).unwrap();
    assert_eq!(text(&root, "src/a.ts"), "one\n2\n2b\nthree\n4\n");
    // Names without git's prefixes, as `diff -u` writes them, with a time.
    let plain = "diff -u b b\n--- b\t2026-11-28 20:00:00\n+++ b\t2026-11-28 20:00:01\n@@ -1 +1 @@\n-x\n+y\n";
    apply(root.path(), plain.as_bytes()).unwrap();
    assert_eq!(text(&root, "b"), "y\n");
}

#[test]
fn files_are_made_deleted_renamed_copied_and_get_modes() {
    let root = workspace(&[("old", "1\n2\n"), ("gone", "x\n"), ("kept", "k\n"), ("run", "r\n"), ("empty", "")]);
    let patch = "diff --git a/old b/d/new\nsimilarity index 50%\nrename from old\nrename to d/new\nindex 1..2 100644\n\
        --- a/old\n+++ b/d/new\n@@ -1,2 +1,2 @@\n 1\n-2\n+two\n\
        diff --git a/gone b/gone\ndeleted file mode 100644\nindex 1..0\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
        diff --git a/kept b/copy\nsimilarity index 100%\ncopy from kept\ncopy to copy\n\
        diff --git a/run b/run\nold mode 100644\nnew mode 100755\n\
        diff --git a/empty b/empty\ndeleted file mode 100644\nindex e69de29..0000000\n\
        diff --git a/fresh b/fresh\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ b/fresh\n@@ -0,0 +1 @@\n+f\n\\ No newline at end of file\n\
        diff --git a/void b/void\nnew file mode 100644\nindex 0000000..e69de29\n";
    apply(root.path(), patch.as_bytes()).unwrap();
    assert_eq!(
        (text(&root, "d/new"), text(&root, "copy"), text(&root, "fresh"), text(&root, "void")),
        ("1\ntwo\n".into(), "k\n".into(), "f".into(), String::new())
    );
    for gone in ["old", "gone", "empty"] {
        assert!(!root.path().join(gone).exists(), "{gone}");
    }
    for (path, mode) in [("run", 0o755), ("fresh", 0o755), ("copy", 0o644)] {
        assert_eq!(fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
}

#[test]
fn two_files_may_exchange_their_names() {
    let root = workspace(&[("a", "1\n"), ("b", "2\n")]);
    let patch = "diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n\
        diff --git a/b b/a\nsimilarity index 100%\nrename from b\nrename to a\n";
    apply(root.path(), patch.as_bytes()).unwrap();
    assert_eq!((text(&root, "a"), text(&root, "b")), ("2\n".into(), "1\n".into()));
}

#[test]
fn a_patch_that_does_not_fit_exactly_is_refused() {
    let root = workspace(&[("a", "1\n2\n3\n4"), ("crlf", "1\r\n2\r\n")]);
    for (patch, why) in [
        // One line off, which other programs would accept.
        ("--- a/a\n+++ b/a\n@@ -2 +2 @@\n-1\n+x\n", "line 2 of the file is \"2\\n\", and the patch expects \"1\\n\""),
        ("--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n 1\n 2 \n-3\n+x\n", "line 2"),
        ("--- a/crlf\n+++ b/crlf\n@@ -1 +1 @@\n-1\n+x\n", "\"1\\r\\n\""),
        ("--- a/a\n+++ b/a\n@@ -4 +4 @@\n-4\n+x\n", "line 4 of the file is \"4\""),
        ("--- a/a\n+++ b/a\n@@ -4,2 +4 @@\n-4\n\\ No newline at end of file\n-5\n+x\n", "missing"),
        ("--- a/a\n+++ b/a\n@@ -9 +9 @@\n-9\n+x\n", "has 4 lines"),
        ("--- a/a\n+++ b/a\n@@ -2 +2 @@\n-2\n+x\n@@ -1 +1 @@\n-1\n+y\n", "out of order"),
        ("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+x\n\\ No newline at end of file\n", "not the last one"),
        ("--- a/a\n+++ b/a\n@@ -4,0 +5 @@\n+5\n", "not the last one"),
        ("--- a/none\n+++ b/none\n@@ -1 +1 @@\n-1\n+x\n", "does not exist"),
        ("--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n", "exists already"),
        ("--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n", "does not remove all"),
        ("diff --git a/a b/a\nold mode 100755\nnew mode 100644\n", "executable"),
        ("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+x\n--- a/a\n+++ b/a\n@@ -2 +2 @@\n-2\n+y\n", "twice"),
    ] {
        let message = refusal(&root, patch);
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn problems_of_a_models_patch_name_the_file_and_the_hunk_and_repeat_no_line() {
    let root = workspace(&[("a", "1\n2\n")]);
    let refusal = |patch: &str| match apply_private(root.path(), patch.as_bytes()) {
        Err(PatchError::Refused(problems)) => problems.join("; "),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+x\n@@ -2 +2 @@\n-canary\n+canary\n"),
        "line 1: a: hunk at line 6: line 2 of the file is not what the patch expects"
    );
    let unreadable = "line 1: it is no unified diff, or changes what no patch may change, or names a file twice";
    assert_eq!(refusal("canary\n"), unreadable);
    assert_eq!(without_text("the canary"), unreadable);
}

#[test]
fn a_file_is_in_a_patch_once() {
    let file = |name: &str| format!("--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-1\n+x\n");
    let both = file("a") + &file("b") + "--- a/c\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n";
    let paths: Vec<_> = parse_unique(both.as_bytes()).unwrap().iter().map(|file| file.path().to_owned()).collect();
    assert_eq!(paths, ["a", "b", "c"]);
    let twice = parse_unique((file("a") + &file("a")).as_bytes()).map(|_| ());
    assert_eq!(twice, Err("line 6: a is in the patch twice; put its hunks together".to_owned()));
    for (one, other) in [("a", "A"), ("d/a", "D/b"), ("\u{e9}", "e\u{301}")] {
        let message = parse_unique((file(one) + &file(other)).as_bytes()).unwrap_err();
        assert!(message.starts_with("line 6: ") && message.contains("differ only in case"), "{message}");
    }
    let renamed = "diff --git a/a b/A\nrename from a\nrename to A\n";
    assert!(parse_unique(renamed.as_bytes()).is_ok());
}

#[test]
fn every_file_that_does_not_fit_is_named() {
    let root = workspace(&[("a", "1\n"), ("b", "1\n")]);
    let message = refusal(&root, "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-2\n+x\n--- a/b\n+++ b/b\n@@ -1 +1 @@\n-3\n+x\n");
    assert!(
        message.contains("line 1: a: hunk at line 3") && message.contains("line 6: b: hunk at line 8"),
        "{message}"
    );
}

#[test]
fn text_that_is_no_unified_diff_is_refused_with_what_to_do() {
    let root = workspace(&[("a", "1\n")]);
    let change = "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+x\n";
    for (patch, why) in [
        (
            format!("```diff\n{change}```\n"),
            "line 1: \"```diff\" is not part of a unified diff; give the diff alone, without a Markdown fence",
        ),
        (format!("Here is the patch:\n{change}"), "line 1: \"Here is the patch:\""),
        (format!("{change}```\n"), "line 6: \"```\""),
        (String::new(), "changes no file"),
        ("\n\n".into(), "changes no file"),
        ("--- a/a\n".into(), "followed by"),
        ("--- a/a\n+++ b/a\n".into(), "no hunk"),
        ("--- a/a\n+++ b/a\n@@ -1,2 +1 @@\n-1\n+x\n".into(), "must have 2 old and 1 new lines, and has 1 and 1"),
        ("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+x\n+y\n".into(), "counts fewer lines"),
        ("--- a/a\n+++ b/a\n@@ 1 @@\n-1\n".into(), "header cannot be read"),
        ("--- a/a\n+++ b/a\n@@ -0,1 +1 @@\n-1\n+x\n".into(), "header cannot be read"),
        ("--- a/a\n+++ b/a\n@@ -1,99999999999999999999 +1 @@\n-1\n".into(), "header cannot be read"),
        ("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+x".into(), "end it with a newline"),
        ("--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-1\n+x\n".into(), "both names"),
        (
            "diff --git a/a b/a\nindex 1..2 100644\nGIT binary patch\nliteral 1\n".into(),
            "binary file cannot be patched",
        ),
        ("diff --git a/a b/a\nindex 1..2 100644\nBinary files a/a and b/a differ\n".into(), "binary file cannot"),
        ("diff --git a/a b/a\nindex 1..2 100644\n".into(), "no change"),
        (
            "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n".into(),
            "changes a link",
        ),
        ("diff --git a/s b/s\nnew file mode 160000\n".into(), "submodule"),
        ("diff --git a/s b/s\nnew file mode 104755\n".into(), "neither 100644"),
        ("diff --git a/x y b/z\nnew file mode 100644\n".into(), "cannot be told apart"),
        ("diff --cc a\nindex 1,2..3\n@@@ -1,1 -1,1 +1,1 @@@\n".into(), "compare it with one parent"),
    ] {
        let message = refusal(&root, &patch);
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_patch_cannot_leave_the_workspace() {
    let root = workspace(&[("a", "1\n"), ("real/b", "1\n")]);
    symlink("real", root.path().join("link")).unwrap();
    symlink("a", root.path().join("file")).unwrap();
    for name in
        ["../evil", "/etc/evil", ".git/hooks/post-checkout", "node_modules/x.js", ".GIT/config", "x\\..\\y", "link/new"]
    {
        for patch in [
            format!("--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n"),
            format!("diff --git a/a b/{name}\nsimilarity index 100%\nrename from a\nrename to {name}\n"),
            format!("diff --git a/{name} b/c\nsimilarity index 100%\ncopy from {name}\ncopy to c\n"),
        ] {
            let Err(error) = apply(root.path(), patch.as_bytes()) else { panic!("applied: {patch}") };
            assert!(matches!(error, PatchError::Refused(_)), "{error}");
        }
    }
    let message = refusal(&root, "--- a/file\n+++ b/file\n@@ -1 +1 @@\n-1\n+x\n");
    assert!(message.contains("is a link"), "{message}");
    let quoted = "diff --git \"a/x\" \"b/\\056\\056/x\"\nnew file mode 100644\n--- /dev/null\n+++ \"b/\\056\\056/x\"\n@@ -0,0 +1 @@\n+x\n";
    assert!(refusal(&root, quoted).contains("leaves"));
}

/// A tree that git and this module change in the same way.
fn trees() -> impl Strategy<Value = BTreeMap<String, (String, bool)>> {
    let path = "[a-c](/[a-c é\"]{1,2})?";
    let content = prop::collection::vec("[xyz]?", 0..12).prop_flat_map(|lines| {
        any::<bool>().prop_map(move |ends| lines.join("\n") + if ends && !lines.is_empty() { "\n" } else { "" })
    });
    prop::collection::btree_map(path, (content, any::<bool>()), 1..5)
}

fn lay_out(root: &Path, files: &BTreeMap<String, (String, bool)>) {
    for (path, (content, executable)) in files {
        // A name that is a folder already is left out.
        let _ = edit::write_file(root, path, content.as_bytes(), Some(*executable));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_git_diff_prints_applies_to_the_same_tree(before in trees(), after in trees()) {
        let root = tempfile::tempdir().unwrap();
        git(root.path(), &["init", "--quiet"]);
        lay_out(root.path(), &before);
        git(root.path(), &["add", "--all"]);
        git(root.path(), &["commit", "--quiet", "--allow-empty", "--message", "before"]);
        for entry in fs::read_dir(root.path()).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != ".git") {
            if entry.path().is_dir() { fs::remove_dir_all(entry.path()).unwrap() } else { fs::remove_file(entry.path()).unwrap() }
        }
        lay_out(root.path(), &after);
        git(root.path(), &["add", "--all"]);
        let expected = Snapshot::take(root.path()).unwrap().digest();
        for options in [&["--unified=3"][..], &["--unified=0", "-M10%", "-C10%"], &["--no-renames", "--unified=1"]] {
            let patch = git(root.path(), &[&["diff", "--cached"][..], options].concat());
            let copy = tempfile::tempdir().unwrap();
            lay_out(copy.path(), &before);
            match apply(copy.path(), &patch) {
                Ok(()) => prop_assert_eq!(Snapshot::take(copy.path()).unwrap().digest(), expected.clone(), "{}", String::from_utf8_lossy(&patch)),
                Err(error) => prop_assert!(patch.is_empty(), "{error}: {}", String::from_utf8_lossy(&patch)),
            }
        }
    }
}
