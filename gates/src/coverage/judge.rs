//! Judges the coverage of changed lines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use super::changed::{ChangeSet, ChangedSource};
use super::lines::{Ignore, LineKind};
use super::paths::{PathIndex, ambiguous};
use super::summary::uncovered_summary;
use super::threshold::{Threshold, ratio};
use super::{CoverageError, MeasuredFile, Position, Report, Statement};

/// How to judge.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub threshold: Threshold,
    /// The ratio that each file must reach too. An average could hide a file.
    pub file_floor: Option<Threshold>,
    /// Also require every arm of a branch on a line to run.
    pub strict_arms: bool,
    /// The paths of the workspace's folder during the tests.
    pub roots: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    CannotJudge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineVerdict {
    Covered,
    Uncovered,
    Unmeasured,
    NonExecutable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// A source with changed lines.
    Judged,
    /// Not a source, or excluded.
    Ignored,
    Deleted,
    /// A source that moved, or changed its mode, without a changed line.
    Unedited,
}

/// The result, with every changed file and every changed line.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// `threshold_met`, `no_executable_change`, `empty_diff`, `below_threshold`, `below_file_floor`, or the code of a
    /// [`CoverageError`].
    pub code: &'static str,
    pub reason: String,
    pub threshold: Threshold,
    pub file_floor: Option<Threshold>,
    /// covered / (covered + uncovered + unmeasured). `None` if no changed line is executable.
    pub ratio: Option<f64>,
    pub covered: u64,
    pub uncovered: u64,
    pub unmeasured: u64,
    pub non_executable: u64,
    /// In the order of their paths.
    pub files: Vec<FileJudgement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileJudgement {
    pub path: String,
    pub status: FileStatus,
    /// Why a file is ignored, or all of its lines are unmeasured.
    pub why: Option<&'static str>,
    pub covered: u64,
    pub uncovered: u64,
    pub unmeasured: u64,
    /// The changed lines of a judged file.
    pub lines: Vec<(u32, LineVerdict)>,
    /// Lines with comments that tell coverage tools to ignore code.
    pub ignore_hints: Vec<u32>,
}

impl FileJudgement {
    fn new(path: String, status: FileStatus, why: Option<&'static str>) -> Self {
        Self { path, status, why, covered: 0, uncovered: 0, unmeasured: 0, lines: Vec::new(), ignore_hints: Vec::new() }
    }

    pub fn lines_with(&self, verdict: LineVerdict) -> impl Iterator<Item = u32> {
        self.lines.iter().filter(move |(_, found)| *found == verdict).map(|(line, _)| *line)
    }

    fn executable(&self) -> u64 {
        self.covered + self.uncovered + self.unmeasured
    }
}

impl Judgement {
    /// No verdict, because of this error.
    pub fn unjudged(error: CoverageError, threshold: Threshold) -> Self {
        Self {
            verdict: Verdict::CannotJudge,
            code: error.code,
            reason: error.message,
            threshold,
            file_floor: None,
            ratio: None,
            covered: 0,
            uncovered: 0,
            unmeasured: 0,
            non_executable: 0,
            files: Vec::new(),
        }
    }
}

/// Judges the changed lines with the reports. Adds up the hits of several reports.
pub fn judge(changes: &ChangeSet, reports: &[Report], options: &Options) -> Judgement {
    match measurements(changes, reports, options) {
        Ok(measured) => count_lines(changes, &measured, options),
        Err(error) => Judgement { file_floor: options.file_floor, ..Judgement::unjudged(error, options.threshold) },
    }
}

/// The measurements of each source, by its path in the workspace.
fn measurements<'a>(
    changes: &'a ChangeSet,
    reports: &[Report],
    options: &Options,
) -> Result<BTreeMap<&'a str, MeasuredFile>, CoverageError> {
    if reports.is_empty() {
        return Err(CoverageError::new("report_missing", "the tests wrote no coverage report"));
    }
    if options.strict_arms && reports.iter().any(|report| report.lacks_branches) {
        return Err(CoverageError::unparsable("it has no branches, and strict mode needs them"));
    }
    let index = PathIndex::new(changes.files.keys().map(String::as_str), &options.roots);
    let mut measured: BTreeMap<&str, MeasuredFile> = BTreeMap::new();
    for report in reports {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for file in &report.files {
            let Some(path) = source_of(file, &index)?.filter(|path| changes.files.get(*path) == Some(&true)) else {
                continue;
            };
            let name = file.paths.first().map_or("", String::as_str);
            if let Some(other) = seen.insert(path, name) {
                return Err(ambiguous(&format!("the report's paths {other:?} and {name:?} both match {path}")));
            }
            match measured.get_mut(path) {
                Some(sum) => sum.add(file),
                None => {
                    measured.insert(path, file.clone());
                }
            }
        }
    }
    if measured.is_empty() {
        return Err(CoverageError::new("no_path_matches", "the coverage report contains no source of the workspace"));
    }
    Ok(measured)
}

