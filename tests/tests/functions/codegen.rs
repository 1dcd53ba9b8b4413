//! `codegen` with a real worker: the timeline has its token usage, as docs/events.md says.

use std::sync::Arc;
use std::time::Duration;

use ::codegen::{Codegen, CodegenConfig, PerProvider, Provider, ProviderKeys};
use axum::body::{Body, Bytes};
use axum::{Json, Router, routing};
use futures::{StreamExt, stream};
use nofx_tests::delivery::event;
use nofx_tests::{Deliver, Lab, plans};
use serde_json::{Value, json};
use shared::db::gate::{self, GateDecision};
use shared::db::policy::{NewPolicy, policy_set};
use shared::domain::gate::Decision;
use shared::domain::{ArtifactId, ArtifactRef, RunId, tool};
use shared::encryption::decrypt;
use shared::flow::decide_gate::decide_gate;
use shared::signing::PrivateKey;
use shared::worker::{WorkThenRecord, Worker};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What an answer of the fake Anthropic costs in micro-dollars: 10 tokens at 2 dollars and 7 at 10 dollars per million.
const COST: i64 = 90;

/// A fake server for both providers. `OpenAI`'s answer is cut off, Anthropic's is complete.
pub async fn providers() -> String {
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
        progress_period: Duration::ZERO,
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
pub async fn deliver(lab: &Lab, url: &str) {
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
async fn a_budget_that_ends_between_two_models_buys_no_answer_twice() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let step = plans::step("write", "codegen", json!({ "prompt": "p", "max_output_tokens": 1000 }));
    // Enough for the first model, whose answer is cut off and paid for, and not for the second one.
    let run = lab.submit(&json!({ "goal": "g", "budget": { "usd": "0.01" }, "steps": [step] })).await;
    deliver(&lab, &url).await;
    let gates = gate::gate_list_of_run(&lab.session(), run, None, 10).await.unwrap();
    let [asked] = gates.items.as_slice() else { panic!("a gate") };
    let reason = asked.reason.as_deref().unwrap();
    assert!(reason.contains("the next request, to anthropic/claude-sonnet-5-5, needs up to"), "{reason}");
    let approve =
        GateDecision { gate_id: asked.id, decision: Decision::Approve, actor: "ann", reason: None, seen: None };
    decide_gate(&lab.ctx, &lab.session(), &approve).await.unwrap();
    deliver(&lab, &url).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let attempts = payloads(&lab, run, "llm.attempt").await;
    let providers: Vec<_> = attempts.iter().map(|attempt| &attempt["provider"]).collect();
    assert_eq!(providers, ["openai", "anthropic"]);
    let because = &attempts[1]["because"];
    assert_eq!((&because["why"], &because["provider"]), (&json!("fallback"), &json!("openai")));
    let sql = "select metadata from nofx.artifact where run_id = $1 and metadata ? 'attempts'";
    let metadata: Value = lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0);
    assert_eq!(
        (&metadata["attempts"][0]["provider"], &metadata["attempts"][0]["kind"]),
        (&json!("openai"), &json!("unusable"))
    );
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

#[tokio::test]
async fn a_step_with_a_cache_takes_the_earlier_answer_and_says_what_it_saved() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let run = async |inputs: Value| {
        let mut inputs = inputs;
        inputs["provider"] = json!("anthropic");
        let run = lab.submit(&json!({ "goal": "g", "steps": [plans::step("write", "codegen", inputs)] })).await;
        deliver(&lab, &url).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        (run, payloads(&lab, run, "llm.usage").await.len(), payloads(&lab, run, "llm.cached").await)
    };
    let unmarked = run(json!({ "prompt": "p" })).await;
    assert_eq!((unmarked.1, unmarked.2.len()), (1, 0));
    let first = run(json!({ "prompt": "p", "cache": true })).await;
    assert_eq!((first.1, first.2.len()), (1, 0), "answers without `cache` are not remembered");
    let others = r#"update nofx.artifact set metadata = metadata || '{"chosen_by": "policy", "materials": [{}], "repair": {"round": 2}}'
                     where tenant_id = $1"#;
    lab.admin.execute(others, &[&lab.tenant.0]).await.unwrap();
    let (second, asked, cached) = run(json!({ "prompt": "p", "cache": { "max_age_s": 600 } })).await;
    assert_eq!(asked, 0, "no model was asked");
    let artifacts =
        "select id::text, hash, metadata, size_bytes from nofx.artifact where run_id = $1 and type <> 'sbom'";
    let earlier = lab.admin.query_one(artifacts, &[&first.0.0]).await.unwrap();
    let taken = lab.admin.query_one(artifacts, &[&second.0]).await.unwrap();
    assert_eq!(earlier.get::<_, String>("hash"), taken.get::<_, String>("hash"));
    let [payload] = cached.as_slice() else { panic!("{cached:?}") };
    assert_eq!(
        (&payload["artifact_id"], &payload["run_id"]),
        (&json!(earlier.get::<_, String>("id")), &json!(first.0))
    );
    assert_eq!((&payload["saved_usd_micros"], &payload["provider"]), (&json!(COST), &json!("anthropic")));
    let marked: Value = taken.get("metadata");
    assert_eq!(marked["cached"]["artifact_id"], payload["artifact_id"]);
    assert_eq!((&marked["model_served"], marked.get("cache_key")), (&json!("claude"), None));
    // Facts of the step that was answered first are not those of this one.
    assert_eq!((&marked["chosen_by"], &marked["materials"], marked.get("repair")), (&json!("step"), &json!([]), None));
    let edges = "select count(*) from nofx.artifact_edge e join nofx.artifact a on a.id = e.child_id where a.run_id = $1 and a.type <> 'sbom'";
    assert_eq!(lab.admin.query_one(edges, &[&second.0]).await.unwrap().get::<_, i64>(0), 1);
    let costs = shared::db::cost::run_costs(&lab.session(), second).await.unwrap().expect("its costs");
    assert_eq!((costs.spent_usd_micros.0, costs.saved_usd_micros.0), (0, COST));
    let all = shared::db::cost::tenant_costs(&lab.session(), None, None).await.unwrap();
    assert_eq!((all.total.cost_usd_micros.0, all.saved_usd_micros.0), (2 * COST, COST));

    // Another question, an answer that is too old, and one whose bytes are gone.
    assert_eq!(run(json!({ "prompt": "p", "cache": true, "max_output_tokens": 99 })).await.1, 1);
    let age = "update nofx.artifact set created_at = created_at - interval '1 hour' where tenant_id = $1";
    lab.admin.execute(age, &[&lab.tenant.0]).await.unwrap();
    assert_eq!(run(json!({ "prompt": "p", "cache": { "max_age_s": 600 } })).await.1, 1);
    let gone = "update nofx.artifact set uri = uri || '.gone' where tenant_id = $1";
    lab.admin.execute(gone, &[&lab.tenant.0]).await.unwrap();
    assert_eq!(run(json!({ "prompt": "p", "cache": { "max_age_s": 600 } })).await.1, 1);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn kept_prompts_can_be_read_only_with_the_key_of_the_reader() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let key = PrivateKey::generate().unwrap();
    let policy = json!({ "models": { "keep_prompts": key.public().to_pem() } });
    let new = NewPolicy { document: &policy, actor: "ann", reason: None, if_version: None };
    policy_set(&lab.session(), &new).await.unwrap();
    let inputs = json!({ "prompt": "a secret plan", "provider": "anthropic", "name": "plan.md" });
    let run = lab.submit(&json!({ "goal": "g", "steps": [plans::step("write", "codegen", inputs)] })).await;
    deliver(&lab, &url).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let kept = "select k.id, k.name, k.uri, k.hash, k.size_bytes, k.media_type, a.name as answer
                  from nofx.artifact k
                  join nofx.artifact_edge e on e.child_id = k.id
                  join nofx.artifact a on a.id = e.parent_id
                 where k.run_id = $1 and k.type = 'prompt'";
    let kept = lab.admin.query_one(kept, &[&run.0]).await.unwrap();
    assert_eq!((kept.get("name"), kept.get("answer")), ("plan.md.prompt.jwe", "plan.md"));
    let artifact = ArtifactRef {
        id: ArtifactId(kept.get("id")),
        uri: kept.get("uri"),
        hash: kept.get::<_, String>("hash"),
        size_bytes: u64::try_from(kept.get::<_, i64>("size_bytes")).unwrap(),
        media_type: kept.get("media_type"),
    };
    let jwe = String::from_utf8(lab.ctx.storage.get(&artifact, 1 << 20).await.unwrap()).unwrap();
    assert!(!jwe.contains("secret"));
    assert!(decrypt(&PrivateKey::generate().unwrap(), &jwe).is_err());
    let text: Value = serde_json::from_slice(&decrypt(&key, &jwe).unwrap()).unwrap();
    assert_eq!((&text["message"], &text["answer"]), (&json!("a secret plan"), &json!("a text")));
    assert_eq!((&text["provider"], &text["model_served"]), (&json!("anthropic"), &json!("claude")));

    // An answer of the cache may be older than the policy, so its prompt is kept too.
    let count = "select count(*) from nofx.artifact where run_id = $1 and type = 'prompt'";
    for asked in [1, 0] {
        let inputs = json!({ "prompt": "a secret plan", "provider": "anthropic", "cache": true });
        let run = lab.submit(&json!({ "goal": "g", "steps": [plans::step("write", "codegen", inputs)] })).await;
        deliver(&lab, &url).await;
        assert_eq!(payloads(&lab, run, "llm.attempt").await.len(), asked);
        assert_eq!(lab.admin.query_one(count, &[&run.0]).await.unwrap().get::<_, i64>(0), 1);
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn no_model_is_asked_if_its_prompt_could_not_be_kept() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let policy = json!({ "models": { "keep_prompts": "no key" } });
    let new = NewPolicy { document: &policy, actor: "ann", reason: None, if_version: None };
    policy_set(&lab.session(), &new).await.unwrap();
    let step = plans::step("write", "codegen", json!({ "prompt": "p", "provider": "anthropic" }));
    let run = lab.submit(&json!({ "goal": "g", "steps": [step] })).await;
    deliver(&lab, &url).await;
    assert_eq!(lab.run_status(run).await, "failed");
    assert!(payloads(&lab, run, "llm.attempt").await.is_empty(), "nothing was sent");
    let sql = "select error ->> 'code' from nofx.step where run_id = $1";
    assert_eq!(lab.admin.query_one(sql, &[&run.0]).await.unwrap().get::<_, String>(0), "prompt_not_kept");
}

/// A fake Anthropic that streams a text, and holds back its end until `go_on`.
async fn slow_provider(go_on: Arc<Notify>) -> String {
    let event = |data: &Value| format!("data: {data}\n\n");
    let delta = |text: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } });
    let message = json!({ "model": "claude", "content": [], "usage": { "input_tokens": 10, "output_tokens": 1 } });
    let begun = [
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        delta("the beginning, "),
    ];
    let ended = [
        delta("and the end"),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 7 } }),
        json!({ "type": "message_stop" }),
    ];
    let [begun, ended] = [begun, ended].map(|events| events.iter().map(event).collect::<String>());
    let router = Router::new().route(
        "/v1/messages",
        routing::post(async move || {
            let end = stream::once(async move {
                go_on.notified().await;
                Ok::<_, std::io::Error>(Bytes::from(ended))
            });
            let body = Body::from_stream(stream::iter([Ok(Bytes::from(begun))]).chain(end));
            ([("content-type", "text/event-stream")], body)
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn people_see_what_a_model_has_written_so_far_until_its_request_ends() {
    let lab = Lab::with_bucket().await;
    let go_on = Arc::new(Notify::new());
    let url = slow_provider(Arc::clone(&go_on)).await;
    let inputs = json!({ "prompt": "p", "provider": "anthropic" });
    let run = lab.submit(&json!({ "goal": "g", "steps": [plans::step("write", "codegen", inputs)] })).await;
    let writing = async || {
        let step = shared::db::console::step_detail_fetch(&lab.session(), run, 0, None).await.unwrap();
        step.expect("the step").writing
    };
    let watch = async {
        lab.until("a report", "select exists (select from nofx.llm_progress)").await;
        let seen = writing().await.expect("what is being written");
        assert_eq!((seen.provider.as_str(), seen.tail.as_str(), seen.bytes), ("anthropic", "the beginning, ", 15));
        let minute_ago = "update nofx.llm_progress set reported_at = reported_at - interval '1 minute'";
        lab.admin.execute(minute_ago, &[]).await.unwrap();
        assert!(writing().await.is_some_and(|seen| seen.silent_s >= 60));
        go_on.notify_one();
    };
    tokio::join!(deliver(&lab, &url), watch);
    assert_eq!(lab.run_status(run).await, "succeeded");
    assert!(writing().await.is_none());
    let left: i64 = lab.admin.query_one("select count(*) from nofx.llm_progress", &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "it is forgotten");
    lab.assert_invariants().await;
}
