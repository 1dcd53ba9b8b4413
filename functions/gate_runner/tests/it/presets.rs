//! Workspaces without a definition: the gates come from the files of their tools.

use std::fs;

use nofx_gates::evidence::Verdict;

use crate::sample::{Lab, Tree, failed, passed, request};

/// A workspace with a script of npm that runs this program.
fn package(program: &str) -> Tree {
    let text = r#"{"name": "a", "version": "1.0.0", "scripts": {"lint": "node check.cjs"}}"#;
    Tree::new(&[("package.json", text), ("check.cjs", program)])
}

#[tokio::test]
async fn a_script_of_package_json_is_a_gate() {
    let lab = Lab::new();
    let evidence = lab.evidence(&request("lint", &package("console.log('fine')"))).await;
    assert_eq!(evidence.verdict, Verdict::Passed, "{}", evidence.reason.message);
    assert_eq!(evidence.definition.unwrap().file, "presets");
    assert!(evidence.command.unwrap().output.tail.contains("fine"));
    assert!(evidence.toolchain["node"].starts_with('v'), "{:?}", evidence.toolchain);
    assert_eq!(lab.verdict(&request("lint", &package("process.exit(3)"))).await, failed("command_failed"));
    assert_eq!(lab.verdict(&request("typecheck", &package(""))).await, failed("no_command"));
    // A script that checks nothing is no gate.
    let nothing = Tree::new(&[("package.json", r#"{"scripts": {"lint": "exit 0"}}"#)]);
    assert_eq!(lab.verdict(&request("lint", &nothing)).await, failed("no_command"));
}

#[tokio::test]
async fn dependencies_without_a_lockfile_are_not_installed() {
    let text = r#"{"name": "a", "scripts": {"lint": "node check.cjs"}, "devDependencies": {"a": "1.0.0"}}"#;
    assert_eq!(
        Lab::new().verdict(&request("lint", &Tree::new(&[("package.json", text)]))).await,
        failed("no_lockfile")
    );
}

#[tokio::test]
async fn a_lockfile_that_cannot_be_read_is_refused_before_npm_sees_it() {
    let text = r#"{"name": "a", "scripts": {"lint": "node check.cjs"}, "dependencies": {"a": "1.0.0"}}"#;
    let tree = Tree::new(&[("package.json", text), ("package-lock.json", "not json")]);
    assert_eq!(Lab::new().verdict(&request("lint", &tree)).await, failed("lockfile_refused"));
}

#[tokio::test]
async fn settings_of_npm_in_the_workspace_count_for_nothing() {
    let tree = package("console.log('honest')")
        .with(".npmrc", "script-shell=/bin/true\nnode-options=--require=./evil.cjs\nignore-scripts=true\n");
    let evidence = Lab::new().evidence(&request("lint", &tree.with("evil.cjs", "process.exit(0)"))).await;
    assert_eq!(evidence.verdict, Verdict::Passed);
    assert!(evidence.command.unwrap().output.tail.contains("honest"));
}

#[tokio::test]
async fn a_host_without_node_reports_the_missing_toolchain() {
    let mut lab = Lab::new();
    let empty = lab.path().join("no-tools");
    fs::create_dir(&empty).unwrap();
    lab.runner.search_path = empty.to_string_lossy().into_owned();
    let judged = lab.judge(&request("lint", &package(""))).await;
    assert_eq!((judged.evidence.verdict, judged.evidence.reason.code), failed("toolchain_missing"));
}

#[tokio::test]
async fn a_project_of_another_language_has_its_own_gates() {
    let tree = Tree::new(&[("go.mod", "module a\n\ngo 1.22\n"), ("a.go", "package a\n")]);
    let evidence = Lab::new().judge(&request("lint", &tree)).await.evidence;
    assert_ne!(evidence.reason.code, "no_command", "{}", evidence.reason.message);
    assert_eq!(Lab::new().verdict(&request("secrets", &tree)).await.0, passed("x").0);
}
