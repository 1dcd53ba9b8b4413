//! Policies of tenants.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::Timestamp;
use crate::domain::approval::ApprovalPolicy;
use crate::domain::artifact_policy::ArtifactPolicy;
use crate::domain::model_policy::ModelPolicy;
use crate::domain::policy::GatePolicy;

/// The tenant's policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Policy {
    /// 0 if the tenant has none.
    pub version: u32,
    /// As it was set.
    pub document: Map<String, Value>,
    /// With a default for every field that the document leaves out. Null if the document cannot be read, because a later
    /// release wrote it, or somebody with SQL: gates then fail as `policy_unreadable`.
    pub effective: Option<EffectivePolicy>,
    pub changed_by: Option<String>,
    pub reason: Option<String>,
    pub created_at: Option<Timestamp>,
}

/// A policy with its defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct EffectivePolicy {
    pub gates: GatePolicy,
    #[serde(default)]
    pub approvals: ApprovalPolicy,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schemars(with = "Map<String, Value>"))]
    pub models: ModelPolicy,
    #[serde(default)]
    pub artifacts: ArtifactPolicy,
}

/// A version of a policy, as it was set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PolicyVersion {
    pub version: u32,
    pub document: Map<String, Value>,
    pub changed_by: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

/// A page of versions, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PolicyPage {
    pub versions: Vec<PolicyVersion>,
    /// `after` of the next page.
    pub next: Option<u32>,
}
