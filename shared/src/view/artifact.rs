//! Artifacts, and uploads that become one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Omitted;
use crate::domain::{ArtifactId, RunId, StepId, TenantId, Timestamp};

/// A stored object. One that was uploaded before any run has neither run, step nor attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Artifact {
    pub id: ArtifactId,
    pub tenant_id: TenantId,
    pub run_id: Option<RunId>,
    pub step_id: Option<StepId>,
    pub attempt: Option<u32>,
    pub name: String,
    /// What it is to the control plane: `text`, `gate_evidence`, `workspace`.
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
}

/// An artifact in a list of its run. Large metadata is null and `metadata_omitted` says so.
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

/// A page of artifacts in the order of their making.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ArtifactPage {
    pub artifacts: Vec<ArtifactSummary>,
    /// `after` of the next page.
    pub next: Option<ArtifactId>,
}

/// Where a workspace's bytes go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Upload {
    /// Goes into a plan's `workspace`.
    pub id: ArtifactId,
    pub uri: String,
    /// Takes exactly the bytes with the sha256 that was named, by PUT.
    pub upload_url: String,
    /// What the PUT must send along.
    pub headers: BTreeMap<String, String>,
    pub expires_in_s: u64,
}
