//! Tests of pytest and unittest.

use super::super::lex::{Language, Token, TokenKind};
use super::body;
use super::collect::Case;

/// A class or function whose body the scan is in.
struct Scope {
    column: u32,
    name: String,
    /// Tests within it run: a class with a test's name, or a subclass.
    collects: bool,
    is_class: bool,
    skipped: Option<String>,
}

pub fn cases(tokens: &[Token<'_>]) -> Vec<Case> {
    let code: Vec<Token<'_>> = tokens.iter().filter(|token| !token.is_comment()).copied().collect();
    let module_skip = module_skip(&code);
    let mut scopes: Vec<Scope> = Vec::new();
    let mut found: Vec<Case> = Vec::new();
    let mut decorators_from = None;
    let mut at = 0;
    while let Some(token) = code.get(at) {
        let starts_line = at == 0 || code.get(at - 1).is_some_and(|previous| previous.line < token.line);
        if !starts_line {
            at += 1;
            continue;
        }
        while scopes.last().is_some_and(|scope| token.column <= scope.column) {
            scopes.pop();
        }
        if token.is_mark('@') {
            decorators_from.get_or_insert(at);
            at = logical_end(&code, at);
            continue;
        }
        let constant = code.get(at + 1).is_some_and(|value| matches!(value.text, "False" | "0" | "TYPE_CHECKING"));
        if token.is_word("if") && constant && code.get(at + 2).is_some_and(|colon| colon.is_mark(':')) {
            let skipped = Some("within a condition that is always false".to_owned());
            scopes.push(Scope { column: token.column, name: String::new(), collects: true, is_class: true, skipped });
        }
        let keyword = at + usize::from(token.is_word("async"));
        let is_function = code.get(keyword).is_some_and(|token| token.is_word("def"));
        let is_class = token.is_word("class");
        if is_function || is_class {
            let decorators = code.get(decorators_from.unwrap_or(at)..at).unwrap_or_default();
            let end = block_end(&code, at, token.column);
            let header = logical_end(&code, at);
            let name = code.get(keyword + 1).map_or("", |token| token.text);
            let block = code.get(header..end).unwrap_or_default();
            if is_class {
                scopes.push(class(token.column, name, code.get(at..header).unwrap_or_default(), decorators, block));
            } else {
                if let Some(case) = function(name, token.line, &scopes, decorators, block, module_skip.as_ref()) {
                    // A later function with the same name replaces the earlier one.
                    found.retain(|other| other.name != case.name);
                    found.push(case);
                }
                scopes.push(Scope {
                    column: token.column,
                    name: name.to_owned(),
                    collects: false,
                    is_class: false,
                    skipped: None,
                });
            }
            decorators_from = None;
            at = header.max(at + 1);
            continue;
        }
        decorators_from = None;
        at += 1;
    }
    found
}

fn class(column: u32, name: &str, header: &[Token<'_>], decorators: &[Token<'_>], block: &[Token<'_>]) -> Scope {
    let inherits = header.iter().any(|token| {
        token.kind == TokenKind::Word
            && (token.text.contains("TestCase")
                || token.text.starts_with("Test")
                || token.text.ends_with("Test")
                || token.text.ends_with("Tests")
                || token.text.ends_with("Case"))
            && token.text != name
    });
    let off = block.windows(3).any(|window| matches!(window, [one, two, three] if one.is_word("__test__") && two.is_mark('=') && three.is_word("False")));
    let mark = block
        .iter()
        .position(|token| token.is_word("pytestmark"))
        .and_then(|at| skip_word(block.get(at..logical_end(block, at)).unwrap_or_default()));
    Scope {
        column,
        name: name.to_owned(),
        collects: (name.starts_with("Test") || inherits) && !block.is_empty(),
        is_class: true,
        skipped: if off { Some("__test__ = False".to_owned()) } else { skip_word(decorators).or(mark) },
    }
}

fn function(
    name: &str,
    line: u32,
    scopes: &[Scope],
    decorators: &[Token<'_>],
    block: &[Token<'_>],
    module_skip: Option<&String>,
) -> Option<Case> {
    if !name.starts_with("test") || scopes.iter().any(|scope| !scope.is_class || !scope.collects) {
        return None;
    }
    // A fixture is no test.
    if decorators.iter().any(|token| token.is_word("fixture")) {
        return None;
    }
    let suites: Vec<&str> =
        scopes.iter().map(|scope| scope.name.as_str()).chain([name]).filter(|name| !name.is_empty()).collect();
    let inherited = scopes.iter().find_map(|scope| scope.skipped.clone());
    let mut case = Case { line, name: suites.join("."), leaf: name.to_owned(), ..Case::default() };
    case.size = decorators.len() + block.len();
    case.inverted =
        decorators.iter().any(|token| matches!(token.text, "xfail" | "expectedFailure")) || calls(block, "xfail");
    case.skipped = skip_word(decorators).or(inherited).or_else(|| module_skip.cloned()).or_else(|| body_skip(block));
    case.parametrised =
        decorators.iter().any(|token| matches!(token.text, "parametrize" | "parameterized" | "given" | "expand"))
            || block.iter().any(|token| matches!(token.text, "for" | "subTest"));
    body::describe(&mut case, Language::Python, block);
    case.refusals.retain(|word| word != "raise");
    Some(case)
}

fn skip_word(decorators: &[Token<'_>]) -> Option<String> {
    let words = ["skip", "skipif", "skipIf", "skipUnless", "skip_if", "slow"];
    decorators
        .iter()
        .find(|token| words.contains(&token.text) && token.text != "slow")
        .map(|token| token.text.to_owned())
}

fn calls(block: &[Token<'_>], word: &str) -> bool {
    block.windows(2).any(|pair| matches!(pair, [name, open] if name.is_word(word) && open.is_mark('(')))
}

fn body_skip(block: &[Token<'_>]) -> Option<String> {
    let skip = ["skip", "skipTest", "importorskip"].iter().find(|word| calls(block, word)).map(ToString::to_string);
    skip.or_else(|| block.iter().any(|token| token.is_word("SkipTest")).then(|| "SkipTest".to_owned()))
}

/// `pytestmark = pytest.mark.skip`, `pytest.skip(..., allow_module_level=True)`, `__test__ = False`.
fn module_skip(code: &[Token<'_>]) -> Option<String> {
    (0..code.len()).filter(|at| code.get(*at).is_some_and(|token| token.column == 0)).find_map(|at| {
        let statement = code.get(at..logical_end(code, at)).unwrap_or_default();
        let word = |offset: usize| statement.get(offset).map_or("", |token| token.text);
        match (word(0), word(1), word(2)) {
            ("pytestmark", ..) => skip_word(statement),
            ("__test__", "=", "False") => Some("__test__ = False".to_owned()),
            ("pytest", ".", "skip" | "importorskip") => Some(format!("pytest.{}", word(2))),
            ("raise", ..) if statement.iter().any(|token| token.is_word("SkipTest")) => Some("SkipTest".to_owned()),
            _ => None,
        }
    })
}

/// The end of a logical line: the next line outside of brackets.
fn logical_end(code: &[Token<'_>], at: usize) -> usize {
    let (mut depth, mut line) = (0_i32, code.get(at).map_or(0, |token| token.line));
    for (index, token) in code.iter().enumerate().skip(at) {
        if depth == 0 && token.line > line {
            return index;
        }
        match token.text {
            "(" | "[" | "{" if token.kind == TokenKind::Mark => depth += 1,
            ")" | "]" | "}" if token.kind == TokenKind::Mark => depth -= 1,
            _ => {}
        }
        line = token.line + u32::try_from(token.text.matches('\n').count()).unwrap_or(0);
    }
    code.len()
}

/// The end of an indented block.
fn block_end(code: &[Token<'_>], at: usize, column: u32) -> usize {
    let mut index = logical_end(code, at);
    while let Some(token) = code.get(index) {
        if token.column <= column {
            return index;
        }
        index = logical_end(code, index).max(index + 1);
    }
    code.len()
}