/// The file that the paths of a measurement lead to.
fn source_of<'a>(file: &MeasuredFile, index: &PathIndex<'a>) -> Result<Option<&'a str>, CoverageError> {
    let mut found: Option<&str> = None;
    let mut failed = None;
    for path in &file.paths {
        match (index.find(path), found) {
            (Ok(Some(path)), Some(known)) if path != known => {
                let message =
                    format!("the report knows one file as {:?}, which match both {known} and {path}", file.paths);
                return Err(ambiguous(&message));
            }
            (Ok(Some(path)), _) => found = Some(path),
            (Ok(None), _) => {}
            (Err(error), _) => failed = Some(error),
        }
    }
    match (found, failed) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

fn count_lines(changes: &ChangeSet, measured: &BTreeMap<&str, MeasuredFile>, options: &Options) -> Judgement {
    let unjudged = Judgement::unjudged(CoverageError::new("", ""), options.threshold);
    let mut judgement = Judgement { file_floor: options.file_floor, ..unjudged };
    for source in &changes.sources {
        let file = judge_source(source, measured.get(source.path.as_str()), options.strict_arms);
        judgement.covered += file.covered;
        judgement.uncovered += file.uncovered;
        judgement.unmeasured += file.unmeasured;
        judgement.non_executable += file.lines.len() as u64 - file.executable();
        judgement.files.push(file);
    }
    for ignored in &changes.ignored {
        let status = match ignored.why {
            "deleted" => FileStatus::Deleted,
            "unedited" => FileStatus::Unedited,
            _ => FileStatus::Ignored,
        };
        judgement.files.push(FileJudgement::new(ignored.path.clone(), status, Some(ignored.why)));
    }
    judgement.files.sort_by(|one, other| one.path.cmp(&other.path));
    conclude(judgement, changes.is_empty)
}

fn judge_source(source: &ChangedSource, measured: Option<&MeasuredFile>, strict_arms: bool) -> FileJudgement {
    let mut file = FileJudgement::new(source.path.clone(), FileStatus::Judged, source.unreadable);
    if file.why.is_none() && measured.is_none() {
        file.why = Some("absent_from_report");
    }
    let index = measured.map(|file| LineIndex::new(file, &source.changed, strict_arms));
    file.ignore_hints.clone_from(&source.lines.ignore_hints);
    for number in &source.changed {
        let verdict = if source.unreadable.is_some() {
            LineVerdict::Unmeasured
        } else {
            classify_line(*number, source, index.as_ref())
        };
        match verdict {
            LineVerdict::Covered => file.covered += 1,
            LineVerdict::Uncovered => file.uncovered += 1,
            LineVerdict::Unmeasured => file.unmeasured += 1,
            LineVerdict::NonExecutable => {}
        }
        file.lines.push((*number, verdict));
    }
    if file.unmeasured == 0 {
        file.why = None;
    }
    file
}

/// Applies the rules in order.
fn classify_line(number: u32, source: &ChangedSource, index: Option<&LineIndex>) -> LineVerdict {
    let (kind, ignore) = (source.lines.kind(number), source.lines.ignore(number));
    if source.lines.unusual_line_breaks {
        // The numbers of the report and of the diff differ: a comment here may be code there.
        return if kind == LineKind::Blank { LineVerdict::NonExecutable } else { LineVerdict::Unmeasured };
    }
    let measured = |ran: bool| match (ran, ignore) {
        (false, _) => LineVerdict::Uncovered,
        (true, Ignore::NeverCovers) => LineVerdict::Unmeasured,
        (true, Ignore::No | Ignore::Hidden) => LineVerdict::Covered,
    };
    let starts = index.and_then(|index| index.starts.get(&number));
    // In strict mode, arms that did not run count on every line.
    let arms = index.and_then(|index| index.arms.get(&number)).copied();
    match (kind, arms) {
        (LineKind::Blank | LineKind::Comment | LineKind::Bracket, Some(ran)) => {
            return measured(ran && starts.is_none_or(|start| start.ran));
        }
        // Code starts here, so the lexer is wrong about the comment, or a statement starts with its bracket.
        (LineKind::Comment, None) if starts.is_some_and(|start| start.within_line) => {}
        (LineKind::Bracket, None) if starts.is_some_and(|start| start.long) => {}
        (LineKind::Blank | LineKind::Comment | LineKind::Bracket, None) => return LineVerdict::NonExecutable,
        (LineKind::Declaration | LineKind::Code, _) => {}
    }
    let Some(index) = index else {
        return if source.lines.has_code() { LineVerdict::Unmeasured } else { LineVerdict::NonExecutable };
    };
    if let Some(ran) = starts.map(|start| start.ran && arms.unwrap_or(true)).or(arms) {
        return measured(ran);
    }
    let executable = kind == LineKind::Code;
    if executable && ignore != Ignore::No {
        return LineVerdict::Unmeasured;
    }
    match index.inside.get(&number).copied() {
        Some(ran) => measured(ran),
        None if executable && index.starts.is_empty() => LineVerdict::Unmeasured,
        None => LineVerdict::NonExecutable,
    }
}

