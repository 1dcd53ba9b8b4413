//! Asks the ecosystem's own auditor for known vulnerabilities of the locked packages. Like an installer it has the network,
//! runs in the sandbox, and sees the vetted manifest and lock file alone. No code of the workspace runs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nofx_sandbox::{Exit, Output};

use super::InstallPlan;
use super::install::Installer;
use super::install::sandboxed::Writable;
use crate::attempt::passable_folder;
use crate::finding::ExamineError;

/// How an auditor ended.
#[derive(Debug)]
pub struct Audited {
    pub exit: Exit,
    /// Standard output: the report. Cut after 64 MiB.
    pub report: Vec<u8>,
    /// What it printed, the report included.
    pub output: Output,
}

impl Installer {
    /// Audits a plan's packages in a new folder.
    pub async fn audit(&self, plan: &InstallPlan, folder: &Path, timeout: Duration) -> Result<Audited, ExamineError> {
        let deadline = Instant::now() + timeout;
        let toolchain = self.toolchain(plan.ecosystem).await?;
        // The report is outside of what the auditor can write.
        let (inside, report) = (folder.join("files"), folder.join("report"));
        passable_folder(folder)?;
        fs::create_dir(&inside)?;
        let call = self.prepare(plan, toolchain, (&inside, &inside), None, |context| context.audit(plan)).await?;
        let writable = Writable::give(&inside, &self.settings).await?;
        let ran = writable.run(call, (plan, toolchain), &self.settings, deadline, Some(report.clone())).await?;
        writable.take_back().await?;
        Ok(Audited { exit: ran.exit, report: fs::read(&report)?, output: ran.output })
    }
}
