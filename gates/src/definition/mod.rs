//! What the gates of a workspace are: `nofx.toml` at its root, and presets for what the file does not define.
//!
//! Pure: a [`Snapshot`] in, a [`Definition`] out. The same tree has the same definition on every host, so nothing here
//! looks for programs. What counts for a change is the definition of its base ([`integrity`](crate::integrity) compares).

mod environment;
mod file;
mod gate;
mod globs;
mod go;
mod node;
mod presets;
mod problem;
mod python;
mod rust;
mod script;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use shared::domain::digest::canonical_sha256;

pub use gate::{
    CoverageRules, Ecosystem, Format, GateDefinition, Health, Kind, MutantRules, Origin, Place, REPORTS, ReportFile,
    Severity, Stub,
};
pub use globs::Globs;
pub use problem::{NoSuchGate, Problem};

pub(crate) use node::SCRIPTS as GATE_SCRIPTS;
pub(crate) use script::calls as script_calls;

use crate::snapshot::Snapshot;

/// The file that defines gates, at the root of a workspace.
pub const FILE: &str = "nofx.toml";

#[derive(Debug, Clone)]
pub struct Definition {
    pub source: Source,
    /// sha256 of the canonical JSON of everything below but the explanation.
    pub digest: String,
    pub gates: BTreeMap<String, GateDefinition>,
    /// Protected files besides those that the engine protects by itself.
    pub protected: Globs,
    pub tests: Globs,
    /// `None`: the deployment's rules.
    pub sources: Option<Globs>,
    /// Sources that need no coverage.
    pub ignore: Globs,
    pub stubs: BTreeMap<String, Stub>,
    /// Gates that the workspace seems to have but that prove nothing, with the reason.
    pub unusable: BTreeMap<String, String>,
    /// What the presets found and chose, in sentences.
    pub explanation: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    File,
    Presets,
}

/// Reads the definition of a workspace. Fails with every problem of `nofx.toml`.
pub fn define(snapshot: &Snapshot) -> Result<Definition, Vec<Problem>> {
    let presets = presets::find(snapshot);
    let mut definition = if snapshot.files().contains_key(FILE) { file::read(snapshot, presets)? } else { presets };
    definition.digest = digest(&definition)?;
    Ok(definition)
}

impl Definition {
    /// The gate with this name, such as `lint`. Fails with what there is instead.
    pub fn gate(&self, name: &str) -> Result<&GateDefinition, NoSuchGate> {
        self.gates.get(name).ok_or_else(|| NoSuchGate {
            name: name.to_owned(),
            why: self.unusable.get(name).cloned(),
            known: self.gates.keys().cloned().collect(),
        })
    }

    /// What the presets chose for this gate. A sentence that names no gate is about all.
    pub fn explanation_of(&self, gate: &str) -> impl Iterator<Item = &str> {
        let named = format!("gate {gate:?}");
        let sentences = self.explanation.iter().map(String::as_str);
        sentences.filter(move |sentence| sentence.contains(&named) || !sentence.contains("gate \""))
    }
}

fn digest(definition: &Definition) -> Result<String, Vec<Problem>> {
    #[derive(Serialize)]
    struct Meaning<'a> {
        gates: &'a BTreeMap<String, GateDefinition>,
        protected: &'a Globs,
        tests: &'a Globs,
        sources: &'a Option<Globs>,
        ignore: &'a Globs,
        stubs: &'a BTreeMap<String, Stub>,
    }
    let Definition { gates, protected, tests, sources, ignore, stubs, .. } = definition;
    canonical_sha256(&Meaning { gates, protected, tests, sources, ignore, stubs })
        .map_err(|error| vec![Problem::whole(FILE, format!("the definition has no canonical form: {error}"))])
}
