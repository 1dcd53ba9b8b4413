//! The router's responses: headers, errors, assets, and when a page refreshes.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{Base, InboxPage, RunFilters, RunPage, RunsPage, inbox, run_list, run_page};
use shared::db::console::{Inbox, Place, RunList};
use shared::domain::Timestamp;
use shared::domain::tool::Tools;

use crate::support::{self, CSP, get, run, run_id, send};

fn asset(page: &str, name: &str) -> String {
    let at = page.find(&format!("static/{name}?v=")).unwrap();
    let path = page[at..].split('"').next().unwrap();
    format!("/ui/{path}")
}

#[tokio::test]
async fn every_response_has_security_headers() {
    let id = run_id();
    let gets = [
        "/ui".to_owned(),
        "/ui/runs".into(),
        "/ui/new".into(),
        format!("/ui/runs/{id}"),
        format!("/ui/runs/{id}/fragment"),
        format!("/ui/artifacts/signed?id={id}"),
        "/ui/static/app.css".into(),
        "/ui/no/such/page".into(),
        "/ui/runs?after=1&after=2".into(),
        "/ui/runs/%FF".into(),
        format!("/ui/gates/{id}/approve"),
    ];
    for path in gets {
        let answer = get(&path).await;
        assert_eq!(answer.header(header::CONTENT_SECURITY_POLICY), CSP, "{path}");
        assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert_eq!(answer.header(header::REFERRER_POLICY), "same-origin", "{path}");
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store", "{path}");
    }
}

#[tokio::test]
async fn errors_are_pages() {
    let id = run_id();
    let cases = [
        ("/ui/runs".to_owned(), 503, "unavailable"),
        (format!("/ui/runs/{id}"), 503, "unavailable"),
        (format!("/ui/artifacts/signed?id={id}"), 503, "unavailable"),
        ("/ui/artifacts/signed".into(), 404, "not found"),
        ("/ui/artifacts/signed?id=%3Cscript%3E".into(), 404, "&lt;script&gt; was not found"),
        ("/ui/inbox".into(), 503, "unavailable"),
        ("/ui/inbox?after=nonsense".into(), 404, "not found"),
        ("/ui/runs/nonsense".into(), 404, "run nonsense was not found"),
        ("/ui/runs?after=nonsense".into(), 404, "not found"),
        ("/ui/no/such/page".into(), 404, "not found"),
        ("/ui/new?example=none".into(), 404, "not found"),
        ("/ui/new?from=x".into(), 404, "run x was not found"),
        (format!("/ui/new?from={id}"), 503, "unavailable"),
        ("/ui/new/check".into(), 405, "buttons"),
        ("/ui/runs/%FF".into(), 400, "not percent-encoded UTF-8"),
        ("/ui/runs?after=1&after=2".into(), 400, "more than once"),
        ("/ui/runs?page=2".into(), 400, "is not a known parameter; use after"),
        ("/ui/runs?status=done".into(), 400, "status: must be open, or a state of a run"),
        ("/ui/runs?since=1y".into(), 400, "since: must be 1h, 24h or 7d"),
        ("/ui/inbox?decided=yes".into(), 400, "decided: must be 1"),
        ("/ui/runs/%00".into(), 404, "not found"),
        (format!("/ui/runs/{id}?steps=-1"), 400, "whole number"),
        (format!("/ui/runs/{id}?state=odd"), 400, "must be all or the state of a step"),
        (format!("/ui/runs/{id}?level=a-b"), 400, "must be a level, such as 3 or 3-7"),
        (format!("/ui/gates/{id}/approve"), 405, "buttons"),
        (format!("/ui/evidence/{id}"), 404, "This page"),
    ];
    for (path, status, words) in cases {
        let answer = get(&path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.header(header::CONTENT_TYPE).starts_with("text/html"), "{path}");
        assert!(answer.body.contains(words) && answer.body.contains("<h1>"), "{path}: {}", answer.body);
    }
    let posted = send(Request::post("/ui/runs").body(Body::empty()).unwrap()).await;
    assert_eq!(posted.status, 405);
    assert!(posted.body.contains("<h1>"));
}

#[tokio::test]
async fn assets_are_cached_only_under_their_own_version() {
    let page = get("/ui/nothing").await.body;
    for (name, media_type) in [("app.css", "text/css; charset=utf-8"), ("app.js", "text/javascript; charset=utf-8")] {
        let path = asset(&page, name);
        let answer = get(&path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header(header::CONTENT_TYPE), media_type);
        assert_eq!(answer.header(header::CACHE_CONTROL), "public, max-age=31536000, immutable");
        let other = get(&format!("/ui/static/{name}?v=0000000000000000")).await;
        assert_eq!(other.header(header::CACHE_CONTROL), "no-store");
    }
}

#[test]
fn a_page_has_no_inline_code() {
    let run = run("x", "running");
    let page = run_page(&RunPage::new(&run, "t"));
    assert!(!page.contains(" style=") && !page.contains("<style"));
    assert!(!page.contains(" onclick=") && !page.contains("javascript:"));
    assert!(page.contains("defer></script>"));
}

