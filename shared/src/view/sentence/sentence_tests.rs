use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const MINUTE: &str = "2026-11-28T14:32:";
const NOW: &str = "2026-11-28T14:33:00Z";

fn at(second: &str) -> String {
    format!("{MINUTE}{second}+00:00")
}

/// Events of one moment each: `[second, type, step or null, payload]`.
fn events(rows: &Value) -> Vec<TimelineEvent> {
    let rows = rows.as_array().unwrap().iter().enumerate();
    let event = |(index, row): (usize, &Value)| {
        let step = row[2].as_str().map(|name| json!({ "name": name, "ordinal": 3 }));
        let event = json!({ "seq": index + 1, "timestamp": at(row[0].as_str().unwrap()), "type": row[1], "step": step,
                            "subject": row[4], "payload": row[3] });
        serde_json::from_value(event).unwrap()
    };
    rows.map(event).collect()
}

/// Each entry as `sentence: error | small print · small print | "quote"`.
fn told(rows: &Value) -> Vec<String> {
    let events = events(rows);
    let now_ms = Timestamp(NOW.into()).epoch_ms();
    let text = |entry: &Entry<'_>| {
        let also = entry.also.iter().map(|parts| plain(parts)).collect::<Vec<_>>().join(" · ");
        let also = if also.is_empty() { also } else { format!(" | {also}") };
        let quote = entry.quote.map(|quote| format!(" | \"{quote}\"")).unwrap_or_default();
        format!("{entry}{also}{quote}")
    };
    entries(&events, now_ms).iter().map(text).collect()
}

/// The only entry of an event.
fn one(kind: &str, step: Option<&str>, payload: &Value) -> String {
    let told = told(&json!([["10", kind, step, payload]]));
    assert_eq!(told.len(), 1, "{told:?}");
    told[0].clone()
}

/// An event without a step.
fn run(kind: &str, payload: &Value) -> String {
    one(kind, None, payload)
}

fn step(kind: &str, payload: &Value) -> String {
    one(kind, Some("unit"), payload)
}

const NOTHING: Value = Value::Null;

#[test]
fn a_run_was_created_by_somebody_or_by_nobody_known() {
    let created = |payload: Value| run("run.created", &payload);
    assert_eq!(created(json!({ "goal": "g", "actor": "ann", "steps": 1 })), "ann started the run with 1 step");
    assert_eq!(created(json!({ "goal": "g", "steps": 1000 })), "The run was created with 1,000 steps");
    assert_eq!(created(json!({ "goal": "g" })), "The run was created");
}

#[test]
fn a_run_says_how_it_goes() {
    assert_eq!(run("run.started", &NOTHING), "The run began");
    assert_eq!(run("run.blocked", &NOTHING), "The run waits: no step can go on before a gate passes");
    assert_eq!(run("run.unblocked", &NOTHING), "The run goes on");
    assert_eq!(run("run.queued", &NOTHING), "The run is queued again: a step is ready");
    assert_eq!(run("run.succeeded", &NOTHING), "The run succeeded");
    assert_eq!(run("run.cancelled", &NOTHING), "The run ended as cancelled");
    assert_eq!(run("run.failed", &NOTHING), "The run failed");
    let failure = json!({ "failure": { "code": "run_timed_out", "message": "it took too long" } });
    assert_eq!(run("run.failed", &failure), "The run failed: it took too long");
    assert_eq!(run("run.paused", &failure), "The run is paused: it took too long");
    assert_eq!(run("run.timed_out", &NOTHING), "The run timed out");
}

#[test]
fn people_control_a_run() {
    let ann = json!({ "actor": "ann", "generation": 2 });
    assert_eq!(run("run.pause_requested", &ann), "ann paused the run; running steps finish");
    assert_eq!(run("run.resumed", &ann), "ann resumed the run");
    assert_eq!(run("run.cancel_requested", &ann), "ann cancelled the run");
    assert_eq!(run("run.cancel_requested", &NOTHING), "Somebody cancelled the run");
    assert_eq!(run("run.retried", &ann), "ann retried the run: generation 2; what succeeded is kept");
}

