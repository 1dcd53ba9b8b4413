use std::path::PathBuf;

use shared::domain::tool::{self, Tools};
use shared::domain::{ArtifactId, RunId, StepId, TenantId};

use super::*;

fn step(tool: &str) -> ClaimedStep {
    ClaimedStep {
        tenant_id: TenantId("t".into()),
        run_id: RunId(Uuid::nil()),
        step_id: StepId(Uuid::nil()),
        name: "s".into(),
        tool: tool.into(),
        attempt: 1,
        inputs: json!({}),
        goal: "g".into(),
        workspace: None,
        timeout: std::time::Duration::from_mins(1),
        timeout_s: None,
    }
}

fn artifact() -> NewArtifact {
    NewArtifact {
        id: ArtifactId(Uuid::nil()),
        name: "gate-lint.json".into(),
        kind: "gate_evidence".into(),
        uri: "s3://bucket/gate-lint.json".into(),
        hash: "ab".into(),
        size_bytes: 2,
        media_type: "application/json".into(),
        metadata: json!({}),
        made_from: Vec::new(),
    }
}

/// The findings of the examiner if there is nothing to judge.
async fn evidence() -> Evidence {
    let work = tempfile::tempdir().unwrap();
    let examiner = Examiner::new(GateConfig::new(PathBuf::from(work.path())));
    let request = Request {
        gate: examine::Gate::Lint,
        tool: "gate:lint".into(),
        tenant: "t".into(),
        run_id: "r".into(),
        step_id: "s".into(),
        attempt: 1,
        timeout: std::time::Duration::from_mins(1),
        archives: None,
    };
    examiner.examine(request).await.unwrap()
}

#[tokio::test]
async fn a_failed_gate_is_a_final_failure_with_a_failed_row_and_its_evidence() {
    let outcome = outcome(&step("gate:lint"), &evidence().await, artifact());
    let Verdict::Failed { error, retryable, .. } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((error.code.as_str(), *retryable), ("no_workspace", false));
    assert_eq!(error.details["evidence_uri"], "s3://bucket/gate-lint.json");
    assert_eq!((outcome.gates.len(), outcome.gates[0].status), (1, NewGateStatus::Failed));
    assert_eq!(outcome.gates[0].evidence_uri.as_deref(), Some("s3://bucket/gate-lint.json"));
    assert_eq!(outcome.artifacts.len(), 1);
}

#[tokio::test]
async fn a_passed_gate_succeeds_with_a_passed_row_and_its_evidence() {
    let mut evidence = evidence().await;
    evidence.verdict = GateVerdict::Passed;
    let outcome = outcome(&step("gate:lint"), &evidence, artifact());
    let Verdict::Succeeded(outputs) = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((outputs["verdict"].as_str(), outputs["evidence_hash"].as_str()), (Some("passed"), Some("ab")));
    assert_eq!((outcome.gates[0].status, outcome.gates[0].gate_type.as_str()), (NewGateStatus::Passed, "gate:lint"));
}

#[tokio::test]
async fn a_judgement_against_the_workspace_has_one_code_for_programs() {
    let mut evidence = evidence().await;
    evidence.reason.code = "below_threshold";
    let outcome = outcome(&step("gate:lint"), &evidence, artifact());
    let Verdict::Failed { error, .. } = &outcome.verdict else { panic!("{outcome:?}") };
    assert_eq!((error.code.as_str(), error.details["reason"].as_str()), ("gate_failed", Some("below_threshold")));
}

#[test]
fn every_gate_of_the_table_can_be_examined() {
    let Some(Tools::Listed(tools)) = tool::handler("gate").map(|handler| handler.tools) else { panic!("no list") };
    let gates = examine::Gate::ALL.map(|gate| format!("gate:{}", gate.name()));
    assert_eq!(tools, gates);
}

#[test]
fn an_unknown_gate_is_none() {
    assert_eq!(examine::Gate::of_tool("gate:deploy"), None);
    assert_eq!(examine::Gate::of_tool("gate:"), None);
}
