//! Decisions are taken from our own pages only.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{Base, RunPage, run_page};

use crate::support::{Answer, run, run_id, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");

async fn decide(verb: &str, headers: &[(&str, &str)], form: &str) -> Answer {
    let mut request = Request::post(format!("/ui/gates/{}/{verb}", run_id()))
        .header(header::HOST, "nofx.test")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(Body::from(form.to_owned())).unwrap()).await
}

fn form(token: &str) -> String {
    format!("actor=ada&reason=fine&csrf={token}")
}

#[tokio::test]
async fn a_form_of_our_own_reaches_the_database() {
    let cookie = format!("nofx-csrf={TOKEN}");
    for verb in ["approve", "reject", "waive"] {
        assert_eq!(decide(verb, &[OURS, ("cookie", &cookie)], &form(TOKEN)).await.status, 503);
        let older_browser = [("origin", "http://nofx.test"), ("cookie", &cookie)];
        assert_eq!(decide(verb, &older_browser, &form(TOKEN)).await.status, 503);
    }
}

#[tokio::test]
async fn a_form_without_the_right_token_is_refused() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let other = "f".repeat(32);
    let cases = [
        (vec![OURS], form(TOKEN)),
        (vec![OURS, ("cookie", cookie.as_str())], form("")),
        (vec![OURS, ("cookie", cookie.as_str())], form(&other)),
        (vec![OURS, ("cookie", cookie.as_str())], "actor=ada&reason=fine".into()),
        (vec![OURS, ("cookie", "nofx-csrf=")], form("")),
    ];
    for (headers, form) in cases {
        let answer = decide("approve", &headers, &form).await;
        assert_eq!(answer.status, 403, "{headers:?} {form}");
        assert!(answer.body.contains("Nothing was changed"));
    }
}

#[tokio::test]
async fn a_form_of_another_site_is_refused_even_with_the_token() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let origins: &[&[(&str, &str)]] = &[
        &[],
        &[("origin", "https://evil.test")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://nofx.test")],
        &[("sec-fetch-site", "same-site")],
    ];
    for origin in origins {
        let headers = [*origin, &[("cookie", cookie.as_str())]].concat();
        let answer = decide("approve", &headers, &form(TOKEN)).await;
        assert_eq!(answer.status, 403, "{origin:?}");
        assert!(answer.body.contains("another site"), "{}", answer.body);
    }
}

#[tokio::test]
async fn what_is_no_decision_is_refused_with_a_page() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let ours = [OURS, ("cookie", cookie.as_str())];
    assert_eq!(decide("destroy", &ours, &form(TOKEN)).await.status, 404);
    let too_large = format!("actor=ada&csrf={TOKEN}&reason={}", "x".repeat(100_000));
    let unknown = format!("{}&acter=ada", form(TOKEN));
    let twice = format!("{}&actor=bob", form(TOKEN));
    let cases = [("actor=%FF", 400), (&twice, 400), (&unknown, 400), (&too_large, 413)];
    for (body, status) in cases {
        let answer = decide("approve", &ours, body).await;
        assert_eq!(answer.status, status, "{body:.80}");
        assert!(answer.body.contains("<h1>"));
    }
}

#[tokio::test]
async fn a_form_of_another_type_is_refused_with_a_page() {
    let cookie = format!("nofx-csrf={TOKEN}");
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        let request = Request::post(format!("/ui/gates/{}/approve", run_id()))
            .header(header::CONTENT_TYPE, kind)
            .header(OURS.0, OURS.1)
            .header(header::COOKIE, &cookie);
        let answer = send(request.body(Body::from(form(TOKEN))).unwrap()).await;
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.body.contains("<h1>") && answer.body.contains("x-www-form-urlencoded"), "{}", answer.body);
    }
}

#[test]
fn the_enter_key_decides_nothing() {
    let run = run("x", "blocked");
    let page = run_page(&RunPage { base: Base::RUN, run: &run, token: TOKEN, notice: None, before: None });
    let first = page[page.find("<form").unwrap()..].split("<button").nth(1).unwrap();
    assert!(first.starts_with(" type=\"submit\" disabled"), "{first}");
    assert!(page.contains(&format!("name=\"csrf\" value=\"{TOKEN}\"")));
}
