//! Prints a verdict for people, and as annotations for GitHub Actions.

use std::fmt::Write as _;
use std::io::IsTerminal;

use nofx_gates::evidence::{Evidence, Excerpt, Finding, MAX_LISTED, Severity, Verdict};
use nofx_gates::judge::Judged;
use nofx_local::report::printable;
use uuid::Uuid;

/// The limits on what is shown. The JSON has more.
const MAX_FINDINGS: usize = 20;
const MAX_EXCERPTS: usize = 20;

/// Colours, if standard output is a terminal and `NO_COLOR` is not set (no-color.org).
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colored: bool,
}

impl Style {
    pub fn of_stdout() -> Self {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colored: std::io::stdout().is_terminal() && !is_refused }
    }

    /// Text with the parameters of an escape sequence (ECMA-48, SGR).
    pub fn paint(self, code: &str, text: &str) -> String {
        if self.colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A source line for a terminal.
pub fn source_line(text: &str) -> String {
    printable(&text.trim_end_matches('\r').replace('\t', "    "))
}

/// The verdict on one gate: why, where, and what to do next.
pub fn text(judged: &Judged, style: Style) -> String {
    let evidence = &judged.evidence;
    let verdict = match (evidence.verdict, &judged.lost) {
        (_, Some(_)) => style.paint("33", "cannot judge"),
        (Verdict::Passed, None) => style.paint("32", "passed"),
        (Verdict::Failed, None) => style.paint("31", "failed"),
        (Verdict::Blocked, None) => style.paint("33", "needs a person"),
    };
    let listed = &evidence.findings.list.listed;
    let weakenings = evidence.integrity.iter().flat_map(|integrity| &integrity.listed);
    let findings: Vec<String> = listed.iter().take(MAX_FINDINGS).map(finding_line).collect();
    // A reason may repeat the first findings.
    let is_repeated = |line: &str| findings.iter().any(|finding| finding == line.trim());
    let is_count = |line: &str| !findings.is_empty() && line.starts_with("and ") && line.ends_with(" more");
    let reason = evidence.reason.message.lines().map(source_line);
    let reason: Vec<String> = reason.filter(|line| !is_repeated(line) && !is_count(line)).collect();
    let mut out = format!("{} {verdict}: {}\n", style.paint("1", &printable(&evidence.gate)), reason.join("\n  "));
    for limit in evidence.not_proved.iter().filter(|doubt| doubt.code == "preset_limits") {
        let _ = writeln!(out, "  Note: {}", printable(&limit.message));
    }
    if evidence.verdict == Verdict::Passed && evidence.reason.code != "warnings_only" {
        return out;
    }
    for weakening in weakenings {
        let _ = writeln!(out, "  {}: {}", printable(&weakening.path), printable(&weakening.message));
        for line in weakening.difference.iter().flat_map(|difference| difference.lines()) {
            let _ = writeln!(out, "    {}", source_line(line));
        }
    }
    for finding in &findings {
        let _ = writeln!(out, "  {finding}");
    }
    let more = evidence.findings.list.total - findings.len() as u64;
    if more > 0 {
        let _ = writeln!(out, "  and {more} more; --json lists the first {MAX_LISTED}");
    }
    for excerpt in evidence.context.iter().take(MAX_EXCERPTS) {
        out.push_str(&shown(excerpt, &places(evidence), style));
    }
    if let Some(next) = next_step(evidence) {
        let _ = writeln!(out, "  Next: {next}");
    }
    out
}

fn finding_line(finding: &Finding) -> String {
    let place = match (finding.file.as_str(), finding.line) {
        ("", _) => String::new(),
        (file, None) => format!("{file}: "),
        (file, Some(line)) => format!("{file}:{line}: "),
    };
    let rule = finding.rule.as_ref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
    printable(&format!("{place}{}{rule}", finding.message.lines().next().unwrap_or_default()))
}

/// An excerpt of the judged tree. `>` marks the lines that the verdict is about.
fn shown(excerpt: &Excerpt, places: &[(String, u32)], style: Style) -> String {
    let is_meant = |number| places.iter().any(|(path, line)| *path == excerpt.path && *line == number);
    let mut out = format!("  {}\n", printable(&excerpt.path));
    for (number, line) in (excerpt.first_line..).zip(&excerpt.lines) {
        let mark = if is_meant(number) { '>' } else { ' ' };
        let row = format!("  {mark} {number:>5} | {}", source_line(line));
        let row = row.trim_end();
        let _ = writeln!(out, "{}", if mark == '>' { style.paint("31", row) } else { row.to_owned() });
    }
    out
}

fn places(evidence: &Evidence) -> Vec<(String, u32)> {
    let findings = evidence.findings.list.listed.iter();
    findings.filter_map(|finding| Some((finding.file.clone(), finding.line?))).chain(uncovered(evidence)).collect()
}

/// The uncovered and unmeasured lines.
fn uncovered(evidence: &Evidence) -> Vec<(String, u32)> {
    let files = evidence.coverage.as_ref().and_then(|coverage| coverage["files"].as_array());
    let mut found = Vec::new();
    for file in files.into_iter().flatten() {
        let path = file["path"].as_str().unwrap_or_default();
        let lines =
            ["uncovered_lines", "unmeasured_lines"].into_iter().filter_map(|key| file[key].as_array()).flatten();
        found.extend(lines.filter_map(|line| Some((path.to_owned(), u32::try_from(line.as_u64()?).ok()?))));
    }
    found.sort();
    found
}

fn next_step(evidence: &Evidence) -> Option<&'static str> {
    Some(match evidence.reason.code.as_str() {
        "below_threshold" | "below_file_floor" => "write tests that run these lines",
        "mutants_survived" => "write tests that fail for these changes",
        "checks_weakened" => "undo this part, or have a person approve it in a run of the control plane",
        "no_lockfile" => "commit a lockfile",
        "command_not_started" => "install the program here, or let the gate's `dependencies` install it",
        "report_missing" => "let the command write its report to this path, or take it out of the gate's `reports`",
        "timed_out" => "make it faster, or raise the gate's `timeout_s`",
        "sandbox_too_weak" => "run it on a host with user namespaces, or install bubblewrap",
        "registry_unavailable" => "try again when the registry can be reached",
        _ => return None,
    })
}

