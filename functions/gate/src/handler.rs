//! The handler of gates: reads archives from storage, runs the gate, stores the evidence and returns the outcome.

use nofx_gates::{Archives, Evidence, Examiner, GateConfig, GateKind, GateVerdict, InfraError, Request, StoredArchive};
use serde_json::{Map, Value, json};
use shared::domain::outcome::{ArtifactRef, NewGateStatus, OnPass};
use shared::domain::{GateId, NewArtifact, NewGate, Outcome, StepError, Verdict};
use shared::error::Error;
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::{ClaimedStep, Handler};
use uuid::Uuid;

/// Serves the tools `gate:*`.
#[derive(Debug)]
pub struct Gate {
    examiner: Examiner,
}

impl Gate {
    pub fn new(config: GateConfig) -> Self {
        Self { examiner: Examiner::new(config) }
    }

    async fn run(&self, step: &ClaimedStep, store: &StepStore) -> Result<Outcome, Outcome> {
        let gate = GateKind::from_tool(&step.tool).ok_or_else(|| {
            Outcome::failed(StepError::new(
                "unknown_gate",
                format!("unknown gate {:?}; use gate:typecheck, gate:lint or gate:unit", step.tool),
            ))
        })?;
        let request = Request {
            gate,
            tool: step.tool.clone(),
            tenant: step.tenant_id.to_string(),
            run_id: step.run_id.to_string(),
            step_id: step.step_id.to_string(),
            attempt: step.attempt,
            timeout: step.timeout,
            archives: self.fetch_archives(gate, step, store).await?,
        };
        let evidence = self.examiner.examine(request).await.map_err(|error| infra_failure(&error))?;
        let artifact = store_evidence(step, store, gate, &evidence).await?;
        Ok(outcome(step, &evidence, artifact))
    }

    async fn fetch_archives(
        &self,
        gate: GateKind,
        step: &ClaimedStep,
        store: &StepStore,
    ) -> Result<Option<Archives>, Outcome> {
        let Some(workspace) = &step.workspace else { return Ok(None) };
        let needs_base = gate == GateKind::Unit;
        let base = workspace.base.as_ref().filter(|_| needs_base && workspace.diff.is_none());
        let diff = workspace.diff.as_ref().filter(|_| needs_base);
        Ok(Some(Archives {
            workspace: self.fetch_archive(&workspace.archive, store).await?,
            base: self.fetch_optional(base, store).await?,
            diff: self.fetch_optional(diff, store).await?,
        }))
    }

    async fn fetch_optional(
        &self,
        artifact: Option<&ArtifactRef>,
        store: &StepStore,
    ) -> Result<Option<StoredArchive>, Outcome> {
        match artifact {
            Some(artifact) => self.fetch_archive(artifact, store).await.map(Some),
            None => Ok(None),
        }
    }

    async fn fetch_archive(&self, artifact: &ArtifactRef, store: &StepStore) -> Result<StoredArchive, Outcome> {
        match store.get(artifact, self.examiner.config().max_packed_bytes).await {
            Ok(bytes) => Ok(StoredArchive { bytes, hash: artifact.hash.clone() }),
            Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => Err(storage_unavailable(&error)),
            // The archive is too large, missing, or does not match its hash. A retry cannot fix that.
            Err(error) => Err(Outcome::failed(StepError::new("archive_unusable", error.to_string()))),
        }
    }
}

impl Handler for Gate {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        self.run(step, store).await.unwrap_or_else(|outcome| outcome)
    }
}

fn infra_failure(error: &InfraError) -> Outcome {
    tracing::warn!(code = error.code, %error, "an infrastructure error stopped the gate");
    Outcome::retryable(StepError::new(error.code, error.message.clone()))
}

fn storage_unavailable(error: &Error) -> Outcome {
    tracing::warn!(%error, source = ?std::error::Error::source(error), "the gate cannot reach storage");
    Outcome::retryable(StepError::new("storage_unavailable", error.to_string()))
}

async fn store_evidence(
    step: &ClaimedStep,
    store: &StepStore,
    gate: GateKind,
    evidence: &Evidence,
) -> Result<NewArtifact, Outcome> {
    let internal = |error: &dyn std::fmt::Display| {
        Outcome::retryable(StepError::new("evidence_unwritable", format!("the evidence could not be written: {error}")))
    };
    let bytes = serde_json::to_vec_pretty(evidence).map_err(|error| internal(&error))?;
    let inputs = step
        .workspace
        .iter()
        .flat_map(|workspace| [Some(&workspace.archive), workspace.base.as_ref(), workspace.diff.as_ref()]);
    let describe = ArtifactMeta {
        kind: "gate_evidence",
        media_type: "application/json",
        metadata: json!({ "gate": evidence.gate, "verdict": evidence.verdict, "reason": evidence.reason.code }),
        made_from: inputs.flatten().map(|artifact| artifact.id).collect(),
    };
    store.put(&format!("gate-{}.json", gate.name()), describe, bytes).await.map_err(|error| storage_unavailable(&error))
}

