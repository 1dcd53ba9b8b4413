//! How the fetched commits stand to the default branch. A gate's policy may trust a base by that.

use std::collections::BTreeSet;

use nofx_gates::snapshot::Snapshot;
use nofx_gates::{WorkspaceError, definition, integrity, path};
use shared::domain::base_origin::{Relation, Standing};

use super::refs::{BaseKind, Refs};

/// How many files a reason names, and how much of each name.
const NAMED: usize = 3;
const NAME_CHARS: usize = 100;

impl Refs {
    /// How a commit stands to the default branch. `kind` says how it was found, if it is the base. A merge base still has to
    /// be compared with the tip.
    pub fn standing(&self, commit: &str, kind: Option<BaseKind>) -> Option<Standing> {
        let (branch, tip) = (self.branch.clone()?, self.tip.clone()?);
        let is = match kind {
            _ if commit == tip => Relation::Tip,
            Some(BaseKind::MergeBase) => Relation::Outdated,
            Some(BaseKind::FirstParent { is_own: true }) => Relation::Parent,
            Some(BaseKind::FirstParent { is_own: false } | BaseKind::Given) | None => Relation::Other,
        };
        Some(Standing { branch, tip, is, why: None })
    }
}

/// Why a merge base does not count, if somebody could gain from starting the branch there.
pub fn outdated(tip: &Snapshot, base: &Snapshot, head: &Snapshot) -> Result<Option<String>, WorkspaceError> {
    Ok(weaker_checks(tip, base)?.or_else(|| shared_files(tip, base, head)))
}

/// Both sides have changed these files. Lines that the branch has already would count as lines of the change, and uncovered
/// ones would hide among them.
fn shared_files(tip: &Snapshot, base: &Snapshot, head: &Snapshot) -> Option<String> {
    let old = base.files();
    let both: Vec<&str> = (head.files().keys().chain(old.keys()))
        .filter(|path| head.files().get(*path) != old.get(*path) && tip.files().get(*path) != old.get(*path))
        .map(String::as_str)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    (!both.is_empty()).then(|| format!("both have changed files since, {}", listed(&both)))
}

/// Somebody could start a branch before a check was there. Tests do not count, because the change does not delete those that
/// came later.
fn weaker_checks(tip: &Snapshot, base: &Snapshot) -> Result<Option<String>, WorkspaceError> {
    let of_tip = match definition::define(tip) {
        Ok(definition) => definition,
        Err(problems) => return Ok(Some(invalid("its newest commit", &problems))),
    };
    let of_base = match definition::define(base) {
        Ok(definition) => definition,
        Err(problems) => return Ok(Some(invalid("the base", &problems))),
    };
    let found = integrity::compare_checks(tip, base, &of_tip, &of_base)?;
    let mut paths: Vec<&str> = found.findings.iter().map(|finding| finding.path.as_str()).collect();
    paths.dedup();
    Ok((!paths.is_empty()).then(|| format!("its checks are other ones now, {}", listed(&paths))))
}

fn invalid(whose: &str, problems: &[definition::Problem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    let text: String = first.chars().take(NAME_CHARS).collect();
    format!("the {} of {whose} is not valid: {text}", definition::FILE)
}

fn listed(paths: &[&str]) -> String {
    let shown = |path: &&str| -> String { path::shown(path).trim_matches('"').chars().take(NAME_CHARS).collect() };
    let named: Vec<String> = paths.iter().take(NAMED).map(shown).collect();
    let more = paths.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("in {}{more}", named.join(", "))
}
