//! The page of a step.

use console::evidence::Evidence;
use console::page::{StepPage, step_page};
use serde_json::json;
use shared::db::console::{AttemptStatus, Start, StepDetail, StoredJson};
use shared::domain::RunStatus;

use crate::support::{HOSTILE, assert_inert, get, run_id, step_detail};

const STATES: [&str; 8] = ["pending", "ready", "running", "blocked", "succeeded", "failed", "skipped", "cancelled"];

fn page(step: &StepDetail) -> String {
    step_page(&StepPage::new(step, "t"))
}

/// The band that says what happens next.
fn next(page: &str) -> String {
    let band = page.split("<section class=\"next ").nth(1).and_then(|rest| rest.split("</section>").next());
    let mut text = String::new();
    for part in band.expect("a band").split('<').skip(1) {
        text.push_str(part.split_once('>').map_or("", |(_, text)| text));
    }
    text
}

#[test]
fn hostile_text_in_a_step_is_escaped() {
    for text in HOSTILE {
        for status in STATES {
            let step = step_detail(text, status);
            for evidence in [None, Some(Err(text))] {
                for attempt in [None, Some(3)] {
                    assert_inert(&step_page(&StepPage { attempt, evidence, ..StepPage::new(&step, "t") }), text);
                }
            }
        }
    }
}

#[test]
fn text_in_a_step_cannot_change_its_direction() {
    for status in STATES {
        let page = page(&step_detail("a\u{202e}b\u{200b}", status));
        assert!(page.contains("a⟨U+202E⟩b⟨U+200B⟩"));
        assert!(!page.contains(['\u{202e}', '\u{200b}']), "{status}: {page}");
    }
}

#[test]
fn the_findings_of_a_gate_lead_to_its_document_also_if_it_cannot_be_shown() {
    let id = "0198c0de-0000-7000-8000-00000000000c";
    let document = json!({"id": id, "uri": "s3://b/k", "hash": "h", "size_bytes": 1, "media_type": "application/json"});
    let step = StepDetail { evidence: serde_json::from_value(document).unwrap(), ..step_detail("x", "failed") };
    let read = Evidence::read(br#"{"schema": "nofx.gate_evidence.v2", "verdict": "failed"}"#).unwrap();
    for evidence in [Ok(&read), Err("it is gone")] {
        let shown = step_page(&StepPage { evidence: Some(evidence), ..StepPage::new(&step, "t") });
        assert!(shown.contains(&format!("href=\"../../../artifacts/{id}\"")), "{shown}");
    }
}

/// A state, what else differs, and words of the sentence.
type Case<'a> = (&'a str, fn(&mut StepDetail), &'a [&'a str]);

#[test]
fn each_state_says_what_happens_next() {
    let said = |status, change: fn(&mut StepDetail)| {
        let mut step = step_detail("unit", status);
        change(&mut step);
        next(&page(&step))
    };
    let expected: [Case<'_>; 14] = [
        (
            "pending",
            |_| {},
            &[
                "Waits for unit, which waits for a person, unit and 28 more steps, and for a decision",
                "Review and decide",
            ],
        ),
        ("pending", |step| step.gates.clear(), &["unit and 28 more steps", "Go to unit"]),
        (
            "pending",
            |step| {
                step.gates.clear();
                step.parents.clear();
                step.parents_total = 0;
            },
            &["Waits for its run"],
        ),
        ("ready", |_| {}, &["Attempt 4 follows 2026-11-23", ": unit", "2 of at most 3 attempts failed"]),
        (
            "ready",
            |step| {
                step.next_try_at = None;
                step.error = None;
            },
            &["no worker has claimed it yet: it has waited since", "2 of at most 3 attempts failed. 1 worker was lost"],
        ),
        (
            "ready",
            |step| step.run_status = serde_json::from_value(json!("paused")).unwrap(),
            &["Ready, but its run is paused"],
        ),
        (
            "running",
            |_| {},
            &["Attempt 3 has run since 2026-11-23", "; its lease ends 2026", "1 worker was lost, which does not count"],
        ),
        ("blocked", |_| {}, &["Waits for a decision about unit: unit", "It has waited since", "Decide"]),
        ("blocked", |step| step.gates.clear(), &["Waits for a decision"]),
        ("succeeded", |_| {}, &["Succeeded"]),
        ("failed", |_| {}, &["Failed: unit", "2 of at most 3 attempts failed"]),
        ("failed", |step| step.error = None, &["Failed without an error message"]),
        ("skipped", |_| {}, &["Skipped, because unit failed before it could start", "Go to unit"]),
        ("cancelled", |_| {}, &["Cancelled with its run"]),
    ];
    for (status, change, words) in expected {
        let said = said(status, change);
        for part in words {
            assert!(said.contains(part), "{status}: {part} in {said}");
        }
    }
}

#[test]
fn only_the_newest_attempt_of_an_open_step_refreshes() {
    let shown = |status, attempt, shown| {
        let step = StepDetail { shown, ..step_detail("x", status) };
        step_page(&StepPage { attempt, ..StepPage::new(&step, "t") })
    };
    let fragment = format!("data-fragment=\"../../../runs/{}/steps/4\"", run_id());
    assert!(
        shown("running", None, 3).contains(&fragment) && shown("running", None, 3).contains("http-equiv=\"refresh\"")
    );
    for page in [shown("running", Some(2), 2), shown("failed", None, 3)] {
        assert!(!page.contains("data-fragment") && !page.contains("http-equiv=\"refresh\""));
    }
    assert!(shown("running", Some(2), 2).contains("This page shows what attempt 2 left."));
    assert!(!shown("running", Some(3), 3).contains("This page shows"));
}

