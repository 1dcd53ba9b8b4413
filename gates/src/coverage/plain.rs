//! Languages with `//` and `/* */`: Rust, Go, Java and C.

use super::items::Items;
use super::lines::{LineKind, Lines, LinesBuilder};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Rust,
    Go,
    Java,
    C,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Word,
    Literal,
    Open,
    Close,
    /// Commas and semicolons.
    Separator,
    Other,
}

#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    pub line: u32,
    pub end_line: u32,
    /// For a closed bracket, the index of the bracket that closes it.
    pub partner: Option<usize>,
}

/// Classifies the lines of a file.
pub fn classify(text: &str, syntax: Syntax) -> Lines {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        line: 1,
        syntax,
        tokens: Vec::new(),
        open: Vec::new(),
        builder: LinesBuilder::new(text),
        unfinished: false,
    };
    while lexer.at < lexer.bytes.len() {
        lexer.step();
    }
    let Lexer { tokens, mut builder, unfinished, .. } = lexer;
    let items = Items { tokens: &tokens, text };
    let declared = items.declared(syntax);
    for (token, is_declared) in tokens.iter().zip(declared) {
        let kind = match token.kind {
            Kind::Open | Kind::Close | Kind::Separator => LineKind::Bracket,
            _ if is_declared => LineKind::Declaration,
            _ => LineKind::Code,
        };
        builder.mark(token.line, token.end_line, kind);
    }
    if unfinished {
        builder.distrust();
    }
    if syntax == Syntax::Rust {
        for (line, reach) in items.switched_off() {
            builder.hint(line, &[reach]);
        }
    }
    builder.ranges();
    builder.finish()
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    syntax: Syntax,
    tokens: Vec<Token>,
    open: Vec<usize>,
    builder: LinesBuilder<'a>,
    unfinished: bool,
}

impl Lexer<'_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind, start: usize, line: u32) {
        self.tokens.push(Token { kind, start, end: self.at, line, end_line: self.line, partner: None });
    }

    fn step(&mut self) {
        let Some(byte) = self.byte(0) else { return };
        let (start, line) = (self.at, self.line);
        match byte {
            b'\n' => {
                self.at += 1;
                self.line += 1;
            }
            _ if byte.is_ascii_whitespace() => self.at += 1,
            b'/' if self.byte(1) == Some(b'/') => self.line_comment(),
            b'/' if self.byte(1) == Some(b'*') => self.block_comment(),
            b'"' => self.string(start),
            b'\'' => self.character(),
            b'`' if self.syntax == Syntax::Go => self.until("`", 1, start, false),
            b'(' | b'[' | b'{' => {
                self.open.push(self.tokens.len());
                self.at += 1;
                self.push(Kind::Open, start, line);
            }
            b')' | b']' | b'}' => {
                let token = self.tokens.len();
                if let Some(opened) = self.open.pop().and_then(|at| self.tokens.get_mut(at)) {
                    opened.partner = Some(token);
                }
                self.at += 1;
                self.push(Kind::Close, start, line);
            }
            b',' | b';' => {
                self.at += 1;
                self.push(Kind::Separator, start, line);
            }
            _ if is_word(byte) => self.word(),
            _ => {
                self.at += 1;
                self.push(Kind::Other, start, line);
            }
        }
    }

    fn line_comment(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        self.builder.mark(self.line, self.line, LineKind::Comment);
        self.at += length;
    }

    fn block_comment(&mut self) {
        let line = self.line;
        let mut depth = 0_u32;
        loop {
            match (self.byte(0), self.byte(1)) {
                (None, _) => {
                    self.unfinished = true;
                    break;
                }
                (Some(b'/'), Some(b'*')) if depth == 0 || self.syntax == Syntax::Rust => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                (Some(byte), _) => {
                    self.line += u32::from(byte == b'\n');
                    self.at += 1;
                }
            }
        }
        self.builder.mark(line, self.line, LineKind::Comment);
    }

    fn word(&mut self) {
        let (start, line) = (self.at, self.line);
        while self.byte(0).is_some_and(|byte| is_word(byte) || (byte == b'\'' && self.separates_digits(start))) {
            self.at += 1;
        }
        let word = self.text.get(start..self.at).unwrap_or_default();
        match self.syntax {
            Syntax::Rust if matches!(word, "r" | "br" | "cr") => {
                let hashes = self.rest().bytes().take_while(|byte| *byte == b'#').count();
                if self.byte(hashes) == Some(b'"') {
                    let close = format!("\"{}", "#".repeat(hashes));
                    return self.until(&close, hashes + 1, start, false);
                }
            }
            Syntax::C if matches!(word, "R" | "LR" | "uR" | "UR" | "u8R") && self.byte(0) == Some(b'"') => {
                if let Some((delimiter, _)) = self.rest().get(1..).and_then(|rest| rest.split_once('(')) {
                    let close = format!("){delimiter}\"");
                    return self.until(&close, delimiter.len() + 2, start, false);
                }
            }
            _ => {}
        }
        self.push(Kind::Word, start, line);
    }

    /// `1'000` in C++.
    fn separates_digits(&self, start: usize) -> bool {
        self.syntax == Syntax::C
            && self.bytes.get(start).is_some_and(u8::is_ascii_digit)
            && self.byte(1).is_some_and(|byte| byte.is_ascii_hexdigit())
    }

    fn string(&mut self, start: usize) {
        if self.syntax == Syntax::Java && self.rest().starts_with("\"\"\"") {
            return self.until("\"\"\"", 3, start, true);
        }
        if self.syntax == Syntax::Rust {
            return self.until("\"", 1, start, true);
        }
        self.one_line(b'"');
    }

    /// `'a'` is a character, `'a` a lifetime.
    fn character(&mut self) {
        let mut rest = self.rest().chars().skip(1);
        let (first, second) = (rest.next(), rest.next());
        if self.syntax == Syntax::Rust && first != Some('\\') && second != Some('\'') {
            let start = self.at;
            self.at += 1;
            return self.push(Kind::Other, start, self.line);
        }
        if first == Some('\'') && second == Some('\'') {
            self.at += 1;
        }
        self.one_line(b'\'');
    }

    /// Skips to the quote or to the end of the line, unless a backslash joins the next line.
    fn one_line(&mut self, quote: u8) {
        let (start, line) = (self.at, self.line);
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\n' => break,
                b'\\' => {
                    self.at += 1;
                    self.at += usize::from(self.byte(0) == Some(b'\r') && self.byte(1) == Some(b'\n'));
                    self.line += u32::from(self.byte(0) == Some(b'\n'));
                    self.at += 1;
                }
                _ => {
                    self.at += 1;
                    if byte == quote {
                        break;
                    }
                }
            }
        }
        self.at = self.at.min(self.bytes.len());
        self.push(Kind::Literal, start, line);
    }

    /// Skips `length` bytes, and then to the end of `close`.
    fn until(&mut self, close: &str, length: usize, start: usize, escapes: bool) {
        let line = self.line;
        self.at += length;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            match rest.first() {
                None => {
                    self.unfinished = true;
                    break;
                }
                Some(b'\\') if escapes => {
                    self.line += u32::from(rest.get(1) == Some(&b'\n'));
                    self.at += 2;
                }
                Some(_) if rest.starts_with(close.as_bytes()) => {
                    self.at += close.len();
                    break;
                }
                Some(byte) => {
                    self.line += u32::from(*byte == b'\n');
                    self.at += 1;
                }
            }
        }
        self.at = self.at.min(self.bytes.len());
        self.push(Kind::Literal, start, line);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
