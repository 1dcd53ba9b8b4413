//! Converts an HTTP request into a function's event, and a function's answer into a response. The format is API
//! Gateway's payload format 2.0, which `cargo lambda watch` uses too.

use std::collections::BTreeMap;

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use axum::body::{Body, Bytes};
use axum::http::header::{self, InvalidHeaderValue};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Headers that concern one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Lambda sends its runtime headers with this prefix. Clients must not set them.
const RUNTIME_PREFIX: &str = "lambda-runtime-";

/// Headers that show who sent a request. They are forwarded even if `Connection` lists them.
const ALWAYS_FORWARDED: [&str; 6] =
    ["host", "origin", "sec-fetch-site", "content-type", "authorization", "idempotency-key"];

/// Whether the request's host is a name of this machine. A request without a host does not come from a browser.
pub fn is_local_host(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().all(|value| {
        let host = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        // A malformed host is refused later.
        host.is_none_or(|authority| {
            let host = authority.host().to_ascii_lowercase();
            ["127.0.0.1", "localhost", "[::1]"].contains(&host.as_str()) || host.ends_with(".localhost")
        })
    })
}

/// Why a request cannot be converted into an event.
#[derive(Debug, PartialEq, Eq)]
pub enum InvalidRequest {
    /// The host is not valid in a URL.
    Host,
    /// The value of this header is not text.
    Header(String),
}

/// The event of a request.
pub fn from_request(parts: &Parts, body: &Bytes, id: Uuid, now: DateTime) -> Result<Value, InvalidRequest> {
    let host = text(&parts.headers, &header::HOST)?.unwrap_or_default();
    if !host.is_empty() && host.parse::<Authority>().is_err() {
        return Err(InvalidRequest::Host);
    }
    let mut headers = Map::new();
    for name in forwarded(&parts.headers) {
        // The event has a field for cookies.
        if name != header::COOKIE {
            headers.insert(name.to_string(), Value::from(text(&parts.headers, name)?.unwrap_or_default()));
        }
    }
    let cookies = text(&parts.headers, &header::COOKIE)?;
    let cookies: Option<Vec<&str>> = cookies.as_deref().map(|text| text.split("; ").map(str::trim).collect());
    let (text_body, is_base64) = match std::str::from_utf8(body) {
        Ok("") => (None, false),
        Ok(text) => (Some(text.to_owned()), false),
        Err(_) => (Some(STANDARD.encode(body)), true),
    };
    Ok(json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": parts.uri.path(),
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers,
        "cookies": cookies,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": host,
            "domainPrefix": "local",
            "http": {
                "method": parts.method.as_str(),
                "path": parts.uri.path(),
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": text(&parts.headers, &header::USER_AGENT)?,
            },
            "requestId": id.to_string(),
            "routeKey": "$default",
            "stage": "$default",
            "time": now.fmt(DateTimeFormat::HttpDate).unwrap_or_default(),
            "timeEpoch": now.to_millis().unwrap_or_default(),
        },
        "body": text_body,
        "isBase64Encoded": is_base64,
    }))
}

/// The names of headers to forward, each once.
fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers.keys().filter(move |name| {
        let name = name.as_str();
        !HOP_BY_HOP.contains(&name)
            && !name.starts_with(RUNTIME_PREFIX)
            && (ALWAYS_FORWARDED.contains(&name) || !named.iter().any(|other| other == name))
    })
}

