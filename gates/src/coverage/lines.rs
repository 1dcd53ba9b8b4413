//! Classifies each line of a TypeScript or JavaScript file: blank, comment, brackets or code.
//!
//! This is a lexer, not a parser. It must never classify code as a comment, because comments need no tests. The opposite
//! mistake only requires more tests than needed. So if a file ends inside a comment, all its lines count as code. And if
//! a statement starts on a line, the judge treats it as code, even if it is a `Comment` here.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    Blank,
    Comment,
    /// Only brackets, commas and semicolons.
    Bracket,
    Code,
}

/// The lines of a file, the first at index 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    pub kinds: Vec<LineKind>,
    /// The file has line breaks that JavaScript counts and a diff does not (a lone CR, U+2028, U+2029). The line numbers
    /// of a report do not match those of the diff.
    pub unusual_line_breaks: bool,
    /// Line numbers, from 1, of comments that tell coverage tools to ignore code.
    pub ignore_hints: Vec<u32>,
}

/// Classifies the lines of a file.
pub fn classify(text: &[u8]) -> Lines {
    let mut lexer = Lexer {
        text,
        at: 0,
        mode: Mode::Code,
        braces: Vec::new(),
        previous: PreviousToken::Start,
        line: LineContents::default(),
        kinds: Vec::new(),
    };
    lexer.run();
    let unfinished = matches!(lexer.mode, Mode::Block);
    let mut kinds = lexer.kinds;
    if unfinished {
        kinds.iter_mut().filter(|kind| **kind != LineKind::Blank).for_each(|kind| *kind = LineKind::Code);
    }
    Lines { kinds, unusual_line_breaks: has_unusual_line_breaks(text), ignore_hints: ignore_hints(text) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Code,
    Block,
    Template,
}

/// The previous token. It decides whether a slash is a division or starts a regular expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PreviousToken {
    Start,
    Value,
    Operator,
}

#[derive(Default)]
struct LineContents {
    code: bool,
    bracket: bool,
    comment: bool,
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    mode: Mode,
    /// Open braces; `true` for those of a `${` in a template.
    braces: Vec<bool>,
    previous: PreviousToken,
    line: LineContents,
    kinds: Vec<LineKind>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        if self.text.starts_with(b"#!") {
            self.skip_line_comment();
        }
        while let Some(&byte) = self.text.get(self.at) {
            if byte == b'\n' {
                self.end_line();
                self.at += 1;
            } else {
                match self.mode {
                    Mode::Code => self.code(byte),
                    Mode::Block => self.block(byte),
                    Mode::Template => self.template(byte),
                }
            }
        }
        if !self.text.is_empty() && !self.text.ends_with(b"\n") {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        self.kinds.push(match std::mem::take(&mut self.line) {
            LineContents { code: true, .. } => LineKind::Code,
            LineContents { bracket: true, .. } => LineKind::Bracket,
            LineContents { comment: true, .. } => LineKind::Comment,
            LineContents { .. } => LineKind::Blank,
        });
    }

    fn next_is(&self, byte: u8) -> bool {
        self.text.get(self.at + 1) == Some(&byte)
    }

