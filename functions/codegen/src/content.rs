//! The content type of an artifact, and whether a text is of that type.

use serde::de::IgnoredAny;

/// A content type that codegen stores. Markup that can contain scripts, such as HTML, is plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentType {
    /// As a step writes it, such as `text/markdown`.
    name: &'static str,
    /// As the artifact has it, with its character set.
    pub media_type: &'static str,
}

const MARKDOWN: ContentType = ContentType { name: "text/markdown", media_type: "text/markdown; charset=utf-8" };
const PLAIN: ContentType = ContentType { name: "text/plain", media_type: "text/plain; charset=utf-8" };
const ALL: [ContentType; 7] = [
    MARKDOWN,
    PLAIN,
    ContentType::JSON,
    ContentType { name: "text/csv", media_type: "text/csv; charset=utf-8" },
    ContentType::DIFF,
    ContentType { name: "application/yaml", media_type: "application/yaml" },
    ContentType { name: "application/toml", media_type: "application/toml" },
];

impl ContentType {
    pub const JSON: Self = Self { name: "application/json", media_type: "application/json" };
    pub const DIFF: Self = Self { name: "text/x-diff", media_type: "text/x-diff; charset=utf-8" };

    /// Reads the input `content_type`. A parameter such as the character set is allowed, because texts are UTF-8.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, parameter) = text.split_once(';').unwrap_or((text, "charset=utf-8"));
        let name = name.trim().to_ascii_lowercase();
        if !parameter.trim().eq_ignore_ascii_case("charset=utf-8") {
            return Err("may have no parameter but charset=utf-8".to_owned());
        }
        let known = ALL.into_iter().find(|known| known.name == name);
        known.ok_or_else(|| {
            let names = ALL.map(|known| known.name).join(", ");
            format!("must be one of {names}; leave it out to store other text as plain text")
        })
    }

    /// The content type of a file with this name.
    pub fn of_name(name: &str) -> Self {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        match extension.as_deref() {
            Some("md") => MARKDOWN,
            Some("json") => Self::JSON,
            _ => PLAIN,
        }
    }

    pub fn is_json(self) -> bool {
        self == Self::JSON
    }

    pub fn is_markdown(self) -> bool {
        self == MARKDOWN
    }

    /// Why the text is not of this type. `None` if it may be. Shows no part of the text.
    pub fn problem(self, text: &str) -> Option<String> {
        if self.is_json() {
            let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
            return (!is_json).then(|| "the text is not valid JSON, which its content type demands".to_owned());
        }
        let sniffed = sniff(text)?;
        let fits = self == PLAIN && sniffed == "text/html";
        (!fits).then(|| format!("the text looks like {sniffed}, and its content type is {}", self.name))
    }
}

/// The type that the beginning of a text shows. `None` for ordinary text.
fn sniff(text: &str) -> Option<&'static str> {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let starts = |prefix: &str| start.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if starts("<!doctype html") || starts("<html") {
        Some("text/html")
    } else if starts("%PDF-") {
        Some("application/pdf")
    } else if starts("{\\rtf") {
        Some("application/rtf")
    } else if start.starts_with("PK\u{3}\u{4}") {
        Some("application/zip")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_another_type_is_a_problem() {
        let cases = [
            ("application/json", "{\"a\": 1}", true),
            ("application/json", " [1, 2]\n", true),
            ("application/json", "{\"a\": 1} x", false),
            ("application/json", "", false),
            ("text/markdown", "# A", true),
            ("text/markdown", " <!DOCTYPE HTML><p>", false),
            ("text/csv", "<html>", false),
            ("text/plain", "<html>", true),
            ("text/plain", "%PDF-1.7", false),
            ("application/yaml", "a: 1", true),
            ("text/markdown", "ü", true),
        ];
        for (content_type, text, fits) in cases {
            let problem = ContentType::parse(content_type).unwrap().problem(text);
            assert_eq!(problem.is_none(), fits, "{content_type} {text}: {problem:?}");
        }
    }

    #[test]
    fn types_that_can_run_scripts_are_refused() {
        for wrong in ["text/html", "image/svg+xml", "application/javascript", "text/plain; charset=latin1", "", "x"] {
            assert!(ContentType::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ContentType::parse("Text/Markdown; charset=UTF-8"), Ok(MARKDOWN));
        assert_eq!(ContentType::of_name("a.JSON").media_type, "application/json");
        assert_eq!(ContentType::of_name("a.svg"), PLAIN);
    }
}
