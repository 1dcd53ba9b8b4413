//! Splits source text into tokens, well enough to tell code, strings and comments apart.
//!
//! No parser: the files of a change may not even compile. Where a language is ambiguous (a slash after a brace), the
//! choice errs to code. [`ignores`](super::ignores) does not depend on it alone.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// JavaScript and TypeScript.
    Script,
    Python,
    Rust,
    Go,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Word,
    Number,
    /// A string, a piece of a template, a character or a regular expression.
    Text,
    Mark,
    LineComment,
    BlockComment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    /// From 1.
    pub line: u32,
    /// Bytes from the start of the line.
    pub column: u32,
}

impl Token<'_> {
    pub fn is_comment(&self) -> bool {
        matches!(self.kind, TokenKind::LineComment | TokenKind::BlockComment)
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text == word
    }

    pub fn is_mark(&self, mark: char) -> bool {
        self.kind == TokenKind::Mark && self.text.chars().eq([mark])
    }

    /// A string without its prefix and quotes. Any other token as it is.
    pub fn unquoted(&self) -> &str {
        if self.kind != TokenKind::Text {
            return self.text;
        }
        // Prefixes of Python and Rust.
        let text = self.text.trim_start_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '#');
        text.trim_matches(['"', '\'', '`'])
    }
}

pub fn language(path: &str) -> Option<Language> {
    match path.rsplit_once('.')?.1 {
        "ts" | "tsx" | "mts" | "cts" | "js" | "jsx" | "mjs" | "cjs" | "vue" | "svelte" => Some(Language::Script),
        "py" | "pyi" => Some(Language::Python),
        "rs" => Some(Language::Rust),
        "go" => Some(Language::Go),
        _ => None,
    }
}

pub fn tokens(language: Language, text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer {
        language,
        text,
        at: 0,
        line: 1,
        line_start: 0,
        tokens: Vec::new(),
        nesting: Vec::new(),
        closed_head: false,
        unclosed: (0, 0),
    };
    lexer.run();
    lexer.tokens
}

/// The same without comments.
pub fn code(language: Language, text: &str) -> Vec<Token<'_>> {
    let mut tokens = tokens(language, text);
    tokens.retain(|token| !token.is_comment());
    tokens
}

enum Nesting {
    /// A parenthesis. `true` after `if`, `while`, `for` and `with`: a regular expression may follow its end.
    Parenthesis(bool),
    Brace,
    /// A `${` in a template.
    Template,
}

struct Lexer<'a> {
    language: Language,
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
    tokens: Vec<Token<'a>>,
    nesting: Vec<Nesting>,
    closed_head: bool,
    /// A line and how many slashes on it began no regular expression.
    unclosed: (u32, u32),
}

impl<'a> Lexer<'a> {
    fn run(&mut self) {
        if self.language == Language::Script && self.text.starts_with("#!") {
            self.at = self.rest().find('\n').unwrap_or(self.text.len());
        }
        while let Some(letter) = self.rest().chars().next() {
            let rest = self.rest();
            if letter == '\n' {
                self.skip(1);
            } else if letter.is_whitespace() || letter == '\u{feff}' {
                self.at += letter.len_utf8();
            } else if let Some((kind, length)) = self.comment(rest) {
                self.push(kind, length);
            } else if let Some(length) = self.string(rest, letter) {
                self.push(TokenKind::Text, length);
            } else if letter.is_alphabetic()
                || matches!(letter, '_' | '$')
                || (letter == '#' && self.is_private_name(rest))
            {
                let word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$');
                let end =
                    rest.char_indices().skip(1).find(|(_, letter)| !word(*letter)).map_or(rest.len(), |(at, _)| at);
                self.push(TokenKind::Word, end);
            } else if letter.is_ascii_digit() {
                let end = rest
                    .find(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | '.'))
                    .unwrap_or(rest.len());
                self.push(TokenKind::Number, end);
            } else {
                self.mark(letter);
            }
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Moves over bytes and counts their lines.
    fn skip(&mut self, length: usize) {
        let end = (self.at + length).min(self.text.len());
        for (offset, byte) in self.text.as_bytes().get(self.at..end).unwrap_or_default().iter().enumerate() {
            if *byte == b'\n' {
                self.line += 1;
                self.line_start = self.at + offset + 1;
            }
        }
        self.at = end;
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        let column = u32::try_from(self.at - self.line_start).unwrap_or(u32::MAX);
        let text = self.rest().get(..length).unwrap_or_default();
        self.tokens.push(Token { kind, text, line: self.line, column });
        self.skip(length.max(1));
    }

    fn is_private_name(&self, rest: &str) -> bool {
        self.language == Language::Script
            && rest.chars().nth(1).is_some_and(|letter| letter.is_alphabetic() || letter == '_')
    }

    fn previous(&self) -> Option<&Token<'a>> {
        self.tokens.iter().rev().find(|token| !token.is_comment())
    }

