//! The folders that `workspaces` of package.json names.

use serde_json::{Map, Value};

use super::super::manifest_refused;
use crate::finding::Reason;
use crate::snapshot::Snapshot;

/// More packages than any monorepo has.
const MAX_FOLDERS: usize = 2000;

/// Folders with a package.json that match the patterns, sorted.
pub fn folders(snapshot: &Snapshot, root: &Map<String, Value>) -> Result<Vec<String>, Reason> {
    let patterns = match root.get("workspaces") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(patterns)) => patterns.as_slice(),
        Some(Value::Object(fields)) => fields.get("packages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice),
        Some(_) => return Err(refuse(root, "is not a list")),
    };
    let mut parsed = Vec::new();
    for pattern in patterns {
        let text = pattern.as_str().ok_or_else(|| refuse(pattern, "is not a text"))?;
        let (keeps, text) = text.strip_prefix('!').map_or((true, text), |rest| (false, rest));
        let text = text.trim_start_matches("./").trim_end_matches('/');
        if text.contains(['{', '}', '[', ']', '(', ')', '!', '\\']) || text.starts_with('/') {
            return Err(refuse(pattern, "uses a pattern other than * and **"));
        }
        if text.split('/').any(|part| part == ".." || part == "node_modules" || part.is_empty() || part == ".") {
            return Err(refuse(pattern, "leaves the workspace or names no folder"));
        }
        parsed.push((keeps, text.split('/').collect::<Vec<_>>()));
    }
    let mut folders = Vec::new();
    for path in snapshot.files().keys() {
        let Some(folder) = path.strip_suffix("/package.json") else { continue };
        let parts: Vec<&str> = folder.split('/').collect();
        let matching = parsed.iter().rev().find(|(_, pattern)| matches(pattern, &parts));
        if matching.is_some_and(|(keeps, _)| *keeps) {
            folders.push(folder.to_owned());
        }
        if folders.len() > MAX_FOLDERS {
            return Err(refuse("*", "matches more than 2000 folders"));
        }
    }
    folders.sort();
    Ok(folders)
}

fn refuse(pattern: impl serde::Serialize, why: &str) -> Reason {
    let pattern = serde_json::to_string(&pattern).unwrap_or_default();
    manifest_refused(format_args!("package.json: workspaces: {pattern}"), why, "list folders inside the workspace")
}

/// Whether a pattern of folders matches one. `**` stands for any folders.
pub fn glob_matches(pattern: &str, folder: &str) -> bool {
    matches(&pattern.split('/').collect::<Vec<_>>(), &folder.split('/').collect::<Vec<_>>())
}

fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|skipped| matches(rest, path.get(skipped..).unwrap_or_default())),
        Some((part, rest)) => path
            .split_first()
            .is_some_and(|(first, others)| part_matches(part.as_bytes(), first.as_bytes()) && matches(rest, others)),
    }
}

/// `*` stands for any characters, `?` for one. Linear in the pattern times the name.
fn part_matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut reachable = vec![false; name.len() + 1];
    reachable[0] = true;
    for byte in pattern {
        if *byte == b'*' {
            let first = reachable.iter().position(|can| *can).unwrap_or(reachable.len());
            reachable.iter_mut().skip(first).for_each(|can| *can = true);
            continue;
        }
        for at in (0..name.len()).rev() {
            reachable[at + 1] = reachable[at] && (*byte == b'?' || *byte == name[at]);
        }
        reachable[0] = false;
    }
    reachable.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_folders_as_npm_matches_them() {
        for (pattern, path) in [
            ("packages/*", "packages/a"),
            ("packages/**", "packages/a/b"),
            ("a", "a"),
            ("p*-?s/x", "pack-js/x"),
            ("**/x", "x"),
            ("*", "é"),
        ] {
            assert!(glob_matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in
            [("packages/*", "packages/a/b"), ("packages/*", "packages"), ("a", "ab"), ("a*b", "ac"), ("?", "")]
        {
            assert!(!glob_matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_long_pattern_does_not_take_long() {
        assert!(!glob_matches(&"*a".repeat(2000), &"a".repeat(1999)));
    }
}
