//! Only forms of our own pages may decide gates.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{Base, DecisionPage, Refusal, Refused, Unrecorded, decision_page, unrecorded};
use shared::db::console::{Effects, Gate, GateDetail};
use shared::domain::gate::Decision;
use shared::domain::{GateId, Problem, RunStatus};
use shared::view::OnPass;

use crate::support::{Answer, contents, decided, decision, detail, gate, run_id, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

async fn decide(verb: &str, headers: &[(&str, &str)], form: &str) -> Answer {
    let mut request = Request::post(format!("/ui/gates/{}/{verb}", run_id()))
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
        let older_browser = [("origin", "http://localhost"), ("cookie", &cookie)];
        assert_eq!(decide(verb, &older_browser, &form(TOKEN)).await.status, 503);
    }
}

#[test]
fn the_page_of_a_pending_gate_follows_what_others_do() {
    let page = |gate: &Gate, refused| {
        let detail = detail(gate, "x");
        decision_page(&DecisionPage { from_inbox: true, refused, ..decision(&detail) })
    };
    let open = gate("x");
    let address = format!("data-fragment=\"../gates/{}?from=inbox\"", open.id);
    let shown = page(&open, None);
    assert!(shown.contains(&address) && shown.contains("data-region=\"side\""), "{shown}");
    assert!(!shown.contains("http-equiv=\"refresh\""), "a reload would lose what somebody types");
    assert!(!page(&decided("x", "passed"), None).contains("data-fragment"));
    let typed = Refused { why: Refusal::Form("no"), decision: Decision::Approve, actor: "ada", reason: "r" };
    assert!(!page(&open, Some(typed)).contains("data-fragment"), "what was typed stays");
}

#[test]
fn a_notice_about_another_gate_is_only_where_it_is_true() {
    let shown = |gate: &Gate| decision_page(&decision(&detail(gate, "x")));
    // The address of the sample names this gate.
    let before = decided("x", "passed");
    assert!(shown(&gate("x")).contains("This one waits next."));
    assert!(!shown(&Gate { id: before.id, ..gate("x") }).contains("This one waits next."), "it is the same gate");
    let ended = Gate { id: GateId(run_id().0), ..before };
    assert!(!shown(&ended).contains("This one waits next."), "it does not wait");
}

#[test]
fn a_document_of_a_model_says_who_wrote_it() {
    let detail = detail(&gate("x"), "x");
    let contents = contents("## What has been proved");
    let shown = decision_page(&DecisionPage { contents: &contents, ..decision(&detail) });
    assert!(shown.contains("written by a model, of <bdi>x</bdi>"), "{shown}");
    assert!(shown.contains("<h3>What has been proved</h3>"), "below the page's own headings: {shown}");
}

#[test]
fn a_verdict_is_not_called_a_question() {
    let judged = Gate { actor: None, ..decided("x", "failed") };
    let shown = decision_page(&decision(&detail(&judged, "x")));
    assert!(shown.contains("what the gate found") && !shown.contains("’s question"), "{shown}");
    assert!(!shown.contains("Read it before you decide") && !shown.contains("What was decided about"), "{shown}");
}

#[tokio::test]
async fn a_decision_during_an_outage_keeps_what_was_typed_and_says_what_is_known() {
    let cookie = format!("nofx-csrf={TOKEN}");
    let form = format!("actor=ada&reason=too+%3Cb%3E+slow&from=inbox&csrf={TOKEN}");
    let answer = decide("reject", &[SAME_ORIGIN, ("cookie", &cookie)], &form).await;
    assert_eq!(answer.status, 503);
    for words in [
        "The rejection did not count",
        "The database is unavailable.</bdi>",
        "Nothing was changed.",
        "too &lt;b&gt; slow</textarea>",
        "value=\"ada\"",
        "name=\"from\" value=\"inbox\"",
        "Send the rejection again",
    ] {
        assert!(answer.body.contains(words), "{words}: {}", answer.body);
    }
    let place = format!("gates/{}", run_id());
    assert!(answer.body.contains(&format!("href=\"../../{place}\"")), "{}", answer.body);
    assert!(answer.body.contains(&format!("action=\"../../{place}/reject\"")), "{}", answer.body);
}

