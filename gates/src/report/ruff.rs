//! ruff's `--output-format json` and `json-lines`.

use serde::Deserialize;

use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

#[derive(Deserialize)]
struct Violation {
    /// Null for a syntax error in older versions.
    code: Option<String>,
    message: String,
    filename: String,
    location: Option<Location>,
    end_location: Option<Location>,
    url: Option<String>,
    severity: Option<String>,
}

#[derive(Deserialize)]
struct Location {
    row: u32,
    column: u32,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let violations: Vec<Violation> = if text.trim_start().starts_with('{') {
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| text::json(Format::Ruff, line))
            .collect::<Result<_, _>>()?
    } else {
        text::json(Format::Ruff, text)?
    };
    let mut parsed = Parsed::new(Format::Ruff);
    for violation in &violations {
        let severity = match violation.severity.as_deref() {
            Some("warning") => Severity::Warning,
            Some("info" | "help") => Severity::Note,
            _ => Severity::Error,
        };
        let (line, column) = violation.location.as_ref().map(|at| (at.row, at.column)).unzip();
        let finding = Finding::new(severity, "ruff", &violation.message)
            .at(place.locate(&violation.filename), line, column)
            .until(violation.end_location.as_ref().map(|end| end.row))
            .rule(Some(violation.code.as_deref().unwrap_or("invalid-syntax")))
            .url(violation.url.as_deref());
        parsed.add(finding);
    }
    Ok(parsed)
}
