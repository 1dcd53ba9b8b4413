//! Lambda's Runtime API for the HTTP functions: each asks for its next invocation and posts the answer.
//!
//! `cargo lambda watch` has one of its own, which confirms an answer before it has read it and then loses some of the
//! larger ones. This one reads first. It also knows whether a function took an invocation, and sees at once when the
//! process that took it is gone: each function has a port of its own, and all connections to it end with the process.

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

use super::server::{Unread, read_body};
use crate::aws::resources::REGION;

/// The largest answer of a function that Lambda takes: 6 MB, and room for what it adds itself.
pub const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024 + 100;
/// A process that lives opens its next connection within this time. The next process takes longer to start.
const RECONNECT: Duration = Duration::from_millis(100);
/// What an error says of itself is bounded as well.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// Why an invocation has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// No process asked for it in time. It was withdrawn: nobody will work on it.
    NotTaken,
    /// The process that took it is gone. What it did before is not known.
    Ended,
    /// The process that took it may still be working on it.
    TimedOut,
    /// The function reported an error in place of an answer.
    Error(String),
    /// The answer has more bytes than Lambda takes.
    TooLarge(usize),
}

type Answer = Result<Bytes, Failure>;

/// The functions and what they are asked.
#[derive(Debug)]
pub struct Functions(BTreeMap<String, Arc<Function>>);

/// A function and what it is asked.
#[derive(Debug, Default)]
pub struct Function {
    work: Mutex<Work>,
    arrived: Notify,
    /// Connections that its process has open. It opens and closes them as it likes, but while it lives it has one.
    connections: watch::Sender<usize>,
}

/// A connection of a function's process, as long as it is open.
#[derive(Debug)]
pub struct Presence(Arc<Function>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[derive(Debug, Default)]
struct Work {
    waiting: VecDeque<Invocation>,
    /// Where the answers of what was taken go.
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

/// Takes an invocation back when nobody waits for it any more.
struct Withdrawal<'a> {
    function: &'a Function,
    id: Uuid,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let mut work = self.function.lock();
        work.waiting.retain(|invocation| invocation.id != self.id);
        work.taken.remove(&self.id);
    }
}

impl Functions {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| (name.to_owned(), Arc::default())).collect())
    }

    /// Invokes a function with an event and waits for its answer, `limit` at most.
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
    /// The API itself.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(fail))
            .with_state(self)
    }

    /// Counts a connection of its process.
    pub fn presence(self: &Arc<Self>) -> Presence {
        self.connections.send_modify(|count| *count += 1);
        Presence(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn invoke(&self, id: Uuid, event: Bytes, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        let deadline_ms = (SystemTime::now() + limit).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (taken, mut was_taken) = oneshot::channel();
        let (answer, mut answered) = oneshot::channel();
        let withdrawal = Withdrawal { function: self, id };
        self.lock().waiting.push_back(Invocation { id, event, deadline_ms, taken, answer });
        self.arrived.notify_one();
        let Ok(taken) = timeout_at(deadline, &mut was_taken).await else {
            drop(withdrawal);
            // It may have been taken in the very moment in which it was to be withdrawn.
            return Err(if was_taken.try_recv().is_ok() { Failure::TimedOut } else { Failure::NotTaken });
        };
        if taken.is_err() {
            return Err(Failure::NotTaken);
        }
        tokio::select! {
            biased;
            answer = &mut answered => answer.unwrap_or(Err(Failure::Ended)),
            () = self.gone() => Err(Failure::Ended),
            () = sleep_until(deadline) => Err(Failure::TimedOut),
        }
    }

    /// Returns once no process has a connection any more.
    async fn gone(&self) {
        let mut connections = self.connections.subscribe();
        loop {
            let none = connections.wait_for(|count| *count == 0).await.is_ok();
            let again = timeout(RECONNECT, connections.wait_for(|count| *count > 0));
            if none && again.await.is_err() {
                return;
            }
        }
    }

    /// The next invocation, as soon as there is one.
    async fn take(&self) -> (Uuid, u128, Bytes) {
        loop {
            if let Some(invocation) = self.take_now() {
                return invocation;
            }
            self.arrived.notified().await;
        }
    }

    fn take_now(&self) -> Option<(Uuid, u128, Bytes)> {
        let mut work = self.lock();
        let Invocation { id, event, deadline_ms, taken, answer } = work.waiting.pop_front()?;
        let _ = taken.send(());
        work.taken.insert(id, answer);
        Some((id, deadline_ms, event))
    }

    /// Hands over an answer; false if nobody waits for it.
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
        Err(Unread::TooLarge(size)) => {
            function.answer(id, Err(Failure::TooLarge(size)));
            refused(StatusCode::PAYLOAD_TOO_LARGE, "Function.ResponseSizeTooLarge", "the answer is too large")
        }
        Err(Unread::Broken | Unread::Crowded) => {
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

/// A late answer gets an error, as from Lambda.
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
    async fn what_is_withdrawn_is_never_taken() {
        let function = Function::default();
        assert_eq!(function.invoke(Uuid::nil(), Bytes::new(), Duration::ZERO).await, Err(Failure::NotTaken));
        assert!(function.take_now().is_none());
    }

    #[tokio::test]
    async fn a_caller_that_gave_up_leaves_nothing_behind() {
        let function = Function::default();
        let mut call = Box::pin(function.invoke(Uuid::nil(), Bytes::new(), LONG));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        assert!(function.take_now().is_none());
    }

    #[tokio::test]
    async fn a_late_answer_is_told_that_nobody_waits() {
        let function = Arc::new(Function::default());
        let _process = function.presence();
        let (answer, _) = tokio::join!(function.invoke(Uuid::nil(), Bytes::new(), SHORT), function.take());
        assert_eq!(answer, Err(Failure::TimedOut));
        assert!(!function.answer(Uuid::nil(), Ok(Bytes::new())));
    }

    #[tokio::test]
    async fn only_the_end_of_the_last_connection_is_the_end_of_the_process() {
        let function = Arc::new(Function::default());
        let (one, other) = (function.presence(), function.presence());
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
        let _process = function.presence();
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