#[test]
fn a_pause_is_one_entry() {
    let rows = json!([["10", "run.pause_requested", null, { "actor": "ben" }], ["10", "run.paused", null, {}],
                      ["20", "run.paused", null, {}]]);
    assert_eq!(told(&rows), ["ben paused the run; running steps finish", "The run is paused"]);
}

#[test]
fn a_cancel_folds_what_it_ended() {
    let rows = json!([
        ["10", "run.cancel_requested", null, { "actor": "ann" }],
        ["10", "gate.cancelled", "release", { "gate_type": "manual:release" }],
        ["10", "step.cancelled", "release", { "was": "blocked" }],
        ["10", "step.cancelled", "notes", { "was": "pending" }],
        ["10", "run.cancelled", null, {}],
    ]);
    assert_eq!(told(&rows), ["ann cancelled the run | 2 steps, 1 gate"]);
    let rows = json!([
        ["10", "run.timed_out", null, {}],
        ["10", "step.cancelled", "notes", { "was": "pending" }],
        ["10", "run.failed", null, { "failure": { "code": "run_timed_out", "message": "it took over 60 s" } }],
    ]);
    assert_eq!(told(&rows), ["The run timed out | 1 step", "The run failed: it took over 60 s"]);
}

#[test]
fn a_retry_hides_what_it_says_itself() {
    let rows = json!([
        ["10", "run.retried", null, { "actor": "ann", "generation": 2 }],
        ["10", "step.ready", "unit", {}],
        ["10", "run.started", null, {}],
        ["11", "step.started", "unit", { "attempt": 2 }],
        ["15", "step.succeeded", "unit", { "attempt": 2 }],
    ]);
    let retried = "ann retried the run: generation 2; what succeeded is kept";
    assert_eq!(told(&rows), [retried, "unit started, attempt 2", "unit succeeded after 4.0 s"]);
}

#[test]
fn after_a_repair_a_step_takes_the_time_since_it_started_anew() {
    let repairing = json!({ "gate": "unit", "round": 2, "max_attempts": 3, "error": { "code": "gate_failed", "message": "1 test failed" } });
    let rows = json!([
        ["10", "step.started", "tests", { "attempt": 1 }],
        ["15", "step.succeeded", "tests", { "attempt": 1 }],
        ["30", "step.repairing", "tests", repairing],
        ["31", "step.started", "tests", { "attempt": 2 }],
        ["33", "step.succeeded", "tests", { "attempt": 2 }],
    ]);
    assert_eq!(told(&rows).last().map(String::as_str), Some("tests succeeded after 2.0 s"));
}

#[test]
fn a_gate_that_a_repair_follows_has_not_failed_for_good() {
    let failed = json!({ "attempt": 1, "error": { "code": "gate_failed", "message": "1 test failed" } });
    let repairing = json!({ "gate": "unit", "round": 2, "max_attempts": 3, "error": failed["error"] });
    let rows = json!([
        ["10", "step.failed", "unit", failed],
        ["10", "step.failed", "lint", failed],
        ["10", "step.repairing", "tests", repairing],
    ]);
    let expected = [
        "unit failed: 1 test failed",
        "lint failed for good: 1 test failed",
        "tests generates again, because unit failed; time 2 of at most 3: 1 test failed",
    ];
    assert_eq!(told(&rows), expected);
}

#[test]
fn a_ready_step_is_an_entry_only_if_it_has_to_wait() {
    let ready = |second: &str, then: &str| {
        told(&json!([[second, "step.ready", "unit", {}], [then, "step.started", "unit", { "attempt": 1 }]]))
    };
    assert_eq!(ready("10", "20"), ["unit started"]);
    assert_eq!(ready("10", "21"), ["unit can start", "unit started"]);
    // Nobody has claimed it yet: the time is 14:33:00.
    assert_eq!(told(&json!([["49", "step.ready", "unit", {}]])), ["unit can start"]);
    assert!(told(&json!([["51", "step.ready", "unit", {}]])).is_empty());
    // The start is on a newer page.
    assert!(entries(&events(&json!([["10", "step.ready", "unit", {}]])), None).is_empty());
}

