//! JSON with a line for each value. It only moves white space: the order of keys and all digits of numbers stay. It also
//! takes the beginning of a document.

use std::fmt::Write;

use maud::{Markup, PreEscaped};

use super::source::visible;

/// Lines and tokens that are shown.
const LINES: usize = 2_000;
const TOKENS: usize = 8_000;
/// Deeper values are not indented further.
const DEPTH: usize = 16;

/// JSON for a page.
pub(super) struct Pretty {
    pub markup: Markup,
    /// Whether the page leaves out the end.
    pub is_cut: bool,
}

/// Indents JSON and gives keys, strings and other values the classes `k`, `s` and `l`.
pub(super) fn pretty(text: &str) -> Pretty {
    let mut writer = Writer::default();
    let mut rest = text.trim_start();
    let mut tokens = 0;
    while let Some(token) = next_token(rest) {
        if tokens == TOKENS || writer.lines == LINES {
            return Pretty { markup: PreEscaped(writer.html), is_cut: true };
        }
        tokens += 1;
        rest = rest[token.len()..].trim_start();
        writer.write(token, rest);
    }
    Pretty { markup: PreEscaped(writer.html), is_cut: false }
}

/// The first token: a string with its quotes, a mark, or anything else up to the next mark.
fn next_token(text: &str) -> Option<&str> {
    let first = text.chars().next()?;
    let length = match first {
        '"' => string_length(text),
        '{' | '}' | '[' | ']' | ',' | ':' => 1,
        _ => text.find(|c: char| c.is_whitespace() || "{}[],:\"".contains(c)).unwrap_or(text.len()),
    };
    Some(&text[..length])
}

/// The bytes of a string with its quotes. A string without an end takes the rest.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[derive(Default)]
struct Writer {
    html: String,
    depth: usize,
    lines: usize,
}

impl Writer {
    fn write(&mut self, token: &str, rest: &str) {
        match token {
            "{" | "[" => {
                self.html.push_str(token);
                self.depth += 1;
                if !rest.starts_with(['}', ']']) {
                    self.line();
                }
            }
            "}" | "]" => {
                self.depth = self.depth.saturating_sub(1);
                if !self.html.ends_with(['{', '[']) {
                    self.line();
                }
                self.html.push_str(token);
            }
            "," => {
                self.html.push(',');
                self.line();
            }
            ":" => self.html.push_str(": "),
            string if string.starts_with('"') => {
                self.value(if rest.starts_with(':') { "k" } else { "s" }, string);
            }
            other => self.value("l", other),
        }
    }

    fn line(&mut self) {
        self.lines += 1;
        self.html.push('\n');
        self.html.push_str(&"  ".repeat(self.depth.min(DEPTH)));
    }

    fn value(&mut self, class: &str, text: &str) {
        let _ = write!(self.html, "<span class=\"{class}\">");
        for character in visible(text).chars() {
            match character {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                '"' => self.html.push_str("&quot;"),
                other => self.html.push(other),
            }
        }
        self.html.push_str("</span>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees.
    fn text(json: &str) -> String {
        let html = pretty(json).markup.into_string();
        let mut text = String::new();
        for part in html.split('<') {
            text.push_str(part.split_once('>').map_or(part, |(_, after)| after));
        }
        text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    }

    #[test]
    fn values_are_indented_and_keep_their_order_and_digits() {
        let json = r#"{"b":[1,{"z":12345678901234567890.10,"a":[]}],"a":{},"s":"x, {y}: \"z\""}"#;
        assert_eq!(
            text(json),
            "{\n  \"b\": [\n    1,\n    {\n      \"z\": 12345678901234567890.10,\n      \"a\": []\n    }\n  ],\n  \"a\": {},\n  \
             \"s\": \"x, {y}: \\\"z\\\"\"\n}"
        );
        assert_eq!(text(" null "), "null");
    }

    #[test]
    fn keys_strings_and_other_values_differ() {
        let html = pretty(r#"{"k": "s", "l": [true, -1e9]}"#).markup.into_string();
        for part in
            ["<span class=\"k\">&quot;k&quot;</span>: <span class=\"s\">&quot;s&quot;</span>", ">true<", ">-1e9<"]
        {
            assert!(html.contains(part), "{part}: {html}");
        }
    }

    #[test]
    fn hostile_strings_are_escaped_and_visible() {
        let html = pretty("{\"<b>\": \"\u{202e}</pre>&\"}").markup.into_string();
        assert!(html.contains("&lt;b&gt;") && html.contains("⟨U+202E⟩&lt;/pre&gt;&amp;"), "{html}");
    }

    #[test]
    fn the_beginning_of_a_document_is_shown_too() {
        for json in [r#"{"a": [1, "b"#, r#"{"a": "\"#, "[tru", "}]", "{]", "\"", "1 2 \u{fffd}"] {
            assert!(!pretty(json).is_cut, "{json}");
        }
        assert_eq!(text(r#"{"a":"b"#), "{\n  \"a\": \"b");
    }

    #[test]
    fn deep_and_long_documents_stay_small() {
        for json in ["[".repeat(40_000), "[1,".repeat(20_000), "1 ".repeat(30_000), "{}".repeat(30_000)] {
            let shown = pretty(&json);
            assert!(shown.is_cut && shown.markup.into_string().len() < 300_000);
        }
    }
}
