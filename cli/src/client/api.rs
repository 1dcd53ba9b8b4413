//! A client of the control plane's HTTP API.

use std::env;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nofx_local::report::{hinted, printable};
use reqwest::header::{ACCEPT, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LINK};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::view::{ArtifactPage, Event, Gate, RunDetail, StepPage};

use crate::client::sign::Signer;

const DEFAULT_URL: &str = "http://127.0.0.1:3000";
/// A list that has more pages never ends.
const MAX_PAGES: usize = 1_000;

#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    /// Signs every request, where API Gateway asks for that.
    signer: Option<Signer>,
    pub http: reqwest::Client,
}

/// An answer that a client asks for again and again.
#[derive(Debug)]
pub struct Polled<T> {
    path: String,
    /// The newest answer, and its `ETag` if it has one.
    newest: Option<(Option<HeaderValue>, T)>,
}

impl<T> Polled<T> {
    pub fn of(path: String) -> Self {
        Self { path, newest: None }
    }
}

/// An RFC 9457 problem document.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    code: String,
    detail: String,
    request_id: Option<String>,
    errors: Vec<Offence>,
}

#[derive(Debug, Deserialize)]
struct Offence {
    #[serde(default)]
    path: String,
    #[serde(default)]
    message: String,
}

impl Api {
    /// The API at `NOFX_API_URL`, by default the local stack. One at API Gateway gets signed requests.
    pub async fn from_env() -> Self {
        let base = env::var("NOFX_API_URL").unwrap_or_else(|_| DEFAULT_URL.to_owned());
        Self { signer: Signer::for_url(&base).await, ..Self::at(&base) }
    }

    #[must_use]
    pub fn signed_by(self, signer: Signer) -> Self {
        Self { signer: Some(signer), ..self }
    }

    pub fn at(base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), signer: None, http: reqwest::Client::new() }
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

    /// Events of a run after the one numbered `after`: a page of them.
    pub async fn timeline(&self, run_id: &str, after: i64) -> Result<Vec<Event>> {
        self.get(&timeline(run_id, after)).await
    }

    pub async fn gates(&self, run_id: &str) -> Result<Vec<Gate>> {
        let pages: Vec<Vec<Gate>> = self.pages(&format!("/runs/{run_id}/gates")).await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// The current answer. One that has not changed is not sent again.
    pub async fn poll<'a, T: DeserializeOwned>(&self, polled: &'a mut Polled<T>) -> Result<&'a T> {
        let url = self.url(&polled.path);
        let known = polled.newest.as_ref().and_then(|(tag, _)| tag.as_ref());
        let (status, headers, text) = self.exchange(Method::GET, &url, None, known).await?;
        if status != StatusCode::NOT_MODIFIED {
            let answer = self.answer(&Method::GET, &url, status, &text)?;
            polled.newest = Some((headers.get(ETAG).cloned(), answer));
        }
        match &polled.newest {
            Some((_, answer)) => Ok(answer),
            None => bail!("GET {}: {status}, but no answer came before", polled.path),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.send(Method::GET, &self.url(path), None).await?.0)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        Ok(self.send(Method::POST, &self.url(path), Some(body)).await?.0)
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        Ok(self.send(Method::PUT, &self.url(path), Some(body)).await?.0)
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        Ok(self.send(Method::DELETE, &self.url(path), Some(body)).await?.0)
    }

    /// A list from its first page to its last, as the API's links lead.
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

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(T, HeaderMap)> {
        let (status, headers, text) = self.exchange(method.clone(), url, body, None).await?;
        Ok((self.answer(&method, url, status, &text)?, headers))
    }

    /// Sends a request. `known` is the `ETag` of an answer that need not be sent again.
    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        known: Option<&HeaderValue>,
    ) -> Result<(StatusCode, HeaderMap, String)> {
        let mut request = self.http.request(method.clone(), url).header(ACCEPT, "application/json");
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(tag) = known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let response = self.execute(request.timeout(Duration::from_mins(1))).await;
        let response = response.map_err(|error| match error.downcast_ref::<reqwest::Error>() {
            Some(failure) if failure.is_connect() => {
                let hint = "start the local stack with `nofx dev`, or set NOFX_API_URL";
                hinted(format!("nothing answers at {}", self.base), hint)
            }
            Some(failure) if failure.is_builder() => {
                hinted(format!("{} is not a URL", self.base), "NOFX_API_URL looks like http://127.0.0.1:3000")
            }
            _ => error.context(format!("{method} {url}")),
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.with_context(|| format!("{method} {url}: the answer broke off"))?;
        Ok((status, headers, text))
    }

    /// The body of a successful answer.
    fn answer<T: DeserializeOwned>(&self, method: &Method, url: &str, status: StatusCode, text: &str) -> Result<T> {
        let path = url.strip_prefix(&self.base).unwrap_or(url);
        if !status.is_success() {
            return Err(refusal(&format!("{method} {path}"), status, text));
        }
        serde_json::from_str(text).with_context(|| format!("{method} {path}: unexpected answer {}", cut(text)))
    }

    async fn execute(&self, request: RequestBuilder) -> Result<Response> {
        let mut request = request.build()?;
        if let Some(signer) = &self.signer {
            signer.sign(&mut request).await?;
        }
        Ok(self.http.execute(request).await?)
    }
}

/// The path of a page of events.
pub fn timeline(run_id: &str, after: i64) -> String {
    format!("/runs/{run_id}/timeline?after={after}")
}

/// Where `Link: <..>; rel="next"` leads from `url`.
fn next_page(url: &str, headers: &HeaderMap) -> Result<Option<String>> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let next = links.filter_map(|link| link.split_once('>')).find(|(_, rest)| rest.contains("rel=\"next\""));
    let Some((target, _)) = next else { return Ok(None) };
    let target = target.trim_start().trim_start_matches('<');
    let here = Url::parse(url)?;
    match here.join(target) {
        // Signatures are for this server.
        Ok(next) if next.origin() == here.origin() => Ok(Some(next.into())),
        _ => bail!("{url} goes on elsewhere: {}", printable(target)),
    }
}

