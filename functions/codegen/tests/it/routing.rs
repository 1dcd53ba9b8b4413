//! Retry, fallback and cooldown.

use std::time::{Duration, Instant, SystemTime};

use codegen::{Codegen, CodegenConfig, Kind, Provider, ProviderKeys, default_order};
use serde_json::json;
use shared::domain::Verdict;
use shared::error::Error;
use shared::worker::Ownership;

use crate::support::{Fake, Reply, anthropic, codegen, config, failure, gemini, generate, openai, openai_error, topic};

const TWO: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

/// OpenAI, asked first, with these replies, and a working Anthropic.
async fn two(replies: Vec<Reply>) -> (Fake, Fake, Codegen) {
    let first = Fake::start(replies).await;
    let second = Fake::start(vec![Reply::ok(&anthropic("from the second"))]).await;
    let codegen = codegen(config(Some(&first), Some(&second), None), &TWO);
    (first, second, codegen)
}

#[tokio::test]
async fn a_failing_provider_is_asked_three_times_and_then_left_with_its_reason_told() {
    for status in [408, 409, 429, 500, 503, 529] {
        let (first, _, codegen) = two(vec![openai_error(status, "server_error")]).await;
        let made = generate(&codegen, topic()).await;
        assert_eq!((made.provider, first.calls()), ("anthropic", 3), "{status}");
        let attempt = &made.metadata["attempts"][0];
        assert_eq!((&attempt["provider"], &attempt["kind"]), (&json!("openai"), &json!("transient")));
        assert_eq!((&attempt["status"], &attempt["tries"]), (&json!(status), &json!(3)));
        let from = &made.events[0].payload["fallback_from"][0];
        assert_eq!(from["reason"], json!(format!("{status} server_error")));
    }
}

#[tokio::test]
async fn a_passing_trouble_is_sat_out_with_the_same_provider() {
    let (first, second, codegen) = two(vec![openai_error(500, "server_error"), Reply::ok(&openai("x"))]).await;
    let made = generate(&codegen, topic()).await;
    assert_eq!((made.provider, first.calls(), second.calls()), ("openai", 2, 0));
    assert_eq!(made.metadata["attempts"], json!([]));
}

#[tokio::test]
async fn a_wait_that_the_provider_asks_for_is_kept() {
    for (header, value, at_least_ms) in [("retry-after", "1", 1000), ("retry-after-ms", "300", 300)] {
        let limited = openai_error(429, "rate_limit_exceeded").with_header(header, value);
        let (first, _, codegen) = two(vec![limited, Reply::ok(&openai("x"))]).await;
        let started = Instant::now();
        assert_eq!(generate(&codegen, topic()).await.provider, "openai");
        assert!(started.elapsed() >= Duration::from_millis(at_least_ms) && first.calls() == 2, "{header}");
    }
}

