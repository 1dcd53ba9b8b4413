//! Only forms of our own pages may decide gates.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{Base, DecisionPage, Refused, decision_page};

use crate::support::{Answer, gate, run_id, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

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
async fn a_form_of_our_own_page_reaches_the_database() {
    let cookie = format!("nofx-csrf={TOKEN}");
    for verb in ["approve", "reject", "waive"] {
        assert_eq!(decide(verb, &[SAME_ORIGIN, ("cookie", &cookie)], &form(TOKEN)).await.status, 503);
        let older_browser = [("origin", "http://nofx.test"), ("cookie", &cookie)];
        assert_eq!(decide(verb, &older_browser, &form(TOKEN)).await.status, 503);
    }
}

#[tokio::test]
async fn a_form_without_the_right_token_is_rejected() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let other = "f".repeat(32);
    let cases = [
        (vec![SAME_ORIGIN], form(TOKEN)),
        (vec![SAME_ORIGIN, ("cookie", cookie.as_str())], form("")),
        (vec![SAME_ORIGIN, ("cookie", cookie.as_str())], form(&other)),
        (vec![SAME_ORIGIN, ("cookie", cookie.as_str())], "actor=ada&reason=fine".into()),
        (vec![SAME_ORIGIN, ("cookie", "nofx-csrf=")], form("")),
    ];
    for (headers, form) in cases {
        let answer = decide("approve", &headers, &form).await;
        assert_eq!(answer.status, 403, "{headers:?} {form}");
        assert!(answer.body.contains("Nothing was changed"));
    }
}

#[tokio::test]
async fn a_form_of_another_site_is_rejected_even_with_the_token() {
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
async fn an_invalid_decision_is_rejected_with_a_page() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let own = [SAME_ORIGIN, ("cookie", cookie.as_str())];
    assert_eq!(decide("destroy", &own, &form(TOKEN)).await.status, 404);
    let too_large = format!("actor=ada&csrf={TOKEN}&reason={}", "x".repeat(100_000));
    let unknown = format!("{}&acter=ada", form(TOKEN));
    let twice = format!("{}&actor=bob", form(TOKEN));
    let cases = [("actor=%FF", 400), (&twice, 400), (&unknown, 400), (&too_large, 413)];
    for (body, status) in cases {
        let answer = decide("approve", &own, body).await;
        assert_eq!(answer.status, status, "{body:.80}");
        assert!(answer.body.contains("<h1>"));
    }
}

#[tokio::test]
async fn a_form_of_another_media_type_is_rejected_with_a_page() {
    let cookie = format!("nofx-csrf={TOKEN}");
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        let request = Request::post(format!("/ui/gates/{}/approve", run_id()))
            .header(header::CONTENT_TYPE, kind)
            .header(SAME_ORIGIN.0, SAME_ORIGIN.1)
            .header(header::COOKIE, &cookie);
        let answer = send(request.body(Body::from(form(TOKEN))).unwrap()).await;
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.body.contains("<h1>") && answer.body.contains("x-www-form-urlencoded"), "{}", answer.body);
    }
}

fn decision(refused: Option<Refused<'_>>) -> String {
    let gate = gate("x");
    decision_page(&DecisionPage { base: Base::RUN, gate: &gate, change: None, token: TOKEN, refused })
}

#[test]
fn the_enter_key_submits_no_decision() {
    let page = decision(None);
    let first = page[page.find("<form class=\"form\"").unwrap()..].split("<button").nth(1).unwrap();
    assert!(first.starts_with(" type=\"submit\" disabled"), "{first}");
    assert!(page.contains(&format!("name=\"csrf\" value=\"{TOKEN}\"")));
}

#[test]
fn a_refused_decision_says_that_nothing_was_decided_and_keeps_what_was_typed() {
    let page = decision(Some(Refused { why: "the gate was decided", actor: "ada \"l\"", reason: "<fine>" }));
    for words in
        ["Nothing was decided. ", "the gate was decided", "value=\"ada &quot;l&quot;\"", "&lt;fine&gt;</textarea>"]
    {
        assert!(page.contains(words), "{words}");
    }
}
