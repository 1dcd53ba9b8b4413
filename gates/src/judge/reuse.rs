//! Repeats the verdict of earlier evidence, if the tenant's policy allows that and everything that the verdict depends on
//! is the same. Any doubt runs the gate again.
//!
//! Only plain passes are repeated: by the base's definition, without a decision of a person, without findings. A gate
//! whose verdict depends on something outside, such as the network, is never repeated.

use std::sync::LazyLock;
use std::time::{Instant, UNIX_EPOCH};

use serde_json::json;

use super::request::{Earlier, Request};
use super::{Case, Runner, Work};
use crate::attestation::{TestVerdict, test_verdict};
use crate::definition::{GateDefinition, Kind};
use crate::evidence::{Evidence, ReuseKey, Reused};
use crate::run::Job;

/// Doubts that the earlier evidence may have. They stay true.
const KEPT_DOUBTS: [&str; 4] = ["no_report", "preset_limits", "report_forgeable", "sandbox_landlock"];

/// The version of the code that judges: another program file judges anew.
static ENGINE: LazyLock<String> = LazyLock::new(|| {
    let file = std::env::current_exe().and_then(std::fs::metadata);
    let file = file.and_then(|file| Ok((file.len(), file.modified()?)));
    file.map_or_else(
        |_| String::new(),
        |(bytes, modified)| {
            let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            format!("{} {bytes} {modified}", env!("CARGO_PKG_VERSION"))
        },
    )
});

impl<R: Runner> Work<'_, R> {
    /// Fills the evidence from an earlier one with the same inputs. `false` means that the gate must run.
    pub(super) async fn reuse(&self, gate: &GateDefinition, job: &Job, case: &mut Case) -> bool {
        case.may_repeat = self.request.policy.reuse_evidence && depends_on_inputs_only(gate);
        if !case.may_repeat {
            return false;
        }
        let started = Instant::now();
        let earlier = self.earlier(job, case).await;
        case.took("reuse", started);
        match earlier {
            Some(earlier) => {
                case.repeat(earlier);
                true
            }
            None => false,
        }
    }

    async fn earlier(&self, job: &Job, case: &Case) -> Option<Earlier> {
        let probed = self.runner.run(&self.request.workspace, job.probe()).await.ok()?.result;
        if probed.stopped.is_some() {
            return None;
        }
        let wanted = Evidence { toolchain: probed.toolchain, ..case.evidence.clone() };
        let key = key(&wanted, &probed.sandbox, self.request)?;
        let earlier = self.runner.earlier(&key).await?;
        let found = &earlier.evidence;
        let is_same = reuse_key(found, self.request).is_some_and(|own| own == key)
            && found.definition == wanted.definition
            && found.base.given_by == wanted.base.given_by;
        is_same.then_some(earlier)
    }
}

/// The key under which evidence can be found again. `None` if its verdict must not be repeated.
pub(super) fn reuse_key(evidence: &Evidence, request: &Request) -> Option<String> {
    let ran = evidence.command.as_ref().is_some_and(|command| command.exit_code.is_some() && !command.timed_out);
    let has_other_doubts = evidence.not_proved.iter().any(|doubt| !KEPT_DOUBTS.contains(&doubt.code.as_str()));
    let is_plain = test_verdict(evidence) == TestVerdict::Passed && ran && !has_other_doubts;
    if !is_plain || evidence.reused.is_some() || evidence.attempt.is_none() {
        return None;
    }
    key(evidence, evidence.sandbox["level"].as_str()?, request)
}

fn key(evidence: &Evidence, sandbox_level: &str, request: &Request) -> Option<String> {
    let settings =
        json!({ "tenant": request.tenant, "policy": request.policy, "base_given_by": evidence.base.given_by });
    let key = ReuseKey {
        gate: &evidence.gate,
        tree: &evidence.subject.as_ref()?.tree,
        base: Some(evidence.base.tree.as_ref()?),
        definition: &evidence.definition.as_ref()?.digest,
        locks: &evidence.locks,
        toolchain: &evidence.toolchain,
        sandbox_level,
        settings: &settings,
        engine: &ENGINE,
    };
    key.digest()
}

fn depends_on_inputs_only(gate: &GateDefinition) -> bool {
    gate.kind == Kind::Command && !gate.network
}

impl Case {
    fn repeat(&mut self, earlier: Earlier) {
        let Earlier { evidence: found, sha256 } = earlier;
        let attempt = found.attempt.unwrap_or_default();
        let own = &mut self.evidence;
        own.toolchain = found.toolchain;
        own.sandbox = found.sandbox;
        own.command = found.command;
        own.reports = found.reports;
        own.findings = found.findings;
        own.tests = found.tests;
        own.coverage = found.coverage;
        own.runner = found.runner;
        for doubt in found.not_proved {
            self.doubt(&doubt.code, &doubt.message);
        }
        let message = format!("The gate did not run again: run {} judged the same inputs.", attempt.run_id);
        self.doubt("reused", &message);
        self.repeated = Some(found.reason);
        self.evidence.reused = Some(Reused { run_id: attempt.run_id, step_id: attempt.step_id, evidence: sha256 });
    }
}

#[cfg(test)]
#[path = "reuse_tests.rs"]
mod tests;
