//! Why a request gave no usable answer, and what that means for the next one.
//!
//! A provider's own message is never repeated: it can echo the prompt or a part of the key. Codes and types are, when they look
//! like identifiers.

use std::time::{Duration, SystemTime};

use genai::webc;
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::Value;

use crate::usage::TokenUsage;

/// A longer wait than this is not believed.
const MAX_ASKED_WAIT: Duration = Duration::from_hours(1);
/// A code or type with one of these in it tells that money or quota is at its end.
const BILLING_WORDS: [&str; 7] = [
    "billing",
    "credit",
    "insufficient_balance",
    "insufficient_funds",
    "insufficient_quota",
    "quota_exceeded",
    "spend_limit",
];

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// May pass by itself: try again, or another provider.
    Transient,
    /// No money or no quota left: only a person can help.
    Billing,
    /// The key is refused.
    Auth,
    /// The request is refused; it would be again.
    Rejected,
    /// An answer came that is no answer: refused, cut off, empty, unreadable.
    Unusable,
    /// No key is configured, so nothing was asked.
    NoKey,
}

/// One request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub status: Option<u16>,
    /// Safe to show.
    pub reason: String,
    /// How long the provider asks us to wait.
    pub wait: Option<Duration>,
    pub timed_out: bool,
    /// The provider says that the same request need not be tried again.
    pub final_word: bool,
    /// An unusable answer may have been billed.
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

    pub fn of(error: &genai::Error) -> Self {
        match error {
            genai::Error::WebModelCall { webc_error, .. } | genai::Error::WebAdapterCall { webc_error, .. } => {
                of_web(webc_error)
            }
            genai::Error::HttpError { status, body, headers, .. } => of_status(status.as_u16(), body, headers),
            genai::Error::ChatResponseGeneration { response_body, .. } => Self::unusable(of_unreadable(response_body)),
            _ => Self::new(FaultKind::Rejected, "the request could not be made"),
        }
    }
}

fn of_web(error: &webc::Error) -> Fault {
    match error {
        webc::Error::ResponseFailedStatus { status, body, headers } => of_status(status.as_u16(), body, headers),
        webc::Error::Reqwest(error) if error.is_timeout() => {
            Fault { timed_out: true, ..Fault::new(FaultKind::Transient, "the request timed out") }
        }
        webc::Error::Reqwest(error) if error.is_connect() => Fault::new(FaultKind::Transient, "the connection failed"),
        webc::Error::Reqwest(error) if error.is_builder() => {
            Fault::new(FaultKind::Rejected, "the request could not be built")
        }
        webc::Error::Reqwest(_) => Fault::new(FaultKind::Transient, "the connection broke off"),
        webc::Error::ResponseFailedNotJson { .. } | webc::Error::ResponseFailedInvalidJson { .. } => {
            Fault::unusable("the answer is not JSON")
        }
        webc::Error::JsonValueExt(_) => Fault::unusable("the answer is unreadable"),
    }
}

/// A 200 that genai could not read. Gemini tells a blocked prompt in this way.
fn of_unreadable(body: &Value) -> String {
    match body.pointer("/promptFeedback/blockReason").and_then(Value::as_str).and_then(identifier) {
        Some(reason) => format!("the prompt was blocked: {reason}"),
        None => "the answer is unreadable".to_owned(),
    }
}

fn of_status(status: u16, body: &str, headers: &HeaderMap) -> Fault {
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
    for id in &told.ids {
        reason.push(' ');
        reason.push_str(id);
    }
    Fault {
        status: Some(status),
        wait: wait_of(headers).or(told.wait).map(|wait| wait.min(MAX_ASKED_WAIT)),
        final_word: should_retry == Some("false"),
        ..Fault::new(kind, reason)
    }
}

/// What an error body says, in the shapes of all three providers:
/// `{error: {type, code, param}}`, `{type: "error", error: {type}}`, `{error: {status, details: [{reason, ...}]}}`.
#[derive(Default)]
struct Told {
    ids: Vec<String>,
    out_of_credit: bool,
    daily_quota: bool,
    wait: Option<Duration>,
}

impl Told {
    fn read(body: &str) -> Self {
        let mut told = Self::default();
        let Ok(body) = serde_json::from_str::<Value>(body) else { return told };
        // Google wraps errors into a list at times.
        let Some(error) = body.get("error").or_else(|| body.pointer("/0/error")) else { return told };
        let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let named = ["type", "code", "status", "param"].into_iter().filter_map(|name| error.get(name));
        for value in named.chain(details.iter().take(8).filter_map(|detail| detail.get("reason"))) {
            if let Some(id) = value.as_str().and_then(identifier)
                && !told.ids.contains(&id)
            {
                told.ids.push(id);
            }
        }
        // Anthropic tells an empty account with a plain 400; its message is the only sign.
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
        let tells = |id: &String| {
            let id = id.to_ascii_lowercase();
            BILLING_WORDS.iter().any(|word| id.contains(word))
        };
        self.out_of_credit || self.daily_quota || self.ids.iter().any(tells)
    }
}

/// The text, if it can be nothing but a name.
pub(crate) fn identifier(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-[]/:".contains(&byte);
    (!text.is_empty() && text.len() <= 100 && text.bytes().all(allowed)).then(|| text.to_owned())
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
