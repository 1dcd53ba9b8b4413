//! A router whose database is down, and sample data.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use console::page::{Base, Content, DecisionPage, NewRunPage, Outcome, Stored, Typed};
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_json::{Value, json};
use shared::config::{AuthConfig, AuthMode, Config, DatabaseConfig, Platform};
use shared::context::Ctx;
use shared::db::console::{
    Artifact, Attempt, AttemptStatus, Focus, Gate, Place, Run, RunRow, Selection, Step, StepCounts, Stopped, Timeline,
    WaitsFor,
};
use shared::db::console::{
    Asked, Decided, DecidedList, GateDetail, Inbox, LastDecision, RunCounts, RunList, StepDetail, TypeCount,
};
use shared::domain::gate::Decision;
use shared::domain::{ArtifactId, GateId, GateStatus, MicroUsd, RunId, RunStatus, StepStatus, Timestamp};
use shared::view::OnPass;
use shared::view::sentence::EventKind;
use tower::ServiceExt;
use uuid::Uuid;

pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'; img-src 'self'";

/// Texts that act in a page that does not escape them.
pub const HOSTILE: [&str; 4] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "</title><svg onload='x'>",
    "</code><svg onload='x'>",
];

/// Asserts that the page contains `text` only in escaped form, and nothing that the policy would block.
pub fn assert_inert(page: &str, text: &str) {
    assert!(!page.contains(text), "not escaped: {text}");
    let is_ours = |tag: &str| tag.starts_with(" class=\"") || tag.starts_with(" width=\"");
    assert!(page.split("<svg").skip(1).all(is_ours), "a drawing that is not ours: {text}");
    assert!(!["<script>", "<img", "<style", " style="].iter().any(|tag| page.contains(tag)), "not escaped: {text}");
    assert_eq!(page.matches("<script").count(), 1, "only our own script");
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    assert!(page.contains(&escaped), "not shown: {text}");
}

/// A name of this machine. The local mode admits nobody who uses another one.
const HOST: &str = "localhost";

