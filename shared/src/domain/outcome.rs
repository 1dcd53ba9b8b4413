//! What a handler returns: the facts of one attempt. What follows from them for other steps is the database's to decide.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::id::{ArtifactId, GateId};
use super::problem::Problem;

/// The end of an attempt, and what it leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Stored objects that become artifact rows in the finishing transaction.
    pub artifacts: Vec<NewArtifact>,
    /// Gates that become rows: the automatic ones with their evidence, a manual one when the verdict is `Blocked`.
    pub gates: Vec<NewGate>,
    /// Further facts for the timeline, such as the tokens that a model call used.
    pub events: Vec<NewEvent>,
}

/// How the attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Done; these are the step's outputs.
    Succeeded(Map<String, Value>),
    /// Not done. `retryable` says that a later attempt may fare better; `retry_after` is a floor for its delay.
    Failed { error: StepError, retryable: bool, retry_after: Option<Duration> },
    /// Waits for one of `gates`, at no cost.
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

/// An object that was stored and awaits its row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewArtifact {
    pub id: ArtifactId,
    pub name: String,
    /// What it is to the control plane: `text`, `gate_evidence`, ...
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

/// A stored object, found by its artifact row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    pub id: ArtifactId,
    pub uri: String,
    /// sha256 in lower-case hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
}

/// The files that a gate judges, and what they are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    pub archive: ArtifactRef,
    #[serde(default)]
    pub base: Option<ArtifactRef>,
    /// A unified diff that leads from the base to the archive; stands in for `base`.
    #[serde(default)]
    pub diff: Option<ArtifactRef>,
}

/// A gate row to be written with the finish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewGate {
    pub id: GateId,
    /// `manual:deploy`, `gate:lint`, ...: the tool that asked for it.
    pub gate_type: String,
    pub status: NewGateStatus,
    /// Where the evidence is stored, if there is any yet.
    pub evidence_uri: Option<String>,
    /// What a passing decision does with a blocked step.
    pub on_pass: OnPass,
    /// Pending gates expire after so long; without it they wait for ever.
    pub expires_after_s: Option<u32>,
    /// What the decider sees, or why the gate was judged as it was.
    pub reason: Option<String>,
}

/// The states in which a handler may leave a gate.
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

/// A fact for the timeline.
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

    /// The handler refuses the inputs. The message names the first problems, the details the first hundred.
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
    /// Done, with these outputs.
    pub fn succeeded(outputs: Map<String, Value>) -> Self {
        Self::of(Verdict::Succeeded(outputs))
    }

    /// Not done, and trying again would not help.
    pub fn failed(error: StepError) -> Self {
        Self::of(Verdict::Failed { error, retryable: false, retry_after: None })
    }

    /// Not done, but a later attempt may fare better.
    pub fn retryable(error: StepError) -> Self {
        Self::of(Verdict::Failed { error, retryable: true, retry_after: None })
    }

    /// Waits for this gate.
    pub fn blocked(gate: NewGate) -> Self {
        Self { gates: vec![gate], ..Self::of(Verdict::Blocked) }
    }

    fn of(verdict: Verdict) -> Self {
        Self { verdict, artifacts: Vec::new(), gates: Vec::new(), events: Vec::new() }
    }
}
