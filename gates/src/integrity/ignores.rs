//! Comments and attributes that turn a check off for some lines.

use super::change::{Change, Changes};
use super::directives::Where::{Anywhere, BlockStart, Start};
use super::directives::{ANY, Directive, GO, PYTHON, SCRIPT};
use super::finding::{Weakening, WeakeningKind};
use super::lex::{self, Language, Token, TokenKind};
use crate::definition::Definition;

/// How many tokens around a directive are looked at.
const MAX_WORDS: usize = 1_000;

/// How many tokens of an attribute that nothing closes are looked at.
const MAX_UNCLOSED: usize = 50;

/// One directive in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// The directive with its rules, in one spelling.
    text: String,
    name: &'static str,
    line: u32,
    /// The words of the code that it stands beside or above.
    code: Vec<String>,
}

/// Directives on changed lines that the base did not have at the same code.
pub fn find(changes: &Changes, definition: &Definition) -> Vec<Weakening> {
    let mut removed: Vec<Found> = Vec::new();
    let mut added: Vec<(&Change, Found)> = Vec::new();
    for change in changes.files.iter().filter(|change| !definition.ignore.matches(&change.path)) {
        let read = |text: Option<&str>| text.map_or_else(Vec::new, |text| in_text(&change.path, text));
        let head = read(change.head.text());
        let mut base = read(change.base.text());
        let lines = change.added_lines();
        for found in head {
            if !lines.contains(&found.line) {
                // An unchanged line. Its partner in the base is not free for another one.
                if let Some(at) = base.iter().position(|old| old.text == found.text) {
                    base.remove(at);
                }
            } else if !(found.name == "@ts-expect-error" && definition.tests.matches(&change.path)) {
                // In a test, this comment demands an error, which is an assertion about types.
                added.push((change, found));
            }
        }
        removed.extend(base);
    }
    let mut findings = Vec::new();
    for (change, found) in added {
        // The same directive at the same code: moved, or its line was edited.
        if let Some(at) = removed.iter().position(|old| old.text == found.text && is_similar(&old.code, &found.code)) {
            removed.remove(at);
            continue;
        }
        let message = format!("The change adds `{}`, which turns a check off.", shown(&found.text));
        findings.push(Weakening::new(WeakeningKind::IgnoreCommentAdded, &change.path, Some(found.line), message));
    }
    findings
}

fn shown(text: &str) -> String {
    const MAX_LETTERS: usize = 100;
    let cut: String = text.chars().take(MAX_LETTERS).collect();
    if cut.len() < text.len() { format!("{cut}...") } else { cut }
}

fn is_similar(one: &[String], other: &[String]) -> bool {
    let mut rest: Vec<&String> = other.iter().collect();
    let common = one
        .iter()
        .filter(|word| rest.iter().position(|other| other == word).map(|at| rest.swap_remove(at)).is_some())
        .count();
    // At least 0.6 of both.
    let total = one.len() + other.len();
    total == 0 || 2 * common * 10 >= total * 6
}

fn in_text(path: &str, text: &str) -> Vec<Found> {
    let Some(language) = lex::language(path) else { return in_other_text(path, text) };
    let table: &[Directive] = match language {
        Language::Script => &SCRIPT,
        Language::Python => &PYTHON,
        Language::Go => &GO,
        Language::Rust => &[],
    };
    let tokens = lex::tokens(language, text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.is_comment()) {
        for (line, name, text) in in_comment(token, language, table) {
            found.push(Found { text, name, line, code: neighbour(&tokens, at) });
        }
    }
    match language {
        Language::Rust => found.extend(attributes(&tokens)),
        Language::Python => found.extend(decorators(&tokens)),
        _ => {}
    }
    found
}

