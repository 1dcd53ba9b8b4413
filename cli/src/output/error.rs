//! Failures: what is wrong, then what to do.

use std::fmt::Write;
use std::io::ErrorKind;
use std::process::ExitCode;

use nofx_local::report::{hint, printable};

use super::color::{BAD, LIVE, paint};
use crate::client::error::{ApiError, Kind};

/// Failure, or the run did not succeed.
pub const FAILED: u8 = 1;
/// Wrong usage. clap exits with it too.
pub const USAGE: u8 = 2;
/// The run waits for a decision, and `--exit-when-blocked` is given.
pub const BLOCKED: u8 = 4;
/// What was named does not exist.
pub const NOT_FOUND: u8 = 5;
/// Nothing answers at the API's address.
pub const NO_CONNECTION: u8 = 6;
/// `nofx verify`: the attestation holds, and the gate did not pass.
pub const NOT_PASSED: u8 = 7;
/// The API does not know who asks.
pub const NOT_LOGGED_IN: u8 = 8;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Prints an error with its hint, and returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let is_closed = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed)) {
        // As with `nofx runs | head -1`: the reader has what it wanted.
        return ExitCode::SUCCESS;
    }
    anstream::eprint!("{}", text(error));
    ExitCode::from(code(error))
}

fn text(error: &anyhow::Error) -> String {
    let lines = |text: &str| text.split('\n').map(printable).collect::<Vec<_>>().join("\n");
    let mut text = format!("{} {}\n", paint(BAD.bold(), "error:"), lines(&format!("{error:#}")));
    let of_api = error.chain().find_map(|cause| cause.downcast_ref::<ApiError>());
    if let Some(hint) = of_api.and_then(|error| error.hint.as_deref()).or_else(|| hint(error)) {
        let _ = writeln!(text, "{} {}", paint(LIVE, "hint:"), lines(hint));
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    match error.chain().find_map(|cause| cause.downcast_ref::<ApiError>()).map(|error| error.kind) {
        Some(Kind::NotFound) => NOT_FOUND,
        Some(Kind::NotLoggedIn) => NOT_LOGGED_IN,
        Some(Kind::Unreachable | Kind::NoAnswer) => NO_CONNECTION,
        Some(Kind::Refused) | None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use nofx_local::report::hinted;

    use super::*;

    #[test]
    fn an_error_says_what_to_do_and_has_its_exit_code() {
        let missing = ApiError::not_found("there is no run 0199", "nofx runs lists them");
        let error = Err::<(), _>(missing).context("cannot watch").unwrap_err();
        let plain = anstream::adapter::strip_str(&text(&error)).to_string();
        assert_eq!(plain, "error: cannot watch: there is no run 0199\nhint: nofx runs lists them\n");
        assert_eq!(code(&error), NOT_FOUND);

        let error = hinted("a\u{1b}b", "read\nthis");
        let plain = anstream::adapter::strip_str(&text(&error)).to_string();
        assert_eq!(plain, "error: a\\u{1b}b\nhint: read\nthis\n");
        assert_eq!(code(&error), FAILED);
        assert_eq!(code(&anyhow!("x")), FAILED);
    }
}
