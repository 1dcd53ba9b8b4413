//! Text from plans and users is escaped.

use console::page::{Base, Message, RunPage, inbox, message, run_list, run_page};
use shared::db::console::{Inbox, RunList};

use crate::support::{HOSTILE, assert_inert, gate, run, run_id, run_row};

#[test]
fn hostile_text_in_a_run_is_escaped() {
    for text in HOSTILE {
        for status in ["running", "failed"] {
            let run = run(text, status);
            for decided in [None, Some(run.gates[1].id)] {
                let page = RunPage { base: Base::RUN, run: &run, decided, before: None };
                assert_inert(&run_page(&page), text);
            }
        }
    }
}

#[test]
fn hostile_text_in_lists_and_messages_is_escaped() {
    for text in HOSTILE {
        let runs = RunList { runs: vec![run_row(text)], waiting: 3, older: Some(run_id()), is_continuation: true };
        assert_inert(&run_list(Base::TOP, &runs), text);
        let newer = Some(gate(text).id);
        let gates = Inbox { gates: vec![gate(text)], waiting: 3, newer, is_continuation: true };
        assert_inert(&inbox(Base::TOP, &gates), text);
        assert_inert(&message(Base::TOP, &Message { title: text, sentence: text, hint: Some(text) }), text);
    }
}

#[test]
fn an_evidence_address_that_is_not_an_artifact_is_not_a_link() {
    let run = run("javascript:alert(1)", "blocked");
    let page = RunPage { base: Base::RUN, run: &run, decided: None, before: None };
    let page = run_page(&page);
    assert!(page.contains("javascript:alert(1)"));
    assert!(!page.contains("href=\"javascript"));
}
