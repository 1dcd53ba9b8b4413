//! `codegen` with a real worker: the timeline has its token usage, as docs/events.md says.

use ::codegen::{Codegen, CodegenConfig, PerProvider, Provider, ProviderKeys};
use axum::{Json, Router, routing};
use nofx_tests::delivery::event;
use nofx_tests::{Deliver, Lab, plans};
use serde_json::{Value, json};
use shared::db::gate::{self, GateDecision};
use shared::domain::gate::Decision;
use shared::domain::{RunId, tool};
use shared::flow::decide_gate::decide_gate;
use shared::worker::{WorkThenRecord, Worker};
use tokio::net::TcpListener;

/// What an answer of the fake Anthropic costs in micro-dollars: 10 tokens at 2 dollars and 7 at 10 dollars per million.
const COST: i64 = 90;

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
        order: Some(vec![Provider::OpenAi.into(), Provider::Anthropic.into()]),
        base_urls: PerProvider { openai: url.clone(), anthropic: url, ..PerProvider::default() },
        allow_template: true,
        ..CodegenConfig::default()
    };
    let codegen = Codegen::new(config, move |_| std::future::ready(ProviderKeys::from_secret(secret)));
    let spec = tool::handler("codegen").expect("a handler");
    Worker::new(lab.ctx.clone(), spec, WorkThenRecord(codegen.expect("a configuration")))
}

#[tokio::test]
async fn every_request_and_its_tokens_are_events_of_the_run() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let keys = r#"{ "OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b" }"#;
    for (secret, expected) in [(keys, vec![(false, json!(30)), (true, json!(7))]), ("{}", vec![(true, Value::Null)])] {
        let step = plans::step("write", "codegen", json!({ "prompt": "p" }));
        let run = lab.submit(&json!({ "goal": "g", "steps": [step] })).await;
        let sent = lab.sent().await;
        worker(&lab, &url, secret).handle_batch(event(&sent, Deliver::Once), None).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        let sql =
            "select payload from nofx.event where run_id = $1 and type in ('llm.usage', 'codegen.usage') order by seq";
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

/// Delivers wake-ups until there are none.
async fn deliver(lab: &Lab, url: &str) {
    let keys = r#"{ "OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b" }"#;
    loop {
        let sent = lab.sent().await;
        if sent.is_empty() {
            return;
        }
        worker(lab, url, keys).handle_batch(event(&sent, Deliver::Once), None).await;
    }
}

async fn payloads(lab: &Lab, run: RunId, kind: &str) -> Vec<Value> {
    let sql = "select payload from nofx.event where run_id = $1 and type = $2 order by seq";
    lab.admin.query(sql, &[&run.0, &kind]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_budget_that_a_request_exceeds_blocks_the_step_until_somebody_raises_it() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let step = plans::step("write", "codegen", json!({ "prompt": "p", "provider": "anthropic" }));
    let run = lab.submit(&json!({ "goal": "g", "budget": { "usd": "0.0001" }, "steps": [step] })).await;
    deliver(&lab, &url).await;
    assert_eq!(lab.run_status(run).await, "blocked");
    assert!(payloads(&lab, run, "llm.attempt").await.is_empty(), "nothing was sent");
    let gates = gate::gate_list_of_run(&lab.session(), run, None, 10).await.unwrap();
    let [asked] = gates.items.as_slice() else { panic!("a gate") };
    assert_eq!(asked.gate_type, "budget");
    let approve = GateDecision {
        gate_id: asked.id,
        decision: Decision::Approve,
        actor: "ann",
        reason: Some("it is worth it"),
        seen: None,
    };
    decide_gate(&lab.ctx, &lab.session(), &approve).await.unwrap();
    deliver(&lab, &url).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let attempts = payloads(&lab, run, "llm.attempt").await;
    assert_eq!((attempts.len(), &attempts[0]["because"]), (1, &json!({ "why": "first" })));
    let [usage] = payloads(&lab, run, "llm.usage").await.try_into().unwrap();
    // 10 input and 7 output tokens of claude-sonnet-5-5.
    assert_eq!((&usage["usable"], &usage["cost_usd_micros"]), (&json!(true), &json!(COST)));
    let sql = "select spent_usd_micros, reserved_usd_micros from nofx.run where id = $1";
    let row = lab.admin.query_one(sql, &[&run.0]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (COST, 0));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_fallback_says_in_the_timeline_which_model_failed_and_why() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let run =
        lab.submit(&json!({ "goal": "g", "steps": [plans::step("write", "codegen", json!({ "prompt": "p" }))] })).await;
    deliver(&lab, &url).await;
    let attempts = payloads(&lab, run, "llm.attempt").await;
    let because: Vec<_> = attempts.iter().map(|attempt| &attempt["because"]).collect();
    let fallback = json!({ "why": "fallback", "provider": "openai", "model": "gpt-6-luna", "kind": "unusable",
                           "reason": "the answer is cut off: max_output_tokens" });
    assert_eq!(because, [&json!({ "why": "first" }), &fallback]);
    let usage = payloads(&lab, run, "llm.usage").await;
    assert_eq!((&usage[0]["usable"], &usage[0]["kind"]), (&json!(false), &json!("unusable")));
    assert!(usage[0]["cost_usd_micros"].as_i64().unwrap() > 0, "a cut-off answer is paid for");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_artifact_that_a_model_read_is_in_the_lineage_of_its_answer() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let mut second = plans::step(
        "second",
        "codegen",
        json!({ "prompt": "p", "artifacts": ["${{ steps.first.outputs.artifact_id }}"] }),
    );
    second["depends_on"] = json!(["first"]);
    let first = plans::step("first", "codegen", json!({ "prompt": "p" }));
    let run = lab.submit(&json!({ "goal": "g", "steps": [first, second] })).await;
    deliver(&lab, &url).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let sql = "select count(*) from nofx.artifact_edge e join nofx.artifact a on a.id = e.child_id
                where a.run_id = $1 and a.type = $2";
    for (kind, edges) in [("text", 1), ("sbom", 2)] {
        assert_eq!(lab.admin.query_one(sql, &[&run.0, &kind]).await.unwrap().get::<_, i64>(0), edges, "{kind}");
    }
    lab.assert_invariants().await;
}
