//! `gate:secrets`: finds credentials in the changed lines of a workspace.
//!
//! Three kinds of rules: known shapes, everywhere; assignments to names such as `password`, if the value is not a word, a
//! placeholder or a reference; and random strings. The last two are off where random text is usual, such as lockfiles and
//! minified code. A finding never contains the secret. Comments such as `gitleaks:allow` change nothing here.

mod assignment;
mod checks;
mod kind;
pub mod shapes;
mod value;

use crate::finding::Reason;
use crate::report::{Counts, Finding, Listed, Severity};

use kind::FileKind;
use shapes::{PRIVATE_KEY_END, PRIVATE_KEY_RULE, PRIVATE_KEY_START};

/// Findings that are kept. All are counted.
const MAX_FINDINGS: usize = 5_000;
/// Longer lines are data or minified code: only shapes are looked for.
const MAX_PROSE_LINE_BYTES: usize = 2_000;
/// How much of the line around a secret is shown.
const EXCERPT_CHARS: usize = 120;
/// The longest private key.
const MAX_KEY_LINES: usize = 400;

/// A file of the workspace.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'a> {
    pub path: &'a str,
    pub bytes: &'a [u8],
    /// Line numbers from 1, ascending. `None` if there is no base: every line counts.
    pub changed: Option<&'a [u32]>,
}

/// What a scan found, and what it looked at.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    pub findings: Vec<Finding>,
    pub found: Counts,
    pub files: u64,
    pub lines: u64,
    /// Files that the definition of the base allows to hold secrets, such as fixtures, with a finding in them.
    pub allowed: Vec<String>,
    pub allowed_findings: u64,
}

/// Looks for secrets. `is_allowed` says which paths the definition of the base exempts.
pub fn scan<'a>(files: impl Iterator<Item = SourceFile<'a>>, is_allowed: impl Fn(&str) -> bool) -> Scan {
    let mut scan = Scan::default();
    for file in files.filter(|file| file.changed.is_none_or(|changed| !changed.is_empty())) {
        let mut found = Vec::new();
        scan.files += 1;
        scan.lines += scan_file(&file, &mut found);
        if found.is_empty() {
            continue;
        }
        if is_allowed(file.path) {
            scan.allowed_findings += found.len() as u64;
            scan.allowed.push(file.path.to_owned());
            continue;
        }
        scan.found.error += found.len() as u64;
        let room = MAX_FINDINGS.saturating_sub(scan.findings.len());
        scan.findings.extend(found.into_iter().take(room));
    }
    scan
}

impl Scan {
    pub fn listed(&self) -> Listed<Finding> {
        Listed::new(&self.findings, self.found.total(), 100)
    }

    /// The verdict: `Ok` if the gate passes.
    pub fn judge(&self) -> Result<Reason, Reason> {
        if self.found.total() > 0 {
            let mut lines = vec![format!(
                "{} secrets in the changed lines. Remove them, and revoke them: they are known now",
                self.found.total()
            )];
            let shown = self.findings.iter().take(3);
            lines.extend(shown.map(|finding| {
                let rule = finding.rule.as_deref().unwrap_or_default();
                format!("{}:{}: {} [{rule}]", finding.file, finding.line.unwrap_or_default(), finding.message)
            }));
            if self.found.total() > 3 {
                lines.push(format!("and {} more", self.found.total() - 3));
            }
            return Err(Reason::new("secrets_found", lines.join("\n")));
        }
        if self.lines == 0 {
            return Ok(Reason::new("empty_diff", "no line differs from the base"));
        }
        let message = format!("no secret in {} lines of {} files", self.lines, self.files);
        Ok(Reason::new("no_secrets", message))
    }
}

/// A secret in a line.
struct Spot {
    rule: &'static str,
    name: &'static str,
    note: &'static str,
    start: usize,
    end: usize,
}

