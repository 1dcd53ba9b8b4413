//! How far an ignore comment reaches: over the next node, a branch of the next `if`, some lines, or the file. A reach
//! that is too long only asks for more tests. One that is too short would hide code.

use super::lexer::{Bracket, Lexed, Token, TokenKind};
use crate::coverage::ignore::{Hint, Scope};
use crate::coverage::lines::{LAST_LINE, Reach};

/// Deeper statements reach to the end of the file.
const MAX_DEPTH: u32 = 200;

pub fn of(hint: Hint, comment: usize, lexed: &Lexed, text: &str) -> Vec<Reach> {
    let Some(comment) = lexed.comments.get(comment) else { return Vec::new() };
    let scan = Scan { tokens: &lexed.tokens, text };
    let node = |range: Option<(usize, usize)>| range.and_then(|(first, last)| scan.lines(first, last));
    let never_covers = hint.tool.node_never_covers();
    let nodes = match hint.scope {
        Scope::Next(_) if comment.next < lexed.tokens.len() => {
            let first = scan.node_start(comment.next);
            node(scan.node_end(first).map(|last| (first, last)))
        }
        Scope::If => node(scan.branches(comment.next).map(|(first, _)| first)),
        Scope::Else => node(scan.branches(comment.next).and_then(|(_, second)| second)),
        Scope::File => Some((1, LAST_LINE)),
        Scope::Next(_) | Scope::Start | Scope::Stop => None,
    };
    let mut reaches: Vec<Reach> = nodes.into_iter().map(|(first, last)| Reach { first, last, never_covers }).collect();
    if let Scope::Next(lines) = hint.scope
        && let Some(lines) = hint.tool.lines(lines)
    {
        let before = text.get(..comment.start).unwrap_or_default();
        let line_start = before.rsplit('\n').next().unwrap_or_default();
        let own_line = !line_start.contains(|c: char| c.is_alphanumeric() || c == '_');
        let last = if own_line { comment.line.saturating_add(lines) } else { comment.line };
        reaches.push(Reach { first: comment.line, last, never_covers: true });
    }
    reaches
}

/// The first and the last token of both branches of an `if`.
type Branches = ((usize, usize), Option<(usize, usize)>);

struct Scan<'a> {
    tokens: &'a [Token],
    text: &'a str,
}

