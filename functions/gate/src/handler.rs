//! The handler of gates: reads archives from storage, examines, stores the evidence and returns the outcome.

use serde_json::{Map, Value, json};
use shared::domain::outcome::{ArtifactRef, NewGateStatus, OnPass};
use shared::domain::{GateId, NewArtifact, NewGate, Outcome, StepError, Verdict};
use shared::error::Error;
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::{ClaimedStep, Handler};
use uuid::Uuid;

use crate::config::GateConfig;
use crate::examine::{self, Examiner, Request};
use crate::finding::{Evidence, GateVerdict, Trouble};
use crate::workspace::{Archives, Stored};

/// Serves the tools `gate:*`.
#[derive(Debug)]
pub struct Gate {
    examiner: Examiner,
}

impl Gate {
    pub fn new(config: GateConfig) -> Self {
        Self { examiner: Examiner::new(config) }
    }

    async fn judge(&self, step: &ClaimedStep, store: &StepStore) -> Result<Outcome, Outcome> {
        let gate = examine::Gate::of_tool(&step.tool).ok_or_else(|| {
            Outcome::failed(StepError::new("unknown_gate", format!("there is no gate {:?}", step.tool)))
        })?;
        let request = Request {
            gate,
            tool: step.tool.clone(),
            tenant: step.tenant_id.to_string(),
            run_id: step.run_id.to_string(),
            step_id: step.step_id.to_string(),
            attempt: step.attempt,
            timeout: step.timeout,
            archives: self.fetch(gate, step, store).await?,
        };
        let evidence = self.examiner.examine(request).await.map_err(|trouble| retryable(&trouble))?;
        let artifact = put(step, store, gate, &evidence).await?;
        Ok(outcome(step, &evidence, artifact))
    }

    async fn fetch(
        &self,
        gate: examine::Gate,
        step: &ClaimedStep,
        store: &StepStore,
    ) -> Result<Option<Archives>, Outcome> {
        let Some(workspace) = &step.workspace else { return Ok(None) };
        let needs_base = gate == examine::Gate::Unit;
        let base = workspace.base.as_ref().filter(|_| needs_base && workspace.diff.is_none());
        let diff = workspace.diff.as_ref().filter(|_| needs_base);
        Ok(Some(Archives {
            workspace: self.stored(&workspace.archive, store).await?,
            base: self.optional(base, store).await?,
            diff: self.optional(diff, store).await?,
        }))
    }

    async fn optional(&self, artifact: Option<&ArtifactRef>, store: &StepStore) -> Result<Option<Stored>, Outcome> {
        match artifact {
            Some(artifact) => self.stored(artifact, store).await.map(Some),
            None => Ok(None),
        }
    }

    async fn stored(&self, artifact: &ArtifactRef, store: &StepStore) -> Result<Stored, Outcome> {
        match store.get(artifact, self.examiner.config().max_packed_bytes).await {
            Ok(bytes) => Ok(Stored { bytes, hash: artifact.hash.clone() }),
            Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => Err(storage_away(&error)),
            // Too large, gone, or not what was recorded: a retry cannot fix that.
            Err(error) => Err(Outcome::failed(StepError::new("archive_unusable", error.to_string()))),
        }
    }
}

impl Handler for Gate {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        self.judge(step, store).await.unwrap_or_else(|outcome| outcome)
    }
}

fn retryable(trouble: &Trouble) -> Outcome {
    tracing::warn!(code = trouble.code, error = %trouble, "a gate could not be judged");
    Outcome::retryable(StepError::new(trouble.code, trouble.message.clone()))
}

fn storage_away(error: &Error) -> Outcome {
    tracing::warn!(%error, source = ?std::error::Error::source(error), "a gate could not reach storage");
    Outcome::retryable(StepError::new("storage_unavailable", error.to_string()))
}

async fn put(
    step: &ClaimedStep,
    store: &StepStore,
    gate: examine::Gate,
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
    store.put(&format!("gate-{}.json", gate.name()), describe, bytes).await.map_err(|error| storage_away(&error))
}

fn outcome(step: &ClaimedStep, evidence: &Evidence, artifact: NewArtifact) -> Outcome {
    let passed = evidence.verdict == GateVerdict::Passed;
    let facts = facts(evidence, &artifact);
    let mut outcome = if passed {
        Outcome::succeeded(facts)
    } else {
        let error = StepError::new(error_code(evidence), evidence.reason.message.clone());
        Outcome::failed(error.with_details(Value::Object(facts)))
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

/// A gate that stops before its command ran has the code of its reason. A judgement is `gate_failed`, with the reason
/// in the details.
fn error_code(evidence: &Evidence) -> &'static str {
    match evidence.reason.code {
        code @ ("no_workspace" | "no_command" | "no_lockfile" | "archive_refused" | "install_failed"
        | "toolchain_missing") => code,
        _ => "gate_failed",
    }
}

fn facts(evidence: &Evidence, artifact: &NewArtifact) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("verdict".into(), json!(evidence.verdict));
    facts.insert("reason".into(), json!(evidence.reason.code));
    facts.insert("evidence_uri".into(), json!(artifact.uri));
    facts.insert("evidence_hash".into(), json!(artifact.hash));
    facts.insert("exit_code".into(), json!(evidence.exit_code));
    if let Some(coverage) = &evidence.coverage {
        facts.insert(
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
    facts
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
        assert_eq!(
            (outcome.gates[0].status, outcome.gates[0].gate_type.as_str()),
            (NewGateStatus::Passed, "gate:lint")
        );
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
}
