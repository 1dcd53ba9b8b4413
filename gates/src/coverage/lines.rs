//! What each line of a source is: blank, comment, brackets, a declaration without code, or code; and which lines ignore
//! comments reach.
//!
//! Lexers, not parsers. They must never call code a comment or a declaration, because those need no tests. The opposite
//! mistake only asks for more tests than needed.

use super::ignore::{Mark, mark};
use super::language::Language;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineKind {
    Blank,
    Comment,
    /// Only brackets, commas and semicolons.
    Bracket,
    /// Types, interfaces, imports and re-exports.
    Declaration,
    Code,
}

/// Whether an ignore comment reaches a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignore {
    No,
    /// The tool leaves the line out of its report.
    Hidden,
    /// The tool writes hits that mean nothing.
    NeverCovers,
}

/// The lines of a file, the first at index 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    pub kinds: Vec<LineKind>,
    /// Empty if no comment ignores anything.
    pub ignored: Vec<Ignore>,
    /// The file has line breaks that languages count and a diff does not (a lone CR, U+2028, U+2029). The line numbers
    /// of a report do not match those of the diff.
    pub unusual_line_breaks: bool,
    /// Line numbers, from 1, of comments that tell coverage tools to ignore code.
    pub ignore_hints: Vec<u32>,
}

impl Lines {
    /// The kind of a line. A line after the end is code.
    pub fn kind(&self, number: u32) -> LineKind {
        at(&self.kinds, number).unwrap_or(LineKind::Code)
    }

    pub fn ignore(&self, number: u32) -> Ignore {
        at(&self.ignored, number).unwrap_or(Ignore::No)
    }

    pub fn has_code(&self) -> bool {
        self.kinds.contains(&LineKind::Code)
    }
}

fn at<T: Copy>(items: &[T], number: u32) -> Option<T> {
    usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).and_then(|at| items.get(at)).copied()
}

/// Classifies the lines of a file by its name.
pub fn classify(path: &str, text: &str) -> Lines {
    match Language::of(path) {
        Some(Language::Script(dialect)) => super::script::classify(text, dialect),
        Some(Language::Python) => super::python::classify(text),
        Some(Language::Plain(syntax)) => super::plain::classify(text, syntax),
        None => {
            let mut builder = LinesBuilder::new(text);
            builder.ranges();
            builder.finish()
        }
    }
}

/// The last line of any file.
pub const LAST_LINE: u32 = u32::MAX;

/// Lines that an ignore comment reaches, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    pub first: u32,
    pub last: u32,
    pub never_covers: bool,
}

pub struct LinesBuilder<'a> {
    text: &'a str,
    blank: Vec<bool>,
    kinds: Vec<Option<LineKind>>,
    ignored: Vec<Ignore>,
    hints: Vec<u32>,
}

impl<'a> LinesBuilder<'a> {
    pub fn new(text: &'a str) -> Self {
        let is_blank = |line: &str| line.chars().all(|c| c.is_whitespace() || c == '\u{feff}');
        let blank: Vec<bool> = text.split_inclusive('\n').map(is_blank).collect();
        Self { text, kinds: vec![None; blank.len()], blank, ignored: Vec::new(), hints: Vec::new() }
    }

    /// Records that something of this kind stands on these lines. The strongest kind of a line counts.
    pub fn mark(&mut self, first: u32, last: u32, kind: LineKind) {
        for place in range(&mut self.kinds, first, last) {
            *place = (*place).max(Some(kind));
        }
    }

    /// The lexer lost its way: everything is code.
    pub fn distrust(&mut self) {
        self.kinds.fill(Some(LineKind::Code));
    }

    pub fn hint(&mut self, line: u32, reaches: &[Reach]) {
        self.hints.push(line);
        for reach in reaches {
            self.ignore(*reach);
        }
    }

    pub fn ignore(&mut self, reach: Reach) {
        self.ignored.resize(self.kinds.len(), Ignore::No);
        let ignore = if reach.never_covers { Ignore::NeverCovers } else { Ignore::Hidden };
        for place in range(&mut self.ignored, reach.first, reach.last) {
            *place = (*place).max(ignore);
        }
    }

    /// Looks for marks of single lines and of ranges.
    pub fn ranges(&mut self) {
        if !["ignore", "nocov", "EXCL_", "node:coverage", "codeCoverage"].iter().any(|text| self.text.contains(text)) {
            return;
        }
        let mut open: Option<Reach> = None;
        for (line, number) in self.text.split_inclusive('\n').zip(1_u32..) {
            let Some(mark) = mark(line) else { continue };
            self.hints.push(number);
            let start = |never_covers| Reach { first: number, last: LAST_LINE, never_covers };
            match (mark, open) {
                (Mark::Line, _) => self.ignore(Reach { last: number, ..start(false) }),
                (Mark::File, _) => self.ignore(Reach { first: 1, ..start(false) }),
                (Mark::Start { never_covers }, None) => open = Some(start(never_covers)),
                (Mark::Flip, None) => open = Some(start(false)),
                (Mark::Stop | Mark::Flip, Some(reach)) => {
                    self.ignore(Reach { last: number, ..reach });
                    open = None;
                }
                (Mark::Start { .. }, Some(_)) | (Mark::Stop, None) => {}
            }
        }
        if let Some(reach) = open {
            self.ignore(reach);
        }
    }

    pub fn finish(mut self) -> Lines {
        self.hints.sort_unstable();
        self.hints.dedup();
        let kind = |(kind, blank): (Option<LineKind>, bool)| {
            if blank { LineKind::Blank } else { kind.unwrap_or(LineKind::Code) }
        };
        Lines {
            kinds: self.kinds.into_iter().zip(self.blank).map(kind).collect(),
            ignored: self.ignored,
            unusual_line_breaks: has_unusual_line_breaks(self.text.as_bytes()),
            ignore_hints: self.hints,
        }
    }
}

fn range<T>(items: &mut [T], first: u32, last: u32) -> impl Iterator<Item = &mut T> {
    let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let end = index(last).min(items.len());
    let start = index(first).saturating_sub(1).min(end);
    items.get_mut(start..end).unwrap_or_default().iter_mut()
}

fn has_unusual_line_breaks(text: &[u8]) -> bool {
    let lone_cr = text.iter().enumerate().any(|(at, byte)| *byte == b'\r' && text.get(at + 1) != Some(&b'\n'));
    lone_cr || text.windows(3).any(|window| matches!(window, [0xE2, 0x80, 0xA8 | 0xA9]))
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
