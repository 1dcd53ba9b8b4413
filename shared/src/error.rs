//! Errors by what the caller does with them.

use std::error::Error as StdError;

use serde::Serialize;

pub use crate::domain::Problem;

macro_rules! codes {
    ($($name:ident = $code:literal, $status:literal;)+) => {
        /// The `code` of a problem document: one for each cause that a program may branch on. `docs/errors.md`
        /// describes each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        pub enum Code {
            $(#[serde(rename = $code)] $name),+
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code in snake_case, as in the document.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code),+
                }
            }

            /// The HTTP status of the answer.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status),+
                }
            }
        }
    };
}

codes! {
    Invalid = "invalid", 400;
    Unauthenticated = "unauthenticated", 401;
    Forbidden = "forbidden", 403;
    ApprovalRule = "approval_rule", 403;
    ForbiddenOrigin = "forbidden_origin", 403;
    SelfApproval = "self_approval", 403;
    NotFound = "not_found", 404;
    MethodNotAllowed = "method_not_allowed", 405;
    RequestTimeout = "request_timeout", 408;
    AlreadyStarted = "already_started", 409;
    ArtifactArchived = "artifact_archived", 409;
    ArtifactChanged = "artifact_changed", 409;
    ArtifactInUse = "artifact_in_use", 409;
    GateChanged = "gate_changed", 409;
    GateDecided = "gate_decided", 409;
    GateExpired = "gate_expired", 409;
    IdempotencyConflict = "idempotency_conflict", 409;
    LastAdmin = "last_admin", 409;
    NotSealed = "not_sealed", 409;
    RunFinished = "run_finished", 409;
    RunNotFinished = "run_not_finished", 409;
    RunNotRetryable = "run_not_retryable", 409;
    ArtifactDeleted = "artifact_deleted", 410;
    LinkUsed = "link_used", 410;
    PolicyChanged = "policy_changed", 412;
    TooLarge = "too_large", 413;
    UnsupportedMediaType = "unsupported_media_type", 415;
    MisdirectedRequest = "misdirected_request", 421;
    LimitExceeded = "limit_exceeded", 429;
    Internal = "internal", 500;
    FunctionFailed = "function_failed", 502;
    NotTaken = "not_taken", 503;
    SigningUnavailable = "signing_unavailable", 503;
    OutcomeUnknown = "outcome_unknown", 503;
    Unavailable = "unavailable", 503;
    FunctionTimedOut = "function_timed_out", 504;
}

/// An error, by what the caller does with it. Its `Display` is safe to show to a user. Its source is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is not valid. Each entry names a place.
    #[error("{}", summary(.0))]
    Invalid(Vec<Problem>),
    #[error("{0} was not found")]
    NotFound(String),
    /// The state forbids it. The code is one of those with status 409, 410 or 412.
    #[error("{1}")]
    Conflict(Code, String),
    /// The gate has changed since the person saw it. The paths say what changed.
    #[error("the gate has changed since you saw it; look at it again")]
    GateChanged(Vec<String>),
    /// No credential, or an invalid one. The text is the same for every reason.
    #[error("this needs valid credentials")]
    Unauthenticated,
    /// The caller does not have the permission with this name.
    #[error("you may not do this")]
    NotPermitted(String),
    /// The rule of a gate excludes the caller. The code is `self_approval` or `approval_rule`.
    #[error("{1}")]
    Excluded(Code, String),
    #[error("{0}")]
    Forbidden(String),
    /// A limit of the tenant, by its name. Waiting helps if `retry_after_s` says how long.
    #[error("the tenant's limit {limit} is reached")]
    Limited { limit: String, retry_after_s: Option<u32> },
    /// A decision cannot be signed now. A retry may succeed.
    #[error("the decision cannot be signed")]
    SigningUnavailable {
        #[source]
        source: Source,
    },
    /// A dependency is unavailable. A retry may succeed.
    #[error("{}", unavailable_text(what, *maybe_done))]
    Unavailable {
        what: &'static str,
        /// It did not answer, so it is not known whether the request was carried out. Otherwise nothing was changed.
        maybe_done: bool,
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
    /// The code of the problem document that answers with this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::Invalid,
            Self::NotFound(_) => Code::NotFound,
            Self::Conflict(code, _) | Self::Excluded(code, _) => *code,
            Self::GateChanged(_) => Code::GateChanged,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::NotPermitted(_) | Self::Forbidden(_) => Code::Forbidden,
            Self::Limited { .. } => Code::LimitExceeded,
            Self::SigningUnavailable { .. } => Code::SigningUnavailable,
            Self::Unavailable { maybe_done: true, .. } => Code::OutcomeUnknown,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// One problem in the input.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::new(path, message)])
    }

    pub fn unavailable(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { what, maybe_done: false, source: source.into() }
    }

    /// A dependency that may have done what it was asked for.
    pub fn unanswered(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { what, maybe_done: true, source: source.into() }
    }

    pub fn internal(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Internal { what, source: source.into() }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }
}

fn unavailable_text(what: &str, maybe_done: bool) -> String {
    if maybe_done {
        format!("{what} did not answer; it is not known whether the request was carried out")
    } else {
        format!("{what} is unavailable")
    }
}

fn summary(problems: &[Problem]) -> String {
    match problems {
        [one] if one.path.is_empty() => one.message.clone(),
        [one] => format!("{}: {}", one.path, one.message),
        many => format!("{} problems in the request", many.len()),
    }
}
