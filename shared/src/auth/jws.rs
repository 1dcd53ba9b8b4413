//! Signed texts in compact form (JWS, RFC 7515): `header.payload.signature`. Verifies the signature and the rules of the
//! header. It does not read the payload.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Refused;
use super::key::{Algorithm, Key};
use crate::domain::json::strict_object;

/// A longer text is refused before it is read.
pub const MAX_BYTES: usize = 8 * 1024;
/// Levels of nesting of a header and of claims.
pub const MAX_DEPTH: usize = 8;
/// Header parameters that change what the signature means or which key counts. None is needed, so each is refused:
/// extensions (`crit`, `b64`), encryption and compression (`enc`, `zip`), and keys that the sender chooses.
const REFUSED_PARAMETERS: [&str; 8] = ["crit", "b64", "enc", "zip", "jwk", "jku", "x5u", "x5c"];

/// A text whose form is right. Nothing in it is proved yet.
pub struct Compact<'a> {
    algorithm: Algorithm,
    header: Map<String, Value>,
    /// What the signature covers.
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    pub fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > MAX_BYTES {
            return Err(Refused("too_long"));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused("not_three_parts"));
        };
        let signed = &text[..header.len() + 1 + payload.len()];
        let header = strict_object(&decoded(header)?, MAX_DEPTH).map_err(|_| Refused("header"))?;
        if REFUSED_PARAMETERS.iter().any(|name| header.contains_key(*name)) {
            return Err(Refused("header_parameter"));
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(Refused("algorithm"))?;
        if header.get("kid").is_some_and(|kid| !kid.is_string()) {
            return Err(Refused("kid"));
        }
        Ok(Self { algorithm, header, signed, payload: decoded(payload)?, signature: decoded(signature)? })
    }

    /// The algorithm that the header names.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The id of the key, as the header names it.
    pub fn kid(&self) -> Option<&str> {
        self.parameter("kid").and_then(Value::as_str)
    }

    /// A parameter of the header.
    pub fn parameter(&self, name: &str) -> Option<&Value> {
        self.header.get(name)
    }

    /// The payload, if the key made the signature with its own algorithm. The header may not name another key.
    pub fn verify(self, key: &Key) -> Result<Vec<u8>, Refused> {
        if self.algorithm != key.algorithm() {
            return Err(Refused("algorithm"));
        }
        if let (Some(named), Some(own)) = (self.kid(), key.kid())
            && named != own
        {
            return Err(Refused("kid"));
        }
        if !key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err(Refused("signature"));
        }
        Ok(self.payload)
    }
}

/// The bytes of a part. Refuses padding, other characters, and all but one text for the same bytes.
fn decoded(part: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused("base64"))
}

#[cfg(test)]
mod tests {
    //! The examples of RFC 7515, RFC 7519 and RFC 7520, and what differs from them in one place.

    use serde_json::json;

    use super::super::forge::b64;
    use super::*;

    /// The claims of RFC 7515, appendix A, and of RFC 7519, section 3.1.
    const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const JOE_TEXT: &str = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
    /// RFC 7520, section 4.
    const ROAD: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";

    /// The modulus of RFC 7520, section 3.3.
    const BILBO: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";

    struct Example {
        name: &'static str,
        token: String,
        key: Key,
        payload: Vec<u8>,
    }

    fn jwk(value: &Value) -> Key {
        Key::from_jwk(value.as_object().unwrap()).unwrap()
    }

