//! Declarations that leave no code behind: types, interfaces, ambient declarations, imports and re-exports.
//!
//! A pattern that does not fit exactly is code. Code must never count as a declaration, because declarations need no
//! tests.

use super::lexer::{Bracket, Lexed, Token, TokenKind};

/// For each token, whether it belongs to such a declaration.
pub fn declared(lexed: &Lexed, text: &str) -> Vec<bool> {
    let scan = Scan { tokens: &lexed.tokens, text };
    let mut declared = vec![false; lexed.tokens.len()];
    let mut at = 0;
    while at < lexed.tokens.len() {
        let last = if scan.starts_statement(at) { scan.declaration(at) } else { None };
        if let Some(last) = last.filter(|last| *last >= at) {
            if let Some(range) = declared.get_mut(at..=last) {
                range.fill(true);
            }
            at = last;
        }
        at += 1;
    }
    declared
}

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

    fn is_word(&self, at: usize) -> bool {
        self.kind(at) == Some(TokenKind::Word)
    }

    fn new_line(&self, at: usize) -> bool {
        let previous = at.checked_sub(1).and_then(|before| self.tokens.get(before));
        previous.zip(self.tokens.get(at)).is_none_or(|(previous, token)| previous.end_line < token.line)
    }

    /// The partner of a bracket, if it is closed.
    fn closed(&self, at: usize) -> Option<usize> {
        self.tokens.get(at).map(|token| token.partner).filter(|partner| *partner > at)
    }

    fn starts_statement(&self, at: usize) -> bool {
        if !matches!(self.word(at), "type" | "interface" | "declare" | "import" | "export") {
            return false;
        }
        let Some(previous) = at.checked_sub(1) else { return true };
        match self.kind(previous) {
            None
            | Some(
                TokenKind::Semicolon
                | TokenKind::Close(Bracket::Block)
                | TokenKind::Open(Bracket::Block | Bracket::Arrow),
            ) => true,
            Some(TokenKind::Word | TokenKind::Literal | TokenKind::Close(_)) => self.new_line(at),
            // `type A = B<C>` ends without a semicolon.
            Some(TokenKind::Operator) => self.new_line(at) && matches!(self.word(previous), ">" | "!" | "++" | "--"),
            Some(TokenKind::Comma | TokenKind::Open(_)) => false,
        }
    }

    /// The last token of the declaration that starts here.
    fn declaration(&self, at: usize) -> Option<usize> {
        match self.word(at) {
            "import" => self.import(at),
            "export" => self.export(at),
            "type" => self.alias(at),
            "interface" => self.interface(at),
            "declare" => self.ambient(at),
            _ => None,
        }
    }

    fn semicolon(&self, last: usize) -> usize {
        if self.kind(last + 1) == Some(TokenKind::Semicolon) { last + 1 } else { last }
    }

    fn import(&self, at: usize) -> Option<usize> {
        self.module_name(at + 1)
    }

    /// Names up to the module's name: `a, { b as c } from "d" with { e: "f" }`.
    fn module_name(&self, mut at: usize) -> Option<usize> {
        let first = at;
        loop {
            match self.kind(at)? {
                TokenKind::Literal if self.word(at).starts_with(['"', '\'']) => break,
                TokenKind::Word | TokenKind::Comma => at += 1,
                TokenKind::Operator if self.word(at) == "*" => at += 1,
                TokenKind::Open(Bracket::Block | Bracket::Value) => at = self.names(at)? + 1,
                _ => return None,
            }
        }
        if at > first && self.word(at - 1) != "from" {
            return None;
        }
        let with = matches!(self.word(at + 1), "with" | "assert") && !self.new_line(at + 1);
        if with && matches!(self.kind(at + 2), Some(TokenKind::Open(Bracket::Block | Bracket::Value))) {
            at = self.closed(at + 2)?;
        }
        Some(self.semicolon(at))
    }

    /// The closing brace of `{ a, b as c, type d }`.
    fn names(&self, at: usize) -> Option<usize> {
        let close = self.closed(at)?;
        let inside = self.tokens.get(at + 1..close)?;
        let plain = |token: &Token| matches!(token.kind, TokenKind::Word | TokenKind::Comma | TokenKind::Literal);
        inside.iter().all(plain).then_some(close)
    }

    fn export(&self, at: usize) -> Option<usize> {
        match self.word(at + 1) {
            "*" => self.module_name(at + 1),
            "{" => {
                let close = self.names(at + 1)?;
                if self.word(close + 1) == "from" { self.module_name(close + 1) } else { Some(self.semicolon(close)) }
            }
            "type" if matches!(self.word(at + 2), "{" | "*") => {
                if self.word(at + 2) == "*" {
                    return self.module_name(at + 2);
                }
                let close = self.names(at + 2)?;
                if self.word(close + 1) == "from" { self.module_name(close + 1) } else { Some(self.semicolon(close)) }
            }
            "type" => self.alias(at + 1),
            "interface" => self.interface(at + 1),
            "declare" => self.ambient(at + 1),
            _ => None,
        }
    }

    /// `type A<B> = C`
    fn alias(&self, at: usize) -> Option<usize> {
        let name = at + 1;
        if !self.is_word(name) || self.new_line(name) {
            return None;
        }
        let equals = match self.word(name + 1) {
            "=" => name + 1,
            "<" => self.parameters(name + 1)?,
            _ => return None,
        };
        (self.word(equals) == "=").then(|| self.type_end(equals + 1, false))
    }

    /// The token after type parameters.
    fn parameters(&self, mut at: usize) -> Option<usize> {
        let mut depth = 0_u32;
        loop {
            match (self.kind(at)?, self.word(at)) {
                (TokenKind::Operator, "<") => depth += 1,
                (TokenKind::Operator, ">") => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                (TokenKind::Open(_), _) => at = self.closed(at)?,
                (TokenKind::Semicolon | TokenKind::Close(_), _) => return None,
                _ => {}
            }
            at += 1;
        }
    }

    /// `interface A<B> extends C<D>, E { ... }`
    fn interface(&self, at: usize) -> Option<usize> {
        let mut next = at + 1;
        if !self.is_word(next) || self.new_line(next) {
            return None;
        }
        loop {
            match (self.kind(next)?, self.word(next)) {
                (TokenKind::Operator, "<") => next = self.parameters(next)?,
                (TokenKind::Word | TokenKind::Comma, _) | (TokenKind::Operator, ".") => next += 1,
                (TokenKind::Open(Bracket::Block | Bracket::Value), _) => return self.closed(next),
                _ => return None,
            }
        }
    }

    /// `declare global { ... }`, `declare const a: B`
    fn ambient(&self, at: usize) -> Option<usize> {
        let next = at + 1;
        if !self.is_word(next) || self.new_line(next) {
            return None;
        }
        match self.word(next) {
            "type" => self.alias(next),
            "interface" => self.interface(next),
            "const" if self.word(next + 1) == "enum" => self.braced(next + 1),
            "const" | "let" | "var" | "function" => Some(self.type_end(next + 1, true)),
            "module" | "namespace" | "global" | "class" | "abstract" | "enum" => self.braced(next),
            _ => None,
        }
    }

    /// The closing brace of a declaration's body.
    fn braced(&self, mut at: usize) -> Option<usize> {
        loop {
            match self.kind(at)? {
                TokenKind::Open(Bracket::Block) => return self.closed(at),
                TokenKind::Operator if self.word(at) == "<" => at = self.parameters(at)?,
                TokenKind::Word | TokenKind::Comma | TokenKind::Operator | TokenKind::Literal => at += 1,
                _ => return None,
            }
        }
    }

    /// The last token of a type. `ambient` also allows the parameters of a function, and commas.
    fn type_end(&self, start: usize, ambient: bool) -> usize {
        // Words that are also names: a type may end with them at the end of a line.
        const SOFT: [&str; 8] = ["keyof", "unique", "readonly", "infer", "is", "asserts", "abstract", "out"];
        const HARD: [&str; 5] = ["typeof", "new", "in", "extends", "import"];
        let mut at = start;
        let mut complete = false;
        let mut depth = 0_u32;
        // Whether a type was complete before each `<`: `A<B>` was, `<A>(b: A) => B` was not.
        let mut before: Vec<bool> = Vec::new();
        while let Some(token) = self.tokens.get(at) {
            let word = self.word(at);
            let new_line = self.new_line(at) && at > start;
            let may_end = depth == 0 && (complete || (new_line && SOFT.contains(&self.word(at - 1))));
            match token.kind {
                TokenKind::Semicolon if depth == 0 => return at,
                TokenKind::Semicolon | TokenKind::Close(_) => return at - 1,
                TokenKind::Comma if depth == 0 && !ambient => return at - 1,
                TokenKind::Comma => complete = false,
                TokenKind::Open(bracket) => {
                    let continues = match bracket {
                        Bracket::Square => !new_line,
                        Bracket::Paren { .. } => ambient && !new_line,
                        _ => false,
                    };
                    if may_end && !continues {
                        return at - 1;
                    }
                    let Some(close) = self.closed(at) else { return at - 1 };
                    at = close;
                    complete = true;
                }
                TokenKind::Operator => match word {
                    "<" => {
                        before.push(complete);
                        (depth, complete) = (depth + 1, false);
                    }
                    ">" if depth > 0 => (depth, complete) = (depth - 1, before.pop().unwrap_or(true)),
                    "|" | "&" | "?" | ":" | "." | "..." | "=>" | "-" | "+" => complete = false,
                    "=" if depth > 0 => complete = false,
                    _ => return at - 1,
                },
                TokenKind::Word if complete && matches!(word, "extends" | "is") => complete = false,
                _ if may_end && (new_line || !ambient) => return at - 1,
                TokenKind::Word => complete = !(SOFT.contains(&word) || HARD.contains(&word)),
                TokenKind::Literal => complete = true,
            }
            at += 1;
        }
        at - 1
    }
}
