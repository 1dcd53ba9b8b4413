//! What commands print: text with colours, tables, JSON and live progress.

pub mod board;
pub mod color;
pub mod error;
pub mod frame;
pub mod live;
pub mod next;
pub mod state;
pub mod story;
pub mod table;
pub mod time;

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::{Context, Result};
use nofx_local::report::printable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

/// The option `--json` of commands that read.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Format {
    /// Print JSON with the API's own types
    #[arg(long)]
    pub json: bool,
}

const CANNOT_WRITE: &str = "cannot write to standard output";

/// Prints a line. Colours are left out where nobody sees them. An error is that of a closed pipe.
pub fn line(text: impl Display) -> Result<()> {
    writeln!(anstream::stdout().lock(), "{text}").context(CANNOT_WRITE)
}

/// Prints text that ends with a line break or is empty.
pub fn text(text: impl Display) -> Result<()> {
    write!(anstream::stdout().lock(), "{text}").context(CANNOT_WRITE)
}

/// An error, if standard output is a pipe that nobody reads any more. Writing would tell too, but there may be nothing to
/// write for hours.
pub fn check_reader() -> io::Result<()> {
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let is_gone = polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    if is_gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

/// Prints a line beside the result: on standard error, so that a pipe does not get it.
pub fn note(text: impl Display) {
    anstream::eprintln!("{text}");
}

/// Prints an indented JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Prints JSON on one line.
pub fn json_line(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(value)?)
}

/// Lines of a text from outside, without control characters.
pub fn printable_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| printable(&line.replace('\t', "    ")))
}

/// How this program was started, for commands to copy: `nofx`, or the path that was given.
pub fn program() -> String {
    std::env::args().next().map_or_else(|| "nofx".to_owned(), |program| shell_word(&program))
}

/// `1 step`, `2 steps`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// A word that a shell reads as it is: quoted, if it has other characters than letters, digits and a few signs.
pub fn shell_word(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_./:@%+=,".contains(character);
    let word = printable(word);
    if !word.is_empty() && word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_to_copy_is_quoted_if_a_shell_would_split_or_change_it() {
        for (word, expected) in
            [("lint", "lint"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$HOME", "'$HOME'"), ("", "''")]
        {
            assert_eq!(shell_word(word), expected);
        }
    }
}