/// The directives of one comment, with their lines.
fn in_comment(token: &Token<'_>, language: Language, table: &[Directive]) -> Vec<(u32, &'static str, String)> {
    let is_block = token.kind == TokenKind::BlockComment;
    let last = token.line + u32::try_from(token.text.lines().count()).unwrap_or(1).saturating_sub(1);
    let mut found: Vec<(u32, &'static str, String)> = Vec::new();
    for (line, text) in (token.line..).zip(token.text.lines()) {
        let is_first = line == token.line;
        // A line within a block comment counts only if it is the last one of the block, as for TypeScript, or if it looks
        // like a comment of its own: then the block may have been none, as in the text of JSX.
        let is_last = is_block && line == last;
        let own = ["//", "/*", "{/*"].iter().any(|mark| text.trim_start().starts_with(mark));
        // White space within a directive may be a line break.
        let mut pieces: Vec<&str> = vec![if is_first { token.text } else { text }];
        if language == Language::Python {
            // `# why  # noqa`
            pieces = text.split('#').skip(1).collect();
        }
        for piece in pieces {
            let start = without_marks(piece);
            for (pattern, place) in table.iter().chain(&ANY) {
                let at_start = (is_first || own || (is_last && pattern.starts_with("@ts")))
                    && rest_after(pattern, start).is_some();
                let holds = match place {
                    Start => at_start,
                    BlockStart => at_start && (is_block && (is_first || own)),
                    Anywhere => contains(pattern, piece),
                };
                let allowed = (*pattern == "pyright: report" && !turns_off(start)) || ends_range(pattern, start);
                if holds
                    && !allowed
                    && !found.iter().rev().take_while(|one| one.0 == line).any(|one| longer(one.1, pattern))
                {
                    found.push((line, *pattern, spelled(start)));
                }
            }
            if language == Language::Script && is_first && is_block && is_rule_off(start) {
                found.push((line, "eslint", spelled(start)));
            }
        }
    }
    found.dedup_by(|one, other| one.0 == other.0 && one.2 == other.2);
    found
}

/// `c8 ignore stop` turns the check on again.
fn ends_range(pattern: &str, text: &str) -> bool {
    pattern.ends_with("ignore")
        && rest_after(pattern, text).is_some_and(|rest| {
            let word = rest.trim_start_matches(is_blank);
            ["stop", "end"].iter().any(|end| rest_after(end, word).is_some())
        })
}

fn longer(name: &str, pattern: &str) -> bool {
    name.starts_with(pattern)
}

/// `/* eslint no-console: off */`
fn is_rule_off(text: &str) -> bool {
    text.strip_prefix("eslint").is_some_and(|rules| rules.starts_with(char::is_whitespace) && turns_off(rules))
}

fn turns_off(text: &str) -> bool {
    let text: String =
        text.to_lowercase().chars().filter(|letter| !letter.is_whitespace() && !"\"'".contains(*letter)).collect();
    [":off", ":0", "=false", "=none", ":[0", ":[off", "=warning", "=information", ":1", ":warn"]
        .iter()
        .any(|off| text.contains(off))
}

fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{180e}')
}

/// A comment's text without its marks: `/`, `*`, `!`, `#`, `<!--` and blanks.
fn without_marks(text: &str) -> &str {
    text.trim_start_matches(|letter: char| {
        is_blank(letter) || matches!(letter, '/' | '*' | '#' | '!' | '{' | '<' | '-')
    })
}

/// One spelling for a directive: single blanks, lower case, no marks at the end.
fn spelled(text: &str) -> String {
    let text = text.trim_end_matches(|letter: char| is_blank(letter) || matches!(letter, '/' | '*' | '}'));
    let words: Vec<&str> = text.split(is_blank).filter(|word| !word.is_empty()).collect();
    words.join(" ").to_lowercase()
}

/// What follows a pattern at the start of a text. A space of the pattern matches any white space or none, and case does
/// not count. A letter right after a word of the pattern is another word.
fn rest_after<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
    let mut rest = text;
    for wanted in pattern.chars() {
        if wanted == ' ' {
            rest = rest.trim_start_matches(is_blank);
            continue;
        }
        let mut letters = rest.chars();
        let letter = letters.next()?;
        if !letter.eq_ignore_ascii_case(&wanted) {
            if wanted != ':' {
                return None;
            }
            // `type : ignore`
            rest = rest.trim_start_matches(is_blank).strip_prefix(wanted)?;
            continue;
        }
        rest = letters.as_str();
    }
    let ends_in_word = pattern.ends_with(|letter: char| letter.is_alphanumeric());
    let is_prefix = pattern.ends_with("report") || pattern.ends_with("excl") || pattern.ends_with("-W");
    let goes_on = rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    (!ends_in_word || is_prefix || !goes_on).then_some(rest)
}

fn contains(pattern: &str, text: &str) -> bool {
    // In backticks it is prose about the directive.
    let is_quoted = |at: usize| text.get(..at).is_some_and(|before| before.ends_with('`'));
    text.char_indices()
        .any(|(at, _)| !is_quoted(at) && text.get(at..).is_some_and(|rest| rest_after(pattern, rest).is_some()))
}

