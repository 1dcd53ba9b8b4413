//! Requests that every route must reject. These tests walk the functions' route tables, so they cover new routes too.

use axum::http::Method;
use nofx_tests::Lab;
use serde_json::json;
use shared::domain::{Kind, Role};
use shared::error::Code;
use shared::http::Route;

use crate::gateway::{Answer, Gateway, Shape};

const ID: &str = "0190a0a0-0000-7000-8000-000000000001";
/// Routes below this path return pages, not JSON.
const PAGES: &str = "/ui";

/// Every function, with the method and path of each route.
fn all(lab: &Lab, shape: Shape) -> Vec<(Gateway, Vec<(Method, &'static str)>)> {
    let of = |table: &[Route]| table.iter().map(|route| (route.method.clone(), route.path)).collect();
    let tables = [of(api::routes().table()), of(approvals::routes().table()), of(console::routes().table())];
    let gateways = [Gateway::api(lab, shape), Gateway::approvals(lab, shape), Gateway::console(lab, shape)];
    gateways.into_iter().zip(tables).collect()
}

/// Fills each parameter of a path with `word`, and ids only if `ids` is true.
fn filled(path: &str, word: &str, ids: bool) -> String {
    let id = if ids { word } else { ID };
    let verb = if ids { word } else { "approve" };
    path.replace("{id}", id)
        .replace("{name}", word)
        .replace("{table}", word)
        .replace("{subject}", word)
        .replace("{handler}", word)
        .replace("{verb}", verb)
        .replace("{token}", word)
}

fn writes(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::DELETE].contains(method)
}

