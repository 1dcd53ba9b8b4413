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
    term: Term,
    /// What is drawn, and for which width.
    drawn: Vec<usize>,
    width: usize,
}

impl Live {
    pub fn start() -> Self {
        let term = Term::stdout();
        let target = ProgressDrawTarget::term(term.clone(), DRAWS_PER_S);
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        let mut live = Self { bar, term, drawn: Vec::new(), width: 0 };
        live.width = live.size().width;
        live
    }

    pub fn size(&self) -> Size {
        let (height, width) = self.term.size();
        Size { width: width.into(), height: height.into() }
    }

    /// Prints a line that stays.
    pub fn print(&self, line: &str) {
        self.bar.println(fitted(line, self.size().width));
    }

    /// Draws the live lines.
    pub fn draw(&mut self, lines: &[String]) {
        let width = self.size().width;
        if width < self.width {
            self.clear_wrapped(width);
        }
        self.width = width;
        self.drawn = lines.iter().map(|line| console::measure_text_width(line)).collect();
        self.bar.set_message(lines.join("\n"));
        self.bar.tick();
    }

    /// A terminal that became narrower has wrapped the lines that are drawn. indicatif counts those that it drew, so
    /// the others are cleared here.
    fn clear_wrapped(&self, width: usize) {
        let rows: usize = self.drawn.iter().map(|line| line.div_ceil(width.max(1)).max(1)).sum();
        let extra = rows.saturating_sub(self.drawn.len());
        // An error of the terminal shows when the next line is printed.
        let _ = self.term.move_cursor_up(extra);
        self.bar.suspend(|| {
            let _ = self.term.clear_to_end_of_screen();
        });
    }

    /// Removes the live lines.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
