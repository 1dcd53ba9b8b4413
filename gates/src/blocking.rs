//! Blocking work.

use tokio::task::{self, JoinHandle};
use tracing::Span;

/// Like `tokio::task::spawn_blocking`, but keeps the current span, so that log lines carry the attempt's fields.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let span = Span::current();
    task::spawn_blocking(move || span.in_scope(work))
}
