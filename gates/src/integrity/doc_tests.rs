//! Documentation tests of Rust that went with what they document.

use std::io;

use regex::Regex;

use super::test_cases::Explanation;
use crate::snapshot::Snapshot;

/// Of these tests of the base those whose item is not in the change. A test has the name `src/lib.rs - cart::total`,
/// perhaps with ` - compile` after it, and its file in the workspace if that is known.
pub fn of_gone_code<'a>(
    tests: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    head: &Snapshot,
) -> io::Result<Vec<Explanation>> {
    let mut explained = Vec::new();
    for (name, file) in tests {
        let Some((path, item)) = name.split_once(".rs - ") else { continue };
        let path = file.map_or_else(|| format!("{path}.rs"), ToOwned::to_owned);
        let item = item.split(" - ").next().unwrap_or(item).rsplit("::").next().unwrap_or_default().trim();
        let is_gone = match head.read(&path)? {
            None => true,
            Some(bytes) => !item.is_empty() && !defines(&String::from_utf8_lossy(&bytes), item),
        };
        if is_gone {
            explained.push(Explanation { names: [name.to_owned(), name.to_owned()], successor: None });
        }
    }
    Ok(explained)
}

fn defines(text: &str, item: &str) -> bool {
    let kinds = "fn|struct|enum|union|trait|mod|type|const|static|macro_rules!";
    // Variants and fields are documented too, so a name that no keyword introduces counts where it starts a line.
    let pattern =
        format!(r"(?m)(?:\b(?:{kinds})\s+(?:mut\s+)?(?:r#)?|^\s*(?:pub\b[^\n:]*\s)?){}\b", regex::escape(item));
    // A name that makes no pattern is no reason to let a test go.
    Regex::new(&pattern).map_or(true, |pattern| pattern.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(name: &str, lib: &str) -> bool {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/lib.rs"), lib).unwrap();
        let head = Snapshot::take(folder.path()).unwrap();
        !of_gone_code([(name, None)].into_iter(), &head).unwrap().is_empty()
    }

    #[test]
    fn a_documentation_test_goes_with_its_item_or_its_file() {
        assert!(explained("src/lib.rs - total", "pub fn sum() {}\n"));
        assert!(explained("src/lib.rs - Cart::total", "impl Cart {\n    pub fn total_of(&self) {}\n}\n"));
        assert!(explained("src/cart.rs - cart::total", "pub fn total() {}\n"));
    }

    #[test]
    fn a_documentation_test_whose_item_is_there_is_missed() {
        assert!(!explained("src/lib.rs - total", "pub fn total() {}\n"));
        assert!(!explained("src/lib.rs - total - compile", "pub const fn total() {}\n"));
        assert!(!explained("src/lib.rs - Cart::price", "pub struct Cart {\n    pub price: u32,\n}\n"));
        assert!(!explained("src/lib.rs - Kind::Small", "enum Kind {\n    Small,\n}\n"));
        assert!(!explained("src/lib.rs - twice", "macro_rules! twice { () => {} }\n"));
        // The documentation of the file itself, and tests of other kinds.
        assert!(!explained("src/lib.rs -", ""));
        assert!(!explained("tests::adds", ""));
    }
}
