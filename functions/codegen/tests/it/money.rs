//! Money: what is reserved before a request, what is charged after it, and what a budget does.

use codegen::{CodegenConfig, Provider};
use serde_json::{Value, json};
use shared::domain::model_call::{Because, Charge};
use shared::domain::{GateDecision, GateStatus, MicroUsd, Timestamp, Verdict};

use crate::support::{
    FakeProvider, Lab, Reply, TIMEOUT, anthropic, chat, codegen, config, failure, gemini, generate, openai,
    openai_error, topic, with,
};

const PRICED: [(&str, &str); 4] = [
    ("openai", "gpt-6-luna"),
    ("anthropic", "claude-sonnet-5-5"),
    ("gemini", "gemini-3.8-flash"),
    ("openai_compatible", "qwen3-max"),
];

/// 3 dollars per million input tokens, 0.30 cached, 3.75 written to a cache, 15 of output: see `Ledger::set_prices`.
fn ceiling(body_bytes: usize, max_output_tokens: i64) -> i64 {
    // 256 tokens may be added around what is sent; the dearest input is 3.75.
    let input = i64::try_from(body_bytes).unwrap() + 256;
    (input * 375 + 99) / 100 + max_output_tokens * 15
}

fn lab(config: CodegenConfig) -> Lab {
    let lab = codegen(config, &Provider::ALL);
    lab.ledger.set_prices(&PRICED);
    lab
}

/// What a request with `topic` to OpenAI reserves.
async fn reserve_of_topic() -> i64 {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("x"))]).await;
    let lab = lab(config(Some(&fake), None, None));
    generate(&lab, topic()).await;
    lab.ledger.starts()[0].reserve.unwrap().0
}

#[tokio::test]
async fn a_request_reserves_its_ceiling_and_is_charged_its_tokens() {
    for (provider, body, cost) in [
        // 60 x 3 + 40 x 0.3 + 30 x 15 = 180 + 12 + 450
        (Provider::OpenAi, openai("x"), 642),
        // 10 x 3 + 70 x 0.3 + 20 x 3.75 + 30 x 15 = 30 + 21 + 75 + 450
        (Provider::Anthropic, anthropic("x"), 576),
        (Provider::Gemini, gemini("x"), 642),
        (Provider::Compatible, chat("x"), 642),
    ] {
        let fake = FakeProvider::start(vec![Reply::ok(&body)]).await;
        let mut all = config(Some(&fake), Some(&fake), Some(&fake));
        (all.base_urls.compatible, all.models.compatible) = (Some(fake.url.clone()), "qwen3-max".to_owned());
        let lab = lab(all);
        for (inputs, max_tokens) in [
            (json!({ "prompt": "Über", "provider": provider }), 16_384),
            (json!({ "prompt": "p".repeat(50_000), "provider": provider, "max_output_tokens": 100 }), 100),
        ] {
            generate(&lab, inputs).await;
            let (start, end) = (lab.ledger.starts().pop().unwrap(), lab.ledger.ends().pop().unwrap());
            let sent = fake.requests().pop().unwrap().body_bytes;
            assert_eq!(start.reserve, Some(MicroUsd(ceiling(sent, max_tokens))), "{provider}");
            assert_eq!(end.charge, Charge::Usage(MicroUsd(cost)), "{provider}");
            let price = start.price.unwrap();
            assert_eq!((price.version.as_str(), start.deployment.len()), ("policy-7", 16));
        }
        assert_eq!(lab.ledger.spent(), 2 * cost);
    }
}

#[tokio::test]
async fn an_answer_without_its_tokens_is_charged_the_ceiling() {
    for usage in
        [Value::Null, json!({}), json!({ "input_tokens": 5 }), json!({ "input_tokens": -1, "output_tokens": 3 })]
    {
        let fake = FakeProvider::start(vec![Reply::ok(&with(openai("x"), "/usage", usage))]).await;
        let lab = lab(config(Some(&fake), None, None));
        assert_eq!(generate(&lab, topic()).await.text, "x", "the answer is used");
        assert_eq!(lab.ledger.ends()[0].charge, Charge::Ceiling);
        assert_eq!(lab.ledger.spent(), lab.ledger.starts()[0].reserve.unwrap().0);
    }
}

#[tokio::test]
async fn without_a_price_nothing_is_reserved_unless_a_budget_applies() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("x"))]).await;
    let mut all = config(Some(&fake), None, None);
    all.models.openai = "a-model-that-no-table-has".to_owned();
    all.order = Some(vec![Provider::OpenAi.into()]);
    let lab = codegen(all, &Provider::ALL);
    generate(&lab, topic()).await;
    assert_eq!((lab.ledger.starts()[0].reserve, lab.ledger.ends()[0].charge), (None, Charge::Unpriced));
    lab.ledger.set_cap(1_000_000);
    let (error, retryable, _) = failure(&lab, topic()).await;
    assert_eq!((error.code.as_str(), retryable, fake.calls()), ("model_unpriced", false, 1));
    assert!(error.message.contains("openai/a-model-that-no-table-has"), "{}", error.message);
}

