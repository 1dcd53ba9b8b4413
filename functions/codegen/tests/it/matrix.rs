//! The fault matrix: each fault on each wire, and what follows: how often it is asked, what is charged, which deployment
//! cools down, and why the next model is asked.

use std::time::Duration;

use codegen::{CodegenConfig, Provider};
use futures::StreamExt;
use serde_json::{Value, json};
use shared::domain::MicroUsd;
use shared::domain::model_call::{Because, Charge};

use crate::streams::{events, then, whole};
use crate::support::{End, FakeProvider, Reply, codegen, event, generate, topic, with};

/// What is charged for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    Nothing,
    Tokens,
    Ceiling,
}

/// What must follow a fault.
struct Expected {
    calls: usize,
    kind: &'static str,
    reason: &'static str,
    cost: Cost,
    cooldown_s: Option<u64>,
}

struct Case {
    name: &'static str,
    reply: fn(Provider) -> Reply,
    expected: Expected,
}

const fn case(
    name: &'static str,
    reply: fn(Provider) -> Reply,
    (calls, kind, reason): (usize, &'static str, &'static str),
    cost: Cost,
    cooldown_s: Option<u64>,
) -> Case {
    Case { name, reply, expected: Expected { calls, kind, reason, cost, cooldown_s } }
}

/// An error body in the provider's format.
fn error(provider: Provider, status: u16, code: &str) -> Reply {
    let body = match provider {
        Provider::OpenAi | Provider::Compatible => json!({ "error": { "message": "m", "type": code, "code": code } }),
        Provider::Anthropic => json!({ "type": "error", "error": { "type": code, "message": "m" } }),
        Provider::Gemini => {
            json!({ "error": { "code": status, "status": "UNKNOWN", "details": [{ "reason": code }] } })
        }
    };
    Reply::json(status, &body)
}

/// The same answer with another end, or other content.
fn ended(provider: Provider, reason: [&str; 4]) -> Reply {
    let body = whole(provider, "half");
    Reply::ok(&match provider {
        Provider::OpenAi => {
            with(with(body, "/status", json!("incomplete")), "/incomplete_details", json!({ "reason": reason[0] }))
        }
        Provider::Anthropic => with(body, "/stop_reason", json!(reason[1])),
        Provider::Gemini => with(body, "/candidates/0/finishReason", json!(reason[2])),
        Provider::Compatible => with(body, "/choices/0/finish_reason", json!(reason[3])),
    })
}

fn half_a_stream(provider: Provider) -> Reply {
    let all = events(provider, "a text");
    Reply::events(&[]).body(all[..all.len() - 1].iter().map(event).collect::<String>(), 1)
}

fn with_error_event(provider: Provider) -> Reply {
    let mut all = events(provider, "a text");
    all.insert(
        2,
        match provider {
            Provider::Gemini => json!({ "error": { "code": 503, "status": "UNAVAILABLE" } }),
            _ => json!({ "type": "error", "error": { "type": "server_error", "code": "server_error" } }),
        },
    );
    Reply::events(&all)
}

