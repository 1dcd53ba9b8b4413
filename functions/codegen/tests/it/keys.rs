//! Keys that are rotated, corrected or invalid while steps run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use codegen::{Codegen, CodegenConfig, Provider, ProviderKeys};
use serde_json::json;
use shared::error::Error;

use crate::support::{
    FakeProvider, Lab, Reply, anthropic, config, failure, gemini, generate, openai, openai_error, topic,
};

/// A cached secret. It returns `cached` until a caller asks for keys read after an instant, then `now`.
fn secret(config: CodegenConfig, cached: &'static str, now: &'static str) -> (Lab, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let keys = move |read_after: Option<_>| {
        if read_after.is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        let json = if counted.load(Ordering::SeqCst) > 0 { now } else { cached };
        std::future::ready(if json.is_empty() {
            Err(Error::NotFound("the secret".into()))
        } else {
            ProviderKeys::from_secret(json)
        })
    };
    (Lab::new(Codegen::new(config, keys).unwrap()), reads)
}

#[tokio::test]
async fn a_rotated_key_is_read_again_within_the_step() {
    let invalid =
        json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "details": [{ "reason": "API_KEY_INVALID" }] } });
    for reply in [openai_error(401, "invalid_api_key"), openai_error(403, "forbidden"), Reply::json(400, &invalid)] {
        let fake = FakeProvider::start(vec![reply, Reply::ok(&openai("x"))]).await;
        let (old, new) = (r#"{"OPENAI_API_KEY":"old"}"#, r#"{"OPENAI_API_KEY":"new"}"#);
        let (codegen, reads) = secret(config(Some(&fake), None, None), old, new);
        assert_eq!(generate(&codegen, topic()).await.provider, "openai");
        let used: Vec<_> = fake.requests().iter().map(|seen| seen.headers["authorization"].clone()).collect();
        assert_eq!(used, ["Bearer old", "Bearer new"]);
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_key_that_is_still_rejected_fails_the_step_after_one_read_of_the_secret() {
    let fake = FakeProvider::start(vec![openai_error(401, "invalid_api_key")]).await;
    let old = r#"{"OPENAI_API_KEY":"old","ANTHROPIC_API_KEY":"old"}"#;
    let (codegen, reads) = secret(config(Some(&fake), Some(&fake), None), old, old);
    let (error, retryable, _) = failure(&codegen, topic()).await;
    assert_eq!(error.details["attempts"][0]["kind"], json!("auth"));
    assert_eq!((retryable, fake.calls(), reads.load(Ordering::SeqCst)), (false, 2, 1), "two providers, one read");
}

#[tokio::test]
async fn replacing_the_key_ends_the_cooldown() {
    let first = FakeProvider::start(vec![openai_error(401, "invalid_api_key"), Reply::ok(&openai("x"))]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let reads = Arc::new(AtomicUsize::new(0));
    let codegen = Codegen::new(config(Some(&first), Some(&second), None), move |read_after| {
        // The first step still gets the old key when it reads the secret again.
        let reads = if read_after.is_some() { reads.fetch_add(1, Ordering::SeqCst) } else { 0 };
        let key = if reads > 0 { "new" } else { "old" };
        std::future::ready(ProviderKeys::from_secret(&format!(
            r#"{{"OPENAI_API_KEY":"{key}","ANTHROPIC_API_KEY":"a"}}"#
        )))
    });
    let codegen = Lab::new(codegen.unwrap());
    assert_eq!(generate(&codegen, topic()).await.provider, "anthropic");
    assert_eq!(generate(&codegen, topic()).await.provider, "openai");
    assert_eq!(first.requests()[1].headers["authorization"], "Bearer new");
}

#[tokio::test]
async fn the_next_step_reads_an_empty_malformed_or_absent_secret_again() {
    for old in ["{}", "not json", "[]", r#"{"OPENAI_API_KEY":7}"#, r#"{"OPENAI_API_KEY":" "}"#, ""] {
        let fake = FakeProvider::start(vec![Reply::ok(&openai("x"))]).await;
        let allowed = CodegenConfig { allow_template: true, ..config(Some(&fake), None, None) };
        let (codegen, _) = secret(allowed, old, r#"{"OPENAI_API_KEY":"new"}"#);
        assert_eq!(generate(&codegen, topic()).await.provider, "openai", "{old}: no template, no failure");
    }
}

#[tokio::test]
async fn a_malformed_key_disables_only_its_provider_and_is_not_shown() {
    let fake = FakeProvider::start(vec![Reply::ok(&gemini("x"))]).await;
    let json = r#"{"OPENAI_API_KEY":["canary"],"ANTHROPIC_API_KEY":"canary key","GEMINI_API_KEY":"g"}"#;
    let (codegen, _) = secret(config(None, None, Some(&fake)), json, json);
    let made = generate(&codegen, topic()).await;
    assert_eq!(made.provider, Provider::Gemini.as_str());
    let shown = format!("{:?} {}", made.events, made.metadata);
    assert!(shown.contains("OPENAI_API_KEY is not a string") && !shown.contains("canary"), "{shown}");
    let (error, ..) = failure(&codegen, json!({ "prompt": "p", "provider": "openai" })).await;
    assert_eq!(error.code, "no_provider");
    assert!(error.message.contains("OPENAI_API_KEY is not a string") && !error.message.contains("canary"));
}

#[tokio::test]
async fn a_malformed_key_is_reported_even_if_the_template_is_allowed() {
    let allowed = CodegenConfig { allow_template: true, ..config(None, None, None) };
    let json = r#"{"OPENAI_API_KEY":7}"#;
    let (error, ..) = failure(&secret(allowed, json, json).0, topic()).await;
    assert_eq!(error.code, "no_provider");
}
