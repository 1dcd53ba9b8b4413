//! Logs as JSON lines. Never log a secret, a token, a prompt or a row of data.

use tracing::error;

use crate::error::Error;

/// Starts logging. Call it once, at the start of `main`. `RUST_LOG` sets the level, `AWS_LAMBDA_LOG_FORMAT` the format.
pub fn init() {
    lambda_runtime::tracing::init_default_subscriber();
}

/// Logs an error where it ends, with its chain of causes.
pub fn report(error: &Error, doing: &str) {
    let mut causes = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    error!(doing, error = %error, causes, "failed");
}
