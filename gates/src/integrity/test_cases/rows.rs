//! Tests that are made from rows, where the rows are not written down beside them. A change of another file can then
//! remove tests that the report of the change does not miss.

use std::io;

use super::super::ignores::closing;
use super::super::lex::{self, Language, Token, TokenKind};
use crate::definition::Definition;
use crate::snapshot::Snapshot;

/// Words in the rows of a table that name nothing.
const LITERALS: [&str; 14] = [
    "true",
    "false",
    "null",
    "undefined",
    "as",
    "const",
    "new",
    "True",
    "False",
    "None",
    "pytest",
    "param",
    "id",
    "ids",
];

/// Whether a file of tests takes rows by a name.
pub fn rows_come_from_elsewhere(base: &Snapshot, definition: &Definition) -> io::Result<bool> {
    for path in base.files().keys() {
        let is_test = definition.tests.matches(path) || path.rsplit('/').next() == Some("conftest.py");
        let Some(language) = lex::language(path).filter(|_| is_test) else { continue };
        let text = base.read(path)?.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        if has_named_rows(language, &lex::code(language, &text)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_named_rows(language: Language, code: &[Token<'_>]) -> bool {
    (0..code.len()).any(|at| match language {
        Language::Script => script(code, at),
        Language::Python => python(code, at),
        Language::Go => go(code, at),
        Language::Rust => false,
    })
}

/// `it.each(ROWS)`, `for (const row of ROWS) it(...)`, `ROWS.forEach((row) => it(...))`
fn script(code: &[Token<'_>], at: usize) -> bool {
    let (Some(token), true) = (code.get(at), mark(code, at + 1, '(')) else { return false };
    let is_method = at > 0 && mark(code, at - 1, '.');
    let end = closing(code, at + 1);
    let inside = code.get(at + 2..end).unwrap_or_default();
    match token.text {
        "each" | "for" if is_method => names(inside),
        "for" => {
            let of = inside.iter().position(|token| token.is_word("of") || token.is_word("in")).map_or(0, |of| of + 1);
            let close = if mark(code, end + 1, '{') { closing(code, end + 1) } else { (end + 3).min(code.len()) };
            names(inside.get(of..).unwrap_or_default()) && makes_tests(code.get(end + 1..close).unwrap_or_default())
        }
        "forEach" | "map" if is_method => at > 1 && !mark(code, at - 2, ']') && makes_tests(inside),
        _ => false,
    }
}

/// `@pytest.mark.parametrize("row", ROWS)`, `@pytest.fixture(params=ROWS)`, hooks that make tests.
fn python(code: &[Token<'_>], at: usize) -> bool {
    let Some(token) = code.get(at).filter(|token| token.kind == TokenKind::Word) else { return false };
    match token.text {
        "parametrize" if mark(code, at + 1, '(') => names(code.get(at + 2..closing(code, at + 1)).unwrap_or_default()),
        "params" if mark(code, at + 1, '=') => {
            let is_list = ['[', '('].iter().any(|open| mark(code, at + 2, *open));
            let end = if is_list { closing(code, at + 2) } else { at + 3 };
            names(code.get(at + 2..end).unwrap_or_default())
        }
        "pytest_generate_tests" | "load_tests" => true,
        _ => false,
    }
}

/// `for _, row := range rows`, where the file does not declare the rows.
fn go(code: &[Token<'_>], at: usize) -> bool {
    let Some(rows) = code.get(at + 1).filter(|rows| rows.kind == TokenKind::Word) else { return false };
    code.get(at).is_some_and(|token| token.is_word("range"))
        && !code.windows(2).any(|pair| {
            matches!(pair, [name, next] if name.text == rows.text && (next.is_mark(':') || next.is_mark('=') || next.text == ":="))
        })
}

fn mark(code: &[Token<'_>], at: usize, mark: char) -> bool {
    code.get(at).is_some_and(|token| token.is_mark(mark))
}

fn names(code: &[Token<'_>]) -> bool {
    code.iter().any(|token| token.kind == TokenKind::Word && !LITERALS.contains(&token.text))
}

fn makes_tests(code: &[Token<'_>]) -> bool {
    let is_call = |pair: &[Token<'_>]| matches!(pair, [name, open] if ["it", "test", "describe"].contains(&name.text) && (open.is_mark('(') || open.is_mark('.')));
    code.windows(2).any(is_call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_named(language: Language, text: &str) -> bool {
        has_named_rows(language, &lex::code(language, text))
    }

    #[test]
    fn rows_that_a_name_stands_for_are_elsewhere() {
        for text in [
            "it.each(CASES)('adds', () => {})",
            "test.each([...CASES, [1, 2]])('adds', () => {})",
            "test.for(cases())('adds', () => {})",
            "for (const row of CASES) { it('adds', () => {}) }",
            "for (const row of CASES) it('adds', () => {})",
            "Object.keys(CASES).forEach((name) => describe(name, () => {}))",
        ] {
            assert!(is_named(Language::Script, text), "{text}");
        }
        for text in [
            "@pytest.mark.parametrize('a,b', CASES)\ndef test_a(a, b): pass",
            "@pytest.mark.parametrize('a', load('cases.json'), ids=str)\ndef test_a(a): pass",
            "@pytest.fixture(params=CASES)\ndef a(request): pass",
            "def pytest_generate_tests(metafunc): pass",
        ] {
            assert!(is_named(Language::Python, text), "{text}");
        }
        assert!(is_named(Language::Go, "func TestA(t *testing.T) { for _, row := range rows { t.Run(row.a, f) } }"));
    }

    #[test]
    fn rows_that_are_written_down_are_here() {
        for text in [
            "it.each([[1, 'a', true], [2, 'b', null]])('adds', () => { for (const a of all) expect(a).toBe(1) })",
            "for (const row of [1, 2]) { it('adds', () => {}) }",
            "[1, 2].forEach((row) => it('adds', () => {}))",
            "it('maps', () => { expect(all.map((one) => one.name)).toEqual(['a']) })",
        ] {
            assert!(!is_named(Language::Script, text), "{text}");
        }
        for text in [
            "@pytest.mark.parametrize('a,b', [(1, None), pytest.param(2, True, id='two')])\ndef test_a(a, b): pass",
            "@pytest.fixture(params=[1, 2])\ndef a(request): pass",
            "def test_a():\n    for a in all:\n        assert a",
        ] {
            assert!(!is_named(Language::Python, text), "{text}");
        }
        let table = "func TestA(t *testing.T) { rows := []int{1}; for _, row := range rows { t.Run(row.a, f) } }";
        assert!(!is_named(Language::Go, table));
    }
}
