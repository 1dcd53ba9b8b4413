//! Text from plans and users is escaped.

use console::page::{Base, InboxPage, Message, RunFilters, RunPage, RunsPage};
use console::page::{decided_list, inbox, message, run_list, run_page};
use shared::db::console::{Inbox, RunList};

use crate::support::{self, HOSTILE, assert_inert, run};

#[test]
fn hostile_text_in_a_run_is_escaped() {
    for text in HOSTILE {
        for status in ["running", "failed"] {
            let run = run(text, status);
            for decided in [None, Some(run.gates[1].id)] {
                let page = RunPage { decided, ..RunPage::new(&run, "t") };
                assert_inert(&run_page(&page), text);
            }
        }
    }
}

#[test]
fn hostile_text_in_lists_and_messages_is_escaped() {
    for text in HOSTILE {
        let filters = RunFilters { status: "failed", goal: text, tool: text, by: text, since: "1h" };
        let base = Base::TOP;
        let none = RunList { waiting: 3, ..RunList::default() };
        for list in [&support::run_list(text), &none] {
            assert_inert(&run_list(&RunsPage { base, list, filters, api: text }), text);
        }
        let empty = Inbox { waiting: 0, gates: Vec::new(), ..support::inbox(text) };
        for list in [&support::inbox(text), &empty] {
            assert_inert(&inbox(&InboxPage { base, list, gate_type: "", everybody: false }), text);
        }
        let of_type = inbox(&InboxPage { base, list: &support::inbox("x"), gate_type: text, everybody: false });
        assert!(!of_type.contains(text) && of_type.contains(&shared::http::encoded(text)));
        assert_inert(&decided_list(base, &support::decisions(text)), text);
        assert_inert(&message(base, &Message { title: text, sentence: text, hint: Some(text) }), text);
    }
}

#[test]
fn text_in_lists_cannot_change_its_direction() {
    let (text, base) = ("a\u{202e}b", Base::TOP);
    let filters = RunFilters { tool: text, ..RunFilters::default() };
    let none = RunList::default();
    let pages = [
        run_list(&RunsPage { base, list: &support::run_list(text), filters: RunFilters::default(), api: text }),
        run_list(&RunsPage { base, list: &none, filters, api: "" }),
        inbox(&InboxPage { base, list: &support::inbox(text), gate_type: "", everybody: false }),
        decided_list(base, &support::decisions(text)),
    ];
    for page in pages {
        // The field of a form keeps what was typed.
        let shown = page.replace("value=\"a\u{202e}b\"", "");
        assert!(shown.contains("a⟨U+202E⟩b") && !shown.contains('\u{202e}'), "{shown}");
    }
}

#[test]
fn an_evidence_address_that_is_not_an_artifact_is_not_a_link() {
    let run = run("javascript:alert(1)", "blocked");
    let page = RunPage::new(&run, "t");
    let page = run_page(&page);
    assert!(page.contains("javascript:alert(1)"));
    assert!(!page.contains("href=\"javascript"));
}
