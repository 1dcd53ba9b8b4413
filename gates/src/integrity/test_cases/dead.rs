//! Tests that are deleted together with what they test.
//!
//! A deleted test is explained if at least half of the functions and types of the program that it uses are gone too: it
//! could not compile. They are gone if no source declares a thing with the name, and no source of the change has the body
//! under another name: then it was renamed, and its tests are owed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::change::Changes;
use super::super::lex::{self, Language, Token, TokenKind};
use super::collect::Case;
use crate::definition::Definition;
use crate::snapshot::Snapshot;

pub struct Declarations<'a> {
    base: &'a Snapshot,
    head: &'a Snapshot,
    changes: &'a Changes,
    definition: &'a Definition,
    /// Filled at first use: most changes delete no test.
    found: Option<Found>,
}

struct Found {
    /// Names that changed sources of the base declare, with the words of their bodies.
    base: BTreeMap<String, Vec<Vec<String>>>,
    /// Names that any source of the change declares.
    head: BTreeSet<String>,
    /// The bodies that changed sources of the change declare under names that the base does not have.
    renamed: Vec<Vec<String>>,
}

impl<'a> Declarations<'a> {
    pub fn new(base: &'a Snapshot, head: &'a Snapshot, changes: &'a Changes, definition: &'a Definition) -> Self {
        Self { base, head, changes, definition, found: None }
    }

    pub fn explains(&mut self, case: &Case) -> bool {
        let found = self.found.get_or_insert_with(|| collect(self.base, self.head, self.changes, self.definition));
        let used: Vec<&String> =
            case.names.iter().filter(|name| found.base.contains_key(*name) || found.head.contains(*name)).collect();
        let gone = |name: &&&String| {
            !found.head.contains(**name)
                && found.base.get(**name).is_some_and(|bodies| {
                    !bodies.iter().any(|body| found.renamed.iter().any(|other| is_same(body, other)))
                })
        };
        let gone = used.iter().filter(gone).count();
        gone > 0 && gone * 2 >= used.len()
    }
}

/// At least 0.6 of the words of both bodies are the same.
fn is_same(one: &[String], other: &[String]) -> bool {
    const MIN_WORDS: usize = 4;
    if one.len() < MIN_WORDS || other.len() < MIN_WORDS {
        return false;
    }
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for word in other {
        *counts.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in one {
        if let Some(left) = counts.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    20 * common >= 6 * (one.len() + other.len())
}

fn collect(base: &Snapshot, head: &Snapshot, changes: &Changes, definition: &Definition) -> Found {
    let is_source = |path: &str| {
        lex::language(path).is_some_and(|language| language == Language::Rust || !definition.tests.matches(path))
    };
    let mut found = Found { base: BTreeMap::new(), head: BTreeSet::new(), renamed: Vec::new() };
    for change in changes.files.iter().filter(|change| is_source(&change.path)) {
        let Some(language) = lex::language(&change.path) else { continue };
        for (name, body) in change.base.text().map(|text| declarations(language, text)).unwrap_or_default() {
            found.base.entry(name).or_default().push(body);
        }
    }
    for path in head.files().keys().filter(|path| is_source(path)) {
        let Some(language) = lex::language(path) else { continue };
        let text = head.read(path).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let is_changed = changes.get(path).is_some();
        let in_base = base.files().contains_key(path);
        for (name, body) in declarations(language, &text) {
            if is_changed && (!in_base || !found.base.contains_key(&name)) {
                found.renamed.push(body);
            }
            found.head.insert(name);
        }
    }
    found
}

/// Functions, classes, types and constants with the words of what follows, to the end of the block.
fn declarations(language: Language, text: &str) -> Vec<(String, Vec<String>)> {
    let keywords: &[&str] = match language {
        Language::Script => &["function", "class", "const", "let", "var", "interface", "type", "enum"],
        Language::Python => &["def", "class"],
        Language::Rust => &["fn", "struct", "enum", "trait", "type", "const", "static", "macro_rules"],
        Language::Go => &["func", "type", "const", "var"],
    };
    let code = lex::code(language, text);
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        if token.kind != TokenKind::Word {
            continue;
        }
        let next = code.get(at + 1);
        let is_method = language == Language::Script
            && token.column > 0
            && next.is_some_and(|next| next.is_mark('('))
            && is_definition(&code, at);
        let name = if keywords.contains(&token.text) {
            match next {
                Some(open) if open.is_mark('(') && language == Language::Go => {
                    code.get(super::super::ignores::closing(&code, at + 1) + 1)
                }
                Some(mark) if mark.is_mark('*') || mark.is_mark('!') => code.get(at + 2),
                next => next,
            }
        } else if is_method {
            Some(token)
        } else {
            None
        };
        if let Some(name) = name.filter(|name| name.kind == TokenKind::Word) {
            found.push((name.text.to_owned(), words(language, &code, at)));
        }
    }
    found
}

/// `name(...) {` is a method, `name(...)` is a call.
fn is_definition(code: &[Token<'_>], at: usize) -> bool {
    let end = super::super::ignores::closing(code, at + 1);
    let not_control =
        !matches!(code.get(at).map(|token| token.text), Some("if" | "for" | "while" | "switch" | "catch" | "with"));
    not_control && code.get(end + 1).is_some_and(|token| token.is_mark('{'))
}

fn words(language: Language, code: &[Token<'_>], at: usize) -> Vec<String> {
    const MAX_TOKENS: usize = 400;
    let rest = code.get(at + 2..).unwrap_or_default();
    let column = code.get(at).map_or(0, |token| token.column);
    let line = code.get(at).map_or(0, |token| token.line);
    let end = if language == Language::Python {
        rest.iter().position(|token| token.line > line && token.column <= column).unwrap_or(rest.len())
    } else {
        let open = rest.iter().position(|token| token.is_mark('{') || token.is_mark(';')).unwrap_or(rest.len());
        super::super::ignores::closing(rest, open)
    };
    let body = rest.get(..end.min(MAX_TOKENS)).unwrap_or_default();
    body.iter().filter(|token| token.kind != TokenKind::Mark).map(|token| token.text.to_owned()).collect()
}