fn outcome(step: &ClaimedStep, evidence: &Evidence, artifact: NewArtifact) -> Outcome {
    let passed = evidence.verdict == GateVerdict::Passed;
    let summary = summary(evidence, &artifact);
    let mut outcome = if passed {
        Outcome::succeeded(summary)
    } else {
        let error = StepError::new(error_code(evidence), evidence.reason.message.clone());
        Outcome::failed(error.with_details(Value::Object(summary)))
    };
    outcome.gates.push(NewGate {
        id: GateId(Uuid::now_v7()),
        gate_type: step.tool.clone(),
        status: if passed { NewGateStatus::Passed } else { NewGateStatus::Failed },
        evidence_uri: Some(artifact.uri.clone()),
        on_pass: OnPass::Finish,
        expires_after_s: None,
        reason: Some(evidence.reason.message.clone()),
    });
    outcome.artifacts.push(artifact);
    debug_assert!(!matches!(outcome.verdict, Verdict::Blocked));
    outcome
}

/// A gate that stops before its command runs fails with the code of its reason. Any other failure is `gate_failed`, with
/// the reason in the details.
fn error_code(evidence: &Evidence) -> &'static str {
    match evidence.reason.code {
        code @ ("no_workspace" | "no_command" | "no_lockfile" | "archive_refused" | "install_failed"
        | "toolchain_missing" | "manifest_refused" | "lockfile_refused" | "tool_shadowed") => code,
        _ => "gate_failed",
    }
}

fn summary(evidence: &Evidence, artifact: &NewArtifact) -> Map<String, Value> {
    let mut summary = Map::new();
    summary.insert("verdict".into(), json!(evidence.verdict));
    summary.insert("reason".into(), json!(evidence.reason.code));
    summary.insert("evidence_uri".into(), json!(artifact.uri));
    summary.insert("evidence_hash".into(), json!(artifact.hash));
    summary.insert("exit_code".into(), json!(evidence.exit_code));
    if let Some(coverage) = &evidence.coverage {
        summary.insert(
            "coverage".into(),
            json!({
                "ratio": coverage.ratio,
                "threshold": coverage.threshold,
                "covered": coverage.covered,
                "uncovered": coverage.uncovered,
                "unmeasured": coverage.unmeasured,
            }),
        );
    }
    summary
}

#[cfg(test)]
mod tests {
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

    /// The evidence of a gate without a workspace.
    async fn evidence() -> Evidence {
        let work = tempfile::tempdir().unwrap();
        let examiner = Examiner::new(GateConfig::new(PathBuf::from(work.path())));
        let request = Request {
            gate: GateKind::Lint,
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
    async fn a_failed_gate_fails_the_step_for_good_with_its_row_and_evidence() {
        let outcome = outcome(&step("gate:lint"), &evidence().await, artifact());
        let Verdict::Failed { error, retryable, .. } = &outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((error.code.as_str(), *retryable), ("no_workspace", false));
        assert_eq!(error.details["evidence_uri"], "s3://bucket/gate-lint.json");
        assert_eq!((outcome.gates.len(), outcome.gates[0].status), (1, NewGateStatus::Failed));
        assert_eq!(outcome.gates[0].evidence_uri.as_deref(), Some("s3://bucket/gate-lint.json"));
        assert_eq!(outcome.artifacts.len(), 1);
    }

    #[tokio::test]
    async fn a_passed_gate_succeeds_with_its_row_and_evidence() {
        let mut evidence = evidence().await;
        evidence.verdict = GateVerdict::Passed;
        let outcome = outcome(&step("gate:lint"), &evidence, artifact());
        let Verdict::Succeeded(outputs) = &outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((outputs["verdict"].as_str(), outputs["evidence_hash"].as_str()), (Some("passed"), Some("ab")));
        assert_eq!(
            (outcome.gates[0].status, outcome.gates[0].gate_type.as_str()),
            (NewGateStatus::Passed, "gate:lint")
        );
    }

    #[tokio::test]
    async fn every_failed_check_has_the_code_gate_failed() {
        let mut evidence = evidence().await;
        evidence.reason.code = "below_threshold";
        let outcome = outcome(&step("gate:lint"), &evidence, artifact());
        let Verdict::Failed { error, .. } = &outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!((error.code.as_str(), error.details["reason"].as_str()), ("gate_failed", Some("below_threshold")));
    }

    #[test]
    fn every_gate_in_the_handler_table_has_a_kind() {
        let Some(Tools::Listed(tools)) = tool::handler("gate").map(|handler| handler.tools) else { panic!("no list") };
        let gates = GateKind::ALL.map(|gate| format!("gate:{}", gate.name()));
        assert_eq!(tools, gates);
    }

    #[test]
    fn an_unknown_gate_has_no_kind() {
        assert_eq!(GateKind::from_tool("gate:deploy"), None);
        assert_eq!(GateKind::from_tool("gate:"), None);
    }
}
