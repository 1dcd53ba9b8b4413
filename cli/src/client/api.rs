//! A client of the control plane's HTTP API.

use std::error::Error;
use std::time::Duration;
use std::{env, io};

use anyhow::{Result, bail};
use nofx_local::report::{hinted, printable};
use reqwest::header::{ACCEPT, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use shared::domain::ArtifactId;
use shared::view::{ArtifactPage, Event, Gate, RunDetail, StepPage};
use tokio::time::sleep;

use crate::client::credentials::{self, Credentials};
use crate::client::error::{ApiError, Kind, truncated};
use crate::client::profile::{Environment, LOCAL_URL, Target};
use crate::client::sign::Signer;
use crate::client::token::{self, Token};

/// Pauses before a request with an `Idempotency-Key` is sent again.
const AGAIN_AFTER: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];
const AGAIN: &str = "try again in a moment";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A list with more pages counts as endless.
const MAX_PAGES: usize = 1_000;

#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    /// Signs every request, if the API is at API Gateway.
    signer: Option<Signer>,
    /// Identifies the caller. Only the API gets it.
    token: Option<Token>,
    /// Sends requests to the API. It follows no redirect, because the token would go along.
    http: reqwest::Client,
    /// Sends requests to the storage, which gets no token.
    pub storage: reqwest::Client,
}

/// A resource that a client polls.
#[derive(Debug)]
pub struct Polled<T> {
    path: String,
    /// The last answer with its `ETag`, if it has one.
    last: Option<(Option<HeaderValue>, T)>,
}

impl<T> Polled<T> {
    pub fn new(path: String) -> Self {
        Self { path, last: None }
    }
}

impl Api {
    /// The API of the command: `NOFX_API_URL`, else that of the profile. The caller has the token in `NOFX_TOKEN`, else the
    /// one that `nofx login` stored for the API.
    pub async fn connect(profile: Option<&str>) -> Result<Self> {
        let target = Environment::read()?.target(profile)?;
        let token = match Token::from_env()? {
            Some(token) => Some(token),
            None => Credentials::read(&credentials::path()?)?.token_for(&target.api_url)?,
        };
        Ok(Self::of(&target).await.with_token(token))
    }

    /// The API at `NOFX_API_URL`, else the local stack, whatever profiles exist: for programs other than the command.
    pub async fn from_env() -> Result<Self> {
        let api_url = env::var("NOFX_API_URL").unwrap_or_else(|_| LOCAL_URL.to_owned());
        let api = Self::of(&Target { api_url, ..Target::default() }).await;
        Ok(api.with_token(Token::from_env()?))
    }

    /// The API of a target. Requests to API Gateway are signed.
    pub async fn of(target: &Target) -> Self {
        let signer = Signer::for_target(target).await;
        Self { signer, ..Self::at(&target.api_url) }
    }

    #[must_use]
    pub fn signed_by(self, signer: Signer) -> Self {
        Self { signer: Some(signer), ..self }
    }

    #[must_use]
    pub fn with_token(self, token: Option<Token>) -> Self {
        Self { token, ..self }
    }

