//! The changes that a mutant can make to a token, or to what starts at it.

use super::lexer::{Kind as TokenKind, Lexed, Token};
use super::skip::skipped;
use super::{Language, MutantKind};

/// A change: bytes `start..end` become `replacement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub start: usize,
    pub end: usize,
    pub line: u32,
    pub end_line: u32,
    pub replacement: String,
    pub kind: MutantKind,
}

pub struct Source<'a> {
    pub text: &'a str,
    pub language: Language,
    pub tokens: &'a [Token],
}

impl<'a> Source<'a> {
    pub fn text_of(&self, token: &Token) -> &'a str {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    pub fn at(&self, index: usize) -> &'a str {
        self.tokens.get(index).map(|token| self.text_of(token)).unwrap_or_default()
    }

    /// The index of the bracket that closes the one at `open`.
    pub fn closing(&self, open: usize) -> Option<usize> {
        let depth = self.tokens.get(open)?.depth;
        let rest = self.tokens.iter().enumerate().skip(open + 1);
        rest.take_while(|(_, token)| token.depth >= depth)
            .find(|(_, token)| token.depth == depth)
            .map(|(index, _)| index)
    }

    /// An operand ends here, so that a sign after it has two operands.
    fn is_value(&self, index: usize) -> bool {
        let Some(token) = self.tokens.get(index) else { return false };
        match token.kind {
            TokenKind::Word => !NO_VALUES.contains(&self.text_of(token)),
            TokenKind::Number | TokenKind::Text => true,
            TokenKind::Sign => matches!(self.text_of(token), ")" | "]" | "}"),
        }
    }

    fn is_text(&self, index: usize) -> bool {
        self.tokens.get(index).is_some_and(|token| token.kind == TokenKind::Text)
    }

    fn is_spaced(&self, index: usize) -> bool {
        let after = self.tokens.get(index + 1).is_some_and(|next| next.is_spaced);
        after && self.tokens.get(index).is_some_and(|token| token.is_spaced)
    }
}

const NO_VALUES: &[&str] = &[
    "return",
    "typeof",
    "case",
    "in",
    "of",
    "delete",
    "void",
    "throw",
    "new",
    "else",
    "await",
    "yield",
    "instanceof",
    "default",
    "and",
    "or",
    "not",
    "is",
    "if",
    "elif",
    "while",
    "match",
    "lambda",
    "assert",
    "let",
    "const",
    "mut",
    "as",
];

/// Every change to the lines, in the order of the source.
pub fn changes(text: &str, language: Language, lexed: &Lexed, wants: impl Fn(u32) -> bool) -> Vec<Change> {
    let source = Source { text, language, tokens: &lexed.tokens };
    let skipped = skipped(&source);
    let mut found = Vec::new();
    for (index, token) in lexed.tokens.iter().enumerate() {
        if !wants(token.line) || skipped.get(index).copied().unwrap_or(true) {
            continue;
        }
        let mut add = |start: usize, last: usize, replacement: String, kind: MutantKind| {
            let Some(last) = lexed.tokens.get(last) else { return };
            let is_same = text.get(start..last.end) == Some(replacement.as_str());
            if !is_same {
                found.push(Change { start, end: last.end, line: token.line, end_line: last.line, replacement, kind });
            }
        };
        for (replacement, kind) in token_changes(&source, index) {
            add(token.start, index, replacement, kind);
        }
        if token.kind == TokenKind::Word {
            if let Some((from, last, replacement)) = condition(&source, index) {
                add(from, last, replacement, MutantKind::Condition);
            }
            if let Some((from, last, replacement)) = returned(&source, index) {
                add(from, last, replacement, MutantKind::Return);
            }
            if let Some((last, replacement)) = call_statement(&source, index) {
                add(token.start, last, replacement.to_owned(), MutantKind::RemovedCall);
            }
        }
    }
    found
}

