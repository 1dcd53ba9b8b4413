//! Limits of a tenant.

use serde::{Deserialize, Serialize};

/// The limits of the caller's tenant, and how much of each it has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Limits {
    /// Null where there is no limit.
    pub limits: Quantities,
    pub used: Quantities,
}

/// The limits of a tenant, or what it uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Quantities {
    /// Runs that have not ended.
    pub open_runs: Option<u64>,
    /// Steps of those runs that wait or run.
    pub queued_steps: Option<u64>,
    /// Recorded bytes of all artifacts.
    pub stored_bytes: Option<u64>,
    /// Requests in the last minute. They are counted only where they are limited.
    pub requests_per_minute: Option<u64>,
}

impl Quantities {
    /// By name.
    pub fn named(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("open_runs", self.open_runs),
            ("queued_steps", self.queued_steps),
            ("stored_bytes", self.stored_bytes),
            ("requests_per_minute", self.requests_per_minute),
        ]
    }
}
