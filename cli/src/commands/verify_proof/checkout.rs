//! Whether the gates of a proof judged the files of a checkout.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use nofx_gates::snapshot::{Snapshot, TreeDigest};
use nofx_gates::{Limits, unpack};

use super::Options;
use super::gates::Judged;
use super::report::Report;
use crate::client::source_tree::SourceTree;
use crate::client::unjudged::Unjudged;
use crate::client::workspace;

/// Paths that a message names.
const NAMED: usize = 5;

/// Compares the checkout of `--repo` with what the gates judged that passed.
pub fn check(judged: &[&Judged<'_>], options: &Options, report: &mut Report) {
    let Some(dir) = &options.repo else {
        if !judged.is_empty() {
            report
                .doubt("no_checkout", "No checkout was compared: --repo DIR compares one with what the gates judged.");
        }
        return;
    };
    let (tree, unjudged) = match read(dir) {
        Ok(found) => found,
        Err(error) => return report.missing.push(format!("{} cannot be compared: {error:#}", dir.display())),
    };
    let (same, other): (Vec<&Judged<'_>>, Vec<&Judged<'_>>) =
        judged.iter().partition(|one| one.statement.names_tree(&tree));
    let names = |list: &[&Judged<'_>]| list.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
    if same.is_empty() {
        report.missing.push(format!("no gate judged the tree {} of {}", tree.sha1, dir.display()));
    } else {
        report.check("repo", format!("the tree {} is what {} judged", tree.sha1, names(&same)));
    }
    if !other.is_empty() && !same.is_empty() {
        report.missing.push(format!("another tree than that of {} is what {} judged", dir.display(), names(&other)));
    }
    if !unjudged.left_out.is_empty() {
        report.missing.push(format!("no gate judges these parts of {}: {}", dir.display(), named(&unjudged.left_out)));
    }
    if !unjudged.ignored.is_empty() {
        let message = format!("Files that are ignored or installed are not compared: {}.", named(&unjudged.ignored));
        report.doubt("files_ignored", &message);
    }
}

/// The id of the files of a folder as gates see them, packed and unpacked again, and what is not among them.
fn read(dir: &Path) -> Result<(TreeDigest, Unjudged)> {
    let archive = workspace::pack(dir, None)?;
    let target = tempfile::tempdir().context("cannot make a temporary folder")?;
    unpack(&archive, target.path(), Limits::default(), &|| Ok(())).context("cannot unpack it again")?;
    let snapshot = Snapshot::take(target.path()).context("cannot read it again")?;
    let packed = snapshot.files().keys().map(String::as_str).collect();
    Ok((snapshot.digest(), Unjudged::of(&SourceTree::of(dir)?, &packed)?))
}

fn named(paths: &BTreeSet<String>) -> String {
    let shown = paths.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = paths.len().saturating_sub(NAMED);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
