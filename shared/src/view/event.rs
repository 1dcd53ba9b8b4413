//! Events.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::{RunId, StepId, Timestamp};

/// An event of a run's timeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Event {
    pub id: i64,
    pub run_id: RunId,
    /// Sequence number from 1, without gaps. The last one is `after` of the next page.
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
