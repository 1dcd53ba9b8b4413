//! All tests of the changed files on one side.

use super::super::change::{Change, Changes, Side};
use super::super::lex::{self, Language};
use super::Trick;
use super::runner::Patterns;
use super::{go, javascript, python, rust};

/// One test.
// Independent facts, not a state.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Default)]
pub struct Case {
    pub path: String,
    pub line: u32,
    /// With the names of its suites.
    pub name: String,
    pub leaf: String,
    /// How.
    pub skipped: Option<String>,
    pub focused: bool,
    pub inverted: bool,
    /// The language's usual way to test for a failure (`#[should_panic]`).
    pub is_standard_inversion: bool,
    pub parametrised: bool,
    /// Tokens with its table of parameters.
    pub size: usize,
    pub assertions: usize,
    pub tricks: Vec<Trick>,
    /// The words of each line of its body: names and values, no marks.
    pub lines: Vec<Vec<String>>,
    /// Names that its body uses.
    pub names: Vec<String>,
    /// Words that demand a failure (`toThrow`, `raises`).
    pub refusals: Vec<String>,
}

impl Case {
    /// A Rust test without an assertion of its own may fail by `unwrap`. It counts as one check.
    pub fn weight(&self) -> usize {
        self.assertions.max(1)
    }
}

pub fn cases(changes: &Changes, patterns: &Patterns, side: impl Fn(&Change) -> &Side) -> Vec<Case> {
    let mut found = Vec::new();
    for change in &changes.files {
        let (Some(language), Some(text)) = (lex::language(&change.path), side(change).text()) else { continue };
        if !patterns.collects(&change.path, language) {
            continue;
        }
        let tokens = lex::tokens(language, text);
        let mut cases = match language {
            Language::Script => javascript::cases(&tokens),
            Language::Python => python::cases(&tokens),
            Language::Rust => rust::cases(&tokens),
            Language::Go => go::cases(&tokens),
        };
        for case in &mut cases {
            case.path.clone_from(&change.path);
        }
        found.extend(cases);
    }
    found
}