#[test]
fn a_step_starts_and_ends() {
    assert_eq!(step("step.started", &json!({ "attempt": 1 })), "unit started");
    assert_eq!(step("step.started", &json!({ "attempt": 2 })), "unit started, attempt 2");
    assert_eq!(step("step.succeeded", &json!({ "attempt": 1 })), "unit succeeded");
    assert_eq!(step("step.cancelled", &json!({ "was": "running" })), "unit was cancelled (it was running)");
    assert_eq!(step("step.blocked", &json!({ "attempt": 1 })), "unit waits for a decision");
    assert_eq!(step("step.skipped", &json!({ "was": "pending" })), "unit was skipped, because another step failed");
    let error = json!({ "error": { "code": "x", "message": "2 tests failed\nin money.test.ts" }, "attempt": 1 });
    assert_eq!(step("step.failed", &error), "unit failed for good: 2 tests failed");
    let lost = json!({ "error": { "code": "worker_lost", "message": "no end" }, "workers_lost": 3 });
    assert_eq!(step("step.failed", &lost), "unit failed for good: no end | after 3 lost workers");
    let retrying = json!({ "error": { "code": "x", "message": "529: overloaded" }, "attempt": 1, "delay_ms": 2000 });
    let said = "Attempt 1 of unit failed; the next follows in 2.0 s: 529: overloaded";
    assert_eq!(step("step.retrying", &retrying), said);
    let repairing = json!({
        "gate": "unit", "round": 2, "max_attempts": 3, "error": { "code": "gate_failed", "message": "2 tests failed" },
    });
    let said = "unit generates again, because unit failed; time 2 of at most 3: 2 tests failed";
    assert_eq!(step("step.repairing", &repairing), said);
    let lost = json!({ "attempt": 1, "workers_lost": 1 });
    let said = "The worker of unit was lost in attempt 1; another one takes over";
    assert_eq!(step("step.worker_lost", &lost), said);
}

#[test]
fn a_step_took_from_its_first_attempt_to_its_end() {
    let rows = |attempt: u32| {
        json!([["10", "step.started", "unit", { "attempt": attempt }],
               ["12", "step.retrying", "unit", { "attempt": attempt, "delay_ms": 1000 }],
               ["13", "step.started", "unit", { "attempt": attempt + 1 }],
               ["15", "step.succeeded", "unit", { "attempt": attempt + 1 }]])
    };
    assert_eq!(told(&rows(1))[3], "unit succeeded 5.0 s after its first start, in attempt 2");
    // The first attempt is on an older page.
    assert_eq!(told(&rows(2))[3], "unit succeeded");
    let mut known = events(&json!([["15", "step.succeeded", "unit", {}]]));
    known[0].step.as_mut().unwrap().started_at = Some(Timestamp(at("05")));
    assert_eq!(entries(&known, None)[0].to_string(), "unit succeeded after 10.0 s");
}

#[test]
fn a_success_carries_what_it_left() {
    let rows = json!([
        ["10", "step.started", "unit", { "attempt": 1 }],
        ["30", "codegen.usage", "unit", { "provider": "anthropic", "model": "claude", "usable": true,
                                          "input_tokens": 1840, "output_tokens": 412,
                                          "fallback_from": [{ "provider": "openai", "model": "gpt-5" }] }],
        ["30", "artifact.created", "unit", { "name": "notes.md", "type": "text" }],
        ["30", "gate.passed", "unit", { "gate_type": "gate:unit" }],
        // Another step of the same transition.
        ["30", "db_write.executed", "rates", { "table": "public.rates", "op": "insert", "rows": 3 }],
        ["30", "step.succeeded", "unit", { "attempt": 1 }],
        ["30", "step.succeeded", "rates", { "attempt": 1 }],
    ]);
    let unit =
        "unit passed its gate after 20.0 s | claude, 1,840 tokens in, 412 out, after gpt-5 did not · stored notes.md";
    let rates = "rates succeeded | wrote 3 rows into public.rates, exactly once";
    assert_eq!(told(&rows), ["unit started", unit, rates]);
}

#[test]
fn a_failed_gate_is_told_with_its_step() {
    let failed = |reason: &str| {
        told(&json!([["10", "gate.failed", "unit", { "gate_type": "gate:unit", "reason": reason }],
                     ["10", "step.failed", "unit", { "error": { "code": "gate_failed", "message": "too few lines" } }]]))
    };
    assert_eq!(failed("too few lines"), ["unit failed for good: too few lines | failed on its evidence"]);
    let said = "unit failed for good: too few lines | failed on its evidence | \"83 % of the lines ran\"";
    assert_eq!(failed("83 % of the lines ran"), [said]);
}

