//! Reads JSON and YAML documents from a file or standard input.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow};
use nofx_local::report::{hinted, printable};
use serde_json::Value;
use shared::domain::Problem;
use shared::domain::lines::lines_of;
use shared::domain::yaml::{self, Refused};
use shared::http::{MAX_BODY_BYTES, json_body};

use crate::client::error::ApiError;
use crate::client::resolve::did_you_mean;

/// A request has at most 2 MiB. A file may also contain comments and indentation.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// A document that was read from a file or standard input.
#[derive(Debug)]
pub struct Document {
    /// Null if it is empty.
    pub value: Value,
    /// For messages.
    pub name: String,
    text: String,
}

impl Document {
    /// Reads a document. `-` is standard input. Refuses what the API would refuse to read, such as a repeated key.
    pub fn read(path: &Path) -> Result<Self> {
        let (name, text) = (name(path), text_of(path)?);
        let value = if is_yaml(path, &text) {
            yaml::to_json(&text, MAX_BODY_BYTES)
                .map_err(|Refused { line, message }| anyhow!("{name}:{line}: {}", printable(&message)))?
        } else {
            json_body(&text.clone().into())
                .map_err(|error| not_json(&name, &text).unwrap_or_else(|| anyhow!("{name}: {error}")))?
        };
        Ok(Self { value, name, text })
    }

    /// An error that lists problems with their lines. `field` is the field of the request whose value the document is;
    /// it is empty, if the document is the whole request.
    pub fn invalid(&self, field: &str, problems: &[Problem]) -> String {
        let own = |problem: &Problem| match problem.path.strip_prefix(field) {
            Some(rest) if !field.is_empty() => rest.trim_start_matches('.').to_owned(),
            _ => problem.path.clone(),
        };
        let paths: Vec<String> = problems.iter().map(own).collect();
        let lines = lines_of(&self.text, &paths.iter().map(String::as_str).collect::<Vec<_>>());
        let name = printable(&self.name);
        let mut message = format!("{name} is not valid");
        for ((problem, path), line) in problems.iter().zip(&paths).zip(lines) {
            let place = if path.is_empty() { String::new() } else { format!("{}: ", printable(path)) };
            let _ = write!(message, "\n  {name}:{line}: {place}{}", printable(&problem.message));
        }
        message
    }

    /// The error of a request that sent the document. Problems that the API found have their lines.
    pub fn located(&self, field: &str, error: Error) -> Error {
        match error.downcast::<ApiError>() {
            Ok(mut error) if error.code == "invalid" && !error.problems.is_empty() => {
                error.message = self.invalid(field, &error.problems);
                error.into()
            }
            Ok(error) => error.into(),
            Err(error) => error,
        }
    }
}

