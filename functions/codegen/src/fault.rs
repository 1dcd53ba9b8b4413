//! Why a request gave no usable answer, and whether to retry.
//!
//! Faults never repeat a provider's own text, because it can echo the prompt or part of the key. Codes and types are
//! compared as received, and shown only if `redact` allows them.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::Value;

use crate::redact::allowed_word;
use crate::usage::TokenUsage;

/// A provider's wait is capped at this.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A code or type that contains one of these words means that the account has no credit or quota left.
const BILLING_WORDS: [&str; 7] = [
    "billing",
    "credit",
    "insufficient_balance",
    "insufficient_funds",
    "insufficient_quota",
    "quota_exceeded",
    "spend_limit",
];

/// The kind of a fault. It decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A retry or another provider may succeed.
    Transient,
    /// The account has no credit or quota left. An operator must act.
    Billing,
    /// The provider rejected the key.
    Auth,
    /// The provider rejected the request. A retry would not help.
    Rejected,
    /// The answer is a refusal, cut off, empty or unreadable.
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
    /// How long the provider asks the client to wait.
    pub retry_after: Option<Duration>,
    pub timed_out: bool,
    /// Do not send the same request again in this step.
    pub do_not_retry: bool,
    /// Tokens of an unusable answer, which may be billed.
    pub usage: Option<Box<TokenUsage>>,
}

impl Fault {
    pub fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            reason: reason.into(),
            retry_after: None,
            timed_out: false,
            do_not_retry: false,
            usage: None,
        }
    }

    pub fn timed_out(limit: Duration) -> Self {
        let reason = format!("no answer within {:.1} s", limit.as_secs_f64());
        Self { timed_out: true, ..Self::new(FaultKind::Transient, reason) }
    }

    pub fn unusable(reason: impl Into<String>) -> Self {
        Self::new(FaultKind::Unusable, reason)
    }

    /// A 200 whose body is empty or ends early. It was billed, so only a later attempt sends the request again.
    pub fn truncated() -> Self {
        Self { do_not_retry: true, ..Self::new(FaultKind::Transient, "the answer is empty or truncated") }
    }

    pub fn of_transport(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::new(FaultKind::Rejected, "the request could not be built")
        } else if error.is_connect() {
            // Treat a connect timeout like a request timeout: one more try.
            Self { timed_out: error.is_timeout(), ..Self::new(FaultKind::Transient, "the connection failed") }
        } else {
            Self::new(FaultKind::Transient, "the connection was lost")
        }
    }

    /// The fault of an answer with an error status.
    pub fn of_status(status: u16, body: &Value, headers: &HeaderMap) -> Self {
        let error = ErrorBody::read(body);
        let mut kind = match status {
            _ if status == 402 || error.is_billing() => FaultKind::Billing,
            401 | 403 => FaultKind::Auth,
            400 if error.ids.iter().any(|id| id.eq_ignore_ascii_case("API_KEY_INVALID")) => FaultKind::Auth,
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
        for id in error.ids.iter().filter_map(|id| allowed_word(id)) {
            reason.push(' ');
            reason.push_str(id);
        }
        Self {
            status: Some(status),
            retry_after: retry_after(headers).or(error.retry_after).map(|wait| wait.min(MAX_RETRY_AFTER)),
            do_not_retry: should_retry == Some("false"),
            ..Self::new(kind, reason)
        }
    }
}

/// An error body in the format of any provider:
/// `{error: {type, code, param}}`, `{type: "error", error: {type}}`, `{error: {status, details: [{reason, ...}]}}`.
#[derive(Default)]
struct ErrorBody<'b> {
    ids: Vec<&'b str>,
    out_of_credit: bool,
    daily_quota: bool,
    retry_after: Option<Duration>,
}

impl<'b> ErrorBody<'b> {
    fn read(body: &'b Value) -> Self {
        let mut parsed = Self::default();
        // Google sometimes wraps errors in a list.
        let Some(error) = body.get("error").or_else(|| body.pointer("/0/error")) else { return parsed };
        let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let named = ["type", "code", "status", "param"].into_iter().filter_map(|name| error.get(name));
        for value in named.chain(details.iter().take(8).filter_map(|detail| detail.get("reason"))) {
            if let Some(id) = value.as_str()
                && !parsed.ids.contains(&id)
            {
                parsed.ids.push(id);
            }
        }
        // Anthropic answers a plain 400 if the account has no credit. Only the message says so.
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        parsed.out_of_credit = message.to_ascii_lowercase().contains("credit balance is too low");
        for detail in details.iter().take(8) {
            let quotas = detail.get("violations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            parsed.daily_quota |= quotas
                .iter()
                .filter_map(|violation| violation.get("quotaId"))
                .chain(detail.pointer("/metadata/quota_limit"))
                .filter_map(Value::as_str)
                .any(|quota| quota.contains("PerDay"));
            if let Some(seconds) =
                detail.get("retryDelay").and_then(Value::as_str).and_then(|text| text.strip_suffix('s'))
            {
                parsed.retry_after = parsed.retry_after.or(parse_seconds(seconds));
            }
        }
        parsed
    }

    fn is_billing(&self) -> bool {
        let is_billing_word = |id: &&str| {
            let id = id.to_ascii_lowercase();
            BILLING_WORDS.iter().any(|word| id.contains(word))
        };
        self.out_of_credit || self.daily_quota || self.ids.iter().any(is_billing_word)
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let exact = header(headers, "retry-after-ms").and_then(|text| text.parse::<f64>().ok());
    if let Some(wait) = exact.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()) {
        return Some(wait);
    }
    let text = header(headers, "retry-after")?;
    parse_seconds(text).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn parse_seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
