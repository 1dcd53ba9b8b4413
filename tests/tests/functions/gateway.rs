//! Sends requests to a function as API Gateway does, in both event formats.

use std::collections::BTreeMap;

use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, LambdaEvent};
use nofx_tests::{Lab, contract};
use reqwest::Url;
use serde_json::{Map, Value, json};
use shared::context::Ctx;
use shared::http::Routes;
use tower::ServiceExt;

/// The event format of API Gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// REST API, payload format 1.0, at a custom domain.
    Rest,
    /// The same at a custom domain that maps `/acme/nofx` to the API.
    RestMapped,
    /// The same at API Gateway's own address, where paths start with the stage.
    RestStage,
    /// HTTP API (and `cargo lambda watch`), payload format 2.0.
    Http,
    /// The same at API Gateway's own address. API Gateway chooses a route.
    HttpStage,
}

pub const SHAPES: [Shape; 2] = [Shape::Rest, Shape::Http];

impl Shape {
    /// The part of a client's path before the route.
    pub fn base_path(self) -> &'static str {
        match self {
            Self::Rest | Self::Http => "",
            Self::RestMapped => "/acme/nofx",
            Self::RestStage | Self::HttpStage => "/prod",
        }
    }
}

/// A response of a function.
#[derive(Debug)]
pub struct Answer {
    pub status: u64,
    pub headers: Value,
    pub body: Value,
    pub bytes: usize,
}

/// A name of this machine. The local mode admits nobody who uses another one.
pub const HOST: &str = "localhost";

/// A client of one function.
pub struct Gateway {
    router: Router,
    routes: Vec<&'static str>,
    shape: Shape,
}

impl Gateway {
    pub fn api(lab: &Lab, shape: Shape) -> Self {
        Self::of(api::router(lab.ctx.clone()).expect("a router"), &api::routes(), shape)
    }

    pub fn approvals(lab: &Lab, shape: Shape) -> Self {
        Self::of(approvals::router(lab.ctx.clone()).expect("a router"), &approvals::routes(), shape)
    }

    pub fn console(lab: &Lab, shape: Shape) -> Self {
        Self::of(console::router(lab.ctx.clone()).expect("a router"), &console::routes(), shape)
    }

    fn of(function: Router, listed: &Routes<Ctx>, shape: Shape) -> Self {
        let routes = listed.table().iter().map(|route| route.path).collect();
        Self { router: shared::http::with_layers(function), routes, shape }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body.to_string())).await
    }

    /// Sends a request as an event of this format, and checks the response against the API's document.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let route = self.routes.iter().find(|route| matches_route(route, split(path).0)).copied();
        let request =
            Request { shape: self.shape, route, method, path, headers, body: body.as_deref(), is_base64: false };
        self.answer(&request).await
    }

    /// Posts bytes, which API Gateway sends in base64.
    pub async fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let route = self.routes.iter().find(|route| matches_route(route, split(path).0)).copied();
        let body = STANDARD.encode(body);
        let (method, body) = ("POST", Some(body.as_str()));
        self.answer(&Request { shape: self.shape, route, method, path, headers, body, is_base64: true }).await
    }

    async fn answer(&self, request: &Request<'_>) -> Answer {
        let (method, path) = (request.method, request.path);
        let event = match self.shape {
            Shape::Rest | Shape::RestMapped | Shape::RestStage => rest_event(request),
            Shape::Http | Shape::HttpStage => http_event(request),
        };
        let payload: LambdaRequest = serde_json::from_value(event).expect("an event of API Gateway");
        let adapter = Adapter::from(self.router.clone());
        let event = LambdaEvent::new(shared::http::mend(payload), Context::default());
        let answer = adapter.oneshot(event).await.expect("an answer");
        let answer = serde_json::to_value(&answer).expect("an answer is JSON");
        let text = answer["body"].as_str().unwrap_or_default();
        let answer = Answer {
            status: answer["statusCode"].as_u64().expect("a status"),
            headers: json!({"one": answer["headers"], "many": answer["multiValueHeaders"]}),
            bytes: text.len(),
            body: serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        };
        let (path, media_type) = (split(path).0, answer.header("content-type"));
        let problems = contract::problems(method, path, answer.status, media_type, &answer.body);
        assert!(problems.is_empty(), "not in the API's document: {problems:?}: {answer:?}");
        answer
    }
}

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        // The REST format has a list of values per header, the HTTP format one value.
        self.headers["many"][name][0].as_str().or_else(|| self.headers["one"][name].as_str())
    }
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('?').unwrap_or((path, ""))
}

