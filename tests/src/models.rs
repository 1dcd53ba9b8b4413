//! A model whose answers the test writes, in the format of OpenAI's Responses API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::{Json, Router, routing};
use codegen::{Codegen, CodegenConfig, PerProvider, Provider, ProviderKeys};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The function `codegen` with a fake provider behind it.
#[derive(Clone)]
pub struct Model {
    pub codegen: Arc<Codegen>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Model {
    /// A model that gives these answers in order, and repeats the last one.
    pub async fn answering(answers: impl IntoIterator<Item = String>) -> Self {
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = asked.clone();
        let answers: Arc<Mutex<VecDeque<String>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
        let answer = move |Json(body): Json<Value>| {
            let (seen, answers) = (seen.clone(), answers.clone());
            async move {
                seen.lock().expect("no panic").push(body);
                let mut answers = answers.lock().expect("no panic");
                let text = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                Json(response(&text.expect("an answer")))
            }
        };
        let router = Router::new().route("/v1/responses", routing::post(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = CodegenConfig {
            order: Some(vec![Provider::OpenAi.into()]),
            base_urls: PerProvider { openai: Some(url), ..PerProvider::default() },
            ..CodegenConfig::default()
        };
        let keys = |_| std::future::ready(ProviderKeys::from_secret(r#"{ "OPENAI_API_KEY": "key" }"#));
        Self { codegen: Arc::new(Codegen::new(config, keys).expect("a configuration")), asked }
    }

    /// The messages that it got, in order.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().map(|body| body["input"][0]["content"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn response(text: &str) -> Value {
    json!({
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-6-luna-2026-09-01",
        "output": [{ "type": "message", "role": "assistant", "status": "completed", "content": [{ "type": "output_text", "text": text }] }],
        "usage": { "input_tokens": 10, "output_tokens": 7, "total_tokens": 17 },
    })
}
