//! Judges the coverage of changed lines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use super::changed::{ChangeSet, ChangedSource, Ignored};
use super::lines::LineKind;
use super::paths::{PathIndex, ambiguous};
use super::threshold::{Threshold, ratio};
use super::{Arm, CoverageError, MeasuredFile, Position, Report, Statement};

/// The limit on listed lines of a file, listed files and listed ignored files. Counts are always complete.
const MAX_LISTED: usize = 200;

/// How to judge.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub threshold: Threshold,
    /// Also require every arm of a branch on a line to run.
    pub strict_arms: bool,
    /// The workspace's folder during the tests.
    pub root: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    CannotJudge,
}

/// The result, as the evidence shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// `threshold_met`, `no_executable_change`, `empty_diff`, `below_threshold`, or the code of a [`CoverageError`].
    pub code: &'static str,
    pub reason: String,
    pub threshold: Threshold,
    /// covered / (covered + uncovered + unmeasured). `null` if no changed line is executable.
    pub ratio: Option<f64>,
    pub covered: u64,
    pub uncovered: u64,
    pub unmeasured: u64,
    pub non_executable: u64,
    pub files: Vec<FileJudgement>,
    pub ignored: Vec<Ignored>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileJudgement {
    pub path: String,
    pub covered: u64,
    pub uncovered_lines: Vec<u32>,
    pub unmeasured_lines: Vec<u32>,
    /// Lines with comments that tell coverage tools to ignore code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_hints: Vec<u32>,
}

impl Judgement {
    /// No verdict, because of this error.
    pub fn unjudged(error: CoverageError, threshold: Threshold) -> Self {
        Self {
            verdict: Verdict::CannotJudge,
            code: error.code,
            reason: error.message,
            threshold,
            ratio: None,
            covered: 0,
            uncovered: 0,
            unmeasured: 0,
            non_executable: 0,
            files: Vec::new(),
            ignored: Vec::new(),
        }
    }
}

/// Judges the changed lines with the reports. Adds up the hits of several reports.
pub fn judge(changes: &ChangeSet, reports: &[Report], options: &Options) -> Judgement {
    match measurements(changes, reports, &options.root) {
        Ok(measured) => count_lines(changes, &measured, options),
        Err(error) => Judgement::unjudged(error, options.threshold),
    }
}

/// The measurements of each source, by its path in the workspace.
fn measurements(
    changes: &ChangeSet,
    reports: &[Report],
    root: &str,
) -> Result<BTreeMap<String, MeasuredFile>, CoverageError> {
    if reports.is_empty() {
        return Err(CoverageError::new("report_missing", "the tests wrote no coverage report"));
    }
    let index = PathIndex::new(changes.files.keys().map(String::as_str), root);
    let mut measured: BTreeMap<String, MeasuredFile> = BTreeMap::new();
    for report in reports {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for file in &report.files {
            let Some(path) = index.find(&file.path)?.filter(|path| changes.files.get(*path) == Some(&true)) else {
                continue;
            };
            if let Some(other) = seen.insert(path, &file.path) {
                return Err(ambiguous(&format!("the report's paths {other:?} and {:?} both match {path}", file.path)));
            }
            match measured.get_mut(path) {
                Some(sum) => merge(sum, file),
                None => {
                    measured.insert(path.to_string(), file.clone());
                }
            }
        }
    }
    if measured.is_empty() {
        return Err(CoverageError::new("no_path_matches", "the coverage report contains no source of the workspace"));
    }
    Ok(measured)
}

