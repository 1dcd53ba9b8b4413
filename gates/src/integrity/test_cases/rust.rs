//! Tests of Rust: functions with an attribute that ends in `test`.

use super::super::ignores::closing;
use super::super::lex::{Language, Token, TokenKind};
use super::body;
use super::collect::Case;

pub fn cases(tokens: &[Token<'_>]) -> Vec<Case> {
    let code: Vec<Token<'_>> = tokens.iter().filter(|token| !token.is_comment()).copied().collect();
    let mut found = Vec::new();
    scan(&code, "", None, &mut found);
    found
}

fn scan(code: &[Token<'_>], module: &str, skipped: Option<&str>, found: &mut Vec<Case>) {
    let mut attributes: Vec<&[Token<'_>]> = Vec::new();
    let mut at = 0;
    while let Some(token) = code.get(at) {
        if token.is_mark('#') {
            let open = at + 1 + usize::from(code.get(at + 1).is_some_and(|token| token.is_mark('!')));
            if code.get(open).is_some_and(|token| token.is_mark('[')) {
                let end = closing(code, open);
                attributes.push(code.get(open + 1..end).unwrap_or_default());
                at = end + 1;
                continue;
            }
        }
        match token.text {
            "pub" | "async" | "unsafe" | "const" | "extern" | "crate" => {
                at += 1;
                continue;
            }
            "(" if !attributes.is_empty() => {
                // `pub(crate)`
                at = closing(code, at) + 1;
                continue;
            }
            "mod" if token.kind == TokenKind::Word => {
                let name = code.get(at + 1).map_or("", |token| token.text);
                if code.get(at + 2).is_some_and(|token| token.is_mark('{')) {
                    let end = closing(code, at + 2);
                    let path = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
                    let off = switched_off(&attributes);
                    scan(code.get(at + 3..end).unwrap_or_default(), &path, off.as_deref().or(skipped), found);
                    at = end + 1;
                    attributes.clear();
                    continue;
                }
            }
            "fn" if token.kind == TokenKind::Word => {
                let open = (at..code.len())
                    .find(|at| code.get(*at).is_some_and(|token| token.is_mark('{') || token.is_mark(';')));
                let Some(open) = open else { return };
                let end = closing(code, open);
                if attributes.iter().any(|attribute| is_test(attribute)) {
                    let block = code.get(open + 1..end).unwrap_or_default();
                    found.push(case(code, at, module, skipped, &attributes, block));
                }
                attributes.clear();
                at = open.max(at) + 1;
                if !code.get(open).is_some_and(|token| token.is_mark(';')) {
                    at = end + 1;
                }
                continue;
            }
            _ => {}
        }
        attributes.clear();
        at += 1;
    }
}

fn case(
    code: &[Token<'_>],
    at: usize,
    module: &str,
    skipped: Option<&str>,
    attributes: &[&[Token<'_>]],
    block: &[Token<'_>],
) -> Case {
    let name = code.get(at + 1).map_or("", |token| token.text);
    let first =
        |word: &str| attributes.iter().find(|attribute| attribute.first().is_some_and(|token| token.is_word(word)));
    let inverted = first("should_panic").is_some();
    let mut case = Case {
        line: code.get(at).map_or(0, |token| token.line),
        name: if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") },
        leaf: name.to_owned(),
        skipped: first("ignore")
            .map(|_| "#[ignore]".to_owned())
            .or_else(|| switched_off(attributes))
            .or(skipped.map(ToOwned::to_owned)),
        inverted,
        is_standard_inversion: true,
        parametrised: ["rstest", "case", "test_case"].iter().any(|word| first(word).is_some())
            || block.iter().any(|token| token.is_word("for")),
        ..Case::default()
    };
    case.size = block.len() + attributes.iter().map(|attribute| attribute.len()).sum::<usize>();
    body::describe(&mut case, Language::Rust, block);
    if inverted {
        case.assertions += 1;
        case.refusals.push("should_panic".to_owned());
    }
    case
}

fn is_test(attribute: &[Token<'_>]) -> bool {
    let path: Vec<&str> = attribute
        .iter()
        .take_while(|token| !token.is_mark('(') && !token.is_mark('='))
        .map(|token| token.text)
        .collect();
    matches!(path.last(), Some(&("test" | "rstest" | "test_case" | "quickcheck" | "traced_test" | "wasm_bindgen_test")))
}

/// `#[cfg(...)]` with more than `test`, `#[cfg_attr(..., ignore)]`.
fn switched_off(attributes: &[&[Token<'_>]]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let words: Vec<&str> =
            attribute.iter().filter(|token| token.kind != TokenKind::Mark).map(|token| token.text).collect();
        match words.as_slice() {
            ["cfg", "test"] => None,
            ["cfg", rest @ ..] => Some(format!("#[cfg({})]", rest.join(" "))),
            ["cfg_attr", rest @ ..] if rest.contains(&"ignore") => Some(format!("#[cfg_attr({})]", rest.join(" "))),
            _ => None,
        }
    })
}
