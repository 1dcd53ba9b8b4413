//! Reads the keys of an issuer over HTTP.
//!
//! The address comes only from the configuration. Redirects are not followed, and the answer is bounded in size and time. The
//! caller checks its content.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, HttpBody as Body};
use axum::http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::key::MAX_DOCUMENT_BYTES;
use crate::error::Error;

/// The endpoint that lists an issuer's keys.
pub struct Endpoint {
    address: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    timeout: Duration,
}

impl Endpoint {
    /// `address` is `https`, or `http` of this machine: the configuration has checked it. `timeout` covers the whole
    /// request.
    pub fn new(address: &str, timeout: Duration) -> Result<Self, Error> {
        let address = address.parse().map_err(|_| Error::invalid("AUTH_JWKS_URL", "is no URL"))?;
        Ok(Self { address, client: client()?, timeout })
    }

    /// The text of the document. `Err` is the reason, for the log.
    pub async fn fetch(&self) -> Result<String, String> {
        timeout(self.timeout, self.read()).await.unwrap_or_else(|_| Err(format!("no answer in {:?}", self.timeout)))
    }

    async fn read(&self) -> Result<String, String> {
        let request = Request::get(&self.address).header(header::ACCEPT, "application/json").body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| format!("no answer: {error}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the status is {}", answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await;
        let bytes = body.map_err(|error| format!("the body cannot be read: {error}"))?.to_bytes();
        String::from_utf8(bytes.to_vec()).map_err(|_| "the body is not UTF-8".to_owned())
    }
}

/// A client for an issuer.
pub(super) fn client<B>() -> Result<Client<HttpsConnector<HttpConnector>, B>, Error>
where
    B: Body + Send,
    B::Data: Send,
{
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Not the process default: rustls panics if two crates each bring a provider.
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("set up TLS", error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    // A process sends a request every few minutes, and Lambda freezes it in between, so an idle connection would be dead.
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}
