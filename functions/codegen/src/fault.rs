//! Why a request gave no usable answer, and whether to retry.
//!
//! Faults never repeat a provider's own text, because it can echo the prompt or part of the key. Codes and types are
//! compared as received, and shown only if `redact` allows them.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use shared::domain::TokenUsage;

use crate::redact::allowed_word;

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
    /// The provider was not asked: no key, no URL or no model is configured.
    NoKey,
    /// The provider was not asked: the tenant's policy does not allow it.
    NotAllowed,
    /// The provider was not asked: its format cannot express a parameter of the step.
    Unsupported,
    /// The model was not asked: a budget applies, and the model has no price.
    Unpriced,
    /// The step was cancelled or its lease was lost while the request was in flight.
    Stopped,
}

/// What a request without a usable answer cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spent {
    /// It was never sent, or the provider refused it by its status.
    Nothing,
    /// It was sent, and the provider did not say what it used.
    Unknown,
    Usage(Box<TokenUsage>),
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
    pub spent: Spent,
}

impl FaultKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Billing => "billing",
            Self::Auth => "auth",
            Self::Rejected => "rejected",
            Self::Unusable => "unusable",
            Self::NoKey => "no_key",
            Self::NotAllowed => "not_allowed",
            Self::Unsupported => "unsupported",
            Self::Unpriced => "unpriced",
            Self::Stopped => "stopped",
        }
    }

    /// The kind of a recorded failure or cooldown. Unknown names, of a later release, count as transient.
    pub(crate) fn of_name(name: &str) -> Self {
        let asked = [Self::Billing, Self::Auth, Self::Rejected, Self::Unusable];
        let left_out = [Self::NoKey, Self::NotAllowed, Self::Unsupported, Self::Unpriced];
        asked.into_iter().chain(left_out).find(|kind| kind.as_str() == name).unwrap_or(Self::Transient)
    }
}

impl Fault {
    /// A fault of a request that cost nothing.
    pub fn new(kind: FaultKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            reason: reason.into(),
            retry_after: None,
            timed_out: false,
            do_not_retry: false,
            spent: Spent::Nothing,
        }
    }

    /// The same after the request was sent.
    fn sent(kind: FaultKind, reason: impl Into<String>) -> Self {
        Self { spent: Spent::Unknown, ..Self::new(kind, reason) }
    }

    pub fn timed_out(limit: Duration) -> Self {
        let reason = format!("no answer within {:.1} s", limit.as_secs_f64());
        Self { timed_out: true, ..Self::sent(FaultKind::Transient, reason) }
    }

    /// The request was aborted, because the attempt lost its step. It may be billed, but its tokens stay unknown.
    pub fn stopped() -> Self {
        Self::sent(FaultKind::Stopped, "stopped: the step was cancelled or its lease was lost")
    }

    /// A streamed answer paused for too long.
    pub fn stalled(idle: Duration) -> Self {
        let reason = format!("nothing received for {:.1} s", idle.as_secs_f64());
        Self { timed_out: true, ..Self::sent(FaultKind::Transient, reason) }
    }

    pub fn unusable(reason: impl Into<String>) -> Self {
        Self::sent(FaultKind::Unusable, reason)
    }

    /// A 200 whose body is empty or ends early. It was billed, so only a later attempt sends the request again.
    pub fn truncated() -> Self {
        Self { do_not_retry: true, ..Self::sent(FaultKind::Transient, "the answer is empty or truncated") }
    }

    pub fn of_transport(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::new(FaultKind::Rejected, "the request could not be built")
        } else if error.is_connect() {
            // Treat a connect timeout like a request timeout: one more try.
            Self { timed_out: error.is_timeout(), ..Self::new(FaultKind::Transient, "the connection failed") }
        } else {
            Self::sent(FaultKind::Transient, "the connection was lost")
        }
    }

    /// An error that a provider reports within a streamed answer. The answer was begun, so it may be billed.
    pub fn in_stream(event: &Value) -> Self {
        // OpenAI's event is itself the error.
        let wrapped = serde_json::json!({ "error": event });
        let body = if event.get("error").is_some_and(Value::is_object) { event } else { &wrapped };
        let ids = ErrorBody::read(body).ids;
        let status = match body.pointer("/error/code").and_then(Value::as_u64) {
            Some(code) => u16::try_from(code).unwrap_or(500),
            None => ids.iter().find_map(|id| status_of_error(id)).unwrap_or(500),
        };
        let fault = Self::of_status(status, body, &HeaderMap::new());
        let named = fault.reason.split_once(' ').map_or("an error", |(_, ids)| ids);
        Self {
            reason: format!("{named} within the answer"),
            status: None,
            do_not_retry: true,
            spent: Spent::Unknown,
            ..fault
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

/// The status that a provider sends with this error if it happens before the answer begins.
fn status_of_error(id: &str) -> Option<u16> {
    Some(match id {
        "invalid_request_error" | "invalid_prompt" | "INVALID_ARGUMENT" => 400,
        "authentication_error" | "invalid_api_key" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" | "model_not_found" => 404,
        "request_too_large" => 413,
        "rate_limit_error" | "rate_limit_exceeded" => 429,
        "overloaded_error" => 529,
        _ => return None,
    })
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
