//! Forms of configuration files in which only what a tool reads differs: no formatting, no comments, no order of keys.

use std::fmt;

use serde_json::Value;

use super::lex::{self, Language, Token, TokenKind};

/// One difference between two values.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// Keys from the root. An element of a list of scalars has its value as the last key.
    pub path: Vec<String>,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

impl Leaf {
    /// The difference as lines of a diff.
    pub fn lines(&self) -> Vec<String> {
        let line =
            |sign: char, value: &Option<Value>| value.as_ref().map(|value| format!("{sign}{}: {value}", self.key()));
        line('-', &self.old).into_iter().chain(line('+', &self.new)).collect()
    }

    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: &Value| {
            const MAX_LETTERS: usize = 120;
            let text = value.to_string();
            let cut: String = text.chars().take(MAX_LETTERS).collect();
            if cut.len() < text.len() { format!("{cut}...") } else { cut }
        };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(formatter, "{}: {} -> {}", self.key(), short(old), short(new)),
            (Some(old), None) => write!(formatter, "{} is gone (was {})", self.key(), short(old)),
            (None, Some(new)) => write!(formatter, "{} is new: {}", self.key(), short(new)),
            (None, None) => formatter.write_str(&self.key()),
        }
    }
}

/// The differences between two values, each as near to a leaf as both have the way to it.
pub fn leaves(old: &Value, new: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(&mut Vec::new(), Some(old), Some(new), &mut found);
    found
}

fn collect(path: &mut Vec<String>, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Leaf>) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                path.push(key.clone());
                collect(path, one.get(key), other.get(key), found);
                path.pop();
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            let before = found.len();
            let named = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            for (value, from, is_old) in
                one.iter().map(|v| (v, other, true)).chain(other.iter().map(|v| (v, one, false)))
            {
                if !from.contains(value) {
                    let mut path = path.clone();
                    path.push(named(value));
                    let (old, new) = if is_old { (Some(value.clone()), None) } else { (None, Some(value.clone())) };
                    found.push(Leaf { path, old, new });
                }
            }
            if before == found.len() {
                found.push(Leaf { path: path.clone(), old: old.cloned(), new: new.cloned() });
            }
        }
        _ => found.push(Leaf { path: path.clone(), old: old.cloned(), new: new.cloned() }),
    }
}

/// JSON with comments and trailing commas.
pub fn json(text: &str) -> Option<Value> {
    let text = text.trim_start_matches('\u{feff}');
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let tokens = lex::code(Language::Script, text);
    let mut plain = String::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        let trails = token.is_mark(',') && next.is_some_and(|next| next.is_mark('}') || next.is_mark(']'));
        if !trails {
            plain.push_str(token.text);
            if token.kind == TokenKind::Word || token.kind == TokenKind::Number {
                plain.push(' ');
            }
        }
    }
    serde_json::from_str(&plain).ok()
}

pub fn toml(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(text).ok()?;
    serde_json::to_value(table).ok()
}

/// A script without comments and formatting: blanks, quotes, trailing commas, semicolons at the end of a line.
pub fn script(text: &str) -> Vec<String> {
    // A line break after these changes the meaning.
    const RESTRICTED: [&str; 7] = ["return", "throw", "yield", "break", "continue", "async", "await"];
    let tokens = lex::code(Language::Script, text);
    let mut heads: Vec<bool> = Vec::new();
    let mut normal: Vec<String> = Vec::new();
    let mut closes_head = false;
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        let previous = at.checked_sub(1).and_then(|at| tokens.get(at));
        if token.is_mark('(') {
            heads.push(previous.is_some_and(|token| matches!(token.text, "if" | "while" | "for" | "with")));
        }
        if token.is_mark(',') && next.is_some_and(|next| matches!(next.text, "}" | "]" | ")")) {
            continue;
        }
        if token.is_mark(';') && may_be_left_out(previous, token, next, closes_head) {
            continue;
        }
        closes_head = token.is_mark(')') && heads.pop().unwrap_or(false);
        let is_plain =
            token.kind == TokenKind::Text && !token.text.starts_with(['`', '/', '}']) && !token.text.contains('\\');
        if is_plain && !token.unquoted().contains(['"', '\'']) {
            normal.push(format!("\"{}\"", token.unquoted()));
        } else {
            normal.push(token.text.to_owned());
        }
        if RESTRICTED.contains(&token.text) && next.is_some_and(|next| next.line > token.line) {
            normal.push("\n".to_owned());
        }
    }
    normal
}

fn may_be_left_out(
    previous: Option<&Token<'_>>,
    token: &Token<'_>,
    next: Option<&Token<'_>>,
    closes_head: bool,
) -> bool {
    let ends = next.is_none_or(|next| {
        next.is_mark('}')
            || (next.line > token.line
                && (next.kind != TokenKind::Mark || next.is_mark('}'))
                && next.kind != TokenKind::Text)
    });
    let empty = closes_head || previous.is_none_or(|token| matches!(token.text, "else" | "do" | ";" | "{"));
    ends && !empty
}

/// A Python file without comments and blank lines. Indentation counts.
pub fn python(text: &str) -> Vec<String> {
    let mut last = 0;
    let mut normal = Vec::new();
    for token in lex::code(Language::Python, text) {
        if token.line > last {
            normal.push(format!("\n{}", token.column));
            last = token.line;
        }
        normal.push(token.text.to_owned());
    }
    normal
}

/// Lines without comments (`#` or `;` at the start), blank lines and blanks at the end.
pub fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim_end)
        .filter(|line| !line.trim_start().is_empty() && !line.trim_start().starts_with(['#', ';']))
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_may_have_comments_and_trailing_commas() {
        let text = "\u{feff}{ // a\n \"a/*\": [1, -2.5e3, true, ], /* b */ \"c\": {\"d\": \"//\",}, }";
        assert_eq!(json(text), Some(json!({"a/*": [1, -2500.0, true], "c": {"d": "//"}})));
        assert_eq!(json("{"), None);
    }

    #[test]
    fn formatting_of_a_script_has_no_meaning() {
        let one = "export default defineConfig({\n  a: 'b', // why\n  c: [1, 2,],\n});\nconst x = y;\nlet z\n";
        let other = "export default defineConfig({ a: \"b\", c: [\n1, 2] })\nconst x = y\nlet z;";
        assert_eq!(script(one), script(other));
        for (one, other) in [
            ("return {}", "return\n{}"),
            ("if (a);\nb()", "if (a)\nb()"),
            ("a;\n[b]", "a\n[b]"),
            ("'a'", "'b'"),
            ("else;\nb()", "else\nb()"),
            ("\"it's\"", "\"its\""),
        ] {
            assert_ne!(script(one), script(other), "{one}");
        }
    }

    #[test]
    fn differences_are_named_by_their_keys() {
        let found = leaves(
            &json!({"a": {"b": 1}, "c": ["x", "y"], "d": 1}),
            &json!({"a": {"b": 2}, "c": ["y", "z"], "e": {"f": 1}}),
        );
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["a.b: 1 -> 2", "c.x is gone (was \"x\")", "c.z is new: \"z\"", "d is gone (was 1)", "e is new: {\"f\":1}"]
        );
        assert_eq!(leaves(&json!(["a", "b"]), &json!(["b", "a"])).len(), 1);
    }
}
