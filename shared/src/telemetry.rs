//! Logs as JSON lines. Never a secret, a token, a prompt or a row of data.

use tracing::error;

use crate::error::Error;

/// Starts logging, once, first thing in `main`. Level by `RUST_LOG`, format by `AWS_LAMBDA_LOG_FORMAT`.
pub fn init() {
    lambda_runtime::tracing::init_default_subscriber();
}

/// Logs an error at the boundary where it ends, with the chain of its causes.
pub fn report(error: &Error, doing: &str) {
    let mut causes = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    error!(doing, error = %error, causes, "could not be done");
}
