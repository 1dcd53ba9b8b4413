//! A router whose database is down, and sample data.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use shared::config::{Config, DatabaseConfig};
use shared::context::Ctx;
use shared::db::console::{Artifact, Event, Focus, Gate, Parent, Run, RunRow, Step, StepCounts};
use shared::domain::{ArtifactId, GateId, GateStatus, RunId, RunStatus, StepStatus, Timestamp};
use tower::ServiceExt;
use uuid::Uuid;

pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

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

/// The function's router as `main` serves it. Nothing listens at its database address.
pub fn router() -> Router {
    let url = "postgresql://nobody@127.0.0.1:1/nothing?sslmode=disable".into();
    let config = Config::new(DatabaseConfig { url, ca_file: None, pool_size: 1 });
    let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1")).build();
    shared::http::with_layers(console::router(Ctx::new(config, &sdk).unwrap()))
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

pub async fn send(request: Request<Body>) -> Answer {
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
    let created_at = Timestamp(text.into());
    RunRow {
        id: run_id(),
        status: RunStatus::Blocked,
        goal: text.into(),
        created_at,
        started_at: Some(at()),
        duration_ms: None,
        steps: StepCounts { total: 3, succeeded: 1, blocked: 1, ..StepCounts::default() },
        loud_step: Some(text.into()),
    }
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
        reason: Some(text.into()),
        evidence_uri: Some(text.into()),
        evidence_id: None,
        evidence_type: None,
        created_at: at(),
        expires_at: Some(at()),
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

/// A run with `text` in every text field.
pub fn run(text: &str, status: &str) -> Run {
    let parents = (0..10).map(|ordinal| Parent { ordinal, name: text.into() }).collect();
    Run {
        id: run_id(),
        status: state(status),
        goal: text.into(),
        generation: 2,
        plan_digest: text.into(),
        failure: Some(text.into()),
        created_at: Timestamp(text.into()),
        started_at: Some(at()),
        finished_at: None,
        deadline_at: Some(at()),
        duration_ms: Some(1_500),
        steps: vec![Step {
            ordinal: 0,
            name: text.into(),
            tool: text.into(),
            status: StepStatus::Ready,
            attempt: 3,
            max_attempts: 3,
            failures: 2,
            workers_lost: 1,
            error: Some(text.into()),
            ready_at: Some(at()),
            duration_ms: Some(20),
            depends_on: parents,
            parents_total: 12,
        }],
        steps_total: 300,
        gates: vec![gate(text), decided(text, "waived")],
        gates_total: 99,
        artifacts: vec![Artifact {
            id: ArtifactId(Uuid::from_u128(4)),
            step: Some(text.into()),
            name: text.into(),
            kind: text.into(),
            hash: text.into(),
            size_bytes: 2_048,
            media_type: text.into(),
        }],
        artifacts_total: 9,
        events: vec![Event {
            seq: 7,
            step: Some(text.into()),
            kind: text.into(),
            timestamp: Timestamp(text.into()),
            subject: Some(text.into()),
            attempt: Some(text.into()),
            actor: Some(text.into()),
            reason: Some(text.into()),
            error: Some(text.into()),
        }],
        waiting: 3,
        focus: Focus { steps_from: 100, gate: Some(GateId(Uuid::from_u128(2))) },
    }
}
