//! Serves HTTP/1 on a loopback port until a stop signal.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::event::is_local_host;
use crate::process::stop::StopSignal;

/// Pause after an error of `accept`, which means that this process or the machine has no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of open connections.
const MAX_CONNECTIONS: usize = 1_024;
/// Maximum total size of bodies that are arriving, over all connections.
const MAX_BYTES_IN_FLIGHT: usize = 256 << 20;
/// A body that is too large is read up to this many times its limit and discarded, because a client that still sends
/// does not read the answer.
const DRAIN_FACTOR: usize = 8;

/// Listens on `port` of the loopback interface.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

/// Refuses requests for a host that is no name of this machine (421). With DNS rebinding, a page of another site would reach
/// `router` otherwise.
pub fn only_local_hosts(router: Router) -> Router {
    router.layer(from_fn(async |request: Request, next: Next| {
        if is_local_host(request.headers()) {
            next.run(request).await
        } else {
            StatusCode::MISDIRECTED_REQUEST.into_response()
        }
    }))
}

/// Serves `router`. The value of `connection_guard` is held while a connection is open. With `head_limit`, a connection
/// that sends no complete request head within that time is closed. After the stop signal, requests in flight are still
/// answered. Dropping the future aborts them.
pub async fn serve<P: Send + 'static>(
    listener: TcpListener,
    router: Router,
    connection_guard: impl Fn() -> P + Send + 'static,
    head_limit: Option<Duration>,
    mut stop: StopSignal,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.received() => break,
            accepted = listener.accept() => match accepted {
                // Too many connections: close the new one and keep the others.
                Ok((stream, _)) if connections.len() >= MAX_CONNECTIONS => drop(stream),
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, router.clone(), head_limit, stop.clone());
                    let guard = connection_guard();
                    connections.spawn(async move {
                        connection.await;
                        drop(guard);
                    });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, router: Router, head_limit: Option<Duration>, mut stop: StopSignal) {
    // Send at once: waiting for more data would only delay the end of an answer.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // Errors of a connection concern only its client.
        _ = connection.as_mut() => return,
        () = stop.received() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It exceeds the limit. The number is how many bytes were seen.
    TooLarge(usize),
    /// The connection closed before its end.
    Incomplete,
    /// Too many bytes of other bodies are arriving.
    Overloaded,
}

/// Number of bytes of arriving requests, over all connections.
#[derive(Debug, Default)]
pub struct BytesInFlight(AtomicUsize);

/// The bytes of one request, counted until it has been read.
struct Reservation<'a> {
    all: &'a BytesInFlight,
    bytes: usize,
}

impl Reservation<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.bytes += bytes;
        let all = self.all.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > MAX_BYTES_IN_FLIGHT { Err(BodyError::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The complete body of a request, if it has at most `max` bytes and the total of arriving bodies stays within its
/// limit.
pub async fn read_request(body: Body, max: usize, in_flight: &BytesInFlight) -> Result<Bytes, BodyError> {
    let mut reservation = Reservation { all: in_flight, bytes: 0 };
    read(body, max, |bytes| reservation.add(bytes)).await
}

/// The complete body, if it has at most `max` bytes.
pub async fn read_body(body: Body, max: usize) -> Result<Bytes, BodyError> {
    read(body, max, |_| Ok(())).await
}

async fn read(
    body: Body,
    max: usize,
    mut reserve: impl FnMut(usize) -> Result<(), BodyError>,
) -> Result<Bytes, BodyError> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut seen) = (Vec::new(), 0_usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
        seen = seen.saturating_add(chunk.len());
        if seen <= max {
            reserve(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        } else if seen / DRAIN_FACTOR > max {
            break;
        }
    }
    if seen > max { Err(BodyError::TooLarge(seen)) } else { Ok(bytes.into()) }
}

#[cfg(test)]
mod tests {
    use hyper::service::Service;

    use super::*;

    #[tokio::test]
    async fn a_request_for_a_foreign_host_reaches_no_router() {
        let router = only_local_hosts(Router::new().fallback(async || "reached"));
        for (host, status) in
            [("evil.test", 421), ("127.0.0.1.evil.test:80", 421), ("localhost:80", 200), ("127.0.0.1", 200)]
        {
            let request = Request::builder().header("host", host).body(Body::empty()).unwrap();
            let answer = TowerToHyperService::new(router.clone()).call(request).await.unwrap();
            assert_eq!(answer.status(), status, "{host}");
        }
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_refused() {
        assert_eq!(read_body(Body::from("12345"), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read_body(Body::from("123456"), 5).await, Err(BodyError::TooLarge(6)));
        let endless = futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(b"12345")));
        assert!(matches!(read_body(Body::from_stream(endless), 5).await, Err(BodyError::TooLarge(_))));
    }

    #[tokio::test]
    async fn arriving_bodies_have_a_common_limit() {
        let (in_flight, max) = (BytesInFlight::default(), MAX_BYTES_IN_FLIGHT);
        let mut reservation = Reservation { all: &in_flight, bytes: 0 };
        assert_eq!(reservation.add(max), Ok(()));
        assert_eq!(read_request(Body::from("1"), 5, &in_flight).await, Err(BodyError::Overloaded));
        drop(reservation);
        assert_eq!(read_request(Body::from("1"), 5, &in_flight).await, Ok(Bytes::from("1")));
    }

    #[tokio::test]
    async fn an_incomplete_body_is_an_error() {
        let half = futures::stream::iter([Ok(Bytes::from_static(b"half")), Err(io::Error::other("reset"))]);
        assert_eq!(read_body(Body::from_stream(half), 100).await, Err(BodyError::Incomplete));
    }
}
