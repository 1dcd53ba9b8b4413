//! The form of a judgement in a gate's evidence. Its lists are cut, its counts are complete.

use serde::Serialize;

use super::changed::Ignored;
use super::judge::{FileJudgement, FileStatus, Judgement, LineVerdict, Verdict};
use super::threshold::Threshold;

/// The limit on listed lines of a file, listed files and listed ignored files.
const MAX_LISTED: usize = 200;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CoverageEvidence {
    pub verdict: Verdict,
    /// `threshold_met`, `no_executable_change`, `empty_diff`, `below_threshold`, `below_file_floor`, or the code of a
    /// [`CoverageError`](super::CoverageError).
    pub code: &'static str,
    pub reason: String,
    pub threshold: Threshold,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_floor: Option<Threshold>,
    /// covered / (covered + uncovered + unmeasured). `null` if no changed line is executable.
    pub ratio: Option<f64>,
    pub covered: u64,
    pub uncovered: u64,
    pub unmeasured: u64,
    pub non_executable: u64,
    /// How many files have changed lines. The list may be shorter.
    pub file_count: u64,
    pub files: Vec<FileEvidence>,
    pub ignored_count: u64,
    pub ignored: Vec<Ignored>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileEvidence {
    pub path: String,
    pub covered: u64,
    /// How many lines are uncovered and unmeasured. The lists may be shorter.
    pub uncovered: u64,
    pub unmeasured: u64,
    pub uncovered_lines: Vec<u32>,
    pub unmeasured_lines: Vec<u32>,
    /// Lines with comments that tell coverage tools to ignore code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_hints: Vec<u32>,
}

impl From<&Judgement> for CoverageEvidence {
    fn from(judgement: &Judgement) -> Self {
        let (mut files, ignored): (Vec<&FileJudgement>, Vec<&FileJudgement>) =
            judgement.files.iter().partition(|file| file.status == FileStatus::Judged);
        let (file_count, ignored_count) = (files.len() as u64, ignored.len() as u64);
        // Put files with uncovered lines first, so that cutting the list keeps them.
        files.sort_by_key(|file| file.uncovered + file.unmeasured == 0);
        let reasons = ignored
            .iter()
            .take(MAX_LISTED)
            .map(|file| Ignored { path: file.path.clone(), why: file.why.unwrap_or("renamed") });
        Self {
            verdict: judgement.verdict,
            code: judgement.code,
            reason: judgement.reason.clone(),
            threshold: judgement.threshold,
            file_floor: judgement.file_floor,
            ratio: judgement.ratio,
            covered: judgement.covered,
            uncovered: judgement.uncovered,
            unmeasured: judgement.unmeasured,
            non_executable: judgement.non_executable,
            file_count,
            files: files.into_iter().take(MAX_LISTED).map(FileEvidence::from).collect(),
            ignored_count,
            ignored: reasons.collect(),
        }
    }
}

impl From<&FileJudgement> for FileEvidence {
    fn from(file: &FileJudgement) -> Self {
        let lines = |verdict| file.lines_with(verdict).take(MAX_LISTED).collect();
        Self {
            path: file.path.clone(),
            covered: file.covered,
            uncovered: file.uncovered,
            unmeasured: file.unmeasured,
            uncovered_lines: lines(LineVerdict::Uncovered),
            unmeasured_lines: lines(LineVerdict::Unmeasured),
            ignore_hints: file.ignore_hints.iter().copied().take(MAX_LISTED).collect(),
        }
    }
}