#[test]
fn a_question_quotes_what_is_asked() {
    let gate = json!({ "gate_type": "manual:release", "reason": "Can it go live?" });
    assert_eq!(run("gate.created", &gate), "A decision is needed: manual:release | \"Can it go live?\"");
    let rows = json!([["10", "gate.created", "release", gate], ["10", "step.blocked", "release", { "attempt": 1 }],
                      ["10", "run.blocked", null, {}]]);
    let said = "release waits for a decision | asked as manual:release | \"Can it go live?\"";
    assert_eq!(told(&rows), [said]);
}

#[test]
fn a_link_is_told_with_its_person() {
    let link = json!({ "gate_type": "manual:release", "actor": "ben", "for": "ann", "link_id": "x" });
    assert_eq!(run("gate.linked", &link), "ben made a link to manual:release for ann");
}

#[test]
fn a_decision_leads_what_it_started() {
    let decided = |kind: &str, decision: &str, then: &str| {
        let gate =
            json!({ "gate_type": "manual:release", "decision": decision, "actor": "ben", "reason": "I read it" });
        let error = json!({ "error": { "code": "gate_rejected", "message": "rejected by ben: I read it" } });
        let payload = if then == "step.failed" { error } else { json!({}) };
        told(&json!([
            ["10", kind, "release", gate],
            ["10", then, "release", payload],
            ["10", "run.unblocked", null, {}]
        ]))
    };
    let passed = decided("gate.passed", "approve", "step.succeeded");
    assert_eq!(passed, ["ben approved manual:release | release succeeded with it | \"I read it\""]);
    let resumed = decided("gate.passed", "approve", "step.ready");
    assert_eq!(resumed, ["ben approved manual:release | release can go on | \"I read it\""]);
    let rejected = decided("gate.failed", "reject", "step.failed");
    assert_eq!(rejected, ["ben rejected manual:release | release failed with it | \"I read it\""]);
    let waived = decided("gate.waived", "waive", "step.succeeded");
    let said = "ben waived manual:release: it passed without approval | release succeeded with it | \"I read it\"";
    assert_eq!(waived, [said]);
}

#[test]
fn a_gate_ends_without_a_person() {
    let gate = json!({ "gate_type": "gate:unit" });
    assert_eq!(run("gate.passed", &gate), "The gate gate:unit passed on its evidence");
    assert_eq!(run("gate.failed", &gate), "The gate gate:unit failed on its evidence");
    assert_eq!(run("gate.expired", &gate), "Nobody decided gate:unit in time");
    assert_eq!(run("gate.cancelled", &gate), "gate:unit needs no decision any more");
    let rows = json!([["10", "gate.expired", "unit", gate],
                      ["10", "step.failed", "unit", { "error": { "code": "gate_expired", "message": "nobody decided" } }]]);
    let said = "unit failed for good: nobody decided | nobody decided gate:unit in time";
    assert_eq!(told(&rows), [said]);
}

#[test]
fn many_steps_of_one_transition_are_one_entry() {
    let rows = |kind: &str, count: usize| {
        let rows = (0..count).map(|n| json!(["10", kind, format!("step {n}"), { "was": "pending" }]));
        told(&Value::Array(rows.collect()))
    };
    assert_eq!(rows("step.skipped", 5).len(), 5);
    assert_eq!(rows("step.skipped", 6), ["6 steps were skipped, because another step failed"]);
    // The request to cancel is on an older page.
    assert_eq!(rows("step.cancelled", 200), ["200 steps were cancelled"]);
}

