//! The result of `nofx gate coverage`, for programs and for people.

use std::fmt::Write as _;
use std::io::{self, Write};

use nofx_gates::coverage::{FileJudgement, FileStatus, Judgement, LineVerdict, Threshold, Verdict};
use nofx_local::report::printable;
use serde::Serialize;

use super::show::{Style, source_line};

/// Lines shown before and after a line without coverage.
const CONTEXT: u32 = 2;
/// The limits on what is shown to people. The JSON has everything.
const MAX_FILES: usize = 20;
const MAX_LINES: usize = 40;
const MAX_WIDTH: usize = 160;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    verdict: &'static str,
    reason: Reason<'a>,
    ratio: Option<f64>,
    threshold: f64,
    file_floor: Option<f64>,
    covered: u64,
    uncovered: u64,
    unmeasured: u64,
    non_executable: u64,
    ignored: usize,
    files: Vec<File<'a>>,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    status: FileStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    ignore_comments: &'a [u32],
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    line: u32,
    verdict: LineVerdict,
}

/// Writes the result as JSON, with every changed file and line.
pub fn json(out: &mut impl Write, judgement: &Judgement) -> io::Result<()> {
    let document = Document {
        schema: "nofx.coverage.v1",
        verdict: verdict(judgement.verdict),
        reason: Reason { code: judgement.code, message: &judgement.reason },
        ratio: judgement.ratio,
        threshold: judgement.threshold.value(),
        file_floor: judgement.file_floor.map(Threshold::value),
        covered: judgement.covered,
        uncovered: judgement.uncovered,
        unmeasured: judgement.unmeasured,
        non_executable: judgement.non_executable,
        ignored: judgement.files.iter().filter(|file| file.status != FileStatus::Judged).count(),
        files: judgement.files.iter().map(File::from).collect(),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

impl<'a> From<&'a FileJudgement> for File<'a> {
    fn from(file: &'a FileJudgement) -> Self {
        Self {
            path: &file.path,
            status: file.status,
            why: file.why,
            ignore_comments: &file.ignore_hints,
            lines: file.lines.iter().map(|(line, verdict)| Line { line: *line, verdict: *verdict }).collect(),
        }
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "pass",
        Verdict::Failed => "fail",
        Verdict::CannotJudge => "cannot_judge",
    }
}

/// The result for people: lines without coverage in their context, a summary of the files, and what to do next.
pub fn text(judgement: &Judgement, style: Style, source: impl Fn(&str) -> Option<Vec<u8>>) -> String {
    let mut out = String::new();
    let lacking: Vec<&FileJudgement> =
        judgement.files.iter().filter(|file| file.uncovered + file.unmeasured > 0).collect();
    for file in lacking.iter().take(MAX_FILES) {
        out.push_str(&context(file, style, source(&file.path).as_deref()));
    }
    if lacking.len() > MAX_FILES {
        let _ = writeln!(out, "... and {} more files with lines that are not covered\n", lacking.len() - MAX_FILES);
    }
    out.push_str(&summary(judgement));
    let (word, color) = match judgement.verdict {
        Verdict::Passed => ("pass", "32"),
        Verdict::Failed => ("fail", "31"),
        Verdict::CannotJudge => ("cannot judge", "33"),
    };
    let _ = writeln!(out, "{}  {}  {}", style.paint(color, word), judgement.code, printable(&judgement.reason));
    if let Some(next) = next_step(judgement) {
        let _ = writeln!(out, "next  {next}");
    }
    out
}

/// The lines of a file that are not covered, with the lines around them.
fn context(file: &FileJudgement, style: Style, source: Option<&[u8]>) -> String {
    let mut out = format!("{}\n", style.paint("1", &printable(&file.path)));
    if let Some(why) = file.why {
        let _ = writeln!(out, "  {}", explained(why));
    }
    let text = String::from_utf8_lossy(source.unwrap_or_default());
    let source: Vec<&str> = text.split('\n').collect();
    let lacking: Vec<(u32, LineVerdict)> = file
        .lines
        .iter()
        .copied()
        .filter(|(_, verdict)| matches!(verdict, LineVerdict::Uncovered | LineVerdict::Unmeasured))
        .collect();
    let mut shown = 0;
    for (line, verdict) in lacking.iter().take(MAX_LINES) {
        let first = line.saturating_sub(CONTEXT).max(1);
        if shown > 0 && first > shown + 1 {
            out.push_str("        ...\n");
        }
        let is_lacking = |number: u32| lacking.binary_search_by_key(&number, |(line, _)| *line).is_ok();
        for number in first.max(shown + 1)..=line.saturating_add(CONTEXT) {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            let Some(text) = at.checked_sub(1).and_then(|at| source.get(at)) else { break };
            if number > *line && is_lacking(number) {
                break;
            }
            let mark = if number == *line { mark(*verdict) } else { ' ' };
            let text: String = source_line(text).chars().take(MAX_WIDTH).collect();
            let row = format!("{mark} {number:>5} | {text}");
            let row = row.trim_end();
            let _ = writeln!(out, "{}", if number == *line { style.paint("31", row) } else { row.to_owned() });
            shown = number;
        }
    }
    if lacking.len() > MAX_LINES {
        let _ = writeln!(out, "        ... and {} more lines", lacking.len() - MAX_LINES);
    }
    out.push('\n');
    out
}

/// `-` never ran, `?` nothing measured it.
fn mark(verdict: LineVerdict) -> char {
    if verdict == LineVerdict::Unmeasured { '?' } else { '-' }
}

fn summary(judgement: &Judgement) -> String {
    let mut out = String::new();
    let judged: Vec<&FileJudgement> = judgement.files.iter().filter(|file| file.status == FileStatus::Judged).collect();
    let width = judged.iter().take(MAX_FILES).map(|file| printable(&file.path).chars().count()).max().unwrap_or(0);
    for file in judged.iter().take(MAX_FILES) {
        let total = file.covered + file.uncovered + file.unmeasured;
        let counts = if total == 0 { "nothing executable".to_owned() } else { format!("{} of {total}", file.covered) };
        let mut row = format!("{:width$}  {counts}", printable(&file.path));
        for (count, what) in [(file.uncovered, "never ran"), (file.unmeasured, "not measured")] {
            if count > 0 {
                let _ = write!(row, ", {count} {what}");
            }
        }
        let _ = writeln!(out, "{row}");
    }
    if judged.len() > MAX_FILES {
        let _ = writeln!(out, "... and {} more files", judged.len() - MAX_FILES);
    }
    let others = judgement.files.len() - judged.len();
    if others > 0 {
        let _ = writeln!(out, "{others} changed files need no coverage; --json lists them with the reason");
    }
    out
}

fn explained(why: &str) -> &str {
    match why {
        "absent_from_report" => "no report measures this file",
        "nul_bytes" => "the file holds NUL bytes, so nothing can measure it",
        "not_utf8" => "the file is not UTF-8, so nothing can measure it",
        "symbolic_link" => "the file is a symbolic link, so nothing can measure it",
        other => other,
    }
}

fn next_step(judgement: &Judgement) -> Option<&'static str> {
    Some(match judgement.code {
        "below_threshold" | "below_file_floor" if judgement.uncovered > 0 => "add tests that run the lines marked -",
        "below_threshold" | "below_file_floor" => {
            "let the tests load the files whose lines are marked ?, and remove comments that hide code from the report"
        }
        "report_missing" => "run the tests with coverage, and name the report with --report",
        "report_empty" => "let the tests run with coverage: the report lists no files",
        "report_unparsable" => "write the report again, or name its format with --format",
        "no_path_matches" => "check --root, and that the report belongs to this folder; --source names other sources",
        "ambiguous_path" => "run the tests in --root, so that the report has whole paths",
        "diff_mismatch" => "make the diff again from the base to the files in --root",
        "workspace_unreadable" => {
            "remove what is neither a file nor a folder, or name the folder of the sources with --root"
        }
        "diff_unparsable" => "make the diff with git diff or diff -ruN",
        _ => return None,
    })
}