const SLOW: Duration = Duration::from_mins(1);
/// Long enough for a busy machine, short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of these, each is tried with every provider.
#[rustfmt::skip]
const CASES: &[Case] = &[
    case("408", |p| error(p, 408, "timeout"), (3, "transient", "408"), Cost::Nothing, Some(15)),
    case("409", |p| error(p, 409, "conflict_error"), (3, "transient", "409"), Cost::Nothing, Some(15)),
    case("429", |p| error(p, 429, "rate_limit_exceeded"), (3, "transient", "429"), Cost::Nothing, Some(15)),
    case("500", |p| error(p, 500, "server_error"), (3, "transient", "500"), Cost::Nothing, Some(15)),
    case("502 without a body", |_| Reply::json(502, &Value::Null).body("", 1), (3, "transient", "502"), Cost::Nothing, Some(15)),
    case("503 html", |_| Reply::json(503, &Value::Null).body("<html>", 1).with_header("content-type", "text/html"), (3, "transient", "503"), Cost::Nothing, Some(15)),
    case("529", |p| error(p, 529, "overloaded_error"), (3, "transient", "529"), Cost::Nothing, Some(15)),
    case("429 and a long wait", |p| error(p, 429, "x").with_header("retry-after", "90"), (1, "transient", "429"), Cost::Nothing, Some(90)),
    case("429 and a very long wait", |p| error(p, 429, "x").with_header("retry-after", "7200"), (1, "transient", "429"), Cost::Nothing, Some(300)),
    case("503 and a short wait", |p| error(p, 503, "x").with_header("retry-after-ms", "5"), (3, "transient", "503"), Cost::Nothing, Some(1)),
    case("500, do not retry", |p| error(p, 500, "x").with_header("x-should-retry", "false"), (1, "transient", "500"), Cost::Nothing, Some(15)),
    case("400, do retry", |p| error(p, 400, "x").with_header("x-should-retry", "true"), (3, "transient", "400"), Cost::Nothing, Some(15)),
    case("429 quota", |p| error(p, 429, "insufficient_quota"), (1, "billing", "429"), Cost::Nothing, Some(300)),
    case("402", |p| error(p, 402, "x"), (1, "billing", "402"), Cost::Nothing, Some(300)),
    case("401", |p| error(p, 401, "invalid_api_key"), (1, "auth", "401"), Cost::Nothing, Some(60)),
    case("403", |p| error(p, 403, "forbidden"), (1, "auth", "403"), Cost::Nothing, Some(60)),
    case("400", |p| error(p, 400, "invalid_value"), (1, "rejected", "400"), Cost::Nothing, None),
    case("404", |p| error(p, 404, "model_not_found"), (1, "rejected", "404"), Cost::Nothing, None),
    case("413", |p| error(p, 413, "request_too_large"), (1, "rejected", "413"), Cost::Nothing, None),
    case("307", |p| error(p, 307, "x").with_header("location", "http://127.0.0.1:9/"), (1, "rejected", "307"), Cost::Nothing, None),
    case("empty", |_| Reply::ok(&Value::Null).body("", 1), (1, "transient", "empty or truncated"), Cost::Ceiling, Some(15)),
    case("half a body", |p| Reply::ok(&Value::Null).body(whole(p, "x").to_string().split_at(40).0.to_owned(), 1), (1, "transient", "empty or truncated"), Cost::Ceiling, Some(15)),
    case("a broken body", |p| Reply::ok(&Value::Null).body(whole(p, "x").to_string().split_at(40).0.to_owned(), 1).ends(End::Breaks), (3, "transient", "connection was lost"), Cost::Ceiling, Some(15)),
    case("html", |_| Reply::ok(&Value::Null).body("<html>", 1).with_header("content-type", "text/html"), (1, "unusable", "not JSON"), Cost::Ceiling, None),
    case("another format", |_| Reply::ok(&json!({ "surprise": true })), (1, "unusable", "unreadable"), Cost::Ceiling, None),
    case("not UTF-8", |_| Reply::ok(&Value::Null).body(b"{\"a\": \"\xff\"}".to_vec(), 1), (1, "unusable", "not UTF-8"), Cost::Ceiling, None),
    case("no answer in time", |p| Reply::ok(&whole(p, "x")).after(SLOW), (2, "transient", "no answer within"), Cost::Ceiling, Some(15)),
    case("cut off", |p| ended(p, ["max_output_tokens", "max_tokens", "MAX_TOKENS", "length"]), (1, "unusable", "cut off"), Cost::Tokens, None),
    case("refused", |p| ended(p, ["content_filter", "refusal", "SAFETY", "content_filter"]), (1, "unusable", "e"), Cost::Tokens, None),
    case("ended otherwise", |p| ended(p, ["x", "pause_turn", "OTHER", "x"]), (1, "unusable", "e"), Cost::Tokens, None),
    case("an empty text", |p| Reply::ok(&whole(p, " \n")), (1, "transient", "empty"), Cost::Tokens, None),
    case("403, the model", |p| error(p, 403, "model_not_found"), (1, "rejected", "403"), Cost::Nothing, None),
    case("a huge wait", |p| error(p, 429, "x").with_header("retry-after", "99999999999999999999999"), (1, "transient", "429"), Cost::Nothing, Some(300)),
    case("a huge wait in ms", |p| error(p, 429, "x").with_header("retry-after-ms", "1e300"), (1, "transient", "429"), Cost::Nothing, Some(300)),
    case("a wait that is no number", |p| error(p, 503, "x").with_header("retry-after", "inf"), (3, "transient", "503"), Cost::Nothing, Some(15)),
    case("a rate limit in a 200", |_| Reply::ok(&json!({ "error": { "code": 429, "message": "m" } })), (1, "transient", "error 429 within the answer"), Cost::Ceiling, Some(15)),
    case("no credit in a 200", |_| Reply::ok(&json!({ "error": { "code": 402, "message": "m" } })), (1, "billing", "error 402 within the answer"), Cost::Ceiling, Some(300)),
    case("an error in a 200", |p| Reply::ok(&serde_json::from_slice(&error(p, 503, "overloaded_error").body).unwrap()), (1, "transient", "overloaded_error within the answer"), Cost::Ceiling, Some(15)),
    case("NUL", |p| Reply::ok(&whole(p, "a\0b")), (1, "unusable", "NUL"), Cost::Tokens, None),
    case("the key", |p| Reply::ok(&whole(p, &format!("it is key-{p}"))), (1, "unusable", "repeats the key"), Cost::Tokens, None),
    case("half a stream", half_a_stream, (1, "transient", "empty or truncated"), Cost::Ceiling, Some(15)),
    case("a broken stream", |p| half_a_stream(p).ends(End::Breaks), (3, "transient", "connection was lost"), Cost::Ceiling, Some(15)),
    case("a stream that hangs", |p| half_a_stream(p).ends(End::Hangs), (2, "transient", "nothing received"), Cost::Ceiling, Some(15)),
    case("an error within a stream", with_error_event, (1, "transient", "within the answer"), Cost::Ceiling, Some(15)),
];

