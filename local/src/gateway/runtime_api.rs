//! Lambda's Runtime API for the HTTP functions: each asks for its next invocation and posts the answer.
//!
//! `cargo lambda watch` has its own Runtime API, which confirms an answer before it has read all of it and loses some
//! large answers. This one reads first. It also knows whether a function took an invocation. Each function has its own
//! port, so when all connections to it close, its process has ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use super::server::{BodyError, read_body};
use crate::aws::resources::REGION;

/// Maximum size of a function's answer in Lambda: 6 MiB, and 100 bytes for what Lambda adds.
pub const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024 + 100;
/// A live process opens its next connection within this time. Starting a new process takes longer.
const RECONNECT: Duration = Duration::from_millis(100);
/// Maximum size of a reported error.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// Why an invocation has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// No process took it in time. It was withdrawn, so none will.
    NotTaken,
    /// The process that took it has ended. Whether the invocation had an effect is not known.
    Ended,
    /// The process that took it may still be running it.
    TimedOut,
    /// The function reported an error.
    Error(String),
    /// The answer is larger than Lambda allows.
    TooLarge(usize),
}

type Answer = Result<Bytes, Failure>;

/// All functions by name.
#[derive(Debug)]
pub struct Functions(BTreeMap<String, Arc<Function>>);

/// A function and its invocations.
#[derive(Debug, Default)]
pub struct Function {
    invocations: Mutex<Invocations>,
    arrived: Notify,
    /// Number of open connections of its process. A live process always has at least one.
    connections: watch::Sender<usize>,
}

/// Counts a connection of a function's process while it is open.
#[derive(Debug)]
pub struct ConnectionGuard(Arc<Function>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[derive(Debug, Default)]
struct Invocations {
    waiting: VecDeque<Invocation>,
    /// Senders for the answers of taken invocations.
    taken: HashMap<Uuid, oneshot::Sender<Answer>>,
}

#[derive(Debug)]
struct Invocation {
    id: Uuid,
    event: Bytes,
    deadline_ms: u128,
    taken: oneshot::Sender<()>,
    answer: oneshot::Sender<Answer>,
}

/// Withdraws an invocation when its caller stops waiting.
struct InvocationGuard<'a> {
    function: &'a Function,
    id: Uuid,
}

impl Drop for InvocationGuard<'_> {
    fn drop(&mut self) {
        let mut invocations = self.function.lock();
        invocations.waiting.retain(|invocation| invocation.id != self.id);
        invocations.taken.remove(&self.id);
    }
}

impl Functions {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| (name.to_owned(), Arc::default())).collect())
    }

    /// Invokes a function with an event and waits for its answer, at most for `limit`.
    pub async fn invoke(&self, name: &str, id: Uuid, event: Bytes, limit: Duration) -> Answer {
        let Some(function) = self.0.get(name) else { return Err(Failure::NotTaken) };
        function.invoke(id, event, limit).await
    }

    /// Each function with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Function>)> {
        self.0.iter().map(|(name, function)| (name.as_str(), function))
    }
}

