//! sha256 digests of bytes and of canonical JSON.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// sha256 of the bytes, in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// sha256 of the value's canonical JSON (RFC 8785), in lower-case hex.
pub fn canonical_sha256(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(sha256_hex(&serde_json_canonicalizer::to_vec(value)?))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_order_and_number_spelling_do_not_change_the_digest() {
        let one: serde_json::Value = serde_json::from_str(r#"{"b":1.0,"a":[1e2]}"#).unwrap();
        assert_eq!(canonical_sha256(&one).unwrap(), canonical_sha256(&json!({"a": [100], "b": 1})).unwrap());
        assert_ne!(canonical_sha256(&one).unwrap(), canonical_sha256(&json!({"a": [100], "b": 2})).unwrap());
    }

    #[test]
    fn digest_of_an_empty_text_is_the_published_one() {
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
