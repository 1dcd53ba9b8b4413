//! One HTTP exchange with bounded memory.
//!
//! docs/decisions/0022-providers-without-client-libraries.md says why it uses no client library of a provider. Reqwest's
//! decompression is off, because it limits neither the compressed nor the decompressed size.

use std::io::{self, Write as _};
use std::time::Duration;

use flate2::write::GzDecoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::ask::parse;
use crate::config::CodegenConfig;
use crate::fault::{Fault, FaultKind};
use crate::progress::Progress;
use crate::provider::Api;
use crate::stream::{Events, MAX_STREAM_BYTES};
use crate::wire::{Assembly, WireRequest};

/// Fits the longest accepted text with its escapes. The limit applies to compressed and to decompressed bytes.
pub(crate) const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Error bodies have a few hundred bytes. A longer one is ignored, and only the status counts.
const MAX_ERROR_BYTES: usize = 256 * 1024;
/// An error body that takes longer than this is also ignored.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a request.
pub(crate) struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Content,
}

/// What an answer contains.
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// A streamed answer, put together.
    Streamed(Value),
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For everything.
    pub whole: Duration,
    /// For the beginning of a streamed answer: its headers, and then its first event.
    pub first: Duration,
    /// For each event after that.
    pub idle: Duration,
    /// Whether a comment, which servers send to keep a connection open, ends a pause as an event does.
    pub hears_comments: bool,
    /// Between two reports of what a streamed answer has so far.
    pub report: Duration,
}

/// A client that does not follow redirects (they would send keys elsewhere), retry (the router does), read the
/// environment (proxies) or decompress. With HTTP/1 it accepts at most 100 headers of 400 kB in total.
pub(crate) fn client(config: &CodegenConfig) -> Result<Client, Fault> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .http1_only()
        .connect_timeout(connect_timeout(config))
        .user_agent(concat!("nofx-codegen/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| Fault::new(FaultKind::Unusable, "the HTTP client cannot be built"))
}

/// Shorter than the other timeouts, so that a failed connection is not mistaken for a late answer.
fn connect_timeout(config: &CodegenConfig) -> Duration {
    let shortest = if config.stream { config.request_timeout.min(config.idle_timeout) } else { config.request_timeout };
    config.connect_timeout.min(shortest.mul_f64(0.9))
}

/// Sends a request and reads its answer. Dropping an unread answer closes the connection.
pub(crate) async fn exchange(
    client: &Client,
    request: WireRequest,
    api: Api,
    patience: Patience,
    progress: &Progress<'_>,
) -> Result<Response, Fault> {
    let deadline = Instant::now() + patience.whole;
    let timed_out = |_| Fault::timed_out(patience.whole);
    let send = client.post(&request.url).headers(request.headers).body(request.body).send();
    // The beginning is awaited no longer than the whole.
    let begun = match timeout_at(deadline.min(Instant::now() + patience.first), send).await {
        Ok(begun) => begun,
        Err(_) if patience.first < patience.whole => return Err(Fault::stalled(patience.first)),
        Err(late) => return Err(timed_out(late)),
    };
    let mut response = begun.map_err(|error| Fault::of_transport(&error))?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let content = if !status.is_success() {
        let limit = deadline.min(Instant::now() + ERROR_BODY_TIMEOUT);
        let body = timeout_at(limit, read(response, &headers, MAX_ERROR_BYTES)).await;
        Content::Bytes(body.ok().and_then(Result::ok).unwrap_or_default())
    } else if media_type(&headers) == "text/event-stream" {
        let body = timeout_at(deadline, read_stream(response, &headers, api, patience, progress)).await;
        Content::Streamed(body.map_err(timed_out)??)
    } else {
        let body = timeout_at(deadline, read(response, &headers, MAX_ANSWER_BYTES)).await;
        Content::Bytes(body.map_err(timed_out)??)
    };
    Ok(Response { status, headers, content })
}

/// The media type without parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

async fn read(mut response: reqwest::Response, headers: &HeaderMap, max_bytes: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Body::new(headers, max_bytes)?;
    while let Some(chunk) = response.chunk().await.map_err(|error| Fault::of_transport(&error))? {
        body.push(&chunk)?;
    }
    body.finish()
}

/// Reads events until the answer is complete. An answer without its end is cut off.
async fn read_stream(
    mut response: reqwest::Response,
    headers: &HeaderMap,
    api: Api,
    Patience { first, idle, hears_comments, report, .. }: Patience,
    progress: &Progress<'_>,
) -> Result<Value, Fault> {
    let mut body = Body::new(headers, MAX_STREAM_BYTES)?;
    let (mut events, mut assembly) = (Events::default(), Assembly::new(api));
    let mut reported = Instant::now();
    // When something was heard last, and for how long nothing more may be.
    let (mut heard, mut wait) = (Instant::now(), first);
    while !assembly.is_complete() {
        let chunk = timeout_at(heard + wait, response.chunk()).await.map_err(|_| Fault::stalled(wait))?;
        let Some(chunk) = chunk.map_err(|error| Fault::of_transport(&error))? else { break };
        body.push(&chunk)?;
        if hears_comments {
            heard = Instant::now();
        }
        events.push(&body.take()?, |data| {
            (heard, wait) = (Instant::now(), idle);
            match data {
                b"[DONE]" => assembly.push_done(),
                data => assembly.push(parse(data)?)?,
            }
            Ok(())
        })?;
        if reported.elapsed() >= report {
            progress.report(assembly.partial());
            reported = Instant::now();
        }
    }
    assembly.finish().ok_or_else(Fault::truncated)
}

/// A body that is being read. The limit counts both compressed and decompressed bytes.
enum Body {
    Plain(BoundedBuffer),
    Gzip { received: usize, decoder: Box<GzDecoder<BoundedBuffer>> },
}

impl Body {
    /// We accept only gzip. A server may also send the body uncompressed.
    fn new(headers: &HeaderMap, max_bytes: usize) -> Result<Self, Fault> {
        let bounded = BoundedBuffer { bytes: Vec::new(), max_bytes };
        let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim());
        match encoding.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "identity") => Ok(Self::Plain(bounded)),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip { received: 0, decoder: Box::new(GzDecoder::new(bounded)) }),
            Some(_) => Err(Fault::unusable("the answer has an encoding that was not requested")),
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Plain(bounded) => bounded.write_all(chunk).map_err(|_| too_long(bounded.max_bytes)),
            Self::Gzip { received, decoder } => {
                let max_bytes = decoder.get_ref().max_bytes;
                *received = received.saturating_add(chunk.len());
                if *received > max_bytes {
                    return Err(too_long(max_bytes));
                }
                decoder.write_all(chunk).map_err(|error| match error.kind() {
                    io::ErrorKind::FileTooLarge => too_long(max_bytes),
                    _ => Fault::unusable("the answer is not valid gzip"),
                })
            }
        }
    }

    /// The bytes that were decompressed since the last call.
    fn take(&mut self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Plain(bounded) => Ok(std::mem::take(&mut bounded.bytes)),
            Self::Gzip { decoder, .. } => {
                decoder.flush().map_err(|_| Fault::unusable("the answer is not valid gzip"))?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Plain(bounded) => Ok(bounded.bytes),
            // An empty answer has its own fault.
            Self::Gzip { received: 0, .. } => Ok(Vec::new()),
            Self::Gzip { decoder, .. } => {
                let max_bytes = decoder.get_ref().max_bytes;
                decoder.finish().map(|bounded| bounded.bytes).map_err(|error| match error.kind() {
                    io::ErrorKind::FileTooLarge => too_long(max_bytes),
                    _ => Fault::truncated(),
                })
            }
        }
    }
}

