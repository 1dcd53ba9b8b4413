//! One HTTP exchange in bounded memory.
//!
//! Decision: requests and answers are written and read here and in `wire`, not by a client library. genai 0.7 did it before:
//! it reads whole bodies, of any size and compressed or not, takes only a finished reqwest client (so nothing can be counted
//! on the way), cuts endings such as `-max` off model names, drops refusals, tool calls and the usage of blocked prompts, and
//! counts tokens in 32 bits. Its request builders are usable without its exchange, but what it then saves is three JSON
//! objects. Reqwest's own decompression stays off, because it counts neither side.

use std::io::{self, Write as _};
use std::time::Duration;

use flate2::write::GzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::time::timeout;

use crate::config::CodegenConfig;
use crate::fault::Fault;

/// Room for the longest text that is taken, escapes included. Counts for compressed and for decompressed bytes.
pub(crate) const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Errors are a few hundred bytes. One that is longer is judged by its status alone.
const MAX_ERROR_BYTES: usize = 256 * 1024;
/// So is one whose body takes longer than this.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What came back.
pub(crate) struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A client that neither follows redirects (they would carry keys elsewhere), nor retries (the router does), nor reads the
/// environment (proxies), nor decompresses. HTTP/1 takes at most 100 headers and 400 kB of them.
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
        .connect_timeout(config.connect_timeout)
        .user_agent(concat!("nofx-codegen/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| Fault::unusable("the HTTP client cannot be built"))
}

/// Sends a request and reads its answer. An answer that is left unread closes its connection.
pub(crate) async fn exchange(request: RequestBuilder) -> Result<Response, Fault> {
    let mut response = request.send().await.map_err(|error| Fault::of_transport(&error))?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let body = if status.is_success() {
        read(response, &headers, MAX_ANSWER_BYTES).await?
    } else {
        let body = timeout(ERROR_BODY_TIMEOUT, read(response, &headers, MAX_ERROR_BYTES)).await;
        body.ok().and_then(Result::ok).unwrap_or_default()
    };
    Ok(Response { status, headers, body })
}

async fn read(mut response: reqwest::Response, headers: &HeaderMap, most: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Body::new(headers, most)?;
    while let Some(chunk) = response.chunk().await.map_err(|error| Fault::of_transport(&error))? {
        body.push(&chunk)?;
    }
    body.finish()
}

/// A body on its way. Both sides of a compressed one are counted.
enum Body {
    Plain(Bounded),
    Gzip { received: usize, decoder: Box<GzDecoder<Bounded>> },
}

impl Body {
    /// Only gzip is asked for; a server may also send the plain text.
    fn new(headers: &HeaderMap, most: usize) -> Result<Self, Fault> {
        let bounded = Bounded { bytes: Vec::new(), most };
        let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim());
        match encoding.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "identity") => Ok(Self::Plain(bounded)),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip { received: 0, decoder: Box::new(GzDecoder::new(bounded)) }),
            Some(_) => Err(Fault::unusable("the answer is compressed in a way that was not asked for")),
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Plain(bounded) => bounded.write_all(chunk).map_err(|_| too_long(bounded.most)),
            Self::Gzip { received, decoder } => {
                let most = decoder.get_ref().most;
                *received = received.saturating_add(chunk.len());
                if *received > most {
                    return Err(too_long(most));
                }
                decoder.write_all(chunk).map_err(|error| match error.kind() {
                    io::ErrorKind::FileTooLarge => too_long(most),
                    _ => Fault::unusable("the answer's compression is broken"),
                })
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Plain(bounded) => Ok(bounded.bytes),
            // Nothing at all is an empty answer, which has a fault of its own.
            Self::Gzip { received: 0, .. } => Ok(Vec::new()),
            Self::Gzip { decoder, .. } => {
                let most = decoder.get_ref().most;
                decoder.finish().map(|bounded| bounded.bytes).map_err(|error| match error.kind() {
                    io::ErrorKind::FileTooLarge => too_long(most),
                    _ => Fault::broken_off(),
                })
            }
        }
    }
}

fn too_long(most: usize) -> Fault {
    Fault::unusable(format!("the answer is longer than {most} bytes"))
}

/// Keeps what fits, and refuses the write that does not.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
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
    fn a_body_may_fill_its_bound_and_not_a_byte_more() {
        for (length, fits) in [(1000, true), (1001, false)] {
            let text = vec![b'x'; length];
            assert_eq!(body("identity", &[&text]).is_ok(), fits);
            assert_eq!(body("GZIP", &[&gzip(&text)]).is_ok(), fits, "decompressed bytes count");
        }
        // Blocks of nothing: bytes come in and none go out.
        let nothing = [&gzip(b"")[..10], &[0, 0, 0, 0xff, 0xff].repeat(200)].concat();
        assert_eq!(body("gzip", &[&nothing]), Err(too_long(1000)), "compressed bytes count");
    }

    #[test]
    fn a_compressed_body_that_breaks_off_is_told_from_a_broken_one() {
        let whole = gzip(b"{}");
        assert_eq!(body("gzip", &[&whole[..10], &whole[10..]]), Ok(b"{}".to_vec()));
        assert_eq!(body("gzip", &[&whole[..whole.len() - 4]]), Err(Fault::broken_off()));
        assert!(body("gzip", &[&whole, &whole]).is_err(), "one member, as all servers send it");
        assert_eq!(body("gzip", &[b"plain text"]).unwrap_err().reason, "the answer's compression is broken");
        assert!(body("br", &[]).unwrap_err().reason.contains("not asked for"));
    }
}
