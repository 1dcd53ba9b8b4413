//! Decides which files of a workspace are sources, whose lines need coverage.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::language::{OTHERS, SCRIPTS};

/// Folders that are not part of a workspace, at any depth: history and installed dependencies.
const SKIPPED: [&str; 2] = [".git", "node_modules"];

/// Whether a path is below a folder that is not part of a workspace.
pub fn is_skipped(path: &str) -> bool {
    path.split('/').any(|part| SKIPPED.contains(&part))
}

/// What counts as a source. The deployment or the base sets the rules, because a workspace could exclude itself.
#[derive(Debug, Clone)]
pub struct SourceRules {
    /// Without the dot. Counts if there are no globs of sources.
    extensions: Vec<&'static str>,
    sources: Option<GlobSet>,
    ignores: GlobSet,
}

impl Default for SourceRules {
    /// TypeScript and JavaScript, which is all that Istanbul measures.
    fn default() -> Self {
        Self { extensions: SCRIPTS.to_vec(), sources: None, ignores: GlobSet::empty() }
    }
}

impl SourceRules {
    /// Sources of every language with a lexer, for LCOV and Cobertura.
    #[must_use]
    pub fn of_every_language() -> Self {
        Self { extensions: SCRIPTS.iter().chain(&OTHERS).copied().collect(), ..Self::default() }
    }

    /// Takes the files that these globs match as sources, in place of the known extensions. No globs change nothing.
    pub fn with_sources(mut self, globs: &[String]) -> Result<Self, String> {
        if !globs.is_empty() {
            self.sources = Some(glob_set(globs)?);
        }
        Ok(self)
    }

    /// Excludes the files that these globs match.
    pub fn with_ignores(mut self, globs: &[String]) -> Result<Self, String> {
        self.ignores = glob_set(globs)?;
        Ok(self)
    }

    /// Whether the name is that of a source, unless something excludes it.
    pub fn may_be_source(&self, path: &str) -> bool {
        match &self.sources {
            Some(globs) => globs.is_match(path),
            None => path.rsplit_once('.').is_some_and(|(_, extension)| self.extensions.contains(&extension)),
        }
    }

    /// `None` for a source, else why it is not one. `projects` are the folders with a package.json, Cargo.toml,
    /// pyproject.toml or go.mod ("" for the root).
    pub fn exclusion(&self, path: &str, projects: &BTreeSet<String>) -> Option<&'static str> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        if !self.may_be_source(path) {
            return Some("not_a_source");
        }
        if is_skipped(path)
            || is_test_or_declaration(folder, stem, extension)
            || is_installed(folder, extension, projects)
        {
            return Some("excluded_test_or_declaration");
        }
        if self.ignores.is_match(path) {
            return Some("excluded_by_configuration");
        }
        if self.sources.is_some() {
            return None;
        }
        if path.split('/').any(|part| part.starts_with('.')) {
            return Some("excluded_hidden");
        }
        // `eslint.config.js` next to a package.json configures a tool. `src/app.config.ts` is part of the program.
        let is_tool = match extension {
            "rs" => name == "build.rs",
            "py" => matches!(name, "setup.py" | "noxfile.py"),
            _ => stem.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "config"),
        };
        (is_tool && projects.contains(folder)).then_some("excluded_tool_configuration")
    }
}

fn is_test_or_declaration(folder: &str, stem: &str, extension: &str) -> bool {
    const FOLDERS: [&str; 5] = ["test", "tests", "__tests__", "__mocks__", "__fixtures__"];
    if folder.split('/').any(|part| FOLDERS.contains(&part)) {
        return true;
    }
    match extension {
        "py" => stem.starts_with("test_") || stem.ends_with("_test") || stem == "conftest",
        "go" => stem.ends_with("_test"),
        "rs" => folder.split('/').any(|part| part == "benches"),
        "pyi" => true,
        _ => stem.rsplit_once('.').is_some_and(|(_, suffix)| matches!(suffix, "test" | "spec" | "d")),
    }
}

/// Packages of Python, and what Cargo builds.
fn is_installed(folder: &str, extension: &str, projects: &BTreeSet<String>) -> bool {
    match extension {
        "py" => folder.split('/').any(|part| matches!(part, "site-packages" | "__pycache__")),
        "rs" => folder.match_indices("target").any(|(at, _)| {
            let whole = matches!(folder.as_bytes().get(at + "target".len()), None | Some(b'/'));
            let before = folder.get(..at).unwrap_or_default();
            whole && (before.is_empty() || before.ends_with('/')) && projects.contains(before.trim_end_matches('/'))
        }),
        _ => false,
    }
}

