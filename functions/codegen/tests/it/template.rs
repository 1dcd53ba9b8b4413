//! The template, which stands in for a model if no key is configured.

use codegen::{Codegen, CodegenConfig, Provider};
use serde_json::{Value, json};
use shared::error::Error;

use crate::support::{Lab, codegen, failure, generate, topic};

fn with_template() -> CodegenConfig {
    CodegenConfig { allow_template: true, ..CodegenConfig::default() }
}

#[tokio::test]
async fn without_a_key_the_step_fails_unless_the_template_is_allowed() {
    let (error, retryable, _) = failure(&codegen(CodegenConfig::default(), &[]), topic()).await;
    assert_eq!((error.code.as_str(), retryable), ("no_provider", false));
    for expected in ["LLM_SECRET_ID", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"] {
        assert!(error.message.contains(expected), "{} lacks {expected}", error.message);
    }
}

#[tokio::test]
async fn an_absent_secret_means_no_keys() {
    let absent = |_| std::future::ready(Err(Error::NotFound("the secret".into())));
    let (error, ..) = failure(&Lab::new(Codegen::new(CodegenConfig::default(), absent).unwrap()), topic()).await;
    assert_eq!(error.code, "no_provider");
    assert_eq!(generate(&Lab::new(Codegen::new(with_template(), absent).unwrap()), topic()).await.provider, "template");
}

#[tokio::test]
async fn the_template_is_deterministic_and_says_that_no_model_wrote_it() {
    for inputs in [topic(), json!({ "prompt": "first\nsecond", "kind": "code", "name": "main.rs" })] {
        let made = generate(&codegen(with_template(), &[]), inputs.clone()).await;
        assert_eq!(made, generate(&codegen(with_template(), &[]), inputs).await);
        assert!(made.text.lines().take(3).any(|line| line.contains("not written by a model")), "{}", made.text);
        assert_eq!((&made.metadata["template"], &made.metadata["provider"]), (&json!(true), &json!("template")));
        assert_eq!(made.metadata["tokens"]["input_tokens"], Value::Null);
        assert_eq!((made.provider, made.kind), ("template", "text"));
        assert_eq!(made.events[0].payload["provider"], json!("template"));
    }
    let made = generate(&codegen(with_template(), &[]), topic()).await;
    assert!(made.text.starts_with("# Gates\n") && made.text.contains("## why") && made.text.contains("## how"));
}

#[tokio::test]
async fn the_template_never_replaces_a_provider_whose_key_is_missing() {
    let codegen = codegen(with_template(), &[Provider::Gemini]);
    let (error, ..) = failure(&codegen, json!({ "prompt": "p", "provider": "openai" })).await;
    assert_eq!(error.code, "no_provider");
    assert!(error.message.contains("OPENAI_API_KEY") && !error.message.contains("GEMINI"));
}

#[tokio::test]
async fn a_step_can_ask_for_the_template_where_it_is_allowed() {
    let lab = codegen(with_template(), &Provider::ALL);
    assert_eq!(generate(&lab, json!({ "topic": "t", "provider": "template" })).await.provider, "template");
    assert!(lab.ledger.starts().is_empty(), "it costs nothing");
}
