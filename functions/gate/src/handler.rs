//! The handler of gates: reads archives from storage, has the gate judged, stores and signs the evidence, and returns
//! the outcome.

use std::path::PathBuf;
use std::sync::Arc;

use nofx_gates::archive::{self, MAX_PACKED_BYTES};
use nofx_gates::evidence::{Attachment, Attempt, Encoded, Evidence, GivenBy, MEDIA_TYPE, Verdict};
use nofx_gates::judge::{self, Approved, Archive, BaseInput, Judged, NewAttachment, Question, Request, Settings};
use nofx_gates::snapshot::Snapshot;
use serde_json::{Map, Value, json};
use shared::domain::GateStatus;
use shared::domain::gate::GATE_CHANGE;
use shared::domain::outcome::{ArtifactRef, NewGateStatus, OnPass};
use shared::domain::{GateId, NewArtifact, NewGate, Outcome, StepError};
use shared::error::Error;
use shared::signing::Signer;
use shared::storage::{ArtifactMeta, StepStore, step_code};
use shared::worker::{ClaimedStep, Handler, Ownership};
use uuid::Uuid;

use crate::attest::{attest, unsigned};
use crate::reuse::{RemembersRuns, remember};
use crate::runner::Runners;

/// Serves the tools `gate:*`.
pub struct Gate {
    pub settings: Settings,
    pub runners: Runners,
    pub signer: Signer,
    /// The folder to judge if a plan names no workspace, and the base to compare it with.
    pub default_workspace: Option<PathBuf>,
    pub default_base: Option<PathBuf>,
}

/// The workspace and its base, with who named the base.
struct Inputs {
    workspace: Archive,
    base: Option<BaseInput>,
    given_by: GivenBy,
}

impl Gate {
    async fn run(&self, step: &ClaimedStep, store: &StepStore) -> Result<Outcome, Outcome> {
        // Before anything runs: evidence that nobody can verify proves nothing.
        self.signer.check().map_err(|error| unsigned(&error))?;
        let inputs = match &step.workspace {
            Some(_) => self.stored(step, store).await?,
            None => self.default().await?,
        };
        let request = Request {
            gate: step.tool.strip_prefix("gate:").unwrap_or(&step.tool).to_owned(),
            tenant: step.tenant_id.to_string(),
            attempt: Some(Attempt {
                run_id: step.run_id.to_string(),
                step_id: step.step_id.to_string(),
                number: step.attempt,
            }),
            timeout: step.timeout,
            workspace: inputs.workspace,
            base: inputs.base,
            base_given_by: inputs.given_by,
            base_origin: step.base_origin.clone(),
            policy: step.policy.gates.clone(),
            approvals: approvals(step),
            // The API accepts a risky gate only in a plan that says so.
            risky: true,
        };
        let runner = RemembersRuns { runner: self.runners.for_attempt(store), store, signer: &self.signer };
        let judged = judge::judge(&request, &self.settings, &runner).await;
        self.record(step, store, &request, judged).await
    }

    async fn stored(&self, step: &ClaimedStep, store: &StepStore) -> Result<Inputs, Outcome> {
        let Some(workspace) = &step.workspace else { return Err(no_workspace()) };
        let of_step = step.inputs.get("base").or_else(|| step.inputs.get("workspace").and_then(|own| own.get("base")));
        let base = match (&workspace.diff, &workspace.base) {
            (Some(diff), _) => Some(BaseInput::Diff(fetch(diff, store).await?)),
            (None, Some(base)) => Some(BaseInput::Archive(fetch(base, store).await?)),
            (None, None) => None,
        };
        let given_by = match &base {
            None => GivenBy::None,
            Some(_) if of_step.is_some() => GivenBy::Step,
            Some(_) => GivenBy::Plan,
        };
        Ok(Inputs { workspace: fetch(&workspace.archive, store).await?, base, given_by })
    }

    /// Packs the folders that the configuration names.
    async fn default(&self) -> Result<Inputs, Outcome> {
        let Some(folder) = &self.default_workspace else { return Err(no_workspace()) };
        let workspace = pack(folder.clone(), self.settings.unpack).await?;
        let base = match &self.default_base {
            Some(folder) if folder.is_dir() => Some(pack(folder.clone(), self.settings.unpack).await?),
            _ => None,
        };
        let given_by = if base.is_some() { GivenBy::Policy } else { GivenBy::None };
        Ok(Inputs { workspace, base: base.map(BaseInput::Archive), given_by })
    }

