//! Maps a path in a report to a file of the workspace.
//!
//! A report may have absolute paths of another machine, Windows separators, or paths relative to a package of a
//! monorepo. A path matches a file if one is a suffix of the other: `/ci/build/src/a.ts` matches `src/a.ts`, and
//! `src/a.ts` matches `packages/x/src/a.ts`. The longest match wins.

use std::collections::{BTreeMap, BTreeSet};

use super::CoverageError;

/// The files of the workspace, indexed for lookups.
pub struct PathIndex<'a> {
    files: BTreeSet<&'a str>,
    /// Every proper suffix that starts after a slash, with the files that have it.
    suffixes: BTreeMap<&'a str, Vec<&'a str>>,
    roots: Vec<Vec<String>>,
}

impl<'a> PathIndex<'a> {
    /// `roots` are the paths of the workspace's folder during the tests. Paths below them are exact.
    pub fn new(files: impl Iterator<Item = &'a str>, roots: &[String]) -> Self {
        let files: BTreeSet<&str> = files.collect();
        let mut suffixes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in &files {
            for (border, _) in file.match_indices('/') {
                suffixes.entry(&file[border + 1..]).or_default().push(file);
            }
        }
        let roots = roots.iter().map(|root| components(root)).filter(|root| !root.is_empty()).collect();
        Self { files, suffixes, roots }
    }

    /// The file that `reported` matches. `None` if it is not in the workspace.
    pub fn find(&self, reported: &str) -> Result<Option<&'a str>, CoverageError> {
        let parts = components(reported);
        if let Some(root) = self.roots.iter().find(|root| parts.len() > root.len() && parts.starts_with(root)) {
            // A path below the root matches exactly that file, or none if it is gone.
            return Ok(self.files.get(parts[root.len()..].join("/").as_str()).copied());
        }
        // The `src/index.ts` of a dependency is not a file of the workspace.
        if parts.iter().any(|part| part == "node_modules") {
            return Ok(None);
        }
        for start in 0..parts.len() {
            if let Some(file) = self.files.get(parts[start..].join("/").as_str()) {
                return Ok(Some(file));
            }
        }
        match self.suffixes.get(parts.join("/").as_str()).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([file]) => Ok(Some(file)),
            Some([first, second, ..]) => {
                Err(ambiguous(&format!("the report's path {reported:?} matches both {first} and {second}")))
            }
        }
    }
}

/// Two paths match one file, or one path matches two. Hits could count for the wrong lines.
pub fn ambiguous(message: &str) -> CoverageError {
    CoverageError::new("ambiguous_path", message)
}

fn components(path: &str) -> Vec<String> {
    let decoded = path.strip_prefix("file://").map(decode);
    let path = decoded.as_deref().unwrap_or(path);
    let mut parts: Vec<String> = Vec::new();
    for part in path.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part.to_string()),
        }
    }
    parts
}

/// Resolves the `%20` of a URL.
fn decode(url: &str) -> String {
    let mut bytes = Vec::with_capacity(url.len());
    let mut rest = url.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[&str], reported: &str) -> Result<Option<String>, &'static str> {
        let index = PathIndex::new(files.iter().copied(), &["/work/root".to_owned(), String::new()]);
        index.find(reported).map(|file| file.map(str::to_string)).map_err(|error| error.code)
    }

    #[test]
    fn absolute_paths_of_another_machine_windows_separators_and_relative_paths_are_found() {
        let files = ["src/a.ts", "packages/x/src/b.ts"];
        for reported in [
            "/work/root/src/a.ts",
            "/home/ci/build/src/a.ts",
            "C:\\ci\\build\\src\\a.ts",
            "./src/a.ts",
            "src/a.ts",
            "file:///ci/s%72c/a.ts",
        ] {
            assert_eq!(find(&files, reported), Ok(Some("src/a.ts".into())), "{reported}");
        }
        assert_eq!(find(&files, "src/b.ts"), Ok(Some("packages/x/src/b.ts".into())));
        assert_eq!(find(&files, "b.ts"), Ok(Some("packages/x/src/b.ts".into())));
    }

    #[test]
    fn the_longest_suffix_wins() {
        let files = ["index.ts", "src/index.ts", "packages/x/src/index.ts"];
        assert_eq!(find(&files, "/ci/packages/x/src/index.ts"), Ok(Some("packages/x/src/index.ts".into())));
        assert_eq!(find(&files, "/ci/src/index.ts"), Ok(Some("src/index.ts".into())));
    }

    #[test]
    fn a_path_that_matches_two_files_is_ambiguous() {
        assert_eq!(find(&["packages/x/src/a.ts", "packages/y/src/a.ts"], "src/a.ts"), Err("ambiguous_path"));
    }

    #[test]
    fn the_same_name_in_another_folder_does_not_match() {
        assert_eq!(find(&["src/a.ts"], "/ci/lib/a.ts"), Ok(None));
        assert_eq!(find(&["src/xa.ts"], "a.ts"), Ok(None));
    }

    #[test]
    fn a_file_of_a_dependency_does_not_match() {
        assert_eq!(find(&["src/a.ts"], "/ci/node_modules/dep/src/a.ts"), Ok(None));
        assert_eq!(find(&["src/a.ts"], "/work/root/other/src/a.ts"), Ok(None));
    }
}
