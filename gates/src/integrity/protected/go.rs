//! go.mod and go.sum.

use std::collections::{BTreeMap, BTreeSet};

use super::Reasons;

/// `require` lines may change. Any other line replaces modules, or the toolchain.
pub fn module(base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let (Some(old), new) = (base.map(directives), directives(head)) else { return Vec::new() };
    let changed = old.symmetric_difference(&new);
    changed.map(|line| format!("{} {line:?}", if new.contains(line) { "new is" } else { "gone is" })).collect()
}

fn directives(text: &str) -> BTreeSet<String> {
    let mut block = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        if line == ")" {
            block.clear();
        } else if let Some(name) = line.strip_suffix(" (") {
            block = format!("{name} ");
        } else if !line.is_empty() {
            found.insert(format!("{block}{line}"));
        }
    }
    // The module's `go` line bumps with the language. It loosens nothing.
    found.retain(|line| !line.starts_with("require ") && !line.starts_with("go ") && !line.starts_with("toolchain "));
    found
}

/// The same module and version with another hash.
pub fn sums(base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let read = |text: &str| -> BTreeMap<String, String> {
        text.lines()
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(module, hash)| (module.to_owned(), hash.to_owned()))
            .collect()
    };
    let old = read(base.unwrap_or_default());
    read(head)
        .into_iter()
        .filter(|(module, hash)| old.get(module).is_some_and(|before| before != hash))
        .map(|(module, _)| format!("{module} has other bytes"))
        .collect()
}
