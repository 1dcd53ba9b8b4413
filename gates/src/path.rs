//! Paths of a workspace. Archives, edits and patches follow the same rules.

use std::collections::HashMap;

use shared::domain::hidden;
use unicode_normalization::UnicodeNormalization;

use crate::snapshot::SKIPPED;

/// The longest name that the usual file systems store.
const MAX_NAME_BYTES: usize = 255;
/// Leaves room for the folder in which a workspace is unpacked: Linux opens paths of up to 4,095 bytes, macOS of 1,023.
const MAX_PATH_BYTES: usize = 900;
const MAX_DEPTH: usize = 64;

/// Parses a relative path that stays below its root. Returns it with single slashes. It is empty for the root itself.
/// The error names the path and says what is wrong.
pub fn parse(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| format!("the path {} is not UTF-8", shown(&String::from_utf8_lossy(bytes))))?;
    let refused = |why: &str| Err(format!("the path {} {why}", shown(text)));
    if text.chars().any(is_unprintable) {
        return refused("has a character that cannot be shown, such as a control character");
    }
    if text.starts_with('/') || text.contains('\\') {
        return refused("leaves the workspace; use a relative path with slashes");
    }
    let mut names = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => continue,
            ".." => return refused("leaves the workspace; use a path without `..`"),
            _ => names.push(name),
        }
        if name.len() > MAX_NAME_BYTES {
            return refused(&format!("has a name of {} bytes; at most {MAX_NAME_BYTES} are allowed", name.len()));
        }
        if let Some(skipped) = SKIPPED.iter().find(|skipped| name != **skipped && looks_like(name, skipped)) {
            return refused(&format!("has the name {name:?}, which is {skipped} on some file systems"));
        }
    }
    if let Some((character, _)) = hidden::characters(text).find(|(_, is_hidden)| *is_hidden) {
        return refused(&format!("has the character U+{:04X}, which readers cannot see", u32::from(character)));
    }
    let path = names.join("/");
    if path.len() > MAX_PATH_BYTES {
        return refused(&format!("has {} bytes; at most {MAX_PATH_BYTES} are allowed", path.len()));
    }
    if names.len() > MAX_DEPTH {
        return refused(&format!("has {} levels; at most {MAX_DEPTH} are allowed", names.len()));
    }
    Ok(path)
}

/// Parses the path of a file that somebody wants to change. It may not be in a folder that is no part of a workspace.
pub fn parse_file(bytes: &[u8]) -> Result<String, String> {
    let path = parse(bytes)?;
    if path.is_empty() {
        return Err(format!("the path {} names no file", shown(&String::from_utf8_lossy(bytes))));
    }
    match skipped(&path) {
        Some(folder) => Err(format!("the path {path:?} is in {folder}, which is not part of a workspace")),
        None => Ok(path),
    }
}

/// The folder of [`SKIPPED`] that a path is in, or that it is.
pub fn skipped(path: &str) -> Option<&'static str> {
    path.split('/').find_map(|name| SKIPPED.into_iter().find(|skipped| *skipped == name))
}

/// Checks the target of a link: it must be a path inside the workspace. All folders above the link are real, so each
/// leading `..` goes up exactly one level. A `..` after a name is refused, because that name may be a link.
pub fn check_link(path: &str, target: &[u8]) -> Result<(), String> {
    let outside = || format!("{path} is a link that may point outside the workspace");
    let target = std::str::from_utf8(target).map_err(|_| outside())?;
    if target.is_empty() || target.starts_with('/') || target.contains('\\') {
        return Err(outside());
    }
    if target.chars().any(is_unprintable) || target.len() > MAX_PATH_BYTES {
        return Err(format!("{path} is a link with an unusable target"));
    }
    let mut depth = path.split('/').count().saturating_sub(1);
    let mut has_name = false;
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." if !has_name && depth > 0 => depth -= 1,
            ".." => return Err(outside()),
            _ => has_name = true,
        }
    }
    Ok(())
}

/// The names of a tree. Finds names that are the same file where the file system ignores case, as on macOS and Windows, or
/// how letters are composed, as on macOS: such a tree would have other contents there.
#[derive(Debug, Default)]
pub struct Names {
    by_folded: HashMap<String, String>,
}