/// Asserts that the response is a small problem document or error page with this status.
#[track_caller]
fn assert_rejected(answer: &Answer, status: u64, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert!(answer.bytes < 64 << 10, "{what}: {} bytes", answer.bytes);
    let kind = answer.header("content-type").unwrap_or_default().to_owned();
    if what.contains(PAGES) && kind.starts_with("text/html") {
        assert!(answer.body.as_str().is_some_and(|page| page.contains("<h1>")), "{what}: {answer:?}");
        return;
    }
    assert_eq!(kind, "application/problem+json", "{what}: {answer:?}");
    assert_eq!((&answer.body["status"], &answer.body["request_id"]), (&json!(status), &json!("gateway-1")), "{what}");
    let code = answer.body["code"].as_str().and_then(|code| Code::ALL.iter().find(|known| known.as_str() == code));
    assert!(code.is_some_and(|code| u64::from(code.status()) == status), "{what}: {answer:?}");
    assert!(answer.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {answer:?}");
}

#[tokio::test]
async fn every_route_rejects_unknown_and_malformed_query_strings() {
    let lab = Lab::new().await;
    for (gateway, table) in all(&lab, Shape::Http) {
        for (method, path) in table {
            for query in ["nonsense=1", "after=1&after=2", "after=%FF", "%FF=1", "after=%zz", "limit=%", "limit=1%00"] {
                let path = format!("{}?{query}", filled(path, "a", false));
                let answer = gateway.send(method.as_str(), &path, &[], None).await;
                assert_rejected(&answer, 400, &format!("{method} {path}"));
            }
        }
    }
    for (gateway, table) in all(&lab, Shape::Rest) {
        for (method, path) in table {
            for query in ["nonsense=1", "after=1&after=2"] {
                let path = format!("{}?{query}", filled(path, "a", false));
                assert_rejected(
                    &gateway.send(method.as_str(), &path, &[], None).await,
                    400,
                    &format!("{method} {path}"),
                );
            }
        }
    }
}

#[tokio::test]
async fn every_route_rejects_malformed_path_segments() {
    let lab = Lab::new().await;
    let long = "a".repeat(20_000);
    let segments = [("%FF", 400), ("a%00b", 404), ("%00", 404), (long.as_str(), 404), ("%zz", 404), ("%2e%2e%2f", 404)];
    for (gateway, table) in all(&lab, Shape::Http) {
        for (method, path) in table.iter().filter(|(_, path)| path.contains('{')) {
            for (segment, status) in segments {
                // A malformed name is a bad request for PUT. For other methods it is not found.
                let names = method == Method::PUT && !segment.contains("%00");
                let status = if names { 400 } else { status };
                for ids in [true, false] {
                    let path = filled(path, segment, ids);
                    let answer = gateway.send(method.as_str(), &path, &[], None).await;
                    // If the ids are valid, only a name can be wrong.
                    if ids || path.contains(segment) {
                        assert_rejected(&answer, status, &format!("{method} {path:.200}"));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn every_path_rejects_other_methods_and_lists_its_own() {
    let lab = Lab::new().await;
    for (gateway, table) in all(&lab, Shape::Http) {
        for (method, route) in &table {
            let path = filled(route, "a", false);
            let known = |wrong: &str| table.iter().any(|(method, known)| known == route && method == wrong);
            for wrong in ["DELETE", "PUT", "PATCH", "TRACE", "BREW"].into_iter().filter(|wrong| !known(wrong)) {
                let answer = gateway.send(wrong, &path, &[], None).await;
                assert_rejected(&answer, 405, &format!("{wrong} {path}"));
                let allowed = answer.header("allow").unwrap_or_default();
                assert!(allowed.split(',').any(|allowed| allowed == method.as_str()), "{wrong} {path}: {allowed:?}");
            }
            let options = gateway.send("OPTIONS", &path, &[], None).await;
            assert_eq!((options.status, options.bytes), (204, 0), "{path}");
            assert!(options.header("allow").is_some_and(|allowed| allowed.contains(method.as_str())), "{path}");
            if *method == Method::GET {
                let (get, head) = (gateway.get(&path).await, gateway.send("HEAD", &path, &[], None).await);
                assert_eq!((head.status, head.bytes), (get.status, 0), "{path}");
                // They report that something which this lab lacks does not answer: SQS, or workers.
                assert!(get.status < 500 || ["/health", "/queues"].contains(&path.as_str()), "{path}: {get:?}");
            }
        }
        for path in ["/nothing", "/", "//", "/runs/", "/RUNS", "/%FF", "/%00"] {
            assert_rejected(&gateway.get(path).await, 404, &format!("{PAGES} {path}"));
        }
    }
}

#[tokio::test]
async fn a_body_must_be_one_json_object_with_known_keys() {
    let lab = Lab::new().await;
    let deep = format!("{{\"actor\":{}1{}}}", "[".repeat(70), "]".repeat(70));
    let deepest = "[".repeat(100_000);
    let unknown: Vec<String> = (0..60_000).map(|key| format!("\"k{key}\":1")).collect();
    let unknown = format!("{{{}}}", unknown.join(","));
    let bodies = [
        "[]",
        "\"x\"",
        "1",
        "null",
        "true",
        "{",
        "{}{}",
        "\u{feff}{}",
        "{\"acter\":\"ann\"}",
        "{\"expires_in_s\":1}",
        "{\"actor\":\"a\",\"actor\":\"b\"}",
        "{\"actor\":\"a\\u0000\"}",
        "{\"actor\":{\"a\":1}}",
        &deep,
        &deepest,
        &unknown,
    ];
    for (gateway, table) in all(&lab, Shape::Http) {
        for (method, path) in table.iter().filter(|(method, path)| writes(method) && !path.starts_with(PAGES)) {
            let (method, path) = (method.as_str(), filled(path, "a.b", false));
            for body in bodies {
                let answer = gateway.send(method, &path, &[], Some(body.to_owned())).await;
                assert_rejected(&answer, 400, &format!("{method} {path} {body:.60}"));
            }
            let errors = gateway.send(method, &path, &[], Some(unknown.clone())).await.body;
            assert!(errors["errors"].as_array().is_some_and(|errors| errors.len() == 100), "{path}: {errors}");
            assert!(errors["detail"].as_str().is_some_and(|detail| detail.contains(", 59,9")), "{path}: {errors}");
        }
    }
}

#[tokio::test]
async fn a_body_must_have_the_right_type_and_size() {
    let lab = Lab::new().await;
    let large = format!("{{\"actor\":\"{}\"}}", "x".repeat(3 << 20));
    for (gateway, table) in all(&lab, Shape::Http) {
        for (method, path) in table.iter().filter(|(method, _)| writes(method)) {
            let (method, path) = (method.as_str(), filled(path, "a", false));
            for kind in
                ["text/plain", "", "multipart/form-data", "application/jsonx", "text/json", "application/json, a/b"]
            {
                let answer = gateway.send(method, &path, &[("content-type", kind)], Some("{}".into())).await;
                // A form with files is what this route reads, so the error is about the boundary that is missing.
                let is_upload = kind == "multipart/form-data" && path.starts_with("/ui/new");
                assert_rejected(&answer, if is_upload { 400 } else { 415 }, &format!("{method} {path} {kind}"));
            }
            for length in ["0", "5", "99999999999999999999", "-1", "x"] {
                // A route for files takes more, and reads the type first.
                let status = if path.starts_with("/ui/new") { 415 } else { 413 };
                let answer = gateway.send(method, &path, &[("content-length", length)], Some(large.clone())).await;
                assert_rejected(&answer, status, &format!("{method} {path} content-length {length}"));
            }
            // These content types count as JSON, so the error is about the body.
            if !path.starts_with(PAGES) {
                for kind in ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.nofx+json"] {
                    let answer = gateway.send(method, &path, &[("content-type", kind)], Some("[]".into())).await;
                    assert_rejected(&answer, 400, &format!("{method} {path} {kind}"));
                }
            }
        }
    }
}

#[tokio::test]
async fn no_page_of_another_site_can_change_anything() {
    let lab = Lab::new().await;
    let foreign: &[&[(&str, &str)]] = &[
        &[("origin", "https://evil.test")],
        &[("origin", "null")],
        &[("origin", "https://localhost.evil.test")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", "https://localhost")],
    ];
    for (gateway, table) in all(&lab, Shape::Http) {
        for (method, path) in &table {
            let path = filled(path, "a", false);
            for headers in foreign {
                for body in [None, Some("{}".to_owned())] {
                    let answer = gateway.send(method.as_str(), &path, headers, body).await;
                    if *method == Method::GET {
                        assert_ne!(answer.status, 403, "{path}: the browser protects reads");
                    } else {
                        assert_rejected(&answer, 403, &format!("{method} {path} {headers:?}"));
                    }
                }
            }
            // The local mode has no login, from which alone a session starts.
            if *method == Method::POST && !path.starts_with(PAGES) && path != "/sessions" {
                for ours in [&[("origin", "https://localhost")][..], &[("sec-fetch-site", "none")], &[]] {
                    assert_ne!(gateway.send("POST", &path, ours, None).await.status, 403, "{path} {ours:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_invalid_host_header_is_ignored() {
    let lab = Lab::new().await;
    for shape in [Shape::Http, Shape::Rest] {
        let gateway = Gateway::api(&lab, shape);
        let bearer = format!("Bearer {}", lab.token(Kind::Service, Role::Viewer).await);
        for headers in [("host", "a b"), ("host", ""), ("x-forwarded-proto", "ht tp"), ("x-forwarded-proto", "://")] {
            let headers = [headers, ("authorization", &bearer)];
            let answer = gateway.send("GET", &format!("/runs/{ID}"), &headers, None).await;
            assert_rejected(&answer, 404, &format!("{headers:?}"));
        }
    }
}

#[tokio::test]
async fn every_list_rejects_an_invalid_cursor() {
    let lab = Lab::new().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http));
    let run = lab.submit(&nofx_tests::plans::chain(1)).await;
    let lists = ["/runs".to_owned(), "/gates".into(), "/rules".into()]
        .into_iter()
        .chain(["steps", "artifacts", "gates"].map(|list| format!("/runs/{run}/{list}")));
    // base64 of `2026-13-33|..`, and other malformed cursors.
    let cursors =
        ["MjAyNi0xMy0zM3wwMTkw", "x", "-1", "9999999999999999999999", "infinity", "294277-01-01", "a%27b", ID];
    for list in lists {
        let gateway = if list == "/gates" { &approvals } else { &api };
        for cursor in cursors {
            let answer = gateway.get(&format!("{list}?after={cursor}")).await;
            assert_rejected(&answer, 400, &format!("{list} {cursor}"));
        }
        assert_eq!(gateway.get(&format!("{list}?after=&limit=1")).await.status, 200, "{list}");
    }
    for seq in ["x", "-1", "1.0", "+1", "9999999999999999999999"] {
        let seq = seq.replace('+', "%2B");
        assert_rejected(&api.get(&format!("/runs/{run}/timeline?after={seq}")).await, 400, &seq);
    }
    assert_eq!(api.get(&format!("/runs/{run}/timeline?after=9223372036854775807")).await.body, json!([]));
    for place in ["after", "before", "steps"] {
        let page =
            Gateway::console(&lab, Shape::Http).get(&format!("/ui/runs/{run}?{place}=9223372036854775807")).await;
        assert_eq!(page.status, 200, "{place}: {page:?}");
    }
}
