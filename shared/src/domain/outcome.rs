//! What a handler returns: the facts of one attempt. The database decides what follows for other steps.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::id::{ArtifactId, GateId};
use super::problem::Problem;

/// The end of an attempt, and what it produced.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Stored objects that become artifact rows in the finishing transaction.
    pub artifacts: Vec<NewArtifact>,
    /// Gates that become rows: an automatic gate with its evidence, or a manual gate if the verdict is `Blocked`.
    pub gates: Vec<NewGate>,
    /// More events for the timeline, such as the tokens of a model call.
    pub events: Vec<NewEvent>,
}

/// How the attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The attempt succeeded with these outputs.
    Succeeded(Map<String, Value>),
    /// The attempt failed. `retryable` means that a retry may succeed. `retry_after` is the least delay before it.
    Failed { error: StepError, retryable: bool, retry_after: Option<Duration> },
    /// The step waits for one of `gates`.
    Blocked,
}

/// Why a step failed, for people (`message`) and for programs (`code`, snake_case).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// A stored object that has no row yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewArtifact {
    pub id: ArtifactId,
    pub name: String,
    /// `text`, `gate_evidence`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// `s3://bucket/key`.
    pub uri: String,
    /// sha256 in lower-case hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    pub metadata: Value,
    /// Artifacts that this one was made from.
    #[serde(default)]
    pub made_from: Vec<ArtifactId>,
}

/// A stored object, as its artifact row describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    pub id: ArtifactId,
    pub uri: String,
    /// sha256 in lower-case hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
}

/// The files that a gate judges, and the base that they are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    pub archive: ArtifactRef,
    #[serde(default)]
    pub base: Option<ArtifactRef>,
    /// A unified diff from the base to the archive, instead of `base`.
    #[serde(default)]
    pub diff: Option<ArtifactRef>,
}

/// A gate row that the finish writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewGate {
    pub id: GateId,
    /// The tool that created it, such as `manual:deploy` or `gate:lint`.
    pub gate_type: String,
    pub status: NewGateStatus,
    /// What is judged or decided, such as the digests of a workspace's trees: a decision is valid only for it. Its events
    /// have it too. At most 4 KiB are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Map<String, Value>>,
    /// Where the evidence is stored, if there is any.
    pub evidence_uri: Option<String>,
    /// What a passing decision does with a blocked step.
    pub on_pass: OnPass,
    /// Seconds after which a pending gate expires. Without it the gate never expires.
    pub expires_after_s: Option<u32>,
    /// What the approver reads, or the reason for the verdict.
    pub reason: Option<String>,
}

/// The states that a handler may give a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewGateStatus {
    Pending,
    Passed,
    Failed,
}

/// What a passing decision does with the step that waits for the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPass {
    /// The step has succeeded.
    Finish,
    /// The step is ready again, with no attempt charged.
    Resume,
}

/// An event for the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// `noun.verb`, for example `codegen.usage`.
    #[serde(rename = "type")]
    pub kind: String,
    pub payload: Value,
}

impl StepError {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: Value::Null }
    }

    /// The inputs are not valid. The message lists the first 10 problems, the details the first 100.
    pub fn invalid_inputs(mut problems: Vec<Problem>) -> Self {
        let first = problems.iter().take(10).map(|problem| format!("{}: {}", problem.path, problem.message));
        let message = format!("The inputs are wrong. {}.", first.collect::<Vec<_>>().join("; "));
        problems.truncate(100);
        Self::new("invalid_inputs", message).with_details(json!({ "problems": problems }))
    }

    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }
}

impl Outcome {
    /// Success with these outputs.
    pub fn succeeded(outputs: Map<String, Value>) -> Self {
        Self::of(Verdict::Succeeded(outputs))
    }

    /// A failure that a retry cannot fix.
    pub fn failed(error: StepError) -> Self {
        Self::of(Verdict::Failed { error, retryable: false, retry_after: None })
    }

    /// A failure that a retry may fix.
    pub fn retryable(error: StepError) -> Self {
        Self::of(Verdict::Failed { error, retryable: true, retry_after: None })
    }

    /// The step waits for this gate.
    pub fn blocked(gate: NewGate) -> Self {
        Self { gates: vec![gate], ..Self::of(Verdict::Blocked) }
    }

    fn of(verdict: Verdict) -> Self {
        Self { verdict, artifacts: Vec::new(), gates: Vec::new(), events: Vec::new() }
    }
}
