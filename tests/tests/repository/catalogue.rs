//! docs/errors.md, docs/evidence.md, docs/events.md and docs/configuration.md list every code, doubt, event type and
//! variable in the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nofx_gates::evidence::DoubtCode;
use nofx_tests::catalogue::Catalogue;
use serde_json::json;
use shared::domain::Permission;
use shared::domain::tool::HANDLERS;
use shared::error::Code;
use shared::view::sentence::{EventKind, TimelineEvent, entries};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout").to_owned()
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql")
            && !path.to_string_lossy().ends_with("tests.rs")
        {
            let text = fs::read_to_string(path).expect("a source");
            found.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
}

/// The texts that precede a quoted code in the sources.
const CODE_PREFIXES: [&str; 14] = [
    "StepError::new(",
    "denied(",
    "String| (",
    "=> (",
    "'code', ",
    "Reason::new(",
    "InfraError::new(",
    "RunnerLost::unavailable(",
    "Self { code: ",
    "stopped(",
    "CoverageError::new(",
    "Self::new(",
    "Verdict::Passed, ",
    "Verdict::Failed, ",
];

fn codes(text: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for prefix in CODE_PREFIXES {
        for rest in text.split(prefix).skip(1) {
            let rest = rest.trim_start();
            let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else { continue };
            let word: String = rest[1..].chars().take_while(|c| *c != quote).collect();
            // Other words in these places have no underscore, except one field.
            let is_code = word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_code && word != "is_shortened" {
                codes.insert(word);
            }
        }
    }
    codes
}

fn sources_of(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        sources(&root().join(folder), &mut found);
    }
    found
}

/// Sources that name codes.
fn sources_with_codes() -> Vec<String> {
    sources_of(&["functions", "gates/src", "shared/src", "migrations"])
}

/// Sources that name events. Gates write none.
fn sources_with_events() -> Vec<String> {
    sources_of(&["functions", "shared/src", "migrations"])
}

/// Sources that write events. `shared/src/view` only reads them.
fn sources_that_write_events() -> Vec<String> {
    let rooms = ["shared/src/db", "shared/src/domain", "shared/src/flow", "shared/src/worker"];
    sources_of(&[&["functions", "migrations"][..], &rooms].concat())
}

