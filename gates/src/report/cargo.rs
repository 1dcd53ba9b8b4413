//! `cargo check|clippy|build --message-format json`: one JSON object on each line.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Line {
    CompilerMessage {
        message: Diagnostic,
    },
    CompilerArtifact {},
    BuildFinished {
        success: bool,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    code: Option<Code>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    line_start: u32,
    line_end: u32,
    column_start: u32,
    is_primary: bool,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let mut parsed = Parsed::new(Format::Cargo);
    let mut compiled = 0;
    let mut seen = BTreeSet::new();
    let mut finished = None;
    // Scripts and `cargo test` print other lines between them.
    for line in text.lines().map(str::trim).filter(|line| line.starts_with('{')) {
        match text::json(Format::Cargo, line)? {
            Line::CompilerMessage { message } => {
                compiled += 1;
                // A library and its tests are two targets with the same files.
                if let Some(finding) = finding(&message, place)?
                    && seen.insert((finding.file.clone(), finding.line, finding.column, finding.message.clone()))
                {
                    parsed.add(finding);
                }
            }
            Line::CompilerArtifact {} => compiled += 1,
            Line::BuildFinished { success } => finished = Some(finished.unwrap_or(true) && success),
            Line::Other => {}
        }
    }
    match finished {
        None => return Err(ReportError::unparsable(Format::Cargo, "it is cut off: it has no build-finished line")),
        Some(false) => parsed.tool_failure = Some("cargo says that the build failed".to_owned()),
        Some(true) => {}
    }
    parsed.checked = Some(compiled);
    Ok(parsed)
}

/// `None` for the compiler's summaries, such as "1 warning emitted".
fn finding(diagnostic: &Diagnostic, place: &Place<'_>) -> Result<Option<Finding>, ReportError> {
    let severity = match diagnostic.level.as_str() {
        level if level.starts_with("error") => Severity::Error,
        "warning" => Severity::Warning,
        "note" | "help" => Severity::Note,
        "failure-note" => return Ok(None),
        other => return Err(ReportError::unparsable(Format::Cargo, format_args!("unknown level {other:?}"))),
    };
    let is_summary = diagnostic.spans.is_empty()
        && diagnostic.code.is_none()
        && (diagnostic.message.starts_with("aborting due to") || diagnostic.message.ends_with(" emitted"));
    if is_summary {
        return Ok(None);
    }
    let code = diagnostic.code.as_ref().map(|code| code.code.as_str());
    let tool = if code.is_some_and(|code| code.starts_with("clippy::")) { "clippy" } else { "rustc" };
    let mut finding = Finding::new(severity, tool, &diagnostic.message).rule(code);
    if let Some(span) = diagnostic.spans.iter().find(|span| span.is_primary).or(diagnostic.spans.first()) {
        finding = finding
            .at(place.locate(&span.file_name), Some(span.line_start), Some(span.column_start))
            .until(Some(span.line_end));
    }
    if let Some(lint) = code.and_then(|code| code.strip_prefix("clippy::")) {
        finding = finding.url(Some(&format!("https://rust-lang.github.io/rust-clippy/stable/index.html#{lint}")));
    }
    Ok(Some(finding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_targets_report_is_one_finding() {
        let message = |line: u32| {
            format!(
                r#"{{"reason":"compiler-message","message":{{"level":"warning","message":"m","code":null,"spans":[{{"file_name":"src/lib.rs","line_start":{line},"line_end":{line},"column_start":1,"is_primary":true}}]}}}}"#
            )
        };
        let text = [message(1), message(1), message(2)].join("\n");
        let end = r#"{"reason":"build-finished","success":true}"#;
        let parsed = read(&format!("{text}\n{end}\n"), &Place::new("/w", ["src/lib.rs"].into_iter())).unwrap();
        assert_eq!(parsed.findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [Some(1), Some(2)]);
    }
}
