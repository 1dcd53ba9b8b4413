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

/// What a fault holds for. A cooldown is for no more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This request. The same model may answer another one.
    Request,
    /// The model, with this key at this server.
    Model,
    /// All models of the key at this server.
    Key,
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
    pub scope: Scope,
    pub status: Option<u16>,
    /// Safe to show.
    pub reason: String,
    /// How long the provider asks the client to wait.
    pub retry_after: Option<Duration>,
    pub timed_out: bool,
    /// The router does not send the same request again. The next attempt of the step may.
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
        let scope = match kind {
            FaultKind::Auth | FaultKind::Billing => Scope::Key,
            FaultKind::Transient => Scope::Model,
            _ => Scope::Request,
        };
        Self {
            kind,
            scope,
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

    /// A whole answer without a text. It was billed, so only a later attempt sends the request again.
    pub fn empty() -> Self {
        Self { scope: Scope::Request, do_not_retry: true, ..Self::sent(FaultKind::Transient, "the answer is empty") }
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

    /// An error that a provider reports within an answer, whole or streamed. The answer was begun, so it may be billed.
    pub fn within_answer(body: &Value) -> Self {
        // An event of OpenAI is itself the error.
        let wrapped = serde_json::json!({ "error": body });
        let body = if error_of(body).is_some_and(Value::is_object) { body } else { &wrapped };
        let code = error_of(body).and_then(|error| error.get("code")).and_then(Value::as_u64);
        let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
        let of_name = || ErrorBody::read(body).ids.iter().find_map(|id| status_of_error(id));
        let fault = Self::of_status(code.or_else(of_name).unwrap_or(500), body, &HeaderMap::new());
        let named = match (fault.reason.split_once(' '), code) {
            (Some((_, ids)), _) => ids.to_owned(),
            (None, Some(code)) => format!("error {code}"),
            (None, None) => "an error".to_owned(),
        };
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
            // The key is valid, and may not use this model.
            403 if error.ids.contains(&"model_not_found") => FaultKind::Rejected,
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
        let fault = Self::new(kind, reason);
        Self {
            status: Some(status),
            scope: if error.is_models_quota() { Scope::Model } else { fault.scope },
            retry_after: retry_after(headers).or(error.retry_after).map(|wait| wait.min(MAX_RETRY_AFTER)),
            do_not_retry: should_retry == Some("false"),
            ..fault
        }
    }
}

/// The status that a provider sends with this error if it happens before the answer begins.
fn status_of_error(id: &str) -> Option<u16> {
    Some(match id {
        "invalid_request_error" | "invalid_prompt" | "INVALID_ARGUMENT"
        // The provider's rules do not allow the request.
        | "bio_policy" | "content_filter" | "content_policy_violation" | "cyber_policy" | "image_content_policy_violation"
        | "policy_violation" => 400,
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
    /// Quotas of a day that are used up, by Google's names.
    daily_quotas: Vec<&'b str>,
    retry_after: Option<Duration>,
}

impl<'b> ErrorBody<'b> {
    fn read(body: &'b Value) -> Self {
        let mut parsed = Self::default();
        let Some(error) = error_of(body) else { return parsed };
        let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let named = ["type", "code", "status", "param"].into_iter().filter_map(|name| error.get(name));
        for value in named.chain(details.iter().take(8).filter_map(|detail| detail.get("reason"))) {
            if let Some(id) = value.as_str()
                && !parsed.ids.contains(&id)
            {
                parsed.ids.push(id);
            }
        }
        // Anthropic answers a plain 400 if the account has no credit, or has reached its own limit. Only the message says so.
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        parsed.out_of_credit = ["credit balance is too low", "reached your specified api usage limits"]
            .into_iter()
            .any(|sentence| message.contains(sentence));
        for detail in details.iter().take(8) {
            let violations = detail.get("violations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let quotas = violations.iter().filter_map(|violation| violation.get("quotaId"));
            let quotas = quotas.chain(detail.pointer("/metadata/quota_limit")).filter_map(Value::as_str);
            parsed.daily_quotas.extend(quotas.filter(|quota| quota.contains("PerDay")));
            if let Some(seconds) =
                detail.get("retryDelay").and_then(Value::as_str).and_then(|text| text.strip_suffix('s'))
            {
                parsed.retry_after = parsed.retry_after.or(parse_wait(seconds, 1.0));
            }
        }
        parsed
    }

    fn is_billing(&self) -> bool {
        let is_billing_word = |id: &&str| {
            let id = id.to_ascii_lowercase();
            BILLING_WORDS.iter().any(|word| id.contains(word))
        };
        self.out_of_credit || !self.daily_quotas.is_empty() || self.ids.iter().any(is_billing_word)
    }

    /// Whether all quotas that are used up are of one model.
    fn is_models_quota(&self) -> bool {
        !self.daily_quotas.is_empty() && self.daily_quotas.iter().all(|quota| quota.contains("PerModel"))
    }
}

/// The error in a body. Google sometimes wraps it in a list.
pub(crate) fn error_of(body: &Value) -> Option<&Value> {
    body.get("error").or_else(|| body.pointer("/0/error")).filter(|error| !error.is_null())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let exact = header(headers, "retry-after-ms").and_then(|text| parse_wait(text, 1000.0));
    if exact.is_some() {
        return exact;
    }
    let text = header(headers, "retry-after")?;
    parse_wait(text, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// A wait in units of which a second has `per_second`, at most [`MAX_RETRY_AFTER`]. `None` if it is negative or no number.
fn parse_wait(text: &str, per_second: f64) -> Option<Duration> {
    let text = text.trim();
    // The parser knows words too, such as `inf`.
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let seconds = text.parse::<f64>().ok()? / per_second;
    Some(Duration::from_secs_f64(seconds.min(MAX_RETRY_AFTER.as_secs_f64())))
}