impl Names {
    /// Adds a path and the folders above it.
    pub fn insert(&mut self, path: &str) -> Result<(), String> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for prefix in ends.filter_map(|end| path.get(..end)) {
            let folded = prefix.to_lowercase().nfc().collect();
            let known = self.by_folded.entry(folded).or_insert_with(|| prefix.to_owned());
            if known != prefix {
                let message = "have names that differ only in case, or in how letters are composed; rename one of them";
                return Err(format!("{path} and {known} {message}"));
            }
        }
        Ok(())
    }
}

/// The text in quotes, cut to a length that fits into a message.
pub fn shown(text: &str) -> String {
    const CHARACTERS: usize = 100;
    let cut: String = text.chars().take(CHARACTERS).collect();
    let rest = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{rest}")
}

/// Control characters, and those that change the order in which a reader sees a name.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether some file system takes the two names for the same: macOS ignores case and some characters without a width.
fn looks_like(name: &str, skipped: &str) -> bool {
    let mut characters = name
        .chars()
        .filter(|character| !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}'));
    skipped.chars().all(|expected| characters.next().is_some_and(|found| found.eq_ignore_ascii_case(&expected)))
        && characters.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_and_has_single_slashes() {
        for (text, expected) in [
            ("a/b.txt", "a/b.txt"),
            ("./a//b/", "a/b"),
            (".", ""),
            ("é/..a/...", "é/..a/..."),
            ("👩\u{200d}🔬.md", "👩\u{200d}🔬.md"),
        ] {
            assert_eq!(parse(text.as_bytes()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn an_unusable_path_is_refused_with_its_name() {
        let deep = "d/".repeat(65);
        let long = format!("{}x", "long-name/".repeat(91));
        let wide = "é".repeat(128);
        for (text, why) in [
            ("../a", "leaves"),
            ("a/../b", "leaves"),
            ("/a", "leaves"),
            ("a\\b", "leaves"),
            ("a\nb", "control"),
            ("a\0b", "control"),
            ("a\u{1b}[31m", "control"),
            ("a\u{7f}", "control"),
            ("a\u{85}", "control"),
            ("a\u{202e}txt.exe", "cannot be shown"),
            ("READ\u{200b}ME.md", "U+200B"),
            ("a\u{ad}b", "U+00AD"),
            ("\u{feff}package.json", "U+FEFF"),
            ("a\u{3164}", "U+3164"),
            (".GIT/config", ".git on some"),
            ("a/.g\u{200c}it/hooks", ".git on some"),
            ("Node_Modules/a", "node_modules on some"),
            (&wide, "256 bytes"),
            (&deep, "65 levels"),
            (&long, "911 bytes"),
        ] {
            let message = parse(text.as_bytes()).unwrap_err();
            assert!(message.contains(why) && message.starts_with("the path \""), "{message}");
        }
        assert!(parse(b"a\xff").unwrap_err().contains("not UTF-8"));
        assert!(parse(&vec![b'x'; 100_000]).unwrap_err().len() < 300);
    }

    #[test]
    fn a_file_to_change_is_part_of_the_workspace() {
        for text in ["", ".", "./", ".git/hooks/pre-commit", "a/node_modules/b.js", "node_modules"] {
            assert!(parse_file(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(parse_file(b".gitignore").as_deref(), Ok(".gitignore"));
    }

    #[test]
    fn a_link_stays_inside() {
        for (path, target) in [("a", "b"), ("a", "./b/c"), ("a/b", "../c"), ("a/b/c", "../../d/e")] {
            assert_eq!(check_link(path, target.as_bytes()), Ok(()), "{target}");
        }
        for (path, target) in
            [("a", ""), ("a", "/etc"), ("a", ".."), ("a/b", "../../c"), ("a", "b/../c"), ("a", "b\\c"), ("a", "b\nc")]
        {
            assert!(check_link(path, target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn names_that_differ_only_in_case_are_found() {
        let mut names = Names::default();
        for path in ["src/a.ts", "src/b.ts", "README", "src"] {
            assert_eq!(names.insert(path), Ok(()));
        }
        assert_eq!(names.insert("src/\u{e9}.ts"), Ok(()));
        for path in ["SRC/c.ts", "src/A.ts", "readme", "src/e\u{301}.ts", "src/E\u{301}.ts"] {
            assert!(names.insert(path).unwrap_err().contains("differ only in case"), "{path}");
        }
    }
}