    fn secret(text: &str) -> Key {
        Key::hs256(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    fn examples() -> Vec<Example> {
        let example = |name, header: &str, payload: &str, signature: &str, key| Example {
            name,
            token: format!("{header}.{payload}.{signature}"),
            key,
            payload: URL_SAFE_NO_PAD.decode(payload).unwrap(),
        };
        vec![
            example(
                "RFC 7515 A.1",
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
                JOE,
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
                secret("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"),
            ),
            example(
                "RFC 7515 A.2",
                "eyJhbGciOiJSUzI1NiJ9",
                JOE,
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
                jwk(
                    &json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}),
                ),
            ),
            example(
                "RFC 7515 A.3",
                "eyJhbGciOiJFUzI1NiJ9",
                JOE,
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
                jwk(&json!({
                    "kty": "EC", "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                })),
            ),
            example(
                "RFC 7520 4.1",
                "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
                ROAD,
                "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
                jwk(
                    &json!({"kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "e": "AQAB", "n": BILBO}),
                ),
            ),
            example(
                "RFC 7520 4.4",
                "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
                ROAD,
                "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
                secret("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"),
            ),
        ]
    }

    fn verify(token: &str, key: &Key) -> Result<Vec<u8>, Refused> {
        Compact::parse(token)?.verify(key)
    }

    #[test]
    fn the_examples_of_the_standards_verify() {
        for Example { name, token, key, payload } in examples() {
            assert_eq!(verify(&token, &key).as_deref(), Ok(payload.as_slice()), "{name}");
        }
        assert_eq!(URL_SAFE_NO_PAD.decode(JOE).unwrap(), JOE_TEXT.as_bytes());
    }

    #[test]
    fn an_example_verifies_with_no_other_key() {
        let examples = examples();
        for (at, example) in examples.iter().enumerate() {
            for other in examples.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other) {
                assert!(verify(&example.token, &other.key).is_err(), "{} with the key of {}", example.name, other.name);
            }
        }
    }

    #[test]
    fn a_header_that_names_another_key_is_refused() {
        let examples = examples();
        let Example { token, key, .. } = &examples[3];
        assert_eq!(key.kid(), Some("bilbo.baggins@hobbiton.example"));
        let renamed = Key::from_jwk(&Map::from_iter([
            ("kty".into(), "RSA".into()),
            ("kid".into(), "frodo".into()),
            ("e".into(), "AQAB".into()),
            ("n".into(), BILBO.into()),
        ]));
        assert_eq!(verify(token, &renamed.unwrap()), Err(Refused("kid")));
    }

    #[test]
    fn an_example_with_any_other_character_does_not_verify() {
        for Example { name, token, key, .. } in examples() {
            for at in 0..token.len() {
                for to in ["A", "B", "-", "", ".", "=", "\0", "é"] {
                    let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
                    assert!(changed == token || verify(&changed, &key).is_err(), "{name}: {changed}");
                }
            }
        }
    }

    /// RFC 7515, appendix A.4 and A.5, RFC 7519, section 6.1 and appendix A.1, and RFC 7520, section 4.2 and 4.3.
    #[test]
    fn the_examples_with_algorithms_that_do_not_count_are_refused() {
        let unsecured = format!("eyJhbGciOiJub25lIn0.{JOE}.");
        let encrypted = "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8qDcjiHnSJflSdv1iNqhWXaKH4MqAkQtMoNfABIPJaZm0HaA415sv3aeuBWnD8J-Ui7Ah6cWafs3ZwwFKDFUUsWHSK-IPKxLGTkND09XyjORj_CHAgOPJ-Sd8ONQRnJvWn_hXV1BNMHzUjPyYwEsRhDhzjAD26imasOTsgruobpYGoQcXUwFDn7moXPRfDE8-NoQX7N7ZYMmpUDkR-Cx9obNGwJQ3nM52YCitxoQVPzjbl7WBuB7AohdBoZOdZ24WlN1lVIeh8v1K4krB8xgKvRU8kgFrEn_a1rZgN5TiysnmzTROF869lQ.AxY8DCtDaGlsbGljb3RoZQ.MKOle7UQrG6nSxTLX6Mqwt0orbHvAKeWnDYvpIAeZ72deHxz3roJDXQyhxx0wKaMHDjUEOKIwrtkHthpqEanSBNYHZgmNOV7sln1Eu9g3J8.fiK51VwhsxJ-siBMR-YFiA";
        let foreign = |alg: &str| format!("{}.{ROAD}.{}", b64(json!({"alg": alg}).to_string()), b64([7; 132]));
        for token in [unsecured, encrypted.to_owned(), foreign("ES512"), foreign("PS384"), foreign("EdDSA")] {
            assert!(examples().iter().all(|example| verify(&token, &example.key).is_err()), "{token}");
        }
    }
}
