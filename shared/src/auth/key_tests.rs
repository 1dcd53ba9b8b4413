//! Which public keys count, and which documents of keys.

use serde_json::{Value, json};

use super::super::forge::{FORGE, b64, ec_jwk, ec_sign, rsa_jwk};
use super::*;

/// The refusal of the key with these changes. Null removes a member.
fn refused(mut jwk: Value, changes: &Value) -> Option<&'static str> {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    Key::from_jwk(jwk.as_object().unwrap()).err()
}

/// The prime of P-256.
const P: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff,
];

#[test]
fn a_key_of_the_issuer_counts_with_and_without_its_optional_members() {
    for jwk in [FORGE.ec_jwk(), FORGE.rsa_jwk()] {
        for changes in [
            json!({}),
            json!({"alg": null}),
            json!({"use": null}),
            json!({"key_ops": null}),
            json!({"key_ops": ["sign", "verify"]}),
            json!({"kid": null}),
            json!({"ext": true, "x5t": "abc"}),
        ] {
            assert_eq!(refused(jwk.clone(), &changes), None, "{changes}");
        }
    }
}

#[test]
fn a_key_for_another_purpose_or_with_a_secret_is_refused() {
    for jwk in [FORGE.ec_jwk(), FORGE.rsa_jwk()] {
        for changes in [
            json!({"use": "enc"}),
            json!({"use": "Sig"}),
            json!({"use": ["sig"]}),
            json!({"key_ops": []}),
            json!({"key_ops": ["sign"]}),
            json!({"key_ops": ["encrypt", "Verify"]}),
            json!({"key_ops": "verify"}),
            json!({"alg": "HS256"}),
            json!({"alg": "none"}),
            json!({"alg": "PS256"}),
            json!({"alg": "ES384"}),
            json!({"alg": ["ES256", "RS256"]}),
            json!({"alg": ""}),
            json!({"kid": ""}),
            json!({"kid": 1}),
            json!({"kid": ["ec-1"]}),
            json!({"kid": "k".repeat(256)}),
            json!({"d": "AQ"}),
            json!({"k": b64([0; 32])}),
            json!({"p": "AQ"}),
            json!({"oth": []}),
            json!({"kty": "oct"}),
            json!({"kty": "OKP"}),
            json!({"kty": "ec"}),
            json!({"kty": "rsa"}),
            json!({"kty": null}),
            json!({"kty": 1}),
        ] {
            assert!(refused(jwk.clone(), &changes).is_some(), "{changes}");
        }
    }
    let shared = json!({"kty": "oct", "alg": "HS256", "kid": "x", "k": b64([7; 32])});
    assert_eq!(Key::from_jwk(shared.as_object().unwrap()).err(), Some("the key is secret"));
}

#[test]
fn a_point_that_is_not_on_the_curve_is_refused() {
    let point = FORGE.ec_jwk();
    let x = URL_SAFE_NO_PAD.decode(point["x"].as_str().unwrap()).unwrap();
    let mut next = x.clone();
    next[31] ^= 1;
    // A point of secp256k1: its generator.
    let koblitz_x = "eb5mfvncu6xVoGKVzocLBwKb_NstzijZWfKBWxb4F5g";
    let koblitz_y = "SDradyajxGVdpPv8DhEIqP0XtEimhVQZnEfQj_sQ1Lg";
    for changes in [
        json!({"x": b64([0; 32]), "y": b64([0; 32])}),
        json!({"x": b64([0; 32])}),
        json!({"y": b64([0; 32])}),
        json!({"x": b64(&next)}),
        json!({"x": point["y"], "y": point["x"]}),
        json!({"x": b64(P), "y": b64([0; 32])}),
        json!({"x": b64([0xff; 32]), "y": b64([0xff; 32])}),
        json!({"x": koblitz_x, "y": koblitz_y}),
        json!({"x": b64(&x[1..])}),
        json!({"x": b64([&[0], x.as_slice()].concat())}),
        json!({"x": format!("{}=", point["x"].as_str().unwrap())}),
        json!({"x": ""}),
        json!({"x": null}),
        json!({"y": null}),
        json!({"y": 7}),
        json!({"x": "*".repeat(43)}),
        json!({"crv": "P-384"}),
        json!({"crv": "P-521"}),
        json!({"crv": "secp256k1"}),
        json!({"crv": "p-256"}),
        json!({"crv": null}),
    ] {
        assert!(refused(point.clone(), &changes).is_some(), "{changes}");
    }
}