    fn code(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' => self.at += 1,
            b'/' if self.next_is(b'/') => self.skip_line_comment(),
            b'/' if self.next_is(b'*') => {
                self.line.comment = true;
                self.mode = Mode::Block;
                self.at += 2;
            }
            b'/' if self.previous != PreviousToken::Value && self.skip_regex() => self.value(),
            b'"' | b'\'' => self.skip_string(byte),
            b'`' => {
                self.line.code = true;
                self.mode = Mode::Template;
                self.at += 1;
            }
            b'{' | b'(' | b'[' | b')' | b']' | b'}' | b',' | b';' => self.bracket(byte),
            _ if is_word(byte) => self.word(),
            _ => {
                self.line.code = true;
                self.previous = PreviousToken::Operator;
                self.at += 1;
            }
        }
    }

    fn bracket(&mut self, byte: u8) {
        self.line.bracket = true;
        self.at += 1;
        match byte {
            b'{' => self.braces.push(false),
            b'}' if self.braces.pop() == Some(true) => {
                self.line.code = true;
                self.mode = Mode::Template;
            }
            _ => {}
        }
        // A slash after `)` is a division or, after `if (...)`, a regular expression. Treating it as a division matters
        // only if the expression contains quotes or `/*`. Then too many lines count as code, or the report corrects it.
        self.previous = if matches!(byte, b')' | b']') { PreviousToken::Value } else { PreviousToken::Operator };
    }

    fn word(&mut self) {
        const BEFORE_EXPRESSION: [&[u8]; 13] = [
            b"return", b"typeof", b"case", b"in", b"of", b"delete", b"void", b"throw", b"new", b"else", b"do",
            b"await", b"yield",
        ];
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        self.line.code = true;
        self.previous = if BEFORE_EXPRESSION.contains(&word) { PreviousToken::Operator } else { PreviousToken::Value };
        self.at += length;
    }

    fn value(&mut self) {
        self.line.code = true;
        self.previous = PreviousToken::Value;
    }

    fn skip_line_comment(&mut self) {
        self.line.comment = true;
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }

    /// Skips to the closing quote or to the end of the line. Only an escaped line break continues the string.
    fn skip_string(&mut self, quote: u8) {
        self.value();
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\n' => return,
                b'\\' => {
                    self.at += 1;
                    if self.text.get(self.at) == Some(&b'\r') && self.next_is(b'\n') {
                        self.at += 1;
                    }
                    if self.text.get(self.at) == Some(&b'\n') {
                        self.end_line();
                        self.line.code = true;
                    }
                }
                _ if byte == quote => {
                    self.at += 1;
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Skips a regular expression. Returns `false`, and skips nothing, if the slash does not start one.
    fn skip_regex(&mut self) -> bool {
        let mut in_class = false;
        let mut at = self.at + 1;
        while let Some(&byte) = self.text.get(at) {
            match byte {
                b'\n' => return false,
                b'\\' if self.text.get(at + 1) != Some(&b'\n') => at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => {
                    self.at = at + 1;
                    return true;
                }
                _ => {}
            }
            at += 1;
        }
        false
    }

    fn block(&mut self, byte: u8) {
        if byte == b'*' && self.next_is(b'/') {
            self.mode = Mode::Code;
            self.at += 1;
        }
        if !byte.is_ascii_whitespace() {
            self.line.comment = true;
        }
        self.at += 1;
    }

    fn template(&mut self, byte: u8) {
        if !byte.is_ascii_whitespace() {
            self.line.code = true;
        }
        match byte {
            b'\\' if !matches!(self.text.get(self.at + 1), Some(b'\n' | b'\r')) => self.at += 1,
            b'`' => {
                self.mode = Mode::Code;
                self.previous = PreviousToken::Value;
            }
            b'$' if self.next_is(b'{') => {
                self.at += 1;
                self.braces.push(true);
                self.mode = Mode::Code;
                self.previous = PreviousToken::Operator;
            }
            _ => {}
        }
        self.at += 1;
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#' | b'@') || !byte.is_ascii()
}

fn has_unusual_line_breaks(text: &[u8]) -> bool {
    let lone_cr = text.iter().enumerate().any(|(at, byte)| *byte == b'\r' && text.get(at + 1) != Some(&b'\n'));
    lone_cr || text.windows(3).any(|window| matches!(window, [0xE2, 0x80, 0xA8 | 0xA9]))
}

fn ignore_hints(text: &[u8]) -> Vec<u32> {
    const HINTS: [&[u8]; 3] = [b"istanbul ignore", b"v8 ignore", b"c8 ignore"];
    let has_hint = |line: &[u8]| HINTS.iter().any(|hint| line.windows(hint.len()).any(|window| window == *hint));
    let numbered = text.split(|byte| *byte == b'\n').zip(1_u32..);
    numbered.filter(|(line, _)| has_hint(line)).map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One character per line: `_` blank, `/` comment, `)` bracket, `x` code.
    fn kinds(text: &str) -> String {
        let letter = |kind: &LineKind| match kind {
            LineKind::Blank => '_',
            LineKind::Comment => '/',
            LineKind::Bracket => ')',
            LineKind::Code => 'x',
        };
        classify(text.as_bytes()).kinds.iter().map(letter).collect()
    }

    #[test]
    fn blank_comment_and_bracket_lines_are_not_code() {
        assert_eq!(kinds("\n  \t\r\n// a\n/* b\n\n b */\n});\nlet a = 1; // c\n} // d\n/* e */ f()\n"), "__//_/)x)x");
    }

    #[test]
    fn the_last_line_needs_no_line_break() {
        assert_eq!(kinds("a()"), "x");
        assert_eq!(kinds("a()\n"), "x");
        assert_eq!(kinds(""), "");
    }

    #[test]
    fn comment_marks_in_strings_templates_and_regexes_do_not_start_comments() {
        assert_eq!(kinds("const a = '/*';\nb();\nconst c = \"*/\";\n"), "xxx");
        assert_eq!(kinds("const a = `/*\n//\n${b /* c\n */}\n`;\nd();\n"), "xxx)xx".replace(')', "x").as_str());
        assert_eq!(kinds("const a = /[/*]/;\nb();\nc(/\\/*/);\nd();\n// */\n"), "xxxx/");
        assert_eq!(kinds("``(/\\\n/"), "xx");
        assert_eq!(kinds("return /[/*]/\nb()\n// */"), "xx/");
    }

    #[test]
    fn a_division_is_not_a_regular_expression() {
        assert_eq!(kinds("const a = b / c; // d / e\n// f\ng(a) / 2; /* h */\n/* i */\n"), "x/x/");
    }

    #[test]
    fn an_apostrophe_in_markup_affects_only_its_own_line() {
        assert_eq!(kinds("<p>Don't</p>\n// a\nb()\n"), "x/x");
    }

    #[test]
    fn a_file_that_ends_inside_a_comment_is_all_code() {
        assert_eq!(kinds("<p>/* x</p>\n// a\nb()\n\n"), "xxx_");
    }

    #[test]
    fn nested_templates_are_tracked() {
        assert_eq!(kinds("const a = `${b({ c: `${d}` })}`;\n// e\n"), "x/");
        assert_eq!(kinds("const a = `x`\n}\n// e\n"), "x)/");
    }

    #[test]
    fn a_string_continues_only_after_an_escaped_line_break() {
        assert_eq!(kinds("const a = 'b \\\n/* c';\nd();\n"), "xxx");
        assert_eq!(kinds("const a = 'b \\\r\n/* c';\nd();\n"), "xxx");
    }

    #[test]
    fn line_breaks_that_a_diff_does_not_count_are_detected() {
        assert!(classify(b"a\rb\n").unusual_line_breaks);
        assert!(classify("a\u{2028}b\n".as_bytes()).unusual_line_breaks);
        assert!(!classify(b"a\r\nb\n").unusual_line_breaks);
    }

    #[test]
    fn comments_that_turn_coverage_off_are_detected() {
        assert_eq!(classify(b"a\n/* istanbul ignore next */\nb\n// v8 ignore start\n").ignore_hints, [2, 4]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_one_kind_per_line(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let lines = text.split_inclusive(|byte| *byte == b'\n').count();
            prop_assert_eq!(classify(&text).kinds.len(), lines);
        }

        #[test]
        fn any_source_like_text_gives_one_kind_per_line(text in "[a/*`'\"\\\\${}()\\[\\]\n\r ]{0,120}") {
            let lines = text.split_inclusive('\n').count();
            prop_assert_eq!(classify(text.as_bytes()).kinds.len(), lines);
        }

        #[test]
        fn a_comment_appended_to_a_whole_program_is_a_comment(name in "[a-z]{1,8}") {
            let program = format!("const {name} = '{name}';\n// {name}\n/* {name} */\n");
            prop_assert_eq!(kinds(&program), "x//");
        }
    }
}
