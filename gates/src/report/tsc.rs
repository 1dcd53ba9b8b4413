//! What `tsc` prints: `src/a.ts(1,7): error TS2322: ...`, or its pretty form `src/a.ts:1:7 - error TS2322: ...`.
//!
//! tsc prints nothing if all is well, so a line that is not tsc's means that the text is something else.

use std::sync::LazyLock;

use regex::Regex;

use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

static DIAGNOSTIC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^(?:(?P<file>[^\s].*?)(?:\((?P<line>\d+),(?P<column>\d+)\):|:(?P<line2>\d+):(?P<column2>\d+)\x20-)\x20)?
        (?P<severity>error|warning|message|suggestion)\x20(?P<code>TS\d+):\x20(?P<message>.*)$",
    )
    .expect("a valid pattern")
});

/// Lines that tsc prints besides: a summary, the code under a pretty diagnostic, build progress and statistics; and what
/// npm, pnpm and yarn print before and after a script.
static OTHER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^(?:
        Found\x20\d+\x20errors?\b.* | Errors\x20+Files | \s.* | \d+\s.* | \d+ |
        \[?\d{1,2}:\d\d:\d\d(?:\x20[AP]M)?\]?\x20.* |
        (?:Files|Lines(?:\x20of\x20\w+)?|Nodes(?:\x20of\x20\w+)?|Identifiers|Symbols|Types|Instantiations|Memory\x20(?:used|allocs)|Assignability\x20cache\x20size|
            Identity\x20cache\x20size|Subtype\x20cache\x20size|Strict\x20subtype\x20cache\x20size|[\w/]+(\x20[\w()]+){0,3}\x20time|I/O\x20(?:read|write)|Projects\x20.*|Aggregate\x20.*):?\s.* |
        (?:>|\$|yarn\x20(?:run|install)|npm\x20(?:warn|WARN|notice)|Done\x20in|info\x20Visit)\x20.*
        )$",
    )
    .expect("a valid pattern")
});

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let mut parsed = Parsed::new(Format::Tsc);
    let mut declared = 0;
    let mut listed: Option<u64> = None;
    let mut counted: Option<u64> = None;
    let mut last: Option<Finding> = None;
    let mut after_pretty = false;
    for line in text.lines().map(|line| text::strip_ansi(line)) {
        let line = line.trim_end();
        if let Some(found) = DIAGNOSTIC.captures(line) {
            after_pretty = found.name("line2").is_some();
            if let Some(finding) = last.replace(finding(&found, place)) {
                parsed.add(finding);
            }
        } else if line.is_empty() {
            after_pretty |= last.is_none();
        } else if let (true, Some(finding)) = (line.starts_with(' ') && !after_pretty, last.as_mut()) {
            // The explanation goes on, indented.
            let more = format!("{}\n{}", finding.message, line.trim_end());
            finding.message = text::clean(&more, super::MAX_MESSAGE_CHARS);
        } else if let Some(files) = line.strip_prefix("Files:") {
            counted = Some(counted.unwrap_or(0) + number(files));
        } else if let Some(errors) = line.strip_prefix("Found ") {
            declared += number(errors);
        } else if is_listed_file(line) {
            let is_own = !line.contains("node_modules/") && !line.contains("node_modules\\") && !is_library(line);
            listed = Some(listed.unwrap_or(0) + u64::from(is_own));
        } else if !OTHER.is_match(line) {
            let shown = text::clean(line, 80);
            return Err(ReportError::unparsable(Format::Tsc, format_args!("tsc does not print {shown:?}")));
        }
    }
    if let Some(finding) = last {
        parsed.add(finding);
    }
    if declared > parsed.found.error {
        let why = format_args!("it counts {declared} errors and lists {}", parsed.found.error);
        return Err(ReportError::unparsable(Format::Tsc, why));
    }
    // `--listFiles` says more than `--diagnostics`, which also counts the compiler's own libraries.
    parsed.checked = listed.or(counted);
    // TS18002 and TS18003: the configuration selects no file.
    if parsed.findings.iter().any(|finding| matches!(finding.rule.as_deref(), Some("TS18002" | "TS18003"))) {
        parsed.checked = Some(0);
    }
    Ok(parsed)
}

fn finding(found: &regex::Captures<'_>, place: &Place<'_>) -> Finding {
    let group = |name: &str| found.name(name).map(|group| group.as_str());
    let position = |names: [&str; 2]| names.into_iter().find_map(group).and_then(|digits| digits.parse().ok());
    let severity = match group("severity") {
        Some("error") => Severity::Error,
        Some("warning") => Severity::Warning,
        _ => Severity::Note,
    };
    Finding::new(severity, "tsc", group("message").unwrap_or_default())
        .at(
            group("file").map(|file| place.locate(file)).unwrap_or_default(),
            position(["line", "line2"]),
            position(["column", "column2"]),
        )
        .rule(group("code"))
}

fn number(text: &str) -> u64 {
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).take(12).collect();
    digits.parse().unwrap_or(0)
}

/// A line of `--listFiles`: an absolute path, alone on its line.
fn is_listed_file(line: &str) -> bool {
    let is_absolute = line.starts_with('/')
        || matches!(line.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic());
    let is_source = [".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".json", ".vue", ".svelte"];
    is_absolute && is_source.iter().any(|end| line.ends_with(end))
}

/// `lib.es2022.d.ts` and its siblings, from an installation outside `node_modules`.
fn is_library(line: &str) -> bool {
    let name = line.rsplit(['/', '\\']).next().unwrap_or(line);
    name.starts_with("lib.") && name.ends_with(".d.ts")
}