impl Scan<'_> {
    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text(self.text))
    }

    fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    fn last(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }

    fn lines(&self, first: usize, last: usize) -> Option<(u32, u32)> {
        Some((self.tokens.get(first)?.line, self.tokens.get(last)?.end_line))
    }

    /// Whether a statement may end before this token, because a line does.
    fn line_ends_before(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else { return true };
        let (Some(previous), Some(token)) = (self.tokens.get(before), self.tokens.get(at)) else { return true };
        if previous.end_line >= token.line {
            return false;
        }
        let ends = match previous.kind {
            TokenKind::Word => !matches!(
                self.word(before),
                "return"
                    | "typeof"
                    | "case"
                    | "in"
                    | "of"
                    | "delete"
                    | "void"
                    | "throw"
                    | "new"
                    | "else"
                    | "do"
                    | "await"
                    | "instanceof"
                    | "extends"
                    | "const"
                    | "let"
                    | "var"
                    | "function"
                    | "class"
                    | "export"
                    | "default"
                    | "async"
                    | "static"
                    | "try"
                    | "finally"
            ),
            TokenKind::Literal | TokenKind::Close(_) => true,
            TokenKind::Operator => matches!(self.word(before), "++" | "--" | "!" | ">"),
            TokenKind::Comma | TokenKind::Semicolon | TokenKind::Open(_) => false,
        };
        let starts = match token.kind {
            TokenKind::Word => !matches!(self.word(at), "instanceof" | "in" | "of" | "as" | "satisfies" | "extends"),
            TokenKind::Operator => matches!(self.word(at), "++" | "--" | "!" | "~"),
            TokenKind::Literal | TokenKind::Open(Bracket::Jsx) | TokenKind::Close(_) => true,
            TokenKind::Comma | TokenKind::Semicolon | TokenKind::Open(_) => false,
        };
        ends && starts
    }

    /// The bracket around a token, if it is open.
    fn enclosing(&self, at: usize) -> Option<Bracket> {
        let mut before = at.checked_sub(1)?;
        loop {
            let token = self.tokens.get(before)?;
            match token.kind {
                TokenKind::Open(bracket) => return Some(bracket),
                TokenKind::Close(_) if token.partner < before => before = token.partner,
                _ => {}
            }
            before = before.checked_sub(1)?;
        }
    }

    fn in_block(&self, at: usize) -> bool {
        matches!(self.enclosing(at), None | Some(Bracket::Block | Bracket::Arrow))
    }

    fn starts_statement(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else { return true };
        match self.kind(before) {
            None
            | Some(
                TokenKind::Semicolon
                | TokenKind::Close(Bracket::Block | Bracket::Paren { header: true })
                | TokenKind::Open(Bracket::Block | Bracket::Arrow),
            ) => true,
            _ if matches!(self.word(before), "else" | "do" | "export") => true,
            Some(TokenKind::Operator) if self.word(before) == ":" => self.in_block(at),
            _ => self.line_ends_before(at) && self.in_block(at),
        }
    }

    /// A comment before an operator belongs to the operand after it.
    fn node_start(&self, at: usize) -> usize {
        let is_operator = matches!(self.word(at), "?" | ":" | "&&" | "||" | "??" | "=" | "=>");
        if is_operator && at < self.last() { at + 1 } else { at }
    }

    /// The last token of the node that starts here.
    fn node_end(&self, at: usize) -> Option<usize> {
        match self.kind(at)? {
            TokenKind::Close(_) | TokenKind::Comma => None,
            _ if self.starts_statement(at) => Some(self.statement_end(at, 0)),
            _ => Some(self.expression_end(at)),
        }
    }

    fn expression_end(&self, start: usize) -> usize {
        let lines_end = self.in_block(start);
        let consequent = start > 0 && self.word(start - 1) == "?";
        let mut nested = 0_u32;
        let mut at = start;
        while let Some(token) = self.tokens.get(at) {
            match token.kind {
                TokenKind::Operator if consequent && self.word(at) == "?" => nested += 1,
                TokenKind::Operator if consequent && self.word(at) == ":" && nested == 0 => return at - 1,
                TokenKind::Operator if consequent && self.word(at) == ":" => nested -= 1,
                TokenKind::Close(_) | TokenKind::Comma | TokenKind::Semicolon if at > start => return at - 1,
                _ if at > start && lines_end && self.line_ends_before(at) => return at - 1,
                TokenKind::Open(_) => at = token.partner.max(at),
                _ => {}
            }
            at += 1;
        }
        self.last()
    }

    fn statement_end(&self, at: usize, depth: u32) -> usize {
        if depth > MAX_DEPTH {
            return self.last();
        }
        let closed = |at: usize| self.tokens.get(at).map_or(at, |token| token.partner.max(at));
        match (self.word(at), self.word(at + 1)) {
            ("case", _) | ("default", ":") => self.clause_end(at),
            ("if", "(") => match self.branches_of(at, depth) {
                (_, Some((_, last))) | ((_, last), None) => last,
            },
            ("for" | "while" | "with", "(") => self.statement_end(closed(at + 1) + 1, depth + 1),
            ("for", "await") => self.statement_end(closed(at + 2) + 1, depth + 1),
            ("do", _) => {
                let body = self.statement_end(at + 1, depth + 1);
                if self.word(body + 1) == "while" { self.semicolon(closed(body + 2)) } else { body }
            }
            ("try", "{") => {
                let mut last = closed(at + 1);
                while matches!(self.word(last + 1), "catch" | "finally") {
                    let body = if self.word(last + 2) == "(" { closed(last + 2) + 1 } else { last + 2 };
                    last = closed(body).max(last + 1);
                }
                last
            }
            ("{", _) => closed(at),
            (_, ":") if self.kind(at) == Some(TokenKind::Word) => self.statement_end(at + 2, depth + 1),
            _ => self.simple_end(at),
        }
    }

    fn semicolon(&self, last: usize) -> usize {
        if self.kind(last + 1) == Some(TokenKind::Semicolon) { last + 1 } else { last }
    }

    fn simple_end(&self, start: usize) -> usize {
        let mut at = start;
        while let Some(token) = self.tokens.get(at) {
            match token.kind {
                TokenKind::Close(_) if at > start => return at - 1,
                _ if at > start && self.line_ends_before(at) => return at - 1,
                TokenKind::Semicolon => return at,
                TokenKind::Open(Bracket::Block) => return token.partner.max(at),
                TokenKind::Open(_) => at = token.partner.max(at),
                _ => {}
            }
            at += 1;
        }
        self.last()
    }

    /// `case` ends before the next `case` or `default`.
    fn clause_end(&self, start: usize) -> usize {
        let mut at = start + 1;
        while let Some(token) = self.tokens.get(at) {
            match token.kind {
                TokenKind::Close(_) => return at - 1,
                TokenKind::Open(_) => at = token.partner.max(at),
                TokenKind::Word
                    if self.word(at) == "case" || (self.word(at) == "default" && self.word(at + 1) == ":") =>
                {
                    return at - 1;
                }
                _ => {}
            }
            at += 1;
        }
        self.last()
    }

    /// The branches of the `if` that starts here.
    fn branches(&self, at: usize) -> Option<Branches> {
        (self.word(at) == "if" && self.word(at + 1) == "(").then(|| self.branches_of(at, 0))
    }

    fn branches_of(&self, at: usize, depth: u32) -> Branches {
        let header = self.tokens.get(at + 1).map_or(at, |token| token.partner.max(at));
        let first = (header + 1, self.statement_end(header + 1, depth + 1));
        let other = first.1 + 1;
        let second = (self.word(other) == "else").then(|| (other + 1, self.statement_end(other + 1, depth + 1)));
        (first, second)
    }
}
