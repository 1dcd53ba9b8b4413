//! A step that fails because of its row, its references or its size does not affect the rest of its batch.

use nofx_tests::delivery::{event, failed_ids};
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::{NewEvent, Outcome, RunId, StepError};
use shared::queue::WakeUp;

const OTHER_RUNS: usize = 8;

/// Nested lists with this many levels.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

async fn other_runs(lab: &Lab) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..OTHER_RUNS {
        runs.push(lab.submit(&plans::wide(1)).await);
    }
    runs
}

/// Delivers all wake-ups in one batch.
async fn deliver(lab: &Lab, script: &Script) -> Vec<WakeUp> {
    let sent = lab.sent().await;
    let response = lab.worker("echo", script).handle_batch(event(&sent, Deliver::Once), None).await;
    assert!(failed_ids(&response).is_empty(), "no message is returned");
    sent
}

async fn all_succeeded(lab: &Lab, runs: &[RunId]) {
    for run in runs {
        assert_eq!(lab.run_status(*run).await, "succeeded");
    }
    lab.assert_invariants().await;
}

async fn error_of(lab: &Lab, run: RunId, step: &str) -> (String, String) {
    let sql = "select coalesce(error ->> 'code', status), coalesce(error ->> 'message', '')
                 from nofx.step where run_id = $1 and name = $2";
    let row = lab.admin.query_one(sql, &[&run.0, &step]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn references_that_nest_too_deep_fail_only_their_step() {
    let lab = Lab::new().await;
    let mut inner = json!("${{ steps.a.outputs }}");
    for _ in 0..40 {
        inner = json!([inner]);
    }
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({ "deep": nested(40) })),
        plans::step("b", "echo", json!({ "deep": inner })),
        plans::step("c", "echo", json!({ "b": "${{ steps.b.outputs }}" })),
    ] });
    let run = lab.submit(&plan).await;
    let others = other_runs(&lab).await;
    deliver(&lab, &Script::deployed()).await;
    let (code, message) = error_of(&lab, run, "b").await;
    assert_eq!(code, "inputs_too_large");
    assert!(message.contains("deeper than 64 levels"), "{message}");
    assert_eq!(lab.run_status(run).await, "failed");
    all_succeeded(&lab, &others).await;
}

#[tokio::test]
async fn references_that_multiply_fail_only_their_step() {
    let lab = Lab::new().await;
    let many: Vec<_> = (0..400).map(|_| "${{ steps.a.outputs.text }}").collect();
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({ "text": "x".repeat(250_000) })),
        plans::step("b", "echo", json!({ "many": many })),
    ] });
    let run = lab.submit(&plan).await;
    let others = other_runs(&lab).await;
    deliver(&lab, &Script::deployed()).await;
    assert_eq!(error_of(&lab, run, "b").await.0, "inputs_too_large");
    all_succeeded(&lab, &others).await;
}

#[tokio::test]
async fn upstream_outputs_beyond_the_limit_are_not_resolved() {
    let mut lab = Lab::new().await;
    lab.ctx.config.limits.resolved_bytes = 500_000;
    let mut steps: Vec<Value> =
        (0..6).map(|n| plans::after(&format!("a{n}"), &[], json!({ "text": "x".repeat(120_000), "n": n }))).collect();
    let parents = ["a0", "a1", "a2", "a3", "a4", "a5"];
    let whole: Vec<_> = parents.iter().map(|name| format!("${{{{ steps.{name}.outputs }}}}")).collect();
    let parts: Vec<_> = parents.iter().map(|name| format!("${{{{ steps.{name}.outputs.n }}}}")).collect();
    steps.push(plans::after("parts", &parents, json!({ "of": parts })));
    steps.push(plans::after("whole", &["parts"], json!({ "of": whole })));
    let run = lab.submit(&json!({ "goal": "g", "steps": steps })).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let snapshot = lab.snapshot(run).await;
    assert_eq!(
        snapshot["steps"]["parts"]["outputs"],
        json!({ "of": [0, 1, 2, 3, 4, 5] }),
        "small parts of large outputs"
    );
    assert_eq!(error_of(&lab, run, "whole").await.0, "inputs_too_large");
}

#[tokio::test]
async fn a_thousand_references_to_one_large_output_are_resolved() {
    let lab = Lab::new().await;
    let list: Vec<_> = (0..60_000).map(|n| n % 10).collect();
    let parts: Vec<_> = (0..1_000).map(|n| format!("${{{{ steps.a.outputs.list[{n}] }}}}")).collect();
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({ "list": list })),
        plans::step("b", "echo", json!({ "parts": parts })),
    ] });
    let run = lab.submit(&plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let found = lab.snapshot(run).await["steps"]["b"]["outputs"]["parts"].clone();
    assert_eq!(found, json!((0..1_000).map(|n| n % 10).collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_claim_that_names_no_limit_gets_no_values() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({ "one": 1, "two": 2 })),
        plans::step("b", "echo", json!({ "x": "${{ steps.a.outputs.one }}", "y": "${{ steps.a.outputs.two }}" })),
    ] });
    let run = lab.submit(&plan).await;
    let key =
        async |step: &str| json!({ "tenant_id": lab.tenant, "run_id": run, "step_id": lab.step(run, step).await });
    let call = async |function: &str, mut item: Value, more: Value| {
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let sql = format!("select {function}($1::text::jsonb)::jsonb");
        lab.admin.query_one(&sql, &[&json!([item]).to_string()]).await.unwrap().get::<_, Value>(0)
    };
    call("nofx.steps_claim", key("a").await, json!({ "lease_s": 30 })).await;
    let ended = json!({ "attempt": 1, "to": "succeeded", "outputs": { "one": 1, "two": 2 } });
    call("nofx.steps_finish", key("a").await, ended).await;
    let claims = call("nofx.steps_claim", key("b").await, json!({ "lease_s": 30 })).await;
    assert_eq!(claims["claimed"][0]["name"], "b");
    assert_eq!(claims["claimed"][0]["refs"], Value::Null);
}