    /// Stores attachments, evidence and attestation, and returns the outcome.
    async fn record(
        &self,
        step: &ClaimedStep,
        store: &StepStore,
        request: &Request,
        judged: Judged,
    ) -> Result<Outcome, Outcome> {
        let Judged { mut evidence, attachments, question, reuse_key, lost } = judged;
        let stored = Stored { store, gate: &request.gate, made_from: made_from(request) };
        let mut artifacts = Vec::new();
        for attachment in attachments {
            let artifact = stored.attachment(attachment).await?;
            evidence.attachments.push(Attachment {
                name: artifact.name.clone(),
                artifact_id: Some(artifact.id.to_string()),
                sha256: artifact.hash.clone(),
                size: artifact.size_bytes,
            });
            artifacts.push(artifact);
        }
        let encoded = evidence.encode().map_err(|error| internal(&error))?;
        let artifact = stored.evidence(&evidence, &encoded).await?;
        let envelope = attest(store, &self.signer, &evidence, &encoded, artifact.id).await?;
        if let (Some(key), Some(attempt)) = (&reuse_key, &evidence.attempt) {
            remember(store, key, attempt, &artifact, &envelope).await;
        }
        let mut outcome = if let Some(error) = lost {
            tracing::warn!(code = error.code, %error, "the gate has no verdict");
            Outcome::retryable(StepError::new(error.code, error.message))
        } else {
            let shown = artifacts.iter().find(|artifact| artifact.name.ends_with("gate-change.json"));
            outcome(step, &evidence, &artifact, question, shown)
        };
        outcome.artifacts.extend(artifacts);
        outcome.artifacts.extend([artifact, envelope]);
        Ok(outcome)
    }
}

impl Handler for Gate {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        // Judging holds a large state.
        Box::pin(self.run(step, store)).await.unwrap_or_else(|outcome| outcome)
    }

    /// A gate may take hours. Nobody needs the verdict of a step that was cancelled or claimed again, so its command ends.
    async fn handle_while_owned(&self, step: &ClaimedStep, store: &StepStore, ownership: &Ownership) -> Outcome {
        tokio::select! {
            outcome = self.handle(step, store) => outcome,
            () = ownership.lost() => {
                let message = "the run was cancelled, or the step has a newer attempt";
                Outcome::failed(StepError::new("ownership_lost", message))
            }
        }
    }
}

/// Where an attempt's documents are stored.
struct Stored<'a> {
    store: &'a StepStore,
    gate: &'a str,
    made_from: Vec<shared::domain::ArtifactId>,
}

impl Stored<'_> {
    async fn put(
        &self,
        name: &str,
        (kind, media_type): (&'static str, &'static str),
        metadata: Value,
        bytes: Vec<u8>,
    ) -> Result<NewArtifact, Outcome> {
        let meta = ArtifactMeta { kind, media_type, metadata, made_from: self.made_from.clone() };
        self.store.put(name, meta, bytes).await.map_err(|error| storage_unavailable(&error))
    }

    async fn attachment(&self, attachment: NewAttachment) -> Result<NewArtifact, Outcome> {
        let NewAttachment { name, media_type, bytes } = attachment;
        let name = format!("gate-{}-{name}", self.gate);
        self.put(&name, ("gate_attachment", media_type), json!({ "gate": self.gate }), bytes).await
    }

    async fn evidence(&self, evidence: &Evidence, encoded: &Encoded) -> Result<NewArtifact, Outcome> {
        let metadata = json!({ "gate": evidence.gate, "verdict": evidence.verdict, "reason": evidence.reason.code });
        let name = format!("gate-{}.json", self.gate);
        self.put(&name, ("gate_evidence", MEDIA_TYPE), metadata, encoded.bytes.clone()).await
    }
}

/// Decisions about earlier questions of this step and its run that let them pass.
fn approvals(step: &ClaimedStep) -> Vec<Approved> {
    let decided = step.decisions.iter().filter(|decision| decision.gate_type == GATE_CHANGE);
    let approved = decided.filter_map(|decision| {
        Some(Approved {
            gate_id: decision.gate_id.to_string(),
            by: decision.decided_by.clone()?,
            at: decision.decided_at.to_string(),
            subject: decision.subject.clone()?,
            waived: decision.status == GateStatus::Waived,
        })
    });
    approved.collect()
}

fn made_from(request: &Request) -> Vec<shared::domain::ArtifactId> {
    let base = match &request.base {
        Some(BaseInput::Archive(archive) | BaseInput::Diff(archive)) => archive.artifact.as_ref(),
        None => None,
    };
    request.workspace.artifact.iter().chain(base).map(|artifact| artifact.id).collect()
}

async fn fetch(artifact: &ArtifactRef, store: &StepStore) -> Result<Archive, Outcome> {
    match store.get(artifact, MAX_PACKED_BYTES).await {
        Ok(bytes) => {
            Ok(Archive { bytes: Arc::new(bytes), sha256: artifact.hash.clone(), artifact: Some(artifact.clone()) })
        }
        Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => Err(storage_unavailable(&error)),
        // The archive is too large, missing, archived, or does not match its hash. A retry cannot fix that.
        Err(error) => Err(Outcome::failed(StepError::new(step_code(&error, "archive_unusable"), error.to_string()))),
    }
}

