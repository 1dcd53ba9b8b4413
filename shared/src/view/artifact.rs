//! Artifacts and uploads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Omitted;
use crate::domain::artifact_storage::{RestoreTier, StorageState};
use crate::domain::{ArtifactId, RunId, StepId, TenantId, Timestamp};

/// A stored object. An uploaded one has no run, step and attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Artifact {
    pub id: ArtifactId,
    pub tenant_id: TenantId,
    pub run_id: Option<RunId>,
    pub step_id: Option<StepId>,
    pub attempt: Option<u32>,
    pub name: String,
    /// `text`, `code`, `sbom`, `prompt`, `workspace`, `gate_evidence`, `gate_attestation` or `gate_attachment`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `s3://bucket/key`.
    pub uri: String,
    /// sha256 in lower-case hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    pub metadata: Option<Box<RawValue>>,
    pub created_at: Timestamp,
    pub storage: ArtifactStorage,
}

/// Where the bytes of an artifact are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ArtifactStorage {
    pub state: StorageState,
    pub since: Timestamp,
    /// The end of a copy that can be read.
    pub restored_until: Option<Timestamp>,
    /// A restore that goes on, or that made the copy.
    pub restore: Option<Restore>,
    /// Who wanted this state: a name, or `policy`. Null if it is hot.
    pub actor: Option<String>,
    /// Why, if somebody said so.
    pub reason: Option<String>,
    /// What is wrong, since the last time that the sweeper looked.
    pub problem: Option<String>,
}

/// A restore that somebody asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Restore {
    /// How long the copy can be read, in days.
    pub days: u32,
    pub tier: RestoreTier,
    pub requested_at: Timestamp,
    /// When the longest restore of this tier is over. The storage does not say how far one is.
    pub expected_by: Timestamp,
}

/// A change of where the bytes of an artifact are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct StorageChange {
    pub id: ArtifactId,
    pub storage: ArtifactStorage,
}

/// An artifact in a list. Large metadata is null, and `metadata_omitted` gives its size and address.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ArtifactSummary {
    pub id: ArtifactId,
    pub step_id: Option<StepId>,
    pub attempt: Option<u32>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub uri: String,
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    pub metadata: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_omitted: Option<Omitted>,
    pub created_at: Timestamp,
}

/// A page of artifacts, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ArtifactPage {
    pub artifacts: Vec<ArtifactSummary>,
    /// `after` of the next page.
    pub next: Option<ArtifactId>,
}

/// A signed upload of a workspace.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Upload {
    /// The id to put into a plan's `workspace`.
    pub id: ArtifactId,
    pub uri: String,
    /// PUT the bytes here. Only those with the announced sha256 are accepted.
    pub upload_url: String,
    /// Headers that the PUT must have.
    pub headers: BTreeMap<String, String>,
    pub expires_in_s: u64,
}