#[test]
fn the_page_of_an_earlier_attempt_shows_nothing_of_a_later_one() {
    let mut step = step_detail("unit", "succeeded");
    step.outputs = Some(StoredJson { text: r#"{"by": "somebody"}"#.into(), bytes: 18 });
    step.attempts[1].status = AttemptStatus::Failed;
    step.attempts[1].duration_ms = Some(7_000);
    step.attempts[1].error = Some("rejected by rej".into());
    step.duration_ms = Some(1_100);
    let newest = page(&step);
    assert!(newest.contains("somebody") && newest.contains("took <b>1.1\u{a0}s</b>"), "{newest}");
    step.shown = step.attempts[1].number;
    assert!(step.shown < step.attempt);
    let shown = step_page(&StepPage { attempt: Some(step.shown), ..StepPage::new(&step, "t") });
    assert!(!shown.contains("somebody") && !shown.contains("1.1"), "{shown}");
    assert!(!shown.contains("aria-label=\"What happens next\""), "that is about the step: {shown}");
    for words in ["took <b>7.0\u{a0}s</b>", "rejected by rej", "are kept of the newest attempt only"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn values_are_bounded_and_the_rest_is_linked() {
    let mut step = step_detail("a/b", "succeeded");
    let page_of = |step: &StepDetail| page(step);
    assert!(page_of(&step).contains(&format!("href=\"../../../../runs/{}/steps/a%2Fb\"", run_id())), "the API");
    let large = "[1,".repeat(11_000);
    step.outputs = Some(StoredJson { bytes: large.len() as u64, text: large });
    let page = page_of(&step);
    assert!(page.len() < 400_000 && page.contains("This is the beginning of 32.2 KiB."), "{}", page.len());
    step.outputs = Some(StoredJson { text: r#"{"z": 1.50, "a": 123456789012345678901}"#.into(), bytes: 39 });
    let page = page_of(&step);
    let (first, second) = (page.find("&quot;z&quot;").unwrap(), page.find("&quot;a&quot;").unwrap());
    assert!(first < second && page.contains(">1.50</span>") && page.contains(">123456789012345678901</span>"));
}

#[test]
fn calls_of_models_show_their_tokens_and_who_did_not_answer() {
    let page = page(&step_detail("gpt", "succeeded"));
    let table = page.split("id=\"models\"").nth(1).and_then(|rest| rest.split("</section>").next()).unwrap();
    for words in [
        "no usable answer",
        "cannot be used",
        "2,422",
        "7 cached",
        "not reported",
        "by attempt 1, which had lost its step",
        "newest 2 of 40 answers",
        "were not searched",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn rows_of_a_write_are_shown_with_its_rule() {
    let start = json!({"name": "rates", "tool": "db_write", "status": "pending", "blockers": 1, "table": "public.rates",
        "inputs": {"op": "insert", "values": [{"country": "<b>"}]}, "refs": null, "rule": null, "rule_actor": null,
        "rule_at": null});
    let mut step = step_detail("rates", "pending");
    step.write = Some(serde_json::from_value::<Start>(start).unwrap());
    let shown = page(&step);
    for words in [
        "What it will write",
        "It inserts 1 row into",
        "<bdi class=\"text\">&quot;&lt;b&gt;&quot;</bdi>",
        "The step will fail: <bdi>no rule lets",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[tokio::test]
async fn steps_need_a_database_and_a_valid_address() {
    let run = run_id();
    assert_eq!(get(&format!("/ui/runs/{run}/steps/0")).await.status, 503);
    for (path, status) in [
        (format!("/ui/runs/{run}/steps/first"), 404),
        ("/ui/runs/nonsense/steps/0".to_owned(), 404),
        (format!("/ui/runs/{run}/steps/0?attempt=-1"), 400),
        (format!("/ui/runs/{run}/steps/0?other=1"), 400),
    ] {
        assert_eq!(get(&path).await.status, status, "{path}");
    }
}

#[test]
fn a_step_that_did_not_succeed_offers_the_retry_of_its_run() {
    let offers = |status: &str, run_status: RunStatus, attempt: i64| {
        let step = StepDetail { run_status, shown: attempt, attempt: 3, ..step_detail("x", status) };
        let page = step_page(&StepPage { attempt: Some(attempt), ..StepPage::new(&step, "the-token") });
        let form = format!("<form class=\"form\" method=\"post\" action=\"../../../runs/{}/retry\">", run_id());
        assert_eq!(page.contains(&form), page.contains("value=\"the-token\""), "{page}");
        page.contains(&form)
    };
    for status in ["failed", "skipped", "cancelled"] {
        assert!(offers(status, RunStatus::Failed, 3) && offers(status, RunStatus::Cancelled, 3), "{status}");
        assert!(!offers(status, RunStatus::Running, 3), "{status}: the run has not ended");
        assert!(!offers(status, RunStatus::Failed, 2), "{status}: an earlier attempt says nothing about the run");
    }
    assert!(!offers("succeeded", RunStatus::Failed, 3));
}
