//! What the body of a test does, in any language.

use super::super::ignores::closing;
use super::super::lex::{Language, Token, TokenKind};
use super::Trick;
use super::collect::Case;

/// Fills what the body says: assertions, tricks, words.
pub fn describe(case: &mut Case, language: Language, body: &[Token<'_>]) {
    case.assertions = assertions(language, body);
    case.tricks = tricks(language, body);
    case.lines = lines(body);
    case.names = body.iter().filter(|token| token.kind == TokenKind::Word).map(|token| token.text.to_owned()).collect();
    case.names.sort();
    case.names.dedup();
    case.refusals = case.names.iter().filter(|name| is_refusal(name)).cloned().collect();
}

fn is_refusal(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["throw", "reject", "raise", "is_err", "unwrap_err", "expect_err", "should_panic"]
        .iter()
        .any(|word| lower.contains(word))
        && !lower.starts_with("notthrow")
}

/// The words of each line.
fn lines(body: &[Token<'_>]) -> Vec<Vec<String>> {
    let mut lines: Vec<(u32, Vec<String>)> = Vec::new();
    for token in body.iter().filter(|token| token.kind != TokenKind::Mark) {
        match lines.last_mut() {
            Some((line, words)) if *line == token.line => words.push(token.text.to_owned()),
            _ => lines.push((token.line, vec![token.text.to_owned()])),
        }
    }
    lines.into_iter().map(|(_, words)| words).collect()
}

/// The token at an index is an assertion.
fn is_assertion(language: Language, body: &[Token<'_>], at: usize) -> bool {
    let Some(token) = body.get(at).filter(|token| token.kind == TokenKind::Word) else { return false };
    let next = |offset: usize| body.get(at + offset);
    let previous = |offset: usize| at.checked_sub(offset).and_then(|at| body.get(at));
    let after_dot = previous(1).is_some_and(|token| token.is_mark('.'));
    let lower = token.text.to_ascii_lowercase();
    let starts = |words: &[&str]| words.iter().any(|word| lower.starts_with(word));
    let calls = next(1).is_some_and(|token| token.is_mark('('));
    match language {
        Language::Script => {
            if lower == "expect" && !after_dot {
                return is_expectation(body, at);
            }
            let tap = after_dot && previous(2).is_some_and(|token| matches!(token.text, "t" | "assert")) && calls;
            if tap {
                let method = [
                    "is",
                    "not",
                    "deepEqual",
                    "like",
                    "truthy",
                    "falsy",
                    "true",
                    "false",
                    "throws",
                    "throwsAsync",
                    "regex",
                    "snapshot",
                    "equal",
                    "same",
                    "ok",
                    "match",
                    "rejects",
                ];
                return previous(2).is_some_and(|token| token.text == "assert") || method.contains(&token.text);
            }
            let named = starts(&["assert", "expect", "should", "verify", "check"]) && calls && !after_dot;
            let should = after_dot && lower == "should";
            (named || should) && !has_literal_argument(body, at + 1)
        }
        Language::Python => match token.text {
            "assert" => {
                !is_literal(next(1)) || next(2).is_some_and(|second| second.line == token.line && !second.is_mark(','))
            }
            _ => {
                calls
                    && (starts(&["assert", "expect", "verify", "check", "should"])
                        || matches!(token.text, "raises" | "warns" | "fail" | "deprecated_call"))
                    && !has_literal_argument(body, at + 1)
            }
        },
        Language::Rust => {
            let macros = next(1).is_some_and(|token| token.is_mark('!'));
            let argument = if macros { at + 2 } else { at + 1 };
            (starts(&["assert", "debug_assert", "prop_assert", "verify", "check", "expect_"]) && (macros || calls)
                || (lower == "panic" && macros))
                && !has_literal_argument(body, argument)
        }
        Language::Go => {
            let of_test = after_dot
                && previous(2).is_some_and(|token| matches!(token.text, "t" | "tb" | "b" | "f" | "s" | "c" | "suite"));
            let of_library = after_dot
                && previous(2)
                    .is_some_and(|token| matches!(token.text, "assert" | "require" | "is" | "qt" | "must" | "check"));
            (of_test
                && matches!(
                    token.text,
                    "Error" | "Errorf" | "Fatal" | "Fatalf" | "Fail" | "FailNow" | "Assert" | "Equal" | "Require"
                ))
                || (of_library && calls)
                || (starts(&["assert", "expect", "must", "check", "verify", "require"]) && calls && !after_dot)
        }
    }
}

/// `expect(value).matcher(...)` with a value that is no literal.
fn is_expectation(body: &[Token<'_>], at: usize) -> bool {
    let mut open = at + 1;
    if body.get(open).is_some_and(|token| token.is_mark('.')) {
        if !body.get(open + 1).is_some_and(|token| matches!(token.text, "soft" | "poll" | "element")) {
            return false;
        }
        open += 2;
    }
    if !body.get(open).is_some_and(|token| token.is_mark('(')) || has_literal_argument(body, open) {
        return false;
    }
    body.get(closing(body, open) + 1).is_some_and(|token| token.is_mark('.'))
}

fn is_literal(token: Option<&Token<'_>>) -> bool {
    token.is_some_and(|token| {
        matches!(token.kind, TokenKind::Text | TokenKind::Number)
            || matches!(token.text, "true" | "false" | "True" | "False" | "None" | "null" | "undefined")
    })
}

/// The call at `open` has one literal, or two equal ones, so that it always holds.
fn has_literal_argument(body: &[Token<'_>], open: usize) -> bool {
    if !body.get(open).is_some_and(|token| token.is_mark('(')) {
        return false;
    }
    let inside = body.get(open + 1..closing(body, open)).unwrap_or_default();
    match inside {
        [one] => is_literal(Some(one)),
        [one, comma, other, ..] if comma.is_mark(',') => {
            is_literal(Some(one)) && (other.text == one.text || inside.len() == 3 && is_literal(Some(other)))
        }
        _ => false,
    }
}

pub fn assertions(language: Language, body: &[Token<'_>]) -> usize {
    (0..body.len()).filter(|at| is_assertion(language, body, *at)).count()
}

fn tricks(language: Language, body: &[Token<'_>]) -> Vec<Trick> {
    let mut found = Vec::new();
    let word = |at: usize, text: &str| body.get(at).is_some_and(|token| token.text == text);
    for (at, token) in body.iter().enumerate() {
        let constant = match token.text {
            "if" | "while" => {
                let value = at + 1 + usize::from(word(at + 1, "("));
                let is_false = matches!(
                    body.get(value).map(|token| token.text),
                    Some("false" | "False" | "0" | "null" | "undefined" | "None")
                );
                let ends = body.get(value + 1).is_some_and(|token| matches!(token.text, ")" | ":" | "{" | "&" | "and"));
                let negated =
                    word(value, "!") && word(value + 1, "true") || word(value, "not") && word(value + 1, "True");
                (is_false && ends) || negated
            }
            "false" => word(at + 1, "&") && word(at + 2, "&"),
            "False" => word(at + 1, "and"),
            _ => false,
        };
        if constant {
            found.push(Trick::ConstantCondition);
        }
        if is_swallow(language, body, at) {
            found.push(Trick::SwallowedFailure);
        }
        let after_dot = at > 0 && body.get(at - 1).is_some_and(|token| token.is_mark('.'));
        let calls = word(at + 1, "(");
        let exits = after_dot
            && calls
            && matches!(token.text, "exit" | "_exit" | "Exit" | "abort" | "reallyExit" | "kill")
            && at
                .checked_sub(2)
                .and_then(|at| body.get(at))
                .is_some_and(|token| matches!(token.text, "process" | "os" | "sys" | ":"))
            || language == Language::Rust && calls && token.text == "exit" && at > 1 && word(at - 1, ":");
        if exits {
            found.push(Trick::Exit);
        }
        if token.text == "assertions" && after_dot && calls && word(at + 2, "0") {
            found.push(Trick::NoAssertionsExpected);
        }
    }
    if returns_early(language, body) {
        found.push(Trick::EarlyReturn);
    }
    found.sort();
    found
}

/// A handler of failures with nothing in it.
fn is_swallow(language: Language, body: &[Token<'_>], at: usize) -> bool {
    let text = |at: usize| body.get(at).map_or("", |token| token.text);
    match (language, text(at)) {
        (Language::Script, "catch") if at > 0 && text(at - 1) == "." => {
            // `.catch(() => {})`
            let end = closing(body, at + 1);
            let inside: Vec<&str> = body.get(at + 2..end).unwrap_or_default().iter().map(|token| token.text).collect();
            matches!(inside.as_slice(), ["(", .., "{", "}"] | ["(", ")", "=", ">", "undefined" | "null"])
                && inside.len() <= 8
        }
        (Language::Script, "catch") => {
            let mut open = at + 1;
            if text(open) == "(" {
                open = closing(body, open) + 1;
            }
            text(open) == "{" && text(open + 1) == "}"
        }
        (Language::Python, "except") => {
            let colon = (at..body.len()).find(|at| text(*at) == ":").unwrap_or(body.len());
            let is_wide = body.get(at + 1..colon).unwrap_or_default().iter().all(|token| {
                matches!(
                    token.text,
                    "Exception" | "BaseException" | "AssertionError" | "(" | ")" | "," | "as" | "_" | "e"
                )
            });
            is_wide && matches!(text(colon + 1), "pass" | "return" | ".")
        }
        (Language::Python, "suppress") => matches!(text(at + 2), "Exception" | "BaseException" | "AssertionError"),
        (Language::Go, "recover") => text(at + 1) == "(",
        (Language::Rust, "catch_unwind") => true,
        _ => false,
    }
}

/// A `return` at the outer level of the test, with an assertion after its statement.
fn returns_early(language: Language, body: &[Token<'_>]) -> bool {
    let mut depth = 0_i32;
    let base_column = body.first().map_or(0, |token| token.column);
    for (at, token) in body.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" if token.kind == TokenKind::Mark => depth += 1,
            ")" | "]" | "}" if token.kind == TokenKind::Mark => depth -= 1,
            _ => {}
        }
        let is_first = at == 0
            || body
                .get(at - 1)
                .is_none_or(|previous| previous.line < token.line || matches!(previous.text, ";" | "{" | "}"));
        let is_outer =
            if language == Language::Python { token.column == base_column && is_first } else { depth == 0 && is_first };
        if token.is_word("return") && is_outer {
            let rest = body.get(at + 1..).unwrap_or_default();
            let statement = statement_length(rest, token.line);
            return assertions(language, rest.get(statement..).unwrap_or_default()) > 0;
        }
    }
    false
}

/// The tokens until the statement ends: a semicolon or a new line outside of brackets.
fn statement_length(rest: &[Token<'_>], line: u32) -> usize {
    let (mut depth, mut last) = (0_i32, line);
    for (at, token) in rest.iter().enumerate() {
        let continues = matches!(token.text, "." | "?" | ":" | "&" | "|" | "+" | "=");
        if depth <= 0 && (token.is_mark(';') || (token.line > last && !continues)) {
            return at;
        }
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        last = token.line;
    }
    rest.len()
}
