//! Output of the command. Progress goes to stderr, so that `nofx exec` does not mix it with the output of its command.
//! Every failure is printed by [`print_error`]: one line, and a hint if one is known.

use std::fmt;
use std::time::Duration;

use shared::domain::hidden;

/// An error with a hint for the reader.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// An error with a hint.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { message: message.into(), hint: hint.into() })
}

/// What the reader can do about an error.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()).map(|hinted| hinted.hint.as_str())
}

/// `text` for a terminal. Text from outside may contain control characters that move the cursor, hide text or change
/// its direction. They are shown as escapes (`\u{1b}`), line breaks and tabs too.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for (character, is_hidden) in hidden::characters(text) {
        if character.is_control() || is_hidden {
            printable.extend(character.escape_unicode());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// [`printable`] for each line, because our own messages may have several lines.
fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Prints `error: ...` and, if there is a hint, `hint: ...`.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("error: {}", printable_lines(&format!("{error:#}")));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {}", printable_lines(hint));
    }
}

/// Prints a line about a part of the stack.
pub fn line(part: &str, message: impl fmt::Display) {
    eprintln!("{part:<10} {}", printable_lines(&message.to_string()));
}

/// Prints a line that ends with a duration.
pub fn took(part: &str, message: impl fmt::Display, time: Duration) {
    line(part, format_args!("{message} ({:.1} s)", time.as_secs_f64()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_from_outside_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("\r\n\t\0\u{7f}\u{9b}"), "\\u{d}\\u{a}\\u{9}\\u{0}\\u{7f}\\u{9b}");
        assert_eq!(printable("\u{202e}gpj.exe\u{2066}\u{200f}\u{2028}"), "\\u{202e}gpj.exe\\u{2066}\\u{200f}\\u{2028}");
    }

    #[test]
    fn ordinary_text_stays_unchanged() {
        for text in ["goal: größer, 漢字, שלום", "🧪 👩‍🔬 done", ""] {
            assert_eq!(printable(text), text);
        }
        assert_eq!(printable_lines("one\ntwo\u{1b}"), "one\ntwo\\u{1b}");
    }
}
