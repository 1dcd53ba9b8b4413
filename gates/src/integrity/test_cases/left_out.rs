//! Modules of Rust with tests that nothing names any more, so that they are not compiled.

use super::super::change::Changes;
use super::super::finding::{Weakening, WeakeningKind};
use super::super::lex::{self, Language};
use super::rust;
use crate::snapshot::Snapshot;

pub fn find(head: &Snapshot, changes: &Changes) -> Vec<Weakening> {
    let mut findings = Vec::new();
    for change in &changes.files {
        if lex::language(&change.path) != Some(Language::Rust) {
            continue;
        }
        let (Some(old), Some(new)) = (change.base.text(), change.head.text()) else { continue };
        let kept = modules(new);
        for name in modules(old).into_iter().filter(|name| !kept.contains(name)) {
            let Some(file) = files(&change.path, &name).into_iter().find(|file| head.files().contains_key(file)) else {
                continue;
            };
            let text =
                head.read(&file).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            if !rust::cases(&lex::tokens(Language::Rust, &text)).is_empty() {
                let message = format!("The change no longer compiles {file}, which has tests.");
                findings.push(Weakening::new(WeakeningKind::TestDeleted, &change.path, None, message));
            }
        }
    }
    findings
}

/// The names after `mod` that have a file of their own.
fn modules(text: &str) -> Vec<String> {
    let code = lex::code(Language::Rust, text);
    let named =
        code.windows(3).filter(|window| matches!(window, [word, _, end] if word.is_word("mod") && end.is_mark(';')));
    named.filter_map(|window| window.get(1).map(|name| name.text.to_owned())).collect()
}

fn files(path: &str, module: &str) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    let nested = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
    let folders =
        if matches!(stem, "lib" | "main" | "mod") { vec![folder.to_owned()] } else { vec![nested, folder.to_owned()] };
    folders
        .iter()
        .flat_map(|folder| {
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            [format!("{prefix}{module}.rs"), format!("{prefix}{module}/mod.rs")]
        })
        .collect()
}