/// The verdict for the log and the annotations of GitHub Actions.
pub fn github(judged: &Judged, style: Style) -> String {
    let evidence = &judged.evidence;
    // Between these two lines nothing is a command. The text quotes the change under test.
    let token = Uuid::new_v4();
    let mut out = format!("::stop-commands::{token}\n{}::{token}::\n", text(judged, style));
    let findings = &evidence.findings.list.listed;
    out.extend(findings.iter().map(annotation));
    if evidence.verdict == Verdict::Passed {
        return out;
    }
    let uncovered = uncovered(evidence);
    for (file, line) in &uncovered {
        let title = property(&evidence.gate);
        let _ = writeln!(out, "::error file={},line={line},title={title}::No test runs this line", property(file));
    }
    if findings.is_empty() && uncovered.is_empty() {
        out.push_str(&problem(&evidence.gate, &evidence.reason.message));
    }
    out
}

/// A workflow command (GitHub Actions, "Workflow commands").
pub fn problem(gate: &str, message: &str) -> String {
    format!("::error title={}::{}\n", property(gate), escaped(message))
}

fn annotation(finding: &Finding) -> String {
    let kind = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let place = match finding.line {
        Some(line) => format!(" file={},line={line}", property(&finding.file)),
        None if finding.file.is_empty() => String::new(),
        None => format!(" file={}", property(&finding.file)),
    };
    format!("::{kind}{place}::{}\n", escaped(&finding.message))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}
