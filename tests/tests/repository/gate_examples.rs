//! The examples of `nofx.toml` in `docs` are ones that the reader takes, and they show every key.

use std::fs;

use nofx_gates::definition::{self, Kind, Severity};
use nofx_gates::snapshot::Snapshot;
use nofx_tests::documents::Document;

/// Every key of `nofx.toml`.
const KEYS: [&str; 32] = [
    "presets",
    "protected",
    "tests",
    "sources",
    "ignore",
    "stubs",
    "gates",
    "command",
    "directory",
    "port",
    "health",
    "start_timeout_s",
    "environment",
    "shell",
    "kind",
    "reports",
    "format",
    "path",
    "coverage",
    "threshold",
    "file_floor",
    "strict",
    "timeout_s",
    "network",
    "severity",
    "sandbox",
    "dependencies",
    "mutants",
    "limit",
    "allow",
    "secrets",
    "audit",
];

fn examples() -> Vec<(String, String)> {
    let blocks = Document::all().into_iter().flat_map(|document| {
        let toml = document.blocks().into_iter().filter(|block| block.language == "toml");
        toml.map(|block| (format!("{}:{}", document.path, block.line), block.text)).collect::<Vec<_>>()
    });
    blocks.collect()
}

#[test]
fn every_example_of_a_definition_is_valid() {
    let examples = examples();
    assert!(!examples.is_empty());
    for (place, text) in &examples {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("nofx.toml"), text).expect("write it");
        let snapshot = Snapshot::take(root.path()).expect("a snapshot");
        let defined = definition::define(&snapshot);
        let problems =
            |problems: &Vec<definition::Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(defined.is_ok(), "{place}: {:?}", defined.as_ref().map_err(problems).err());
    }
}

#[test]
fn the_page_about_gates_shows_every_key() {
    let (_, text) = examples().into_iter().find(|(place, _)| place.starts_with("docs/gates.md")).expect("an example");
    for key in KEYS {
        assert!(text.contains(key), "docs/gates.md has no example of {key}");
    }
    let root = tempfile::tempdir().expect("a folder");
    fs::write(root.path().join("nofx.toml"), &text).expect("write it");
    let defined = definition::define(&Snapshot::take(root.path()).expect("a snapshot")).expect("a definition");
    let sast = defined.gate("sast").expect("the gate sast");
    assert_eq!(sast.severity, Severity::Warning);
    assert!(sast.protected.matches(".semgrep/rules.yml"));
    let mutants = defined.gate("mutants").expect("the gate mutants");
    assert_eq!((mutants.kind, mutants.mutants.as_ref().map(|rules| rules.limit)), (Kind::Mutants, Some(20)));
}