fn token_changes(source: &Source<'_>, index: usize) -> Vec<(String, MutantKind)> {
    let Some(token) = source.tokens.get(index) else { return Vec::new() };
    let text = source.text_of(token);
    match token.kind {
        TokenKind::Sign => sign_changes(source, index, text),
        TokenKind::Number => number_change(source, index, text).into_iter().collect(),
        TokenKind::Word => word_change(source, index, text).into_iter().collect(),
        TokenKind::Text => Vec::new(),
    }
}

fn sign_changes(source: &Source<'_>, index: usize, text: &str) -> Vec<(String, MutantKind)> {
    use MutantKind::{Arithmetic, Boundary, Comparison, Logical, Negation, OptionalChain};
    let has_left = index > 0 && source.is_value(index - 1);
    let next = source.at(index + 1);
    let touches_text = source.is_text(index + 1) || (index > 0 && source.is_text(index - 1));
    // Without spaces, `<` and `>` belong to a generic type, and `-` and `*` to one operand.
    let is_binary = has_left && source.is_spaced(index);
    let one = |replacement: &str, kind| vec![(replacement.to_owned(), kind)];
    match text {
        "===" => one("!==", Comparison),
        "!==" => one("===", Comparison),
        "==" => one("!=", Comparison),
        "!=" => one("==", Comparison),
        "<" if is_binary => vec![("<=".into(), Boundary), (">=".into(), Comparison)],
        "<=" if has_left => vec![("<".into(), Boundary), (">".into(), Comparison)],
        ">" if is_binary => vec![(">=".into(), Boundary), ("<=".into(), Comparison)],
        ">=" if has_left => vec![(">".into(), Boundary), ("<".into(), Comparison)],
        "&&" if has_left => one("||", Logical),
        "||" if has_left => one("&&", Logical),
        "+" if has_left && !touches_text => one("-", Arithmetic),
        "-" if has_left => one("+", Arithmetic),
        "*" if is_binary => one("/", Arithmetic),
        "%" if is_binary && !touches_text => one("*", Arithmetic),
        "/" | "//" | "**" if is_binary => one("*", Arithmetic),
        "+=" if !touches_text => one("-=", Arithmetic),
        "-=" => one("+=", Arithmetic),
        "*=" => one("/=", Arithmetic),
        "++" => one("--", Arithmetic),
        "--" => one("++", Arithmetic),
        "?." => one(if matches!(next, "(" | "[") { "" } else { "." }, OptionalChain),
        // Not the `!` of TypeScript after a value, and not that of a macro.
        "!" if !has_left && source.language != Language::Python => one("", Negation),
        _ => Vec::new(),
    }
}

fn number_change(source: &Source<'_>, index: usize, text: &str) -> Option<(String, MutantKind)> {
    let before = index.checked_sub(1).map(|before| source.at(before)).unwrap_or_default();
    let after = source.at(index + 1);
    // `1 | 2` is a type or a mask, `0: x` is a key, `[u8; 4]` is a type.
    let is_key = after == ":" && matches!(before, "{" | ",") && source.language != Language::Python;
    let is_generic = before == "<" && !source.is_spaced(index - 1);
    if is_generic || before == "|" || after == "|" || is_key || (before == ";" && after == "]") || before == "." {
        return None;
    }
    let changed = match text.parse::<u64>() {
        Ok(1) => "0".to_owned(),
        Ok(number) if text.len() < 16 => (number + 1).to_string(),
        _ => {
            let (whole, fraction) = text.split_once('.')?;
            let is_plain = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
            let whole: u64 = whole.parse().ok().filter(|whole| *whole < 1_000_000_000)?;
            is_plain.then(|| format!("{}.{fraction}", whole + 1))?
        }
    };
    Some((changed, MutantKind::Constant))
}