    pub fn at(base: &str) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { base, signer: None, token: None, http: client(Policy::none()), storage: client(Policy::default()) }
    }

    /// The address of the API.
    pub fn address(&self) -> &str {
        &self.base
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn is_healthy(&self) -> bool {
        let request = self.http.get(self.url("/health")).timeout(Duration::from_secs(35));
        self.execute(request).await.is_ok_and(|response| response.status().is_success())
    }

    /// The run, and the first page of its steps and artifacts.
    pub async fn run(&self, id: &str) -> Result<RunDetail> {
        self.get(&format!("/runs/{id}")).await
    }

    /// The run with all of its steps and artifacts.
    pub async fn whole_run(&self, id: &str) -> Result<RunDetail> {
        let mut detail = self.run(id).await?;
        if let Some(next) = detail.steps_next.take() {
            let pages: Vec<StepPage> = self.pages(&format!("/runs/{id}/steps?after={next}")).await?;
            detail.steps.extend(pages.into_iter().flat_map(|page| page.steps));
        }
        if let Some(next) = detail.artifacts_next.take() {
            let pages: Vec<ArtifactPage> = self.pages(&format!("/runs/{id}/artifacts?after={next}")).await?;
            detail.artifacts.extend(pages.into_iter().flat_map(|page| page.artifacts));
        }
        Ok(detail)
    }

    /// One page of a run's events after the one numbered `after`.
    pub async fn timeline(&self, run_id: &str, after: i64) -> Result<Vec<Event>> {
        self.get(&timeline_path(run_id, after)).await
    }

    pub async fn gates(&self, run_id: &str) -> Result<Vec<Gate>> {
        let pages: Vec<Vec<Gate>> = self.pages(&format!("/runs/{run_id}/gates")).await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// The current answer. The API sends it only if it has changed.
    pub async fn poll<'a, T: DeserializeOwned>(&self, polled: &'a mut Polled<T>) -> Result<&'a T> {
        let url = self.url(&polled.path);
        let etag = polled.last.as_ref().and_then(|(etag, _)| etag.as_ref());
        let (status, headers, text) =
            self.exchange(Method::GET, &url, None, etag.map(|etag| (IF_NONE_MATCH, etag))).await?;
        if status != StatusCode::NOT_MODIFIED {
            let answer = self.parse(&Method::GET, &url, status, &text)?;
            polled.last = Some((headers.get(ETAG).cloned(), answer));
        }
        match &polled.last {
            Some((_, answer)) => Ok(answer),
            None => bail!("GET {}: {status} for the first request", polled.path),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.send(Method::GET, &self.url(path), None).await?.0)
    }

    /// The answer with its `ETag`.
    pub async fn get_with_tag<T: DeserializeOwned>(&self, path: &str) -> Result<(T, Option<HeaderValue>)> {
        let (answer, headers) = self.send(Method::GET, &self.url(path), None).await?;
        Ok((answer, headers.get(ETAG).cloned()))
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        Ok(self.send(Method::POST, &self.url(path), Some(body)).await?.0)
    }

    /// The same with an `Idempotency-Key`. So a request whose answer was lost, or that was not taken, is sent again.
    pub async fn post_once<T: DeserializeOwned>(&self, path: &str, body: &Value, key: &str) -> Result<T> {
        let url = self.url(path);
        let key = HeaderValue::from_str(key)?;
        let mut pauses = AGAIN_AFTER.into_iter();
        loop {
            let answer = self.exchange(Method::POST, &url, Some(body), Some((IDEMPOTENCY_KEY, &key))).await;
            let pause = pauses.next().filter(|_| may_be_sent_again(&answer));
            let Some(pause) = pause else {
                let (status, _, text) = answer?;
                return self.parse(&Method::POST, &url, status, &text);
            };
            sleep(pause).await;
        }
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.put_if(path, body, None).await
    }

    /// The same, if the resource still has this `ETag`.
    pub async fn put_if<T: DeserializeOwned>(&self, path: &str, body: &Value, etag: Option<&HeaderValue>) -> Result<T> {
        let (url, condition) = (self.url(path), etag.map(|etag| (IF_MATCH, etag)));
        let (status, _, text) = self.exchange(Method::PUT, &url, Some(body), condition).await?;
        self.parse(&Method::PUT, &url, status, &text)
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        Ok(self.send(Method::DELETE, &self.url(path), Some(body)).await?.0)
    }

    /// The bytes of an artifact, wherever they are stored.
    pub async fn download(&self, id: ArtifactId) -> Result<Response> {
        self.download_path(&format!("/artifacts/{id}/download")).await
    }

    /// The object to which this path redirects.
    pub async fn download_path(&self, path: &str) -> Result<Response> {
        let mut response =
            self.execute(self.http.get(self.url(path))).await.map_err(|error| self.unanswered(error, path))?;
        if response.status().is_redirection() {
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let signed_url = response.url().join(location.unwrap_or_default())?;
            response =
                self.storage.get(signed_url).send().await.map_err(|error| self.unanswered(error.into(), path))?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        Err(ApiError::of_answer(&format!("GET {path}"), status, &text).into())
    }

    /// All pages of a list. Follows the API's links.
    pub async fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut pages = Vec::new();
        let mut url = self.url(path);
        for _ in 0..MAX_PAGES {
            let (page, headers) = self.send(Method::GET, &url, None).await?;
            pages.push(page);
            match next_page(&url, &headers)? {
                Some(next) => url = next,
                None => return Ok(pages),
            }
        }
        bail!("{url}: more than {MAX_PAGES} pages")
    }

    /// The lines of all pages of a list in JSON lines. Follows the API's links.
    pub async fn lines(&self, path: &str, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut url = self.url(path);
        // As long as the list is: each page leads on.
        loop {
            let (status, headers, text) = self.exchange(Method::GET, &url, None, None).await?;
            if !status.is_success() {
                let path = url.strip_prefix(&self.base).unwrap_or(&url);
                return Err(ApiError::of_answer(&format!("GET {path}"), status, &text).into());
            }
            text.split_terminator('\n').try_for_each(&mut each)?;
            match next_page(&url, &headers)? {
                Some(next) if next != url && !text.is_empty() => url = next,
                _ => return Ok(()),
            }
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(T, HeaderMap)> {
        let (status, headers, text) = self.exchange(method.clone(), url, body, None).await?;
        Ok((self.parse(&method, url, status, &text)?, headers))
    }

    /// Sends a request and returns the answer as text. `extra` is a header, such as one with an `ETag`.
    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        extra: Option<(HeaderName, &HeaderValue)>,
    ) -> Result<Answer> {
        let mut request = self.http.request(method.clone(), url).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some((name, value)) = extra {
            request = request.header(name, value);
        }
        let call = format!("{method} {}", url.strip_prefix(&self.base).unwrap_or(url));
        let response = self.execute(request.timeout(Duration::from_mins(1))).await;
        let response = response.map_err(|error| self.unanswered(error, &call))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(|error| self.unanswered(error.into(), &call))?;
        Ok((status, headers, text))
    }

    /// Parses the body of a successful answer.
    fn parse<T: DeserializeOwned>(&self, method: &Method, url: &str, status: StatusCode, text: &str) -> Result<T> {
        let path = url.strip_prefix(&self.base).unwrap_or(url);
        if !status.is_success() {
            return Err(ApiError::of_answer(&format!("{method} {path}"), status, text).into());
        }
        serde_json::from_str(text).map_err(|error| {
            let seen = if text.is_empty() { "an empty answer".to_owned() } else { truncated(text) };
            // Where the text is not JSON, the place of the error says nothing.
            let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
            let why = if is_json { format!("{error}: ") } else { String::new() };
            ApiError::of_stranger(&format!("{method} {path}: {status}: {why}{seen}")).into()
        })
    }

    /// The error of a request without an answer.
    fn unanswered(&self, error: anyhow::Error, call: &str) -> anyhow::Error {
        match error.downcast_ref::<reqwest::Error>() {
            Some(failure) if failure.is_connect() => {
                let hint =
                    "start the local stack with nofx dev, set NOFX_API_URL, or choose a profile: nofx profile list";
                ApiError::unreachable(self.unconnected(&error), hint).into()
            }
            Some(failure) if failure.is_timeout() => {
                ApiError::no_answer(format!("{call}: no answer in time"), AGAIN).into()
            }
            Some(failure) if failure.is_builder() => {
                hinted(format!("{} is not a URL", self.base), "NOFX_API_URL looks like http://127.0.0.1:3000")
            }
            Some(_) => {
                let hint = if call.starts_with("GET ") {
                    AGAIN
                } else {
                    "look whether it happened, for example with nofx runs, before you try again"
                };
                ApiError::no_answer(format!("{call}: the connection broke before the answer was complete"), hint).into()
            }
            None if error.is::<ApiError>() => error,
            None => error.context(call.to_owned()),
        }
    }

    /// Where nothing answers, and why if it is more than a closed port.
    fn unconnected(&self, error: &anyhow::Error) -> String {
        let place = format!("nothing answers at {}", self.base);
        let is_refused = |cause: &(dyn Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        match error.chain().last() {
            Some(cause) if !error.chain().any(is_refused) => format!("{place}: {}", printable(&cause.to_string())),
            _ => place,
        }
    }

    async fn execute(&self, request: RequestBuilder) -> Result<Response> {
        let mut request = request.build()?;
        if let Some(token) = self.token.as_ref().filter(|_| self.is_own(request.url())) {
            token::check_way(&self.base)?;
            request.headers_mut().insert(token::HEADER, token.value());
        }
        if let Some(signer) = &self.signer {
            signer.sign(&mut request).await?;
        }
        Ok(self.http.execute(request).await?)
    }

    /// Whether a URL is one of this API. Others get no token.
    fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin())
    }
}