/// `*` stays within a folder, `**` does not. A pattern without a slash matches names at any depth. A pattern that names
/// a folder matches everything in it.
fn glob_set(globs: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let pattern = glob.trim().trim_start_matches("./").trim_start_matches('/').trim_end_matches('/');
        if pattern.is_empty() || pattern.starts_with('!') {
            return Err(format!("the glob {glob:?} is empty or negated"));
        }
        let pattern = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
        for pattern in [format!("{pattern}/**"), pattern] {
            let built = GlobBuilder::new(&pattern).literal_separator(true).build();
            set.add(built.map_err(|error| format!("the glob {glob:?} is not valid: {error}"))?);
        }
    }
    set.build().map_err(|error| format!("the globs are too large: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusion_by(rules: &SourceRules, path: &str) -> Option<&'static str> {
        rules.exclusion(path, &BTreeSet::from([String::new(), "packages/a".to_string()]))
    }

    fn exclusion(path: &str) -> Option<&'static str> {
        exclusion_by(&SourceRules::default(), path)
    }

    fn globs(globs: &[&str]) -> Vec<String> {
        globs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn program_files_are_sources() {
        for path in [
            "src/a.ts",
            "a.js",
            "packages/a/src/b.tsx",
            "src/app.config.ts",
            "src/latest.ts",
            "src/test.ts",
            "src/coverage/a.ts",
        ] {
            assert_eq!(exclusion(path), None, "{path}");
        }
    }

    #[test]
    fn tests_declarations_and_tool_configuration_are_not_sources() {
        assert_eq!(exclusion("README.md"), Some("not_a_source"));
        assert_eq!(exclusion("Makefile"), Some("not_a_source"));
        assert_eq!(exclusion("src/a.py"), Some("not_a_source"));
        assert_eq!(exclusion("src/a.test.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("test/a.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("node_modules/a/a.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("src/types.d.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("vitest.config.ts"), Some("excluded_tool_configuration"));
        assert_eq!(exclusion("packages/a/eslint.config.js"), Some("excluded_tool_configuration"));
        assert_eq!(exclusion(".storybook/main.ts"), Some("excluded_hidden"));
    }

    #[test]
    fn other_languages_have_tests_of_their_own_kind() {
        let rules = SourceRules::of_every_language();
        for path in
            ["src/a.py", "src/lib.rs", "cmd/main.go", "src/a.ts", "src/target/mod.rs", "src/build.rs", "mytest.py"]
        {
            assert_eq!(exclusion_by(&rules, path), None, "{path}");
        }
        for path in [
            "src/test_a.py",
            "a_test.py",
            "conftest.py",
            "a_test.go",
            "tests/a.rs",
            "benches/b.rs",
            "target/debug/x.rs",
            "v/site-packages/a.py",
        ] {
            assert_eq!(exclusion_by(&rules, path), Some("excluded_test_or_declaration"), "{path}");
        }
        assert_eq!(exclusion_by(&rules, "build.rs"), Some("excluded_tool_configuration"));
    }

    #[test]
    fn globs_choose_and_exclude_sources() {
        let rules = SourceRules::default().with_sources(&globs(&["src/*.vue", "lib"])).unwrap();
        let rules = rules.with_ignores(&globs(&["*.gen.ts", "lib/old/"])).unwrap();
        for path in ["src/a.vue", "lib/a.ts", "lib/b/c.rb", "lib/.hidden.js"] {
            assert_eq!(exclusion_by(&rules, path), None, "{path}");
        }
        assert_eq!(exclusion_by(&rules, "src/b/a.vue"), Some("not_a_source"));
        assert_eq!(exclusion_by(&rules, "a.ts"), Some("not_a_source"));
        assert_eq!(exclusion_by(&rules, "lib/a.test.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion_by(&rules, "lib/x/a.gen.ts"), Some("excluded_by_configuration"));
        assert_eq!(exclusion_by(&rules, "lib/old/a.ts"), Some("excluded_by_configuration"));
        assert!(SourceRules::default().with_sources(&globs(&["a[b"])).is_err());
        assert!(SourceRules::default().with_ignores(&globs(&["!a"])).is_err());
    }
}
