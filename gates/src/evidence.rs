//! Evidence, version 2: what a gate judged, by which definition, what it found, and what that does not prove.
//!
//! `docs/evidence.md` explains it for readers and `docs/evidence.schema.json` is its JSON Schema. Times are in
//! milliseconds. Digests are sha256 in lower-case hex, except where a field says otherwise.

mod command;
mod definition;
mod excerpt;
mod finding;
mod listed;
mod reuse;
mod review;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::domain::digest::sha256_hex;

use crate::attestation::json;

pub use command::{CommandResult, Install, Output, Report, ReportOutcome, Runner};
pub use definition::{Base, BaseOrigin, Definition, ExpectedReport, GivenBy, Source, Subject};
pub use excerpt::Excerpt;
pub use finding::{Finding, Findings, Severity, TestFailure, Tests};
pub use listed::{Listed, MAX_LISTED};
pub use reuse::{ReuseKey, Reused};
pub use review::{Approval, Attachment, Doubt, Weakening};

/// The value of [`Evidence::schema`].
pub const SCHEMA: &str = "nofx.gate_evidence.v2";
/// The media type of evidence in a list of artifacts.
pub const MEDIA_TYPE: &str = "application/json";

/// The evidence of one gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Evidence {
    #[cfg_attr(feature = "openapi", schemars(extend("const" = SCHEMA)))]
    pub schema: String,
    /// The name of the gate, such as `lint`.
    pub gate: String,
    /// The tool of the step, such as `gate:lint`.
    pub tool: String,
    /// Null if `nofx gate` judged a checkout.
    pub attempt: Option<Attempt>,
    pub verdict: Verdict,
    pub reason: Reason,
    /// Since the Unix epoch.
    pub started_at_ms: u64,
    /// Since the Unix epoch.
    pub finished_at_ms: u64,
    /// The duration of each phase that took place, such as `fetch`, `unpack`, `install`, `run`, `judge`.
    pub timings_ms: BTreeMap<String, u64>,
    /// Null if the gate ended before it was read.
    pub definition: Option<Definition>,
    /// What was judged. Null if there was no usable workspace.
    pub subject: Option<Subject>,
    pub base: Base,
    /// The sha256 of each lockfile that the installation followed, by path.
    pub locks: BTreeMap<String, String>,
    /// The version of each tool that took part, by name.
    pub toolchain: BTreeMap<String, String>,
    /// The isolation in force while the command ran, as the sandbox reports it. Null if no command ran.
    pub sandbox: Value,
    pub install: Option<Install>,
    /// Null if no command ran.
    pub command: Option<CommandResult>,
    pub reports: Vec<Report>,
    pub findings: Findings,
    /// Null if no report lists tests.
    pub tests: Option<Tests>,
    /// The judgement of changed lines: see `docs/coverage.md`. Null if the gate does not measure coverage.
    pub coverage: Option<Value>,
    /// The source around findings and uncovered lines: at most 50 excerpts of 5 lines from the judged tree.
    #[serde(default)]
    pub context: Vec<Excerpt>,
    /// How the change weakens the checks themselves. Null if there was no base to compare with.
    pub integrity: Option<Listed<Weakening>>,
    /// Decisions of people that the verdict relies on.
    pub approvals: Vec<Approval>,
    /// Parts that are too large for this document.
    pub attachments: Vec<Attachment>,
    /// What a reader must not conclude from the verdict.
    pub not_proved: Vec<Doubt>,
    /// The evidence whose verdict this one repeats. Null if the gate ran.
    pub reused: Option<Reused>,
    pub runner: Runner,
}

/// The attempt of a step that produced the evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Attempt {
    pub run_id: String,
    pub step_id: String,
    /// From 1.
    pub number: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    /// A person must decide whether the changed checks count.
    Blocked,
}

/// Why the gate has its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Reason {
    /// snake_case, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Evidence as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// sha256 of the bytes. The attestation binds it.
    pub sha256: String,
}

impl Evidence {
    /// Evidence of a gate about which nothing is known yet. Whoever runs the gate fills it in. A gate that stops early
    /// leaves it failed.
    pub fn new(gate: &str, reason: Reason, started_at_ms: u64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            gate: gate.to_owned(),
            tool: format!("gate:{gate}"),
            attempt: None,
            verdict: Verdict::Failed,
            reason,
            started_at_ms,
            finished_at_ms: started_at_ms,
            timings_ms: BTreeMap::new(),
            definition: None,
            subject: None,
            base: Base::none(),
            locks: BTreeMap::new(),
            toolchain: BTreeMap::new(),
            sandbox: Value::Null,
            install: None,
            command: None,
            reports: Vec::new(),
            findings: Findings::default(),
            tests: None,
            coverage: None,
            context: Vec::new(),
            integrity: None,
            approvals: Vec::new(),
            attachments: Vec::new(),
            not_proved: Vec::new(),
            reused: None,
            runner: Runner::default(),
        }
    }

    /// Reads evidence of this version, if it has this sha256. `Err` says why not.
    pub fn decode(bytes: &[u8], sha256: &str) -> Result<Self, String> {
        let found = sha256_hex(bytes);
        if found != sha256 {
            return Err(format!("its sha256 is {found}, not {sha256}"));
        }
        let evidence: Self = json::read(bytes)?;
        if evidence.schema == SCHEMA {
            Ok(evidence)
        } else {
            Err(format!("its schema is {:?}, not {SCHEMA}", evidence.schema))
        }
    }

    /// The document, for storage and for the attestation.
    pub fn encode(&self) -> Result<Encoded, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(Encoded { sha256: sha256_hex(&bytes), bytes })
    }
}

/// The JSON Schema of [`Evidence`], as `docs/evidence.schema.json` has it.
#[cfg(feature = "openapi")]
pub fn schema() -> Value {
    let mut schema =
        schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Evidence>();
    schema.insert("title".to_owned(), Value::from("Evidence of a NOFX gate"));
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_read_only_with_its_digest_and_schema() {
        let evidence = Evidence::new("lint", Reason { code: "c".into(), message: "m".into() }, 1);
        let Encoded { bytes, sha256 } = evidence.encode().unwrap();
        assert_eq!(Evidence::decode(&bytes, &sha256), Ok(evidence.clone()));
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        assert!(Evidence::decode(&changed, &sha256).unwrap_err().contains("its sha256 is"));
        let older = Evidence { schema: "nofx.gate_evidence.v1".into(), ..evidence }.encode().unwrap();
        assert!(Evidence::decode(&older.bytes, &older.sha256).unwrap_err().contains("its schema is"));
    }
}