/// Status, headers and text.
type Answer = (StatusCode, HeaderMap, String);

/// Whether a gateway or a function may give another answer soon. An address at which nothing answers will not.
fn may_be_sent_again(answer: &Result<Answer>) -> bool {
    match answer {
        Ok((status, ..)) => matches!(status.as_u16(), 502..=504),
        Err(error) => error.downcast_ref::<ApiError>().is_some_and(|error| error.kind == Kind::NoAnswer),
    }
}

/// A connection without a byte for this long is broken.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);

/// A client for requests. Its settings are constants, so it can always be built.
fn client(redirects: Policy) -> reqwest::Client {
    reqwest::Client::builder().read_timeout(SILENCE_LIMIT).redirect(redirects).build().unwrap_or_default()
}

/// The path of one page of a run's events.
pub fn timeline_path(run_id: &str, after: i64) -> String {
    format!("/runs/{run_id}/timeline?after={after}")
}

/// The URL of the next page in `Link: <..>; rel="next"`, relative to `url`.
fn next_page(url: &str, headers: &HeaderMap) -> Result<Option<String>> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let next = links.filter_map(|link| link.split_once('>')).find(|(_, rest)| rest.contains("rel=\"next\""));
    let Some((target, _)) = next else { return Ok(None) };
    let target = target.trim_start().trim_start_matches('<');
    let here = Url::parse(url)?;
    match here.join(target) {
        // Only this server may get signed requests.
        Ok(next) if next.origin() == here.origin() => Ok(Some(next.into())),
        _ => bail!("{url} continues on another server: {}", printable(target)),
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
