//! Words of others stay words.

use console::page::{Base, Message, Notice, RunPage, message, run_list, run_page};
use shared::db::console::RunList;

use crate::support::{gate, run, run_id, run_row};

const HOSTILE: [&str; 3] = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</title><svg onload='x'>"];

/// Every `<` of the page begins markup of ours: nothing of `text` came through.
fn assert_inert(page: &str, text: &str) {
    assert!(!page.contains(text), "came through: {text}");
    let tags = ["<script>", "<img", "<svg"];
    assert!(!tags.iter().any(|tag| page.contains(tag)), "a tag came through: {text}");
    assert_eq!(page.matches("<script").count(), 1, "only our own script");
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    assert!(page.contains(&escaped), "is not shown at all: {text}");
}

#[test]
fn hostile_words_in_a_run_are_only_words() {
    for text in HOSTILE {
        for status in ["running", "failed"] {
            let run = run(text, status);
            for notice in [None, Some(Notice::Refused(text)), Some(Notice::Decided(run.gates[1].id))] {
                let page = RunPage { base: Base::RUN, run: &run, token: text, notice, before: None };
                assert_inert(&run_page(&page), text);
            }
        }
    }
}

#[test]
fn hostile_words_in_the_list_and_in_messages_are_only_words() {
    for text in HOSTILE {
        let list = RunList {
            inbox: vec![gate(text)],
            inbox_next: Some(gate(text).id),
            inbox_is_continuation: true,
            runs: vec![run_row(text)],
            older: Some(run_id()),
            is_continuation: true,
        };
        assert_inert(&run_list(Base::TOP, &list), text);
        assert_inert(&message(Base::TOP, &Message { title: text, sentence: text, hint: Some(text) }), text);
    }
}

#[test]
fn an_address_that_somebody_gave_as_evidence_is_no_link() {
    let run = run("javascript:alert(1)", "blocked");
    let page = RunPage { base: Base::RUN, run: &run, token: "t", notice: None, before: None };
    let page = run_page(&page);
    assert!(page.contains("javascript:alert(1)"));
    assert!(!page.contains("href=\"javascript"));
}
