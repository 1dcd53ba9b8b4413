//! Rows as structs. A statement selects plain columns, Postgres writes each row as JSON, and serde reads it by column
//! name. So each resource has one list of fields.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::session::{Arg, Session};
use crate::error::Error;

/// The only row of `sql`, if there is one.
pub(super) async fn fetch<T: DeserializeOwned>(
    session: &Session,
    sql: &str,
    args: &[Arg<'_>],
) -> Result<Option<T>, Error> {
    let as_json = format!("select to_json(found)::text as item, null::bigint as n from ({sql}) found");
    session.read(&as_json, args).await?.first().map(|row| read(&row.json)).transpose()
}

/// Whether `sql` selects a row.
pub(super) async fn exists(session: &Session, sql: &str, args: &[Arg<'_>]) -> Result<bool, Error> {
    let exists = format!("select null::text as item, 1::bigint as n where exists ({sql})");
    Ok(!session.read(&exists, args).await?.is_empty())
}

/// A row from its JSON.
pub(super) fn read<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    let unreadable = |error| Error::internal("read a row", error);
    serde_json::from_str(&with_short_numbers(json).map_err(unreadable)?).map_err(unreadable)
}

/// Numbers with more digits than this are written again. Clients do not write such long ones.
const MAX_DIGITS: usize = 32;

/// Postgres writes the number 1e300 with 301 digits. A row with such numbers would be many times as large as the stored
/// value, so they are written in short form again.
fn with_short_numbers(json: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    // Long digits inside a string also match. Strings stay unchanged.
    let has_long_numbers = json.as_bytes().split(|byte| !is_digit(byte)).any(|digits| digits.len() > MAX_DIGITS);
    if !has_long_numbers {
        return Ok(Cow::Borrowed(json));
    }
    let value: Value = serde_json::from_str(json)?;
    serde_json::to_string(&value).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_number_is_written_short_and_everything_else_stays_as_it_is() {
        let long = format!("{{\"b\": 1{}, \"a\": 1.50, \"c\": \"{}\"}}", "0".repeat(300), "7".repeat(40));
        let short = with_short_numbers(&long).unwrap();
        assert_eq!(short, format!("{{\"a\":1.5,\"b\":1e+300,\"c\":\"{}\"}}", "7".repeat(40)));
        let plain = r#"{"b": 12345678901234567890, "a": 1.50}"#;
        assert!(matches!(with_short_numbers(plain).unwrap(), Cow::Borrowed(text) if text == plain));
    }
}
