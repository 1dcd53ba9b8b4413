//! Reads for the console's pages, a file a page. Each page takes one round trip and has a bounded size.

mod artifact;
mod decision;
mod document;
mod follow;
mod gate;
mod health;
mod inbox;
mod policy;
mod rules;
mod run;
mod runs;
mod step;
mod steps;
mod timeline;
mod usage;

pub use artifact::{ArtifactDetail, GENERATIONS, Near, Signed, artifact_detail_fetch};
pub use decision::{Exhibit, GateDetail, OtherDecision, PolicyInForce, Proof, StepOutputs, decision_fetch};
pub use document::{Document, document_fetch};
pub use follow::{Effects, FOLLOWED, NamedOutputs, Start};
pub use gate::{AttemptAt, Gate, gate_fetch};
pub use health::{FailureCode, HandlerSteps, Health, LostWorker, Redriven, Sweep, health_fetch};
pub use inbox::{
    Asked, COUNTED_GATES, Decided, DecidedList, Inbox, LastDecision, TypeCount, decided_list, inbox_list, inbox_next,
    waiting,
};
pub use policy::{PolicyHistory, policy_history};
pub use rules::{RuleList, RuleRow, rule_list};
pub use run::{Focus, Run, Stopped, run_fetch};
pub use runs::{RunCounts, RunList, RunRow, StepCounts, WaitsFor, run_list};
pub use step::{
    CallUsage, FailedCall, ModelCall, Neighbour, StepDetail, StepFailure, StoredJson, TriedAttempt, step_detail_fetch,
};
pub use steps::{ATTEMPTS, Attempt, AttemptStatus, Step};
pub use timeline::{Place, Selection, Timeline};
pub use usage::{DAYS, DayUsage, EVENTS, ModelUsage, RunUsage, Tokens, Usage, usage_fetch};

use serde::Deserialize;

use crate::domain::ArtifactId;
use crate::domain::artifact_storage::StorageState;

/// Counts the pending gates of the tenant `$1`, up to 100: the navigation shows more as "99+".
const WAITING: &str = "(select count(*) from (
            select from nofx.gate w where w.tenant_id = $1 and w.status = 'pending' limit 100) w)";

/// A stored output.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    pub id: ArtifactId,
    pub step: Option<String>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    /// `None` if it is hot.
    #[serde(default)]
    pub storage: Option<StorageState>,
}
