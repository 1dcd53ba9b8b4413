//! Coverage of changed lines: which lines changed, which of them are executable, and which of those ran.
//!
//! Pure: bytes in, a judgement out. It fails closed: an unmeasured line counts as uncovered, and a report that cannot be
//! judged fails. A report format is a parser that produces a [`Report`]. For a format that has only lines (LCOV,
//! Cobertura), each line is one [`Statement`].

mod changed;
mod cobertura;
mod evidence;
mod folder;
mod format;
mod ignore;
mod istanbul;
mod items;
mod judge;
mod language;
mod lcov;
mod lines;
mod measured;
pub(crate) mod paths;
mod plain;
mod python;
mod script;
mod sources;
mod strict_json;
mod summary;
mod threshold;
mod unified;

#[cfg(test)]
mod case_tests;
#[cfg(test)]
mod oracle_tests;

use serde::Serialize;

pub(crate) use changed::changed_lines;
pub use changed::{Base, ChangeSet, Content, Ignored, Tree};
pub use evidence::CoverageEvidence;
pub use folder::{Wanted, read_folder};
pub use format::{Format, read_report};
pub use judge::{FileJudgement, FileStatus, Judgement, LineVerdict, Options, Verdict, judge};
pub use measured::{Arm, Branch, MeasuredFile, Position, Report, Statement};
pub use sources::{SourceRules, is_skipped};
pub use threshold::Threshold;
pub use unified::paths as diff_paths;

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

    fn unparsable(why: &str) -> Self {
        Self::new("report_unparsable", format!("the coverage report cannot be read: {why}"))
    }
}
