//! The folders that `workspaces` of package.json names.

use serde_json::{Map, Value};

use super::super::install::HOME;
use super::super::manifest_refused;
use super::super::verify::LAYOUT;
use crate::finding::Reason;
use crate::snapshot::Snapshot;

/// What an installation has beside the packages.
const TAKEN: [&str; 2] = [HOME, LAYOUT];
/// More packages than any monorepo has.
const MAX_FOLDERS: usize = 2000;
const MAX_PATTERNS: usize = 200;

/// Folders with a package.json that match the patterns, sorted.
pub fn folders(snapshot: &Snapshot, root: &Map<String, Value>) -> Result<Vec<String>, Reason> {
    let patterns = match root.get("workspaces") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(patterns)) => patterns.as_slice(),
        Some(Value::Object(fields)) => fields.get("packages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice),
        Some(_) => return Err(refuse(root, "is not a list")),
    };
    if patterns.len() > MAX_PATTERNS {
        return Err(refuse("*", "has more than 200 patterns"));
    }
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
            if parts.first().is_some_and(|first| TAKEN.contains(first)) {
                return Err(refuse(folder, "has the name of a file or folder of installations"));
            }
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
    reaches(
        pattern,
        path,
        |part| *part == "**",
        |part, name| {
            reaches(
                part.as_bytes(),
                name.as_bytes(),
                |byte| *byte == b'*',
                |byte, character| *byte == b'?' || byte == character,
            )
        },
    )
}

/// Whether a pattern with wildcards matches the whole text. Linear in both, because patterns are not trusted.
fn reaches<P, T>(
    pattern: &[P],
    text: &[T],
    is_wildcard: impl Fn(&P) -> bool,
    is_equal: impl Fn(&P, &T) -> bool,
) -> bool {
    // After each part of the pattern: the positions in the text at which the match may stand.
    let mut positions = vec![false; text.len() + 1];
    if let Some(first) = positions.first_mut() {
        *first = true;
    }
    for part in pattern {
        let mut next = vec![false; text.len() + 1];
        if is_wildcard(part) {
            let first = positions.iter().position(|stands| *stands).unwrap_or(positions.len());
            next.iter_mut().skip(first).for_each(|stands| *stands = true);
        } else {
            for ((item, stands), next) in text.iter().zip(&positions).zip(next.iter_mut().skip(1)) {
                *next = *stands && is_equal(part, item);
            }
        }
        positions = next;
    }
    positions.last().copied().unwrap_or(false)
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
        assert!(!glob_matches(&format!("{}x", "**/a/".repeat(500)), &"a/".repeat(1000)));
    }
}