/// A file cannot be opened. Another one in its folder may be meant.
fn absent(path: &Path, error: &io::Error) -> Error {
    let message = format!("cannot read {}: {error}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = folder.read_dir().into_iter().flatten().flatten();
    let names: Vec<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match did_you_mean(&name, names.iter().map(String::as_str)) {
        Some(hint) if error.kind() == io::ErrorKind::NotFound => hinted(message, hint),
        _ => anyhow!(message),
    }
}

/// Where the text is not JSON. None if it is.
fn not_json(name: &str, text: &str) -> Option<Error> {
    let error = serde_json::from_str::<Value>(text).err()?;
    let (line, column, message) = (error.line(), error.column(), error.to_string());
    let what = message.trim_end_matches(&format!(" at line {line} column {column}"));
    Some(anyhow!("{name}:{line}:{column}: this is not JSON: {what}"))
}

/// The document's name in messages.
fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn text_of(path: &Path) -> Result<String> {
    let name = name(path);
    let cannot_read = || format!("cannot read {name}");
    let source: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| absent(path, &error))?)
    };
    if path.is_dir() {
        return Err(hinted(format!("{name} is a folder"), "name a file in it"));
    }
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(anyhow!("{name} is larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("{name} is not UTF-8 text"))
}

/// Decides by the file's extension. Without a known one, a document that starts with a brace is JSON.
fn is_yaml(path: &Path, text: &str) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => true,
        Some("json") => false,
        _ => !text.trim_start().starts_with('{'),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn read_as(name: &str, text: &[u8]) -> Result<Value, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        // Without the folder, whose name differs each time.
        let read = Document::read(&path).map(|document| document.value);
        read.map_err(|error| format!("{error:#}").replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn the_format_follows_from_the_extension_or_the_first_character() {
        for (name, text) in [
            ("plan.json", r#"{"a": [1, "b"]}"#),
            ("plan", " \n{\"a\": [1, \"b\"]}"),
            ("plan.yaml", "a: [1, b]"),
            ("plan.yml", r#"{"a": [1, "b"]}"#),
            ("plan.txt", "a:\n- 1\n- b\n"),
        ] {
            assert_eq!(read_as(name, text.as_bytes()), Ok(json!({"a": [1, "b"]})), "{name}");
        }
        assert_eq!(read_as("plan.json", b""), Ok(Value::Null));
        assert_eq!(read_as("plan.yaml", b"# nothing yet\n"), Ok(Value::Null));
    }

    #[test]
    fn an_error_names_the_file_and_the_place() {
        let large = vec![b' '; 8 * 1024 * 1024 + 1];
        for (name, text, expected) in [
            ("plan.json", "{\"a\": 1,\n\"b\" 2}".as_bytes(), "plan.json:2:5: this is not JSON: expected `:`"),
            ("plan.json", b"{\"a\": {\"b\": 1, \"b\": 2}}", "plan.json: a.b: is repeated in the same object"),
            ("plan.json", b"{\"a\": 1e400}", "plan.json:1:11: this is not JSON: number out of range"),
            ("plan.json", b"a: 1", "plan.json:1:1: this is not JSON: expected value"),
            ("plan.json", b"{\"a\": 1,}", "plan.json:1:9: this is not JSON: trailing comma"),
            ("plan.json", b"[1, 2", "plan.json:1:5: this is not JSON: EOF while parsing a list"),
            ("plan.yaml", b"a: 1\na: 2", "plan.yaml:2: the key a is repeated in the same object"),
            ("plan.yaml", b"\xff", "plan.yaml is not UTF-8 text"),
            ("plan.yaml", &large, "plan.yaml is larger than 8 MiB"),
        ] {
            assert_eq!(read_as(name, text).unwrap_err(), expected);
        }
        let missing = Document::read(Path::new("/nowhere/plan.json")).unwrap_err();
        assert_eq!(format!("{missing:#}"), "cannot read /nowhere/plan.json: No such file or directory (os error 2)");
    }
    #[test]
    fn problems_that_the_api_finds_have_their_lines() {
        let text = "# mine\ngates:\n  network: maybe\n  unknown: 1\n".to_owned();
        let document = Document { value: Value::Null, name: "policy.yaml".into(), text };
        let answer = r#"{"title":"Bad Request","code":"invalid","detail":"the policy is invalid","errors":[
            {"path":"document.gates.network","message":"must be never\n"},{"path":"document.gates.more","message":"is missing"},
            {"path":"document","message":"is odd"}]}"#;
        let refused = |text: &str| ApiError::of_answer("PUT /policy", reqwest::StatusCode::BAD_REQUEST, text);
        let error = document.located("document", refused(answer).into());
        let expected = "policy.yaml is not valid\n  policy.yaml:3: gates.network: must be never\\u{a}\n  policy.yaml:2: \
                        gates.more: is missing\n  policy.yaml:1: is odd";
        assert_eq!(error.to_string(), expected);
        assert!(error.downcast_ref::<ApiError>().is_some(), "it keeps its exit code");
        let other = document.located("document", refused(r#"{"title":"Gone","code":"unavailable"}"#).into());
        assert_eq!(other.to_string(), "PUT /policy: 400 Bad Request (unavailable): Gone");
    }
}
