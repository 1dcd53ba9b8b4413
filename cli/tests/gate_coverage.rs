//! `nofx gate coverage` as a program: exit statuses, JSON, and the text for people.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const LCOV: &str = "SF:src/a.ts\nDA:1,1\nDA:2,0\nDA:3,1\nend_of_record\n";
const DIFF: &str = "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -0,0 +1,3 @@\n+f();\n+g();\n+h();\n";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("w/src/a.ts", "f();\ng();\nh();\n"),
        ("w/README.md", "x\n"),
        ("lcov.info", LCOV),
        ("change.diff", DIFF),
        ("empty.diff", ""),
        ("other.diff", "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -0,0 +1,3 @@\n+f();\n+X();\n+h();\n"),
        ("gone.diff", "--- a/src/a.ts\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"),
        (
            "moved.diff",
            "diff --git a/src/a.ts b/src/b.ts\nsimilarity index 100%\nrename from src/a.ts\nrename to src/b.ts\n",
        ),
        ("broken.diff", "hello\n"),
        ("empty.info", ""),
        ("cut.info", "SF:src/a.ts\nDA:1,1\n"),
        ("none.json", "{}"),
        ("twice.json", r#"{"src/a.ts": {"statementMap": {}, "s": {}}, "src/a.ts": {"statementMap": {}, "s": {}}}"#),
        ("foreign.info", "SF:/ci/lib/b.ts\nDA:1,1\nend_of_record\n"),
        ("bomb.xml", "<!DOCTYPE coverage [<!ENTITY a \"b\">]><coverage><packages>&a;</packages></coverage>"),
        ("base/src/a.ts", "f();\nh();\n"),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn nofx(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.current_dir(folder).args(["gate", "coverage"]).args(arguments).env_remove("NO_COLOR").output().unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = nofx(folder, &[arguments, &["--root", "w", "--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?}: {text} {:?}", output.stderr));
    (output.status.code(), value)
}

#[test]
fn each_result_has_its_exit_status_and_code() {
    let folder = folder();
    for (arguments, status, verdict, code) in [
        ("--report lcov.info", 1, "fail", "below_threshold"),
        ("--report lcov.info --threshold 0.66", 0, "pass", "threshold_met"),
        ("--report lcov.info --threshold .66 --file-floor 0.7", 1, "fail", "below_file_floor"),
        ("--report lcov.info --report lcov.info --diff change.diff --format lcov", 1, "fail", "below_threshold"),
        ("--report lcov.info --diff empty.diff", 0, "pass", "empty_diff"),
        ("--report lcov.info --base w", 0, "pass", "empty_diff"),
        ("--report lcov.info --base base", 1, "fail", "below_threshold"),
        ("--report lcov.info --ignore src/**", 3, "cannot_judge", "no_path_matches"),
        ("--report lcov.info --source lib", 3, "cannot_judge", "no_path_matches"),
        ("--report lcov.info --diff other.diff", 3, "cannot_judge", "diff_mismatch"),
        ("--report lcov.info --diff gone.diff", 3, "cannot_judge", "diff_mismatch"),
        ("--report lcov.info --diff moved.diff", 3, "cannot_judge", "diff_mismatch"),
        ("--report lcov.info --diff broken.diff", 3, "cannot_judge", "diff_unparsable"),
        ("--report lcov.info --diff missing.diff", 3, "cannot_judge", "diff_unparsable"),
        ("--report missing.info", 3, "cannot_judge", "report_missing"),
        ("--report empty.info", 3, "cannot_judge", "report_empty"),
        ("--report none.json", 3, "cannot_judge", "report_empty"),
        ("--report cut.info", 3, "cannot_judge", "report_unparsable"),
        ("--report twice.json", 3, "cannot_judge", "report_unparsable"),
        ("--report bomb.xml", 3, "cannot_judge", "report_unparsable"),
        ("--report lcov.info --format istanbul", 3, "cannot_judge", "report_unparsable"),
        ("--report lcov.info --report cut.info", 3, "cannot_judge", "report_unparsable"),
        ("--report foreign.info", 3, "cannot_judge", "no_path_matches"),
        ("--report lcov.info --threshold NaN", 3, "cannot_judge", "threshold_invalid"),
        ("--report lcov.info --threshold 1.01", 3, "cannot_judge", "threshold_invalid"),
        ("--report lcov.info --threshold -0.1", 3, "cannot_judge", "threshold_invalid"),
        ("--report lcov.info --threshold high", 3, "cannot_judge", "threshold_invalid"),
        ("--report lcov.info --file-floor 2", 3, "cannot_judge", "threshold_invalid"),
        ("--report lcov.info --ignore a[", 2, "cannot_judge", "usage"),
    ] {
        let (found, value) = json(folder.path(), &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(
            (found, &value["verdict"], &value["reason"]["code"]),
            (Some(status), &verdict.into(), &code.into()),
            "{arguments}"
        );
    }
}

#[test]
fn wrong_usage_without_json_is_two() {
    let folder = folder();
    for arguments in [
        vec!["--root", "w"],
        vec!["--report", "lcov.info", "--root", "missing"],
        vec!["--report", "lcov.info", "--format", "clover"],
        vec!["--report", "lcov.info", "--diff", "change.diff", "--base", "base"],
    ] {
        assert_eq!(nofx(folder.path(), &arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_json_lists_every_changed_file_and_line() {
    let folder = folder();
    let (_, value) = json(folder.path(), &["--report", "lcov.info"]);
    assert_eq!((&value["covered"], &value["uncovered"], &value["unmeasured"]), (&2.into(), &1.into(), &0.into()));
    assert_eq!(value["threshold"], 0.9);
    let files = value["files"].as_array().unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(
        (&files[0]["path"], &files[0]["status"], &files[0]["why"]),
        (&"README.md".into(), &"ignored".into(), &"not_a_source".into())
    );
    let lines: Vec<_> =
        files[1]["lines"].as_array().unwrap().iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(lines, ["covered", "uncovered", "covered"]);
}

#[test]
fn people_see_the_lines_in_their_context_and_what_to_do() {
    let folder = folder();
    let output = nofx(folder.path(), &["--report", "lcov.info", "--root", "w"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "src/a.ts\n",
        "      1 | f();\n-     2 | g();\n      3 | h();\n",
        "2 of 3, 1 never ran",
        "fail  below_threshold",
        "next  add tests",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours go to terminals alone");
}
