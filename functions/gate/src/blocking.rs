//! Work for threads of its own.

use tokio::task::{self, JoinHandle};
use tracing::Span;

/// `tokio::task::spawn_blocking`, whose log lines stay those of the attempt.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let span = Span::current();
    task::spawn_blocking(move || span.in_scope(work))
}
