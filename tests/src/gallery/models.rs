//! Two providers of models on this machine. OpenAI is overloaded when it is asked for a review, so that the answer comes
//! from Anthropic.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const NOTES: &str = "# Delivery costs\n\nOrders of **50 euros** and more are delivered for nothing. Others cost 4.95 euros.\n\n\
## What changed\n\n- `shipping()` is new, with tests for both sides of the limit.\n- The cart shows the cost before the address is asked for.\n\n\
| order | cost |\n|---|---|\n| 49.99 | 4.95 |\n| 50.00 | 0.00 |\n\n```ts\nshipping(money(4_999)); // 4.95 EUR\n```\n\n\
> Nothing changes for orders that were placed before.\n\nSee [the issue](https://example.com/issues/41).\n";

const SUMMARY: &str = r#"{"orders": 1284, "free": 391, "revenue": {"EUR": 4420.35, "CHF": 310.0}, "currencies": ["EUR", "CHF"], "complete": true, "note": null}"#;

const CODE: &str = "import { money, type Money } from \"./money.js\";\n\n/** Express delivery costs twice as much. */\n\
export function express(subtotal: Money): Money {\n  return money(subtotal.cents >= 10_000 ? 0 : 990, subtotal.currency);\n}\n";

const REVIEW: &str = "The limit is tested on both sides. `money(495, ...)` repeats the number of the rates table: consider \
reading it from there.\n\nNothing else to say.\n";

/// The text for a prompt.
fn text(prompt: &str) -> &'static str {
    if prompt.contains("second pair of eyes") {
        REVIEW
    } else if prompt.contains("as JSON") {
        SUMMARY
    } else if prompt.contains("TypeScript") {
        CODE
    } else {
        NOTES
    }
}

/// Starts both and returns their URL.
pub async fn serve() -> String {
    let router =
        Router::new().route("/v1/responses", routing::post(openai)).route("/v1/messages", routing::post(anthropic));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn openai(Json(asked): Json<Value>) -> Response {
    let prompt = asked.to_string();
    if prompt.contains("second pair of eyes") {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": { "message": "overloaded" } })))
            .into_response();
    }
    let content = json!([{ "type": "output_text", "text": text(&prompt) }]);
    Json(json!({
        "status": "completed", "model": asked["model"], "usage": { "input_tokens": 1_812, "output_tokens": 604 },
        "output": [{ "type": "message", "role": "assistant", "status": "completed", "content": content }],
    }))
    .into_response()
}

async fn anthropic(Json(asked): Json<Value>) -> Response {
    Json(json!({
        "type": "message", "role": "assistant", "model": asked["model"], "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": text(&asked.to_string()) }],
        "usage": { "input_tokens": 2_304, "output_tokens": 211 },
    }))
    .into_response()
}
