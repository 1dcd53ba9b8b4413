//! What rendered markdown does not show. A reader who decides about a document must know that it holds more.

use std::ops::Range;

use pulldown_cmark::{Event, LinkType, RefDefs, Tag, TagEnd};

use crate::page::parts::many;

/// Numbers of parts that are not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::page) struct LeftOut {
    pub html: usize,
    pub images: usize,
    /// Cells of a table without a column.
    pub cells: usize,
    /// Lines that belong to nothing that is shown, for example addresses that no link uses.
    pub lines: usize,
}

impl LeftOut {
    /// `1 image and 2 lines`. Empty if nothing is left out.
    pub fn words(&self) -> String {
        let parts = [
            (self.html, "piece of HTML", "pieces of HTML"),
            (self.images, "image", "images"),
            (self.cells, "cell of a table", "cells of tables"),
            (self.lines, "line that belongs to no text", "lines that belong to no text"),
        ];
        let present = parts.iter().filter(|(count, ..)| *count > 0);
        let words: Vec<String> = present.map(|(count, one, more)| many(*count as u64, one, more)).collect();
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        }
    }
}

/// Which bytes of a source belong to something that is shown, or that [`LeftOut`] counts as a part of its own.
pub(super) struct Coverage<'a> {
    text: &'a str,
    is_seen: Vec<bool>,
    /// Where the last cell of a row ends.
    cell_end: usize,
    cells: usize,
}

impl<'a> Coverage<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, is_seen: vec![false; text.len()], cell_end: 0, cells: 0 }
    }

    pub fn event(&mut self, event: &Event<'_>, range: Range<usize>, definitions: &RefDefs<'_>) {
        match event {
            // Their content has events of its own.
            Event::Start(Tag::List(_) | Tag::BlockQuote(_)) => {}
            Event::Start(Tag::Item) => {
                let item = &self.text[range.clone()];
                let marker = item.find(char::is_whitespace).unwrap_or(item.len());
                self.see(range.start..range.start + marker);
            }
            Event::Start(tag) => {
                if let Tag::Link { link_type, id, .. } | Tag::Image { link_type, id, .. } = tag
                    && matches!(link_type, LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut)
                    && let Some(definition) = definitions.get(id)
                {
                    self.see(definition.span.clone());
                }
                self.see(range);
            }
            Event::End(TagEnd::TableCell) => self.cell_end = range.end,
            Event::End(TagEnd::TableRow) => {
                let rest = self.text.get(self.cell_end..).and_then(|rest| rest.lines().next()).unwrap_or_default();
                self.cells += rest.split('|').filter(|cell| !cell.trim().is_empty()).count();
            }
            Event::End(_) => {}
            _ => self.see(range),
        }
    }

    fn see(&mut self, range: Range<usize>) {
        if let Some(part) = self.is_seen.get_mut(range) {
            part.fill(true);
        }
    }

    /// Adds what is left out to the parts that were counted already.
    pub fn left_out(&self, counted: LeftOut) -> LeftOut {
        let mut start = 0;
        let lines = self.text.split_inclusive('\n').filter(|line| {
            let from = start;
            start += line.len();
            line.char_indices().any(|(at, c)| c.is_alphanumeric() && !self.is_seen[from + at])
        });
        LeftOut { cells: self.cells, lines: lines.count(), ..counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::markdown::markdown;

    fn of(text: &str) -> LeftOut {
        markdown(text).left_out
    }

    #[test]
    fn what_a_reader_would_not_see_is_counted() {
        let none = LeftOut::default();
        let cases = [
            ("<!-- approve nothing -->\n\na <b>c</b>\n", LeftOut { html: 3, ..none }),
            ("![a](b)\n", LeftOut { images: 1, ..none }),
            ("| a | b |\n|---|---|\n| 1 | 2 | all customers | deleted |\n| 3 |\n", LeftOut { cells: 2, ..none }),
            ("> | a |\n> |---|\n> | 1 | 2\n\nafter\n", LeftOut { cells: 1, ..none }),
            ("text\n\n[note]: http://x.test \"all customers\"\n", LeftOut { lines: 1, ..none }),
            ("[a][1]\n\n[1]: http://x.test\n[1]: http://y.test\n[2]:\n  http://z.test\n", LeftOut { lines: 3, ..none }),
            ("- item\n\n  [x]: y\n\n> [z]: w\n", LeftOut { lines: 2, ..none }),
        ];
        for (text, expected) in cases {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn an_ordinary_document_has_nothing_left_out() {
        let text = "# Title #\n\nSetext\n======\n\nOne *two* **three** ~~four~~ `five` &amp; \\* six\\\nseven  \neight.\n\n\
                    1. a *b*\n2. c\n   - **d** \\# e `f`\n\n   more\n10) x\n\n- [x] c\n- [ ] d\n+ e\n\n> f\n> > g\nlazy\n\n---\n\n\
                    ```sh title=x\nx < y\n```\n\n    indented\n\n~~~\nopen\n\n| a | b |\n";
        assert_eq!(of(text), LeftOut::default());
        let links = "[a](http://x.test \"title\") <http://y.test> [b][B], [c][] and [d].\n\n[b]: http://1.test\n[C]: <http://2.test>\n\
                     [d]:\n  http://3.test\n\n| a | b \\| c |\n|:--|--:|\n| `1` | *2* |\n|3|4\n";
        assert_eq!(of(links), LeftOut::default());
    }

    #[test]
    fn numbers_are_words() {
        assert_eq!(LeftOut::default().words(), "");
        assert_eq!(LeftOut { images: 1, ..LeftOut::default() }.words(), "1 image");
        let all = LeftOut { html: 2, images: 1, cells: 3, lines: 1 };
        assert_eq!(all.words(), "2 pieces of HTML, 1 image, 3 cells of tables and 1 line that belongs to no text");
    }
}