/// The codes in the first column of the tables of a section, which ends before the next heading of its level.
fn listed_codes(page: &str, heading: &str) -> BTreeSet<String> {
    let page = fs::read_to_string(root().join(page)).expect(page);
    let (_, text) = page.split_once(heading).unwrap_or_else(|| panic!("no heading {heading}"));
    let level = heading.split(' ').next().unwrap_or_default();
    let text = text.split(&format!("{level} ")).next().unwrap_or_default();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_code_in_the_sources_is_in_the_catalogue() {
    let found = sources_with_codes();
    let codes: BTreeSet<String> = found.iter().flat_map(|text| codes(text)).collect();
    assert!(codes.len() > 60, "too few codes found; did their spelling in the sources change? {codes:?}");
    let pages = ["docs/errors.md", "docs/db_write.md"].map(|page| fs::read_to_string(root().join(page)).expect(page));
    let missing: Vec<_> =
        codes.iter().filter(|code| !pages.iter().any(|page| page.contains(&format!("`{code}`")))).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}

#[test]
fn every_code_in_the_catalogue_is_in_the_sources() {
    let found = sources_with_codes();
    let is_quoted = |code: &String| {
        let quoted = [format!("\"{code}\""), format!("'{code}'")];
        found.iter().any(|text| quoted.iter().any(|quoted| text.contains(quoted)))
    };
    let listed = listed_codes("docs/errors.md", "\n## Failed steps");
    assert!(listed.len() > 90, "too few codes found; did the page change? {listed:?}");
    let gone: Vec<_> = listed.iter().filter(|code| !is_quoted(code)).collect();
    assert!(gone.is_empty(), "docs/errors.md lists codes that no source has: {gone:?}");
}

#[test]
fn doubts_of_gates_and_the_table_of_the_page_are_the_same() {
    let page = fs::read_to_string(root().join("docs/evidence.md")).expect("the page");
    let (_, section) = page.split_once("\n### What a verdict does not prove\n").expect("the section");
    let section = section.split("\n### ").next().unwrap_or_default();
    let listed: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |doubt: &DoubtCode| format!("| `{}` | {} |", doubt.as_str(), doubt.message());
    assert_eq!(listed, DoubtCode::ALL.iter().map(row).collect::<Vec<_>>());
}

/// Codes and statuses of the sections of docs/errors.md about requests.
fn described_problems() -> BTreeSet<(String, String)> {
    let page = fs::read_to_string(root().join("docs/errors.md")).expect("the page");
    let sections = page.split("\n### `").skip(1);
    let described = sections.map(|section| {
        let (code, rest) = section.split_once('`').expect("a code");
        let status = rest.trim_start().strip_prefix("Status ").expect(code);
        (code.to_owned(), status.split('.').next().unwrap_or_default().to_owned())
    });
    described.collect()
}

#[test]
fn problem_codes_and_the_sections_of_the_page_are_the_same() {
    let codes = Code::ALL.iter().map(|code| (code.as_str().to_owned(), code.status().to_string()));
    assert_eq!(codes.collect::<BTreeSet<_>>(), described_problems());
}

/// The first words of event types, besides handler names.
const NOUNS: [&str; 9] = ["artifact", "budget", "gate", "llm", "policy", "queue", "rule", "run", "step"];

/// Permissions, such as `runs.read`. They look like event types.
fn permissions() -> BTreeSet<String> {
    let list = fs::read_to_string(root().join("migrations/functions/permissions.sql")).expect("the list");
    let lines = list.lines().filter_map(|line| line.trim_start().strip_prefix("('")?.split('\'').next());
    lines.map(str::to_owned).collect()
}

/// Quoted words that look like an event type, such as `run.created`, or like the start of one, such as `step.`.
fn event_kinds(text: &str) -> BTreeSet<String> {
    let quoted = text.split(['"', '\'']);
    let is_kind = |word: &&str| {
        word.split_once('.').is_some_and(|(noun, verb)| {
            (NOUNS.contains(&noun) || HANDLERS.iter().any(|handler| handler.name == noun))
                && verb.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                // `policy.read` is a permission.
                && Permission::parse(word).is_none()
        })
    };
    quoted.filter(is_kind).map(str::to_owned).collect()
}

#[test]
fn events_in_the_sources_and_in_the_catalogue_are_the_same() {
    let catalogue = Catalogue::read();
    let listed: BTreeSet<String> = catalogue.kinds().map(str::to_owned).collect();
    let named = sources_with_events();
    let named = named.iter().flat_map(|text| event_kinds(text)).filter(|kind| !kind.ends_with('.'));
    let permissions = permissions();
    assert!(permissions.len() > 20);
    let missing: Vec<_> = named.filter(|kind| !listed.contains(kind) && !permissions.contains(kind)).collect();
    assert!(missing.is_empty(), "not in docs/events.md: {missing:?}");

    let sources = sources_that_write_events();
    let (prefixes, whole): (BTreeSet<_>, BTreeSet<_>) =
        sources.iter().flat_map(|text| event_kinds(text)).partition(|kind| kind.ends_with('.'));
    // If a type is concatenated, its second part is a state that is quoted in the migrations.
    let is_state = |word: &str| sources.iter().any(|text| text.contains(&format!("'{word}'")));
    let is_concatenated = |kind: &&String| {
        kind.split_once('.').is_some_and(|(noun, verb)| prefixes.contains(&format!("{noun}.")) && is_state(verb))
    };
    let unwritten: Vec<_> = listed.difference(&whole).filter(|kind| !is_concatenated(kind)).collect();
    assert!(unwritten.is_empty(), "no source writes these events: {unwritten:?}");
}

/// A type without a sentence would be shown as its name.
#[test]
fn every_event_in_the_catalogue_has_a_sentence() {
    for kind in Catalogue::read().kinds() {
        let event = json!({ "type": kind, "step": { "name": "unit" }, "timestamp": "2026-11-28T14:32:10Z" });
        let events = [serde_json::from_value::<TimelineEvent>(event).expect("an event")];
        // Late enough for a step that is ready to be worth a sentence.
        let told = entries(&events, Some(i64::MAX));
        assert_eq!(told.len(), 1, "{kind} has no sentence");
        assert!(!told[0].to_string().contains(kind), "{kind} has no sentence: {}", told[0]);
    }
}

#[test]
fn a_timeline_can_be_filtered_by_every_event_of_a_run() {
    let of_tenants = ["policy", "queue", "rule"];
    let catalogue = Catalogue::read();
    let listed = catalogue.kinds().filter(|kind| !of_tenants.contains(&kind.split('.').next().unwrap_or_default()));
    let filtered = EventKind::ALL.into_iter().flat_map(EventKind::types).copied();
    assert_eq!(listed.collect::<BTreeSet<_>>(), filtered.collect::<BTreeSet<_>>());
}

#[test]
fn every_writer_in_the_catalogue_exists() {
    let sources = sources_with_events();
    let exists = |writer: &&str| sources.iter().any(|text| text.contains(&format!("function nofx.{writer}(")));
    let missing: BTreeSet<_> =
        Catalogue::read().writers().filter(|writer| !exists(writer)).map(str::to_owned).collect();
    assert!(missing.is_empty(), "no such function: {missing:?}");
}

#[test]
fn every_variable_is_on_the_configuration_page() {
    let source = fs::read_to_string(root().join("shared/src/config.rs")).expect("the reader of the environment");
    let page = fs::read_to_string(root().join("docs/configuration.md")).expect("the page");
    let quoted = source.split('"').filter(|word| word.len() > 3 && word.contains('_'));
    let variables: BTreeSet<&str> =
        quoted.filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect();
    assert!(variables.len() > 20, "too few variables found; did their spelling in the source change? {variables:?}");
    let missing: Vec<_> = variables.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
}
