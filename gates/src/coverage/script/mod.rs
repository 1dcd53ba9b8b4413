//! TypeScript and JavaScript: tokens and comments, declarations without code, and how far ignore comments reach.

mod declarations;
mod jsx;
mod lexer;
mod position;
mod reach;

use super::ignore::hint;
use super::lines::{LineKind, Lines, LinesBuilder};

use lexer::{Bracket, TokenKind};

/// Which syntax a file may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub types: bool,
    pub jsx: bool,
}

/// Classifies the lines of a file.
pub fn classify(text: &str, dialect: Dialect) -> Lines {
    let lexed = lexer::lex(text, dialect);
    let mut builder = LinesBuilder::new(text);
    for comment in &lexed.comments {
        builder.mark(comment.line, comment.end_line, LineKind::Comment);
    }
    let declared = declarations::declared(&lexed, text);
    for (token, is_declared) in lexed.tokens.iter().zip(declared) {
        let is_code = |bracket| matches!(bracket, Bracket::Template | Bracket::Jsx);
        let kind = match token.kind {
            TokenKind::Open(bracket) | TokenKind::Close(bracket) if !is_code(bracket) => LineKind::Bracket,
            TokenKind::Comma | TokenKind::Semicolon => LineKind::Bracket,
            _ if is_declared => LineKind::Declaration,
            _ => LineKind::Code,
        };
        builder.mark(token.line, token.end_line, kind);
    }
    if lexed.unfinished {
        builder.distrust();
    }
    for (at, comment) in lexed.comments.iter().enumerate() {
        if let Some(hint) = hint(comment.body(text)) {
            let reaches = reach::of(hint, at, &lexed, text);
            builder.hint(comment.line, &reaches);
        }
    }
    builder.ranges();
    builder.finish()
}
