//! Errors by what the caller does with them.

use std::error::Error as StdError;

pub use crate::domain::Problem;

/// Why something could not be done. `Display` is safe to show to a user; the source is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong; each entry names the place.
    #[error("{}", summary(.0))]
    Invalid(Vec<Problem>),
    #[error("{0} was not found")]
    NotFound(String),
    /// The state forbids it, now or for ever.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Forbidden(String),
    /// Something we depend on is away; trying again may help.
    #[error("{what} is unavailable")]
    Unavailable {
        what: &'static str,
        #[source]
        source: Source,
    },
    #[error("internal error: {what}")]
    Internal {
        what: &'static str,
        #[source]
        source: Source,
    },
}

/// The cause of an error, for the log.
pub type Source = Box<dyn StdError + Send + Sync>;

impl Error {
    /// One wrong place in the input.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::new(path, message)])
    }

    pub fn unavailable(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { what, source: source.into() }
    }

    pub fn internal(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Internal { what, source: source.into() }
    }
}

fn summary(problems: &[Problem]) -> String {
    match problems {
        [one] if one.path.is_empty() => one.message.clone(),
        [one] => format!("{}: {}", one.path, one.message),
        many => format!("{} problems in the request", many.len()),
    }
}
