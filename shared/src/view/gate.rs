//! Gates.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::approval::ApprovalRule;
use crate::domain::gate::Decision;
use crate::domain::{ArtifactId, GateId, GateStatus, LinkId, RunId, StepId, Timestamp};

/// A gate before a step or before a run's end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Gate {
    pub id: GateId,
    pub run_id: RunId,
    /// Null for a gate of the run itself.
    pub step_id: Option<StepId>,
    /// `manual:deploy`, `gate:lint`, or any name given to `POST /gates`.
    pub gate_type: String,
    pub status: GateStatus,
    pub on_pass: OnPass,
    /// The generation of the run that it belongs to.
    pub generation: u32,
    /// What is judged or decided: for a gate of a workspace, the digests of its trees. Null if the gate has none.
    #[serde(default)]
    pub subject: Option<Map<String, Value>>,
    pub evidence_uri: Option<String>,
    /// The artifact at `evidence_uri`, if the gate's own step stored it: `GET /artifacts/{id}/download`.
    #[serde(default)]
    pub evidence_id: Option<ArtifactId>,
    pub reason: Option<String>,
    pub approved_by: Option<String>,
    pub approved_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub decided_at: Option<Timestamp>,
    /// The decision that ended the gate. Null until then.
    pub decision: Option<GateDecision>,
    /// The digest of everything that a decision covers. Null for gates of earlier releases.
    #[serde(default)]
    pub digest: Option<String>,
    /// What that is: digests by name. Only in `GET /gates/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<Value>,
    /// Signed statements about its decisions, as DSSE envelopes, oldest first. Only in `GET /gates/{id}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Value>,
    /// State of its approvals. Null if evidence decides.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Approvals of a gate, as the caller sees them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Standing {
    /// Different people who must approve.
    pub required: Option<u32>,
    /// Approvals that count now: of people who may still decide.
    pub approved: Option<u32>,
    /// People who could approve, counted up to 100. Null if the gate does not wait.
    pub eligible: Option<u32>,
    /// Who may decide, and how: the stricter of the plan and the tenant's policy.
    pub rule: Option<ApprovalRule>,
    /// Every decision of a person, oldest first.
    pub approvals: Vec<Approval>,
    pub may_decide: Option<MayDecide>,
}

/// A person's decision about a gate. More may be needed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Approval {
    pub decision: Decision,
    /// The name of the person.
    pub actor: String,
    /// Their subject. Null for decisions of old releases.
    pub subject: Option<String>,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    /// Whether it was about their own work. The policy, or a tenant of one person, can allow that.
    pub is_self: bool,
}

/// Whether the caller may approve or reject the gate now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct MayDecide {
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyNot>,
    /// Whether the caller may waive it.
    #[serde(default)]
    pub waive: bool,
}

/// Why somebody may not decide a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// The gate is not pending.
    Decided,
    /// The gate has expired.
    Expired,
    /// Agents and services never decide.
    Kind,
    /// Their role is too low.
    Role,
    /// Nobody has to: the step goes on by itself when requests in flight end.
    InFlight,
    /// The gate waits for a budget of the tenant, which its policy sets.
    TenantBudget,
    /// A budget is raised by an approval. Nobody waives it.
    Budget,
    /// The rule requires another role or other people.
    NotNamed,
    /// The policy forbids waivers.
    Waive,
    /// They logged in too long ago.
    Session,
    /// It is their own work.
    #[serde(rename = "self")]
    OwnWork,
    /// They have approved already.
    Done,
}

impl WhyNot {
    /// Whether the gate asks nobody for an approval. It can be rejected.
    pub fn asks_nobody(self) -> bool {
        matches!(self, Self::InFlight | Self::TenantBudget)
    }

    /// What to tell the person.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Decided => "the gate is not pending any more",
            Self::Expired => "the gate's time is over",
            Self::Kind => "only people decide gates",
            Self::Role => "your role may not decide this gate",
            Self::InFlight => {
                "the step goes on by itself: only what requests in flight have reserved is in the way, until they end"
            }
            Self::TenantBudget => {
                "the budget of the tenant is exhausted: an admin raises models.budgets in the policy, or it goes on in the next day or month"
            }
            Self::Budget => "a budget is raised by an approval, and nobody can waive it",
            Self::NotNamed => "the gate's rule requires other people or another role",
            Self::Waive => "the policy forbids waivers",
            Self::Session => "you logged in too long ago for this gate; log in again",
            Self::OwnWork => {
                "it is your own work: you started or retried the run, own a token that did, or uploaded or made its files"
            }
            Self::Done => "you have already approved it; other people must approve it too",
        }
    }
}

/// A decision about a gate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GateDecision {
    pub decision: Decision,
    pub actor: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

/// A new one-time link to a gate. This is the only answer with its secret.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct GateLink {
    pub id: LinkId,
    /// The page for its person. A path if no public URL is configured.
    pub url: String,
    /// The person's name.
    #[serde(rename = "for")]
    pub name: String,
    pub subject: String,
    pub gate_id: GateId,
    /// What the gate asks about now. The link is void if that changes.
    pub digest: String,
    pub expires_at: Timestamp,
}

/// What happens when the gate passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnPass {
    /// The waiting step succeeds.
    Finish,
    /// The waiting step becomes ready again.
    Resume,
    /// The step, or the end of the run, has one blocker less.
    Release,
}