#[test]
fn models_say_what_they_used() {
    let usage = |more: Value| {
        let mut payload = json!({ "provider": "anthropic", "model": "claude", "usable": true });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        step("codegen.usage", &payload)
    };
    let tokens = json!({ "input_tokens": 1, "output_tokens": 412 });
    assert_eq!(usage(tokens.clone()), "claude answered unit (1 token in, 412 out)");
    assert_eq!(usage(json!({ "input_tokens": null, "output_tokens": 9 })), "claude answered unit (9 tokens out)");
    let fallback = json!({ "fallback_from": [{ "model": "gpt-5" }, { "model": "gemini" }], "input_tokens": null });
    assert_eq!(usage(fallback), "claude answered unit, after gpt-5 and gemini did not");
    let bad = json!({ "usable": false, "reason": "no JSON" });
    assert_eq!(usage(bad), "claude gave an answer to unit that cannot be used: no JSON");
    assert_eq!(usage(json!({ "provider": "template" })), "A template was filled in for unit");
    let late = "Attempt 2 had lost unit and still used claude (1 token in, 412 out)";
    let payload = json!({ "late_attempt": 2, "input_tokens": 1, "output_tokens": 412 });
    assert_eq!(usage(payload), late);
}

#[test]
fn artifacts_and_writes_are_told() {
    let stored = json!({ "name": "notes.md", "type": "text", "artifact_id": "0193c0de-0000-7000-8000-000000000009" });
    assert_eq!(step("artifact.created", &stored), "unit stored notes.md");
    let write =
        |op: &str, rows: u64| step("db_write.executed", &json!({ "table": "public.t", "op": op, "rows": rows }));
    assert_eq!(write("insert", 3), "unit wrote 3 rows into public.t, exactly once");
    assert_eq!(write("update", 1), "unit changed 1 row in public.t, exactly once");
    assert_eq!(write("delete", 2), "unit removed 2 rows from public.t, exactly once");
}

#[test]
fn names_in_a_sentence_can_be_links() {
    let id = "0193c0de-0000-7000-8000-000000000009";
    let stored = events(&json!([["10", "artifact.created", "unit", { "name": "a.md", "artifact_id": id }]]));
    let parts = &entries(&stored, None)[0].sentence;
    assert_eq!(parts[0], Part::Step { name: "unit", ordinal: Some(3) });
    assert_eq!(parts[2], Part::Artifact { name: "a.md", id: id.parse().ok() });
    let gate = events(&json!([["10", "gate.created", null, { "gate_type": "manual:x", "gate_id": id }]]));
    assert_eq!(entries(&gate, None)[0].sentence[1], Part::Gate { gate_type: "manual:x", id: id.parse().ok() });
}

#[test]
fn changes_of_a_tenant_are_told() {
    let policy = json!({ "actor": "cai", "version": 4, "document": {}, "reason": "80 % is too little" });
    let said = "cai set version 4 of the policy | \"80 % is too little\"";
    assert_eq!(run("policy.set", &policy), said);
    let rule = |kind: &str, before: Value, after: Value| {
        let rule = json!({ "actor": "cai", "before": before, "after": after });
        told(&json!([["10", kind, null, rule, "public.orders"]]))
    };
    let one = json!({ "allowed_ops": ["insert"], "max_rows": 50, "key": ["id"] });
    let other = json!({ "allowed_ops": ["insert"], "max_rows": 100, "role": "w" });
    assert_eq!(rule("rule.set", Value::Null, one.clone()), ["cai allowed plans to write public.orders"]);
    let said = "cai changed the rule of public.orders | key: [\"id\"] → none · max_rows: 50 → 100 · role: none → \"w\"";
    assert_eq!(rule("rule.set", one.clone(), other), [said]);
    let said = "cai deleted the rule: plans may not write public.orders any more";
    assert_eq!(rule("rule.deleted", one, Value::Null), [said]);
    let redriven = |moved| {
        let payload = json!({ "actor": "cai", "moved": moved, "more": true });
        told(&json!([["10", "queue.redriven", null, payload, "echo"]]))
    };
    assert_eq!(redriven(1), ["cai moved 1 dead letter of echo back to its queue"]);
    assert_eq!(redriven(100), ["cai moved 100 dead letters of echo back to its queue"]);
}

