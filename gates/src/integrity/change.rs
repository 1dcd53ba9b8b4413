//! The files that differ between two trees, with their texts.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffTag, capture_diff_slices_deadline};

use super::finding::{Weakening, WeakeningKind};
use super::lex;
use crate::definition::Definition;
use crate::snapshot::{Entry, Kind, Snapshot};

/// A larger file is not read. A larger file of a known language is a finding.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug)]
pub struct Changes {
    /// By path.
    pub files: Vec<Change>,
}

#[derive(Debug)]
pub struct Change {
    pub path: String,
    pub base: Side,
    pub head: Side,
    added: OnceCell<BTreeSet<u32>>,
}

/// A file on one side of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    None,
    Text(String),
    Link,
    /// Bytes that are not text, and why.
    Unreadable(&'static str),
}

impl Side {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn read(snapshot: &Snapshot, path: &str, entry: Option<&Entry>) -> io::Result<Self> {
        let Some(entry) = entry else { return Ok(Self::None) };
        if entry.kind == Kind::Link {
            return Ok(Self::Link);
        }
        if entry.size > MAX_BYTES {
            return Ok(Self::Unreadable("it is larger than 8 MiB"));
        }
        let bytes = snapshot.read(path)?.unwrap_or_default();
        if bytes.contains(&0) {
            return Ok(Self::Unreadable("it has NUL bytes"));
        }
        Ok(String::from_utf8(bytes).map_or(Self::Unreadable("it is not UTF-8"), Self::Text))
    }
}

impl Changes {
    pub fn between(base: &Snapshot, head: &Snapshot) -> io::Result<Self> {
        let paths: BTreeSet<&String> = base.files().keys().chain(head.files().keys()).collect();
        let mut files = Vec::new();
        for path in paths {
            let (old, new) = (base.files().get(path), head.files().get(path));
            let is_same = old.zip(new).is_some_and(|(old, new)| {
                old.sha256 == new.sha256 && (old.kind == Kind::Link) == (new.kind == Kind::Link)
            });
            if !is_same {
                let (base, head) = (Side::read(base, path, old)?, Side::read(head, path, new)?);
                files.push(Change { path: path.clone(), base, head, added: OnceCell::new() });
            }
        }
        Ok(Self { files })
    }

    pub fn get(&self, path: &str) -> Option<&Change> {
        self.files.binary_search_by(|change| change.path.as_str().cmp(path)).ok().and_then(|at| self.files.get(at))
    }

    /// Sources and tests that became unreadable: what they say cannot be compared.
    pub fn unreadable(&self, definition: &Definition) -> Vec<Weakening> {
        let finding = |change: &Change| {
            let is_test = definition.tests.matches(&change.path);
            let why = match (&change.base, &change.head) {
                // Nobody knows which tests the base had.
                (Side::Unreadable(why), _) if is_test => *why,
                (Side::Link, _) if is_test => "it was a link",
                // Code that could not be read before may change.
                (Side::Unreadable(_), _) => return None,
                (_, Side::Unreadable(why)) => *why,
                (Side::Text(_), Side::Link) => "it was replaced by a link",
                _ => return None,
            };
            let is_ignored = !is_test && definition.ignore.matches(&change.path);
            (lex::language(&change.path).is_some() && !is_ignored).then(|| {
                let message = format!("The file cannot be compared with its base: {why}.");
                Weakening::new(WeakeningKind::Unreadable, &change.path, None, message)
            })
        };
        self.files.iter().filter_map(finding).collect()
    }
}

impl Change {
    /// The numbers of the lines that the change adds. Indentation and blanks at the end do not count.
    pub fn added_lines(&self) -> &BTreeSet<u32> {
        self.added.get_or_init(|| self.find_added_lines())
    }

    fn find_added_lines(&self) -> BTreeSet<u32> {
        // After this time the diff is no longer minimal: more lines than necessary count as added.
        const TIMEOUT: Duration = Duration::from_secs(1);
        let (Some(base), Some(head)) = (self.base.text(), self.head.text()) else {
            let count = self.head.text().map_or(0, |text| text.lines().count());
            return (1..).take(count).collect();
        };
        let old: Vec<&str> = base.lines().map(str::trim).collect();
        let new: Vec<&str> = head.lines().map(str::trim).collect();
        let deadline = Instant::now().checked_add(TIMEOUT);
        capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline)
            .iter()
            .filter(|operation| matches!(operation.tag(), DiffTag::Insert | DiffTag::Replace))
            .flat_map(similar::DiffOp::new_range)
            .filter_map(|index| u32::try_from(index + 1).ok())
            .collect()
    }
}
