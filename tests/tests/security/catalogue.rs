//! The catalogue of errors lists every code that a step can fail with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout").to_owned()
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql")
            && !path.to_string_lossy().ends_with("tests.rs")
        {
            let text = fs::read_to_string(path).expect("a source");
            found.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
}

/// Words in quotes that follow one of these, as codes do in the sources.
const BEFORE: [&str; 5] = ["StepError::new(", "denied(", "String| (", "=> (", "'code', "];

fn codes(text: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for before in BEFORE {
        for rest in text.split(before).skip(1) {
            let rest = rest.trim_start();
            let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else { continue };
            let word: String = rest[1..].chars().take_while(|c| *c != quote).collect();
            // Other words in such places have no underscore, but for this one field.
            let is_code = word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_code && word != "is_shortened" {
                codes.insert(word);
            }
        }
    }
    codes
}

#[test]
fn every_code_of_the_sources_is_in_the_catalogue() {
    let mut found = Vec::new();
    for folder in ["functions", "shared/src", "migrations"] {
        sources(&root().join(folder), &mut found);
    }
    let codes: BTreeSet<String> = found.iter().flat_map(|text| codes(text)).collect();
    assert!(codes.len() > 40, "the sources write codes in another way now: {codes:?}");
    let pages = ["docs/errors.md", "docs/db_write.md"].map(|page| fs::read_to_string(root().join(page)).expect(page));
    let missing: Vec<_> =
        codes.iter().filter(|code| !pages.iter().any(|page| page.contains(&format!("`{code}`")))).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}
