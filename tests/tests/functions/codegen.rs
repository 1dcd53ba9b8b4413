//! `codegen` with a real worker: the timeline has its token usage, as docs/events.md says.

use ::codegen::{Codegen, CodegenConfig, PerProvider, Provider, ProviderKeys};
use axum::{Json, Router, routing};
use nofx_tests::delivery::event;
use nofx_tests::{Deliver, Lab, plans};
use serde_json::{Value, json};
use shared::domain::tool;
use shared::worker::{WorkThenRecord, Worker};
use tokio::net::TcpListener;

/// A fake server for both providers. `OpenAI`'s answer is cut off, Anthropic's is complete.
async fn providers() -> String {
    let cut_off = json!({
        "status": "incomplete", "incomplete_details": { "reason": "max_output_tokens" }, "model": "gpt", "output": [],
        "usage": { "input_tokens": 10, "output_tokens": 30 },
    });
    let complete = json!({
        "type": "message", "role": "assistant", "model": "claude", "content": [{ "type": "text", "text": "a text" }],
        "stop_reason": "end_turn", "usage": { "input_tokens": 10, "output_tokens": 7 },
    });
    let answer = |body: Value| routing::post(async move || Json(body));
    let router = Router::new().route("/v1/responses", answer(cut_off)).route("/v1/messages", answer(complete));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A worker of `codegen` with this secret of provider keys.
fn worker(lab: &Lab, url: &str, secret: &'static str) -> Worker<WorkThenRecord<Codegen>> {
    let url = Some(url.to_owned());
    let config = CodegenConfig {
        order: Some(vec![Provider::OpenAi, Provider::Anthropic]),
        base_urls: PerProvider { openai: url.clone(), anthropic: url, gemini: None },
        allow_template: true,
        ..CodegenConfig::default()
    };
    let codegen = Codegen::new(config, move |_| std::future::ready(ProviderKeys::from_secret(secret)));
    let spec = tool::handler("codegen").expect("a handler");
    Worker::new(lab.ctx.clone(), spec, WorkThenRecord(codegen.expect("a configuration")))
}

#[tokio::test]
async fn every_answer_with_token_counts_is_an_event_of_the_run() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let keys = r#"{ "OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b" }"#;
    for (secret, expected) in [(keys, vec![(false, json!(30)), (true, json!(7))]), ("{}", vec![(true, Value::Null)])] {
        let step = plans::step("write", "codegen", json!({ "prompt": "p" }));
        let run = lab.submit(&json!({ "goal": "g", "steps": [step] })).await;
        let sent = lab.sent().await;
        worker(&lab, &url, secret).handle_batch(event(&sent, Deliver::Once), None).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        let sql = "select payload from nofx.event where run_id = $1 and type = 'codegen.usage' order by seq";
        let payloads: Vec<Value> =
            lab.admin.query(sql, &[&run.0]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let reported: Vec<_> = payloads
            .iter()
            .map(|payload| (payload["usable"].as_bool().unwrap(), payload["output_tokens"].clone()))
            .collect();
        assert_eq!(reported, expected);
    }
    lab.assert_invariants().await;
}
