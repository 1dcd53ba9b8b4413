//! JSON as examples show it.

use maud::{Markup, PreEscaped};
use serde_json::{Value, json};

/// Longest line of an example.
const LINE: usize = 100;

/// Short JSON is on one line. Does not escape quotes, which makes the page a third smaller.
pub fn pretty(value: &Value) -> Markup {
    let mut shown = String::new();
    spread(value, 0, &mut shown);
    PreEscaped(shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

fn spread(value: &Value, depth: usize, shown: &mut String) {
    let line = spaced(value);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (format!("{}: ", json!(name)), value)).collect(),
        Value::Array(items) => items.iter().map(|value| (String::new(), value)).collect(),
        _ => Vec::new(),
    };
    if entries.is_empty() || depth + line.len() <= LINE {
        shown.push_str(&line);
        return;
    }
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    let indent = " ".repeat(depth);
    shown.push(open);
    for (at, (name, value)) in entries.into_iter().enumerate() {
        shown.push_str(if at > 0 { ",\n" } else { "\n" });
        shown.extend([indent.as_str(), " ", &name]);
        spread(value, depth + 1, shown);
    }
    shown.extend(["\n", &indent]);
    shown.push(close);
}

/// JSON in one line.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{}: {}", json!(name), spaced(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
