//! Decides which files of a workspace are sources, whose lines need coverage.

use std::collections::BTreeSet;

/// What counts as a source. The deployment sets the rules, because a workspace could exclude itself.
#[derive(Debug, Clone)]
pub struct SourceRules {
    /// Without the dot.
    pub extensions: Vec<String>,
    /// Names of folders, at any depth, whose files are dependencies or tests.
    pub excluded_folders: Vec<String>,
    /// Words before the extension, such as `test` in `x.test.ts`.
    pub excluded_suffixes: Vec<String>,
}

impl Default for SourceRules {
    fn default() -> Self {
        let owned = |items: &[&str]| items.iter().map(ToString::to_string).collect();
        Self {
            extensions: owned(&["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs"]),
            excluded_folders: owned(&["node_modules", "test", "tests", "__tests__", "__mocks__", "__fixtures__"]),
            excluded_suffixes: owned(&["test", "spec", "d"]),
        }
    }
}

impl SourceRules {
    /// `None` for a source, else why it is not one. `projects` are the folders with a package.json ("" for the root).
    pub fn exclusion(&self, path: &str, projects: &BTreeSet<String>) -> Option<&'static str> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return Some("not_a_source");
        };
        if !self.extensions.iter().any(|known| known == extension) {
            return Some("not_a_source");
        }
        let in_folder = |part: &str| self.excluded_folders.iter().any(|excluded| excluded == part);
        let suffix = stem.rsplit_once('.').map(|(_, suffix)| suffix);
        if folder.split('/').any(in_folder)
            || suffix.is_some_and(|suffix| self.excluded_suffixes.iter().any(|excluded| excluded == suffix))
        {
            return Some("excluded_test_or_declaration");
        }
        if path.split('/').any(|part| part.starts_with('.')) {
            return Some("excluded_hidden");
        }
        // `eslint.config.js` next to a package.json configures a tool. `src/app.config.ts` is part of the program.
        (suffix == Some("config") && projects.contains(folder)).then_some("excluded_tool_configuration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusion(path: &str) -> Option<&'static str> {
        SourceRules::default().exclusion(path, &BTreeSet::from([String::new(), "packages/a".to_string()]))
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
        assert_eq!(exclusion("src/a.test.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("test/a.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("src/types.d.ts"), Some("excluded_test_or_declaration"));
        assert_eq!(exclusion("vitest.config.ts"), Some("excluded_tool_configuration"));
        assert_eq!(exclusion("packages/a/eslint.config.js"), Some("excluded_tool_configuration"));
        assert_eq!(exclusion(".storybook/main.ts"), Some("excluded_hidden"));
    }
}
