//! Python: comments, strings, logical lines, and `# pragma: no cover`.

use super::lines::{LineKind, Lines, LinesBuilder, Reach};

/// Classifies the lines of a file. Docstrings are code: whether they are statements is for the report to say.
pub fn classify(text: &str) -> Lines {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        line: 1,
        depth: 0,
        builder: LinesBuilder::new(text),
        logical: Vec::new(),
        open: None,
    };
    scanner.run();
    let Scanner { mut builder, logical, .. } = scanner;
    for statement in logical.iter().filter(|statement| statement.import) {
        // A weaker kind does not replace code, so the scanner leaves imports to this.
        builder.mark(statement.first, statement.last, LineKind::Declaration);
    }
    for (at, statement) in logical.iter().enumerate() {
        if let Some(hint) = statement.excluded {
            let reach = Reach { first: decorators(&logical, at), last: suite(&logical, at), never_covers: false };
            builder.hint(hint, &[reach]);
        }
    }
    builder.ranges();
    builder.finish()
}

/// A statement with all of its lines.
#[derive(Debug, Clone, Copy, Default)]
struct Logical {
    first: u32,
    last: u32,
    indent: usize,
    import: bool,
    decorator: bool,
    /// It ends with a colon: a suite follows.
    header: bool,
    /// The line of the comment that excludes it.
    excluded: Option<u32>,
}

/// The first line of the decorators above a statement.
fn decorators(logical: &[Logical], at: usize) -> u32 {
    let own = logical.get(at).map_or(1, |statement| statement.first);
    let above = logical.get(..at).unwrap_or_default().iter().rev();
    above.take_while(|statement| statement.decorator).last().map_or(own, |statement| statement.first)
}

/// The last line of a statement and of its suite.
fn suite(logical: &[Logical], at: usize) -> u32 {
    let rest = logical.get(at..).unwrap_or_default();
    // After decorators comes what they decorate.
    let at = rest.iter().position(|statement| !statement.decorator).unwrap_or(0);
    let rest = rest.get(at..).unwrap_or_default();
    let Some((head, rest)) = rest.split_first() else { return 1 };
    let inside = rest.iter().take_while(|statement| head.header && statement.indent > head.indent);
    inside.last().map_or(head.last, |statement| statement.last)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
    /// Open brackets.
    depth: u32,
    builder: LinesBuilder<'a>,
    logical: Vec<Logical>,
    /// The statement that has begun.
    open: Option<Logical>,
}

impl Scanner<'_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn run(&mut self) {
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\n' => self.newline(false),
                b'\\' if matches!((self.byte(1), self.byte(2)), (Some(b'\n'), _) | (Some(b'\r'), Some(b'\n'))) => {
                    self.code(b'\\', LineKind::Code);
                    self.at += usize::from(self.byte(1) == Some(b'\r')) + 1;
                    self.newline(true);
                }
                b' ' | b'\t' | b'\r' | 0x0C => self.at += 1,
                b'#' => self.comment(),
                b'"' | b'\'' => self.string(byte),
                b'(' | b'[' | b'{' => {
                    self.code(byte, LineKind::Bracket);
                    self.depth += 1;
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    self.code(byte, LineKind::Bracket);
                    self.depth = self.depth.saturating_sub(1);
                    self.at += 1;
                }
                b',' | b';' => {
                    self.code(byte, LineKind::Bracket);
                    self.at += 1;
                }
                _ => self.word(byte),
            }
        }
        self.depth = 0;
        self.end_statement();
    }

    /// `joined`: a backslash joins the next line to this one.
    fn newline(&mut self, joined: bool) {
        self.at += 1;
        self.line += 1;
        if !joined {
            self.end_statement();
        }
    }

    fn end_statement(&mut self) {
        if self.depth == 0
            && let Some(statement) = self.open.take()
        {
            self.logical.push(statement);
        }
    }

    /// Records a byte of code that starts here.
    fn code(&mut self, byte: u8, kind: LineKind) {
        let line = self.line;
        let open = self.open.is_some();
        let (indent, import) = if open { (0, false) } else { (self.indent(), self.starts_import()) };
        let statement = self.open.get_or_insert(Logical {
            first: line,
            indent,
            import,
            decorator: byte == b'@',
            ..Logical::default()
        });
        statement.last = line;
        statement.header = byte == b':';
        // `import a; b()`
        if byte == b';' && statement.import {
            statement.import = false;
            let first = statement.first;
            self.builder.mark(first, line, LineKind::Code);
        }
        let kind = if self.open.as_ref().is_some_and(|statement| statement.import) { LineKind::Bracket } else { kind };
        self.builder.mark(line, line, kind);
    }

    fn indent(&self) -> usize {
        let before = self.bytes.get(..self.at).unwrap_or_default();
        before.iter().rev().take_while(|byte| **byte != b'\n').count()
    }

    fn starts_import(&self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_whitespace();
        match words.next() {
            Some("import") => true,
            Some("from") => words.nth(1) == Some("import"),
            _ => false,
        }
    }

    fn word(&mut self, byte: u8) {
        self.code(byte, LineKind::Code);
        self.at += 1;
        // The bytes of one word, so that the last one decides whether a colon ends the line.
        while let Some(next) =
            self.byte(0).filter(|next| next.is_ascii_alphanumeric() || *next == b'_' || !next.is_ascii())
        {
            self.code(next, LineKind::Code);
            self.at += 1;
        }
    }

    fn comment(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let text = String::from_utf8_lossy(rest.get(..length).unwrap_or_default());
        self.builder.mark(self.line, self.line, LineKind::Comment);
        if is_pragma(&text) {
            let line = self.line;
            if let Some(statement) = self.open.as_mut() {
                statement.excluded = Some(line);
            }
        }
        self.at += length;
    }

    fn string(&mut self, quote: u8) {
        self.code(quote, LineKind::Code);
        let triple = self.byte(1) == Some(quote) && self.byte(2) == Some(quote);
        self.at += if triple { 3 } else { 1 };
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\\' => {
                    self.at += 1;
                    self.at += usize::from(self.byte(0) == Some(b'\r') && self.byte(1) == Some(b'\n'));
                    if self.byte(0) == Some(b'\n') {
                        self.line += 1;
                    }
                }
                b'\n' if !triple => return,
                b'\n' => self.line += 1,
                _ if byte == quote && !triple => break,
                _ if byte == quote && self.byte(1) == Some(quote) && self.byte(2) == Some(quote) => {
                    self.at += 2;
                    break;
                }
                _ => {}
            }
            if byte != b'\n' && !byte.is_ascii_whitespace() {
                self.code(byte, LineKind::Code);
            }
            self.at += 1;
        }
        self.code(quote, LineKind::Code);
        self.at += 1;
    }
}

/// coverage.py's default: `#\s*(pragma|PRAGMA)[:\s]?\s*(no|NO)\s*(cover|COVER)`
fn is_pragma(comment: &str) -> bool {
    let lower = comment.to_lowercase();
    lower.match_indices("pragma").any(|(at, word)| {
        let before = lower.get(..at).unwrap_or_default().trim_end();
        let rest = lower.get(at + word.len()..).unwrap_or_default();
        let rest = rest.strip_prefix([':', ' ', '\t']).unwrap_or(rest).trim_start();
        let cover = rest.strip_prefix("no").map(str::trim_start);
        before.ends_with('#') && cover.is_some_and(|rest| rest.starts_with("cover"))
    })
}
