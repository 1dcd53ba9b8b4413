//! Colours. `anstream` removes them where nobody sees them: in a pipe, with `NO_COLOR`, with `--color never`.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
/// A person has to do something.
pub const WAIT: Style = AnsiColor::Yellow.on_default();
pub const LIVE: Style = AnsiColor::Cyan.on_default();
pub const PLAIN: Style = Style::new();

/// The option `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// On a terminal, unless `NO_COLOR` is set; elsewhere if `CLICOLOR_FORCE` is set
    #[default]
    Auto,
    Always,
    Never,
}

impl Choice {
    /// Decides for the whole process.
    pub fn apply(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// Text in a style.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line without the spaces at its end, also if they are in a style.
pub fn trim_end(line: &str) -> String {
    let mut left = anstream::adapter::strip_str(line).to_string().trim_end().len();
    let mut trimmed = String::with_capacity(line.len());
    for (part, is_escape) in console::AnsiCodeIterator::new(line) {
        let kept = if is_escape { part } else { part.get(..left.min(part.len())).unwrap_or(part) };
        trimmed.push_str(kept);
        if !is_escape {
            left -= kept.len();
        }
    }
    trimmed
}

/// A command to copy.
pub fn command(text: impl Display) -> String {
    paint(BOLD, text)
}

/// The colours of `--help`.
pub fn help() -> clap::builder::Styles {
    clap::builder::Styles::styled()
        .header(BOLD)
        .usage(BOLD)
        .literal(LIVE)
        .placeholder(DIM)
        .error(BAD.bold())
        .valid(GOOD)
        .invalid(WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_at_the_end_are_cut_inside_a_style_too() {
        let line = format!("{}  {}  ", paint(BOLD, "a b "), paint(DIM, "größe   "));
        assert_eq!(trim_end(&line), format!("{}  {}", paint(BOLD, "a b "), paint(DIM, "größe")));
        assert_eq!(trim_end(&paint(DIM, "   ")), paint(DIM, ""));
        assert_eq!(trim_end("plain"), "plain");
    }
}
