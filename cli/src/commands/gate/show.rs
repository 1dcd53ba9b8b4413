//! What a person sees of a verdict: colours on a terminal, and source lines with their surroundings.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use nofx_local::report::printable;

/// How many places are shown with their source.
pub const MAX_CONTEXTS: usize = 20;
/// Lines around a place.
const AROUND: u32 = 2;

/// Colours, if standard output is a terminal and `NO_COLOR` is not set (no-color.org).
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colored: bool,
}

impl Style {
    pub fn of_stdout() -> Self {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colored: std::io::stdout().is_terminal() && !is_refused }
    }

    /// Text with the parameters of an escape sequence (ECMA-48, SGR).
    pub fn paint(self, code: &str, text: &str) -> String {
        if self.colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Prints a line of a file with the lines around it, as the checkout has them now.
pub fn source_context(root: &Path, file: &str, line: u32, style: Style) {
    println!("  {}:{line}", printable(file));
    let Ok(text) = fs::read(root.join(file)) else { return };
    let text = String::from_utf8_lossy(&text);
    let first = line.saturating_sub(AROUND).max(1);
    let lines = (first..=line.saturating_add(AROUND)).zip(text.lines().skip(usize::try_from(first - 1).unwrap_or(0)));
    for (number, source) in lines {
        let row = format!("  {number:>6} | {}", printable(source));
        println!("{}", if number == line { style.paint("31", &row) } else { row });
    }
}

/// Each line with two blanks before it.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {}", printable(line))).collect::<Vec<_>>().join("\n")
}
