//! Repair loops: a step generates, gates judge what comes of it, and what they found goes back to the step, until they pass
//! or no attempt is left.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{Fields, Names};
use super::graph::Ancestors;
use super::outcome::ArtifactRef;
use super::plan::PlanStep;

/// Fields of a step's `repair`.
pub(super) const FIELDS: &[Names] = &[&["gate"], &["max_attempts"]];
pub(super) const REQUIRED: &[&str] = &["gate"];
/// How often a step may generate, the first time included.
pub(super) const ATTEMPTS: RangeInclusive<u64> = 2..=10;
pub(super) const DEFAULT_ATTEMPTS: u32 = 3;
/// Gates of one repair loop.
pub(super) const MAX_GATES: usize = 20;

/// What a plan says: when one of the gates fails, the step and everything after it runs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Names of steps downstream.
    pub gates: Vec<String>,
    /// How often the step may generate, the first time included.
    pub max_attempts: u32,
}

/// What an attempt has to repair.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RepairTask {
    /// Which time the step generates: 2 for the first repair.
    pub round: u32,
    pub max_attempts: u32,
    /// Name of the step whose gate failed.
    pub gate: String,
    /// Its error: a code and a sentence.
    pub code: String,
    pub message: String,
    /// The gate's evidence. `None` if it left none.
    pub evidence: Option<ArtifactRef>,
    /// What the step made the last time.
    #[serde(default)]
    pub previous: Vec<ArtifactRef>,
}

/// Reads [`FIELDS`]. `check` checks the names.
pub(super) fn read(fields: &mut Fields<'_, '_>) -> Option<Repair> {
    fields.require(REQUIRED);
    let gates = fields.read("gate", |value| match value {
        Value::String(name) => Ok(vec![name.clone()]),
        Value::Array(list) if (1..=MAX_GATES).contains(&list.len()) => {
            let names: Option<Vec<_>> = list.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            names.ok_or_else(|| "must be names of steps".to_owned())
        }
        _ => Err(format!("must be the name of a step, or a list of 1 to {MAX_GATES} names")),
    });
    let max_attempts = fields.whole("max_attempts", ATTEMPTS).unwrap_or(DEFAULT_ATTEMPTS);
    Some(Repair { gates: gates?, max_attempts })
}

/// Checks the loops of a plan whose steps form no cycle.
pub(super) fn check(
    fields: &mut Fields<'_, '_>,
    steps: &[PlanStep],
    positions: &HashMap<String, usize>,
    upstream: &Ancestors,
) {
    let mut repaired = HashSet::new();
    for (index, step) in steps.iter().enumerate() {
        let Some(repair) = &step.repair else { continue };
        let path = format!("steps[{index}].repair");
        if step.handler != "codegen" {
            fields.problem(&path, format!("{} repairs nothing; only codegen does", step.tool));
        }
        let mut gates = Vec::new();
        for name in &repair.gates {
            match positions.get(name) {
                None => fields.problem(&format!("{path}.gate"), format!("no step has the name \"{name}\"")),
                Some(&gate) if !steps[gate].tool.starts_with("gate:") => {
                    fields.problem(
                        &format!("{path}.gate"),
                        format!("\"{name}\" is no gate that evidence decides, such as gate:unit"),
                    );
                }
                Some(&gate) if !upstream.contains(gate, index) => {
                    fields.problem(&format!("{path}.gate"), format!("\"{name}\" does not come after this step"));
                }
                Some(gate) if !repaired.insert(*gate) => {
                    fields.problem(&format!("{path}.gate"), format!("\"{name}\" is named twice"));
                }
                Some(&gate) => gates.push(gate),
            }
        }
        // It would write again.
        let writes =
            steps.iter().enumerate().filter(|(at, other)| other.handler == "db_write" && upstream.contains(*at, index));
        for (at, write) in writes {
            if let Some(gate) = gates.iter().find(|gate| !upstream.contains(at, **gate)) {
                let message = format!(
                    "must come after the gate \"{}\": \"{}\" may run again until it passes",
                    steps[*gate].name, step.name
                );
                fields.problem(
                    &format!("steps[{at}].depends_on"),
                    format!("{message}, and \"{}\" would write again", write.name),
                );
            }
        }
    }
}
