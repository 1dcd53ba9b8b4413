//! Timestamps, as the database writes them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A timestamp as RFC 3339 text with microseconds: `2026-11-23T10:00:00.123456+00:00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(extend("format" = "date-time")))]
#[serde(transparent)]
pub struct Timestamp(pub String);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
