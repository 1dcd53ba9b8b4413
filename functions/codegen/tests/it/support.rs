//! Fake providers with scripted replies, a fake ledger of model calls, and the bodies that real providers send.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response};
use codegen::{Codegen, CodegenConfig, Generated, PerProvider, Provider, ProviderKeys};
use futures::StreamExt;
use serde_json::{Value, json};
use shared::domain::{GateDecision, ModelTerms, Outcome, RunId, StepError, StepId, TenantId, Verdict};
use shared::worker::ClaimedStep;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use crate::ledger::Ledger;

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A scripted answer of a fake provider.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// How often to send the body in one answer. More than once means chunked encoding.
    pub times: usize,
    pub delay: Duration,
    /// After the body the connection breaks, or nothing more is sent.
    pub end: End,
}

/// What follows a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    Breaks,
    Hangs,
    /// Comments follow, which keep the connection open.
    Comments,
}

/// A request that a fake provider received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Value,
    pub body_bytes: usize,
}

/// A server that sends its replies in order and repeats the last one.
pub struct FakeProvider {
    pub url: String,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    sent: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Script {
    replies: Vec<Reply>,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    sent: Arc<AtomicUsize>,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string().into_bytes(), times: 1, delay: Duration::ZERO, end: End::Whole }
    }

    pub fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    /// Sets the body and how often to send it. `usize::MAX` never ends.
    pub fn body(mut self, body: impl Into<Vec<u8>>, times: usize) -> Self {
        (self.body, self.times) = (body.into(), times);
        self
    }

    /// Sets a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    /// A streamed answer with these events.
    pub fn events(events: &[Value]) -> Self {
        let body: String = events.iter().map(event).collect();
        Self::ok(&Value::Null).with_header("content-type", "text/event-stream").body(body, 1)
    }

    pub fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// An event as providers write it. A text is not JSON, such as `[DONE]`.
pub fn event(data: &Value) -> String {
    let name = data.get("type").and_then(Value::as_str).map(|name| format!("event: {name}\n")).unwrap_or_default();
    match data {
        Value::String(text) => format!("data: {text}\n\n"),
        data => format!("{name}data: {data}\n\n"),
    }
}

impl FakeProvider {
    /// A server that reads a request and closes the connection.
    pub async fn closing() -> Self {
        let (requests, sent): (Arc<Mutex<Vec<ReceivedRequest>>>, _) = (Arc::default(), Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut start = vec![0; 64 * 1024];
                if connection.read(&mut start).await.is_ok_and(|read| read > 0) {
                    let (path, query, headers) = (String::new(), String::new(), HeaderMap::new());
                    let request = ReceivedRequest { path, query, headers, body: Value::Null, body_bytes: 0 };
                    seen.lock().unwrap().push(request);
                }
            }
        });
        Self { url, requests, sent }
    }

    pub async fn start(replies: Vec<Reply>) -> Self {
        let (requests, sent) = (Arc::default(), Arc::default());
        let script = Script { replies, requests: Arc::clone(&requests), sent: Arc::clone(&sent) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(script);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, requests, sent }
    }

    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Number of body bytes sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    pub fn calls(&self) -> usize {
        self.requests().len()
    }
}

async fn answer(State(script): State<Script>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let reply = {
        let mut requests = script.requests.lock().unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        requests.push(ReceivedRequest { path, query, headers: parts.headers, body, body_bytes: bytes.len() });
        script.replies[(requests.len() - 1).min(script.replies.len() - 1)].clone()
    };
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let (body, sent) = (axum::body::Bytes::from(reply.body), script.sent);
    sent.fetch_add(body.len(), Ordering::SeqCst);
    if reply.end == End::Comments {
        let comments = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(axum::body::Bytes::from_static(b": keep-alive\n\n")), ()))
        });
        let start = futures::stream::iter([Ok(body)]);
        return response.body(Body::from_stream(start.chain(comments))).unwrap();
    }
    if reply.end != End::Whole {
        let end = futures::stream::once(async move {
            match reply.end {
                End::Hangs => std::future::pending().await,
                _ => Err::<axum::body::Bytes, _>(std::io::Error::other("the script ends here")),
            }
        });
        // The body is sent before the end is reached.
        let start = futures::stream::iter([Ok(body)]).chain(futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(axum::body::Bytes::new())
        }));
        return response.body(Body::from_stream(start.chain(end))).unwrap();
    }
    if reply.times == 1 {
        return response.body(Body::from(body)).unwrap();
    }
    let chunks = futures::stream::iter(0..reply.times).map(move |_| {
        sent.fetch_add(body.len(), Ordering::SeqCst);
        Ok::<_, Infallible>(body.clone())
    });
    response.body(Body::from_stream(chunks)).unwrap()
}

/// A configuration with quick retries. A provider without a fake is unreachable.
pub fn config(
    openai: Option<&FakeProvider>,
    anthropic: Option<&FakeProvider>,
    gemini: Option<&FakeProvider>,
) -> CodegenConfig {
    let url = |fake: Option<&FakeProvider>| {
        Some(fake.map_or_else(|| "http://127.0.0.1:9/v1".to_owned(), |fake| fake.url.clone()))
    };
    let base_urls =
        PerProvider { openai: url(openai), anthropic: url(anthropic), gemini: url(gemini), compatible: None };
    CodegenConfig {
        order: Some([Provider::OpenAi, Provider::Anthropic, Provider::Gemini].map(Into::into).to_vec()),
        base_urls,
        backoff: Duration::from_millis(1),
        request_timeout: Duration::from_secs(5),
        ..CodegenConfig::default()
    }
}

