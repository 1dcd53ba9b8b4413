//! Reads a plan as somebody typed it, in JSON or YAML, and finds the lines of its problems.

use std::fmt::Write as _;

use serde::de::IgnoredAny;
use serde_json::Value;
use shared::domain::hidden;
use shared::domain::lines::lines_of;
use shared::domain::yaml;
use shared::error::Problem;
use shared::http::{MAX_BODY_BYTES, json_body};

/// Largest text that the editor takes. The page shows it again, and escaped it may have six times the size; an answer of
/// Lambda has at most 6 MB.
pub const MAX_TEXT_BYTES: usize = 512 << 10;

/// The key in which editors find the schema of the file. It is removed, because the API refuses it.
const SCHEMA: &str = "$schema";

/// A problem, with its line from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub line: usize,
    pub path: String,
    pub message: String,
}

/// The body `{"plan": ..}` in a text.
pub fn read(text: &str) -> Result<Value, Vec<Located>> {
    let mut body = value(text)?;
    if let Some(fields) = body.as_object_mut() {
        fields.remove(SCHEMA);
    }
    if body.get("plan").is_some_and(Value::is_object) {
        return Ok(body);
    }
    let message = "is missing; a text has the key plan, with goal and steps below it".to_owned();
    Err(vec![Located { line: 1, path: "plan".to_owned(), message }])
}

/// The value of a text. A text that starts with a brace is JSON.
pub fn value(text: &str) -> Result<Value, Vec<Located>> {
    if text.trim_start().starts_with('{') { json(text) } else { yaml(text) }
}

/// A plan as text. What readers cannot see stands there by its number, so that the text reads as it runs.
pub fn write(plan: &Value) -> String {
    let text = format!("{:#}\n", serde_json::json!({ "plan": plan }));
    let mut shown = String::with_capacity(text.len());
    // Outside of its strings, JSON has no hidden characters.
    for (character, is_hidden) in hidden::characters(&text) {
        if is_hidden {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Problems of a plan with the lines of the text where they are, in the order of the lines.
pub fn locate(text: &str, problems: &[Problem]) -> Vec<Located> {
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let lines = lines_of(text, &paths);
    let located = problems.iter().zip(lines).map(|(problem, line)| Located {
        line,
        path: problem.path.clone(),
        message: problem.message.clone(),
    });
    let mut located: Vec<_> = located.collect();
    located.sort_by_key(|problem| problem.line);
    located
}

fn json(text: &str) -> Result<Value, Vec<Located>> {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        return Err(vec![Located { line: error.line().max(1), path: String::new(), message }]);
    }
    json_body(&text.to_owned().into()).map_err(|error| match error {
        shared::error::Error::Invalid(problems) => locate(text, &problems),
        other => vec![Located { line: 1, path: String::new(), message: other.to_string() }],
    })
}

fn yaml(text: &str) -> Result<Value, Vec<Located>> {
    yaml::to_json(text, MAX_BODY_BYTES)
        .map_err(|refused| vec![Located { line: refused.line, path: String::new(), message: refused.message }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_reads_as_it_runs() {
        let plan = json!({"goal": "a\u{202e}b\u{e0041}", "\u{200b}": "ü\n\u{7f}"});
        let text = write(&plan);
        assert!(text.contains(r#""a\u202eb\udb40\udc41""#) && text.contains(r#""\u200b": "ü\n\u007f""#), "{text}");
        assert_eq!(read(&text), Ok(json!({ "plan": plan })));
    }

    fn problems(text: &str) -> Vec<(usize, String)> {
        let found = read(text).expect_err(text);
        found.into_iter().map(|problem| (problem.line, problem.message)).collect()
    }

    #[test]
    fn json_and_yaml_give_the_same_body_without_the_schema() {
        let expected = json!({"plan": {"goal": "g", "$schema": 1}});
        assert_eq!(read("\n {\"$schema\": \"x\", \"plan\": {\"goal\": \"g\", \"$schema\": 1}}"), Ok(expected.clone()));
        assert_eq!(read("# c\n$schema: x\nplan:\n  goal: g\n  $schema: 1\n"), Ok(expected));
    }

    #[test]
    fn a_text_that_cannot_be_read_has_one_problem_with_its_line() {
        for (text, line, words) in [
            ("{\"plan\":\n {\"goal\" 1}}", 2, "expected `:`"),
            ("{\"plan\": {\n\"a\": 1,\n\"a\": 2}}", 2, "is repeated in the same object"),
            ("{\"plan\": {\"goal\": \"g\",\n\"n\": 0.12345678901234567890}}", 2, "cannot be stored exactly"),
            ("plan:\n  goal: g\n  goal: h\n", 3, "the key goal is repeated"),
            ("plan: [\n", 2, ""),
            ("", 1, "is missing; a text has the key plan"),
            ("goal: g\nsteps: []\n", 1, "is missing"),
            ("plan: 1", 1, "is missing"),
            ("hello", 1, "is missing"),
        ] {
            let found = problems(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].1.contains(words), "{text}: {found:?}");
            assert!(found[0].0 == line || words.contains("repeated in the same"), "{text}: {found:?}");
        }
    }

    #[test]
    fn problems_are_in_the_order_of_their_lines() {
        let text = "plan:\n  steps:\n    - name: a\n      tool: b\n  goal: 1\n";
        let found = locate(text, &[Problem::new("plan.goal", "x"), Problem::new("plan.steps[0].tool", "y")]);
        assert_eq!(found.iter().map(|problem| problem.line).collect::<Vec<_>>(), [4, 5]);
    }
}
