//! What to judge, and what comes out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use shared::domain::base_origin::BaseOrigin;
use shared::domain::digest::sha256_hex;
use shared::domain::outcome::ArtifactRef;
use shared::domain::policy::GatePolicy;

use crate::evidence::{Attempt, Evidence, GivenBy};
use crate::finding::InfraError;
use crate::run::{Bundle, Executor, Job};

/// A packed workspace.
#[derive(Debug, Clone)]
pub struct Archive {
    pub bytes: Arc<Vec<u8>>,
    /// In lower-case hex.
    pub sha256: String,
    /// Where it is stored, if it is.
    pub artifact: Option<ArtifactRef>,
}

impl Archive {
    /// An archive that is not stored.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { sha256: sha256_hex(&bytes), bytes: Arc::new(bytes), artifact: None }
    }
}

/// What the workspace is compared with.
#[derive(Debug, Clone)]
pub enum BaseInput {
    Archive(Archive),
    /// A unified diff from the base to the workspace.
    Diff(Archive),
}

/// What to judge.
#[derive(Debug, Clone)]
pub struct Request {
    /// The gate's name, such as `lint`.
    pub gate: String,
    /// Installations are never shared between tenants.
    pub tenant: String,
    /// `None` for a checkout.
    pub attempt: Option<Attempt>,
    /// Time for everything.
    pub timeout: Duration,
    pub workspace: Archive,
    pub base: Option<BaseInput>,
    pub base_given_by: GivenBy,
    /// The step that fetched the base, if the policy asks.
    pub base_origin: Option<BaseOrigin>,
    pub policy: GatePolicy,
    /// What people have decided about earlier questions.
    pub approvals: Vec<Approved>,
    /// The run may use risky gates.
    pub risky: bool,
}

/// A person's decision that lets a weakening pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Approved {
    pub gate_id: String,
    pub by: String,
    /// RFC 3339.
    pub at: String,
    /// The subject that the person saw.
    pub subject: Map<String, Value>,
    /// Whether the person waived the question: then nobody approved the change.
    pub waived: bool,
}

/// The verdict with its evidence.
#[derive(Debug)]
pub struct Judged {
    pub evidence: Evidence,
    /// Parts of the evidence that are too large for it. The caller stores them and lists them in the evidence.
    pub attachments: Vec<NewAttachment>,
    /// The question for a person, if the verdict is `blocked`.
    pub question: Option<Question>,
    /// Where to remember the stored evidence, so that [`Runner::earlier`] finds it. `None` if its verdict must not be
    /// repeated.
    pub reuse_key: Option<String>,
    /// Why there is no verdict. Nobody is at fault, so a retry may succeed. The evidence says `failed`.
    pub lost: Option<InfraError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttachment {
    pub name: String,
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

/// What a person has to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// For the person.
    pub text: String,
    /// What exactly the decision is about. It counts for nothing else.
    pub subject: Map<String, Value>,
}

/// Evidence of an earlier run of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    pub evidence: Evidence,
    /// Of the stored evidence.
    pub sha256: String,
}

/// Runs a job somewhere: in this process, in another one, or in a Lambda function.
pub trait Runner: Send + Sync {
    fn run(&self, archive: &Archive, job: Job) -> impl Future<Output = Result<Bundle, RunnerLost>> + Send;

    /// Evidence that was remembered under this key and is still what was signed. `None` in any doubt.
    fn earlier(&self, key: &str) -> impl Future<Output = Option<Earlier>> + Send {
        let _ = key;
        async { None }
    }
}

/// Runs the job in this process.
impl Runner for Executor {
    async fn run(&self, archive: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        Ok(self.execute(&job, Arc::clone(&archive.bytes)).await)
    }
}

/// A runner gave no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RunnerLost {
    pub code: &'static str,
    pub message: String,
}

impl RunnerLost {
    /// The runner could not be reached.
    pub fn unavailable(code: &'static str, why: impl Into<String>) -> Self {
        Self { code, message: why.into() }
    }

    /// The runner ended without a usable answer.
    pub fn ended(why: impl Into<String>) -> Self {
        Self { code: "runner_lost", message: format!("the runner gave no result: {}", why.into()) }
    }
}

impl From<RunnerLost> for InfraError {
    fn from(lost: RunnerLost) -> Self {
        Self::new(lost.code, lost.message)
    }
}
