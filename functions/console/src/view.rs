//! What the pages show, as plain data. Status words stay text: a page must not break on a state that a newer function
//! wrote.

use serde::Deserialize;
use shared::domain::{ArtifactId, GateId, RunId};

/// The list of runs, and above it the gates that wait for somebody.
#[derive(Debug, Clone, Default)]
pub struct RunList {
    pub inbox: Vec<Gate>,
    /// The last gate that is shown, when more wait.
    pub inbox_next: Option<GateId>,
    /// Whether the inbox does not begin with the oldest.
    pub inbox_is_continuation: bool,
    pub runs: Vec<RunRow>,
    /// The last run of this page, when older ones follow.
    pub older: Option<RunId>,
    /// Whether this is not the first page.
    pub is_continuation: bool,
}

/// A run in the list.
#[derive(Debug, Clone, Deserialize)]
pub struct RunRow {
    pub id: RunId,
    pub status: String,
    pub goal: String,
    pub created_at: String,
    /// From the start to the end, or until now.
    pub duration_ms: Option<i64>,
}

/// One run.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    pub id: RunId,
    pub status: String,
    pub goal: String,
    pub generation: i64,
    pub plan_digest: String,
    /// Why it failed when no step did.
    pub failure: Option<String>,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub deadline_at: Option<String>,
    /// From the start to the end, once there is one.
    pub duration_ms: Option<i64>,
    /// A page of them, in the plan's order.
    pub steps: Vec<Step>,
    pub steps_total: usize,
    pub gates: Vec<Gate>,
    pub gates_total: usize,
    pub artifacts: Vec<Artifact>,
    pub artifacts_total: usize,
    /// Newest first.
    pub events: Vec<Event>,
    /// What of it the reader has asked for.
    #[serde(skip)]
    pub focus: Focus,
}

/// What of a large run is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Focus {
    /// Ordinal of the first step.
    pub steps_from: i64,
    /// A gate that is shown before all others.
    pub gate: Option<GateId>,
}

/// A step of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    pub ordinal: i64,
    pub name: String,
    pub tool: String,
    pub status: String,
    pub attempt: i64,
    pub max_attempts: i64,
    pub failures: i64,
    pub workers_lost: i64,
    pub error: Option<String>,
    /// When it is tried next, if that is later than now.
    pub ready_at: Option<String>,
    pub duration_ms: Option<i64>,
    /// The first of them.
    pub depends_on: Vec<Parent>,
    pub parents_total: usize,
}

/// A step that another one waits for.
#[derive(Debug, Clone, Deserialize)]
pub struct Parent {
    pub ordinal: i64,
    pub name: String,
}

/// A gate, wherever it is shown.
#[derive(Debug, Clone, Deserialize)]
pub struct Gate {
    pub id: GateId,
    pub run_id: RunId,
    pub goal: String,
    /// Name of the step it stands before; a gate of the run itself has none.
    pub step: Option<String>,
    pub gate_type: String,
    pub status: String,
    pub reason: Option<String>,
    pub evidence_uri: Option<String>,
    /// The artifact of the run that is stored there.
    pub evidence_id: Option<ArtifactId>,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub decided_at: Option<String>,
    pub actor: Option<String>,
    pub decision_reason: Option<String>,
}

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
}

/// A fact of the timeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub seq: i64,
    pub step: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub timestamp: String,
    /// What it was about: a gate, an artifact.
    pub subject: Option<String>,
    pub attempt: Option<String>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub error: Option<String>,
}

impl Run {
    /// Whether something may still happen by itself.
    pub fn is_open(&self) -> bool {
        !matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

impl Gate {
    pub fn is_pending(&self) -> bool {
        self.status == "pending"
    }
}
