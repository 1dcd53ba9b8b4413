//! Coverage of changed lines: which lines changed, which of them are executable, and which of those ran.
//!
//! Pure: bytes in, a judgement out. It fails closed: an unmeasured line counts as uncovered, and a report that cannot be
//! judged fails. To add a report format, produce [`Report`]s from it. For a format that has only lines (LCOV,
//! Cobertura), write one single-line [`Statement`] for each line.

mod changed;
mod istanbul;
mod judge;
mod lines;
pub(crate) mod paths;
mod sources;
mod threshold;
mod unified;

use serde::Serialize;

pub use changed::{Base, ChangeSet, Content, Ignored, Tree};
pub use istanbul::parse as parse_istanbul;
pub use judge::{FileJudgement, Judgement, Options, Verdict, judge};
pub use sources::SourceRules;
pub use threshold::Threshold;

/// What one run of the tests measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub files: Vec<MeasuredFile>,
}

/// The measurements of one file, under its path in the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredFile {
    pub path: String,
    pub statements: Vec<Statement>,
    pub arms: Vec<Arm>,
}

/// A statement and how often it ran. Lines count from 1. Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    pub start: Position,
    pub end: Position,
    pub hits: u64,
}

/// One way through a branch and how often it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// Line on which the arm starts. An implicit `else` has the line of its `if`.
    pub line: u32,
    /// Where the branch starts. Together with `index` it identifies the arm when reports are merged.
    pub branch: Position,
    pub index: u32,
    pub hits: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// Why coverage cannot be judged. The gate fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct CoverageError {
    /// snake_case, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl CoverageError {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
