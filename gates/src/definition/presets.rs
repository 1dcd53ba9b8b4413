//! The gates of a workspace without definitions, from what its files say about its tools.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::gate::{GateDefinition, Kind, MutantRules, Origin};
use super::globs::Globs;
use super::{Definition, Source, go, node, python, rust};
use crate::snapshot::{Kind as FileKind, Snapshot};

/// How many mutants the gate `mutants` tries.
pub const MUTANTS: u32 = 40;

/// Files with tests, by the conventions of the runners.
const TESTS: [&str; 11] = [
    "**/*.{test,spec}.{ts,tsx,mts,cts,js,jsx,mjs,cjs}",
    "**/__tests__/**/*.{ts,tsx,mts,cts,js,jsx,mjs,cjs}",
    "**/{test,tests}/**/*.{ts,tsx,mts,cts,js,jsx,mjs,cjs}",
    "**/test.{js,mjs,cjs,ts}",
    "**/test_*.py",
    "**/*_test.py",
    "**/tests.py",
    "**/tests/**/*.py",
    "**/*_test.go",
    "**/tests/**/*.rs",
    "**/{tests,*_tests,*_test}.rs",
];

type Finder = fn(&Snapshot) -> Option<Found>;

static TESTS_COMPILED: LazyLock<Globs> = LazyLock::new(|| Globs::lenient(&TESTS));

/// What the presets of one ecosystem found.
#[derive(Debug, Default)]
pub struct Found {
    pub gates: Vec<GateDefinition>,
    pub unusable: Vec<(String, String)>,
    pub explanation: Vec<String>,
}

impl Found {
    /// How many folders are above the project.
    fn depth(&self) -> usize {
        let directory = self.gates.first().map_or("", |gate| gate.directory.as_str());
        directory.split('/').filter(|part| !part.is_empty()).count()
    }
}

/// A workspace with several projects gets each gate from the project nearest to the root, and then in this order of
/// ecosystems.
pub fn find(snapshot: &Snapshot) -> Definition {
    let mut definition = Definition {
        source: Source::Presets,
        digest: String::new(),
        gates: BTreeMap::new(),
        protected: Globs::default(),
        tests: TESTS_COMPILED.clone(),
        sources: None,
        ignore: Globs::default(),
        stubs: BTreeMap::new(),
        unusable: BTreeMap::new(),
        explanation: Vec::new(),
    };
    let finders: [(&str, Finder); 4] = [
        ("package.json", node::find),
        ("Cargo.toml", rust::find),
        ("pyproject.toml or requirements", python::find),
        ("go.mod", go::find),
    ];
    let mut all: Vec<(&str, Found)> =
        finders.into_iter().filter_map(|(what, find)| Some((what, find(snapshot)?))).collect();
    // The project nearest to the root comes first: a vendored or nested one must not take its gates.
    all.sort_by_key(|(_, found)| found.depth());
    for (what, found) in all {
        definition.explanation.extend(found.explanation);
        for gate in found.gates {
            if let Some(taken) = definition.gates.get(&gate.name) {
                let sentence = format!(
                    "{} would give a gate {:?} too ({}), but the gate runs {:?}. Define both in nofx.toml.",
                    what,
                    gate.name,
                    gate.command.join(" "),
                    taken.command.join(" ")
                );
                definition.explanation.push(sentence);
            } else {
                definition.gates.insert(gate.name.clone(), gate);
            }
        }
        for (name, why) in found.unusable {
            definition.unusable.entry(name).or_insert(why);
        }
    }
    definition.unusable.retain(|name, _| !definition.gates.contains_key(name));
    for (name, kind) in [("secrets", Kind::Secrets), ("audit", Kind::Audit), ("mutants", Kind::Mutants)] {
        let mut gate = GateDefinition::new(name, kind, Origin::BuiltIn);
        gate.mutants = (kind == Kind::Mutants).then(|| MutantRules { limit: MUTANTS, tests: "unit".to_owned() });
        // Only an audit asks for the network: its advisories are there.
        gate.network = kind == Kind::Audit;
        definition.gates.entry(name.to_owned()).or_insert(gate);
    }
    definition
}

/// The folder of the project to judge: of the candidates the one nearest to the root, first by name. Its other
/// candidates are named in a sentence.
pub fn project(snapshot: &Snapshot, names: &[&str]) -> Option<(String, Option<String>)> {
    let mut folders: Vec<&str> = snapshot
        .files()
        .iter()
        .filter(|(_, entry)| matches!(entry.kind, FileKind::File { .. }))
        .filter_map(|(path, _)| {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let is_hidden = folder.split('/').any(|part| part.starts_with('.') || is_sample(part));
            (names.contains(&name) && !is_hidden).then_some(folder)
        })
        .collect();
    folders.sort_by_key(|folder| (if folder.is_empty() { 0 } else { folder.matches('/').count() + 1 }, *folder));
    folders.dedup();
    let (first, rest) = folders.split_first()?;
    let others = (!first.is_empty() && !rest.is_empty()).then(|| {
        const SHOWN: usize = 5;
        let shown: Vec<&str> = rest.iter().take(SHOWN).copied().collect();
        let more = rest.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!(
            "The root has no {}. The preset uses {first}; it leaves out {}{more}. Define gates with a directory in nofx.toml.",
            names.join(" or "), shown.join(", ")
        )
    });
    Some(((*first).to_owned(), others))
}

fn is_sample(folder: &str) -> bool {
    matches!(folder, "fixtures" | "__fixtures__" | "testdata" | "vendor" | "third_party" | "target" | "dist" | "build")
}

/// A path below a folder.
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The text of a file. `None` if it is missing, a link, not UTF-8 or larger than 8 MiB.
pub fn text(snapshot: &Snapshot, path: &str) -> Option<String> {
    const MAX_BYTES: u64 = 8 * 1024 * 1024;
    snapshot.files().get(path).filter(|entry| entry.size <= MAX_BYTES)?;
    String::from_utf8(snapshot.read(path).ok()??).ok()
}

/// A gate with a command, of a preset.
pub fn gate(name: &str, directory: &str, command: &[&str]) -> GateDefinition {
    let mut gate = GateDefinition::new(name, Kind::Command, Origin::Preset);
    gate.command = command.iter().map(ToString::to_string).collect();
    directory.clone_into(&mut gate.directory);
    gate
}
