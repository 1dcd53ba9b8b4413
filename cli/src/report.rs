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