/// See `Ledger::set_prices` and the test of money.
fn cost(provider: Provider) -> i64 {
    if provider == Provider::Anthropic { 576 } else { 642 }
}

async fn check(provider: Provider, case: &Case) {
    let what = format!("{provider}: {}", case.name);
    let first = FakeProvider::start(vec![(case.reply)(provider)]).await;
    let works = if provider == Provider::Anthropic { Provider::Gemini } else { Provider::Anthropic };
    let second = FakeProvider::start(vec![Reply::ok(&whole(works, "from the second"))]).await;
    let (all, other) = then(provider, &first, &second);
    // A whole answer that does not come in time is seen by the timeout of the request, a streamed one by its pause.
    let stream = case.name != "no answer in time";
    let hangs = case.expected.calls == 2;
    let request_timeout = if hangs && !stream { PATIENCE } else { SLOW };
    let idle_timeout = if hangs && stream { PATIENCE } else { SLOW };
    let lab = codegen(CodegenConfig { stream, request_timeout, idle_timeout, ..all }, &Provider::ALL);
    let model = lab_model(provider);
    lab.ledger.set_prices(&[(provider.as_str(), model), (works.as_str(), lab_model(works))]);

    let made = generate(&lab, topic()).await;
    let Expected { calls, kind, reason, cost: expected_cost, cooldown_s } = case.expected;
    assert_eq!((made.provider, first.calls(), second.calls()), (other.as_str(), calls, 1), "{what}");
    let attempt = &made.metadata["attempts"][0];
    assert_eq!((&attempt["kind"], &attempt["tries"]), (&json!(kind), &json!(calls)), "{what}");
    assert!(attempt["reason"].as_str().unwrap().contains(reason), "{what}: {attempt}");

    let (starts, ends) = (lab.ledger.starts(), lab.ledger.ends());
    assert_eq!((starts.len(), ends.len()), (calls + 1, calls + 1), "{what}");
    for (at, (start, end)) in starts.iter().zip(&ends).take(calls).enumerate() {
        let expected = match expected_cost {
            Cost::Nothing => Charge::Nothing,
            Cost::Tokens => Charge::Usage(MicroUsd(cost(provider))),
            Cost::Ceiling => Charge::Ceiling,
        };
        assert_eq!((end.charge, end.usable), (expected, false), "{what}");
        assert_eq!(end.usage.is_some(), expected_cost == Cost::Tokens, "{what}");
        let fault = end.fault.as_ref().unwrap();
        assert_eq!((fault.kind.as_str(), json!(fault.reason)), (kind, attempt["reason"].clone()), "{what}");
        let is_first = start.because == Because::First;
        assert!(if at == 0 { is_first } else { matches!(start.because, Because::Retry { .. }) }, "{what}");
        assert_eq!((start.provider.as_str(), start.model.as_str()), (provider.as_str(), model), "{what}");
        let cooled = end.cooldown.as_ref().map(|cooldown| cooldown.for_ms.div_ceil(1000));
        assert_eq!(cooled, if at + 1 == calls { cooldown_s } else { None }, "{what}");
    }
    let (start, end) = (starts.last().unwrap(), ends.last().unwrap());
    let because = Because::Fallback {
        provider: provider.as_str().to_owned(),
        model: model.to_owned(),
        kind: kind.to_owned(),
        reason: attempt["reason"].as_str().unwrap().to_owned(),
    };
    assert_eq!((&start.because, end.usable, end.recovered), (&because, true, true), "{what}");
    assert_eq!(end.charge, Charge::Usage(MicroUsd(cost(works))), "{what}");
}

