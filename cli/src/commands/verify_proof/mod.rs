//! Checks the proof of a run with public keys alone: every byte, digest, signature and edge, and what the gates judged.

mod checkout;
mod content;
mod gates;
mod opened;
mod people;
mod provenance;
mod report;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use shared::domain::proof::Fault;
use shared::domain::provenance::Index;

use crate::client::keyring::Keyring;
use crate::output;
use crate::output::error::NOT_PASSED;

pub use report::Report;

use opened::Opened;

/// What a proof is compared with.
pub struct Options {
    pub keys: Keyring,
    /// A checkout that the gates must have judged.
    pub repo: Option<PathBuf>,
    /// The only builders that may have made artifacts. Empty: all.
    pub builders: Vec<String>,
    /// Whether a doubt about gates is as bad as a gate that did not pass.
    pub is_strict: bool,
}

/// Whether a file may be a proof.
pub fn is_proof(bytes: &[u8]) -> bool {
    // Also of one that somebody formatted, so that the report says that.
    let marks = [b"\"nofx.proof.".as_slice(), b"{\"content\":{\"artifacts\":"];
    bytes.starts_with(marks[1]) || bytes.windows(marks[0].len()).any(|window| window == marks[0])
}

/// Prints what the file proves and what not.
pub fn run(bytes: &[u8], options: &Options, is_json: bool) -> Result<ExitCode> {
    let report = check(bytes, options);
    if is_json {
        output::json(&report)?;
    } else {
        output::text(report.text())?;
    }
    Ok(ExitCode::from(if !report.faults.is_empty() {
        1
    } else if report.passes {
        0
    } else {
        NOT_PASSED
    }))
}

/// Checks everything.
pub fn check(bytes: &[u8], options: &Options) -> Report {
    let mut report = Report::default();
    if !options.keys.has_purposes() {
        report.doubt("keys_without_purpose", "The file of keys does not say what each key is for, so each counts for everything. nofx keys --pem --all writes one that does.");
    }
    let opened = match Opened::of(bytes, &options.keys) {
        Ok(opened) => opened,
        Err(fault) => {
            report.faults.push(fault);
            return report;
        }
    };
    opened.describe(&mut report);
    let content = &opened.content;
    let index = Index::of(content);
    content::check(content, &mut report);
    provenance::check(content, &index, options, &mut report);
    story::check(content, &mut report);
    gates::check(content, &index, options, &mut report);
    report.conclude(options.is_strict);
    report
}

/// A fault at a path.
fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault::new(path, message)
}
