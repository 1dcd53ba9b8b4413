//! The predicate "test result": what a gate found, and the configuration that it used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::statement::{Descriptor, STATEMENT_TYPE, Statement};
use super::{AttestationError, json};
use crate::evidence::{Attempt, Evidence, MEDIA_TYPE, SCHEMA, Source, TestFailure, Verdict};

/// The type of the predicate.
pub const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The predicate. The field names are those of in-toto.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResult {
    pub result: TestVerdict,
    /// The definition, the base, the lockfiles, and the evidence with everything else.
    #[serde(deserialize_with = "json::objects")]
    pub configuration: Vec<Descriptor>,
    #[serde(default)]
    pub passed_tests: Vec<String>,
    #[serde(default)]
    pub warned_tests: Vec<String>,
    #[serde(default)]
    pub failed_tests: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TestVerdict {
    Passed,
    /// The gate passed, and a reader should know more: see [`statement`].
    Warned,
    Failed,
}

/// The statement about a gate's result. `evidence_sha256` is that of the stored evidence.
///
/// A blocked gate has not passed, so its result is FAILED. A gate that passed is WARNED instead of PASSED if the change
/// under test defined it, if the change weakens checks and a person let it, or if there are findings that do not count.
/// The gate itself is the test, under the name of its tool; failed tests of a suite are listed with it.
pub fn statement(evidence: &Evidence, evidence_sha256: &str) -> Result<Statement, serde_json::Error> {
    let mut annotations: BTreeMap<String, Value> = [("schema".to_owned(), Value::from(SCHEMA))].into();
    if let Some(Attempt { run_id, step_id, number }) = &evidence.attempt {
        annotations.insert("run".to_owned(), run_id.as_str().into());
        annotations.insert("step".to_owned(), step_id.as_str().into());
        annotations.insert("attempt".to_owned(), (*number).into());
    }
    let document =
        Descriptor { media_type: MEDIA_TYPE.to_owned(), annotations, ..Descriptor::file("evidence", evidence_sha256) };
    let mut subject = Vec::new();
    if let Some(judged) = &evidence.subject {
        subject.extend(judged.archive.iter().map(|sha256| Descriptor::file("workspace", sha256)));
        subject.extend(Descriptor::tree("tree", &judged.tree));
    } else {
        // A statement needs a subject, and without a workspace there is nothing else.
        subject.push(document.clone());
    }
    Ok(Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject,
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: serde_json::to_value(test_result(evidence, document))?,
    })
}

fn test_result(evidence: &Evidence, document: Descriptor) -> TestResult {
    let mut configuration = Vec::new();
    if let Some(definition) = &evidence.definition {
        configuration.push(Descriptor {
            annotations: [
                ("source".to_owned(), Value::from(definition.source.name())),
                ("gate".to_owned(), Value::from(evidence.gate.as_str())),
            ]
            .into(),
            ..Descriptor::file(&definition.file, &definition.digest)
        });
    }
    configuration.extend(evidence.base.archive.iter().map(|sha256| Descriptor::file("base", sha256)));
    configuration.extend(evidence.base.tree.iter().flat_map(|tree| Descriptor::tree("base tree", tree)));
    configuration.extend(evidence.base.origin.iter().map(|origin| {
        Descriptor {
            annotations: [
                ("repository".to_owned(), Value::from(origin.repository.as_str())),
                ("branch".to_owned(), Value::from(origin.branch.as_deref())),
            ]
            .into(),
            ..Descriptor::commit("base commit", &origin.commit)
        }
    }));
    configuration.extend(evidence.locks.iter().map(|(path, sha256)| Descriptor::file(path, sha256)));
    configuration.push(document);

    let (result, tool) = (test_verdict(evidence), || vec![evidence.tool.clone()]);
    let (mut passed, mut warned, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    match result {
        TestVerdict::Passed => passed = tool(),
        TestVerdict::Warned => warned = tool(),
        TestVerdict::Failed => failed = tool(),
    }
    if let Some(tests) = &evidence.tests {
        failed.extend(tests.failures.listed.iter().map(TestFailure::full_name));
    }
    TestResult { result, configuration, passed_tests: passed, warned_tests: warned, failed_tests: failed }
}

/// The result that the statement has.
pub fn test_verdict(evidence: &Evidence) -> TestVerdict {
    if evidence.verdict != Verdict::Passed {
        return TestVerdict::Failed;
    }
    let of_base = evidence.definition.as_ref().is_some_and(|definition| definition.source == Source::Base);
    let weakened = evidence.integrity.as_ref().is_some_and(|integrity| integrity.total > 0);
    if of_base && !weakened && evidence.approvals.is_empty() && evidence.findings.list.total == 0 {
        TestVerdict::Passed
    } else {
        TestVerdict::Warned
    }
}

impl Statement {
    /// The predicate of a statement about a test result.
    pub fn test_result(&self) -> Result<TestResult, AttestationError> {
        if self.predicate_type != PREDICATE_TYPE {
            let found = &self.predicate_type;
            return Err(AttestationError::Statement(format!("its predicate is {found:?}, not {PREDICATE_TYPE}")));
        }
        serde_json::from_value(self.predicate.clone()).map_err(|error| AttestationError::Statement(error.to_string()))
    }
}

impl TestResult {
    /// sha256 of the evidence that the statement binds.
    pub fn evidence_sha256(&self) -> Option<&str> {
        self.evidence()?.digest.get("sha256").map(String::as_str)
    }

    /// The attempt whose result it is. None in statements from before attempts were in them.
    pub fn attempt(&self) -> Option<Attempt> {
        let annotations = &self.evidence()?.annotations;
        let text = |name: &str| annotations.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = annotations.get("attempt").and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        Some(Attempt { run_id: text("run")?, step_id: text("step")?, number: number? })
    }

    /// Whose definition of the gate counted. None if no definition was read.
    pub fn source(&self) -> Option<Source> {
        let source = self.configuration.iter().find_map(|one| one.annotations.get("source"))?;
        serde_json::from_value(source.clone()).ok()
    }

    fn evidence(&self) -> Option<&Descriptor> {
        self.configuration.iter().find(|one| one.annotations.get("schema") == Some(&Value::from(SCHEMA)))
    }
}