fn lab_model(provider: Provider) -> &'static str {
    match provider {
        Provider::OpenAi => "gpt-6-luna",
        Provider::Anthropic => "claude-sonnet-5-5",
        Provider::Gemini => "gemini-3.8-flash",
        Provider::Compatible => "qwen3-max",
    }
}

#[tokio::test]
async fn each_fault_on_each_wire_has_its_decision_charge_and_reason() {
    assert_eq!(Provider::ALL.len() * CASES.len(), 176);
    let checks = Provider::ALL.into_iter().flat_map(|provider| CASES.iter().map(move |case| check(provider, case)));
    // A few at once, so that none waits for the processor until it times out.
    futures::stream::iter(checks).buffer_unordered(8).collect::<()>().await;
}

#[tokio::test]
async fn a_connection_that_is_closed_after_the_request_may_have_cost_money() {
    for provider in Provider::ALL {
        let first = FakeProvider::closing().await;
        let works = if provider == Provider::Anthropic { Provider::Gemini } else { Provider::Anthropic };
        let second = FakeProvider::start(vec![Reply::ok(&whole(works, "x"))]).await;
        let (all, other) = then(provider, &first, &second);
        let lab = codegen(all, &Provider::ALL);
        lab.ledger.set_prices(&[(provider.as_str(), lab_model(provider))]);
        let made = generate(&lab, topic()).await;
        assert_eq!((made.provider, first.calls()), (other.as_str(), 3));
        assert_eq!(made.metadata["attempts"][0]["reason"], json!("the connection was lost"));
        assert!(lab.ledger.ends()[..3].iter().all(|end| end.charge == Charge::Ceiling));
    }
}

#[tokio::test]
async fn a_connection_that_was_never_made_costs_nothing() {
    for provider in Provider::ALL {
        let second = FakeProvider::start(vec![Reply::ok(&whole(Provider::Anthropic, "x"))]).await;
        let (mut all, _) = then(provider, &second, &second);
        *all.base_urls.get_mut(provider) = Some("http://127.0.0.1:9/v1".to_owned());
        all.order = Some(vec![provider.into()]);
        let lab = codegen(all, &Provider::ALL);
        lab.ledger.set_prices(&[(provider.as_str(), lab_model(provider))]);
        let (error, retryable, _) = crate::support::failure(&lab, topic()).await;
        assert!(error.message.contains("the connection failed") && retryable);
        let ends = lab.ledger.ends();
        assert_eq!((ends.len(), ends.iter().all(|end| end.charge == Charge::Nothing)), (3, true));
    }
}