fn word_change(source: &Source<'_>, index: usize, text: &str) -> Option<(String, MutantKind)> {
    let before = index.checked_sub(1).map(|before| source.at(before)).unwrap_or_default();
    let after = source.at(index + 1);
    let is_property = matches!(before, "." | "?.") || (after == ":" && matches!(before, "{" | ","));
    if is_property && source.language != Language::Python {
        return None;
    }
    let is_type = source.language != Language::Python
        && (before == "|"
            || (before == "<" && !source.is_spaced(index - 1))
            || after == "|"
            || (before == ":" && index >= 2 && matches!(source.at(index - 2), ")" | "?")));
    let (replacement, kind) = match (text, source.language) {
        ("true", Language::Python)
        | ("True", Language::JavaScript | Language::TypeScript | Language::Tsx | Language::Rust) => {
            return None;
        }
        ("true", _) if !is_type => ("false", MutantKind::Constant),
        ("false", language) if language != Language::Python && !is_type => ("true", MutantKind::Constant),
        ("True", _) => ("False", MutantKind::Constant),
        ("False", Language::Python) => ("True", MutantKind::Constant),
        ("and", Language::Python) => ("or", MutantKind::Logical),
        ("or", Language::Python) => ("and", MutantKind::Logical),
        ("not", Language::Python) if after != "in" && before != "is" => ("", MutantKind::Negation),
        ("is", Language::Python) if after != "not" => ("is not", MutantKind::Comparison),
        ("in", Language::Python) if before != "not" && source.is_condition_of_python(index) => {
            ("not in", MutantKind::Comparison)
        }
        _ => return None,
    };
    Some((replacement.to_owned(), kind))
}

impl Source<'_> {
    /// `in` compares, if no `for` of its bracket comes before it.
    fn is_condition_of_python(&self, index: usize) -> bool {
        let Some(token) = self.tokens.get(index) else { return false };
        let before = self.tokens.iter().take(index).rev();
        let mut statement = before.take_while(|other| other.line == token.line && other.depth >= token.depth);
        !statement.any(|other| self.text_of(other) == "for")
    }
}

/// `if (x)` becomes `if (!(x))`. Returns start, last token and replacement.
fn condition(source: &Source<'_>, index: usize) -> Option<(usize, usize, String)> {
    let word = source.at(index);
    if !matches!(word, "if" | "elif") {
        return None;
    }
    let first = index + 1;
    match source.language {
        Language::Python => {
            let depth = source.tokens.get(index)?.depth;
            let line = source.tokens.get(index)?;
            // The `if` of an expression has no colon.
            if !line.is_first {
                return None;
            }
            // The `if` of a comprehension may be the first of its line. It has no colon before its bracket ends.
            let colon = (first..source.tokens.len().min(first + 200))
                .take_while(|at| source.tokens.get(*at).is_some_and(|token| token.depth >= depth))
                .find(|at| source.at(*at) == ":" && source.tokens.get(*at).is_some_and(|token| token.depth == depth))?;
            let inner = inside(source, first, colon)?;
            Some((source.tokens.get(first)?.start, colon - 1, format!("not ({inner})")))
        }
        Language::Rust => None,
        _ => {
            let close = (source.at(first) == "(").then(|| source.closing(first))??;
            let inner = inside(source, first + 1, close)?;
            Some((source.tokens.get(first)?.start, close, format!("(!({inner}))")))
        }
    }
}

/// The text of the tokens `from..to`.
fn inside<'a>(source: &Source<'a>, from: usize, to: usize) -> Option<&'a str> {
    let (first, last) = (source.tokens.get(from)?, source.tokens.get(to.checked_sub(1)?)?);
    source.text.get(first.start..last.end).filter(|text| !text.is_empty() && !text.contains("//") && text.len() < 2_000)
}

