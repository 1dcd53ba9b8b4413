//! The gate `audit`: asks for known vulnerabilities.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bundle::Bundle;
use super::convert::{exit_of, shown};
use super::spec::{CommandRun, Found, ReportFile, millis};
use crate::dependencies::{InstallPlan, Installer};
use crate::finding::ExamineError;

/// Audits what the lock file pins, in a new folder. The report is what the auditor prints.
pub async fn audit(
    installer: &Installer,
    plan: &InstallPlan,
    (workspace, folder): (&Path, &Path),
    timeout: Duration,
    bundle: &mut Bundle,
) -> Result<(), ExamineError> {
    let started = Instant::now();
    let audited = installer.audit(plan, folder, timeout).await?;
    let entry = bundle.add("audit/stdout".to_owned(), audited.report);
    bundle.result.runs.push(CommandRun {
        variant: String::new(),
        root: workspace.to_string_lossy().into_owned(),
        exit: exit_of(audited.exit)?,
        ms: millis(started.elapsed()),
        output: shown(audited.output, workspace, None),
        reports: vec![ReportFile { report: 0, path: "stdout".to_owned(), found: Found::File { entry } }],
        // No code of the workspace ran.
        sandbox: Value::Null,
    });
    Ok(())
}
