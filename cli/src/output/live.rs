//! Draws live lines at the end of a terminal. Lines that stay are printed above them.

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::frame::{Size, fitted};

/// How often the terminal is drawn at most.
const DRAWS_PER_S: u8 = 20;

/// Live lines on standard output.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
    /// Keeps what is written until it is flushed, so that the terminal never shows half a picture.
    term: Term,
    /// Lines that stay and are not printed yet.
    pending: Vec<String>,
    /// How many lines are drawn, and for which width.
    drawn: usize,
    width: usize,
}

impl Live {
    pub fn start() -> Self {
        let term = Term::buffered_stdout();
        let bar = ProgressBar::with_draw_target(None, target(&term));
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        let mut live = Self { bar, term, pending: Vec::new(), drawn: 0, width: 0 };
        live.width = live.size().width;
        live
    }

    pub fn size(&self) -> Size {
        let (height, width) = self.term.size();
        Size { width: width.into(), height: height.into() }
    }

    /// Prints a line that stays, with the next picture.
    pub fn print(&mut self, line: String) {
        self.pending.push(line);
    }

    /// Draws the live lines.
    pub fn draw(&mut self, lines: &[String]) {
        let width = self.size().width;
        if width != self.width {
            self.clear_wrapped(width);
        }
        (self.width, self.drawn) = (width, lines.len());
        self.bar.set_message(lines.join("\n"));
        self.print_pending();
    }

    /// Prints above the live lines. The bar itself would fill each line with spaces instead of ending it, and a reader
    /// would copy them all as one.
    fn print_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let width = self.size().width;
        let pending = std::mem::take(&mut self.pending);
        self.bar.suspend(|| {
            for line in pending {
                let _ = self.term.write_line(&fitted(&line, width));
            }
        });
        let _ = self.term.flush();
    }

    /// A terminal of another width has wrapped the lines that are drawn. indicatif fills each with spaces and counts
    /// those that it drew, so they are cleared here, and it starts anew.
    fn clear_wrapped(&self, width: usize) {
        let rows = wrapped(self.drawn, self.width, width);
        // An error of the terminal shows when the next line is printed without it.
        let _ = self.term.move_cursor_up(rows.saturating_sub(1));
        let _ = self.term.write_str("\r");
        let _ = self.term.clear_to_end_of_screen();
        self.bar.set_draw_target(target(&self.term));
    }

    /// Removes the live lines. What stays is printed.
    pub fn end(&mut self) {
        self.print_pending();
        self.bar.finish_and_clear();
    }
}

fn target(term: &Term) -> ProgressDrawTarget {
    ProgressDrawTarget::term(term.clone(), DRAWS_PER_S)
}

/// The rows that `lines` full lines take after the width of the terminal has changed. They have no line breaks between
/// them, so the terminal wraps them as one.
fn wrapped(lines: usize, before: usize, now: usize) -> usize {
    (lines * before).div_ceil(now.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_lines_are_wrapped_as_one() {
        for (lines, before, now, rows) in
            [(0, 80, 40, 0), (3, 80, 80, 3), (3, 80, 50, 5), (22, 50, 100, 11), (1, 80, 81, 1), (1, 1, 0, 1)]
        {
            assert_eq!(wrapped(lines, before, now), rows, "{lines} lines of {before} in {now}");
        }
    }
}