/// `return x` becomes `return` with an empty value of the same kind.
fn returned(source: &Source<'_>, index: usize) -> Option<(usize, usize, String)> {
    if source.at(index) != "return" || source.language == Language::Rust {
        return None;
    }
    let keyword = source.tokens.get(index)?;
    let first =
        source.tokens.get(index + 1).filter(|first| first.line == keyword.line && first.depth >= keyword.depth)?;
    let mut last = index + 1;
    let mut text = source.text_of(first);
    if matches!(text, ";" | "}") || (first.kind == TokenKind::Text && (text == "<" || text.ends_with("${"))) {
        return None;
    }
    for at in index + 2..source.tokens.len().min(index + 400) {
        let token = source.tokens.get(at)?;
        let is_end = token.depth < keyword.depth
            || (token.depth == keyword.depth
                && matches!(source.text_of(token), ";" | "}")
                && !is_closing_of(source, index, at))
            || (token.depth == keyword.depth && token.is_first && starts_statement(source, at));
        if is_end {
            break;
        }
        last = at;
    }
    let is_single = last == index + 1;
    let python = source.language == Language::Python;
    let nothing = if python { "None" } else { "undefined" };
    let replacement = match (first.kind, text) {
        (TokenKind::Number, _) if is_single => return None,
        (TokenKind::Text, _) if is_single && !text.starts_with('`') => "\"\"",
        (TokenKind::Word, "undefined" | "None" | "null" | "true" | "false" | "True" | "False") if is_single => {
            return None;
        }
        (TokenKind::Sign, "[") if source.closing(index + 1) == Some(last) => "[]",
        (TokenKind::Sign, "{") if source.closing(index + 1) == Some(last) => "{}",
        _ => nothing,
    };
    text = source.text.get(first.start..source.tokens.get(last)?.end)?;
    (text != replacement && !text.replace(' ', "").eq(replacement)).then(|| (first.start, last, replacement.to_owned()))
}

/// A `}` at the depth of the `return` that closes a bracket of the returned value.
fn is_closing_of(source: &Source<'_>, index: usize, at: usize) -> bool {
    source.at(at) == "}" && (index + 1..at).rev().any(|open| source.at(open) == "{" && source.closing(open) == Some(at))
}

/// A line that does not go on with the expression of the line before.
fn starts_statement(source: &Source<'_>, at: usize) -> bool {
    let Some(token) = source.tokens.get(at) else { return true };
    let goes_on = |index: usize| {
        let text = source.at(index);
        source.tokens.get(index).is_some_and(|token| token.kind == TokenKind::Sign)
            && !matches!(text, "}" | "{" | "]" | ")" | "!" | "@" | ";")
    };
    let closes = token.kind == TokenKind::Sign && matches!(source.text_of(token), "}" | ")" | "]");
    if source.language == Language::Python {
        return !closes;
    }
    !(closes || goes_on(at) || at.checked_sub(1).is_some_and(goes_on))
}

const LOGGERS: &[&str] = &["console", "logger", "log", "logging", "debug", "print", "warnings", "super"];

/// A statement that is only a call is removed. Returns its last token and the replacement.
fn call_statement(source: &Source<'_>, index: usize) -> Option<(usize, &'static str)> {
    let token = source.tokens.get(index)?;
    let python = source.language == Language::Python;
    if source.language == Language::Rust || !token.is_first || (python && token.depth > 0) {
        return None;
    }
    let is_after_statement = index == 0 || matches!(source.at(index - 1), ";" | "{" | "}") || python;
    let mut at = if source.at(index) == "await" { index + 1 } else { index };
    // Whether a log line is written is seldom worth a test.
    if !is_after_statement || LOGGERS.contains(&source.at(at)) {
        return None;
    }
    while source.tokens.get(at)?.kind == TokenKind::Word && matches!(source.at(at + 1), "." | "?.") {
        at += 2;
    }
    let is_call = source.tokens.get(at)?.kind == TokenKind::Word && source.at(at + 1) == "(";
    if !is_call || NO_CALLS.contains(&source.at(at)) {
        return None;
    }
    let close = source.closing(at + 1)?;
    if python {
        let ends = source.tokens.get(close + 1).is_none_or(|next| next.is_first && next.line > token.line);
        return ends.then_some((close, "pass"));
    }
    (source.at(close + 1) == ";").then_some((close, ""))
}

const NO_CALLS: &[&str] = &[
    "if",
    "for",
    "while",
    "switch",
    "catch",
    "function",
    "with",
    "return",
    "elif",
    "import",
    "require",
    "super",
    "constructor",
];
