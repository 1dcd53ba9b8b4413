//! HTTP/1 on a loopback port until asked to stop.

use std::{io, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
};
use futures::StreamExt;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::stop::Stop;

/// After an error of `accept`, which means that this process or the machine has no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of a body that is too large this many times its bound is read and thrown away: whoever still sends does not read.
const DRAIN_FACTOR: usize = 8;

/// Listens on `port` of the loopback interface.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

/// Serves `router`; what `presence` gives is held as long as a connection. When asked to stop, what is being answered is
/// answered; dropping the future ends that as well.
pub async fn serve<P: Send + 'static>(
    listener: TcpListener,
    router: Router,
    presence: impl Fn() -> P + Send + 'static,
    mut stop: Stop,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.asked() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (present, connection) = (presence(), serve_connection(stream, router.clone(), stop.clone()));
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

async fn serve_connection(stream: TcpStream, router: Router, mut stop: Stop) {
    // Answers leave whole: waiting for more to send would only delay the end of each.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
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
}

/// The whole body, if it has at most `max` bytes.
pub async fn read_body(body: Body, max: usize) -> Result<Bytes, Unread> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut seen) = (Vec::new(), 0_usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Unread::Broken)?;
        seen = seen.saturating_add(chunk.len());
        if seen <= max {
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
    async fn half_a_body_is_not_a_body() {
        let half = futures::stream::iter([Ok(Bytes::from_static(b"half")), Err(io::Error::other("reset"))]);
        assert_eq!(read_body(Body::from_stream(half), 100).await, Err(Unread::Broken));
    }
}