#[test]
fn a_modulus_or_an_exponent_of_another_size_is_refused() {
    let key = FORGE.rsa_jwk();
    let n = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
    let of_bytes = |bytes: usize| b64([&[0x80], vec![1; bytes - 1].as_slice()].concat());
    for changes in [
        json!({"e": "AQ"}),
        json!({"e": "Aw"}),
        json!({"e": ""}),
        json!({"e": "AA"}),
        json!({"e": "AAEAAQ"}),
        json!({"e": "AQAB", "n": ""}),
        json!({"e": "AQAC"}),
        json!({"e": b64([0xff; 8])}),
        json!({"e": null}),
        json!({"n": null}),
        json!({"n": of_bytes(64)}),
        json!({"n": of_bytes(128)}),
        json!({"n": of_bytes(255)}),
        json!({"n": of_bytes(513)}),
        json!({"n": of_bytes(1_024)}),
        json!({"n": b64([&[0], n.as_slice()].concat())}),
        json!({"n": b64([&[0x7f], vec![1; 255].as_slice()].concat())}),
        json!({"n": b64([0; 256])}),
        json!({"n": format!("{}==", key["n"].as_str().unwrap())}),
    ] {
        assert!(refused(key.clone(), &changes).is_some(), "{changes}");
    }
}

#[test]
fn a_short_secret_is_refused() {
    assert!(Key::hs256(&[7; 31]).is_err());
    assert!(Key::hs256(b"").is_err());
    assert!(Key::hs256(&[7; 32]).is_ok());
}

#[test]
fn a_document_is_read_without_the_keys_that_do_not_count() {
    let document = json!({"keys": [
        {"kty": "oct", "kid": "oct", "k": b64([7; 32])},
        ec_jwk(&FORGE.ec, "a"),
        {"kty": "EC", "crv": "P-384", "kid": "p-384", "x": "AA", "y": "AA"},
        "text",
        null,
        rsa_jwk(&FORGE.rsa, "b"),
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
    ], "issuer": "x"});
    let keys = KeySet::parse(&document.to_string()).unwrap();
    assert_eq!(keys.0.len(), 2);
    assert!(keys.get("a").unwrap().verifies(b"m", &ec_sign(&FORGE.ec, b"m")));
    assert!(!keys.get("b").unwrap().verifies(b"m", &ec_sign(&FORGE.ec, b"m")));
    assert!(keys.get("oct").is_none() && keys.get("").is_none() && keys.get("A").is_none());
}

#[test]
fn a_document_that_is_not_what_it_should_be_has_no_keys() {
    let (one, two) = (ec_jwk(&FORGE.ec, "a"), ec_jwk(&FORGE.other_ec, "a"));
    let mut nameless = one.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    let many: Vec<Value> = (0..17).map(|at| ec_jwk(&FORGE.ec, &at.to_string())).collect();
    let secret = json!({"keys": [{"kty": "oct", "kid": "a", "k": b64([7; 32])}]});
    for text in [
        String::new(),
        "<html>502</html>".into(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        json!({"keys": []}).to_string(),
        json!({"keys": {}}).to_string(),
        json!({"keys": null}).to_string(),
        json!({"Keys": [one]}).to_string(),
        json!([one]).to_string(),
        json!({"keys": [[one]]}).to_string(),
        json!({"keys": [nameless]}).to_string(),
        json!({"keys": [one, two]}).to_string(),
        json!({"keys": [one, one]}).to_string(),
        json!({"keys": many}).to_string(),
        secret.to_string(),
        format!("{{\"keys\":[{one}],\"keys\":[{two}]}}"),
        format!("{{\"keys\":[{one}]}} x"),
        format!("{{\"keys\":[{one}]"),
        json!({"keys": [one], "padding": " ".repeat(MAX_DOCUMENT_BYTES)}).to_string(),
        format!("{{\"keys\":{}", "[".repeat(60_000)),
    ] {
        assert!(KeySet::parse(&text).is_err(), "{}", &text[..text.len().min(300)]);
    }
}
