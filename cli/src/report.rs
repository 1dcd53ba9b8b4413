//! What the command says. Progress goes to stderr, so that `nofx exec` leaves the output of its command alone, and
//! every failure leaves through [`print_error`]: one line, and a hint when somebody knows what to do about it.

use std::{fmt, time::Duration};

/// A failure that knows what the reader can do about it.
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

/// Words of others as they may be shown: what a terminal would obey, or what would hide the rest of the line, is escaped.
pub fn printable(text: &str) -> String {
    let is_obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Prints `error: ...` and, where one is known, `hint: ...`.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    if let Some(hinted) = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()) {
        eprintln!("hint: {}", hinted.hint);
    }
}

/// One line about one part of the stack.
pub fn line(part: &str, message: impl fmt::Display) {
    eprintln!("{part:<10} {message}");
}

/// A line that ends with the time something took.
pub fn took(part: &str, message: impl fmt::Display, time: Duration) {
    line(part, format_args!("{message} ({:.1} s)", time.as_secs_f64()));
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_terminal_gets_no_orders_from_the_words_of_others() {
        assert_eq!(printable("a\u{1b}[31m\r\nb\u{9b}x\u{202e}"), "a\\u{1b}[31m\\r\\nb\\u{9b}x\\u{202e}");
        assert_eq!(printable("Größe: 5 µm – ok"), "Größe: 5 µm – ok");
    }
}
