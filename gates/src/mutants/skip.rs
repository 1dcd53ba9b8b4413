//! Tokens that are no code of the program: imports, types, decorators, attributes.

use super::Language;
use super::lexer::Kind;
use super::operators::Source;

/// For each token, whether no mutant may change it.
pub fn skipped(source: &Source<'_>) -> Vec<bool> {
    let mut skipped = vec![false; source.tokens.len()];
    let mut at = 0;
    while at < source.tokens.len() {
        match end_of_skipped(source, at) {
            Some(end) => {
                let end = end.clamp(at, source.tokens.len() - 1);
                if let Some(part) = skipped.get_mut(at..=end) {
                    part.fill(true);
                }
                at = end + 1;
            }
            None => at += 1,
        }
    }
    skipped
}

/// The last token of what starts at `at` and is no code.
fn end_of_skipped(source: &Source<'_>, at: usize) -> Option<usize> {
    let token = source.tokens.get(at)?;
    let (text, next) = (source.text_of(token), source.at(at + 1));
    match source.language {
        Language::Python => {
            let names_module = ["import", "from", "@", "global", "nonlocal", "class"].contains(&text);
            let guards = matches!(text, "if") && matches!(next, "__name__" | "TYPE_CHECKING");
            (token.is_first && token.depth == 0 && (names_module || guards)).then(|| line_end(source, at))
        }
        Language::Rust => match text {
            "#" if next == "[" => source.closing(at + 1),
            "#" if next == "!" => source.closing(at + 2),
            "use" | "mod" | "extern" if token.is_first => semicolon(source, at),
            "<" if !token.is_spaced => Some(at),
            _ => None,
        },
        _ => match text {
            "import" if token.is_first && !matches!(next, "(" | ".") => module_name(source, at),
            "export" if matches!(next, "{" | "*") || next == "type" => type_end(source, at),
            "type" | "declare" if token.is_first || source.at(at.wrapping_sub(1)) == "export" => {
                source.tokens.get(at + 1).filter(|name| name.kind == Kind::Word && name.line == token.line)?;
                type_end(source, at)
            }
            "interface" => {
                source.tokens.get(at + 1).filter(|name| name.kind == Kind::Word)?;
                let open = (at..source.tokens.len().min(at + 200)).find(|open| source.at(*open) == "{")?;
                source.closing(open)
            }
            "@" if token.is_first => Some(at + 1),
            _ => None,
        },
    }
}

/// The last token of a statement of Python, which ends with its line outside of brackets.
fn line_end(source: &Source<'_>, at: usize) -> usize {
    let depth = source.tokens.get(at).map_or(0, |token| token.depth);
    let next =
        source.tokens.iter().enumerate().skip(at + 1).find(|(_, token)| {
            token.is_first && token.depth <= depth && !matches!(source.text_of(token), ")" | "]" | "}")
        });
    next.map_or(source.tokens.len(), |(index, _)| index) - 1
}

fn semicolon(source: &Source<'_>, at: usize) -> Option<usize> {
    let depth = source.tokens.get(at)?.depth;
    let rest = source.tokens.iter().enumerate().skip(at);
    rest.take(2_000)
        .find(|(_, token)| token.depth == depth && matches!(source.text_of(token), ";" | "{"))
        .map(|(index, _)| index)
}

/// An import ends with the name of its module.
fn module_name(source: &Source<'_>, at: usize) -> Option<usize> {
    let rest = source.tokens.iter().enumerate().skip(at);
    rest.take(2_000).find(|(_, token)| token.kind == Kind::Text).map(|(index, _)| index)
}

/// A type ends with its semicolon, or before a line that cannot be a part of it.
fn type_end(source: &Source<'_>, at: usize) -> Option<usize> {
    const STATEMENTS: &[&str] = &[
        "export",
        "import",
        "const",
        "let",
        "var",
        "function",
        "async",
        "class",
        "interface",
        "type",
        "if",
        "return",
        "for",
        "declare",
        "enum",
        "abstract",
    ];
    let depth = source.tokens.get(at)?.depth;
    for (index, token) in source.tokens.iter().enumerate().skip(at + 1) {
        let text = source.text_of(token);
        if token.depth < depth
            || (token.depth == depth && token.is_first && STATEMENTS.contains(&text) && index > at + 1)
        {
            return Some(index - 1);
        }
        if token.depth == depth && text == ";" {
            return Some(index);
        }
    }
    Some(source.tokens.len().saturating_sub(1))
}
