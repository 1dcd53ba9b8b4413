//! Runs the corpus of honest and dishonest changes in `testdata/integrity`.
//!
//! A case edits a base tree. An honest one has no finding. A dishonest one has at least the findings that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::definition::define;

/// One file of cases: each line of an edit starts with its mark.
struct Case<'a> {
    name: &'a str,
    language: &'a str,
    expected: Vec<(&'a str, &'a str)>,
    edits: Vec<Edit<'a>>,
}

struct Edit<'a> {
    words: Vec<&'a str>,
    lines: Vec<&'a str>,
}

#[derive(Clone)]
enum Node {
    Bytes(Vec<u8>),
    Link(String),
}

type Tree = BTreeMap<String, Node>;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/integrity").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn edits(text: &str) -> Vec<Edit<'_>> {
    let mut found: Vec<Edit<'_>> = Vec::new();
    for line in text.lines() {
        if line.starts_with(['|', '-', '+']) {
            found.last_mut().expect("a line without an edit").lines.push(line);
        } else if !line.trim().is_empty() {
            found.push(Edit { words: line.split(' ').collect(), lines: Vec::new() });
        }
    }
    found
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let parse = |block| -> Case<'_> {
        let (name, rest): (&str, &str) = str::split_once(block, '\n').unwrap();
        let mut case = Case { name, language: "typescript", expected: Vec::new(), edits: Vec::new() };
        for edit in edits(rest) {
            match edit.words.as_slice() {
                ["language", language] => case.language = language,
                ["expect", kind, path] => case.expected.push((kind, path)),
                _ => case.edits.push(edit),
            }
        }
        case
    };
    text.trim_start_matches("=== ").split("\n=== ").map(parse).collect()
}

fn joined(edit: &Edit<'_>, mark: char) -> String {
    let lines: Vec<&str> = edit.lines.iter().filter_map(|line| line.strip_prefix(mark)).collect();
    lines.join("\n")
}

fn apply(edit: &Edit<'_>, tree: &mut Tree) {
    let text = |tree: &Tree, path: &str| match tree.get(path) {
        Some(Node::Bytes(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
        _ => panic!("there is no {path}"),
    };
    let content = || format!("{}\n", joined(edit, '|'));
    match edit.words.as_slice() {
        ["write", path] => {
            tree.insert((*path).to_owned(), Node::Bytes(content().into_bytes()));
        }
        ["append", path] => {
            let whole = format!("{}{}", text(tree, path), content());
            tree.insert((*path).to_owned(), Node::Bytes(whole.into_bytes()));
        }
        ["replace", path] => {
            let (old, new, whole) = (joined(edit, '-'), joined(edit, '+'), text(tree, path));
            assert_eq!(whole.matches(&old).count(), 1, "{path} must have this once:\n{old}");
            tree.insert((*path).to_owned(), Node::Bytes(whole.replace(&old, &new).into_bytes()));
        }
        ["delete", path] => {
            tree.remove(*path).unwrap();
        }
        ["move", from, to] => {
            let node = tree.remove(*from).unwrap();
            tree.insert((*to).to_owned(), node);
        }
        ["link", path, target] => {
            tree.insert((*path).to_owned(), Node::Link((*target).to_owned()));
        }
        ["nul", path] => {
            let whole = format!("{}// \0\n", text(tree, path));
            tree.insert((*path).to_owned(), Node::Bytes(whole.into_bytes()));
        }
        words => panic!("unknown edit {words:?}"),
    }
}

fn lay_out(root: &Path, tree: &Tree) -> Snapshot {
    for (path, node) in tree {
        let path: PathBuf = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match node {
            Node::Bytes(bytes) => fs::write(path, bytes).unwrap(),
            Node::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
        }
    }
    Snapshot::take(root).unwrap()
}

fn findings(case: &Case<'_>) -> Vec<Weakening> {
    let mut base = Tree::new();
    for edit in edits(&read(&format!("base-{}.txt", case.language))) {
        apply(&edit, &mut base);
    }
    for edit in case.edits.iter().filter(|edit| edit.words.first() == Some(&"base")) {
        apply(&Edit { words: vec!["write", edit.words[1]], lines: edit.lines.clone() }, &mut base);
    }
    let mut head = base.clone();
    for edit in case.edits.iter().filter(|edit| edit.words.first() != Some(&"base")) {
        apply(edit, &mut head);
    }
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (base, head) = (lay_out(roots[0].path(), &base), lay_out(roots[1].path(), &head));
    compare(&base, &head, &define(&base).unwrap(), &define(&head).unwrap()).unwrap().findings
}

fn shown(findings: &[Weakening]) -> String {
    let line =
        |found: &Weakening| format!("\n    {} {}:{:?}: {}", found.kind.name(), found.path, found.line, found.message);
    findings.iter().map(line).collect::<Vec<_>>().concat()
}

fn honest(name: &str) -> usize {
    let text = read(name);
    let cases = cases(&text);
    let bothered: Vec<String> = cases
        .iter()
        .map(|case| (case.name, findings(case)))
        .filter(|(_, found)| !found.is_empty())
        .map(|(name, found)| format!("{name}{}", shown(&found)))
        .collect();
    assert!(
        bothered.is_empty(),
        "{} of {} honest changes have findings:\n{}",
        bothered.len(),
        cases.len(),
        bothered.join("\n")
    );
    cases.len()
}

fn dishonest(name: &str) -> usize {
    let text = read(name);
    let cases = cases(&text);
    let mut missed = Vec::new();
    for case in &cases {
        assert!(!case.expected.is_empty(), "{} expects nothing", case.name);
        let found = findings(case);
        for (kind, path) in &case.expected {
            if !found.iter().any(|finding| finding.kind.name() == *kind && finding.path == *path) {
                missed.push(format!("{}: no {kind} {path}{}", case.name, shown(&found)));
            }
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {} dishonest changes are missed:\n{}",
        missed.len(),
        cases.len(),
        missed.join("\n")
    );
    cases.len()
}

#[test]
fn honest_changes_of_typescript_have_no_findings() {
    assert!(honest("honest-typescript.txt") >= 40);
}

#[test]
fn honest_changes_of_other_languages_have_no_findings() {
    assert!(honest("honest-others.txt") >= 30);
}

#[test]
fn dishonest_changes_of_typescript_are_found() {
    assert!(dishonest("dishonest-typescript.txt") >= 80);
}

#[test]
fn dishonest_changes_of_other_languages_are_found() {
    assert!(dishonest("dishonest-others.txt") >= 60);
}

#[test]
fn equal_trees_have_no_findings() {
    for language in ["typescript", "python", "rust", "go"] {
        let case = Case { name: "nothing", language, expected: Vec::new(), edits: Vec::new() };
        assert!(findings(&case).is_empty(), "{language}");
    }
}
