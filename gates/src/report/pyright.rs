//! pyright's `--outputjson`.

use serde::Deserialize;

use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    general_diagnostics: Vec<Diagnostic>,
    summary: Summary,
}

#[derive(Deserialize)]
struct Diagnostic {
    /// Newer versions write `uri` instead for files that are not on the disk.
    #[serde(alias = "uri")]
    file: Option<String>,
    severity: String,
    message: String,
    range: Option<Range>,
    rule: Option<String>,
}

#[derive(Deserialize)]
struct Range {
    start: Point,
    end: Point,
}

/// Counts from 0.
#[derive(Deserialize)]
struct Point {
    line: u32,
    character: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    files_analyzed: u64,
    error_count: u64,
    warning_count: u64,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    // Before the report, pyright prints lines such as "No configuration file found."
    let start =
        text.find('{').filter(|start| text[..*start].lines().all(|line| !line.trim_start().starts_with(['[', '<'])));
    let report: Report = text::json(Format::Pyright, text.get(start.unwrap_or(0)..).unwrap_or(text))?;
    let mut parsed = Parsed::new(Format::Pyright);
    for diagnostic in &report.general_diagnostics {
        let severity = match diagnostic.severity.as_str() {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            "information" | "unreachable" | "unused" | "deprecated" | "hint" => Severity::Note,
            other => {
                return Err(ReportError::unparsable(Format::Pyright, format_args!("unknown severity {other:?}")));
            }
        };
        let range = diagnostic.range.as_ref();
        let one_based = |zero_based: u32| zero_based.saturating_add(1);
        let finding = Finding::new(severity, "pyright", &diagnostic.message)
            .at(
                diagnostic.file.as_deref().map(|file| place.locate_uri(file)).unwrap_or_default(),
                range.map(|range| one_based(range.start.line)),
                range.map(|range| one_based(range.start.character)),
            )
            .until(range.map(|range| one_based(range.end.line)))
            .rule(diagnostic.rule.as_deref());
        parsed.add(finding);
    }
    if report.summary.error_count > parsed.found.error || report.summary.warning_count > parsed.found.warning {
        return Err(ReportError::unparsable(Format::Pyright, "it counts more errors or warnings than it lists"));
    }
    parsed.checked = Some(report.summary.files_analyzed);
    Ok(parsed)
}
