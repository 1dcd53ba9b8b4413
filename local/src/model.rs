//! A stand-in for a model: it speaks OpenAI's chat completions, streamed or not, and answers from a script. So that plans with
//! models, and repair loops above all, can be tried without a key and without a network.
//!
//! The script is `localstack/model.yaml`. It is read for every request, so a changed answer counts at once.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::domain::yaml;
use tokio::time::sleep;

use crate::checkout::Checkout;

/// The path of all addresses, as at OpenAI.
const BASE: &str = "/v1";
const MAX_BODY_BYTES: usize = 8 << 20;
const MAX_SCRIPT_BYTES: usize = 1 << 20;

/// The stand-in, with its script.
#[derive(Debug)]
pub struct ScriptedModel {
    script: PathBuf,
}

/// What each model answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: String,
    /// How long it takes to write a line.
    #[serde(default)]
    ms_per_line: u64,
    /// The first one that fits is given.
    answers: Vec<Scripted>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scripted {
    /// The answer fits if the messages contain all of these.
    #[serde(default)]
    when: Vec<String>,
    text: String,
}

#[derive(Deserialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

impl ScriptedModel {
    pub fn of(checkout: &Checkout) -> Self {
        Self { script: checkout.root().join("localstack/model.yaml") }
    }

    /// Its base URL on a port.
    pub fn url(port: u16) -> String {
        format!("http://127.0.0.1:{port}{BASE}")
    }

    pub fn router(self) -> Router {
        Router::new()
            .route(&format!("{BASE}/chat/completions"), post(complete))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::new(self))
    }

    fn script(&self) -> Result<Script> {
        let path = self.script.display();
        let text = std::fs::read_to_string(&self.script).with_context(|| format!("cannot read {path}"))?;
        let script = yaml::to_json(&text, MAX_SCRIPT_BYTES).with_context(|| path.to_string())?;
        serde_json::from_value(script).with_context(|| path.to_string())
    }
}

async fn complete(
    State(model): State<Arc<ScriptedModel>>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(request) = request.map_err(|why| Refusal(StatusCode::BAD_REQUEST, why.body_text()))?;
    let script = model.script().map_err(|why| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{why:#}")))?;
    let named = script.models.into_iter().find(|model| model.name == request.model);
    let named = named.ok_or_else(|| {
        Refusal(StatusCode::NOT_FOUND, format!("localstack/model.yaml has no model `{}`", request.model))
    })?;
    let fits = |answer: &Scripted| {
        answer.when.iter().all(|part| request.messages.iter().any(|message| message.content.contains(part.as_str())))
    };
    let fitting = named.answers.into_iter().find(fits);
    let text = fitting.map(|answer| answer.text).ok_or_else(|| {
        Refusal(StatusCode::BAD_REQUEST, format!("localstack/model.yaml has no answer of `{}` to this", request.model))
    })?;
    let usage = usage(&request, &text);
    if request.stream {
        let pause = Duration::from_millis(named.ms_per_line);
        return Ok(Sse::new(chunks(&named.name, &text, &usage, pause)).into_response());
    }
    let choice = json!({ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" });
    let answer = json!({ "object": "chat.completion", "model": named.name, "choices": [choice], "usage": usage });
    Ok(Json(answer).into_response())
}

/// The events of a streamed answer: a chunk for each line, the end, the usage, and `[DONE]`.
fn chunks(
    model: &str,
    text: &str,
    usage: &Value,
    pause: Duration,
) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let chunk = |choices: Value, usage: Value| {
        json!({ "object": "chat.completion.chunk", "model": model, "choices": choices, "usage": usage }).to_string()
    };
    let lines = text.split_inclusive('\n');
    let mut events: Vec<String> = lines
        .map(|line| chunk(json!([{ "index": 0, "delta": { "content": line }, "finish_reason": null }]), Value::Null))
        .collect();
    events.push(chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null));
    events.push(chunk(json!([]), usage.clone()));
    events.push("[DONE]".to_owned());
    stream::iter(events).then(move |data| async move {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        Ok(Event::default().data(data))
    })
}

/// About a token for four bytes, as real models count.
fn usage(request: &Request, text: &str) -> Value {
    let tokens = |bytes: usize| bytes.div_ceil(4);
    let prompt = tokens(request.messages.iter().map(|message| message.content.len()).sum());
    let completion = tokens(text.len());
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

/// An error as OpenAI words it.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": null });
        (status, Json(json!({ "error": error }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Client;
    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;
    use crate::gateway::server;
    use crate::process::stop::{self, StopSender};

    const SCRIPT: &str = r#"
models:
  - name: m
    answers:
      - when: [mend, it]
        text: "better\nanswer\n"
      - when: [hello]
        text: "first"
"#;

    struct Running {
        url: String,
        folder: TempDir,
        _stop_sender: StopSender,
    }

    impl Running {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let model = ScriptedModel { script: folder.path().join("model.yaml") };
            std::fs::write(&model.script, SCRIPT).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = ScriptedModel::url(listener.local_addr().unwrap().port());
            let (stop_sender, stop) = stop::channel();
            tokio::spawn(server::serve(listener, model.router(), || (), None, stop));
            Self { url, folder, _stop_sender: stop_sender }
        }

        async fn ask(&self, body: &Value) -> (u16, String) {
            let url = format!("{}/chat/completions", self.url);
            let answer = Client::new().post(url).json(body).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    }

    fn question(model: &str, text: &str, stream: bool) -> Value {
        json!({ "model": model, "stream": stream, "messages": [
            { "role": "system", "content": "Write." }, { "role": "user", "content": text },
        ] })
    }

    #[tokio::test]
    async fn the_first_answer_that_fits_the_messages_is_given() {
        let running = Running::start().await;
        let said = async |text: &str| {
            let (status, answer) = running.ask(&question("m", text, false)).await;
            let answer: Value = serde_json::from_str(&answer).unwrap();
            (status, answer["choices"][0]["message"]["content"].clone())
        };
        assert_eq!(said("hello").await, (200, json!("first")));
        assert_eq!(said("hello, mend it").await, (200, json!("better\nanswer\n")));
        assert_eq!(said("good bye").await, (400, Value::Null));
        std::fs::write(running.folder.path().join("model.yaml"), "models: []").unwrap();
        let (status, answer) = running.ask(&question("m", "hello", false)).await;
        assert!(status == 404 && answer.contains("has no model `m`"), "{status} {answer}");
    }

    #[tokio::test]
    async fn a_streamed_answer_comes_line_by_line_with_its_usage_and_its_end() {
        let running = Running::start().await;
        let (status, answer) = running.ask(&question("m", "mend it", true)).await;
        let events: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let [one, two, end, usage, "[DONE]"] = events[..] else { panic!("{status} {answer}") };
        let read = |event: &str| serde_json::from_str::<Value>(event).unwrap();
        assert_eq!(read(one)["choices"][0]["delta"]["content"], "better\n");
        assert_eq!(read(two)["choices"][0]["delta"]["content"], "answer\n");
        assert_eq!(read(end)["choices"][0]["finish_reason"], "stop");
        assert_eq!(read(usage)["usage"], json!({ "prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8 }));
    }
}
