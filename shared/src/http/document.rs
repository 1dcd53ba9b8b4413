//! The form of problem documents.

use serde::Serialize;

use crate::error::{Code, Problem};

/// An error answer (RFC 9457).
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ProblemDocument {
    /// Address of the code's section in `/docs/errors`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    pub status: u16,
    /// For programs.
    pub code: Code,
    /// For people.
    pub detail: String,
    /// Problems of the input, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
    /// Number of further problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<usize>,
    /// The permission that the caller does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// The limit of the tenant that is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What changed in a gate since its decider saw it, at most 100 paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Finds the request in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ProblemDocument {
    /// A document without `errors`, for an API without a base path.
    pub fn new(code: Code, title: &str, detail: String) -> Self {
        Self {
            kind: format!("/docs/errors#{}", code.as_str()),
            title: title.to_owned(),
            status: code.status(),
            code,
            detail,
            errors: Vec::new(),
            more: None,
            permission: None,
            limit: None,
            changed: Vec::new(),
            request_id: None,
        }
    }
}
