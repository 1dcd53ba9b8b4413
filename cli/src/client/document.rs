//! Reads JSON and YAML documents from a file or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use shared::domain::yaml;
use shared::http::{MAX_BODY_BYTES, json_body};

/// A request has at most 2 MiB. A file may also contain comments and indentation.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The value of a document. Null if it is empty. `-` is standard input. Refuses what the API would refuse to read, such
/// as a repeated key.
pub fn read(path: &Path) -> Result<Value> {
    let text = text_of(path)?;
    let value = if is_yaml(path, &text) {
        yaml::to_json(&text, MAX_BODY_BYTES).map_err(|problem| anyhow!("{problem}"))
    } else {
        json_body(&text.into()).map_err(|problem| anyhow!("{problem}"))
    };
    value.with_context(|| name(path))
}

/// The document's name in messages.
pub fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn text_of(path: &Path) -> Result<String> {
    let name = name(path);
    let cannot_read = || format!("cannot read {name}");
    let source: Box<dyn Read> =
        if is_stdin(path) { Box::new(io::stdin()) } else { Box::new(File::open(path).with_context(cannot_read)?) };
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
        read(&path).map_err(|error| format!("{error:#}").replace(&format!("{}/", dir.path().display()), ""))
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
            (
                "plan.json",
                "{\"a\": 1,\n\"b\" 2}".as_bytes(),
                "plan.json: the body is not JSON: expected `:` at line 2 column 5",
            ),
            ("plan.json", b"{\"a\": {\"b\": 1, \"b\": 2}}", "plan.json: a.b: is repeated in the same object"),
            (
                "plan.json",
                b"{\"a\": 1e400}",
                "plan.json: the body is not JSON: number out of range at line 1 column 11",
            ),
            ("plan.json", b"a: 1", "plan.json: the body is not JSON: expected value at line 1 column 1"),
            ("plan.yaml", b"a: 1\na: 2", "plan.yaml: line 2: the key a is repeated in the same object"),
            ("plan.yaml", b"\xff", "plan.yaml is not UTF-8 text"),
            ("plan.yaml", &large, "plan.yaml is larger than 8 MiB"),
        ] {
            assert_eq!(read_as(name, text).unwrap_err(), expected);
        }
        let missing = read(Path::new("/nowhere/plan.json")).unwrap_err();
        assert_eq!(format!("{missing:#}"), "cannot read /nowhere/plan.json: No such file or directory (os error 2)");
    }
}
