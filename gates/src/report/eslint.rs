//! ESLint's `--format json`: an array with one object for each file.

use serde::Deserialize;

use super::{Finding, Format, Parsed, Place, ReportError, Severity, text};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "filePath")]
    path: String,
    messages: Vec<Message>,
    #[serde(default)]
    suppressed_messages: Vec<serde::de::IgnoredAny>,
    error_count: u64,
    warning_count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    rule_id: Option<String>,
    severity: u8,
    #[serde(rename = "message")]
    text: String,
    #[serde(default)]
    fatal: Option<bool>,
    line: Option<u32>,
    column: Option<u32>,
    end_line: Option<u32>,
}

pub fn read(text: &str, place: &Place<'_>) -> Result<Parsed, ReportError> {
    let files: Vec<File> = text::json(Format::Eslint, text)?;
    let mut parsed = Parsed::new(Format::Eslint);
    let mut checked = 0;
    for file in &files {
        let path = place.locate(&file.path);
        let before = parsed.found;
        for message in &file.messages {
            let severity = match (message.fatal, message.severity) {
                (Some(true), _) | (_, 2) => Severity::Error,
                (_, 1) => Severity::Warning,
                (_, other) => {
                    return Err(ReportError::unparsable(
                        Format::Eslint,
                        format_args!("{path}: a message has severity {other}; it must be 1 or 2"),
                    ));
                }
            };
            let finding = Finding::new(severity, "eslint", &message.text)
                .at(path.clone(), message.line, message.column)
                .until(message.end_line)
                .rule(message.rule_id.as_deref());
            parsed.add(finding);
        }
        let errors = parsed.found.error - before.error;
        let warnings = parsed.found.warning - before.warning;
        if file.error_count > errors || file.warning_count > warnings {
            let why = format_args!("{path}: it counts more errors or warnings than it lists");
            return Err(ReportError::unparsable(Format::Eslint, why));
        }
        parsed.suppressed += file.suppressed_messages.len() as u64;
        checked += u64::from(!is_ignored(file));
    }
    parsed.checked = Some(checked);
    Ok(parsed)
}

/// ESLint lists a file that its configuration ignores, with one warning without a rule and a line.
fn is_ignored(file: &File) -> bool {
    matches!(file.messages.as_slice(), [only] if only.rule_id.is_none() && only.line.is_none() && only.text.starts_with("File ignored"))
}