/// The words of the code on the comment's line, or else on the next line with code.
fn neighbour(tokens: &[Token<'_>], comment: usize) -> Vec<String> {
    let Some(line) = tokens.get(comment).map(|token| token.line) else { return Vec::new() };
    let is_code = |token: &&Token<'_>| !token.is_comment() && token.kind != TokenKind::Mark;
    let from = |line: u32| tokens.get(tokens.partition_point(|token| token.line < line)..).unwrap_or_default().iter();
    let on = |line: u32| {
        let words = from(line).take_while(|token| token.line == line).filter(is_code).take(MAX_WORDS);
        words.map(|token| token.text.to_owned()).collect::<Vec<_>>()
    };
    let same = on(line);
    if !same.is_empty() {
        return same;
    }
    from(line + 1).take(MAX_WORDS).find(is_code).map(|token| on(token.line)).unwrap_or_default()
}

/// Rust: `#[allow(...)]`, `#![expect(...)]`, `#[cfg_attr(..., allow(...))]`, `#[coverage(off)]`.
fn attributes(tokens: &[Token<'_>]) -> Vec<Found> {
    let code: Vec<Token<'_>> = tokens.iter().filter(|token| !token.is_comment()).copied().collect();
    let ends = ends(&code);
    let mut found = Vec::new();
    let mut next = 0;
    for (at, token) in code.iter().enumerate().filter(|(_, token)| token.is_mark('#')) {
        // What is within an attribute belongs to it.
        if at < next {
            continue;
        }
        let open = at + 1 + usize::from(code.get(at + 1).is_some_and(|token| token.is_mark('!')));
        if !code.get(open).is_some_and(|token| token.is_mark('[')) {
            continue;
        }
        let closed = ends.get(open).copied().flatten();
        let end = closed.unwrap_or_else(|| (open + MAX_UNCLOSED).min(code.len()));
        next = closed.unwrap_or(open);
        let inside = code.get(open + 1..end).unwrap_or_default();
        let calls = |word: &str| {
            inside.windows(2).any(|pair| matches!(pair, [name, mark] if name.is_word(word) && mark.is_mark('(')))
        };
        let has = |word: &str| inside.iter().any(|token| token.is_word(word));
        let name = if calls("allow") {
            "allow"
        } else if calls("expect") {
            "expect"
        } else if (calls("coverage") && has("off"))
            || has("no_coverage")
            || has("tarpaulin_include")
            || has("tarpaulin")
        {
            "coverage"
        } else {
            continue;
        };
        let text = inside.iter().map(|token| token.text).collect::<Vec<_>>().join(" ");
        let after = code.get(end + 1..).unwrap_or_default();
        let line = after.first().map_or(0, |token| token.line);
        let words = after.iter().take_while(|token| token.line == line).filter(|token| token.kind != TokenKind::Mark);
        let code = words.map(|token| token.text.to_owned()).collect();
        found.push(Found { text: format!("#[{text}]"), name, line: token.line, code });
    }
    found
}

/// Python: `@no_type_check`.
fn decorators(tokens: &[Token<'_>]) -> Vec<Found> {
    let is_use = |at: usize| at > 0 && tokens.get(at - 1).is_some_and(|token| token.is_mark('@') || token.is_mark('.'));
    let find = |(at, token): (usize, &Token<'_>)| {
        (token.is_word("no_type_check") && is_use(at)).then(|| Found {
            text: "@no_type_check".to_owned(),
            name: "no_type_check",
            line: token.line,
            code: Vec::new(),
        })
    };
    tokens.iter().enumerate().filter_map(find).collect()
}

/// For each opening bracket the index of the one that closes it.
fn ends(tokens: &[Token<'_>]) -> Vec<Option<usize>> {
    let mut ends = vec![None; tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == TokenKind::Mark) {
        match token.text {
            "(" | "[" | "{" => open.push(at),
            ")" | "]" | "}" => {
                if let Some(end) = open.pop().and_then(|open| ends.get_mut(open)) {
                    *end = Some(at);
                }
            }
            _ => {}
        }
    }
    ends
}

/// The index of the bracket that closes the one at `open`, or the end.
pub fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.kind != TokenKind::Mark {
            // The `${` and `}` of a template are parts of its text.
            continue;
        }
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Directives for scanners in files of other languages. Documents may mention them.
fn in_other_text(path: &str, text: &str) -> Vec<Found> {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    if matches!(extension, "md" | "mdx" | "rst" | "adoc" | "txt" | "lock" | "snap" | "svg") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let comment = text.split_once('#').or_else(|| text.split_once("//")).or_else(|| text.split_once("<!--"));
        let Some((before, comment)) = comment else { continue };
        for (name, _) in ANY.iter().filter(|(pattern, place)| *place == Anywhere && contains(pattern, comment)) {
            let code = before.split_whitespace().map(ToOwned::to_owned).collect();
            found.push(Found { text: spelled(without_marks(comment)), name, line, code });
        }
    }
    found
}

#[cfg(test)]
#[path = "ignores_tests.rs"]
mod tests;
