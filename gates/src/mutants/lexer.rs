//! Splits sources into tokens, so that mutants change code and nothing else.
//!
//! This is not a parser. It knows where strings, comments, regular expressions, templates and JSX text start and end. If
//! a file is not understood (a bracket or a string has no end), [`Lexed::is_sound`] says so, and nothing is mutated.

use super::Language;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Word,
    Number,
    /// A string, a part of a template, a regular expression, or a tag of JSX.
    Text,
    Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// From 1.
    pub line: u32,
    /// Open brackets around it. An opening bracket has the depth outside of it, and so has its closing one.
    pub depth: usize,
    /// First token of its line.
    pub is_first: bool,
    pub is_spaced: bool,
}

#[derive(Debug, Default)]
pub struct Lexed {
    pub tokens: Vec<Token>,
    pub comments: usize,
    pub is_sound: bool,
}

/// What is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Brace,
    Paren,
    Bracket,
    /// `${` in a template.
    TemplateHole,
    /// `{` in JSX.
    JsxHole,
    JsxTag {
        is_closing: bool,
    },
    JsxText,
}

const MAX_DEPTH: usize = 1_000;

/// The longest first.
const SIGNS: &[&str] = &[
    ">>>=", "...", "===", "!==", "**=", "<<=", ">>=", ">>>", "&&=", "||=", "??=", "//=", "..=", "=>", "==", "!=", "<=",
    ">=", "&&", "||", "??", "?.", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<", ">>", "**", "//",
    ":=", "->", "::", "..",
];

/// Words of JavaScript after which an expression starts.
const BEFORE_EXPRESSION: &[&str] = &[
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
    "do",
    "await",
    "yield",
    "instanceof",
    "default",
    "extends",
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
    "print",
];

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    language: Language,
    at: usize,
    line: u32,
    modes: Vec<Mode>,
    lexed: Lexed,
    is_first: bool,
    is_spaced: bool,
}

pub fn lex(text: &str, language: Language) -> Lexed {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        language,
        at: 0,
        line: 1,
        modes: Vec::new(),
        lexed: Lexed { is_sound: true, ..Lexed::default() },
        is_first: true,
        is_spaced: true,
    };
    if text.starts_with("#!") && !text.starts_with("#![") {
        lexer.at = text.find('\n').unwrap_or(text.len());
    }
    while lexer.at < lexer.bytes.len() && lexer.lexed.is_sound && lexer.modes.len() < MAX_DEPTH {
        match lexer.modes.last() {
            Some(Mode::JsxTag { is_closing }) => lexer.jsx_tag(*is_closing),
            Some(Mode::JsxText) => lexer.jsx_text(),
            _ => lexer.code(),
        }
    }
    lexer.lexed.is_sound &= lexer.modes.is_empty();
    lexer.lexed
}

