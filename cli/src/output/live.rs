//! Draws live lines at the end of a terminal. Lines that stay are printed above them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::frame::{Size, fitted};

/// How often the terminal is drawn at most.
const DRAWS_PER_S: u8 = 20;
/// A terminal shows what is between these marks at once. Those that do not know them ignore them.
const BEGIN_UPDATE: &str = "\x1b[?2026h";
const END_UPDATE: &str = "\x1b[?2026l";

/// Live lines on standard output.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
    canvas: Canvas,
    has_colors: bool,
    /// Lines that stay and are not printed yet.
    pending: Vec<String>,
    /// How many lines are drawn, and for which width.
    drawn: usize,
    width: usize,
}

impl Live {
    pub fn start() -> Self {
        let canvas = Canvas { term: Term::stdout(), text: Arc::default() };
        let bar = ProgressBar::with_draw_target(None, target(&canvas));
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        let has_colors = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        let mut live = Self { bar, canvas, has_colors, pending: Vec::new(), drawn: 0, width: 0 };
        live.width = live.size().width;
        live
    }

    pub fn size(&self) -> Size {
        let (height, width) = self.canvas.term.size();
        Size { width: width.into(), height: height.into() }
    }

    /// Prints a line that stays, with the next picture.
    pub fn print(&mut self, line: &str) {
        self.pending.push(self.painted(line));
    }

    /// Draws the live lines.
    pub fn draw(&mut self, lines: &[String]) {
        let width = self.size().width;
        if width != self.width {
            self.clear_wrapped(width);
        }
        (self.width, self.drawn) = (width, lines.len());
        self.bar.set_message(self.painted(&lines.join("\n")));
        self.print_pending();
        self.canvas.show();
    }

    /// The text as this terminal wants it.
    fn painted(&self, text: &str) -> String {
        if self.has_colors { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() }
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
            let mut text = self.canvas.text();
            for line in pending {
                let _ = writeln!(text, "{}", fitted(&line, width));
            }
        });
    }

    /// A terminal of another width has wrapped the lines that are drawn. indicatif fills each with spaces and counts
    /// those that it drew, so they are cleared here, and it starts anew.
    fn clear_wrapped(&self, width: usize) {
        let rows = wrapped(self.drawn, self.width, width);
        let _ = self.canvas.move_cursor_up(rows.saturating_sub(1));
        self.canvas.text().push_str("\r\x1b[0J");
        self.bar.set_draw_target(target(&self.canvas));
    }

    /// Removes the live lines. What stays is printed.
    pub fn end(&mut self) {
        self.print_pending();
        self.bar.finish_and_clear();
        self.canvas.show();
    }
}

fn target(canvas: &Canvas) -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(canvas.clone()), DRAWS_PER_S)
}

/// Keeps what indicatif draws until the whole picture is there. indicatif clears and draws in several steps, and a
/// terminal that shows each of them flickers.
#[derive(Clone, Debug)]
struct Canvas {
    term: Term,
    text: Arc<Mutex<String>>,
}

impl Canvas {
    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what was drawn in one piece.
    fn show(&self) {
        let drawn = std::mem::take(&mut *self.text());
        if drawn.is_empty() {
            return;
        }
        // `Stdout` would write the lines first and the rest after them. An error of the terminal shows when the next
        // line is printed without it.
        let Ok(out) = io::stdout().as_fd().try_clone_to_owned() else { return };
        let _ = File::from(out).write_all(format!("{BEGIN_UPDATE}{drawn}{END_UPDATE}").as_bytes());
    }

    fn escape(&self, count: usize, what: char) {
        if count > 0 {
            let _ = write!(self.text(), "\x1b[{count}{what}");
        }
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        self.term.size().1
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'D');
        Ok(())
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        let mut text = self.text();
        text.push_str(s);
        text.push('\n');
        Ok(())
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.text().push_str(s);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.text().push_str("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
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