/// All values of a header, joined.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, InvalidRequest> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|value| std::str::from_utf8(value.as_bytes()).map_err(|_| InvalidRequest::Header(name.to_string())))
        .collect::<Result<_, _>>()?;
    let separator = if name == header::COOKIE { "; " } else { "," };
    Ok((!values.is_empty()).then(|| values.join(separator)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    multi_value_headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    cookies: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// The response that a function's answer describes. The error says what is wrong with the answer.
pub fn to_response(answer: &[u8]) -> Result<Response, String> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| format!("it is not a response: {error}"))?;
    let status = StatusCode::from_u16(answer.status_code).ok().filter(|status| !status.is_informational());
    let status = status.ok_or_else(|| format!("{} is not a valid status", answer.status_code))?;
    let body = match answer.body {
        Some(text) if answer.is_base64_encoded => {
            Body::from(STANDARD.decode(text).map_err(|error| format!("its body is not base64: {error}"))?)
        }
        Some(text) => Body::from(text),
        None => Body::empty(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let several = answer.multi_value_headers;
    let single = answer.headers.into_iter().filter(|(name, _)| !several.contains_key(name));
    let all = single.map(|(name, value)| (name, vec![value])).chain(several.clone());
    for (name, values) in all.chain([(header::SET_COOKIE.to_string(), answer.cookies)]) {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is not a header name"))?;
        // The server sets the length itself.
        if HOP_BY_HOP.contains(&name.as_str()) || name == header::CONTENT_LENGTH {
            continue;
        }
        for value in values {
            let value: HeaderValue = value
                .try_into()
                .map_err(|_: InvalidHeaderValue| format!("the value of its header {name} is not text"))?;
            response.headers_mut().append(&name, value);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
    use axum::http::Request;

    use super::*;

    fn event(request: Request<()>, body: &'static [u8]) -> Result<Value, InvalidRequest> {
        let (parts, ()) = request.into_parts();
        from_request(&parts, &Bytes::from_static(body), Uuid::nil(), DateTime::from_secs(0))
    }

    #[test]
    fn the_runtimes_type_reads_the_event() {
        let request = Request::post("/runs/a%20b?x=1&x=%FF")
            .header("host", "127.0.0.1:3000")
            .header("accept", "a")
            .header("accept", "b")
            .header("cookie", "one=1; two=2")
            .body(())
            .unwrap();
        let event: ApiGatewayV2httpRequest = serde_json::from_value(event(request, b"{}").unwrap()).unwrap();
        assert_eq!(event.raw_path.as_deref(), Some("/runs/a%20b"));
        assert_eq!(event.raw_query_string.as_deref(), Some("x=1&x=%FF"));
        assert_eq!(event.request_context.http.method, "POST");
        assert_eq!(event.headers["accept"], "a,b");
        assert!(!event.headers.contains_key("cookie"));
        assert_eq!(event.cookies, Some(vec!["one=1".to_owned(), "two=2".to_owned()]));
        assert_eq!(event.body.as_deref(), Some("{}"));
        assert!(!event.is_base64_encoded);
    }

    #[test]
    fn a_binary_body_arrives_unchanged() {
        let event = event(Request::post("/workspaces").body(()).unwrap(), b"\xff\x00").unwrap();
        assert_eq!((event["body"].as_str(), event["isBase64Encoded"].as_bool()), (Some("/wA="), Some(true)));
    }

    #[test]
    fn runtime_headers_of_a_client_are_dropped() {
        let request = Request::get("/health")
            .header("lambda-runtime-client-context", "{")
            .header("Lambda-Runtime-Cognito-Identity", "{")
            .header("lambda-runtime-aws-request-id", "stolen")
            .header("connection", "close, x-mine")
            .header("x-mine", "1")
            .header("transfer-encoding", "chunked")
            .header("x-kept", "1")
            .body(())
            .unwrap();
        let event = event(request, b"").unwrap();
        let names: Vec<&String> = event["headers"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["x-kept"]);
    }

    #[test]
    fn a_host_or_a_header_that_would_break_the_function_is_refused() {
        let host = |host: &str| event(Request::get("/health").header("host", host).body(()).unwrap(), b"");
        assert_eq!(host("a b"), Err(InvalidRequest::Host));
        assert_eq!(host("a/b"), Err(InvalidRequest::Host));
        assert!(host("[::1]:3000").is_ok());
        let request = Request::get("/health").header("x-bytes", &b"\xff"[..]).body(()).unwrap();
        assert_eq!(event(request, b""), Err(InvalidRequest::Header("x-bytes".to_owned())));
    }

    #[test]
    fn an_answer_becomes_the_response_it_describes() {
        let answer = json!({
            "statusCode": 201,
            "headers": {"content-type": "text/plain", "content-length": "9", "connection": "close"},
            "multiValueHeaders": {"content-type": ["text/plain"], "link": ["<a>", "<b>"]},
            "cookies": ["one=1", "two=2"],
            "body": "aGk=",
            "isBase64Encoded": true,
        });
        let response = to_response(answer.to_string().as_bytes()).unwrap();
        assert_eq!(response.status(), 201);
        let all =
            |name| response.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("content-type"), ["text/plain"]);
        assert_eq!(all("link"), ["<a>", "<b>"]);
        assert_eq!(all("set-cookie"), ["one=1", "two=2"]);
        assert_eq!(all("content-length"), [""; 0]);
        assert_eq!(all("connection"), [""; 0]);
    }

    #[test]
    fn a_malformed_answer_is_an_error() {
        for answer in [
            "",
            "null",
            "[]",
            r#"{"errorType":"Panic"}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":200,"headers":{"a b":"c"}}"#,
            r#"{"statusCode":200,"headers":{"a":"b\nc"}}"#,
            r#"{"statusCode":200,"body":"!","isBase64Encoded":true}"#,
        ] {
            assert!(to_response(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
