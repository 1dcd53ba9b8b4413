//! What `mypy` prints: `a.py:3: error: ...  [code]`, or one JSON object on each line (`--output json`).

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

#[derive(Deserialize)]
struct Message {
    file: String,
    line: i64,
    /// From 0 in JSON, -1 if unknown.
    column: i64,
    end_line: Option<i64>,
    #[serde(rename = "message")]
    text: String,
    code: Option<String>,
    severity: String,
}

static TEXT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^(?P<file>(?:[A-Za-z]:[\\/])?[^:]+?)(?::(?P<line>\d+))?(?::(?P<column>\d+))?(?::(?P<end>\d+):\d+)?:\x20
        (?P<severity>error|warning|note):\x20(?P<message>.*?)(?:\x20{2}\[(?P<code>[\w-]+)\])?$",
    )
    .expect("a valid pattern")
});

static SUMMARY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?:Success: no issues found in (?P<clean>\d+) source files?|Found (?P<errors>\d+) errors? in \d+ files? \((?:checked (?P<checked>\d+) source files?|errors prevented further checking)\))$",
    )
    .expect("a valid pattern")
});

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let mut parsed = Parsed::new(Format::Mypy);
    let mut declared = 0;
    for line in text.lines().map(|line| text::strip_ansi(line)) {
        let line = line.trim_end();
        if line.starts_with('{') {
            parsed.add(json_finding(line, place)?);
        } else if let Some(found) = SUMMARY.captures(line) {
            let number = |name: &str| found.name(name).and_then(|digits| digits.as_str().parse::<u64>().ok());
            declared += number("errors").unwrap_or(0);
            parsed.checked = number("clean").or(number("checked")).map(|files| files + parsed.checked.unwrap_or(0));
            if line.ends_with("errors prevented further checking)") {
                parsed.tool_failure = Some("mypy says that errors prevented further checking".to_owned());
            }
        } else if let Some(found) = TEXT.captures(line) {
            parsed.add(text_finding(&found, place));
        } else if !line.is_empty() && !is_decoration(line) {
            let shown = text::clean(line, 80);
            return Err(ReportError::unparsable(Format::Mypy, format_args!("mypy does not print {shown:?}")));
        }
    }
    if declared > parsed.found.error {
        let why = format_args!("it counts {declared} errors and lists {}", parsed.found.error);
        return Err(ReportError::unparsable(Format::Mypy, why));
    }
    Ok(parsed)
}

/// The code and the marks below a message of `--pretty`, and the continuation of a long one.
fn is_decoration(line: &str) -> bool {
    line.starts_with(' ')
        || line.starts_with("Warning: unused section(s) in ")
        || line.starts_with("Installing missing stub packages:")
}

fn json_finding(line: &str, place: &Place<'_>) -> Result<Finding, ReportError> {
    let message: Message = text::json(Format::Mypy, line)?;
    let severity = severity(&message.severity).ok_or_else(|| {
        ReportError::unparsable(Format::Mypy, format_args!("unknown severity {:?}", message.severity))
    })?;
    let position = |number: i64| u32::try_from(number).ok();
    Ok(Finding::new(severity, "mypy", &message.text)
        .at(place.locate(&message.file), position(message.line), position(message.column.saturating_add(1)))
        .until(message.end_line.and_then(position))
        .rule(message.code.as_deref()))
}

fn text_finding(found: &regex::Captures<'_>, place: &Place<'_>) -> Finding {
    let group = |name: &str| found.name(name).map(|group| group.as_str());
    let number = |name: &str| group(name).and_then(|digits| digits.parse().ok());
    let severity = group("severity").and_then(severity).unwrap_or(Severity::Error);
    Finding::new(severity, "mypy", group("message").unwrap_or_default())
        .at(group("file").map(|file| place.locate(file)).unwrap_or_default(), number("line"), number("column"))
        .until(number("end"))
        .rule(group("code"))
}

fn severity(name: &str) -> Option<Severity> {
    match name {
        "error" => Some(Severity::Error),
        "warning" => Some(Severity::Warning),
        "note" => Some(Severity::Note),
        _ => None,
    }
}
