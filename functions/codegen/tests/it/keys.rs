//! Keys that are rotated, corrected or broken while steps run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use codegen::{Codegen, CodegenConfig, Provider, ProviderKeys};
use serde_json::json;
use shared::error::Error;

use crate::support::{Fake, Reply, anthropic, config, failure, gemini, generate, openai, openai_error, topic};

/// A secret behind a cache: `cached` until a caller asks for keys read after an instant, `now` from then on.
fn secret(config: CodegenConfig, cached: &'static str, now: &'static str) -> (Codegen, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let keys = move |moment: Option<_>| {
        if moment.is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        let json = if counted.load(Ordering::SeqCst) > 0 { now } else { cached };
        std::future::ready(if json.is_empty() {
            Err(Error::NotFound("the secret".into()))
        } else {
            ProviderKeys::from_secret(json)
        })
    };
    (Codegen::new(config, keys).unwrap(), reads)
}

#[tokio::test]
async fn a_key_that_was_rotated_is_read_again_and_works_in_the_same_step() {
    let invalid =
        json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "details": [{ "reason": "API_KEY_INVALID" }] } });
    for reply in [openai_error(401, "invalid_api_key"), openai_error(403, "forbidden"), Reply::json(400, &invalid)] {
        let fake = Fake::start(vec![reply, Reply::ok(&openai("x"))]).await;
        let (old, new) = (r#"{"OPENAI_API_KEY":"old"}"#, r#"{"OPENAI_API_KEY":"new"}"#);
        let (codegen, reads) = secret(config(Some(&fake), None, None), old, new);
        assert_eq!(generate(&codegen, topic()).await.provider, "openai");
        let used: Vec<_> = fake.seen().iter().map(|seen| seen.headers["authorization"].clone()).collect();
        assert_eq!(used, ["Bearer old", "Bearer new"]);
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_key_that_stays_refused_fails_for_good_and_costs_one_read_of_the_secret() {
    let fake = Fake::start(vec![openai_error(401, "invalid_api_key")]).await;
    let old = r#"{"OPENAI_API_KEY":"old","ANTHROPIC_API_KEY":"old"}"#;
    let (codegen, reads) = secret(config(Some(&fake), Some(&fake), None), old, old);
    let (error, retryable, _) = failure(&codegen, topic()).await;
    assert_eq!(error.details["attempts"][0]["kind"], json!("auth"));
    assert_eq!((retryable, fake.calls(), reads.load(Ordering::SeqCst)), (false, 2, 1), "two providers, one read");
}

#[tokio::test]
async fn a_provider_whose_key_was_replaced_no_longer_cools_down() {
    let first = Fake::start(vec![openai_error(401, "invalid_api_key"), Reply::ok(&openai("x"))]).await;
    let second = Fake::start(vec![Reply::ok(&anthropic("x"))]).await;
    let reads = Arc::new(AtomicUsize::new(0));
    let codegen = Codegen::new(config(Some(&first), Some(&second), None), move |moment| {
        // The first step still finds the old key when it looks again.
        let reads = if moment.is_some() { reads.fetch_add(1, Ordering::SeqCst) } else { 0 };
        let key = if reads > 0 { "new" } else { "old" };
        std::future::ready(ProviderKeys::from_secret(&format!(
            r#"{{"OPENAI_API_KEY":"{key}","ANTHROPIC_API_KEY":"a"}}"#
        )))
    });
    let codegen = codegen.unwrap();
    assert_eq!(generate(&codegen, topic()).await.provider, "anthropic");
    assert_eq!(generate(&codegen, topic()).await.provider, "openai");
    assert_eq!(first.seen()[1].headers["authorization"], "Bearer new");
}

#[tokio::test]
async fn a_secret_that_was_empty_malformed_or_absent_is_read_again_by_the_next_step() {
    for before in ["{}", "not json", "[]", r#"{"OPENAI_API_KEY":7}"#, r#"{"OPENAI_API_KEY":" "}"#, ""] {
        let fake = Fake::start(vec![Reply::ok(&openai("x"))]).await;
        let allowed = CodegenConfig { allow_template: true, ..config(Some(&fake), None, None) };
        let (codegen, _) = secret(allowed, before, r#"{"OPENAI_API_KEY":"new"}"#);
        assert_eq!(generate(&codegen, topic()).await.provider, "openai", "{before}: no template, no failure");
    }
}

#[tokio::test]
async fn a_malformed_member_disables_its_own_provider_and_says_so_without_its_value() {
    let fake = Fake::start(vec![Reply::ok(&gemini("x"))]).await;
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
async fn a_template_never_hides_a_malformed_key() {
    let allowed = CodegenConfig { allow_template: true, ..config(None, None, None) };
    let json = r#"{"OPENAI_API_KEY":7}"#;
    let (error, ..) = failure(&secret(allowed, json, json).0, topic()).await;
    assert_eq!(error.code, "no_provider");
}
