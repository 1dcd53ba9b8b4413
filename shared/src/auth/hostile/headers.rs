//! Headers with other parameters, and texts that are no header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::forge::{ALGS, FORGE, SECRET, b64, claims, ec_jwk, ec_sign, sealed};
use super::Hostile;

/// Parameters of the header that are not there in a good token, or other ones.
/// Parameters that are not there in a good token, or other ones.
#[rustfmt::skip]
pub fn parameters() -> Vec<Hostile> {
    let own = FORGE.ec_jwk();
    let attacker = ec_jwk(&FORGE.other_ec, "ec-1");
    let changes = [
        ("crit", json!(["exp"])), ("crit", json!(["b64"])), ("crit", json!(["http://example.com/unknown"])),
        ("crit", json!([])), ("crit", json!(["alg"])), ("crit", json!("exp")), ("crit", json!(null)),
        ("crit", json!(["kid", "kid"])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("b64", json!("false")),
        ("b64", json!(null)),
        ("zip", json!("DEF")), ("zip", json!(null)), ("enc", json!("A256GCM")), ("cty", json!("JWT")),
        ("cty", json!("jwt")), ("cty", json!("application/json")), ("cty", json!(null)), ("typ", json!("JWE")),
        ("typ", json!("JOSE")), ("typ", json!("at+jwt")), ("typ", json!("dpop+jwt")), ("typ", json!("logout+jwt")),
        ("typ", json!("jwt ")), ("typ", json!("")), ("typ", json!(null)), ("typ", json!(1)), ("typ", json!(["JWT"])),
        ("jwk", own.clone()),
        ("jwk", attacker.clone()),
        ("jwk", json!({"kty": "oct", "k": b64(SECRET)})), ("jwk", json!(null)),
        ("jku", json!("https://evil.test/jwks.json")), ("jku", json!("http://127.0.0.1/jwks.json")), ("jku", json!("")),
        ("x5u", json!("https://evil.test/chain.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5c", json!([])),
    ];
    let mut found = Vec::new();
    for (name, value) in changes {
        for alg in ALGS {
            let mut header = alg.header();
            header[name] = value.clone();
            found.push((format!("{name} {value} in {alg:?}"), FORGE.with_header(alg, &header)));
        }
    }
    // Signed with the key that they bring.
    for (name, value) in [
        ("jwk", attacker.clone()),
        ("jku", json!("https://evil.test/jwks.json")),
        ("x5u", json!("https://evil.test/chain.pem")),
        ("x5c", json!([STANDARD.encode([0x30; 300])])),
    ] {
        for kid in [json!("ec-1"), json!("attacker")] {
            let header = json!({"alg": "ES256", "typ": "JWT", "kid": kid, name: value});
            let token = sealed(header.to_string(), claims().to_string(), |signed| ec_sign(&FORGE.other_ec, signed));
            found.push((format!("own key in {name}, kid {kid}"), token));
        }
    }
    found
}

/// Headers that two readers read in two ways.
#[rustfmt::skip]
pub fn texts() -> Vec<Hostile> {
    let mut found = Vec::new();
    for alg in ALGS {
        let object = alg.header().to_string();
        for (name, text) in bad_texts(&object) {
            found.push((format!("header of {alg:?} {name}"), FORGE.raw(alg, text, claims().to_string())));
        }
        let inner = &object[1..object.len() - 1];
        for extra in [
            "\"alg\":\"none\"", "\"alg\":\"HS256\"", "\"alg\":\"ES256\"", "\"alg\":\"RS256\"", "\"\\u0061lg\":\"none\"",
            "\"kid\":\"ec-1\",\"kid\":\"x\"", "\"typ\":\"JWT\",\"typ\":\"JWT\"", "\"\\u0063rit\":[\"x\"]",
            "\"\\u006awk\":{}", "\"typ\":\"JWT\",\"t\\u0079p\":\"JWE\"",
        ] {
            for text in [format!("{{{inner},{extra}}}"), format!("{{{extra},{inner}}}")] {
                found.push((format!("header {text}"), FORGE.raw(alg, text, claims().to_string())));
            }
        }
    }
    found
}

/// Texts that are no JSON object, or that two readers read in two ways.
/// Texts that are no JSON object, or that two readers read in two ways.
pub fn bad_texts(object: &str) -> Vec<(String, Vec<u8>)> {
    let inner = &object[1..object.len() - 1];
    let texts = [
        "",
        " ",
        "null",
        "true",
        "1",
        "\"text\"",
        "[]",
        "{}",
        "{",
        "}",
        "{]",
        "\0",
        "{\"a\":",
        "undefined",
        "---\na: 1",
    ];
    let mut found: Vec<(String, Vec<u8>)> = texts.map(|text| (format!("{text:?}"), text.as_bytes().to_vec())).to_vec();
    for (name, text) in [
        ("in a list", format!("[{object}]")),
        ("as a text", Value::from(object).to_string()),
        ("with a comma at the end", format!("{{{inner},}}")),
        ("with text after it", format!("{object}x")),
        ("twice", format!("{object}{object}")),
        ("twice in lines", format!("{object}\n{object}")),
        ("with NUL after it", format!("{object}\0")),
        ("with NUL before it", format!("\0{object}")),
        ("with a byte order mark", format!("\u{feff}{object}")),
        ("with a space of Unicode", format!("\u{a0}{object}")),
        ("with a comment", format!("/**/{object}")),
        ("with a comment after it", format!("{object}//")),
        ("with single quotes", object.replace('"', "'")),
        ("without quotes", object.replace('"', "")),
        ("without its end", object[..object.len() - 1].to_owned()),
        ("with a control character", format!("{{{inner},\"a\":\"\u{1}\"}}")),
        ("with a line break in a text", format!("{{{inner},\"a\":\"\n\"}}")),
        ("with half a character", format!("{{{inner},\"a\":\"\\ud800\"}}")),
        ("with half a character as a key", format!("{{{inner},\"\\udc00\":1}}")),
        ("with an unknown escape", format!("{{{inner},\"a\":\"\\x41\"}}")),
        ("with NaN", format!("{{{inner},\"a\":NaN}}")),
        ("with Infinity", format!("{{{inner},\"a\":-Infinity}}")),
        ("with 1e999", format!("{{{inner},\"a\":1e999}}")),
        ("with 2^53 + 1", format!("{{{inner},\"a\":9007199254740993}}")),
        ("with a huge number", format!("{{{inner},\"a\":{}}}", "9".repeat(400))),
        ("with a leading zero", format!("{{{inner},\"a\":01}}")),
        ("with a plus", format!("{{{inner},\"a\":+1}}")),
        ("with hex", format!("{{{inner},\"a\":0x1}}")),
        ("with a deep list", format!("{{{inner},\"a\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000))),
        ("with nine levels", format!("{{{inner},\"a\":{}1{}}}", "[".repeat(9), "]".repeat(9))),
        ("with a deep object", format!("{{{inner},\"a\":{}1{}}}", "{\"a\":".repeat(500), "}".repeat(500))),
        ("with deep lists without an end", format!("{{{inner},\"a\":{}", "[".repeat(4_000))),
        ("with a key twice", format!("{{{inner},\"a\":1,\"a\":1}}")),
        ("with a key twice inside", format!("{{{inner},\"a\":{{\"b\":1,\"b\":1}}}}")),
        ("with an escaped key twice", format!("{{{inner},\"a\":1,\"\\u0061\":1}}")),
    ] {
        found.push((name.into(), text.into_bytes()));
    }
    found.push(("with invalid UTF-8".into(), [b"{\"a\":\"\xff\",".as_slice(), &object.as_bytes()[1..]].concat()));
    found.push((
        "with an overlong character".into(),
        [b"{\"a\":\"\xc0\x80\",".as_slice(), &object.as_bytes()[1..]].concat(),
    ));
    found.push((
        "with a surrogate in UTF-8".into(),
        [b"{\"a\":\"\xed\xa0\x80\",".as_slice(), &object.as_bytes()[1..]].concat(),
    ));
    found.push(("in UTF-16".into(), object.encode_utf16().flat_map(u16::to_le_bytes).collect()));
    found.push(("compressed".into(), vec![0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]));
    found
}