impl Function {
    /// The routes of the Runtime API.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(fail))
            .with_state(self)
    }

    /// Counts a connection of the process until the guard is dropped.
    pub fn connection_guard(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.send_modify(|count| *count += 1);
        ConnectionGuard(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Invocations> {
        self.invocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn invoke(&self, id: Uuid, event: Bytes, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        let deadline_ms = (SystemTime::now() + limit).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (taken, mut was_taken) = oneshot::channel();
        let (answer, mut answered) = oneshot::channel();
        let guard = InvocationGuard { function: self, id };
        self.lock().waiting.push_back(Invocation { id, event, deadline_ms, taken, answer });
        self.arrived.notify_one();
        let Ok(taken) = timeout_at(deadline, &mut was_taken).await else {
            drop(guard);
            // A process may have taken it just before it was withdrawn.
            return Err(if was_taken.try_recv().is_ok() { Failure::TimedOut } else { Failure::NotTaken });
        };
        if taken.is_err() {
            return Err(Failure::NotTaken);
        }
        tokio::select! {
            biased;
            answer = &mut answered => answer.unwrap_or(Err(Failure::Ended)),
            () = self.disconnected() => Err(Failure::Ended),
            () = sleep_until(deadline) => Err(Failure::TimedOut),
        }
    }

    /// Returns when no process is connected any more.
    async fn disconnected(&self) {
        let mut connections = self.connections.subscribe();
        loop {
            let none = connections.wait_for(|count| *count == 0).await.is_ok();
            let again = timeout(RECONNECT, connections.wait_for(|count| *count > 0));
            if none && again.await.is_err() {
                return;
            }
        }
    }

    /// Waits for the next invocation.
    async fn take(&self) -> (Uuid, u128, Bytes) {
        loop {
            if let Some(invocation) = self.take_now() {
                return invocation;
            }
            self.arrived.notified().await;
        }
    }

    fn take_now(&self) -> Option<(Uuid, u128, Bytes)> {
        let mut invocations = self.lock();
        let Invocation { id, event, deadline_ms, taken, answer } = invocations.waiting.pop_front()?;
        let _ = taken.send(());
        invocations.taken.insert(id, answer);
        Some((id, deadline_ms, event))
    }

    /// Delivers an answer. False if nobody waits for it.
    fn answer(&self, id: Uuid, answer: Answer) -> bool {
        let waiting = self.lock().taken.remove(&id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }
}

async fn next(State(function): State<Arc<Function>>) -> Response {
    let (id, deadline_ms, event) = function.take().await;
    let headers = AppendHeaders([
        ("lambda-runtime-aws-request-id", id.to_string()),
        ("lambda-runtime-deadline-ms", deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", format!("arn:aws:lambda:{REGION}:000000000000:function:local")),
        ("content-type", "application/json".to_owned()),
    ]);
    (headers, event).into_response()
}

async fn respond(State(function): State<Arc<Function>>, Path(id): Path<Uuid>, body: Body) -> Response {
    match read_body(body, MAX_ANSWER_BYTES).await {
        Ok(bytes) => accepted(function.answer(id, Ok(bytes))),
        Err(BodyError::TooLarge(size)) => {
            function.answer(id, Err(Failure::TooLarge(size)));
            refused(StatusCode::PAYLOAD_TOO_LARGE, "Function.ResponseSizeTooLarge", "the answer is too large")
        }
        Err(BodyError::Incomplete | BodyError::Overloaded) => {
            function.answer(id, Err(Failure::Ended));
            refused(StatusCode::BAD_REQUEST, "InvalidRequest", "the answer ended early")
        }
    }
}

async fn fail(State(function): State<Arc<Function>>, Path(id): Path<Uuid>, body: Body) -> Response {
    let body = read_body(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = error["errorMessage"].as_str().unwrap_or("it does not say why");
    accepted(function.answer(id, Err(Failure::Error(message.to_owned()))))
}

/// A late answer gets an error, as in Lambda.
fn accepted(waited_for: bool) -> Response {
    if waited_for {
        return (StatusCode::ACCEPTED, Json(json!({ "status": "OK" }))).into_response();
    }
    refused(StatusCode::GONE, "InvalidRequestID", "nobody waits for this invocation any more")
}

fn refused(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, Json(json!({ "errorType": kind, "errorMessage": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_withdrawn_invocation_is_never_taken() {
        let function = Function::default();
        assert_eq!(function.invoke(Uuid::nil(), Bytes::new(), Duration::ZERO).await, Err(Failure::NotTaken));
        assert!(function.take_now().is_none());
    }

    #[tokio::test]
    async fn an_invocation_without_a_caller_is_withdrawn() {
        let function = Function::default();
        let mut call = Box::pin(function.invoke(Uuid::nil(), Bytes::new(), LONG));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        assert!(function.take_now().is_none());
    }

    #[tokio::test]
    async fn a_late_answer_is_refused() {
        let function = Arc::new(Function::default());
        let _process = function.connection_guard();
        let (answer, _) = tokio::join!(function.invoke(Uuid::nil(), Bytes::new(), SHORT), function.take());
        assert_eq!(answer, Err(Failure::TimedOut));
        assert!(!function.answer(Uuid::nil(), Ok(Bytes::new())));
    }

    #[tokio::test]
    async fn a_process_has_ended_when_its_last_connection_closes() {
        let function = Arc::new(Function::default());
        let (one, other) = (function.connection_guard(), function.connection_guard());
        let mut call = Box::pin(function.invoke(Uuid::nil(), Bytes::new(), LONG));
        assert!(futures::poll!(&mut call).is_pending());
        function.take().await;
        drop(one);
        assert!(futures::poll!(&mut call).is_pending());
        drop(other);
        assert_eq!(call.await, Err(Failure::Ended));
    }

    #[tokio::test]
    async fn each_invocation_is_taken_once_in_order() {
        let function = Arc::new(Function::default());
        let _process = function.connection_guard();
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];
        let calls = ids.map(|id| function.invoke(id, Bytes::new(), LONG));
        let (answers, taken) = tokio::join!(futures::future::join_all(calls), async {
            let mut taken = Vec::new();
            for _ in ids {
                let (id, ..) = function.take().await;
                assert!(function.answer(id, Ok(Bytes::from(id.to_string()))));
                taken.push(id);
            }
            taken
        });
        assert_eq!(taken, ids);
        assert_eq!(answers, ids.map(|id| Ok(Bytes::from(id.to_string()))));
    }
}