/// Codegen, and a ledger instead of the database.
pub struct Lab {
    pub codegen: Codegen,
    pub ledger: Ledger,
}

/// A lab with keys for the named providers: `key-openai` and so on.
pub fn codegen(config: CodegenConfig, providers: &[Provider]) -> Lab {
    let members: serde_json::Map<_, _> =
        providers.iter().map(|provider| (provider.key_name().to_owned(), json!(format!("key-{provider}")))).collect();
    let secret = Value::Object(members).to_string();
    Lab::new(Codegen::new(config, move |_| std::future::ready(ProviderKeys::from_secret(&secret))).unwrap())
}

impl Lab {
    pub fn new(codegen: Codegen) -> Self {
        Self { codegen, ledger: Ledger::default() }
    }

    /// Generates, with the ledger's terms. Every request that is started is ended.
    pub async fn run(&self, inputs: Value, timeout: Duration) -> Result<Generated, Box<Outcome>> {
        let mut step = step(inputs);
        // A tenth is reserved for storing.
        step.timeout = timeout.mul_f64(1.0 / 0.9);
        self.generate(step).await
    }

    /// The same in a later attempt, after a gate has passed.
    pub async fn resume(&self, inputs: Value, attempt: u32, passed: GateDecision) -> Result<Generated, Box<Outcome>> {
        self.generate(ClaimedStep { attempt, decisions: vec![passed], ..step(inputs) }).await
    }

    async fn generate(&self, mut step: ClaimedStep) -> Result<Generated, Box<Outcome>> {
        step.models = self.ledger.terms();
        let made = self.codegen.generate(&step, None, &self.ledger.calls()).await;
        self.ledger.assert_settled();
        made
    }
}

pub fn step(inputs: Value) -> ClaimedStep {
    ClaimedStep {
        tenant_id: TenantId("local".into()),
        run_id: RunId(Uuid::nil()),
        step_id: StepId(Uuid::nil()),
        name: "write".into(),
        tool: "codegen".into(),
        attempt: 1,
        inputs,
        goal: String::new(),
        workspace: None,
        base_origin: None,
        artifacts: std::collections::BTreeMap::new(),
        timeout: TIMEOUT,
        timeout_s: None,
        policy: shared::domain::Policy::default(),
        decisions: Vec::new(),
        models: ModelTerms::default(),
        repair: None,
    }
}

pub fn topic() -> Value {
    json!({ "topic": "Gates", "bullets": ["why", "how"] })
}

pub async fn generate(lab: &Lab, inputs: Value) -> Generated {
    lab.run(inputs, TIMEOUT).await.unwrap_or_else(|outcome| panic!("{outcome:?}"))
}

/// Generates, and must fail. Returns the error, whether it is retryable, and the outcome.
pub async fn failure(lab: &Lab, inputs: Value) -> (StepError, bool, Outcome) {
    let outcome = *lab.run(inputs, TIMEOUT).await.unwrap_err();
    match &outcome.verdict {
        Verdict::Failed { error, retryable, .. } => (error.clone(), *retryable, outcome),
        other => panic!("{other:?}"),
    }
}

pub fn openai(text: &str) -> Value {
    json!({
        "id": "resp_1", "object": "response", "status": "completed", "error": null, "incomplete_details": null,
        "model": "gpt-6-luna-2026-09-01",
        "output": [
            { "type": "reasoning", "id": "rs_1", "summary": [] },
            { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
              "content": [{ "type": "output_text", "text": text, "annotations": [] }] },
        ],
        "usage": { "input_tokens": 100, "input_tokens_details": { "cached_tokens": 40 },
                   "output_tokens": 30, "output_tokens_details": { "reasoning_tokens": 12 }, "total_tokens": 130 },
    })
}

pub fn anthropic(text: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5-20260901",
        "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 70, "output_tokens": 30 },
    })
}

pub fn gemini(text: &str) -> Value {
    json!({
        "candidates": [{ "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": "STOP", "index": 0 }],
        "usageMetadata": { "promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 18,
                           "thoughtsTokenCount": 12, "totalTokenCount": 130 },
        "modelVersion": "gemini-3.8-flash-001",
    })
}

pub fn chat(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "qwen3-max-2026",
        "choices": [{ "index": 0, "finish_reason": "stop",
                      "message": { "role": "assistant", "content": text, "refusal": null, "tool_calls": [] } }],
        "usage": { "prompt_tokens": 100, "prompt_tokens_details": { "cached_tokens": 40 },
                   "completion_tokens": 30, "completion_tokens_details": { "reasoning_tokens": 12 }, "total_tokens": 130 },
    })
}

pub fn openai_error(status: u16, code: &str) -> Reply {
    Reply::json(status, &json!({ "error": { "message": "a message", "type": code, "code": code, "param": null } }))
}

/// Replaces the value at this JSON pointer.
pub fn with(mut body: Value, pointer: &str, value: Value) -> Value {
    *body.pointer_mut(pointer).unwrap() = value;
    body
}