/// Returns the number of lines that were looked at.
fn scan_file(file: &SourceFile<'_>, found: &mut Vec<Finding>) -> u64 {
    let decoded = kind::decode(file.bytes);
    let bytes = decoded.as_deref().unwrap_or(file.bytes);
    let kind = FileKind::of(file.path, bytes);
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut looked_at = 0;
    let mut key_start: Option<usize> = None;
    let mut key_reported = false;
    for (index, line) in lines.iter().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        if PRIVATE_KEY_START.is_match(line) && holds_key(&lines, index) {
            (key_start, key_reported) = (Some(index), false);
        }
        let is_changed = file.changed.is_none_or(|changed| changed.binary_search(&number).is_ok());
        if is_changed && !(line.is_empty() && index + 1 == lines.len()) {
            looked_at += 1;
            if key_start.is_some() {
                if !key_reported && holds_key_text(line) {
                    let message = "private key: [redacted:private-key]";
                    found.push(finding(file.path, number, 1, PRIVATE_KEY_RULE, message));
                    key_reported = true;
                }
            } else {
                scan_line(file.path, number, line, kind, found);
            }
        }
        let is_over = key_start.is_some_and(|start| PRIVATE_KEY_END.is_match(line) || index - start > MAX_KEY_LINES);
        if is_over {
            key_start = None;
        }
    }
    looked_at
}

/// Whether a key follows its header, and not only code that looks for one.
fn holds_key(lines: &[&[u8]], index: usize) -> bool {
    lines.iter().skip(index).take(6).any(|line| holds_key_text(line))
}

/// A run of 40 characters of base 64. Headers of keys are shorter.
fn holds_key_text(line: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    // JSON writes a line break as \n: without its backslash, the n belongs to the run, which does no harm.
    line.split(|byte| !is_base64(byte))
        .any(|run| run.len() >= 40 && !value::is_placeholder(run) && value::entropy(run) > 3.5)
}

fn scan_line(path: &str, number: u32, line: &[u8], kind: FileKind, found: &mut Vec<Finding>) {
    let mut spots: Vec<Spot> = Vec::new();
    for one in shapes::matches(line) {
        if let Some(note) = checks::confirm(line, &one) {
            spots.push(Spot { rule: one.shape.rule, name: one.shape.name, note, start: one.start, end: one.end });
        }
    }
    if kind.has_prose() && line.len() <= MAX_PROSE_LINE_BYTES {
        let is_new =
            |start: usize, end: usize, spots: &[Spot]| spots.iter().all(|spot| end <= spot.start || spot.end <= start);
        for (start, end) in assignment::assigned(line, kind) {
            if is_new(start, end, &spots) {
                spots.push(Spot { rule: "assigned-secret", name: "secret in an assignment", note: "", start, end });
            }
        }
        for (start, end) in assignment::random(line, kind) {
            if is_new(start, end, &spots) {
                spots.push(Spot {
                    rule: "random-string",
                    name: "random string that may be a secret",
                    note: "",
                    start,
                    end,
                });
            }
        }
    }
    spots.sort_by_key(|spot| (spot.start, std::cmp::Reverse(spot.end)));
    let mut covered = 0;
    for at in 0..spots.len() {
        let Some(spot) = spots.get(at) else { continue };
        // A token in a header matches two rules. It is one secret.
        if spot.end <= covered {
            continue;
        }
        covered = spot.end;
        let message = format!("{}{}: {}", spot.name, spot.note, excerpt(line, &spots, spot.start));
        let column = u32::try_from(spot.start + 1).unwrap_or(u32::MAX);
        found.push(finding(path, number, column, spot.rule, &message));
    }
}

fn finding(path: &str, line: u32, column: u32, rule: &str, message: &str) -> Finding {
    Finding::of(Severity::Error, "secrets", message, (path, line, column), rule)
}

/// The line around a secret, with every secret of the line redacted. `spots` are sorted.
fn excerpt(line: &[u8], spots: &[Spot], around: usize) -> String {
    let mut text = String::new();
    let mut at = 0;
    let mut shown_at = 0;
    for spot in spots {
        if spot.start >= at {
            text.push_str(&String::from_utf8_lossy(line.get(at..spot.start).unwrap_or_default()));
            if spot.start == around {
                shown_at = text.chars().count();
            }
            text.push_str("[redacted:");
            text.push_str(spot.rule);
            text.push(']');
        }
        at = at.max(spot.end);
    }
    text.push_str(&String::from_utf8_lossy(line.get(at..).unwrap_or_default()));
    let from = shown_at.saturating_sub(EXCERPT_CHARS / 2);
    let shown: String = text.chars().skip(from).take(EXCERPT_CHARS).collect();
    shown.trim().to_owned()
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