    fn comment(&self, rest: &str) -> Option<(TokenKind, usize)> {
        let to_line_end = || (TokenKind::LineComment, rest.find('\n').unwrap_or(rest.len()));
        if self.language == Language::Python {
            return rest.starts_with('#').then(to_line_end);
        }
        if rest.starts_with("//") {
            return Some(to_line_end());
        }
        if !rest.starts_with("/*") {
            return None;
        }
        let mut depth = 0_u32;
        let mut at = 0;
        let bytes = rest.as_bytes();
        while at < bytes.len() {
            match bytes.get(at..at + 2) {
                Some(b"/*") if depth == 0 || self.language == Language::Rust => {
                    depth += 1;
                    at += 2;
                }
                Some(b"*/") => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return Some((TokenKind::BlockComment, at));
                    }
                }
                _ => at += 1,
            }
        }
        Some((TokenKind::BlockComment, rest.len()))
    }

    fn string(&mut self, rest: &str, letter: char) -> Option<usize> {
        match self.language {
            Language::Script => match letter {
                '"' | '\'' => Some(quoted(rest, letter, false)),
                '`' => Some(self.template(rest)),
                '/' if self.may_be_regex() => self.regex(rest),
                _ => None,
            },
            Language::Go => match letter {
                '"' | '\'' => Some(quoted(rest, letter, false)),
                '`' => Some(rest.get(1..)?.find('`').map_or(rest.len(), |end| end + 2)),
                _ => None,
            },
            Language::Python => python_string(rest),
            Language::Rust => rust_string(rest),
        }
    }

    /// From a backtick or the end of an expression to the next expression or the closing backtick.
    fn template(&mut self, rest: &str) -> usize {
        let bytes = rest.as_bytes();
        let mut at = 1;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'\\' => at += 1,
                b'`' => return at + 1,
                b'$' if bytes.get(at + 1) == Some(&b'{') => {
                    self.nesting.push(Nesting::Template);
                    return at + 2;
                }
                _ => {}
            }
            at += 1;
        }
        rest.len()
    }

    /// `None` if the slash divides. On a line with very many slashes that do, all others do too: each one is looked for to
    /// the end of the line.
    fn regex(&mut self, rest: &str) -> Option<usize> {
        const MAX_UNCLOSED: u32 = 100;
        let (line, count) = self.unclosed;
        let count = if line == self.line { count } else { 0 };
        if count >= MAX_UNCLOSED {
            return None;
        }
        let found = regex(rest);
        self.unclosed = (self.line, count + u32::from(found.is_none()));
        found
    }

    fn may_be_regex(&self) -> bool {
        const BEFORE: [&str; 15] = [
            "return",
            "typeof",
            "case",
            "in",
            "of",
            "delete",
            "void",
            "throw",
            "new",
            "default",
            "do",
            "else",
            "yield",
            "await",
            "instanceof",
        ];
        match self.previous() {
            None => true,
            Some(token) => match token.kind {
                TokenKind::Word => BEFORE.contains(&token.text),
                TokenKind::Mark => match token.text {
                    ")" => self.closed_head,
                    "]" | "}" => false,
                    _ => true,
                },
                _ => token.text.ends_with("${"),
            },
        }
    }

    fn mark(&mut self, letter: char) {
        if self.language == Language::Script {
            match letter {
                '(' => {
                    let is_head =
                        self.previous().is_some_and(|token| matches!(token.text, "if" | "while" | "for" | "with"));
                    self.nesting.push(Nesting::Parenthesis(is_head));
                }
                ')' => self.closed_head = matches!(self.nesting.pop(), Some(Nesting::Parenthesis(true))),
                '{' => self.nesting.push(Nesting::Brace),
                '}' => {
                    if matches!(self.nesting.pop(), Some(Nesting::Template)) {
                        let length = self.template(self.rest());
                        return self.push(TokenKind::Text, length);
                    }
                }
                _ => {}
            }
        }
        self.push(TokenKind::Mark, letter.len_utf8());
    }
}

/// The length of a string in quotes. Unless `multiline`, it ends at the end of the line at the latest.
fn quoted(rest: &str, quote: char, multiline: bool) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' if !multiline => return at,
            letter if letter == quote => return at + letter.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `None` if the slash divides: a regular expression ends on its line.
fn regex(rest: &str) -> Option<usize> {
    let (mut escaped, mut in_class) = (false, false);
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '/' if !in_class => {
                let flags = rest.get(at + 1..)?.chars().take_while(char::is_ascii_alphabetic).count();
                return Some(at + 1 + flags);
            }
            _ => {}
        }
    }
    None
}

fn python_string(rest: &str) -> Option<usize> {
    let prefix = rest.bytes().take(3).take_while(|byte| b"rRbBuUfFtT".contains(byte)).count();
    let body = rest.get(prefix..)?;
    for triple in ["\"\"\"", "'''"] {
        if body.starts_with(triple) {
            let mut at = 3;
            while let Some(inner) = body.get(at..) {
                let end = inner.find([triple.chars().next()?, '\\'])?;
                if inner.get(end..)?.starts_with(triple) {
                    return Some(prefix + at + end + 3);
                }
                let step = inner.get(end..)?.chars().take(2).map(char::len_utf8);
                at += end + if inner.get(end..)?.starts_with('\\') { step.sum::<usize>() } else { 1 };
            }
            return Some(rest.len());
        }
    }
    let quote = body.chars().next().filter(|letter| matches!(letter, '"' | '\''))?;
    Some(prefix + quoted(body, quote, false))
}

fn rust_string(rest: &str) -> Option<usize> {
    let prefix = rest.bytes().take(2).take_while(|byte| b"brc".contains(byte)).count();
    let head = rest.get(..prefix)?;
    let body = rest.get(prefix..)?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    if head.contains('r') && body.get(hashes..)?.starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let inner = body.get(hashes + 1..)?;
        return Some(inner.find(&end).map_or(rest.len(), |at| prefix + hashes + 1 + at + end.len()));
    }
    if body.starts_with('"') {
        return Some(prefix + quoted(body, '"', true));
    }
    if !body.starts_with('\'') || head.contains(['r', 'c']) {
        return None;
    }
    let mut letters = body.chars().skip(1);
    let (first, second) = (letters.next()?, letters.next());
    if first == '\\' {
        return Some(prefix + quoted(body, '\'', false));
    }
    // Else it is a lifetime.
    (second == Some('\'')).then(|| prefix + 2 + first.len_utf8())
}

#[cfg(test)]
#[path = "lex_tests.rs"]
mod tests;
