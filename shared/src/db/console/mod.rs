//! Reads for the console's pages, a file a page. Each page takes one round trip and has a bounded size.

mod document;
mod gate;
mod run;
mod runs;

pub use document::{Document, document_fetch};
pub use gate::{Gate, gate_fetch};
pub use run::{Event, Focus, Parent, Run, STEPS, Step, run_fetch};
pub use runs::{RunList, RunRow, run_list};

use serde::Deserialize;

use crate::domain::ArtifactId;

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
