//! Checks that a column stores a value exactly: the same decimal number, the whole text.

use serde_json::Value;
use shared::domain::number::same_number;

use crate::error::WriteError;

/// Whether the stored value equals the given one. A text may be stored in another notation of the same value, for example
/// a timestamp. But no number may change, and no text may be truncated.
pub(crate) fn is_exact(given: &Value, stored: &Value) -> bool {
    match (given, stored) {
        (Value::Array(given), Value::Array(stored)) => {
            given.len() == stored.len() && given.iter().zip(stored).all(|(given, stored)| is_exact(given, stored))
        }
        (Value::Object(given), Value::Object(stored)) => {
            given.iter().all(|(key, given)| is_exact(given, stored.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Number(given), Value::Number(stored)) => same_number(&given.to_string(), &stored.to_string()),
        // The column is a text, or the number does not fit into a double.
        (Value::Number(given), Value::String(stored)) => same_number(&given.to_string(), stored),
        // The text must be the same number.
        (Value::String(given), Value::Number(stored)) => same_number(given, &stored.to_string()),
        (Value::String(given), Value::String(stored)) => {
            // Postgres pads `character(n)` with spaces.
            let stored = stored.trim_end_matches(' ');
            let given = given.trim_end_matches(' ');
            let is_truncated = given.strip_prefix(stored).is_some_and(|rest| !is_midnight(stored, rest));
            given == stored || !is_truncated && (!is_number(given) || same_number(given, stored))
        }
        _ => true,
    }
}

/// Whether a key is in the database's notation. Another notation could match another row.
pub(crate) fn is_exact_key(given: &Value, stored: &Value) -> bool {
    match (given, stored) {
        (Value::String(given), Value::String(stored)) => {
            given.eq_ignore_ascii_case(stored) || same_number(given, stored)
        }
        (Value::Null, _) | (Value::Bool(_), Value::Bool(_)) => true,
        _ => is_exact(given, stored),
    }
}

pub(crate) fn inexact(table: &str, column: &str, is_key: bool) -> WriteError {
    if is_key {
        let message = format!("the key column \"{column}\" of {table} must be in the notation of the database");
        return WriteError::denied("inexact_key", message);
    }
    let message = format!("column \"{column}\" of {table} cannot store the value exactly as given");
    WriteError::denied("inexact_value", message)
}

/// Whether the missing part of a stored date or time is zero: `2026-01-01` for `2026-01-01T00:00:00Z`.
fn is_midnight(stored: &str, rest: &str) -> bool {
    let is_digit = |at: usize| stored.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let is_date = (0..4).all(is_digit) && stored.as_bytes().get(4) == Some(&b'-');
    let is_time = (0..2).all(is_digit) && stored.as_bytes().get(2) == Some(&b':');
    (is_date || is_time) && rest.bytes().all(|byte| b"T 0:.Z+-".contains(&byte))
}

fn is_number(text: &str) -> bool {
    same_number(text, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_exact_at_any_depth() {
        for (given, stored) in [
            (json!(10.5), json!(10.50)),
            (json!("10.00"), json!(10)),
            (json!("12345678901234567890.5"), json!("12345678901234567890.5")),
            (json!([1.5, [2]]), json!([1.5, [2]])),
            (json!({"p": 1}), json!({"p": 1, "q": null})),
            (json!(5), json!("5")),
            (json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:00:00+00:00")),
            (json!("2026-01-01T08:30:00.000Z"), json!("2026-01-01T08:30:00")),
            (json!("2026-01-01T00:00:00Z"), json!("2026-01-01")),
            (json!("12:00:00.000"), json!("12:00:00")),
            (json!("x"), json!("x    ")),
            (json!("5"), json!("5    ")),
            (json!(null), json!(null)),
        ] {
            assert!(is_exact(&given, &stored), "{given} {stored}");
        }
        for (given, stored) in [
            (json!(10.005), json!(10.01)),
            (json!("10.00_5"), json!(10.01)),
            (json!("0x10"), json!(16)),
            (json!([10.005]), json!([10.01])),
            (json!({"p": 10.005}), json!({"p": 10.01, "q": null})),
            (json!(10.005), json!("$10.01")),
            (json!("10.005"), json!("$10.01")),
            (json!(-1), json!(1)),
            (json!("xxxx"), json!("xxx")),
            (json!("apple"), json!("a")),
            (json!("2026-01-01T23:59:59"), json!("2026-01-01")),
            (json!("x000"), json!("x")),
        ] {
            assert!(!is_exact(&given, &stored), "{given} {stored}");
        }
    }

    #[test]
    fn a_key_in_another_notation_is_rejected() {
        assert!(is_exact_key(&json!("A0EE"), &json!("a0ee")));
        assert!(is_exact_key(&json!(null), &json!(null)));
        assert!(is_exact_key(&json!("7"), &json!(7)));
        assert!(!is_exact_key(&json!("2026-01-01T23:59:59-11:00"), &json!("2026-01-01")));
        assert!(!is_exact_key(&json!("xxxx"), &json!("xxx")));
    }
}
