//! The evidence in progress: what the judge has recorded and doubted so far.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::conclude::Observed;
use super::request::{NewAttachment, Request};
use super::text::{redact_reports, redacted};
use crate::coverage::CoverageEvidence;
use crate::evidence::{self, Doubt, DoubtCode, Evidence};
use crate::redact::Redactor;
use crate::run::{Bundle, CommandRun, Exit, millis};

/// A gate in progress.
pub struct Case {
    pub evidence: Evidence,
    pub attachments: Vec<NewAttachment>,
    /// The version of the judge that may repeat the verdict later. `None`: nobody may.
    pub reusable_by: Option<&'static str>,
    /// The reason of the earlier verdict that this one repeats.
    pub repeated: Option<evidence::Reason>,
}

/// What one command of a gate with several commands found.
pub struct Part {
    reports: Vec<evidence::Report>,
    findings: evidence::Findings,
    toolchain: BTreeMap<String, String>,
}

impl Case {
    pub fn new(request: &Request) -> Self {
        let reason = evidence::Reason { code: "unfinished".into(), message: "the gate did not finish".into() };
        let mut evidence = Evidence::new(&request.gate, reason, now_ms());
        evidence.attempt.clone_from(&request.attempt);
        env!("CARGO_PKG_VERSION").clone_into(&mut evidence.runner.version);
        Self { evidence, attachments: Vec::new(), reusable_by: None, repeated: None }
    }

    pub fn took(&mut self, phase: &str, since: Instant) {
        *self.evidence.timings_ms.entry(phase.to_owned()).or_default() += millis(since.elapsed());
    }

    pub fn doubt(&mut self, code: DoubtCode) {
        self.add_doubt(code.into());
    }

    /// A doubt that other evidence had.
    pub fn add_doubt(&mut self, doubt: Doubt) {
        let doubts = &mut self.evidence.not_proved;
        if doubts.iter().all(|known| known.code != doubt.code) {
            doubts.push(doubt);
        }
    }

    /// What the runner says about installation, toolchain and time.
    pub fn record_result(&mut self, bundle: &Bundle) {
        let result = &bundle.result;
        self.evidence.runner.version.clone_from(&result.runner);
        self.evidence.runner.error = result.stopped.as_ref().map(|stopped| stopped.message.clone());
        self.evidence.toolchain.clone_from(&result.toolchain);
        self.evidence.install = result.install.as_ref().map(|install| evidence::Install {
            how: install.how.clone(),
            ecosystem: Some(install.ecosystem.name().to_owned()),
            ms: install.ms,
        });
        for (phase, ms) in &result.timings_ms {
            self.evidence.timings_ms.insert(format!("runner_{phase}"), *ms);
        }
    }

    pub fn attach_log(&mut self, run: &CommandRun, bundle: &Bundle) {
        let log = run.output.entry.as_ref().and_then(|entry| bundle.files.get(entry));
        let is_cut = run.output.head.is_some();
        if let Some(log) = log.filter(|_| is_cut) {
            let bytes = Redactor::redact(&[], log);
            self.attachments.push(NewAttachment { name: "log.txt".to_owned(), media_type: "text/plain", bytes });
        }
    }

    /// What the run was and what its reports say. An audit has no sandbox, because it runs nothing of the workspace.
    pub fn record(&mut self, run: &CommandRun, observed: &Observed, is_audit: bool) {
        let evidence = &mut self.evidence;
        evidence.command = Some(evidence::CommandResult {
            exit_code: if let Exit::Code(code) = run.exit { Some(code) } else { None },
            signal: if let Exit::Signal(signal) = run.exit { Some(signal) } else { None },
            timed_out: run.exit == Exit::TimedOut,
            output: evidence::Output {
                bytes: run.output.bytes,
                head: run.output.head.as_deref().map(redacted),
                tail: redacted(&run.output.tail),
                sha256: run.output.sha256.clone(),
            },
        });
        evidence.sandbox = run.sandbox.clone();
        evidence.reports.clone_from(&observed.reports);
        evidence.findings =
            evidence::Findings::of(observed.parsed.iter().flat_map(|parsed| parsed.findings.clone()).collect());
        evidence.tests = observed.tests.as_ref().map(evidence::Tests::of);
        evidence.coverage =
            observed.coverage.as_ref().and_then(|coverage| serde_json::to_value(CoverageEvidence::from(coverage)).ok());
        redact_reports(&mut self.evidence);
        if !is_audit {
            self.doubt_sandbox(run);
        }
        if observed.coverage.is_some() || observed.tests.is_some() {
            self.doubt(DoubtCode::ReportForgeable);
        }
    }

    /// Sets aside what an earlier command of the same gate found.
    pub fn begin_part(&mut self) -> Part {
        let own = &mut self.evidence;
        Part { reports: take(&mut own.reports), findings: take(&mut own.findings), toolchain: take(&mut own.toolchain) }
    }

    /// Puts it before what a later command found.
    pub fn add_part(&mut self, earlier: Part) {
        let own = &mut self.evidence;
        own.reports.splice(0..0, earlier.reports);
        own.findings.add(earlier.findings);
        own.toolchain.extend(earlier.toolchain);
    }

    fn doubt_sandbox(&mut self, run: &CommandRun) {
        match run.sandbox["level"].as_str() {
            Some("namespaces") => {}
            Some("landlock") => self.doubt(DoubtCode::SandboxLandlock),
            _ => self.doubt(DoubtCode::SandboxWeak),
        }
        if run.sandbox["network"] == "open" {
            self.doubt(DoubtCode::NetworkOpen);
        }
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
