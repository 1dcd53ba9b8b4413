//! Claims of other values and types, and texts that are no claims.

use serde_json::{Value, json};

use super::super::forge::{ALGS, Alg, FORGE, ISSUER, NOW, SUBJECT, claims, with, without};
use super::headers::bad_texts;
use super::{Hostile, good};

/// Claims that two readers read in two ways, tokens inside tokens, and numbers.
#[rustfmt::skip]
pub fn texts() -> Vec<Hostile> {
    let mut found = Vec::new();
    for alg in ALGS {
        let object = claims().to_string();
        let header = alg.header().to_string();
        for (name, text) in bad_texts(&object) {
            found.push((format!("claims of {alg:?} {name}"), FORGE.raw(alg, &header, text)));
        }
        let inner = &object[1..object.len() - 1];
        for extra in [
            format!("\"exp\":{}", NOW + 9_999),
            "\"sub\":\"admin\"".into(),
            "\"s\\u0075b\":\"admin\"".into(),
            "\"iss\":\"https://abc.supabase.co/auth/v1\"".into(),
            "\"aud\":\"authenticated\"".into(),
            "\"role\":\"authenticated\"".into(),
            "\"is_anonymous\":false".into(),
            "\"app_metadata\":{\"tenant_id\":\"other\"}".into(),
            "\"nbf\":0,\"nbf\":1".into(),
        ] {
            for text in [format!("{{{inner},{extra}}}"), format!("{{{extra},{inner}}}")] {
                found.push((format!("claims of {alg:?} with {extra} again"), FORGE.raw(alg, &header, text)));
            }
        }
        let nested = good(alg);
        found.push((format!("a token in {alg:?}"), FORGE.raw(alg, &header, &nested)));
        found.push((format!("a token as a text in {alg:?}"), FORGE.raw(alg, &header, Value::from(nested).to_string())));
        for exp in [
            "1e10", "1.8e9", "1800003600.0", "1800003600.5", "-1", "-0.0", "1e999", "18446744073709551616",
            "18446744073709551615", "9223372036854775807", "9007199254740992",
        ] {
            let text = object.replacen(&format!("\"exp\":{}", NOW + 3_600), &format!("\"exp\":{exp}"), 1);
            assert_ne!(text, object);
            found.push((format!("exp {exp} in {alg:?}"), FORGE.raw(alg, &header, text)));
        }
    }
    found
}

