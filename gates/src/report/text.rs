//! Text of reports: encodings, terminal colours, and JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Format, ReportError};

/// The text of a report, without its byte order mark. PowerShell writes UTF-16.
pub fn decode(format: Format, bytes: &[u8]) -> Result<Cow<'_, str>, ReportError> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        if rest.is_empty() {
            String::from_utf16(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<_>>()).ok()
        } else {
            None
        }
    };
    let decoded = if let Some(rest) = bytes.strip_prefix(b"\xff\xfe") {
        utf16(rest, u16::from_le_bytes).map(Cow::Owned)
    } else if let Some(rest) = bytes.strip_prefix(b"\xfe\xff") {
        utf16(rest, u16::from_be_bytes).map(Cow::Owned)
    } else {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match format {
            // The names of files on Linux are bytes, and tests print what they like.
            Format::Tsc | Format::Mypy | Format::CargoTest => Some(String::from_utf8_lossy(bytes)),
            _ => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        }
    };
    let decoded = decoded.ok_or_else(|| ReportError::unparsable(format, "it is not UTF-8"))?;
    if decoded.contains('\0') {
        return Err(ReportError::unparsable(format, "it contains NUL"));
    }
    Ok(decoded)
}

/// Removes escape sequences of terminals.
pub fn strip_ansi(text: &str) -> Cow<'_, str> {
    if !text.contains(['\u{1b}', '\u{9b}']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_control_sequence = match c {
            '\u{9b}' => true,
            '\u{1b}' => match chars.next() {
                Some('[') => true,
                // An operating system command, such as a link or the title, up to BEL or ESC \.
                Some(']') => {
                    while let Some(c) = chars.next_if(|c| *c != '\n') {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                    continue;
                }
                _ => continue,
            },
            _ => {
                out.push(c);
                continue;
            }
        };
        if is_control_sequence {
            while let Some(c) = chars.next_if(|c| matches!(c, ' '..='~')) {
                if matches!(c, '@'..='~') {
                    break;
                }
            }
        }
    }
    Cow::Owned(out)
}

/// A text for people: no escape sequences, no control characters, none that reorder it, and of limited length.
pub fn clean(text: &str, max_chars: usize) -> String {
    let is_shown = |c: &char| {
        *c == '\n' || *c == '\t' || !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    // A message of megabytes is not worth a pass over all of it. Escape sequences can at most hide its start.
    let cut = text.char_indices().nth(max_chars.saturating_mul(4)).map_or(text, |(end, _)| &text[..end]);
    let stripped = strip_ansi(cut);
    let mut cleaned: String = stripped.trim().chars().filter(is_shown).take(max_chars + 1).collect();
    if let Some((end, _)) = cleaned.char_indices().nth(max_chars) {
        cleaned.truncate(end);
        cleaned.push('…');
    } else if cut.len() < text.len() {
        cleaned.push('…');
    }
    cleaned
}

/// One JSON document.
pub fn json<T: DeserializeOwned>(format: Format, text: &str) -> Result<T, ReportError> {
    serde_json::from_str(text).map_err(|error| {
        let text = error.to_string();
        if error.is_eof() {
            ReportError::unparsable(format, format_args!("it is cut off ({text})"))
        } else if text.starts_with("trailing characters") {
            ReportError::unparsable(format, format_args!("it has more than one document ({text})"))
        } else {
            ReportError::unparsable(format, text)
        }
    })
}

/// A JSON object that must not have the same key twice: parsers disagree on which one counts.
#[derive(Debug)]
pub struct UniqueMap<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = BTreeMap<String, V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, V>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
                    }
                    map.insert(key, value);
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData)).map(UniqueMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_links_and_reordering_characters_are_removed() {
        assert_eq!(clean("\u{1b}[96ma.ts\u{1b}[0m:\u{1b}[1;31m1\u{1b}[m", 100), "a.ts:1");
        assert_eq!(clean("\u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{1b}\\ end\u{8}\u{202e}", 100), "link end");
        assert_eq!(clean("\u{9b}2Jx\u{1b}", 100), "x");
    }

    #[test]
    fn a_long_message_is_cut() {
        assert_eq!(clean("aaaa", 3), "aaa…");
        assert_eq!(clean("aaa", 3), "aaa");
        assert_eq!(clean(&"\u{7}".repeat(100), 3), "…");
    }

    #[test]
    fn byte_order_marks_and_utf16_are_read_and_other_bytes_are_not() {
        assert_eq!(decode(Format::Eslint, b"\xef\xbb\xbf[]").unwrap(), "[]");
        assert_eq!(decode(Format::Eslint, b"\xff\xfe[\0]\0").unwrap(), "[]");
        assert_eq!(decode(Format::Eslint, b"\xfe\xff\0[\0]").unwrap(), "[]");
        for bytes in [&b"\xff\xfe[\0]"[..], b"[\"\xff\"]", b"[\0]"] {
            assert_eq!(decode(Format::Eslint, bytes).unwrap_err().code, "report_unparsable");
        }
    }

    #[test]
    fn the_same_key_twice_is_an_error() {
        assert!(json::<UniqueMap<u8>>(Format::NpmAudit, r#"{"a": 1, "b": 2}"#).is_ok());
        assert!(json::<UniqueMap<u8>>(Format::NpmAudit, r#"{"a": 1, "a": 2}"#).is_err());
    }
}
