//! Splits a file into tokens and comments.
//!
//! It must never read code as a comment, because comments need no tests. So it knows where a slash starts a regular
//! expression, where a brace ends a template's hole, and what is text in JSX. If a file ends inside a comment, a
//! template or JSX, the whole file counts as code.

use super::Dialect;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Word,
    /// A number, a string, a regular expression, a part of a template, or text of JSX.
    Literal,
    Operator,
    Comma,
    Semicolon,
    Open(Bracket),
    Close(Bracket),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bracket {
    /// `header` for the parentheses after `if`, `for`, `while` and `with`: a statement follows, not an operator.
    Paren {
        header: bool,
    },
    Square,
    /// The braces of a block, or of the body of a declaration, a method or a class: a statement may follow.
    Block,
    /// The braces of an arrow function's body: an expression ends with it.
    Arrow,
    /// The braces of an object, or of a function expression: an operator may follow.
    Value,
    /// `${` in a template.
    Hole,
    /// `{` in JSX.
    Container,
    /// A template, from its first backtick to its last.
    Template,
    /// An element of JSX, from its first `<` to its last `>`.
    Jsx,
}

/// Lines count from 1. `start` and `end` are offsets in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
    pub line: u32,
    pub end_line: u32,
    /// For a bracket, the index of its partner. A bracket without partner has its own index.
    pub partner: usize,
}

impl Token {
    pub fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Comment {
    pub start: usize,
    pub end: usize,
    pub line: u32,
    pub end_line: u32,
    /// The index of the first token after it.
    pub next: usize,
}

impl Comment {
    /// The text without the marks that start and end it.
    pub fn body<'a>(&self, source: &'a str) -> &'a str {
        let text = source.get(self.start..self.end).unwrap_or_default();
        match text.strip_prefix("/*") {
            Some(body) => body.strip_suffix("*/").unwrap_or(body),
            None => text.strip_prefix("//").unwrap_or(text),
        }
    }
}

#[derive(Debug, Default)]
pub struct Lexed {
    pub tokens: Vec<Token>,
    pub comments: Vec<Comment>,
    /// The file ends inside a comment, a template or JSX.
    pub unfinished: bool,
}

pub fn lex(text: &str, dialect: Dialect) -> Lexed {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        line: 1,
        dialect,
        open: Vec::new(),
        operand: true,
        lexed: Lexed::default(),
    };
    if text.starts_with("#!") {
        lexer.line_comment();
    }
    while lexer.at < lexer.bytes.len() {
        lexer.step();
    }
    let open = |frame: &Frame| matches!(frame.state, State::Template | State::JsxTag { .. } | State::JsxText);
    lexer.lexed.unfinished |= lexer.open.iter().any(open);
    lexer.lexed
}

/// What an open bracket contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Code,
    Template,
    JsxTag { closing: bool },
    JsxText,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub token: usize,
    pub bracket: Bracket,
    pub state: State,
    /// Open `?` of conditional expressions.
    pub ternaries: u32,
    /// The next colon ends `case` or `default`.
    pub case: bool,
}

pub(super) struct Lexer<'a> {
    pub text: &'a str,
    pub bytes: &'a [u8],
    pub at: usize,
    pub line: u32,
    pub dialect: Dialect,
    pub open: Vec<Frame>,
    /// An operand may come next: a slash starts a regular expression, `<` starts JSX.
    pub operand: bool,
    pub lexed: Lexed,
}