impl Lexer<'_> {
    fn byte(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Takes the bytes up to `end` as one token.
    fn token(&mut self, kind: Kind, end: usize, depth: usize) {
        let end = end.min(self.bytes.len());
        let line = self.line;
        self.lexed.tokens.push(Token {
            kind,
            start: self.at,
            end,
            line,
            depth,
            is_first: self.is_first,
            is_spaced: self.is_spaced,
        });
        self.skip_to(end);
        (self.is_first, self.is_spaced) = (false, false);
    }

    fn skip_to(&mut self, end: usize) {
        let skipped = self.bytes.get(self.at..end).unwrap_or_default();
        self.line += u32::try_from(skipped.split(|byte| *byte == b'\n').count() - 1).unwrap_or(0);
        self.at = end.max(self.at + usize::from(end == self.at));
    }

    fn text_token(&mut self, end: Option<usize>) {
        match end {
            Some(end) => self.token(Kind::Text, end, self.modes.len()),
            None => self.lexed.is_sound = false,
        }
    }

    fn code(&mut self) {
        let byte = self.byte(0);
        let is_python = self.language == Language::Python;
        match byte {
            b'\n' => {
                self.line += 1;
                self.at += 1;
                (self.is_first, self.is_spaced) = (true, true);
            }
            b' ' | b'\t' | b'\r' | b'\x0c' | b'\\' => {
                self.at += 1;
                self.is_spaced = true;
            }
            b'#' if is_python => self.comment(self.line_end()),
            b'/' if !is_python && self.byte(1) == b'/' => self.comment(self.line_end()),
            b'/' if !is_python && self.byte(1) == b'*' => match self.block_comment_end() {
                Some(end) => self.comment(end),
                None => self.lexed.is_sound = false,
            },
            b'\'' if self.language == Language::Rust && !self.is_char_literal() => {
                let end = self.word_end(self.at + 1);
                self.token(Kind::Word, end, self.modes.len());
            }
            b'"' | b'\'' => self.text_token(self.string_end(self.at)),
            b'`' if self.is_javascript() => self.template(self.at + 1),
            b'/' if self.is_javascript() && !self.after_value() => self.text_token(self.regex_end()),
            b'<' if self.starts_jsx() => {
                self.modes.push(Mode::JsxTag { is_closing: false });
                self.token(Kind::Text, self.at + 1, self.modes.len());
            }
            b'0'..=b'9' => self.token(Kind::Number, self.number_end(), self.modes.len()),
            _ if byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$') || byte >= 0x80 => self.word(),
            _ => self.sign(),
        }
    }

    fn is_javascript(&self) -> bool {
        matches!(self.language, Language::JavaScript | Language::TypeScript | Language::Tsx)
    }

    fn comment(&mut self, end: usize) {
        self.lexed.comments += 1;
        self.skip_to(end);
        self.is_spaced = true;
    }

    fn line_end(&self) -> usize {
        self.rest().find('\n').map_or(self.bytes.len(), |length| self.at + length)
    }

    fn block_comment_end(&self) -> Option<usize> {
        let mut depth = 1;
        let mut at = self.at + 2;
        loop {
            match self.bytes.get(at..at + 2)? {
                b"*/" => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                b"/*" if self.language == Language::Rust => {
                    depth += 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
    }

    /// The end of the string that starts at `start` with its quote.
    fn string_end(&self, start: usize) -> Option<usize> {
        let quote = *self.bytes.get(start)?;
        let triple = [quote; 3];
        let is_triple = self.language == Language::Python && self.bytes.get(start..start + 3) == Some(&triple);
        let mut at = start + if is_triple { 3 } else { 1 };
        loop {
            match *self.bytes.get(at)? {
                b'\\' => at += 2,
                b'\n' if !is_triple && self.language != Language::Rust => return None,
                byte if byte == quote && !is_triple => return Some(at + 1),
                byte if byte == quote && self.bytes.get(at..at + 3) == Some(&triple) => return Some(at + 3),
                _ => at += 1,
            }
        }
    }

    fn is_char_literal(&self) -> bool {
        let mut chars = self.text.get(self.at + 1..).unwrap_or_default().chars();
        match chars.next() {
            Some('\\') => true,
            Some(_) => chars.next() == Some('\''),
            None => false,
        }
    }

    /// Goes on in a template, up to its end or its next hole.
    fn template(&mut self, from: usize) {
        let mut at = from;
        loop {
            match self.bytes.get(at) {
                None => {
                    self.lexed.is_sound = false;
                    return;
                }
                Some(b'\\') => at += 2,
                Some(b'`') => return self.token(Kind::Text, at + 1, self.modes.len()),
                Some(b'$') if self.bytes.get(at + 1) == Some(&b'{') => {
                    self.token(Kind::Text, at + 2, self.modes.len());
                    return self.modes.push(Mode::TemplateHole);
                }
                Some(_) => at += 1,
            }
        }
    }

    fn regex_end(&self) -> Option<usize> {
        let mut at = self.at + 1;
        let mut in_class = false;
        loop {
            match *self.bytes.get(at)? {
                b'\n' => return None,
                b'\\' => at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => return Some(self.word_end(at + 1)),
                _ => {}
            }
            at += 1;
        }
    }

    fn word_end(&self, from: usize) -> usize {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80;
        let length = self.bytes.get(from..).unwrap_or_default().iter().take_while(|byte| is_word(byte)).count();
        from + length
    }

    fn number_end(&self) -> usize {
        let mut end = self.word_end(self.at);
        // A range `0..9` and a method `1.max(2)` of Rust are no fractions.
        let is_fraction =
            |end: usize| self.bytes.get(end) == Some(&b'.') && self.bytes.get(end + 1).is_none_or(u8::is_ascii_digit);
        if is_fraction(end) {
            end = self.word_end(end + 1);
        }
        let is_exponent = matches!(self.bytes.get(end.saturating_sub(1)), Some(b'e' | b'E'))
            && matches!(self.bytes.get(end), Some(b'-' | b'+'))
            && !self.rest().starts_with("0x");
        if is_exponent { self.word_end(end + 1) } else { end }
    }

    fn word(&mut self) {
        let end = self.word_end(self.at);
        let word = self.text.get(self.at..end).unwrap_or_default().to_ascii_lowercase();
        let quote = self.bytes.get(end).copied().unwrap_or(0);
        let is_prefix = word.len() <= 2 && word.bytes().all(|byte| b"rbfuct".contains(&byte));
        if self.language == Language::Python && is_prefix && matches!(quote, b'"' | b'\'') {
            return self.text_token(self.string_end(end));
        }
        if self.language == Language::Rust && is_prefix && matches!(quote, b'"' | b'#') && word.contains('r') {
            let hashes = self.bytes.get(end..).unwrap_or_default().iter().take_while(|byte| **byte == b'#').count();
            if self.bytes.get(end + hashes) == Some(&b'"') {
                let closing = format!("\"{}", "#".repeat(hashes));
                let from = end + hashes + 1;
                let found = self.text.get(from..).and_then(|rest| rest.find(&closing));
                return self.text_token(found.map(|at| from + at + closing.len()));
            }
        }
        if self.language == Language::Rust && is_prefix && quote == b'"' {
            return self.text_token(self.string_end(end));
        }
        self.token(Kind::Word, end, self.modes.len());
    }

    fn sign(&mut self) {
        let byte = self.byte(0);
        let opened = match byte {
            b'(' => Some(Mode::Paren),
            b'[' => Some(Mode::Bracket),
            b'{' => Some(Mode::Brace),
            _ => None,
        };
        if let Some(mode) = opened {
            self.token(Kind::Sign, self.at + 1, self.modes.len());
            return self.modes.push(mode);
        }
        if matches!(byte, b')' | b']' | b'}') {
            let closed = self.modes.pop();
            return match (byte, closed) {
                (b'}', Some(Mode::TemplateHole)) => self.template(self.at + 1),
                (b')', Some(Mode::Paren)) | (b']', Some(Mode::Bracket)) | (b'}', Some(Mode::Brace | Mode::JsxHole)) => {
                    self.token(Kind::Sign, self.at + 1, self.modes.len());
                }
                _ => self.lexed.is_sound = false,
            };
        }
        let rest = self.rest();
        let length = SIGNS.iter().find(|sign| rest.starts_with(**sign)).map_or(1, |sign| sign.len());
        self.token(Kind::Sign, self.at + length, self.modes.len());
    }

    /// Whether a slash is a division here, and `<` a comparison.
    fn after_value(&self) -> bool {
        let Some(last) = self.lexed.tokens.last() else { return false };
        let text = self.text.get(last.start..last.end).unwrap_or_default();
        match last.kind {
            Kind::Word => !BEFORE_EXPRESSION.contains(&text),
            Kind::Number => true,
            Kind::Text => !text.ends_with("${"),
            Kind::Sign => matches!(text, ")" | "]" | "}" | "++" | "--"),
        }
    }

    fn starts_jsx(&self) -> bool {
        if !matches!(self.language, Language::JavaScript | Language::Tsx) || self.after_value() {
            return false;
        }
        let next = self.byte(1);
        let after_name = self.text.get(self.word_end(self.at + 1)..).unwrap_or_default().trim_start();
        // `<T,>(x: T) => x` and `<T extends X>` are generic functions.
        next == b'>'
            || (next.is_ascii_alphabetic() && !after_name.starts_with(',') && !after_name.starts_with("extends "))
    }

    fn jsx_tag(&mut self, is_closing: bool) {
        match self.byte(0) {
            b'"' | b'\'' => {
                let quote = char::from(self.byte(0));
                let end = self.text.get(self.at + 1..).and_then(|rest| rest.find(quote));
                self.text_token(end.map(|end| self.at + end + 2));
            }
            b'{' => {
                self.token(Kind::Sign, self.at + 1, self.modes.len());
                self.modes.push(Mode::JsxHole);
            }
            b'/' if self.byte(1) == b'>' => {
                self.modes.pop();
                self.token(Kind::Text, self.at + 2, self.modes.len());
            }
            b'>' => {
                self.modes.pop();
                if is_closing {
                    self.lexed.is_sound &= self.modes.pop() == Some(Mode::JsxText);
                } else {
                    self.modes.push(Mode::JsxText);
                }
                self.token(Kind::Text, self.at + 1, self.modes.len());
            }
            _ => self.skip_to(self.at + 1),
        }
    }

    fn jsx_text(&mut self) {
        match self.byte(0) {
            b'{' => {
                self.token(Kind::Sign, self.at + 1, self.modes.len());
                self.modes.push(Mode::JsxHole);
            }
            b'<' => {
                self.modes.push(Mode::JsxTag { is_closing: self.byte(1) == b'/' });
                self.skip_to(self.at + 1);
                if self.byte(0) == b'/' {
                    self.skip_to(self.at + 1);
                }
            }
            _ => self.skip_to(self.at + 1),
        }
    }
}
