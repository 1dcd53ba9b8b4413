//! Tests of vitest, jest, mocha, jasmine, node:test, ava and Playwright.

use super::super::ignores::closing;
use super::super::lex::{Language, Token, TokenKind};
use super::body;
use super::collect::Case;

/// What a suite hands down to its tests.
/// Deeper suites are read as parts of the one at this depth.
const MAX_NESTING: u32 = 64;

#[derive(Clone, Default)]
struct Suite {
    /// How many suites and blocks are around it.
    nesting: u32,
    name: String,
    skipped: Option<String>,
    focused: bool,
    inverted: bool,
    parametrised: bool,
}

pub fn cases(tokens: &[Token<'_>]) -> Vec<Case> {
    let code: Vec<Token<'_>> = tokens.iter().filter(|token| !token.is_comment()).copied().collect();
    let mut found = Vec::new();
    let suite = Suite { skipped: hook_skip(&code, 0), ..Suite::default() };
    scan(&code, 0, &suite, &mut found);
    found
}

/// A call of a function of the framework.
struct Call<'t, 'a> {
    is_suite: bool,
    modifiers: Vec<&'a str>,
    arguments: &'t [Token<'a>],
    end: usize,
}

impl Suite {
    fn nested(self) -> Self {
        Self { nesting: self.nesting + 1, ..self }
    }
}

