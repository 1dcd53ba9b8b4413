//! Sets of glob patterns over the paths of a workspace.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Serialize, Serializer};

/// Glob patterns. `*` does not cross a slash, `**` does. A pattern without a slash matches a name in any folder.
#[derive(Debug, Clone, Default)]
pub struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Globs {
    /// Compiles patterns. Fails with the first bad pattern and why it is bad.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, (String, String)> {
        let mut set = GlobSetBuilder::new();
        let mut kept = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let plain = pattern.trim_start_matches("./");
            let full =
                if plain.contains('/') { plain.trim_start_matches('/').to_owned() } else { format!("**/{plain}") };
            let full = if full.ends_with('/') { format!("{full}**") } else { full };
            let glob = GlobBuilder::new(&full)
                .literal_separator(true)
                .empty_alternates(true)
                .build()
                .map_err(|error| (pattern.to_owned(), error.kind().to_string()))?;
            set.add(glob);
            kept.push(pattern.to_owned());
        }
        let set = set.build().map_err(|error| (kept.join(", "), error.to_string()))?;
        Ok(Self { patterns: kept, set })
    }

    /// Patterns of this crate or of a foreign tool. Those that cannot be read match nothing.
    pub fn lenient<S: AsRef<str>>(patterns: &[S]) -> Self {
        if let Ok(all) = Self::new(patterns) {
            return all;
        }
        let good: Vec<&str> =
            patterns.iter().map(AsRef::as_ref).filter(|pattern| Self::new(&[pattern]).is_ok()).collect();
        Self::new(&good).unwrap_or_default()
    }

    pub fn matches(&self, path: &str) -> bool {
        self.set.is_match(path)
    }

    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Globs {}

impl Serialize for Globs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, path, expected) in [
            ("*.ts", "a.ts", true),
            ("*.ts", "src/a.ts", true),
            ("src/*.ts", "src/a/b.ts", false),
            ("src/**/*.ts", "src/a.ts", true),
            ("src/**", "src/a/b.ts", true),
            ("generated/", "generated/x/y.ts", true),
            ("./src/a.ts", "src/a.ts", true),
            ("**/*.{test,spec}.ts", "src/a.spec.ts", true),
            ("**/*.test.?(c|m)ts", "src/a.test.ts", false),
        ] {
            assert_eq!(Globs::lenient(&[pattern]).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let (pattern, why) = Globs::new(&["src/**", "a[b"]).unwrap_err();
        assert_eq!(pattern, "a[b");
        assert!(why.contains("character class"), "{why}");
    }
}