#[test]
fn a_decision_that_may_have_counted_is_looked_at_first() {
    let page = |maybe_done| {
        unrecorded(&Unrecorded {
            base: Base::GATE,
            token: TOKEN,
            what: "approval",
            why: "the database did not answer",
            maybe_done,
            action: "gates/1/approve",
            place: ("gates/1", "the gate"),
            actor: "<i>",
            text: Some(("reason", "Reason", "<svg onload='x'>")),
            hidden: &[("from", "\"><b>")],
        })
    };
    let unknown = page(true);
    assert!(unknown.contains("It is not known whether the approval counted"), "{unknown}");
    assert!(unknown.contains("Look at the gate before you send it again."), "{unknown}");
    assert!(!unknown.contains("Nothing was changed"), "{unknown}");
    assert!(!page(false).contains("not known"), "{}", page(false));
    assert!(
        unknown.contains("&lt;svg onload") && !unknown.contains("<svg onload") && !unknown.contains("<i>"),
        "{unknown}"
    );
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
        &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost")],
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

#[test]
fn the_enter_key_submits_no_decision() {
    let page = decision_page(&decision(&detail(&gate("x"), "x")));
    let first = page[page.find("<form class=\"form\"").unwrap()..].split("<button").nth(1).unwrap();
    assert!(first.starts_with(" type=\"submit\" disabled"), "{first}");
    assert!(page.contains(&format!("name=\"csrf\" value=\"{TOKEN}\"")));
}

#[test]
fn a_refused_decision_names_each_problem_and_keeps_what_was_typed() {
    let problem = |path: &str, message: &str| Problem { path: path.into(), message: message.into() };
    let problems = [
        problem("actor", "must be a name of 1 to 200 characters"),
        problem("reason", "To reject or waive, say why."),
        problem("acter", "is not a known field"),
    ];
    let detail = detail(&gate("x"), "x");
    let why = Refusal::Problems(&problems);
    let refused = Some(Refused { why, decision: Decision::Reject, actor: "ada \"l\"", reason: "<fine>" });
    let page = decision_page(&DecisionPage { refused, from_inbox: true, ..decision(&detail) });
    for words in [
        "Nothing was decided.</strong> The form has 3 problems.",
        "It must be a name of 1 to 200 characters.",
        "To reject or waive, say why.",
        "<code><bdi>acter</bdi></code> <bdi>is not a known field</bdi>",
        "value=\"ada &quot;l&quot;\" aria-invalid=\"true\"",
        "&lt;fine&gt;</textarea>",
        "name=\"from\" value=\"inbox\"",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn a_decision_that_came_too_late_shows_both_decisions_and_no_form() {
    let detail = detail(&decided("cai", "failed"), "x");
    let why = Refusal::Conflict("the gate has been decided already: it is failed by cai");
    let refused = Some(Refused { why, decision: Decision::Approve, actor: "ben", reason: "Read <b>them</b>." });
    let page = decision_page(&DecisionPage { base: Base::GATE, refused, ..decision(&detail) });
    for words in [
        "Your decision came too late",
        "Your decision was not recorded: </strong><bdi>the gate has been decided already: it is failed by cai</bdi>.",
        "<bdi>cai</bdi></b> rejected",
        "Read &lt;b&gt;them&lt;/b&gt;.",
        "<b><bdi>ben</bdi></b> wanted to approve",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("method=\"post\""));
}

#[test]
fn each_button_says_what_it_does() {
    let page = |change: &dyn Fn(&mut GateDetail)| {
        let mut detail = detail(&gate("release"), "rates");
        change(&mut detail);
        let page = decision_page(&decision(&detail));
        ["approve", "reject", "waive"].map(|verb| {
            let (_, rest) = page.split_once(&format!("<dd id=\"o-{verb}\">")).expect("an effect");
            rest.split("</dd>").next().unwrap_or_default().to_owned()
        })
    };
    let [approve, reject, waive] = page(&|_| {});
    let rates = "<b><bdi>rates</bdi></b>";
    let (table, later) =
        ("<code><bdi>rates</bdi></code>", "2 steps write to tables, 7 steps ask models, 13 steps run commands.");
    let at_once = format!(
        "{rates} inserts 2 rows into {table}, {rates} changes rows of {table}, {rates} deletes rows of {table}."
    );
    assert_eq!(approve, format!("{at_once} Later, without another question: {later}"));
    assert_eq!(
        reject,
        "<b><bdi>release</bdi></b> fails, 2 steps are skipped, and the run fails. \
         1 other gate of the run is cancelled: nobody can decide it any more. The run can be retried."
    );
    assert!(waive.contains("says that it was waived"));
    let [approve, ..] = page(&|detail| {
        detail.starts.clear();
        (detail.starts_counts, detail.later_counts) = (Effects::default(), Effects { others: 2, ..Effects::default() });
        detail.later.clear();
    });
    assert_eq!(approve, "<b><bdi>release</bdi></b> succeeds. Nothing waits for it.");
    let [approve, ..] = page(&|detail| detail.starts.retain(|start| start.blockers > 1));
    assert!(approve.starts_with("Nothing starts yet"));
    let [approve, reject, _] = page(&|detail| detail.gate.on_pass = OnPass::Resume);
    assert!(
        approve.contains("runs again, with the checks of the change. Later, without another question: ")
            && reject.contains("2 steps are skipped")
    );
    let [approve, ..] = page(&|detail| {
        (detail.gate.on_pass, detail.run_status) = (OnPass::Resume, RunStatus::Paused);
    });
    assert!(approve.contains("runs again, with the checks of the change, when the run is resumed."), "{approve}");
    let [approve, ..] = page(&|detail| {
        (detail.gate.on_pass, detail.gate.gate_type) = (OnPass::Resume, "approval:echo".into());
        (detail.standing.required, detail.standing.approved) = (Some(2), Some(0));
    });
    let expected = "1 more approval is needed after yours. Then: <b><bdi>release</bdi></b> starts.";
    assert!(approve.starts_with(expected), "{approve}");
    let [approve, reject, _] = page(&|detail| (detail.gate.on_pass, detail.gate.step) = (OnPass::Release, None));
    assert!(
        approve.contains("The run succeeds when") && reject.starts_with("The run fails, 2 steps"),
        "{approve} {reject}"
    );
    // The step of the gate itself has not started, so it is one of those that wait.
    let [_, reject, _] = page(&|detail| detail.gate.on_pass = OnPass::Release);
    assert!(reject.contains("fails, 1 step is skipped"), "{reject}");
}

#[test]
fn a_form_of_an_older_session_shows_again_what_was_typed() {
    let detail = detail(&gate("x"), "x");
    let why = Refusal::Form("The form is older than your session. Nothing was changed. Send it again.");
    let refused = Some(Refused { why, decision: Decision::Reject, actor: "ada", reason: "Rates of <2025>." });
    let page = decision_page(&DecisionPage { base: Base::GATE, refused, ..decision(&detail) });
    for words in [
        "Nothing was decided.</strong> The form is older than your session.",
        "What you typed is still here.",
        "value=\"ada\"",
        "Rates of &lt;2025&gt;.</textarea>",
        "method=\"post\"",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn a_decision_that_is_sent_twice_is_recorded_already() {
    let detail = detail(&decided("ada", "passed"), "x");
    let why = Refusal::Conflict("the gate has been decided already: it is passed by ada");
    let page = |decision_of, actor, reason| {
        let refused = Some(Refused { why, decision: decision_of, actor, reason });
        decision_page(&DecisionPage { base: Base::GATE, refused, ..decision(&detail) })
    };
    // The recorded reason is the name too.
    let twice = page(Decision::Approve, " ada ", "ada");
    assert!(
        twice.contains("Your decision is recorded already") && twice.contains("<bdi>ada</bdi></b> is recorded already")
    );
    assert!(!twice.contains("too late") && !twice.contains("What you wrote"), "{twice}");
    let reworded = page(Decision::Approve, "ada", "Other words.");
    assert!(reworded.contains("is recorded already") && reworded.contains("Other words."), "{reworded}");
    let another = page(Decision::Reject, "ada", "No.");
    assert!(another.contains("You have decided already") && another.contains("was not recorded"), "{another}");
    assert!(page(Decision::Approve, "ben", "Yes.").contains("Your decision came too late"));
}

#[test]
fn what_was_typed_survives_a_gate_that_was_decided_meanwhile() {
    let detail = detail(&decided("cai", "passed"), "x");
    let problems = [Problem { path: "actor".into(), message: "must be a name".into() }];
    for why in [Refusal::Problems(&problems), Refusal::Form("The form is older than your session.")] {
        let refused = Some(Refused { why, decision: Decision::Reject, actor: "ben", reason: "Because <it>." });
        let page = decision_page(&DecisionPage { base: Base::GATE, refused, ..decision(&detail) });
        assert!(page.contains("Your decision came too late") && page.contains("Because &lt;it&gt;."), "{page}");
    }
}
