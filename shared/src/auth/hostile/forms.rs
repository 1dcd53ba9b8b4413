//! Other numbers of parts, and other texts of the same bytes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::super::forge::{ALGS, FORGE, b64, with};
use super::{Hostile, good, parts};

/// Other numbers of parts, and characters that do not belong there.
/// Other numbers of parts, and characters that do not belong there.
pub fn forms() -> Vec<Hostile> {
    let mut found = Vec::new();
    for alg in ALGS {
        let token = good(alg);
        let [header, payload, signature] = parts(&token);
        let jwe = b64(json!({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "rsa-1"}).to_string());
        let json = json!({"payload": payload, "protected": header, "signature": signature}).to_string();
        let forms = [
            header.to_owned(),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!("{header}..{signature}"),
            format!(".{payload}.{signature}"),
            "..".into(),
            ".".into(),
            "....".into(),
            format!("{token}."),
            format!(".{token}"),
            format!("{token}.{signature}"),
            format!("{token}.{payload}.{signature}"),
            format!("{jwe}.{}.{}.{}.{}", b64([1; 256]), b64([2; 12]), b64(payload), b64([3; 16])),
            format!("{jwe}.{payload}.{signature}"),
            format!("{header}.{payload}.{signature}.{}.{}", b64([2; 12]), b64([3; 16])),
            format!("{payload}.{header}.{signature}"),
            json,
            format!("\"{token}\""),
            format!("{token}/"),
            format!("{token}#"),
            format!("{token}?"),
            format!("{token}%00"),
            format!("{token};"),
            token.replacen('.', "%2E", 2),
            token.replace('.', ":"),
            token.replacen('.', "..", 1),
            format!("{header}.{payload}.{}", b64(signature)),
            format!("{}.{payload}.{signature}", b64(header)),
            format!("{header}{payload}{signature}"),
            token.to_lowercase(),
            token.to_uppercase(),
            token.chars().rev().collect(),
            format!("{token}{}", "A".repeat(8_192)),
            format!("{header}.{}.{signature}", "A".repeat(1_000_000)),
            format!("{}.{payload}.{signature}", "A".repeat(10_000)),
            ".".repeat(100_000),
            FORGE.raw(alg, alg.header().to_string(), with("padding", "x".repeat(8_192)).to_string()),
        ];
        found.extend(forms.into_iter().enumerate().map(|(at, text)| (format!("form {at} of {alg:?}"), text)));
    }
    found
}

/// Other texts of base64 for the same bytes.
/// Other texts of base64 for the same bytes.
pub fn encodings() -> Vec<Hostile> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut found = Vec::new();
    for alg in ALGS {
        let token = good(alg);
        for part in 0..3 {
            let of = |text: &str| {
                let mut changed = parts(&token).map(str::to_owned);
                changed[part] = text.to_owned();
                changed.join(".")
            };
            let text = parts(&token)[part];
            let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            let mut add = |name: &str, text: &str| found.push((format!("part {part} of {alg:?} {name}"), of(text)));
            add("with padding", &format!("{text}="));
            add("with more padding", &format!("{text}=="));
            add("with a dash too many", &format!("{text}-"));
            add("with one character too many", &format!("{text}A"));
            add("with a plus", &format!("+{}", &text[1..]));
            add("with a slash", &format!("/{}", &text[1..]));
            add("without its last character", &text[..text.len() - 1]);
            let standard = STANDARD.encode(&bytes);
            if standard != text {
                add("in the other alphabet", &standard);
            }
            // The last character may hold bits that belong to no byte. Decoders that ignore them accept other texts.
            let last = ALPHABET.iter().position(|one| *one == text.as_bytes()[text.len() - 1]).unwrap();
            let spare = match text.len() % 4 {
                2 => 4,
                3 => 2,
                _ => 0,
            };
            for bits in 1..1_usize << spare {
                let other = char::from(ALPHABET[last | bits]);
                add(&format!("with the spare bits {bits}"), &format!("{}{other}", &text[..text.len() - 1]));
            }
        }
    }
    found
}