/// The function's router as `main` serves it. Nothing listens at its database address.
pub fn router() -> Router {
    let url = "postgresql://nobody@127.0.0.1:1/nothing?sslmode=disable".into();
    let platform = Platform { aws_variable: None, aws_endpoint_url: Some("http://127.0.0.1:1".into()) };
    let auth = Arc::new(AuthConfig { mode: Some(AuthMode::Local), platform, ..AuthConfig::default() });
    let config = Config { auth, ..Config::new(DatabaseConfig { url, ca_file: None, pool_size: 1 }) };
    let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1")).build();
    shared::http::with_layers(console::router(Ctx::new(config, &sdk).unwrap()).unwrap())
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub async fn send(mut request: Request<Body>) -> Answer {
    request.headers_mut().insert(header::HOST, HeaderValue::from_static(HOST));
    let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
    let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().into()).unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

pub async fn get(path: &str) -> Answer {
    send(Request::get(path).body(Body::empty()).unwrap()).await
}

pub fn run_id() -> RunId {
    RunId(Uuid::from_u128(1))
}

fn at() -> Timestamp {
    Timestamp("2026-11-23T10:00:00.123456+00:00".into())
}

/// Parses a state.
fn state<T: DeserializeOwned>(word: &str) -> T {
    let word: StrDeserializer<'_, Error> = word.into_deserializer();
    T::deserialize(word).expect("a state")
}

pub fn run_row(text: &str) -> RunRow {
    RunRow {
        id: run_id(),
        status: RunStatus::Blocked,
        goal: text.into(),
        created_by: Some(text.into()),
        created_at: at(),
        started_at: Some(at()),
        duration_ms: None,
        steps: StepCounts { total: 3, succeeded: 1, blocked: 1, ..StepCounts::default() },
        failed_step: Some(text.into()),
        failure: Some(text.into()),
        waits_for: Some(WaitsFor { step: Some(text.into()), gate_type: text.into() }),
    }
}

/// A page of runs in each state that a row can show, with `text` in every text field.
pub fn run_list(text: &str) -> RunList {
    let row = |status| RunRow { status, ..run_row(text) };
    let no_step = RunRow { failed_step: None, ..row(RunStatus::Failed) };
    let of_run = WaitsFor { step: None, gate_type: text.into() };
    let runs = vec![
        row(RunStatus::Blocked),
        row(RunStatus::Failed),
        no_step,
        RunRow { waits_for: Some(of_run), ..row(RunStatus::Blocked) },
    ];
    let counts = RunCounts { by_status: [(RunStatus::Blocked, 2), (RunStatus::Failed, 2)].into(), is_cut: false };
    RunList { runs, counts, waiting: 3, older: Some(run_id()), is_continuation: false }
}

fn lately(text: &str) -> Decided {
    let last = LastDecision { actor: text.into(), created_at: at() };
    Decided { counts: [(Decision::Approve, 12), (Decision::Waive, 1)].into(), last: Some(last) }
}

/// A page of the inbox with `text` in every text field.
pub fn inbox(text: &str) -> Inbox {
    Inbox {
        gates: vec![Asked {
            gate: gate(text),
            passed: 4,
            writes: 1,
            rows: 3,
            models: 2,
            commands: 1,
            has_more: true,
            required: Some(2),
            approved: Some(1),
        }],
        types: vec![TypeCount { gate_type: text.into(), count: 1 }],
        types_total: 12,
        is_cut: true,
        waiting: 3,
        decided: lately(text),
        newer: Some(gate(text).id),
        is_continuation: false,
    }
}

/// A page of decisions with `text` in every text field.
pub fn decisions(text: &str) -> DecidedList {
    let gates = vec![decided(text, "waived"), decided(text, "failed")];
    DecidedList { gates, waiting: 3, decided: lately(text), older: Some(gate(text).id), is_continuation: true }
}

/// A pending gate with `text` in every text field.
pub fn gate(text: &str) -> Gate {
    Gate {
        id: GateId(Uuid::from_u128(2)),
        run_id: run_id(),
        goal: text.into(),
        step: Some(text.into()),
        gate_type: text.into(),
        status: GateStatus::Pending,
        money: None,
        reason: Some(text.into()),
        evidence_uri: Some(text.into()),
        evidence_id: None,
        evidence_type: Some("gate_attachment".into()),
        judged_at: None,
        on_pass: OnPass::Finish,
        created_at: at(),
        expires_at: Some(at()),
        is_over: false,
        decided_at: None,
        actor: None,
        decision_reason: None,
    }
}

pub fn decided(text: &str, status: &str) -> Gate {
    Gate {
        id: GateId(Uuid::from_u128(3)),
        status: state(status),
        evidence_id: Some(ArtifactId(Uuid::from_u128(4))),
        actor: Some(text.into()),
        decision_reason: Some(text.into()),
        decided_at: Some(at()),
        ..gate(text)
    }
}

/// A step that began after a second, with `text` in every text field.
pub fn step(text: &str, ordinal: i64, status: StepStatus) -> Step {
    Step {
        ordinal,
        name: text.into(),
        tool: text.into(),
        status,
        attempt: 3,
        max_attempts: 3,
        failures: 2,
        workers_lost: 1,
        ready_ms: Some(500),
        started_ms: Some(1_000),
        finished_ms: None,
        open_since: Some(at()),
        next_try_at: Some(at()),
        error: Some(text.into()),
    }
}

/// An attempt that took a second.
pub fn attempt(ordinal: i64, number: i64, status: AttemptStatus) -> Attempt {
    let started_ms = 2_000 * number - 1_000;
    Attempt { ordinal, number, status, started_ms, finished_ms: Some(started_ms + 1_000), decided_ms: None }
}

/// A run with `text` in every text field.
pub fn run(text: &str, status: &str) -> Run {
    Run {
        id: run_id(),
        status: state(status),
        goal: text.into(),
        generation: 2,
        budget_usd_micros: Some(MicroUsd(2_500_000)),
        spent_usd_micros: MicroUsd(1_234_567),
        reserved_usd_micros: MicroUsd(400),
        plan_digest: text.into(),
        failure: Some(text.into()),
        created_by: Some(text.into()),
        created_at: Timestamp(text.into()),
        started_at: Some(at()),
        finished_at: None,
        deadline_at: Some(at()),
        duration_ms: Some(1_500),
        stopped: Some(Stopped { actor: Some(text.into()), at: at() }),
        ready_since: Some(at()),
        steps: vec![step(text, 0, StepStatus::Ready), step(text, 1, StepStatus::Failed)],
        steps_total: 300,
        edges: vec![(0, 1)],
        attempts: vec![attempt(0, 1, AttemptStatus::Failed)],
        now_ms: 9_000,
        gates: vec![gate(text), decided(text, "waived")],
        gates_total: 99,
        gates_open: 1,
        artifacts: vec![Artifact {
            storage: None,
            id: ArtifactId(Uuid::from_u128(4)),
            step: Some(text.into()),
            name: text.into(),
            kind: text.into(),
            hash: text.into(),
            size_bytes: 2_048,
            media_type: text.into(),
        }],
        artifacts_total: 9,
        timeline: timeline(text),
        waiting: 3,
        focus: Focus { gate: Some(GateId(Uuid::from_u128(2))) },
    }
}

/// Events of a step with `text` in every text field.
pub fn timeline(text: &str) -> Timeline {
    let step = json!({"name": text, "ordinal": 1, "started_at": at()});
    let payload = json!({"name": text, "actor": text, "reason": text, "attempt": 2, "gate_type": text, "was": text,
                         "gate_id": run_id(), "artifact_id": run_id(), "model": text, "table": text, "rows": 2,
                         "error": {"message": text}, "failure": {"message": text}});
    let kinds = [
        "run.paused",
        "step.failed",
        "step.blocked",
        "gate.failed",
        "artifact.created",
        "codegen.usage",
        "db_write.executed",
        text,
    ];
    let event = |(seq, kind): (usize, &&str)| {
        let timestamp = format!("2026-11-23T10:00:{seq:02}Z");
        json!({"seq": 7 + seq, "type": kind, "timestamp": timestamp, "step": step, "payload": payload})
    };
    let events: Vec<Value> = kinds.iter().enumerate().map(event).collect();
    let read: Timeline = serde_json::from_value(json!({"total": 14, "events": events})).expect("a timeline");
    Timeline { older: Some(7), ..read }
}

/// The events of a run that the address selects.
pub fn selected(run: Run, place: Place) -> Run {
    let selection = Selection { kinds: vec![EventKind::Gates], step: Some(1), place };
    Run { timeline: Timeline { newer: Some(14), selection, ..run.timeline }, ..run }
}

/// A form of a new run with `text` in every text field.
pub fn typed(text: &str) -> Typed {
    let stored = |id| Some(Stored { id: ArtifactId(Uuid::from_u128(id)), name: Some(text.into()) });
    Typed {
        plan: text.into(),
        actor: text.into(),
        key: text.into(),
        workspace: stored(5),
        base: stored(6),
        example: Some("release"),
        from: Some(run_id()),
    }
}

pub fn new_run<'a>(base: Base, typed: &'a Typed, outcome: Outcome<'a>) -> NewRunPage<'a> {
    NewRunPage { base, waiting: 3, token: "t", typed, outcome }
}
/// A gate's page with `text` in every text field: a manual step before an insert, an update and a delete.
pub fn detail(gate: &Gate, text: &str) -> GateDetail {
    let id = run_id();
    let artifact = json!({"id": id, "uri": "s3://b/k", "hash": text, "size_bytes": 9, "media_type": text});
    let exhibit = json!({"artifact": artifact, "name": text, "type": text, "step": text, "tool": "codegen"});
    let rule = json!({"allowed_ops": ["insert"], "columns": [text], "triggers": {}, "max_rows": 5});
    let start = |inputs: Value, rule: Value| {
        json!({"name": text, "tool": "db_write", "status": "pending", "blockers": 1, "inputs": inputs, "refs": null,
               "table": text, "rule": rule, "rule_actor": text, "rule_at": at()})
    };
    let later = json!({"allowed_ops": ["update"], "columns": [text], "key": ["id"]});
    let row = json!({text: text});
    let other = json!({"gate_id": id, "gate_type": text, "step": text, "decision": "reject", "actor": text, "reason": text,
                       "created_at": at()});
    let proof = json!({"ordinal": 2, "name": text, "tool": text, "status": "succeeded", "reason": text, "evidence_id": id,
                       "coverage": {"covered": 17, "uncovered": 0, "threshold": 0.9}, "findings": {text: 2}});
    let fields = json!({
        "step_ordinal": 3, "step_tool": text,
        "subject": {"tree": {"sha256": text}, "difference": text, "base": text}, "same": 2, "run_status": "blocked",
        "plan_digest": text, "steps_waiting": 2, "proofs": [proof],
        "proof_counts": {"succeeded": 55, "failed": 1, "pending": 2, "running": 1, "skipped": 1}, "gates_waiting": 1,
        "outputs": [{"name": text, "tool": text, "outputs": {"text": text}, "bytes": 9},
                    {"name": text, "tool": text, "outputs": null, "bytes": 90_000}],
        "documents": [exhibit, exhibit, exhibit, exhibit, exhibit], "documents_total": 20,
        "starts": [
            start(json!({"table": "public.t", "op": "insert", "values": [row, {text: 7}]}), rule),
            start(json!({"table": "public.t", "op": "update", "where": row, "set": row}), Value::Null),
            start(json!({"table": "public.t", "op": "delete", "where": row}), json!({"allowed_ops": text})),
            {"name": text, "tool": text, "status": "pending", "blockers": 3, "inputs": null, "refs": null, "table": null,
             "rule": null, "rule_actor": null, "rule_at": null}],
        "starts_counts": {"writes": 3, "models": 7, "commands": 12, "others": 8},
        "later": [start(json!({"table": "public.t", "op": "update", "where": row, "set": row, "expected_rows": 1}), later)],
        "later_counts": {"writes": 2, "models": 0, "commands": 1, "others": 4}, "others": [other], "policy": {"version": 4, "document": {"gates": {"on_weakening": text}}},
        "waiting": 3, "before": null, "required": 2, "approved": 1, "eligible": 1, "may_decide": {"ok": true, "waive": true},
        "rule": {"required": 2, "roles": ["approver"], "people": [text, text], "self": false, "owners": "excluded",
                 "waive": "admins", "max_session_age_s": null},
        "approvals": [{"decision": "approve", "actor": text, "subject": text, "reason": text, "created_at": at(), "is_self": true}]
    });
    // The gate's own fields come from its struct.
    let mut fields = fields;
    for (name, value) in gate_fields(gate) {
        fields[name] = value;
    }
    GateDetail { before: Some(decided(text, "passed")), ..serde_json::from_value(fields).expect("a gate") }
}

fn gate_fields(gate: &Gate) -> [(&'static str, Value); 17] {
    [
        ("id", json!(gate.id)),
        ("run_id", json!(gate.run_id)),
        ("goal", json!(gate.goal)),
        ("step", json!(gate.step)),
        ("gate_type", json!(gate.gate_type)),
        ("status", json!(gate.status)),
        ("reason", json!(gate.reason)),
        ("evidence_uri", json!(gate.evidence_uri)),
        ("evidence_id", json!(gate.evidence_id)),
        ("evidence_type", json!(gate.evidence_type)),
        ("on_pass", json!(gate.on_pass)),
        ("created_at", json!(gate.created_at)),
        ("expires_at", json!(gate.expires_at)),
        ("is_over", json!(gate.is_over)),
        ("decided_at", json!(gate.decided_at)),
        ("actor", json!(gate.actor)),
        ("decision_reason", json!(gate.decision_reason)),
    ]
}

/// Each kind of content.
pub fn contents(text: &str) -> [Content; 4] {
    let text = || text.to_owned();
    [Content::Text(text()), Content::Markdown(text()), Content::Other, Content::Unreadable(text())]
}

/// The page of a gate.
pub fn decision(detail: &GateDetail) -> DecisionPage<'_> {
    DecisionPage {
        base: Base::RUN,
        detail,
        change: None,
        contents: &[],
        token: "0123456789abcdef0123456789abcdef",
        from_inbox: false,
        rows: None,
        refused: None,
        link: None,
    }
}

/// A step with `text` in every text field.
pub fn step_detail(text: &str, status: &str) -> StepDetail {
    let (id, at) = (run_id(), at());
    let stored = json!({"text": json!({text: [text, 1.5, null]}).to_string(), "bytes": 90_000});
    let neighbour = |status: &str| json!({"ordinal": 1, "name": text, "status": status});
    let tried = |number: i64, status: &str, ms: Option<i64>| json!({"number": number, "status": status, "started_at": at, "duration_ms": ms, "error": text});
    let failed = json!({"provider": text, "model": text, "kind": text, "reason": text, "tries": 3});
    let usage = json!({"provider": text, "model": text, "usable": false, "reason": text, "input_tokens": 2_422,
                       "output_tokens": null, "cached_input_tokens": 7, "duration_ms": 17_300, "tries": 2,
                       "fallback_from": [failed], "late_attempt": 1});
    let detail = json!({
        "run_id": id, "run_status": "running", "goal": text, "ordinal": 4, "steps_total": 9, "name": text, "tool": text,
        "handler": text, "status": status, "attempt": 3, "shown": 3, "max_attempts": 3, "failures": 2, "workers_lost": 1,
        "timeout_s": 600, "ready_at": at, "started_at": at, "finished_at": null, "duration_ms": null, "lease_until": at,
        "next_try_at": at, "inputs": stored, "outputs": stored,
        "error": {"code": text, "message": text, "text": json!({"message": text}).to_string(), "bytes": 20},
        "attempts": [tried(3, "running", None), tried(2, "lost", Some(900)), tried(1, "failed", Some(1_500))],
        "parents": [neighbour("blocked"), neighbour("running")], "parents_total": 30, "children": [neighbour("pending")],
        "children_total": 2, "culprit": neighbour("failed"), "gates": [], "gates_total": 5,
        "artifacts": [{"id": id, "step": text, "name": text, "type": text, "hash": text, "size_bytes": 9, "media_type": text}],
        "artifacts_total": 60, "evidence": null,
        "calls": [{"timestamp": at, "usage": usage}, {"timestamp": at, "usage": "of another shape"}],
        "calls_total": 40, "calls_truncated": true, "write": null, "waiting": 3
    });
    let step: StepDetail = serde_json::from_value(detail).expect("a step");
    StepDetail { gates: vec![gate(text), decided(text, "waived")], ..step }
}
