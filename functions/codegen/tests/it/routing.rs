//! Retry, fallback and cooldown.

use std::time::{Duration, Instant, SystemTime};

use codegen::{Codegen, CodegenConfig, Kind, Provider, ProviderKeys, default_order};

use serde_json::json;
use shared::domain::Verdict;
use shared::domain::model_call::Because;
use shared::domain::model_policy::ModelPolicy;
use shared::error::Error;

use crate::support::{
    FakeProvider, Lab, Reply, anthropic, codegen, config, failure, gemini, generate, openai, openai_error, topic,
};

const TWO: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

/// OpenAI, which is asked first, sends these replies. Anthropic works.
async fn openai_then_anthropic(replies: Vec<Reply>) -> (FakeProvider, FakeProvider, Lab) {
    let first = FakeProvider::start(replies).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("from the second"))]).await;
    let codegen = codegen(config(Some(&first), Some(&second), None), &TWO);
    (first, second, codegen)
}

#[tokio::test]
async fn after_three_failures_the_router_falls_back_and_reports_the_reason() {
    for status in [408, 409, 429, 500, 503, 529] {
        let (first, _, codegen) = openai_then_anthropic(vec![openai_error(status, "server_error")]).await;
        let made = generate(&codegen, topic()).await;
        assert_eq!((made.provider, first.calls()), ("anthropic", 3), "{status}");
        let attempt = &made.metadata["attempts"][0];
        assert_eq!((&attempt["provider"], &attempt["kind"]), (&json!("openai"), &json!("transient")));
        assert_eq!((&attempt["status"], &attempt["tries"]), (&json!(status), &json!(3)));
        let starts = codegen.ledger.starts();
        let reason = format!("{status} server_error");
        let (provider, model) = ("openai".to_owned(), "gpt-6-luna".to_owned());
        let kind = "transient".to_owned();
        let expected = [
            Because::First,
            Because::Retry { kind: kind.clone(), reason: reason.clone() },
            Because::Retry { kind: kind.clone(), reason: reason.clone() },
            Because::Fallback { provider, model, kind, reason },
        ];
        assert!(starts.iter().map(|start| &start.because).eq(&expected), "{starts:?}");
    }
}

#[tokio::test]
async fn a_transient_error_is_retried_with_the_same_provider() {
    let (first, second, codegen) =
        openai_then_anthropic(vec![openai_error(500, "server_error"), Reply::ok(&openai("x"))]).await;
    let made = generate(&codegen, topic()).await;
    assert_eq!((made.provider, first.calls(), second.calls()), ("openai", 2, 0));
    assert_eq!(made.metadata["attempts"], json!([]));
}

#[tokio::test]
async fn a_retry_after_header_is_honoured() {
    for (header, value, at_least_ms) in [("retry-after", "1", 1000), ("retry-after-ms", "300", 300)] {
        let limited = openai_error(429, "rate_limit_exceeded").with_header(header, value);
        let (first, _, codegen) = openai_then_anthropic(vec![limited, Reply::ok(&openai("x"))]).await;
        let started = Instant::now();
        assert_eq!(generate(&codegen, topic()).await.provider, "openai");
        assert!(started.elapsed() >= Duration::from_millis(at_least_ms) && first.calls() == 2, "{header}");
    }
}

#[tokio::test]
async fn a_long_retry_after_is_passed_on_to_the_next_attempt() {
    let date = httpdate_in(Duration::from_secs(90));
    for value in ["90", date.as_str()] {
        let fake =
            FakeProvider::start(vec![openai_error(429, "rate_limit_exceeded").with_header("retry-after", value)]).await;
        let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
        let started = Instant::now();
        let (_, retryable, outcome) = failure(&codegen, topic()).await;
        assert!(started.elapsed() < Duration::from_secs(5) && fake.calls() == 1);
        let Verdict::Failed { retry_after: Some(wait), .. } = outcome.verdict else { panic!("no wait") };
        assert!(retryable && wait > Duration::from_secs(80) && wait <= Duration::from_secs(90), "{wait:?}");
    }
}