fn matches_route(route: &str, path: &str) -> bool {
    let (mut expected, mut found) = (route.split('/'), path.split('/'));
    let is_same = |(expected, found): (&str, &str)| expected == found || expected.starts_with('{');
    expected.clone().count() == found.clone().count() && expected.by_ref().zip(found.by_ref()).all(is_same)
}

/// A request.
struct Request<'a> {
    shape: Shape,
    /// The route that API Gateway chooses.
    route: Option<&'static str>,
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Option<&'a str>,
    is_base64: bool,
}

impl Request<'_> {
    fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        [("content-type", "application/json"), ("host", HOST)].into_iter().chain(self.headers.iter().copied())
    }
}

fn rest_event(request: &Request<'_>) -> Value {
    let (path, query) = split(request.path);
    // API Gateway decodes them.
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let url = Url::parse(&format!("http://host/?{query}")).expect("a query string");
    for (key, value) in url.query_pairs() {
        values.entry(key.into_owned()).or_default().push(value.into_owned());
    }
    let headers: Map<_, _> = request.headers().map(|(key, value)| (key.to_owned(), json!([value]))).collect();
    let full_path = format!("{}{path}", request.shape.base_path());
    // The event's path has the base path of a custom domain, but not the stage.
    let in_event = if request.shape == Shape::RestStage { path } else { &full_path };
    let (method, route) = (request.method, request.route.unwrap_or(path));
    json!({
        "resource": route, "path": in_event, "httpMethod": method, "headers": {}, "multiValueHeaders": headers,
        "queryStringParameters": null, "multiValueQueryStringParameters": values, "pathParameters": null,
        "stageVariables": null, "body": request.body, "isBase64Encoded": request.is_base64,
        "requestContext": {"requestId": "gateway-1", "stage": "prod", "httpMethod": method, "path": full_path,
                           "identity": {"sourceIp": "192.0.2.1"}, "resourcePath": route, "accountId": "1",
                           "apiId": "a", "resourceId": "r", "protocol": "HTTP/1.1"}
    })
}

fn http_event(request: &Request<'_>) -> Value {
    let (path, query) = split(request.path);
    let headers: Map<_, _> = request.headers().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    let (full_path, method) = (format!("{}{path}", request.shape.base_path()), request.method);
    let (stage, key) = match (request.shape, request.route) {
        (Shape::HttpStage, Some(route)) => ("prod", format!("{method} {route}")),
        (Shape::HttpStage, None) => ("prod", "$default".to_owned()),
        _ => ("$default", "$default".to_owned()),
    };
    json!({
        "version": "2.0", "routeKey": key, "rawPath": full_path, "rawQueryString": query, "headers": headers,
        "body": request.body, "isBase64Encoded": request.is_base64,
        "requestContext": {"requestId": "gateway-1", "stage": stage, "accountId": "1", "apiId": "a",
                           "routeKey": key, "domainName": "api.example", "domainPrefix": "api",
                           "time": "23/Nov/2026:00:00:00 +0000", "timeEpoch": 1,
                           "http": {"method": method, "path": full_path, "protocol": "HTTP/1.1",
                                    "sourceIp": "192.0.2.1", "userAgent": "test"}}
    })
}