fn merge(sum: &mut MeasuredFile, more: &MeasuredFile) {
    let mut statements: BTreeMap<(Position, Position), u64> = BTreeMap::new();
    for statement in sum.statements.iter().chain(&more.statements) {
        let hits = statements.entry((statement.start, statement.end)).or_default();
        *hits = hits.saturating_add(statement.hits);
    }
    sum.statements = statements.into_iter().map(|((start, end), hits)| Statement { start, end, hits }).collect();
    let mut arms: BTreeMap<(Position, u32), Arm> = BTreeMap::new();
    for arm in sum.arms.iter().chain(&more.arms) {
        let entry = arms.entry((arm.branch, arm.index)).or_insert(Arm { hits: 0, ..*arm });
        entry.hits = entry.hits.saturating_add(arm.hits);
    }
    sum.arms = arms.into_values().collect();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineCoverage {
    Covered,
    Uncovered,
    Unmeasured,
    NonExecutable,
}

fn count_lines(changes: &ChangeSet, measured: &BTreeMap<String, MeasuredFile>, options: &Options) -> Judgement {
    let unjudged = Judgement::unjudged(CoverageError::new("", ""), options.threshold);
    let mut judgement = Judgement { ignored: changes.ignored.clone(), ..unjudged };
    for source in &changes.sources {
        let measurements = measured.get(&source.path);
        if source.binary && measurements.is_none() {
            judgement.ignored.push(Ignored { path: source.path.clone(), why: "binary" });
            continue;
        }
        count_source(&mut judgement, source, measurements, options.strict_arms);
    }
    judgement.ignored.truncate(MAX_LISTED);
    // Put files with uncovered lines first, so that truncating the list keeps them.
    judgement.files.sort_by_key(|file| file.uncovered_lines.is_empty() && file.unmeasured_lines.is_empty());
    judgement.files.truncate(MAX_LISTED);
    conclude(judgement, changes.is_empty)
}

fn count_source(judgement: &mut Judgement, source: &ChangedSource, measured: Option<&MeasuredFile>, strict_arms: bool) {
    let index = measured.map(|file| LineIndex::new(file, &source.changed, strict_arms));
    let mut file = FileJudgement {
        path: source.path.clone(),
        covered: 0,
        uncovered_lines: Vec::new(),
        unmeasured_lines: Vec::new(),
        ignore_hints: source.lines.ignore_hints.iter().copied().take(MAX_LISTED).collect(),
    };
    for number in &source.changed {
        match classify_line(*number, source, index.as_ref()) {
            LineCoverage::Covered => file.covered += 1,
            LineCoverage::Uncovered => file.uncovered_lines.push(*number),
            LineCoverage::Unmeasured => file.unmeasured_lines.push(*number),
            LineCoverage::NonExecutable => judgement.non_executable += 1,
        }
    }
    judgement.covered += file.covered;
    judgement.uncovered += file.uncovered_lines.len() as u64;
    judgement.unmeasured += file.unmeasured_lines.len() as u64;
    file.uncovered_lines.truncate(MAX_LISTED);
    file.unmeasured_lines.truncate(MAX_LISTED);
    judgement.files.push(file);
}

/// Applies the rules in order.
fn classify_line(number: u32, source: &ChangedSource, index: Option<&LineIndex>) -> LineCoverage {
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let kind = at.and_then(|at| source.lines.kinds.get(at)).copied().unwrap_or(LineKind::Code);
    let starts = index.and_then(|index| index.starts.get(&number));
    match kind {
        LineKind::Blank | LineKind::Bracket => return LineCoverage::NonExecutable,
        // If a statement starts on the line, it is code, even if the lexer calls it a comment.
        LineKind::Comment if starts.is_none() => return LineCoverage::NonExecutable,
        LineKind::Comment | LineKind::Code => {}
    }
    let Some(index) = index.filter(|_| !source.lines.unusual_line_breaks) else {
        return LineCoverage::Unmeasured;
    };
    match starts.or_else(|| index.inside.get(&number)).copied() {
        Some(true) => LineCoverage::Covered,
        Some(false) => LineCoverage::Uncovered,
        None => LineCoverage::NonExecutable,
    }
}

/// A file's measurements by line.
struct LineIndex {
    /// For each line on which statements start, whether all of them ran.
    starts: BTreeMap<u32, bool>,
    /// For each changed line inside multi-line statements, whether the innermost one ran.
    inside: BTreeMap<u32, bool>,
}

impl LineIndex {
    fn new(file: &MeasuredFile, changed: &[u32], strict_arms: bool) -> Self {
        let mut starts: BTreeMap<u32, bool> = BTreeMap::new();
        for statement in &file.statements {
            *starts.entry(statement.start.line).or_insert(true) &= statement.hits > 0;
        }
        if strict_arms {
            for arm in &file.arms {
                if let Some(ran) = starts.get_mut(&arm.line) {
                    *ran &= arm.hits > 0;
                }
            }
        }
        Self { inside: innermost(&file.statements, changed), starts }
    }
}

/// For each line, whether the innermost statement around it ran. The innermost statement starts last, and ends first
/// among those. A single sweep over the lines bounds the cost by the length of the report, whatever its ranges.
fn innermost(statements: &[Statement], changed: &[u32]) -> BTreeMap<u32, bool> {
    let mut by_start: Vec<&Statement> =
        statements.iter().filter(|statement| statement.end.line > statement.start.line).collect();
    by_start.sort_by_key(|statement| statement.start);
    let mut upcoming = by_start.into_iter().peekable();
    let mut enclosing: BinaryHeap<(Position, Reverse<Position>, bool)> = BinaryHeap::new();
    let mut inside = BTreeMap::new();
    for line in changed {
        while let Some(statement) = upcoming.next_if(|statement| statement.start.line < *line) {
            enclosing.push((statement.start, Reverse(statement.end), statement.hits > 0));
        }
        while enclosing.peek().is_some_and(|(_, Reverse(end), _)| end.line < *line) {
            enclosing.pop();
        }
        if let Some((_, _, ran)) = enclosing.peek() {
            inside.insert(*line, *ran);
        }
    }
    inside
}

fn conclude(judgement: Judgement, is_empty: bool) -> Judgement {
    let total = judgement.covered + judgement.uncovered + judgement.unmeasured;
    let (verdict, code, reason) = if total == 0 && is_empty {
        (Verdict::Passed, "empty_diff", "nothing differs from the base".to_string())
    } else if total == 0 {
        (Verdict::Passed, "no_executable_change", "no changed line is executable".to_string())
    } else {
        let threshold = judgement.threshold;
        let summary =
            format!("{} of {total} changed lines are covered; the threshold is {threshold}", judgement.covered);
        if threshold.reached(judgement.covered, total) {
            (Verdict::Passed, "threshold_met", summary)
        } else {
            (Verdict::Failed, "below_threshold", format!("{summary}: {}", uncovered_summary(&judgement.files)))
        }
    };
    let ratio = (total > 0).then(|| ratio(judgement.covered, total));
    Judgement { verdict, code, reason, ratio, ..judgement }
}

/// The first lines without coverage, for a message.
fn uncovered_summary(files: &[FileJudgement]) -> String {
    const FILES: usize = 3;
    const LINES: usize = 5;
    let list = |lines: &[u32]| lines.iter().take(LINES).map(u32::to_string).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    for file in files.iter().take(FILES) {
        if !file.uncovered_lines.is_empty() {
            parts.push(format!("{} lines {} never ran", file.path, list(&file.uncovered_lines)));
        }
        if !file.unmeasured_lines.is_empty() {
            parts.push(format!("{} lines {} are not measured", file.path, list(&file.unmeasured_lines)));
        }
    }
    parts.join("; ")
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