#[test]
fn a_tenant_event_is_read_from_the_api() {
    let payload = serde_json::value::RawValue::from_string(r#"{"version": 2, "document": {}}"#.into()).unwrap();
    let event = TimelineEvent::of_tenant("policy.set", "policy", "cai", &payload, &Timestamp(at("10")));
    assert_eq!(entries(&[event], None)[0].to_string(), "cai set version 2 of the policy");
}

#[test]
fn an_unknown_event_and_a_foreign_payload_are_not_lost() {
    assert_eq!(step("step.moved", &json!({ "to": "moon" })), "step.moved of unit");
    assert_eq!(run("audit.read", &NOTHING), "audit.read");
    assert_eq!(step("step.failed", &json!({ "error": "text", "attempt": "x" })), "unit failed for good");
    assert_eq!(step("codegen.usage", &json!({ "omitted": "too large" })), "A model answered unit");
    let rows = json!([["10", "step.moved", "unit", {}], ["10", "step.succeeded", "unit", {}]]);
    assert_eq!(told(&rows), ["unit succeeded | step.moved"]);
}

#[test]
fn calls_of_models_say_what_they_cost_and_why_they_were_made() {
    let asks = |because: Value| {
        step("llm.attempt", &json!({ "model_requested": "gpt-6", "because": because, "reserved_usd_micros": 41_000 }))
    };
    assert_eq!(asks(json!({ "why": "first" })), "unit asks gpt-6 (up to $0.041)");
    let retry = json!({ "why": "retry", "kind": "transient", "reason": "503" });
    assert_eq!(asks(retry), "unit asks gpt-6 again: 503 (up to $0.041)");
    let fallback =
        json!({ "why": "fallback", "provider": "openai", "model": "gpt-5", "kind": "auth", "reason": "401" });
    assert_eq!(asks(fallback), "unit asks gpt-6 instead of gpt-5: 401 (up to $0.041)");
    let usage = |more: Value| {
        let mut payload = json!({ "provider": "openai", "model": "gpt-6", "usable": true, "cost_usd_micros": 1_200 });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        step("llm.usage", &payload)
    };
    assert_eq!(
        usage(json!({ "input_tokens": 10, "output_tokens": 2 })),
        "gpt-6 answered unit (10 tokens in, 2 out, $0.0012)"
    );
    let lost = json!({ "usable": false, "estimated": true, "reason": "no answer" });
    let expected = "gpt-6 gave no usable answer to unit ($0.0012, all that was reserved, because its tokens are unknown): no answer";
    assert_eq!(usage(lost), expected);
    assert_eq!(usage(json!({ "corrects_usd_micros": 41_000 })), "gpt-6 answered unit ($0.0012, not $0.041)");
    assert_eq!(usage(json!({ "exceeds_reserved": true })), "gpt-6 answered unit ($0.0012, more than was reserved)");
    let above = json!({ "exceeds_reserved": true, "reported_usd_micros": 4_080_000_000_i64 });
    let expected = "gpt-6 answered unit ($0.0012, all that was reserved, although $4080.00 was reported)";
    assert_eq!(usage(above), expected);
    let short = json!({ "scope": "run", "cap_usd_micros": 1_000_000, "needs_usd_micros": 250_000 });
    let expected =
        "unit waits for money: its next request needs up to $0.25, which the run's budget of $1.00 does not cover";
    assert_eq!(step("budget.exhausted", &short), expected);
    let mut in_flight = short;
    in_flight["waits_for"] = json!("reserved");
    let expected = "unit waits for money: its next request needs up to $0.25, which the run's budget of $1.00 covers when \
                    requests in flight end";
    assert_eq!(step("budget.exhausted", &in_flight), expected);
    let raised = json!({ "actor": "ann", "from_usd_micros": 1_000_000, "to_usd_micros": 1_150_000 });
    assert_eq!(step("budget.raised", &raised), "ann raised the run's budget from $1.00 to $1.15");
}

#[test]
fn the_leading_event_gives_the_entry_its_number() {
    let rows = json!([["10", "artifact.created", "unit", { "name": "a" }], ["10", "step.succeeded", "unit", {}]]);
    assert_eq!(entries(&events(&rows), None)[0].seq, 2);
}

#[test]
fn each_type_of_a_run_is_of_one_kind() {
    let kinds = EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Problems);
    let types: Vec<&str> = kinds.flat_map(|kind| kind.types().iter().copied()).collect();
    let once: BTreeSet<&str> = types.iter().copied().collect();
    assert_eq!(types.len(), once.len());
    assert!(EventKind::Problems.types().iter().all(|kind| once.contains(kind)));
    assert_eq!("gates".parse(), Ok(EventKind::Gates));
    assert!("gate".parse::<EventKind>().is_err());
}