#[tokio::test]
async fn a_long_wait_is_not_sat_out_but_told_to_the_next_attempt() {
    let date = httpdate_in(Duration::from_secs(90));
    for value in ["90", date.as_str()] {
        let fake = Fake::start(vec![openai_error(429, "rate_limit_exceeded").with_header("retry-after", value)]).await;
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
async fn a_provider_that_says_not_to_retry_is_left_at_once() {
    let (first, _, codegen) = two(vec![openai_error(500, "server_error").with_header("x-should-retry", "false")]).await;
    assert_eq!((generate(&codegen, topic()).await.provider, first.calls()), ("anthropic", 1));
}

#[tokio::test]
async fn an_exhausted_account_is_never_asked_again() {
    let low = json!({ "type": "error", "error": { "type": "invalid_request_error",
        "message": "Your credit balance is too low to access the Anthropic API." } });
    let daily = json!([{ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [
        { "violations": [{ "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier" }] }, { "retryDelay": "7s" }] } }]);
    for reply in [
        openai_error(429, "insufficient_quota"),
        openai_error(429, "billing_hard_limit_reached"),
        openai_error(402, "payment"),
        Reply::json(400, &low),
        Reply::json(429, &daily),
    ] {
        let (first, _, codegen) = two(vec![reply]).await;
        for tries in [1, 0] {
            let made = generate(&codegen, topic()).await;
            let attempt = &made.metadata["attempts"][0];
            assert_eq!((&attempt["kind"], &attempt["tries"]), (&json!("billing"), &json!(tries)));
        }
        assert_eq!(first.calls(), 1, "the second step asks the provider that cools down last");
    }
}

#[tokio::test]
async fn a_rejected_request_goes_to_the_next_provider_and_is_not_repeated() {
    for reply in [openai_error(400, "invalid_value"), openai_error(404, "model_not_found")] {
        let (first, _, codegen) = two(vec![reply]).await;
        let made = generate(&codegen, topic()).await;
        assert_eq!((made.provider, first.calls()), ("anthropic", 1));
        assert_eq!(made.metadata["attempts"][0]["kind"], json!("rejected"));
    }
}

#[tokio::test]
async fn a_redirect_does_not_carry_the_key_elsewhere() {
    let elsewhere = Fake::start(vec![Reply::ok(&openai("stolen"))]).await;
    let moved = Reply::json(307, &json!({})).with_header("location", format!("{}/responses", elsewhere.url));
    let (first, _, codegen) = two(vec![moved]).await;
    assert_eq!((generate(&codegen, topic()).await.provider, first.calls(), elsewhere.calls()), ("anthropic", 1, 0));
}

#[tokio::test]
async fn a_provider_that_nobody_listens_for_is_left() {
    let second = Fake::start(vec![Reply::ok(&anthropic("x"))]).await;
    let codegen = codegen(config(None, Some(&second), None), &TWO);
    let made = generate(&codegen, topic()).await;
    assert_eq!(made.metadata["attempts"][0]["reason"], json!("the connection failed"));
    assert_eq!(made.metadata["attempts"][0]["tries"], json!(3));
}

#[tokio::test]
async fn a_page_of_html_is_no_answer() {
    let page = Reply::ok(&json!({})).with_header("content-type", "text/html").body("<html>", 1);
    let (_, _, codegen) = two(vec![page]).await;
    assert_eq!(generate(&codegen, topic()).await.metadata["attempts"][0]["reason"], json!("the answer is not JSON"));
}

#[tokio::test]
async fn a_hanging_provider_leaves_time_for_the_next_one() {
    let hanging = Reply::ok(&openai("late")).after(Duration::from_mins(1));
    let (first, _, codegen) = two(vec![hanging]).await;
    let started = Instant::now();
    let made = codegen.generate(&topic(), Duration::from_secs(2), &Ownership::certain()).await.unwrap();
    assert_eq!((made.provider, first.calls()), ("anthropic", 1));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_impatient_step_does_not_shut_a_healthy_provider_out_for_others() {
    let slow = Reply::ok(&openai("late")).after(Duration::from_mins(1));
    let (first, _, codegen) = two(vec![slow, Reply::ok(&openai("x"))]).await;
    let impatient = codegen.generate(&topic(), Duration::from_millis(400), &Ownership::certain()).await;
    assert_eq!(impatient.unwrap().provider, "anthropic");
    assert_eq!((generate(&codegen, topic()).await.provider, first.calls()), ("openai", 2));
}

#[tokio::test]
async fn a_provider_that_hangs_for_the_whole_request_timeout_cools_down() {
    let slow = Reply::ok(&openai("late")).after(Duration::from_mins(1));
    let first = Fake::start(vec![slow]).await;
    let second = Fake::start(vec![Reply::ok(&anthropic("x"))]).await;
    let short = config(Some(&first), Some(&second), None);
    let codegen = codegen(CodegenConfig { request_timeout: Duration::from_millis(150), ..short }, &TWO);
    for calls in [2, 2] {
        assert_eq!((generate(&codegen, topic()).await.provider, first.calls()), ("anthropic", calls));
    }
}

#[tokio::test]
async fn an_answer_that_is_empty_or_breaks_off_is_left_and_may_be_asked_for_by_the_next_attempt() {
    let whole = openai("x").to_string();
    for body in ["", " \n", "{", &whole[..whole.len() / 2]] {
        let (first, _, all) = two(vec![Reply::ok(&json!({})).body(body, 1)]).await;
        assert_eq!((generate(&all, topic()).await.provider, first.calls()), ("anthropic", 1), "{body}");
        let alone = codegen(config(Some(&first), None, None), &[Provider::OpenAi]);
        let (error, retryable, _) = failure(&alone, topic()).await;
        assert!(retryable && error.message.contains("empty or breaks off"), "{body}: {}", error.message);
    }
}

#[tokio::test]
async fn a_wait_of_nothing_keeps_the_routers_own_backoff() {
    for value in ["0", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let limited = openai_error(429, "rate_limit_exceeded").with_header("retry-after", value);
        let fake = Fake::start(vec![limited, Reply::ok(&openai("x"))]).await;
        let slow = CodegenConfig { backoff: Duration::from_millis(600), ..config(Some(&fake), None, None) };
        let started = Instant::now();
        generate(&codegen(slow, &[Provider::OpenAi]), topic()).await;
        assert!(started.elapsed() >= Duration::from_millis(300), "{value}");
    }
}

#[tokio::test]
async fn the_time_of_a_step_is_never_exceeded() {
    let fake = Fake::start(vec![Reply::ok(&openai("late")).after(Duration::from_mins(1))]).await;
    let all = config(Some(&fake), Some(&fake), Some(&fake));
    let codegen = codegen(all, &Provider::ALL);
    let started = Instant::now();
    let outcome = codegen.generate(&topic(), Duration::from_secs(1), &Ownership::certain()).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(1300));
    assert!(matches!(outcome.verdict, Verdict::Failed { retryable: true, .. }));
}

#[tokio::test]
async fn when_all_fail_every_reason_is_told_and_one_passing_trouble_makes_it_retryable() {
    let busy = Fake::start(vec![openai_error(529, "overloaded_error")]).await;
    let broke = Fake::start(vec![openai_error(429, "insufficient_quota")]).await;
    let all = codegen(config(Some(&busy), Some(&broke), None), &TWO);
    let (error, retryable, _) = failure(&all, topic()).await;
    assert!(retryable);
    for told in
        ["openai: 529 overloaded_error", "anthropic: 429 insufficient_quota", "GEMINI_API_KEY is not configured"]
    {
        assert!(error.message.contains(told), "{} lacks {told}", error.message);
    }
    let (_, retryable, _) = failure(&codegen(config(Some(&broke), Some(&broke), None), &TWO), topic()).await;
    assert!(!retryable);
}

#[tokio::test]
async fn when_all_cool_down_they_are_asked_all_the_same() {
    let fake = Fake::start(vec![
        openai_error(500, "x"),
        openai_error(500, "x"),
        openai_error(500, "x"),
        Reply::ok(&openai("x")),
    ]);
    let fake = fake.await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    failure(&codegen, topic()).await;
    assert_eq!(generate(&codegen, topic()).await.provider, "openai");
}

#[tokio::test]
async fn a_provider_that_a_step_names_is_the_only_one_asked() {
    let (first, second, codegen) = two(vec![openai_error(500, "x").with_header("x-should-retry", "false")]).await;
    let (error, ..) = failure(&codegen, json!({ "prompt": "p", "model": "gpt-6-luna" })).await;
    assert!(error.message.contains("openai: 500"));
    assert_eq!((first.calls(), second.calls()), (1, 0));
    let made = generate(&codegen, json!({ "prompt": "p", "provider": "anthropic", "model": "other" })).await;
    assert_eq!(made.metadata["model_requested"], json!("other"));
    assert_eq!(second.seen()[0].body["model"], json!("other"));
}

#[tokio::test]
async fn a_provider_outside_the_operators_order_is_never_asked() {
    let fake = Fake::start(vec![Reply::ok(&gemini("x"))]).await;
    let order = Some(vec![Provider::Gemini, Provider::OpenAi]);
    let codegen = codegen(CodegenConfig { order, ..config(Some(&fake), Some(&fake), Some(&fake)) }, &Provider::ALL);
    assert_eq!(generate(&codegen, topic()).await.provider, "gemini");
    let (error, retryable, _) = failure(&codegen, json!({ "prompt": "p", "provider": "anthropic" })).await;
    assert_eq!((error.code.as_str(), retryable, fake.calls()), ("invalid_inputs", false, 1));
}

#[tokio::test]
async fn without_an_order_the_kind_decides_who_is_asked_first() {
    assert_eq!(default_order(Kind::Text)[0], Provider::OpenAi);
    let fakes = [Reply::ok(&openai("x")), Reply::ok(&anthropic("x"))];
    let (first, second) = (Fake::start(vec![fakes[0].clone()]).await, Fake::start(vec![fakes[1].clone()]).await);
    let codegen = codegen(CodegenConfig { order: None, ..config(Some(&first), Some(&second), None) }, &TWO);
    for (kind, provider) in [("text", "openai"), ("code", "anthropic"), ("review", "anthropic")] {
        assert_eq!(generate(&codegen, json!({ "prompt": "p", "kind": kind })).await.provider, provider);
    }
}

#[tokio::test]
async fn a_secret_store_that_is_away_is_waited_for_by_a_later_attempt() {
    for (unavailable, expected) in [(true, true), (false, false)] {
        let codegen = Codegen::new(CodegenConfig::default(), move |_| async move {
            Err(if unavailable {
                Error::unavailable("the secret store", "away")
            } else {
                Error::internal("broken", "x")
            })
        });
        let (error, retryable, _) = failure(&codegen.unwrap(), topic()).await;
        assert_eq!((error.code.as_str(), retryable), ("keys_unavailable", expected));
    }
    let hanging =
        Codegen::new(CodegenConfig::default(), |_| std::future::pending::<Result<ProviderKeys, Error>>()).unwrap();
    let outcome = hanging.generate(&topic(), Duration::from_millis(100), &Ownership::certain()).await.unwrap_err();
    assert!(matches!(outcome.verdict, Verdict::Failed { retryable: true, .. }));
}
