//! Asks the ecosystem's own auditor for known vulnerabilities of the locked packages. Like an installer it has the network
//! and sees the vetted manifest and lock file alone. No code of the workspace runs.

use std::fs;
use std::path::Path;

use super::install::{InstallError, InstallRequest, Installer, run_in};
use super::{Ecosystem, InstallPlan};
use crate::process::Exit;

/// The limit on a report.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What an auditor printed.
#[derive(Debug)]
pub struct Audited {
    /// Program and arguments, as a person would type them.
    pub command: Vec<String>,
    pub exit: Exit,
    /// Standard output: the report.
    pub report: Vec<u8>,
    /// The end of what it printed to standard error.
    pub errors: String,
}

impl Installer {
    /// Audits a plan's packages in a new folder.
    pub async fn audit(
        &self,
        plan: &InstallPlan,
        folder: &Path,
        request: &InstallRequest,
    ) -> Result<Audited, InstallError> {
        let (argv, environment) = self.audit_command(plan, folder).await?;
        let report = folder.join("audit-report.json");
        // The report is on standard output alone, and may be larger than what is kept of an output.
        let mut redirected: Vec<String> =
            ["/bin/sh", "-c", "out=$1; shift; exec \"$@\" > \"$out\"", "sh"].map(str::to_owned).to_vec();
        redirected.push(report.to_string_lossy().into_owned());
        redirected.extend(argv);
        let result = run_in(redirected, plan, folder, environment, request).await?;
        let size = fs::metadata(&report)?.len();
        let read = if size > MAX_BYTES { Vec::new() } else { fs::read(&report)? };
        let command = match plan.ecosystem {
            Ecosystem::Npm => "npm audit --json",
            Ecosystem::Pip => "pip-audit --format json",
            Ecosystem::Cargo => "cargo audit --json",
            Ecosystem::Go => "govulncheck",
        };
        Ok(Audited {
            command: command.split(' ').map(str::to_owned).collect(),
            exit: result.exit,
            report: read,
            errors: result.output.tail(),
        })
    }
}