/// The statements that start on a line.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// All of them ran.
    ran: bool,
    /// One starts after the first column: its writer saw code, not a whole line.
    within_line: bool,
    /// One goes on beyond the line.
    long: bool,
}

/// A file's measurements by line.
struct LineIndex {
    starts: BTreeMap<u32, Start>,
    /// In strict mode, for each line on which arms start, whether all of them ran.
    arms: BTreeMap<u32, bool>,
    /// For each changed line inside multi-line statements, whether the innermost one ran.
    inside: BTreeMap<u32, bool>,
}

impl LineIndex {
    fn new(file: &MeasuredFile, changed: &[u32], strict_arms: bool) -> Self {
        let mut starts: BTreeMap<u32, Start> = BTreeMap::new();
        for statement in &file.statements {
            let start =
                starts.entry(statement.start.line).or_insert(Start { ran: true, within_line: false, long: false });
            start.ran &= statement.hits > 0;
            start.within_line |= statement.start.column > 0;
            start.long |= statement.end.line > statement.start.line;
        }
        let mut arms: BTreeMap<u32, bool> = BTreeMap::new();
        for arm in file.arms.iter().filter(|_| strict_arms) {
            *arms.entry(arm.line).or_insert(true) &= arm.hits > 0;
        }
        Self { inside: innermost(&file.statements, changed), starts, arms }
    }
}

/// For each line, whether the innermost statement around it ran. The innermost statement starts last, and ends first
/// among those. A single sweep over the lines bounds the cost by the length of the report, whatever its ranges.
fn innermost(statements: &[Statement], changed: &[u32]) -> BTreeMap<u32, bool> {
    let mut by_start: Vec<&Statement> =
        statements.iter().filter(|statement| statement.end.line > statement.start.line).collect();
    by_start.sort_by_key(|statement| statement.start);
    let mut upcoming = by_start.into_iter().peekable();
    let mut enclosing: BinaryHeap<(Position, Reverse<Position>, Reverse<bool>)> = BinaryHeap::new();
    let mut inside = BTreeMap::new();
    for line in changed {
        while let Some(statement) = upcoming.next_if(|statement| statement.start.line < *line) {
            // Of two at the same place, the one that did not run decides.
            enclosing.push((statement.start, Reverse(statement.end), Reverse(statement.hits > 0)));
        }
        while enclosing.peek().is_some_and(|(_, Reverse(end), _)| end.line < *line) {
            enclosing.pop();
        }
        if let Some((_, _, Reverse(ran))) = enclosing.peek() {
            inside.insert(*line, *ran);
        }
    }
    inside
}

fn conclude(judgement: Judgement, is_empty: bool) -> Judgement {
    let total = judgement.covered + judgement.uncovered + judgement.unmeasured;
    let ratio = (total > 0).then(|| ratio(judgement.covered, total));
    let (verdict, code, reason) = conclusion(&judgement, total, is_empty);
    Judgement { verdict, code, reason, ratio, ..judgement }
}

fn conclusion(judgement: &Judgement, total: u64, is_empty: bool) -> (Verdict, &'static str, String) {
    if total == 0 && is_empty {
        return (Verdict::Passed, "empty_diff", "nothing differs from the base".to_string());
    }
    if total == 0 {
        return (Verdict::Passed, "no_executable_change", "no changed line is executable".to_string());
    }
    let threshold = judgement.threshold;
    let summary = format!("{} of {total} changed lines are covered; the threshold is {threshold}", judgement.covered);
    if !threshold.reached(judgement.covered, total) {
        let detail = uncovered_summary(judgement.files.iter());
        return (Verdict::Failed, "below_threshold", format!("{summary}: {detail}"));
    }
    if let Some(floor) = judgement.file_floor {
        let mut below = judgement
            .files
            .iter()
            .filter(|file| file.executable() > 0 && !floor.reached(file.covered, file.executable()));
        if let Some(first) = below.next() {
            let more = match below.clone().count() {
                0 => String::new(),
                more => format!(" and {more} more files"),
            };
            let message = format!(
                "{summary}, but {}{more} reaches only {} of {} lines; the floor of a file is {floor}: {}",
                first.path,
                first.covered,
                first.executable(),
                uncovered_summary([first].into_iter().chain(below))
            );
            return (Verdict::Failed, "below_file_floor", message);
        }
    }
    (Verdict::Passed, "threshold_met", summary)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