fn httpdate_in(time: Duration) -> String {
    httpdate::fmt_http_date(SystemTime::now() + time)
}

#[tokio::test]
async fn a_provider_that_forbids_retries_is_not_asked_again() {
    let (first, _, codegen) =
        openai_then_anthropic(vec![openai_error(500, "server_error").with_header("x-should-retry", "false")]).await;
    assert_eq!((generate(&codegen, topic()).await.provider, first.calls()), ("anthropic", 1));
}

#[tokio::test]
async fn an_account_without_credit_is_not_asked_again() {
    let low = json!({ "type": "error", "error": { "type": "invalid_request_error",
        "message": "Your credit balance is too low to access the Anthropic API." } });
    let reached = json!({ "type": "error", "error": { "type": "invalid_request_error",
        "message": "You have reached your specified API usage limits. You will regain access on 2026-12-01." } });
    let daily = json!([{ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [
        { "violations": [{ "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier" }] }, { "retryDelay": "7s" }] } }]);
    for reply in [
        openai_error(429, "insufficient_quota"),
        openai_error(429, "billing_hard_limit_reached"),
        openai_error(402, "payment"),
        Reply::json(400, &low),
        Reply::json(400, &reached),
        Reply::json(429, &daily),
    ] {
        let (first, _, codegen) = openai_then_anthropic(vec![reply]).await;
        for tries in [1, 0] {
            let made = generate(&codegen, topic()).await;
            let attempt = &made.metadata["attempts"][0];
            assert_eq!((&attempt["kind"], &attempt["tries"]), (&json!("billing"), &json!(tries)));
        }
        assert_eq!(first.calls(), 1, "the second step skips the provider in cooldown");
    }
}