fn too_long(max_bytes: usize) -> Fault {
    Fault::unusable(format!("the answer is longer than {max_bytes} bytes"))
}

/// A buffer with a limit. A write beyond it fails.
struct BoundedBuffer {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl io::Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn body(encoding: &'static str, chunks: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, reqwest::header::HeaderValue::from_static(encoding))]);
        let mut body = Body::new(&headers, 1000)?;
        for chunk in chunks {
            body.push(chunk)?;
        }
        body.finish()
    }

    #[test]
    fn a_body_may_have_at_most_the_limit() {
        for (length, fits) in [(1000, true), (1001, false)] {
            let text = vec![b'x'; length];
            assert_eq!(body("identity", &[&text]).is_ok(), fits);
            assert_eq!(body("GZIP", &[&gzip(&text)]).is_ok(), fits, "decompressed bytes count");
        }
        // Empty blocks: compressed bytes that decompress to nothing.
        let nothing = [&gzip(b"")[..10], &[0, 0, 0, 0xff, 0xff].repeat(200)].concat();
        assert_eq!(body("gzip", &[&nothing]), Err(too_long(1000)), "compressed bytes count");
    }

    #[test]
    fn a_truncated_gzip_body_is_distinguished_from_an_invalid_one() {
        let whole = gzip(b"{}");
        assert_eq!(body("gzip", &[&whole[..10], &whole[10..]]), Ok(b"{}".to_vec()));
        assert_eq!(body("gzip", &[&whole[..whole.len() - 4]]), Err(Fault::truncated()));
        assert!(body("gzip", &[&whole, &whole]).is_err(), "only one gzip member is accepted");
        assert_eq!(body("gzip", &[b"plain text"]).unwrap_err().reason, "the answer is not valid gzip");
        assert!(body("br", &[]).unwrap_err().reason.contains("not requested"));
    }
}
