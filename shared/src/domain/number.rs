//! Finds numbers in a JSON text that cannot be stored exactly. JSON (RFC 8259, section 6) sets no limit on numbers. A
//! number is exact if a double holds the same decimal number. Integers beyond 2^53 never count: in canonical JSON (RFC 8785),
//! whose numbers are doubles, several of them are one, so two plans would have one digest. Other readers refuse them (RFC 7493).

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::Number;

/// A number that would change, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inexact {
    /// Such as `plan.steps[0].inputs.price`. Empty for the whole document.
    pub path: String,
    pub token: Range<usize>,
}

/// Doubles hold every integer up to this one.
const MAX_INTEGER: u64 = 1 << 53;

enum Frame {
    List(usize),
    Object(String),
}

/// The inexact numbers of a well-formed JSON text, at most `max` of them.
pub fn inexact_numbers(json: &str, max: usize) -> Vec<Inexact> {
    let bytes = json.as_bytes();
    let (mut frames, mut found, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() && found.len() < max {
        let start = at;
        match bytes[at] {
            b'"' => {
                at = end_of_string(bytes, at);
                // A string before a colon is a key.
                let is_key = json[at..].trim_start().starts_with(':');
                if is_key && let Some(Frame::Object(key)) = frames.last_mut() {
                    *key = serde_json::from_str(&json[start..at]).unwrap_or_default();
                }
                continue;
            }
            b'{' => frames.push(Frame::Object(String::new())),
            b'[' => frames.push(Frame::List(0)),
            b'}' | b']' => {
                frames.pop();
            }
            b',' => {
                if let Some(Frame::List(index)) = frames.last_mut() {
                    *index += 1;
                }
            }
            b'-' | b'0'..=b'9' => {
                at = (start..bytes.len())
                    .find(|&at| !matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
                    .unwrap_or(bytes.len());
                if !is_exact(&json[start..at]) {
                    found.push(Inexact { path: path_of(&frames), token: start..at });
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The text with every inexact number written as a string.
pub fn quoted_where_inexact(json: &str) -> String {
    let mut quoted = String::with_capacity(json.len());
    let mut from = 0;
    for number in inexact_numbers(json, usize::MAX) {
        quoted.push_str(&json[from..number.token.start]);
        quoted.push('"');
        quoted.push_str(&json[number.token.clone()]);
        quoted.push('"');
        from = number.token.end;
    }
    quoted.push_str(&json[from..]);
    quoted
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn path_of(frames: &[Frame]) -> String {
    let mut path = String::new();
    for frame in frames {
        match frame {
            Frame::List(index) => {
                let _ = write!(path, "[{index}]");
            }
            Frame::Object(key) if path.is_empty() => path.push_str(key),
            Frame::Object(key) => {
                path.push('.');
                path.push_str(key);
            }
        }
    }
    path
}

/// Whether a JSON number stays the same decimal number.
fn is_exact(token: &str) -> bool {
    if !token.contains(['.', 'e', 'E']) {
        return token.parse::<i64>().is_ok_and(|integer| integer.unsigned_abs() <= MAX_INTEGER);
    }
    let Ok(double) = token.parse::<f64>() else { return false };
    // Two texts can read as the same double. serde_json writes one of them, and only that one is exact.
    Number::from_f64(double).is_some_and(|written| decimal(token) == decimal(&written.to_string()))
}

/// Whether two texts are the same decimal number in JSON notation. Other notations that a database would read do not
/// count.
pub fn same_number(one: &str, other: &str) -> bool {
    match (signed(one), signed(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// Sign, significant digits and exponent of a number in JSON notation. Zero has no sign.
fn signed(text: &str) -> Option<(bool, String, i64)> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.parse::<f64>().is_ok();
    let (significant, exponent) = decimal(text).filter(|_| is_number)?;
    Some((digits.len() < text.len() && !significant.is_empty(), significant, exponent))
}

/// Significant digits, and the power of ten of the last digit.
fn decimal(token: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some((String::new(), 0));
    }
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let fraction = i64::try_from(fraction.len()).ok()?;
    Some((significant.to_owned(), exponent.parse::<i64>().ok()?.checked_sub(fraction)?.checked_add(dropped)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_exact_if_a_double_holds_it() {
        for exact in [
            "0",
            "-0",
            "0.0",
            "0.1",
            "-2.50",
            "1e3",
            "1E+3",
            "9007199254740992",
            "-9007199254740992",
            "1e22",
            "1.5e-7",
            // serde_json writes this one. The same with .3 reads as the same double.
            "2227425645976151.2",
        ] {
            assert!(is_exact(exact), "{exact}");
        }
        for inexact in [
            "12345678901234567890123",
            "0.12345678901234567890",
            "1e400",
            "-1e400",
            "1e-400",
            "9007199254740993",
            "-9007199254740993",
            "9007199254740994",
            "9223372036854775807",
            "18446744073709551615",
            "9007199254740993.5",
            "2227425645976151.3",
            "1e99999999999999999999",
        ] {
            assert!(!is_exact(inexact), "{inexact}");
        }
    }

    #[test]
    fn an_inexact_number_is_reported_with_its_path_and_strings_are_ignored() {
        let json = r#"{"a": [1, {"b \"1e999\": ,": 1e400}], "c": "1e400", "1e400": 12345678901234567890123}"#;
        let found = inexact_numbers(json, 9);
        let reported: Vec<_> = found.iter().map(|number| (number.path.as_str(), &json[number.token.clone()])).collect();
        assert_eq!(reported, [("a[1].b \"1e999\": ,", "1e400"), ("1e400", "12345678901234567890123")]);
        let quoted = quoted_where_inexact(json);
        assert!(quoted.ends_with(r#""1e400": "12345678901234567890123"}"#), "{quoted}");
    }
}