#[tokio::test]
async fn a_rejected_request_falls_back_without_a_retry() {
    for reply in [openai_error(400, "invalid_value"), openai_error(404, "model_not_found")] {
        let (first, _, codegen) = openai_then_anthropic(vec![reply]).await;
        let made = generate(&codegen, topic()).await;
        assert_eq!((made.provider, first.calls()), ("anthropic", 1));
        assert_eq!(made.metadata["attempts"][0]["kind"], json!("rejected"));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_so_the_key_stays_secret() {
    let elsewhere = FakeProvider::start(vec![Reply::ok(&openai("stolen"))]).await;
    let moved = Reply::json(307, &json!({})).with_header("location", format!("{}/responses", elsewhere.url));
    let (first, _, codegen) = openai_then_anthropic(vec![moved]).await;
    assert_eq!((generate(&codegen, topic()).await.provider, first.calls(), elsewhere.calls()), ("anthropic", 1, 0));
}

#[tokio::test]
async fn an_unreachable_provider_falls_back_after_three_tries() {
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let codegen = codegen(config(None, Some(&second), None), &TWO);
    let made = generate(&codegen, topic()).await;
    assert_eq!(made.metadata["attempts"][0]["reason"], json!("the connection failed"));
    assert_eq!(made.metadata["attempts"][0]["tries"], json!(3));
}

#[tokio::test]
async fn an_html_page_is_not_an_answer() {
    let page = Reply::ok(&json!({})).with_header("content-type", "text/html").body("<html>", 1);
    let (_, _, codegen) = openai_then_anthropic(vec![page]).await;
    assert_eq!(generate(&codegen, topic()).await.metadata["attempts"][0]["reason"], json!("the answer is not JSON"));
}

#[tokio::test]
async fn a_hanging_provider_leaves_time_for_the_next_one() {
    let hanging = Reply::ok(&openai("late")).after(Duration::from_mins(1));
    let (first, _, codegen) = openai_then_anthropic(vec![hanging]).await;
    let started = Instant::now();
    let made = codegen.run(topic(), Duration::from_secs(2)).await.unwrap();
    assert_eq!((made.provider, first.calls()), ("anthropic", 1));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_step_with_little_time_does_not_put_a_healthy_provider_into_cooldown() {
    let slow = Reply::ok(&openai("late")).after(Duration::from_mins(1));
    let (first, _, codegen) = openai_then_anthropic(vec![slow, Reply::ok(&openai("x"))]).await;
    let short_step = codegen.run(topic(), Duration::from_millis(400)).await;
    assert_eq!(short_step.unwrap().provider, "anthropic");
    assert_eq!((generate(&codegen, topic()).await.provider, first.calls()), ("openai", 2));
}

#[tokio::test]
async fn a_provider_that_hangs_for_the_whole_request_timeout_cools_down() {
    let slow = Reply::ok(&openai("late")).after(Duration::from_mins(1));
    let first = FakeProvider::start(vec![slow]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await;
    let short = config(Some(&first), Some(&second), None);
    let codegen = codegen(CodegenConfig { request_timeout: Duration::from_millis(150), ..short }, &TWO);
    for calls in [2, 2] {
        assert_eq!((generate(&codegen, topic()).await.provider, first.calls()), ("anthropic", calls));
    }
}

#[tokio::test]
async fn an_empty_or_truncated_answer_is_retried_only_by_the_next_attempt() {
    let whole = openai("x").to_string();
    for body in ["", " \n", "{", &whole[..whole.len() / 2]] {
        let (first, _, all) = openai_then_anthropic(vec![Reply::ok(&json!({})).body(body, 1)]).await;
        assert_eq!((generate(&all, topic()).await.provider, first.calls()), ("anthropic", 1), "{body}");
        let alone = codegen(config(Some(&first), None, None), &[Provider::OpenAi]);
        let (error, retryable, _) = failure(&alone, topic()).await;
        assert!(retryable && error.message.contains("empty or truncated"), "{body}: {}", error.message);
    }
}

#[tokio::test]
async fn a_retry_after_of_zero_still_waits_for_the_backoff() {
    for value in ["0", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let limited = openai_error(429, "rate_limit_exceeded").with_header("retry-after", value);
        let fake = FakeProvider::start(vec![limited, Reply::ok(&openai("x"))]).await;
        let slow = CodegenConfig { backoff: Duration::from_millis(600), ..config(Some(&fake), None, None) };
        let started = Instant::now();
        generate(&codegen(slow, &[Provider::OpenAi]), topic()).await;
        assert!(started.elapsed() >= Duration::from_millis(300), "{value}");
    }
}

#[tokio::test]
async fn a_step_never_exceeds_its_timeout() {
    let fake = FakeProvider::start(vec![Reply::ok(&openai("late")).after(Duration::from_mins(1))]).await;
    let all = config(Some(&fake), Some(&fake), Some(&fake));
    let codegen = codegen(all, &Provider::ALL);
    let started = Instant::now();
    let outcome = codegen.run(topic(), Duration::from_secs(1)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(1300));
    assert!(matches!(outcome.verdict, Verdict::Failed { retryable: true, .. }));
}

#[tokio::test]
async fn when_all_fail_every_reason_is_reported_and_one_transient_failure_makes_it_retryable() {
    let busy = FakeProvider::start(vec![openai_error(529, "overloaded_error")]).await;
    let broke = FakeProvider::start(vec![openai_error(429, "insufficient_quota")]).await;
    let all = codegen(config(Some(&busy), Some(&broke), None), &TWO);
    let (error, retryable, _) = failure(&all, topic()).await;
    assert!(retryable);
    for expected in
        ["openai: 529 overloaded_error", "anthropic: 429 insufficient_quota", "GEMINI_API_KEY is not configured"]
    {
        assert!(error.message.contains(expected), "{} lacks {expected}", error.message);
    }
    let (_, retryable, _) = failure(&codegen(config(Some(&broke), Some(&broke), None), &TWO), topic()).await;
    assert!(!retryable);
}

#[tokio::test]
async fn a_cooldown_that_another_worker_recorded_is_respected_and_ends_with_a_success() {
    let (first, second, lab) = openai_then_anthropic(vec![Reply::ok(&openai("x"))]).await;
    generate(&lab, topic()).await;
    let deployment = lab.ledger.starts()[0].deployment.clone();
    lab.ledger.cool(&deployment, "transient", Duration::from_secs(15));
    let made = generate(&lab, topic()).await;
    assert_eq!((made.provider, first.calls(), second.calls()), ("anthropic", 1, 1));
    assert_eq!(made.metadata["attempts"][0]["reason"], json!("cooling down after: a reason"));
    let because = lab.ledger.starts().pop().unwrap().because;
    let Because::Fallback { provider, kind, .. } = because else { panic!("{because:?}") };
    assert_eq!((provider.as_str(), kind.as_str()), ("openai", "transient"));
    // Asked by name, it is asked anyway.
    generate(&lab, json!({ "prompt": "p", "provider": "openai" })).await;
    assert!(first.calls() == 2 && lab.ledger.cooldowns().is_empty());
}

#[tokio::test]
async fn when_all_providers_cool_down_each_is_asked_once_anyway() {
    let mut replies = vec![openai_error(500, "x"); 4];
    replies.push(Reply::ok(&openai("x")));
    let fake = FakeProvider::start(replies).await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    for calls in [3, 4] {
        failure(&codegen, topic()).await;
        assert_eq!(fake.calls(), calls);
    }
    assert_eq!(generate(&codegen, topic()).await.provider, "openai");
    assert!(codegen.ledger.cooldowns().is_empty(), "an answer ends the cooldown");
}

#[tokio::test]
async fn only_the_named_provider_is_asked() {
    let (first, second, codegen) =
        openai_then_anthropic(vec![openai_error(500, "x").with_header("x-should-retry", "false")]).await;
    let (error, ..) = failure(&codegen, json!({ "prompt": "p", "model": "gpt-6-luna" })).await;
    assert!(error.message.contains("openai: 500"));
    assert_eq!((first.calls(), second.calls()), (1, 0));
    let made = generate(&codegen, json!({ "prompt": "p", "provider": "anthropic", "model": "other" })).await;
    assert_eq!(made.metadata["model_requested"], json!("other"));
    assert_eq!(second.requests()[0].body["model"], json!("other"));
}

#[tokio::test]
async fn the_step_overrides_the_policy_which_overrides_the_order_of_the_deployment() {
    let fakes = [
        FakeProvider::start(vec![Reply::ok(&openai("x"))]).await,
        FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await,
        FakeProvider::start(vec![Reply::ok(&gemini("x"))]).await,
    ];
    let order = Some(vec![Provider::OpenAi.into()]);
    let all = CodegenConfig { order, ..config(Some(&fakes[0]), Some(&fakes[1]), Some(&fakes[2])) };
    let lab = codegen(all, &Provider::ALL);
    let asked = async |inputs| {
        let made = generate(&lab, inputs).await;
        (made.provider, made.metadata["chosen_by"].clone())
    };
    assert_eq!(asked(json!({ "prompt": "p" })).await, ("openai", json!("deployment")));
    let order = |kind: &str| [(kind.to_owned(), vec!["anthropic".to_owned(), "openai".to_owned()])].into();
    lab.ledger.set_policy(ModelPolicy { order: order("reasoning"), ..ModelPolicy::default() });
    assert_eq!(asked(json!({ "prompt": "p" })).await, ("openai", json!("deployment")), "another kind");
    assert_eq!(asked(json!({ "prompt": "p", "kind": "review" })).await, ("anthropic", json!("policy")));
    let step = json!({ "prompt": "p", "kind": "reasoning", "provider": "gemini" });
    assert_eq!(asked(step).await, ("gemini", json!("step")));
}

#[tokio::test]
async fn a_model_that_the_policy_does_not_allow_is_never_asked() {
    let (first, second, lab) = openai_then_anthropic(vec![Reply::ok(&openai("x"))]).await;
    let allow = Some(vec!["anthropic".to_owned(), "openai/gpt-x".to_owned()]);
    lab.ledger.set_policy(ModelPolicy { allow, ..ModelPolicy::default() });
    let made = generate(&lab, topic()).await;
    assert_eq!((made.provider, first.calls(), second.calls()), ("anthropic", 0, 1));
    assert_eq!(made.metadata["attempts"][0]["kind"], json!("not_allowed"));
    assert_eq!(lab.ledger.starts()[0].because, Because::First);
    let (error, retryable, _) = failure(&lab, json!({ "prompt": "p", "provider": "openai" })).await;
    assert_eq!((error.code.as_str(), retryable, first.calls()), ("model_not_allowed", false, 0));
    generate(&lab, json!({ "prompt": "p", "model": "gpt-x" })).await;
    assert_eq!(first.calls(), 1);
}

#[tokio::test]
async fn without_an_order_the_kind_decides_which_provider_is_first() {
    let fakes = [
        FakeProvider::start(vec![Reply::ok(&openai("x"))]).await,
        FakeProvider::start(vec![Reply::ok(&anthropic("x"))]).await,
        FakeProvider::start(vec![Reply::ok(&gemini("x"))]).await,
    ];
    let all = CodegenConfig { order: None, ..config(Some(&fakes[0]), Some(&fakes[1]), Some(&fakes[2])) };
    let codegen = codegen(all, &Provider::ALL);
    for (kind, older, default, provider) in [
        ("codegen", "code", Kind::Codegen, "openai"),
        ("reasoning", "review", Kind::Reasoning, "anthropic"),
        ("docs", "text", Kind::Docs, "gemini"),
    ] {
        assert_eq!(default_order(default)[0].as_str(), provider);
        for kind in [kind, older] {
            let made = generate(&codegen, json!({ "prompt": "p", "kind": kind })).await;
            assert_eq!((made.provider, &made.metadata["chosen_by"]), (provider, &json!("default")), "{kind}");
        }
    }
    assert_eq!(generate(&codegen, json!({ "prompt": "p" })).await.provider, "gemini", "documents by default");
}

#[tokio::test]
async fn an_order_can_name_two_models_of_a_provider() {
    let replies = vec![openai_error(404, "model_not_found"), Reply::ok(&openai("x"))];
    let fake = FakeProvider::start(replies).await;
    let order = |text| codegen::Target::parse_order(text).unwrap();
    let both = CodegenConfig { order: order("openai/gpt-a,openai/gpt-b"), ..config(Some(&fake), None, None) };
    let lab = codegen(both.clone(), &TWO);
    assert_eq!(generate(&lab, topic()).await.metadata["model_requested"], json!("gpt-b"));
    // Neither has credit: one account.
    let broke = FakeProvider::start(vec![openai_error(402, "payment")]).await;
    let url = Some(broke.url.clone());
    let lab = codegen(
        CodegenConfig { base_urls: codegen::PerProvider { openai: url, ..both.base_urls.clone() }, ..both },
        &TWO,
    );
    let (error, ..) = failure(&lab, topic()).await;
    let ruled_out = &error.details["attempts"][1];
    assert_eq!((broke.calls(), &ruled_out["tries"], ruled_out.get("status")), (1, &json!(0), None));
    assert_eq!(ruled_out["reason"], json!("not asked after gpt-a: 402"));
}

#[tokio::test]
async fn an_unavailable_secret_store_is_retryable() {
    for (unavailable, expected) in [(true, true), (false, false)] {
        let codegen = Codegen::new(CodegenConfig::default(), move |_| async move {
            Err(if unavailable {
                Error::unavailable("the secret store", "down")
            } else {
                Error::internal("broken", "x")
            })
        });
        let (error, retryable, _) = failure(&Lab::new(codegen.unwrap()), topic()).await;
        assert_eq!((error.code.as_str(), retryable), ("keys_unavailable", expected));
    }
    let hanging =
        Codegen::new(CodegenConfig::default(), |_| std::future::pending::<Result<ProviderKeys, Error>>()).unwrap();
    let outcome = Lab::new(hanging).run(topic(), Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(outcome.verdict, Verdict::Failed { retryable: true, .. }));
}
