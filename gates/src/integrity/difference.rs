//! A difference between two texts, for a person who has to decide.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use similar::{Algorithm, ChangeTag, TextDiff};

/// A unified diff. It shows the first lines, and counts all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub text: String,
    pub removed: usize,
    pub added: usize,
    /// Lines of the diff that `text` does not show.
    pub left_out: usize,
}

const MAX_LINES: usize = 200;
const MAX_LINE_BYTES: usize = 500;

impl Difference {
    pub fn between(path: &str, base: Option<&str>, head: Option<&str>) -> Self {
        // After this time the diff is no longer minimal.
        const TIMEOUT: Duration = Duration::from_secs(1);
        let mut configuration = TextDiff::configure();
        configuration.algorithm(Algorithm::Myers);
        if let Some(deadline) = Instant::now().checked_add(TIMEOUT) {
            configuration.deadline(deadline);
        }
        let (old, new) = (base.unwrap_or_default(), head.unwrap_or_default());
        let diff = configuration.diff_lines(old, new);
        let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
        let (removed, added) = (count(ChangeTag::Delete), count(ChangeTag::Insert));
        let name =
            |prefix: &str, text: Option<&str>| text.map_or("/dev/null".to_owned(), |_| format!("{prefix}/{path}"));
        let unified = diff.unified_diff().context_radius(3).header(&name("a", base), &name("b", head)).to_string();
        Self::of_lines(&unified, removed, added)
    }

    /// A list of single changes, each a line with `-` or `+`.
    pub fn of_changes(lines: &[String]) -> Self {
        let count = |sign| lines.iter().filter(|line| line.starts_with(sign)).count();
        Self::of_lines(&lines.join("\n"), count('-'), count('+'))
    }

    fn of_lines(text: &str, removed: usize, added: usize) -> Self {
        let total = text.lines().count();
        let mut shown = String::new();
        for line in text.lines().take(MAX_LINES) {
            let mut end = line.len().min(MAX_LINE_BYTES);
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            shown.push_str(line.get(..end).unwrap_or_default());
            if end < line.len() {
                // Writing to a String cannot fail.
                let _ = write!(shown, "... ({} bytes)", line.len());
            }
            shown.push('\n');
        }
        Self { text: shown, removed, added, left_out: total.saturating_sub(MAX_LINES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_difference_is_cut_with_its_counts() {
        let long: String = "x\n".repeat(1000);
        let difference = Difference::between("a", None, Some(&long));
        assert_eq!((difference.removed, difference.added), (0, 1000));
        assert_eq!(difference.text.lines().count() + difference.left_out, 1003);
        assert!(difference.text.starts_with("--- /dev/null\n+++ b/a\n"));
        let wide = Difference::between("a", Some(""), Some(&"é".repeat(1000)));
        assert!(wide.text.contains("... (2001 bytes)"), "{}", wide.text);
    }
}
