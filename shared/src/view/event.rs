//! Events.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::{RunId, StepId, Timestamp};

/// A fact of a run's timeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Event {
    pub id: i64,
    pub run_id: RunId,
    /// From 1 without gaps; `after` of the page that follows.
    pub seq: i64,
    pub step_id: Option<StepId>,
    /// The step's name.
    pub step: Option<String>,
    /// `noun.verb`, such as `step.succeeded`.
    #[serde(rename = "type")]
    pub kind: String,
    pub payload: Box<RawValue>,
    pub timestamp: Timestamp,
}
