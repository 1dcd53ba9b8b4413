//! HTTP/1 on a loopback port until asked to stop.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::process::stop::Stop;

/// After an error of `accept`, which means that this process or the machine has no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at once.
const MAX_CONNECTIONS: usize = 1_024;
/// Bytes of bodies that are on their way at once, over all connections.
const MAX_ARRIVING_BYTES: usize = 256 << 20;
/// Of a body that is too large this many times its bound is read and thrown away: whoever still sends does not read.
const DRAIN_FACTOR: usize = 8;

/// Listens on `port` of the loopback interface.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

/// Serves `router`; what `presence` gives is held as long as a connection. With `head_limit`, a connection that sends no
/// whole head of a request for so long is closed. When asked to stop, what is being answered is
/// answered; dropping the future ends that as well.
pub async fn serve<P: Send + 'static>(
    listener: TcpListener,
    router: Router,
    presence: impl Fn() -> P + Send + 'static,
    head_limit: Option<Duration>,
    mut stop: Stop,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.asked() => break,
            accepted = listener.accept() => match accepted {
                // Whoever opens so many is no reader of pages: the others go on.
                Ok((stream, _)) if connections.len() >= MAX_CONNECTIONS => drop(stream),
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, router.clone(), head_limit, stop.clone());
                    let present = presence();
                    connections.spawn(async move {
                        connection.await;
                        drop(present);
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

async fn serve_connection(stream: TcpStream, router: Router, head_limit: Option<Duration>, mut stop: Stop) {
    // Answers leave whole: waiting for more to send would only delay the end of each.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A connection that breaks is its peer's affair.
        _ = connection.as_mut() => return,
        () = stop.asked() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// It has more bytes than are allowed; so many were seen.
    TooLarge(usize),
    /// It ended before its end.
    Broken,
    /// Too many others are on their way.
    Crowded,
}

/// Bytes of requests that are on their way, over all connections.
#[derive(Debug, Default)]
pub struct Arriving(AtomicUsize);

/// What one request adds to them, as long as it is read.
struct Share<'a> {
    all: &'a Arriving,
    bytes: usize,
}

impl Share<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), Unread> {
        self.bytes += bytes;
        let all = self.all.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > MAX_ARRIVING_BYTES { Err(Unread::Crowded) } else { Ok(()) }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The whole body of a request, if it has at most `max` bytes, and if it fits beside the others that arrive.
pub async fn read_request(body: Body, max: usize, arriving: &Arriving) -> Result<Bytes, Unread> {
    let mut share = Share { all: arriving, bytes: 0 };
    read(body, max, |bytes| share.add(bytes)).await
}

/// The whole body, if it has at most `max` bytes.
pub async fn read_body(body: Body, max: usize) -> Result<Bytes, Unread> {
    read(body, max, |_| Ok(())).await
}

async fn read(body: Body, max: usize, mut keep: impl FnMut(usize) -> Result<(), Unread>) -> Result<Bytes, Unread> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut seen) = (Vec::new(), 0_usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Unread::Broken)?;
        seen = seen.saturating_add(chunk.len());
        if seen <= max {
            keep(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        } else if seen / DRAIN_FACTOR > max {
            break;
        }
    }
    if seen > max { Err(Unread::TooLarge(seen)) } else { Ok(bytes.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_not_beyond() {
        assert_eq!(read_body(Body::from("12345"), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read_body(Body::from("123456"), 5).await, Err(Unread::TooLarge(6)));
        let endless = futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(b"12345")));
        assert!(matches!(read_body(Body::from_stream(endless), 5).await, Err(Unread::TooLarge(_))));
    }

    #[tokio::test]
    async fn many_bodies_at_once_are_bounded_together() {
        let (arriving, most) = (Arriving::default(), MAX_ARRIVING_BYTES);
        let mut share = Share { all: &arriving, bytes: 0 };
        assert_eq!(share.add(most), Ok(()));
        assert_eq!(read_request(Body::from("1"), 5, &arriving).await, Err(Unread::Crowded));
        drop(share);
        assert_eq!(read_request(Body::from("1"), 5, &arriving).await, Ok(Bytes::from("1")));
    }

    #[tokio::test]
    async fn half_a_body_is_not_a_body() {
        let half = futures::stream::iter([Ok(Bytes::from_static(b"half")), Err(io::Error::other("reset"))]);
        assert_eq!(read_body(Body::from_stream(half), 100).await, Err(Unread::Broken));
    }
}