async fn pack(folder: PathBuf, limits: nofx_gates::Limits) -> Result<Archive, Outcome> {
    let unusable = |why: &dyn std::fmt::Display| {
        let message = format!("the default workspace cannot be used: {why}");
        Outcome::failed(StepError::new("no_workspace", message))
    };
    let packed = tokio::task::spawn_blocking(move || {
        let snapshot = Snapshot::take(&folder).map_err(|error| error.to_string())?;
        archive::pack(&archive::sources(&snapshot), limits).map_err(|error| error.to_string())
    });
    match packed.await {
        Ok(Ok(bytes)) => Ok(Archive::new(bytes)),
        Ok(Err(why)) => Err(unusable(&why)),
        Err(error) => Err(unusable(&error)),
    }
}

fn no_workspace() -> Outcome {
    let message = "the plan names no workspace and no default is configured; name one in the plan";
    Outcome::failed(StepError::new("no_workspace", message))
}

fn storage_unavailable(error: &Error) -> Outcome {
    tracing::warn!(%error, source = ?std::error::Error::source(error), "the gate cannot reach storage");
    Outcome::retryable(StepError::new("storage_unavailable", error.to_string()))
}

fn internal(error: &dyn std::fmt::Display) -> Outcome {
    Outcome::retryable(StepError::new("evidence_unwritable", format!("the evidence could not be written: {error}")))
}

fn outcome(
    step: &ClaimedStep,
    evidence: &Evidence,
    artifact: &NewArtifact,
    question: Option<Question>,
    difference: Option<&NewArtifact>,
) -> Outcome {
    let gate = |gate_type: &str, status, subject, reason| NewGate {
        id: GateId(Uuid::now_v7()),
        gate_type: gate_type.to_owned(),
        status,
        subject: Some(subject),
        evidence_uri: Some(artifact.uri.clone()),
        on_pass: OnPass::Finish,
        expires_after_s: None,
        reason: Some(reason),
    };
    if let Some(question) = question {
        let evidence_uri = difference.map_or(artifact.uri.clone(), |shown| shown.uri.clone());
        let pending = gate(GATE_CHANGE, NewGateStatus::Pending, question.subject, question.text);
        return Outcome::blocked(NewGate { evidence_uri: Some(evidence_uri), on_pass: OnPass::Resume, ..pending });
    }
    let passed = evidence.verdict == Verdict::Passed;
    let summary = summary(evidence, artifact);
    let mut outcome = if passed {
        Outcome::succeeded(summary)
    } else {
        let error = StepError::new(error_code(evidence), evidence.reason.message.clone());
        Outcome::failed(error.with_details(Value::Object(summary)))
    };
    let status = if passed { NewGateStatus::Passed } else { NewGateStatus::Failed };
    outcome.gates.push(gate(&step.tool, status, subject(evidence, artifact), evidence.reason.message.clone()));
    outcome
}

/// What the verdict is about: it belongs to these bytes.
fn subject(evidence: &Evidence, artifact: &NewArtifact) -> Map<String, Value> {
    let fields = json!({
        "tree": evidence.subject.as_ref().map(|subject| &subject.tree),
        "base": evidence.base.tree,
        "evidence": artifact.hash,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// A gate that stops before its command runs fails with the code of its reason. Any other failure is `gate_failed`, with
/// the reason in the details.
fn error_code(evidence: &Evidence) -> &str {
    match evidence.reason.code.as_str() {
        code @ ("no_workspace" | "no_command" | "no_lockfile" | "lockfile_refused" | "manifest_refused"
        | "tool_shadowed" | "archive_refused" | "install_failed" | "toolchain_missing" | "sandbox_too_weak"
        | "definition_invalid" | "base_required" | "base_not_trusted" | "network_denied" | "risky_required"
        | "checks_weakened") => code,
        _ => "gate_failed",
    }
}

fn summary(evidence: &Evidence, artifact: &NewArtifact) -> Map<String, Value> {
    let fields = json!({
        "verdict": evidence.verdict,
        "reason": evidence.reason.code,
        "evidence_uri": artifact.uri,
        "evidence_hash": artifact.hash,
        "evidence_id": artifact.id,
        "tree": evidence.subject.as_ref().map(|subject| &subject.tree),
        "exit_code": evidence.command.as_ref().and_then(|command| command.exit_code),
    });
    let mut summary = fields.as_object().cloned().unwrap_or_default();
    if let Some(Value::Object(coverage)) = &evidence.coverage {
        let kept = ["ratio", "threshold", "covered", "uncovered", "unmeasured"];
        let kept = kept.iter().filter_map(|name| Some(((*name).to_owned(), coverage.get(*name)?.clone())));
        summary.insert("coverage".into(), Value::Object(kept.collect()));
    }
    if evidence.findings.list.total > 0 {
        summary.insert("findings".into(), json!(evidence.findings.by_severity));
    }
    summary
}
