//! Sends requests to a function as API Gateway does, in both event formats.

use std::collections::BTreeMap;

use axum::Router;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, LambdaEvent};
use nofx_tests::{Lab, contract};
use reqwest::Url;
use serde_json::{Value, json};
use tower::ServiceExt;

/// The event format of API Gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// REST API, payload format 1.0.
    Rest,
    /// HTTP API (and `cargo lambda watch`), payload format 2.0.
    Http,
}

pub const SHAPES: [Shape; 2] = [Shape::Rest, Shape::Http];

/// A response of a function.
#[derive(Debug)]
pub struct Answer {
    pub status: u64,
    pub headers: Value,
    pub body: Value,
    pub bytes: usize,
}

/// A client of one function.
pub struct Gateway {
    router: Router,
    shape: Shape,
}

impl Gateway {
    pub fn api(lab: &Lab, shape: Shape) -> Self {
        Self { router: shared::http::with_layers(api::router(lab.ctx.clone())), shape }
    }

    pub fn approvals(lab: &Lab, shape: Shape) -> Self {
        Self { router: shared::http::with_layers(approvals::router(lab.ctx.clone())), shape }
    }

    pub fn console(lab: &Lab, shape: Shape) -> Self {
        Self { router: shared::http::with_layers(console::router(lab.ctx.clone())), shape }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body.to_string())).await
    }

    /// Sends a request as an event of this format, and checks the response against the API's document.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let event = match self.shape {
            Shape::Rest => rest_event(method, path, headers, body.as_deref()),
            Shape::Http => http_event(method, path, headers, body.as_deref()),
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

fn rest_event(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Value {
    let (path, query) = split(path);
    // API Gateway decodes them.
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let url = Url::parse(&format!("http://host/?{query}")).expect("a query string");
    for (key, value) in url.query_pairs() {
        values.entry(key.into_owned()).or_default().push(value.into_owned());
    }
    let query = json!(values);
    let mut all = vec![("content-type", "application/json"), ("host", "api.example")];
    all.extend(headers);
    let all: serde_json::Map<_, _> = all.into_iter().map(|(key, value)| (key.to_owned(), json!([value]))).collect();
    json!({
        "resource": path, "path": path, "httpMethod": method, "headers": {}, "multiValueHeaders": all,
        "queryStringParameters": null, "multiValueQueryStringParameters": query, "pathParameters": null,
        "stageVariables": null, "body": body, "isBase64Encoded": false,
        "requestContext": {"requestId": "gateway-1", "stage": "prod", "httpMethod": method, "path": path,
                           "identity": {"sourceIp": "192.0.2.1"}, "resourcePath": path, "accountId": "1",
                           "apiId": "a", "resourceId": "r", "protocol": "HTTP/1.1"}
    })
}

fn http_event(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Value {
    let (path, query) = split(path);
    let mut all = vec![("content-type", "application/json"), ("host", "api.example")];
    all.extend(headers);
    let all: serde_json::Map<_, _> = all.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query, "headers": all,
        "body": body, "isBase64Encoded": false,
        "requestContext": {"requestId": "gateway-1", "stage": "$default", "accountId": "1", "apiId": "a",
                           "routeKey": "$default", "domainName": "api.example", "domainPrefix": "api",
                           "time": "23/Nov/2026:00:00:00 +0000", "timeEpoch": 1,
                           "http": {"method": method, "path": path, "protocol": "HTTP/1.1",
                                    "sourceIp": "192.0.2.1", "userAgent": "test"}}
    })
}
