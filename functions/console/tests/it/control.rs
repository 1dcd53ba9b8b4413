//! The forms of a run: each where its state allows it, and none for other sites.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{Base, RefusedControl, RunPage, run_live, run_page};
use shared::db::run::Control;
use shared::domain::Problem;

use crate::support::{Answer, HOSTILE, assert_inert, run, run_id, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const VERBS: [&str; 4] = ["pause", "resume", "cancel", "retry"];

fn page(status: &str, refused: Option<RefusedControl<'_>>) -> String {
    let (run, base) = (run("x", status), if refused.is_some() { Base::GATE } else { Base::RUN });
    run_page(&RunPage { base, refused, ..RunPage::new(&run, TOKEN) })
}

/// The part of the page with the form of an operation.
fn form<'a>(page: &'a str, verb: &str) -> Option<&'a str> {
    let start = page.find(&format!("<details class=\"menu\" id=\"menu-{verb}\""))?;
    page[start..].split("</details>").next()
}

#[test]
fn a_form_is_shown_where_the_state_of_the_run_allows_it() {
    for (status, expected) in [
        ("queued", "pause cancel"),
        ("running", "pause cancel"),
        ("blocked", "pause cancel"),
        ("paused", "resume cancel"),
        ("succeeded", ""),
        ("failed", "retry"),
        ("cancelled", "retry"),
    ] {
        let page = page(status, None);
        let shown: Vec<_> = VERBS.into_iter().filter(|verb| form(&page, verb).is_some()).collect();
        assert_eq!(shown.join(" "), expected, "{status}");
        for verb in shown {
            let form = form(&page, verb).expect("a form");
            let action = format!("<form class=\"form\" method=\"post\" action=\"../runs/{}/{verb}\">", run_id());
            for words in [&action, "name=\"csrf\" value=\"0123456789abcdef", "name=\"actor\" required"] {
                assert!(form.contains(words), "{words}: {form}");
            }
            assert!(!form.starts_with("<details open") && !form.contains("open>"), "closed: {form}");
        }
        let again = format!("<a class=\"button\" href=\"../new?from={}\">Run again…</a>", run_id());
        assert!(page.contains(&again), "{status}");
    }
}

#[test]
fn the_band_leads_to_what_lets_the_run_go_on() {
    for (status, verb) in [("paused", "resume"), ("failed", "retry"), ("cancelled", "retry")] {
        let page = page(status, None);
        let band = page.split("<section class=\"next ").nth(1).and_then(|rest| rest.split("</section>").next());
        assert!(form(band.expect("a band"), verb).is_some(), "{status}");
        assert!(page.contains(&format!("id=\"menu-{verb}-button\" data-go=\"primary\"")), "{status}");
    }
}

#[test]
fn a_refused_operation_says_why_and_keeps_what_was_typed() {
    let problem = Problem { path: "actor".into(), message: "must be a name of 1 to 200 characters".into() };
    let (control, actor) = (Control::Pause, "ada \"l\"");
    let why = "The form has a problem.";
    let wrong = page("running", Some(RefusedControl { control, actor, why, wrong_actor: Some(&problem) }));
    assert!(wrong.contains("<strong>The run was not paused.</strong> <bdi>The form has a problem.</bdi>"), "{wrong}");
    let open = form(&wrong, "pause").expect("a form");
    for words in [
        "id=\"menu-pause\" open>",
        "value=\"ada &quot;l&quot;\" aria-invalid=\"true\"",
        "It must be a name of 1 to 200 characters.",
        "action=\"../../runs/",
    ] {
        assert!(open.contains(words), "{words}: {open}");
    }
    let other = form(&wrong, "cancel").expect("a form");
    assert!(!other.contains(" open>") && !other.contains("aria-invalid") && other.contains("value=\"ada "), "{other}");

    // Meanwhile the run has failed: what can be done now is offered, with the name.
    let why = "the run has already ended as failed";
    let late = page("failed", Some(RefusedControl { control, actor, why, wrong_actor: None }));
    assert!(late.contains("not paused.</strong> <bdi>The run has already ended as failed.</bdi>"), "{late}");
    assert!(form(&late, "pause").is_none());
    let retry = form(&late, "retry").expect("a form");
    assert!(retry.contains("value=\"ada &quot;") && !retry.contains(" open>"), "{retry}");
    // The answer to a form neither refreshes nor reloads: the address takes only forms.
    assert!(!wrong.contains("data-fragment=") && !wrong.contains("http-equiv=\"refresh\""));
}

#[test]
fn hostile_text_in_a_refused_operation_is_escaped() {
    for text in HOSTILE {
        let problem = Problem { path: "actor".into(), message: text.into() };
        let refused = |control| Some(RefusedControl { control, actor: text, why: text, wrong_actor: Some(&problem) });
        for (status, control) in [("running", Control::Cancel), ("paused", Control::Resume), ("failed", Control::Retry)]
        {
            assert_inert(&page(status, refused(control)), text);
        }
    }
}

#[test]
fn a_refresh_brings_the_same_forms() {
    let run = run("x", "running");
    let whole = run_page(&RunPage::new(&run, TOKEN));
    let fragment = run_live(&RunPage::new(&run, TOKEN)).into_string();
    assert!(form(&fragment, "pause").is_some() && form(&fragment, "pause") == form(&whole, "pause"));
}

#[test]
fn without_a_script_a_reader_can_keep_the_page_still() {
    let run = run("x", "running");
    let page = |is_still| run_page(&RunPage { is_still, ..RunPage::new(&run, TOKEN) });
    let reloads = |page: &str| page.contains("<noscript><meta http-equiv=\"refresh\"");
    let link = format!("href=\"../runs/{}?still=1\"", run_id());
    assert!(reloads(&page(false)) && page(false).contains(&link));
    assert!(!reloads(&page(true)) && !page(true).contains(&link));
    assert!(page(true).contains("data-fragment="), "with a script it still refreshes");
}

async fn post(verb: &str, headers: &[(&str, &str)], form: &str) -> Answer {
    let mut request = Request::post(format!("/ui/runs/{}/{verb}", run_id()))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(Body::from(form.to_owned())).unwrap()).await
}

#[tokio::test]
async fn only_forms_of_our_own_pages_reach_the_database() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let own = [("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    let good = format!("actor=ada&csrf={TOKEN}");
    for verb in VERBS {
        assert_eq!(post(verb, &own, &good).await.status, 503, "{verb}");
        for origin in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.test"), ("origin", "null")] {
            let answer = post(verb, &[origin, own[1]], &good).await;
            assert_eq!(answer.status, 403, "{verb} {origin:?}");
            assert!(answer.body.contains("another site") && !answer.body.contains("ada"), "{}", answer.body);
        }
        let unknown = post(verb, &own, &format!("{good}&reason=x")).await;
        assert_eq!(unknown.status, 400);
        assert!(unknown.body.contains("reason") && unknown.body.contains("<h1>"), "{}", unknown.body);
    }
    assert_eq!(post("delete", &own, &good).await.status, 404);
}