#[tokio::test]
async fn a_reference_to_null_is_null_and_a_reference_to_a_missing_field_fails() {
    let lab = Lab::new().await;
    let plan = json!({ "goal": "g", "steps": [
        plans::step("a", "echo", json!({ "none": null })),
        plans::step("b", "echo", json!({ "x": "${{ steps.a.outputs.none }}" })),
        plans::step("c", "echo", json!({ "x": "${{ steps.a.outputs.nothing }}" })),
    ] });
    let run = lab.submit(&plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.snapshot(run).await["steps"]["b"]["outputs"], json!({ "x": null }));
    let (code, message) = error_of(&lab, run, "c").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("unresolved_reference", "the outputs of step \"a\" have no nothing")
    );
}

#[tokio::test]
async fn an_unparsable_row_fails_only_its_step_at_claim_and_at_finish() {
    let lab = Lab::new().await;
    // An earlier version accepted such inputs.
    let unreadable = format!("{{\"x\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    let claimed = lab.submit(&plans::wide(1)).await;
    let continued = lab.submit(&plans::chain(2)).await;
    let sql = "update nofx.step set inputs = $2::text::jsonb where run_id = $1 and ordinal = $3";
    lab.admin.execute(sql, &[&claimed.0, &unreadable, &0_i32]).await.unwrap();
    lab.admin.execute(sql, &[&continued.0, &unreadable, &1_i32]).await.unwrap();
    let others = other_runs(&lab).await;
    deliver(&lab, &Script::deployed()).await;
    assert_eq!(error_of(&lab, claimed, "s0").await.0, "unreadable_inputs");
    assert_eq!(error_of(&lab, continued, "s0").await.0, "succeeded");
    assert_eq!(error_of(&lab, continued, "s1").await.0, "unreadable_inputs");
    all_succeeded(&lab, &others).await;
}

#[tokio::test]
async fn a_run_from_before_reference_paths_still_succeeds() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(3)).await;
    lab.admin.execute("update nofx.step set ref_paths = null where run_id = $1", &[&run.0]).await.unwrap();
    // Without paths, the claim returns whole outputs, and the worker resolves the paths.
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.snapshot(run).await["steps"]["s2"]["outputs"]["said"], "hello");
}

#[tokio::test]
async fn a_step_whose_claim_the_database_rejects_does_not_affect_its_batch() {
    let lab = Lab::new().await;
    let rejected = lab.submit(&plans::wide(1)).await;
    let others = other_runs(&lab).await;
    lab.admin
        .batch_execute(&format!(
            "create function public.refuse() returns trigger language plpgsql as $$
                 begin if new.run_id = '{}' then raise 'not this one'; end if; return new; end $$;
             create trigger refuse before insert on nofx.attempt for each row execute function public.refuse()",
            rejected.0
        ))
        .await
        .unwrap();
    let sent = lab.sent().await;
    let response = lab.worker("echo", &Script::deployed()).handle_batch(event(&sent, Deliver::Once), None).await;
    let index = sent.iter().position(|wakeup| wakeup.run_id == rejected).unwrap();
    assert_eq!(failed_ids(&response), [format!("m{index}")].into(), "only its own message is returned");
    all_succeeded(&lab, &others).await;
}

#[tokio::test]
async fn outputs_that_could_not_be_parsed_again_are_not_stored() {
    let lab = Lab::new().await;
    let tiny: Vec<_> = (0..30_000).map(|_| json!({ "": 0 })).collect();
    for (outputs, expected) in [(json!({ "deep": nested(70) }), "nested"), (json!({ "tiny": tiny }), "many parts")] {
        let run = lab.submit(&plans::wide(1)).await;
        let script = Script::new(move |_, _| {
            let outputs = outputs.clone();
            async move { succeeded(outputs) }
        });
        deliver(&lab, &script).await;
        let (code, message) = error_of(&lab, run, "s0").await;
        assert_eq!(code, "outputs_too_large");
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn errors_and_events_of_an_attempt_are_truncated_before_they_are_stored() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let script = Script::new(|_, _| async {
        let details = json!({ "value": "y".repeat(1 << 20) });
        let error = StepError::new("broken", "x".repeat(1 << 20)).with_details(details.clone());
        let event = NewEvent { kind: "test.noted".into(), payload: details };
        Outcome { events: vec![event], ..Outcome::failed(error) }
    });
    deliver(&lab, &script).await;
    let sql = "select max(octet_length(e.payload::text)), max(octet_length(s.error::text))
                 from nofx.event e join nofx.step s on s.id = e.step_id where e.run_id = $1";
    let row = lab.admin.query_one(sql, &[&run.0]).await.unwrap();
    let (payload, error): (i32, i32) = (row.get(0), row.get(1));
    assert!(payload < 8_000 && error < 8_000, "{payload} and {error} bytes");
    assert!(error_of(&lab, run, "s0").await.1.ends_with("(1048576 bytes in all)"));
}