#[tokio::test]
async fn a_model_without_a_price_is_left_out_where_a_budget_applies() {
    let (first, second) = (
        FakeProvider::start(vec![Reply::ok(&openai("x"))]).await,
        FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await,
    );
    let mut all = config(Some(&first), Some(&second), None);
    all.models.openai = "a-model-that-no-table-has".to_owned();
    let lab = lab(all);
    lab.ledger.set_cap(10_000_000);
    let made = generate(&lab, topic()).await;
    assert_eq!((made.provider, first.calls()), ("anthropic", 0));
    let Because::Fallback { provider, kind, .. } = &lab.ledger.starts()[0].because else { panic!("a fallback") };
    assert_eq!((provider.as_str(), kind.as_str()), ("openai", "unpriced"));
}

#[tokio::test]
async fn an_exhausted_budget_blocks_the_step_before_the_request() {
    let fake = FakeProvider::start(vec![openai_error(500, "server_error"), Reply::ok(&openai("x"))]).await;
    let lab = lab(config(Some(&fake), None, None));
    // It covers each request, because a refused one costs nothing, and nothing more than that.
    lab.ledger.set_cap(reserve_of_topic().await);
    generate(&lab, topic()).await;
    assert_eq!((fake.calls(), lab.ledger.spent()), (2, 642));
    let outcome = *lab.run(topic(), TIMEOUT).await.unwrap_err();
    assert_eq!(fake.calls(), 2);
    let [gate] = outcome.gates.as_slice() else { panic!("a gate") };
    assert_eq!((&outcome.verdict, gate.gate_type.as_str()), (&Verdict::Blocked, "budget"));
    let subject = gate.subject.as_ref().unwrap();
    assert_eq!((&subject["spent_usd_micros"], &subject["scope"]), (&json!(642), &json!("run")));
    assert_eq!(outcome.events[0].kind, "budget.exhausted");
}

#[tokio::test]
async fn a_fallback_never_spends_past_the_budget() {
    // The first answer is unusable and paid for; the second provider does not fit any more.
    let half = with(openai("half"), "/status", json!("incomplete"));
    let first = FakeProvider::start(vec![Reply::ok(&half)]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let lab = lab(config(Some(&first), Some(&second), None));
    lab.ledger.set_cap(reserve_of_topic().await);
    let outcome = *lab.run(topic(), TIMEOUT).await.unwrap_err();
    assert_eq!((&outcome.verdict, first.calls(), second.calls()), (&Verdict::Blocked, 1, 0));
    assert_eq!(lab.ledger.spent(), 642);
}

#[tokio::test]
async fn an_attempt_after_a_gate_asks_no_model_again_that_has_failed() {
    let half = with(openai("half"), "/status", json!("incomplete"));
    let first = FakeProvider::start(vec![Reply::ok(&half)]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let lab = lab(config(Some(&first), Some(&second), None));
    lab.ledger.set_cap(reserve_of_topic().await);
    let outcome = *lab.run(topic(), TIMEOUT).await.unwrap_err();
    let subject = outcome.gates[0].subject.clone().expect("a subject");
    assert_eq!(
        (&subject["request"]["provider"], &subject["request"]["model"], &subject["attempt"]),
        (&json!("anthropic"), &json!("claude-sonnet-5-5"), &json!(1))
    );
    let failed = subject["request"]["failures"].clone();
    assert_eq!(
        (&failed[0]["provider"], &failed[0]["kind"], &failed[0]["tries"]),
        (&json!("openai"), &json!("unusable"), &json!(1))
    );
    assert_eq!(failed.as_array().map(Vec::len), Some(1));

    lab.ledger.set_cap(10_000_000);
    let passed = GateDecision {
        gate_id: outcome.gates[0].id,
        gate_type: "budget".into(),
        status: GateStatus::Passed,
        subject: Some(subject),
        decided_by: Some("ann".into()),
        decided_at: Timestamp("2026-11-29T14:00:00+00:00".into()),
    };
    let made = lab.resume(topic(), 2, passed.clone()).await.unwrap();
    assert_eq!((made.provider, first.calls(), second.calls()), ("anthropic", 1, 1));
    assert_eq!(made.metadata["attempts"], failed, "the metadata name what failed before the gate");
    let Because::Fallback { provider, kind, .. } = lab.ledger.starts().pop().unwrap().because else {
        panic!("a fallback")
    };
    assert_eq!((provider.as_str(), kind.as_str()), ("openai", "unusable"));
    // An attempt after a failure, or of a repair, begins anew.
    lab.resume(topic(), 3, passed).await.unwrap();
    assert_eq!((first.calls(), second.calls()), (2, 2));
}
