//! Tests of Go: functions `TestX` and their named subtests.

use super::super::ignores::closing;
use super::super::lex::{Language, Token, TokenKind};
use super::body;
use super::collect::Case;

pub fn cases(tokens: &[Token<'_>]) -> Vec<Case> {
    let code: Vec<Token<'_>> = tokens.iter().filter(|token| !token.is_comment()).copied().collect();
    let build = constraint(tokens).or_else(|| main_skip(&code));
    let mut found = Vec::new();
    for at in 0..code.len() {
        let is_function = code.get(at).is_some_and(|token| token.is_word("func") && token.column == 0);
        if !is_function {
            continue;
        }
        // A method of a suite has its receiver first.
        let name_at =
            if code.get(at + 1).is_some_and(|token| token.is_mark('(')) { closing(&code, at + 1) + 1 } else { at + 1 };
        let Some(name) = code.get(name_at) else { continue };
        if name.is_word("TestMain") || !is_test_name(name.text) {
            continue;
        }
        let parameters = closing(&code, name_at + 1);
        let Some(open) = (parameters..code.len()).find(|at| code.get(*at).is_some_and(|token| token.is_mark('{')))
        else {
            continue;
        };
        let block = code.get(open + 1..closing(&code, open)).unwrap_or_default();
        found.push(case(name.text, name.text, name.line, block, build.as_ref()));
        subtests(name.text, block, build.as_ref(), &mut found);
    }
    found
}

/// `TestX` runs, `Testx` does not.
fn is_test_name(name: &str) -> bool {
    ["Test", "Fuzz", "Example"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_lowercase()))
    })
}

fn case(name: &str, leaf: &str, line: u32, block: &[Token<'_>], build: Option<&String>) -> Case {
    let mut case = Case { line, name: name.to_owned(), leaf: leaf.to_owned(), ..Case::default() };
    case.skipped = build.cloned().or_else(|| skip(block));
    case.parametrised = block.iter().any(|token| token.is_word("range"));
    case.size = block.len();
    body::describe(&mut case, Language::Go, block);
    case
}

/// `t.Skip()` in the test itself, not in a subtest.
fn skip(block: &[Token<'_>]) -> Option<String> {
    let mut depth = 0_i32;
    let mut inner_from: Option<i32> = None;
    for (at, token) in block.iter().enumerate() {
        match token.text {
            "{" if token.kind == TokenKind::Mark => depth += 1,
            "}" if token.kind == TokenKind::Mark => {
                depth -= 1;
                if inner_from.is_some_and(|level| depth <= level) {
                    inner_from = None;
                }
            }
            "Run" if inner_from.is_none() && block.get(at + 1).is_some_and(|token| token.is_mark('(')) => {
                inner_from = Some(depth);
            }
            "Skip" | "Skipf" | "SkipNow"
                if inner_from.is_none() && at > 0 && block.get(at - 1).is_some_and(|token| token.is_mark('.')) =>
            {
                return Some(format!("t.{}", token.text));
            }
            _ => {}
        }
    }
    None
}

fn subtests(parent: &str, block: &[Token<'_>], build: Option<&String>, found: &mut Vec<Case>) {
    for at in 0..block.len() {
        let matched = match block.get(at..at + 3) {
            Some([run, open, name]) if run.is_word("Run") && open.is_mark('(') && name.kind == TokenKind::Text => {
                Some(name)
            }
            _ => None,
        };
        let Some(name) = matched else { continue };
        let arguments = block.get(at + 2..closing(block, at + 1)).unwrap_or_default();
        let open = arguments.iter().position(|token| token.is_mark('{')).unwrap_or(arguments.len());
        let inner = arguments.get(open + 1..closing(arguments, open)).unwrap_or_default();
        let leaf = name.unquoted();
        found.push(case(&format!("{parent}/{leaf}"), leaf, name.line, inner, build));
    }
}

/// A build constraint, which hides the file.
fn constraint(tokens: &[Token<'_>]) -> Option<String> {
    let comments = tokens.iter().take_while(|token| token.is_comment());
    comments
        .map(|token| token.text.trim_start_matches('/').trim())
        .find(|text| text.starts_with("go:build ") || text.starts_with("+build "))
        .map(|text| format!("//{text}"))
}

/// A `TestMain` that runs no test.
fn main_skip(code: &[Token<'_>]) -> Option<String> {
    let at = code.iter().position(|token| token.is_word("TestMain"))?;
    let open = (at..code.len()).find(|at| code.get(*at).is_some_and(|token| token.is_mark('{')))?;
    let block = code.get(open..closing(code, open)).unwrap_or_default();
    (!block.iter().any(|token| token.is_word("Run"))).then(|| "TestMain runs no test".to_owned())
}
