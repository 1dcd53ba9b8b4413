//! Gates that need no command of the workspace: secrets in changed lines, and mutants of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::request::Runner;
use super::subject::Subject;
use super::{Case, Stop, Work};
use crate::blocking::spawn_blocking;
use crate::coverage::changed_lines;
use crate::definition::{Definition, GateDefinition, Globs};
use crate::evidence::Findings;
use crate::finding::{InfraError, Reason};
use crate::secrets::{self, Scan, SourceFile};

/// The gate `secrets`: no changed line holds a secret.
pub async fn secrets<R: Runner>(work: &Work<'_, R>, gate: &GateDefinition, case: &mut Case) -> Result<Reason, Stop> {
    let (subject, allowed) = (Arc::clone(&work.subject), gate.allow.clone());
    let scanned = spawn_blocking(move || scan(&subject, &allowed));
    let scan = scanned.await.map_err(InfraError::task_failed)?.map_err(InfraError::from)?;
    if scan.allowed_findings > 0 {
        let message = "Some files may hold secrets, because the definition says so. Their lines were not judged.";
        case.doubt("secrets_allowed", message);
    }
    let judged = scan.judge();
    case.evidence.findings = Findings::of(scan.findings);
    Ok(judged?)
}

fn scan(subject: &Subject, allowed: &Globs) -> io::Result<Scan> {
    let mut texts: BTreeMap<&str, (Vec<u8>, Option<Vec<u32>>)> = BTreeMap::new();
    for (path, entry) in subject.head.files() {
        let old = subject.base.as_ref().and_then(|base| base.files().get(path));
        if old.is_some_and(|old| old.sha256 == entry.sha256) {
            continue;
        }
        let Some(new) = subject.head.read(path)? else { continue };
        let before = match &subject.base {
            Some(base) => base.read(path)?,
            None => None,
        };
        let changed = before.map(|old| changed_lines(&old, &new));
        texts.insert(path, (new, changed));
    }
    let files = texts.iter().map(|(path, (bytes, changed))| SourceFile { path, bytes, changed: changed.as_deref() });
    Ok(secrets::scan(files, |path| allowed.matches(path)))
}

pub async fn mutants<R: Runner>(
    _work: &Work<'_, R>,
    _definition: &Definition,
    _gate: &GateDefinition,
    _case: &mut Case,
) -> Result<Reason, Stop> {
    Err(Reason::new("unfinished", "temporary").into())
}