/// A problem document as an error; its offending paths a line each.
fn refusal(call: &str, status: StatusCode, text: &str) -> anyhow::Error {
    let problem: Problem = serde_json::from_str(text).unwrap_or_default();
    let mut message = format!("{call}: {status}");
    if !problem.code.is_empty() {
        let _ = write!(message, " ({})", printable(&problem.code));
    }
    for part in [printable(&problem.title), printable(&problem.detail)] {
        if !part.is_empty() && !message.contains(part.as_str()) {
            message.push_str(": ");
            message.push_str(&part);
        }
    }
    if problem.title.is_empty() && problem.detail.is_empty() && !text.is_empty() {
        message.push_str(": ");
        message.push_str(&cut(text));
    }
    for offence in &problem.errors {
        let offence = format!("{}: {}", printable(&offence.path), printable(&offence.message));
        // A single one is the detail already.
        if !message.ends_with(&offence) {
            let _ = write!(message, "\n  {offence}");
        }
    }
    match problem.request_id {
        Some(id) if status.is_server_error() => {
            hinted(message, format!("the request was {}; see the logs", printable(&id)))
        }
        _ => anyhow::Error::msg(message),
    }
}

/// The start of a text that is too long to show.
fn cut(text: &str) -> String {
    let end = text.char_indices().nth(300).map_or(text.len(), |(at, _)| at);
    printable(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_where_its_link_leads() {
        let at = "https://api.test/prod/runs/1/gates?limit=9";
        let next = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            next_page(at, &headers).unwrap()
        };
        let expected = "https://api.test/prod/runs/1/gates?after=x&limit=9";
        assert_eq!(next("<?after=x&limit=9>; rel=\"next\"").as_deref(), Some(expected));
        assert_eq!(next("<?before=x>; rel=\"prev\""), None);
        assert_eq!(next_page(at, &HeaderMap::new()).unwrap(), None);
        let elsewhere = [(LINK, "<https://evil.test/>; rel=\"next\"".parse().unwrap())];
        assert!(next_page(at, &elsewhere.into_iter().collect()).is_err());
    }

    #[test]
    fn a_refusal_names_the_offending_paths() {
        let text = r#"{"title":"Bad Request","status":400,"detail":"the plan is invalid","errors":[{"path":"plan.steps[1].tool","message":"unknown tool"}]}"#;
        let error = refusal("POST /runs", StatusCode::BAD_REQUEST, text).to_string();
        assert_eq!(error, "POST /runs: 400 Bad Request: the plan is invalid\n  plan.steps[1].tool: unknown tool");
        let single = r#"{"title":"Bad Request","status":400,"detail":"plan.steps: must not be empty","errors":[{"path":"plan.steps","message":"must not be empty"}]}"#;
        let error = refusal("POST /runs", StatusCode::BAD_REQUEST, single).to_string();
        assert_eq!(error, "POST /runs: 400 Bad Request: plan.steps: must not be empty");
        assert_eq!(refusal("GET /x", StatusCode::BAD_GATEWAY, "oops").to_string(), "GET /x: 502 Bad Gateway: oops");
        assert!(!refusal("GET /x", StatusCode::BAD_GATEWAY, "\u{1b}[2J").to_string().contains('\u{1b}'));
    }
}