#[test]
fn a_run_that_can_change_refreshes_at_its_own_address() {
    let fragment = |status: &str, base, place| {
        let run = support::selected(run("x", status), place);
        run_page(&RunPage { base, ..RunPage::new(&run, "t") }).contains("data-fragment=")
    };
    for open in ["queued", "running", "blocked", "paused"] {
        assert!(fragment(open, Base::RUN, Place::Newest), "{open}");
        assert!(!fragment(open, Base::RUN, Place::Before(5)), "a page of older events does not refresh");
        assert!(!fragment(open, Base::GATE, Place::Newest), "links of the fragment would be wrong");
    }
    for ended in ["succeeded", "failed", "cancelled"] {
        let can_be_retried = ended != "succeeded";
        assert_eq!(fragment(ended, Base::RUN, Place::Newest), can_be_retried, "{ended}");
        let run = run("x", ended);
        let page = run_page(&RunPage::new(&run, "t"));
        assert!(page.contains(" data-pace=\"calm\"") && !page.contains("http-equiv=\"refresh\""), "{ended}");
    }
}

#[test]
fn a_timeline_of_several_days_names_them() {
    let days = |stamps: [&str; 3]| {
        let mut run = run("x", "failed");
        run.timeline.events.truncate(3);
        for (event, stamp) in run.timeline.events.iter_mut().zip(stamps) {
            event.timestamp = Timestamp(stamp.into());
        }
        let page = run_page(&RunPage::new(&run, "t"));
        let days = page.split("<li class=\"day\">").skip(1).filter_map(|part| part.split('<').next());
        days.map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, two) = ("2026-11-23T10:00:00Z", "2026-11-24T00:10:00Z");
    assert_eq!(days([one, one, "2026-11-23T23:59:59Z"]), [""; 0]);
    assert_eq!(days([one, two, "2026-11-24T09:00:00Z"]), ["2026-11-24", "2026-11-23"], "newest first");
}

#[test]
fn without_a_script_an_open_run_reloads() {
    let refreshes = |status: &str| {
        let run = run("x", status);
        let page = RunPage::new(&run, "t");
        run_page(&page).contains("<noscript><meta http-equiv=\"refresh\"")
    };
    assert!(refreshes("running") && refreshes("blocked"));
    assert!(!refreshes("succeeded"));
}

#[test]
fn only_the_newest_runs_and_the_oldest_gates_refresh() {
    let filters = RunFilters { status: "open", ..RunFilters::default() };
    let runs = |is_continuation| {
        let list = RunList { is_continuation, ..support::run_list("x") };
        run_list(&RunsPage { base: Base::TOP, list: &list, filters, api: "" })
    };
    assert!(runs(false).contains("data-fragment=\"runs?status=open\"") && !runs(true).contains("data-fragment="));
    let gates = |is_continuation| {
        let list = Inbox { is_continuation, ..support::inbox("x") };
        inbox(&InboxPage { base: Base::TOP, list: &list, gate_type: "a", everybody: false })
    };
    assert!(gates(false).contains("data-fragment=\"inbox?type=a\"") && !gates(true).contains("data-fragment="));
}

#[test]
fn a_list_of_runs_says_where_each_run_stands() {
    let page = run_list(&RunsPage {
        base: Base::TOP,
        list: &support::run_list("unit"),
        filters: RunFilters::default(),
        api: "",
    });
    for words in [
        "waits at <bdi>unit</bdi>",
        "failed at <bdi>unit</bdi>",
        "<span class=\"bad\"><bdi>unit</bdi></span>",
        "Waiting <span class=\"note\">2</span>",
        "4 of 4 runs",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn an_empty_list_shows_how_to_start_and_an_empty_search_does_not() {
    let page = |list: &RunList, filters| run_list(&RunsPage { base: Base::TOP, list, filters, api: "" });
    let none = RunList::default();
    assert!(page(&none, RunFilters::default()).contains("Start the first run"));
    let filters = RunFilters { goal: "x", ..RunFilters::default() };
    let searched = page(&none, filters);
    assert!(searched.contains("No run matches") && searched.contains("value=\"x\""));
    assert!(!searched.contains("Start the first run") && !searched.contains("so far"));
    // The scan ended before the oldest run.
    let cut = RunList { older: Some(run_id()), ..RunList::default() };
    assert!(page(&cut, filters).contains("No run matches so far"));
}

#[test]
fn an_empty_inbox_names_the_last_decision() {
    let empty = Inbox { gates: Vec::new(), waiting: 0, ..support::inbox("ben") };
    let page = inbox(&InboxPage { base: Base::TOP, list: &empty, gate_type: "", everybody: false });
    assert!(
        page.contains("Nothing waits for you")
            && page.contains("by <b><bdi>ben</bdi></b>")
            && page.contains("?decided=1")
    );
    let page = inbox(&InboxPage { base: Base::TOP, list: &support::inbox("x"), gate_type: "", everybody: false });
    assert!(
        page.contains("4 gates passed, evidence, 3 rows to insert, 1 other write to a table")
            && page.contains("12 approved, 1 waived")
    );
}

#[test]
fn the_request_on_the_page_without_runs_goes_to_this_server() {
    let list = RunList::default();
    let page = RunsPage { base: Base::TOP, list: &list, filters: RunFilters::default(), api: "https://nofx.test:8443" };
    let shown = run_list(&page);
    assert!(shown.contains("curl -s https://nofx.test:8443/runs \\"), "{shown}");
}

#[test]
fn the_tools_to_choose_from_are_those_of_the_handlers() {
    let page = RunsPage { base: Base::TOP, list: &support::run_list("x"), filters: RunFilters::default(), api: "" };
    let shown = run_list(&page);
    for handler in shared::domain::tool::HANDLERS {
        let tools = match handler.tools {
            Tools::Listed(tools) => tools.to_vec(),
            Tools::Prefixed(prefix) => vec![prefix],
        };
        for tool in tools {
            assert!(shown.contains(&format!("<option value=\"{tool}\">")), "{tool}: {shown}");
        }
    }
}
