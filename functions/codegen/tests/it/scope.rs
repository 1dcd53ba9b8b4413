//! What a failure holds for: a key, or one of its models.

use codegen::{CodegenConfig, Provider, Target};
use serde_json::{Value, json};
use shared::domain::model_call::Because;

use crate::support::{FakeProvider, Lab, Reply, codegen, config, failure, generate, openai, openai_error, topic};

/// Two models of one key, which gives these replies.
async fn two_models(replies: Vec<Reply>) -> (FakeProvider, Lab) {
    let fake = FakeProvider::start(replies).await;
    let order = Target::parse_order("openai/gpt-a,openai/gpt-b").unwrap();
    let lab = codegen(CodegenConfig { order, ..config(Some(&fake), None, None) }, &[Provider::OpenAi]);
    (fake, lab)
}

fn asked(fake: &FakeProvider) -> Vec<Value> {
    fake.requests().iter().map(|request| request.body["model"].clone()).collect()
}

fn of_quota(name: &str) -> Reply {
    let details = json!([{ "violations": [{ "quotaId": name }] }]);
    Reply::json(429, &json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": details } }))
}

#[tokio::test]
async fn what_one_model_may_not_or_has_used_up_does_not_rule_out_another_one_of_the_key() {
    for (reply, kind) in [
        (openai_error(403, "model_not_found"), "rejected"),
        (of_quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), "billing"),
    ] {
        let (fake, lab) = two_models(vec![reply, Reply::ok(&openai("x"))]).await;
        let made = generate(&lab, topic()).await;
        assert_eq!(asked(&fake), ["gpt-a", "gpt-b"], "{kind}");
        assert_eq!(made.metadata["attempts"][0]["kind"], json!(kind));
        let because = lab.ledger.starts().pop().unwrap().because;
        let Because::Fallback { model, .. } = because else { panic!("{because:?}") };
        assert_eq!(model, "gpt-a");
    }
    // The project's quota holds for all models.
    let (fake, lab) = two_models(vec![of_quota("GenerateRequestsPerDayPerProject")]).await;
    let (error, ..) = failure(&lab, topic()).await;
    assert_eq!(asked(&fake), ["gpt-a"]);
    assert!(error.message.contains("not asked after gpt-a: 429 RESOURCE_EXHAUSTED"), "{}", error.message);
}

#[tokio::test]
async fn the_answer_of_one_model_does_not_end_the_cooldown_of_another_one() {
    let busy = openai_error(429, "rate_limit_exceeded").with_header("retry-after", "90");
    let (fake, lab) = two_models(vec![busy, Reply::ok(&openai("x"))]).await;
    for expected in [&["gpt-a", "gpt-b"][..], &["gpt-a", "gpt-b", "gpt-b"]] {
        generate(&lab, topic()).await;
        assert_eq!(asked(&fake), expected, "the first one still cools down");
    }
    let cooldowns = lab.ledger.cooldowns();
    let [cooldown] = cooldowns.as_slice() else { panic!("{cooldowns:?}") };
    assert!(cooldown.deployment.ends_with("/gpt-a"), "{cooldown:?}");
    // Asked by name, it answers.
    generate(&lab, json!({ "prompt": "p", "model": "gpt-a" })).await;
    assert!(lab.ledger.cooldowns().is_empty());
}

#[tokio::test]
async fn a_key_without_credit_cools_down_with_all_its_models() {
    let (_, lab) = two_models(vec![openai_error(402, "payment_required")]).await;
    failure(&lab, topic()).await;
    let cooldowns = lab.ledger.cooldowns();
    assert!(!cooldowns[0].deployment.contains('/') && cooldowns.len() == 1, "{cooldowns:?}");
}
