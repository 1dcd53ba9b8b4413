//! JSX inside code: `//` and `/*` in its text start no comment.

use super::lexer::{Bracket, Lexer, State, TokenKind, is_word};

impl Lexer<'_> {
    /// Whether the `<` here starts an element, and not a generic function or a type.
    pub(super) fn starts_jsx(&self) -> bool {
        if !self.dialect.jsx {
            return false;
        }
        let rest = self.rest().get(1..).unwrap_or_default();
        if rest.starts_with('>') {
            return true;
        }
        let name = rest.split(|c: char| !(c.is_alphanumeric() || "_$.:-".contains(c))).next().unwrap_or_default();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        if !self.dialect.types {
            return true;
        }
        let after = rest.get(name.len()..).unwrap_or_default().trim_start();
        // `<T,>(x: T) => x`, `<T extends U>(x: T) => x` and `<const T>` are generic functions.
        let generic = after.starts_with(',') || after.starts_with('=') || name == "const";
        let constrained = after.strip_prefix("extends").is_some_and(|rest| {
            rest.starts_with(char::is_whitespace) && !rest.trim_start().starts_with(['=', '>', '/'])
        });
        // `<T>(x: T) => U` is a type, unless the element ends somewhere.
        let signature = after.strip_prefix('>').is_some_and(|rest| rest.trim_start().starts_with('('))
            && !rest.contains(&format!("</{name}"));
        !(generic || constrained || signature)
    }

    pub(super) fn open_jsx(&mut self) {
        self.push_open(Bracket::Jsx, State::JsxTag { closing: false }, 1);
    }

    pub(super) fn jsx_tag(&mut self, closing: bool) {
        if self.white_space() || self.comment() {
            return;
        }
        let Some(byte) = self.byte(0) else { return };
        match byte {
            b'/' if self.byte(1) == Some(b'>') => self.push_close(2),
            b'>' if closing => self.push_close(1),
            b'>' => {
                self.mark(1);
                if let Some(frame) = self.open.last_mut() {
                    frame.state = State::JsxText;
                }
            }
            b'{' => self.push_open(Bracket::Container, State::Code, 1),
            b'"' | b'\'' => self.attribute(byte),
            // An attribute's value may be an element, and a component may have type arguments.
            b'<' if self.lexed.tokens.last().is_some_and(|token| token.text(self.text) == "=") => self.open_jsx(),
            b'<' => self.type_arguments(),
            _ if is_word(byte) => self.word(),
            _ => self.mark(1),
        }
    }

    pub(super) fn jsx_text(&mut self) {
        match self.byte(0) {
            Some(b'{') => return self.push_open(Bracket::Container, State::Code, 1),
            Some(b'<') if self.byte(1) == Some(b'/') => {
                self.mark(2);
                if let Some(frame) = self.open.last_mut() {
                    frame.state = State::JsxTag { closing: true };
                }
                return;
            }
            Some(b'<') => return self.open_jsx(),
            _ => {}
        }
        if self.white_space() {
            return;
        }
        let (start, line) = (self.at, self.line);
        while self.byte(0).is_some_and(|byte| !matches!(byte, b'{' | b'<' | b'\n')) {
            self.at += 1;
        }
        self.push(TokenKind::Literal, start, line);
    }

    fn mark(&mut self, length: usize) {
        let start = self.at;
        self.at += self.rest().chars().take(length).map(char::len_utf8).sum::<usize>().max(1);
        self.push(TokenKind::Operator, start, self.line);
    }

    /// A string of an attribute has no escapes and may have several lines.
    fn attribute(&mut self, quote: u8) {
        let (start, line) = (self.at, self.line);
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            if byte == b'\n' {
                self.newline();
            } else {
                self.at += 1;
                if byte == quote {
                    break;
                }
            }
        }
        self.push(TokenKind::Literal, start, line);
    }

    fn type_arguments(&mut self) {
        let mut depth = 0_u32;
        let start = self.at;
        let line = self.line;
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\n' => {
                    self.newline();
                    continue;
                }
                b'<' => depth += 1,
                b'>' if self.at > start && self.bytes.get(self.at - 1) != Some(&b'=') => {
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        self.push(TokenKind::Operator, start, line);
    }
}