/// Finds the tests among tokens. `level` is the depth of braces at which a `return` leaves the suite.
fn scan(code: &[Token<'_>], level: i32, suite: &Suite, found: &mut Vec<Case>) {
    let mut suite = suite.clone();
    let (mut at, mut depth) = (0, 0_i32);
    while let Some(token) = code.get(at) {
        match token.text {
            "{" if token.kind == TokenKind::Mark => depth += 1,
            "}" if token.kind == TokenKind::Mark => depth -= 1,
            "return" if depth == level => {
                suite.skipped.get_or_insert_with(|| "the suite returns before it".to_owned());
            }
            _ => {}
        }
        let may_descend = suite.nesting < MAX_NESTING;
        if let Some(end) = never(code, at).filter(|_| may_descend) {
            let skipped =
                Suite { skipped: Some("within a condition that is always false".to_owned()), ..suite.clone() }.nested();
            scan(code.get(at + 1..end).unwrap_or_default(), -1, &skipped, found);
            at = end;
            continue;
        }
        let Some(call) = call_at(code, at) else {
            at += 1;
            continue;
        };
        if call.is_suite && !may_descend {
            // What is in it counts as a part of this suite.
            at += 1;
            continue;
        }
        let inner = inner(code, at, &suite, &call);
        if call.is_suite {
            scan(call.arguments, 1, &inner.nested(), found);
        } else if let Some(first) = call.arguments.first() {
            let leaf = leaf(call.arguments);
            let mut case = Case {
                line: first.line,
                name: if inner.name.is_empty() { leaf.clone() } else { format!("{} > {leaf}", inner.name) },
                leaf,
                skipped: inner.skipped.or_else(|| inner_skip(call.arguments)),
                focused: inner.focused,
                inverted: inner.inverted,
                parametrised: inner.parametrised || call.arguments.windows(2).any(|pair| matches!(pair, [word, open] if (word.is_word("for") && open.is_mark('(')) || word.is_word("forEach"))),
                ..Case::default()
            };
            case.line = code.get(at).map_or(first.line, |token| token.line);
            case.size = call.end - at;
            body::describe(&mut case, Language::Script, callback(call.arguments));
            found.push(case);
        }
        at = call.end;
    }
}

/// The end of the block after `if (false)`.
fn never(code: &[Token<'_>], at: usize) -> Option<usize> {
    match code.get(at..at + 5)? {
        [word, open, value, close, brace]
            if word.is_word("if") && open.is_mark('(') && matches!(value.text, "false" | "0") && close.is_mark(')') =>
        {
            // Without braces: up to the end of the call.
            let from = if brace.is_mark('{') {
                at + 4
            } else {
                (at + 4..code.len()).find(|at| code.get(*at).is_some_and(|token| token.is_mark('(')))?
            };
            Some(closing(code, from) + 1)
        }
        _ => None,
    }
}

/// The suite that holds what is within a call.
fn inner(code: &[Token<'_>], at: usize, suite: &Suite, call: &Call<'_, '_>) -> Suite {
    let head = code.get(at).map_or("", |token| token.text);
    let has = |words: &[&str]| call.modifiers.iter().any(|word| words.contains(word));
    let option = |names: &[&str]| option(call.arguments, names);
    let mut inner = suite.clone();
    if call.is_suite && !call.arguments.is_empty() {
        let leaf = leaf(call.arguments);
        inner.name = if suite.name.is_empty() { leaf } else { format!("{} > {leaf}", suite.name) };
        inner.skipped = inner.skipped.or_else(|| hook_skip(call.arguments, 1));
    }
    let by_name = head.starts_with('x');
    if by_name || has(&["skip", "skipIf", "runIf", "todo", "fixme", "ignore"]) || option(&["skip", "todo", "ignore"]) {
        inner.skipped =
            inner.skipped.or_else(|| Some(if by_name { head.to_owned() } else { call.modifiers.join(".") }));
    }
    inner.focused |= head.starts_with('f') || has(&["only"]) || option(&["only"]);
    inner.inverted |= has(&["fails", "failing", "fail"]) || option(&["fails"]);
    inner.parametrised |= has(&["each", "for"]);
    inner
}

fn call_at<'t, 'a>(code: &'t [Token<'a>], at: usize) -> Option<Call<'t, 'a>> {
    const SUITES: [&str; 5] = ["describe", "suite", "context", "xdescribe", "fdescribe"];
    const TESTS: [&str; 9] = ["it", "test", "specify", "xit", "xtest", "xspecify", "fit", "ftest", "property"];
    let head = code.get(at).filter(|token| token.kind == TokenKind::Word)?;
    let is_suite = SUITES.contains(&head.text);
    if !is_suite && !TESTS.contains(&head.text) {
        return None;
    }
    let before = |offset: usize| at.checked_sub(offset).and_then(|at| code.get(at));
    if before(1).is_some_and(|token| token.is_mark('.'))
        && !before(2).is_some_and(|token| matches!(token.text, "Deno" | "QUnit" | "t"))
    {
        return None;
    }
    if before(1).is_some_and(|token| matches!(token.text, "function" | "const" | "let" | "var" | "import")) {
        return None;
    }
    let mut modifiers = Vec::new();
    let mut next = at + 1;
    loop {
        let token = code.get(next)?;
        if token.is_mark('.') {
            modifiers.push(code.get(next + 1)?.text);
            next += 2;
        } else if token.is_mark('[') {
            // `it["skip"]`
            modifiers.push(code.get(next + 1)?.text.trim_matches(['"', '\'', '`']));
            next = closing(code, next) + 1;
        } else if token.kind == TokenKind::Text && token.text.starts_with('`') {
            // The table of `each`, with its expressions.
            while code.get(next).is_some_and(|token| {
                !token.text.ends_with('`') || token.kind != TokenKind::Text || token.text.len() == 1
            }) {
                next += 1;
            }
            next += 1;
        } else if token.is_mark('(') {
            let end = closing(code, next);
            let configures =
                modifiers.last().is_some_and(|word| matches!(*word, "each" | "for" | "skipIf" | "runIf" | "extend"));
            let continues = code.get(end + 1).is_some_and(|token| {
                token.is_mark('(')
                    || token.is_mark('.')
                    || (token.kind == TokenKind::Text && token.text.starts_with('`'))
            });
            if configures && continues {
                next = end + 1;
                continue;
            }
            let arguments = code.get(next + 1..end)?;
            let is_suite = is_suite || modifiers.contains(&"describe");
            // `test.skip(condition)` within a test of Playwright is a call of its own.
            let names_something =
                arguments.first().is_some_and(|token| token.kind == TokenKind::Text || token.kind == TokenKind::Word);
            return names_something.then_some(Call { is_suite, modifiers, arguments, end: end + 1 });
        } else {
            return None;
        }
    }
}

/// The first argument.
fn leaf(arguments: &[Token<'_>]) -> String {
    let end = top_comma(arguments).unwrap_or(arguments.len());
    match arguments.get(..end) {
        Some([name]) => name.unquoted().to_owned(),
        Some(words) => words.iter().map(|token| token.text).collect(),
        None => String::new(),
    }
}

fn top_comma(tokens: &[Token<'_>]) -> Option<usize> {
    let mut depth = 0_i32;
    tokens.iter().position(|token| {
        match token.text {
            "(" | "[" | "{" if token.kind == TokenKind::Mark => depth += 1,
            ")" | "]" | "}" if token.kind == TokenKind::Mark => depth -= 1,
            _ => {}
        }
        depth == 0 && token.is_mark(',')
    })
}

/// What is within the braces of the last function among the arguments.
fn callback<'t, 'a>(arguments: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let after_name = top_comma(arguments).map_or(arguments.len(), |at| at + 1);
    let rest = arguments.get(after_name..).unwrap_or_default();
    let arrow = rest.windows(2).position(|pair| matches!(pair, [one, two] if one.is_mark('=') && two.is_mark('>')));
    let function = rest.iter().position(|token| token.is_word("function"));
    let start = match (arrow, function) {
        (Some(arrow), Some(function)) if function < arrow => function,
        (Some(arrow), _) => arrow + 2,
        (None, Some(function)) => function,
        (None, None) => 0,
    };
    let from_function = rest.get(start..).unwrap_or_default();
    let open = if arrow.is_some_and(|arrow| start == arrow + 2) {
        from_function.first().filter(|token| token.is_mark('{')).map(|_| 0)
    } else {
        // After the parameters.
        let parameters =
            from_function.iter().position(|token| token.is_mark('(')).map_or(0, |at| closing(from_function, at));
        from_function.iter().skip(parameters).position(|token| token.is_mark('{')).map(|at| at + parameters)
    };
    match open {
        Some(open) => from_function.get(open + 1..closing(from_function, open)).unwrap_or_default(),
        None => from_function,
    }
}

/// `{ skip: true }` among the arguments.
fn option(arguments: &[Token<'_>], names: &[&str]) -> bool {
    let Some(comma) = top_comma(arguments) else { return false };
    let rest = arguments.get(comma + 1..).unwrap_or_default();
    let Some(open) = rest
        .iter()
        .position(|token| !token.is_mark(','))
        .filter(|at| rest.get(*at).is_some_and(|token| token.is_mark('{')))
    else {
        // The options may come last.
        let Some(comma) = top_comma(rest) else { return false };
        let last = rest.get(comma + 1..).unwrap_or_default();
        return last.first().is_some_and(|token| token.is_mark('{')) && keys(last, names);
    };
    keys(rest.get(open..).unwrap_or_default(), names)
}

fn keys(object: &[Token<'_>], names: &[&str]) -> bool {
    let inside = object.get(1..closing(object, 0)).unwrap_or_default();
    let mut depth = 0_i32;
    inside.iter().enumerate().any(|(at, token)| {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        let value = inside.get(at + 2).map(|token| token.text);
        let is_key = inside.get(at + 1).is_some_and(|token| token.is_mark(':'));
        depth == 0 && names.contains(&token.unquoted()) && (!is_key || value != Some("false"))
    })
}

/// `this.skip()`, `t.skip()`, `ctx.skip()`, `test.skip()` within a test.
fn inner_skip(body: &[Token<'_>]) -> Option<String> {
    body.windows(4).find_map(|window| match window {
        [object, dot, word, open]
            if dot.is_mark('.')
                && open.is_mark('(')
                && matches!(word.text, "skip" | "todo" | "fixme" | "skipTest")
                && matches!(object.text, "this" | "t" | "ctx" | "context" | "test" | "it" | "task" | "testInfo") =>
        {
            Some(format!("{}.{}", object.text, word.text))
        }
        [_, pending, open, _] if pending.is_word("pending") && open.is_mark('(') => Some("pending".to_owned()),
        _ => None,
    })
}

/// A skip in a hook skips every test beside it.
fn hook_skip(code: &[Token<'_>], level: i32) -> Option<String> {
    let mut depth = 0_i32;
    for (at, token) in code.iter().enumerate() {
        match token.text {
            "(" | "{" if token.kind == TokenKind::Mark => depth += 1,
            ")" | "}" if token.kind == TokenKind::Mark => depth -= 1,
            _ => {}
        }
        let is_hook = matches!(token.text, "before" | "beforeEach" | "beforeAll" | "setup" | "suiteSetup");
        if is_hook && depth == level && code.get(at + 1).is_some_and(|token| token.is_mark('(')) {
            let inside = code.get(at + 1..closing(code, at + 1)).unwrap_or_default();
            if let Some(skip) = inner_skip(inside) {
                return Some(format!("{} calls {skip}", token.text));
            }
        }
    }
    None
}
