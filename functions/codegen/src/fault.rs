//! Why a request gave no usable answer, and what follows for the next request.
//!
//! A provider's words are never repeated, because they can echo the prompt or a part of the key. Codes and types are
//! used as received, and shown only if they are known (`shown`).

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::Value;

use crate::shown::known;
use crate::usage::TokenUsage;

/// A longer wait than this is ignored.
const MAX_ASKED_WAIT: Duration = Duration::from_hours(1);
/// A code or type that contains one of these means that money or quota has run out.
const BILLING_WORDS: [&str; 7] = [
    "billing",
    "credit",
    "insufficient_balance",
    "insufficient_funds",
    "insufficient_quota",
    "quota_exceeded",
    "spend_limit",
];

/// The kind of a fault, by what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It may pass by itself: retry, or ask another provider.
    Transient,
    /// Money or quota has run out: a person must act.
    Billing,
    /// The provider refused the key.
    Auth,
    /// The provider refused the request, and would again.
    Rejected,
    /// The answer cannot be used: a refusal, cut off, empty or unreadable.
    Unusable,
    /// No key is configured, so the provider was not asked.
    NoKey,
}

/// One request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: FaultKind,
    pub status: Option<u16>,
    /// Safe to show.
    pub reason: String,
    /// How long the provider asks clients to wait.
    pub wait: Option<Duration>,
    pub timed_out: bool,
    /// Do not repeat the same request in this step.
    pub final_word: bool,
    /// Tokens of an unusable answer, which may have been billed.
    pub usage: Option<Box<TokenUsage>>,
}

impl Fault {
    pub fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        Self { kind, status: None, reason: reason.into(), wait: None, timed_out: false, final_word: false, usage: None }
    }

    pub fn timed_out(limit: Duration) -> Self {
        let reason = format!("no answer within {:.1} s", limit.as_secs_f64());
        Self { timed_out: true, ..Self::new(FaultKind::Transient, reason) }
    }

    pub fn unusable(reason: impl Into<String>) -> Self {
        Self::new(FaultKind::Unusable, reason)
    }

    /// A 200 whose body is empty or ends early. It was billed, so this step does not repeat the request, but a later
    /// attempt may.
    pub fn broken_off() -> Self {
        Self { final_word: true, ..Self::new(FaultKind::Transient, "the answer is empty or breaks off") }
    }

    pub fn of_transport(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::new(FaultKind::Rejected, "the request could not be built")
        } else if error.is_connect() {
            // A connect timeout is treated like a request timeout: one more try.
            Self { timed_out: error.is_timeout(), ..Self::new(FaultKind::Transient, "the connection failed") }
        } else {
            Self::new(FaultKind::Transient, "the connection broke off")
        }
    }

    /// The fault of an answer whose status is not 200.
    pub fn of_status(status: u16, body: &Value, headers: &HeaderMap) -> Self {
        let told = Told::read(body);
        let mut kind = match status {
            _ if status == 402 || told.is_billing() => FaultKind::Billing,
            401 | 403 => FaultKind::Auth,
            400 if told.ids.iter().any(|id| id.eq_ignore_ascii_case("API_KEY_INVALID")) => FaultKind::Auth,
            408 | 409 | 425 | 429 | 500..=599 => FaultKind::Transient,
            _ => FaultKind::Rejected,
        };
        let should_retry = header(headers, "x-should-retry");
        if should_retry == Some("true") && kind == FaultKind::Rejected {
            kind = FaultKind::Transient;
        }
        let mut reason = match status {
            300..=399 => format!("{status} redirects are not followed"),
            _ => status.to_string(),
        };
        for id in told.ids.iter().filter_map(|id| known(id)) {
            reason.push(' ');
            reason.push_str(id);
        }
        Self {
            status: Some(status),
            wait: wait_of(headers).or(told.wait).map(|wait| wait.min(MAX_ASKED_WAIT)),
            final_word: should_retry == Some("false"),
            ..Self::new(kind, reason)
        }
    }
}

/// What an error body says, in the formats of all three providers:
/// `{error: {type, code, param}}`, `{type: "error", error: {type}}`, `{error: {status, details: [{reason, ...}]}}`.
#[derive(Default)]
struct Told<'b> {
    ids: Vec<&'b str>,
    out_of_credit: bool,
    daily_quota: bool,
    wait: Option<Duration>,
}

impl<'b> Told<'b> {
    fn read(body: &'b Value) -> Self {
        let mut told = Self::default();
        // Google sometimes wraps errors in a list.
        let Some(error) = body.get("error").or_else(|| body.pointer("/0/error")) else { return told };
        let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let named = ["type", "code", "status", "param"].into_iter().filter_map(|name| error.get(name));
        for value in named.chain(details.iter().take(8).filter_map(|detail| detail.get("reason"))) {
            if let Some(id) = value.as_str()
                && !told.ids.contains(&id)
            {
                told.ids.push(id);
            }
        }
        // Anthropic answers a plain 400 if the account is empty. Only the message shows that.
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        told.out_of_credit = message.to_ascii_lowercase().contains("credit balance is too low");
        for detail in details.iter().take(8) {
            let quotas = detail.get("violations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            told.daily_quota |= quotas
                .iter()
                .filter_map(|violation| violation.get("quotaId"))
                .chain(detail.pointer("/metadata/quota_limit"))
                .filter_map(Value::as_str)
                .any(|quota| quota.contains("PerDay"));
            if let Some(seconds) =
                detail.get("retryDelay").and_then(Value::as_str).and_then(|text| text.strip_suffix('s'))
            {
                told.wait = told.wait.or(seconds_of(seconds));
            }
        }
        told
    }

    fn is_billing(&self) -> bool {
        let tells = |id: &&str| {
            let id = id.to_ascii_lowercase();
            BILLING_WORDS.iter().any(|word| id.contains(word))
        };
        self.out_of_credit || self.daily_quota || self.ids.iter().any(tells)
    }
}

fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    let exact = header(headers, "retry-after-ms").and_then(|text| text.parse::<f64>().ok());
    if let Some(wait) = exact.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()) {
        return Some(wait);
    }
    let text = header(headers, "retry-after")?;
    seconds_of(text).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn seconds_of(text: &str) -> Option<Duration> {
    text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