impl<'a> Lexer<'a> {
    pub fn byte(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Adds the token that starts at `start` and ends here.
    pub fn push(&mut self, kind: TokenKind, start: usize, line: u32) {
        let partner = self.lexed.tokens.len();
        self.lexed.tokens.push(Token { kind, start, end: self.at, line, end_line: self.line, partner });
    }

    pub fn push_open(&mut self, bracket: Bracket, state: State, length: usize) {
        let (token, start) = (self.lexed.tokens.len(), self.at);
        self.at += length;
        self.push(TokenKind::Open(bracket), start, self.line);
        self.open.push(Frame { token, bracket, state, ternaries: 0, case: false });
        self.operand = true;
    }

    /// Closes the innermost bracket with the `length` bytes here.
    pub fn push_close(&mut self, length: usize) {
        let start = self.at;
        self.at += length;
        let Some(frame) = self.open.pop() else { return };
        let token = self.lexed.tokens.len();
        self.push(TokenKind::Close(frame.bracket), start, self.line);
        if let Some(opened) = self.lexed.tokens.get_mut(frame.token) {
            opened.partner = token;
        }
        if let Some(closed) = self.lexed.tokens.last_mut() {
            closed.partner = frame.token;
        }
        self.operand = match frame.bracket {
            Bracket::Paren { header } => header,
            Bracket::Block | Bracket::Arrow => true,
            Bracket::Square
            | Bracket::Value
            | Bracket::Hole
            | Bracket::Container
            | Bracket::Template
            | Bracket::Jsx => false,
        };
    }

    pub fn newline(&mut self) {
        self.at += 1;
        self.line += 1;
    }

    /// Skips white space. Returns `false` if there is none.
    pub fn white_space(&mut self) -> bool {
        match self.byte(0) {
            Some(b'\n') => self.newline(),
            Some(b' ' | b'\t' | b'\r' | 0x0B | 0x0C) => self.at += 1,
            Some(byte) if !byte.is_ascii() => match self.rest().chars().next() {
                Some(space) if space.is_whitespace() || space == '\u{feff}' => self.at += space.len_utf8(),
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    fn step(&mut self) {
        match self.open.last().map_or(State::Code, |frame| frame.state) {
            State::Code => self.code(),
            State::Template => self.template(),
            State::JsxTag { closing } => self.jsx_tag(closing),
            State::JsxText => self.jsx_text(),
        }
    }

    /// Skips a comment. Returns `false` if there is none.
    pub fn comment(&mut self) -> bool {
        match (self.byte(0), self.byte(1)) {
            (Some(b'/'), Some(b'/')) => self.line_comment(),
            (Some(b'/'), Some(b'*')) => self.block_comment(),
            _ => return false,
        }
        true
    }

    fn line_comment(&mut self) {
        let start = self.at;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        self.add_comment(start, self.line);
    }

    fn block_comment(&mut self) {
        let (start, line) = (self.at, self.line);
        self.at += 2;
        loop {
            match self.byte(0) {
                None => {
                    self.lexed.unfinished = true;
                    break;
                }
                Some(b'\n') => self.newline(),
                Some(b'*') if self.byte(1) == Some(b'/') => {
                    self.at += 2;
                    break;
                }
                Some(_) => self.at += 1,
            }
        }
        self.add_comment(start, line);
    }

    fn add_comment(&mut self, start: usize, line: u32) {
        let next = self.lexed.tokens.len();
        self.lexed.comments.push(Comment { start, end: self.at, line, end_line: self.line, next });
    }

    fn code(&mut self) {
        if self.white_space() || self.comment() {
            return;
        }
        let Some(byte) = self.byte(0) else { return };
        match byte {
            b'/' if self.operand && self.regex() => {}
            b'<' if self.operand && self.starts_jsx() => self.open_jsx(),
            b'"' | b'\'' => self.string(byte),
            b'`' => self.push_open(Bracket::Template, State::Template, 1),
            b'(' => self.push_open(Bracket::Paren { header: self.after_header_word() }, State::Code, 1),
            b'[' => self.push_open(Bracket::Square, State::Code, 1),
            b'{' => {
                let bracket = self.brace();
                self.push_open(bracket, State::Code, 1);
            }
            b')' | b']' | b'}' => self.close(byte),
            b',' => self.single(TokenKind::Comma, true),
            b';' => self.single(TokenKind::Semicolon, true),
            _ if is_word(byte) => self.word(),
            b'.' if self.byte(1).is_some_and(|next| next.is_ascii_digit()) => self.word(),
            _ => self.operator(),
        }
    }

    fn single(&mut self, kind: TokenKind, operand: bool) {
        let start = self.at;
        self.at += 1;
        self.push(kind, start, self.line);
        self.operand = operand;
    }

    /// Closes the innermost bracket of this kind. Brackets inside it that were not closed end here too.
    fn close(&mut self, byte: u8) {
        let fits = |frame: &Frame| match frame.bracket {
            Bracket::Paren { .. } => byte == b')',
            Bracket::Square => byte == b']',
            Bracket::Block | Bracket::Arrow | Bracket::Value | Bracket::Hole | Bracket::Container => byte == b'}',
            Bracket::Template | Bracket::Jsx => false,
        };
        match self.open.iter().rposition(fits) {
            // A stray bracket in a hole must not end the template around it.
            Some(at) if self.open.iter().skip(at + 1).all(|frame| frame.state == State::Code) => {
                self.open.truncate(at + 1);
                self.push_close(1);
            }
            _ => self.single(TokenKind::Close(Bracket::Square), byte == b'}'),
        }
    }

    pub fn word(&mut self) {
        let start = self.at;
        let number = matches!(self.byte(0), Some(b'0'..=b'9' | b'.'));
        while let Some(character) = self.rest().chars().next() {
            let part = if character.is_ascii() {
                let byte = self.byte(0).unwrap_or_default();
                is_word(byte) || (number && byte == b'.') || (byte == b'\\' && self.byte(1) == Some(b'u'))
            } else {
                !character.is_whitespace() && character != '\u{feff}'
            };
            if !part {
                break;
            }
            self.at += character.len_utf8();
        }
        if self.at == start {
            self.at += self.rest().chars().next().map_or(1, char::len_utf8);
        }
        let kind = if number { TokenKind::Literal } else { TokenKind::Word };
        let word = self.text.get(start..self.at).unwrap_or_default();
        let operand = !number && self.expects_operand(word);
        if matches!(word, "case" | "default")
            && let Some(frame) = self.open.last_mut()
        {
            frame.case = frame.bracket == Bracket::Block;
        }
        self.push(kind, start, self.line);
        self.operand = operand;
    }

    fn string(&mut self, quote: u8) {
        let (start, line) = (self.at, self.line);
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\n' => break,
                b'\\' => {
                    self.at += 1;
                    if self.byte(0) == Some(b'\r') && self.byte(1) == Some(b'\n') {
                        self.at += 1;
                    }
                    match self.byte(0) {
                        Some(b'\n') => self.newline(),
                        Some(_) => self.at += 1,
                        None => {}
                    }
                }
                _ => {
                    self.at += 1;
                    if byte == quote {
                        break;
                    }
                }
            }
        }
        self.push(TokenKind::Literal, start, line);
        self.operand = false;
    }

    /// Reads a regular expression. Returns `false`, and reads nothing, if the slash does not start one.
    fn regex(&mut self) -> bool {
        let mut in_class = false;
        let mut at = self.at + 1;
        loop {
            match self.bytes.get(at) {
                None | Some(b'\n' | b'\r') => return false,
                Some(b'\\') if !matches!(self.bytes.get(at + 1), Some(b'\n' | b'\r')) => at += 1,
                Some(b'[') => in_class = true,
                Some(b']') => in_class = false,
                Some(b'/') if !in_class => break,
                Some(_) => {}
            }
            at += 1;
        }
        let start = self.at;
        self.at = at + 1;
        while self.byte(0).is_some_and(is_word) {
            self.at += 1;
        }
        self.push(TokenKind::Literal, start, self.line);
        self.operand = false;
        true
    }

    fn template(&mut self) {
        match self.byte(0) {
            Some(b'`') => return self.push_close(1),
            Some(b'$') if self.byte(1) == Some(b'{') => return self.push_open(Bracket::Hole, State::Code, 2),
            _ => {}
        }
        let (start, line) = (self.at, self.line);
        while let Some(byte) = self.byte(0) {
            match byte {
                b'`' => break,
                b'$' if self.byte(1) == Some(b'{') => break,
                b'\n' => self.newline(),
                b'\\' if !matches!(self.byte(1), Some(b'\n') | None) => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.push(TokenKind::Literal, start, line);
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#' | b'@') || !byte.is_ascii()
}
