//! Cleans events of API Gateway before `lambda_http` turns them into requests.
//!
//! `lambda_http` builds the request's URL from the client's `Host` and `X-Forwarded-Proto`, and panics if the result is
//! not a URL. Such a request would get a 502 and end the process.

use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderMap, HeaderName, header};
use lambda_http::request::LambdaRequest;
use url::Url;

/// Removes from an event what would cause a panic. Routes then refuse the request with a problem document.
pub fn mend(mut event: LambdaRequest) -> LambdaRequest {
    match &mut event {
        LambdaRequest::ApiGatewayV1(event) => {
            mend_headers(&mut event.headers);
            mend_headers(&mut event.multi_value_headers);
            mend_host(&mut event.request_context.domain_name);
            mend_path(&mut event.path);
        }
        LambdaRequest::ApiGatewayV2(event) => {
            mend_headers(&mut event.headers);
            mend_host(&mut event.request_context.domain_name);
            mend_path(&mut event.raw_path);
            mend_query(&mut event.raw_query_string);
        }
        _ => {}
    }
    event
}

static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

fn mend_headers(headers: &mut HeaderMap) {
    let proto = headers.get_all(&FORWARDED_PROTO).iter();
    if !proto.into_iter().all(|proto| proto == "https" || proto == "http") {
        headers.remove(&FORWARDED_PROTO);
    }
    let hosts = headers.get_all(header::HOST).iter();
    if !hosts.into_iter().all(|host| host.to_str().is_ok_and(is_host)) {
        headers.remove(header::HOST);
    }
}

fn mend_host(host: &mut Option<String>) {
    if host.as_deref().is_some_and(|host| !is_host(host)) {
        *host = None;
    }
}

/// Whether both URL parsers accept this host.
fn is_host(host: &str) -> bool {
    let url = format!("https://{host}/");
    Url::parse(&url).is_ok_and(|url| url.as_str().parse::<Uri>().is_ok()) && !host.contains(['/', '?', '#', '@', '\\'])
}

fn mend_path(path: &mut Option<String>) {
    let is_path = |path: &str| {
        let url = Url::parse(&format!("https://host{path}"));
        path.starts_with('/') && url.is_ok_and(|url| url.as_str().parse::<Uri>().is_ok())
    };
    if path.as_deref().is_some_and(|path| !path.is_empty() && !is_path(path)) {
        // No route has this path.
        *path = Some("/-".to_owned());
    }
}

fn mend_query(query: &mut Option<String>) {
    let is_query =
        |query: &str| format!("/?{query}").parse::<PathAndQuery>().is_ok_and(|uri| uri.query() == Some(query));
    if query.as_deref().is_some_and(|query| !query.is_empty() && !is_query(query)) {
        // An invalid escape, which every route refuses.
        *query = Some("%".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_or_scheme_that_makes_no_url_is_dropped() {
        for (name, good, bad) in [
            ("host", "127.0.0.1:3000", ["a b", "", "a:99999", "1.2.3.4.5", "x/../", "[::1", "é"].as_slice()),
            ("x-forwarded-proto", "https", ["", "ht tp", "://", "http,https", "javascript"].as_slice()),
        ] {
            let with = |value: &str| {
                let mut headers = HeaderMap::new();
                headers.insert(name, value.parse().unwrap());
                mend_headers(&mut headers);
                headers.contains_key(name)
            };
            assert!(with(good), "{name}: {good}");
            for value in bad {
                assert!(!with(value), "{name}: {value}");
            }
        }
    }

    #[test]
    fn a_path_or_query_that_makes_no_url_is_replaced_by_one_that_is_refused() {
        let path = |text: &str| {
            let mut path = Some(text.to_owned());
            mend_path(&mut path);
            path.unwrap_or_default()
        };
        assert_eq!(path("/runs/%FF"), "/runs/%FF");
        for bad in ["*", "runs", &format!("/{}", "a".repeat(70_000))] {
            assert_eq!(path(bad), "/-");
        }
        let query = |text: &str| {
            let mut query = Some(text.to_owned());
            mend_query(&mut query);
            query.unwrap_or_default()
        };
        assert_eq!(query("a=1&b=%20"), "a=1&b=%20");
        for bad in ["a b", "a=\u{1}", "a#b", &"a".repeat(70_000)] {
            assert_eq!(query(bad), "%", "{bad:.20}");
        }
    }
}
