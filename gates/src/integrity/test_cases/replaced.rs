//! Functions of a test framework that the change replaces by its own.

use std::collections::BTreeSet;

use super::super::change::Changes;
use super::super::finding::{Weakening, WeakeningKind};
use super::super::lex::{self, Language, Token, TokenKind};
use super::runner::Patterns;

const SCRIPT: [&str; 8] = ["expect", "assert", "it", "test", "describe", "vi", "jest", "should"];
const PYTHON: [&str; 3] = ["pytest", "unittest", "assert_"];
const HOOK: &str = "the hook ";
const MODULES: [&str; 10] = [
    "vitest",
    "@jest/globals",
    "expect",
    "chai",
    "assert",
    "node:assert",
    "node:test",
    "assert/strict",
    "node:assert/strict",
    "mocha",
];

/// Files of tests that declare, import from the workspace, assign or mock a function of their framework, and did not before.
pub fn find(changes: &Changes, patterns: &Patterns) -> Vec<Weakening> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut added = Vec::new();
    for change in &changes.files {
        let Some(language) = lex::language(&change.path) else { continue };
        let is_test = patterns.collects(&change.path, language);
        if !is_test && language != Language::Script && language != Language::Python {
            continue;
        }
        let read = |text: Option<&str>| {
            text.map(|text| replacements(language, &lex::code(language, text), is_test)).unwrap_or_default()
        };
        known.extend(read(change.base.text()).into_iter().map(|(what, _)| what));
        added.extend(read(change.head.text()).into_iter().map(|(what, line)| (change, what, line)));
    }
    // The comparison of conftest.py shows its hooks.
    let is_shown = |path: &str, what: &str| what.starts_with(HOOK) && path.rsplit('/').next() == Some("conftest.py");
    let new = added.into_iter().filter(|(change, what, _)| !known.contains(what) && !is_shown(&change.path, what));
    new.map(|(change, what, line)| {
        let message = format!("The change replaces a function of the test framework: {what}.");
        Weakening::new(WeakeningKind::CheckReplaced, &change.path, Some(line), message)
    })
    .collect()
}

