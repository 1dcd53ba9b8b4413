//! Finds the workspace's file that a path in a report means.
//!
//! A report may have absolute paths of another machine, Windows separators, or paths relative to a package of a
//! monorepo. A path means the file with the longest common suffix, if one of the two paths is that whole suffix:
//! `/ci/build/src/a.ts` means `src/a.ts`, and `src/a.ts` means `packages/x/src/a.ts`.

use std::collections::{BTreeMap, BTreeSet};

use super::CannotJudge;

/// The files of the workspace, indexed for lookups.
pub struct PathIndex<'a> {
    files: BTreeSet<&'a str>,
    /// Every proper suffix that starts after a slash, with the files that have it.
    suffixes: BTreeMap<&'a str, Vec<&'a str>>,
    root: Vec<String>,
}

impl<'a> PathIndex<'a> {
    /// `root` is the workspace's folder while the tests ran. Paths below it are exact.
    pub fn new(files: impl Iterator<Item = &'a str>, root: &str) -> Self {
        let files: BTreeSet<&str> = files.collect();
        let mut suffixes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in &files {
            for (border, _) in file.match_indices('/') {
                suffixes.entry(&file[border + 1..]).or_default().push(file);
            }
        }
        Self { files, suffixes, root: components(root) }
    }

    /// The file that `reported` means. `None` if it is not in the workspace.
    pub fn find(&self, reported: &str) -> Result<Option<&'a str>, CannotJudge> {
        let parts = components(reported);
        if !self.root.is_empty() && parts.len() > self.root.len() && parts.starts_with(&self.root) {
            // A path below the root means exactly that file, or none if it is gone. Suffixes do not count.
            return Ok(self.files.get(parts[self.root.len()..].join("/").as_str()).copied());
        }
        // A dependency's `src/index.ts` is not the workspace's.
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
                Err(ambiguous(&format!("the report's path {reported:?} may mean {first} or {second}")))
            }
        }
    }
}

/// Two paths mean one file, or one path means two: hits would be counted for the wrong lines.
pub fn ambiguous(message: &str) -> CannotJudge {
    CannotJudge::new("ambiguous_path", message)
}

fn components(path: &str) -> Vec<String> {
    let path = path.strip_prefix("file://").unwrap_or(path);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[&str], reported: &str) -> Result<Option<String>, &'static str> {
        let index = PathIndex::new(files.iter().copied(), "/work/root");
        index.find(reported).map(|file| file.map(str::to_string)).map_err(|error| error.code)
    }

    #[test]
    fn absolute_paths_of_another_machine_windows_separators_and_relative_paths_are_found() {
        let files = ["src/a.ts", "packages/x/src/b.ts"];
        for reported in
            ["/work/root/src/a.ts", "/home/ci/build/src/a.ts", "C:\\ci\\build\\src\\a.ts", "./src/a.ts", "src/a.ts"]
        {
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
    fn a_path_that_means_two_files_is_not_guessed() {
        assert_eq!(find(&["packages/x/src/a.ts", "packages/y/src/a.ts"], "src/a.ts"), Err("ambiguous_path"));
    }

    #[test]
    fn a_common_name_in_another_folder_is_no_match() {
        assert_eq!(find(&["src/a.ts"], "/ci/lib/a.ts"), Ok(None));
        assert_eq!(find(&["src/xa.ts"], "a.ts"), Ok(None));
    }

    #[test]
    fn a_dependency_with_our_file_name_is_not_ours() {
        assert_eq!(find(&["src/a.ts"], "/ci/node_modules/dep/src/a.ts"), Ok(None));
        assert_eq!(find(&["src/a.ts"], "/work/root/other/src/a.ts"), Ok(None));
    }
}