/// Claims of another type or value. None is like a text that counts.
/// Claims of another type or value. Null is not the same as absent.
#[rustfmt::skip]
pub fn changed() -> Vec<Hostile> {
    let text = |value: i64| Value::from(value.to_string());
    let mut changes: Vec<(&str, Value)> = vec![
        ("iss", json!("https://abc.supabase.co/auth/v1/")), ("iss", json!("https://abc.supabase.co/auth")),
        ("iss", json!("HTTPS://abc.supabase.co/auth/v1")), ("iss", json!("https://abc.supabase.co:443/auth/v1")),
        ("iss", json!("https://evil.test/auth/v1")), ("iss", json!("https://abc.supabase.co.evil.test/auth/v1")),
        ("iss", json!("https://abc.supabase.co/auth/v1\0")), ("iss", json!(" https://abc.supabase.co/auth/v1")),
        ("iss", json!("https://abc.supabase.co/auth/v1 ")), ("iss", json!("supabase")), ("iss", json!("")),
        ("iss", json!(["https://abc.supabase.co/auth/v1"])), ("iss", json!({})), ("iss", json!(1)),
        ("iss", json!(true)), ("aud", json!("")), ("aud", json!([])), ("aud", json!("anon")),
        ("aud", json!("Authenticated")), ("aud", json!("authenticated ")), ("aud", json!("authenticated,anon")),
        ("aud", json!(["anon"])), ("aud", json!([""])), ("aud", json!(["authenticated", 1])),
        ("aud", json!([["authenticated"]])), ("aud", json!({"0": "authenticated"})),
        ("aud", json!({"authenticated": true})), ("aud", json!(1)), ("aud", json!(true)),
        ("aud", json!([null, "authenticated"])), ("exp", text(NOW + 3_600)), ("exp", json!(0)), ("exp", json!(1)),
        ("exp", json!(-1)), ("exp", json!(NOW - 30)), ("exp", json!(NOW - 31)), ("exp", json!(NOW - 3_600)),
        ("exp", json!(true)), ("exp", json!([NOW + 3_600])), ("exp", json!({})), ("exp", json!("")),
        ("exp", json!("never")), ("exp", json!(i64::MAX)), ("exp", json!(i64::MIN)), ("exp", json!(u64::MAX)),
        ("exp", json!("2099-01-01T00:00:00Z")), ("exp", json!(1.8e9 + 0.5)), ("exp", json!(1e300)),
    ];
    for name in ["nbf", "iat"] {
        changes.extend([
            (name, json!(NOW + 31)), (name, json!(NOW + 3_600)), (name, json!(i64::MAX)), (name, json!(u64::MAX)),
            (name, text(NOW)), (name, json!("")), (name, json!("0")), (name, json!(-1)), (name, json!(i64::MIN)),
            (name, json!(0.5)), (name, json!(1e300)), (name, json!(true)), (name, json!([])), (name, json!({})),
            (name, json!([NOW])),
        ]);
    }
    changes.extend([
        ("sub", json!("")), ("sub", json!("s".repeat(256))), ("sub", json!("s".repeat(5_000))), ("sub", json!("ann\0")),
        ("sub", json!("\0")), ("sub", json!("ann\nadmin")), ("sub", json!("\u{1b}[2J")), ("sub", json!("a\u{7f}")),
        ("sub", json!("a\u{85}b")), ("sub", json!("\u{9b}1m")), ("sub", json!("\u{202e}nna")), ("sub", json!("an\u{200b}n")), ("sub", json!("ann\u{feff}")), ("sub", json!(1)), ("sub", json!(true)),
        ("sub", json!(["ann"])), ("sub", json!({"id": "ann"})), ("sub", json!(0)), ("role", json!("anon")),
        ("role", json!("service_role")), ("role", json!("postgres")), ("role", json!("supabase_admin")),
        ("role", json!("Authenticated")), ("role", json!("")), ("role", json!("authenticated ")),
        ("role", json!(["authenticated"])), ("role", json!(["authenticated", "service_role"])), ("role", json!({})),
        ("role", json!(1)), ("role", json!(true)), ("is_anonymous", json!(true)), ("is_anonymous", json!("true")),
        ("is_anonymous", json!("false")), ("is_anonymous", json!(0)), ("is_anonymous", json!(1)),
        ("is_anonymous", json!([])), ("app_metadata", json!("acme")), ("app_metadata", json!([])),
        ("app_metadata", json!(["acme"])), ("app_metadata", json!(1)), ("app_metadata", json!(true)),
        ("email", json!(1)), ("email", json!(["ann@acme.test"])), ("email", json!({})), ("aal", json!(2)),
        ("aal", json!(["aal2"])), ("aal", json!(true)),
    ]);
    for tenant in [
        json!(""), json!(" "), json!("."), json!(".."), json!(".acme"), json!("acme/../other"), json!("acme other"),
        json!("acme\0"), json!("acme\n"), json!("a".repeat(65)), json!("acm\u{e9}"), json!("*"), json!("%"),
        json!("acme' or '1'='1"), json!(1), json!(true), json!(null), json!(["acme"]), json!(["acme", "other"]),
        json!({"id": "acme"}),
    ] {
        changes.push(("app_metadata", json!({"tenant_id": tenant})));
    }
    // Null is not the same as absent.
    for name in ["iss", "aud", "exp", "nbf", "iat", "sub", "role", "is_anonymous", "app_metadata", "email", "aal"] {
        changes.push((name, Value::Null));
    }
    let mut found = Vec::new();
    for alg in ALGS {
        for (name, value) in &changes {
            let shown: String = value.to_string().chars().take(60).collect();
            found.push((format!("{name} {shown} in {alg:?}"), FORGE.token(alg, &with(name, value.clone()))));
        }
        for name in ["iss", "aud", "exp", "sub"] {
            found.push((format!("no {name} in {alg:?}"), FORGE.token(alg, &without(name))));
        }
    }
    found
}

/// The keys `anon` and `service_role` of Supabase's older projects: tokens with the secret of the users' tokens.
/// The keys `anon` and `service_role` of Supabase's older projects: tokens with the secret of the users' tokens.
pub fn supabase_keys() -> Vec<Hostile> {
    let mut found = Vec::new();
    for role in ["anon", "service_role"] {
        let plain = json!({"iss": "supabase", "ref": "abc", "role": role, "iat": NOW - 99, "exp": NOW + 315_360_000});
        let mut own_issuer = plain.clone();
        own_issuer["iss"] = json!(ISSUER);
        let mut with_audience = own_issuer.clone();
        with_audience["aud"] = json!("authenticated");
        let mut with_subject = with_audience.clone();
        with_subject["sub"] = json!(SUBJECT);
        for (at, claims) in [plain, own_issuer, with_audience, with_subject].iter().enumerate() {
            found.push((format!("Supabase's key {role}, {at}"), FORGE.token(Alg::Hs256, claims)));
        }
    }
    let demo = json!({"iss": "supabase-demo", "role": "service_role", "exp": 1_983_812_996});
    found.push(("the key of Supabase Local".into(), FORGE.token(Alg::Hs256, &demo)));
    found
}