fn replacements(language: Language, code: &[Token<'_>], is_test: bool) -> Vec<(String, u32)> {
    match language {
        Language::Script => script(code, is_test),
        Language::Python => python(code, is_test),
        Language::Rust => rust(code),
        Language::Go => Vec::new(),
    }
}

fn script(code: &[Token<'_>], is_test: bool) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let text = |at: usize| code.get(at).map_or("", |token| token.text);
    for (at, token) in code.iter().enumerate() {
        let is_known = SCRIPT.contains(&token.text) && token.kind == TokenKind::Word;
        let previous = if at > 0 { text(at - 1) } else { "" };
        if is_known && is_test && matches!(previous, "const" | "let" | "var" | "function" | "class") {
            // `const { expect } = require("chai")` has a brace before the name, and `const test = base.extend()` is a fixture.
            let made_here = previous == "function"
                || previous == "class"
                || !(text(at + 2) == "require" || text(at + 3) == "." || text(at + 2) == "await");
            if made_here {
                found.push((format!("{} {}", previous, token.text), token.line));
            }
        }
        if token.is_word("from") && is_test {
            let source = code.get(at + 1).filter(|token| token.kind == TokenKind::Text).map_or("", Token::unquoted);
            let start = code.iter().take(at).rposition(|token| token.is_word("import")).unwrap_or(at);
            let names = code.get(start..at).unwrap_or_default();
            let name = names.iter().find(|token| SCRIPT.contains(&token.text) && token.kind == TokenKind::Word);
            if let Some(name) =
                name.filter(|_| source.starts_with('.') || source.starts_with('#') || source.starts_with("@/"))
            {
                found.push((format!("{} from {source:?}", name.text), token.line));
            }
        }
        let assigns = text(at + 1) == "=" && text(at + 2) != "=" && text(at + 2) != ">";
        let global = previous == "." && at > 1 && matches!(text(at - 2), "globalThis" | "global" | "window");
        if is_known && assigns && global {
            found.push((format!("{}.{} = ...", text(at - 2), token.text), token.line));
        }
        if is_test
            && matches!(token.text, "mock" | "doMock" | "unstable_mockModule")
            && previous == "."
            && text(at + 1) == "("
        {
            let module = code.get(at + 2).map_or("", |token| token.unquoted());
            if MODULES.contains(&module) {
                found.push((format!("a mock of {module:?}"), token.line));
            }
        }
        // `expect.extend({ toBe() {} })` takes the name of a matcher of the framework.
        if token.is_word("extend") && previous == "." && at > 1 && text(at - 2) == "expect" && text(at + 1) == "(" {
            let end = super::super::ignores::closing(code, at + 1);
            let builtin = [
                "toBe",
                "toEqual",
                "toStrictEqual",
                "toThrow",
                "toThrowError",
                "toBeTruthy",
                "toBeFalsy",
                "toContain",
                "toMatch",
                "toBeNull",
                "toBeDefined",
                "toHaveLength",
            ];
            let inside = code.get(at + 1..end).unwrap_or_default();
            let taken = inside.windows(2).find(|pair| matches!(pair, [name, mark] if builtin.contains(&name.unquoted()) && (mark.is_mark('(') || mark.is_mark(':'))));
            found.extend(
                taken.and_then(|pair| pair.first()).map(|name| (format!("expect.extend of {}", name.text), name.line)),
            );
        }
    }
    found
}

fn python(code: &[Token<'_>], is_test: bool) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let text = |at: usize| code.get(at).map_or("", |token| token.text);
    for (at, token) in code.iter().enumerate() {
        let is_known = PYTHON.contains(&token.text);
        let starts = at == 0 || code.get(at - 1).is_some_and(|previous| previous.line < token.line);
        if is_known && is_test && starts && text(at + 1) == "=" && text(at + 2) != "=" {
            found.push((format!("{} = ...", token.text), token.line));
        }
        if is_test && starts && token.is_word("pytest_plugins") && text(at + 1) == "=" {
            found.push(("the list of plugins".to_owned(), token.line));
        }
        if token.is_word("def") && text(at + 1).starts_with("pytest_") && text(at + 2) == "(" {
            found.push((format!("{HOOK}{}", text(at + 1)), token.line));
        }
        if token.is_word("modules") && text(at + 1) == "[" && at > 1 && text(at - 2) == "sys" {
            let module = code.get(at + 2).map_or("", |token| token.unquoted());
            if ["pytest", "unittest", "coverage", "_pytest", "mypy"].contains(&module) {
                found.push((format!("sys.modules[{module:?}]"), token.line));
            }
        }
        // `pytest.raises = ...`, `unittest.TestCase.assertEqual = ...`
        if is_known && text(at + 1) == "." {
            let end = (at..code.len())
                .take_while(|index| code.get(*index).is_some_and(|other| other.line == token.line))
                .count()
                + at;
            let assigned = (at..end).find(|index| {
                text(*index) == "=" && text(index + 1) != "=" && text(index.saturating_sub(1)) != "=" && index - at <= 6
            });
            let no_call = assigned.is_some_and(|assigned| !(at..assigned).any(|index| text(index) == "("));
            if starts && no_call {
                found.push((format!("an assignment to {}.{}", token.text, text(at + 2)), token.line));
            }
        }
    }
    found
}

/// `macro_rules! assert_eq`
fn rust(code: &[Token<'_>]) -> Vec<(String, u32)> {
    let matched = code.windows(3).filter(|window| {
        matches!(window, [one, mark, name] if one.is_word("macro_rules") && mark.is_mark('!') && matches!(name.text, "assert" | "assert_eq" | "assert_ne" | "panic" | "debug_assert"))
    });
    matched.filter_map(|window| window.last().map(|name| (format!("macro {}", name.text), name.line))).collect()
}
