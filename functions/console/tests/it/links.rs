//! Links work below any prefix.

use console::content::Content;
use console::page::{Base, DecisionPage, InboxPage, Message, Outcome, Refusal, Refused, RunFilters, RunPage, RunsPage};
use console::page::{
    StepPage, Unreadable, decided_list, decision_page, inbox, message, new_run_page, run_list, run_page, step_page,
};
use console::signature::Signature;
use shared::db::console::Place;
use shared::domain::gate::Decision;

use crate::artifact;
use crate::support::{self, gate, new_run, run, typed};

fn addresses(page: &str) -> Vec<&str> {
    let after = |attribute: &'static str| {
        page.match_indices(attribute).filter_map(move |(at, _)| page[at + attribute.len()..].split('"').next())
    };
    [" href=\"", " src=\"", " action=\"", " formaction=\"", " data-fragment=\""].into_iter().flat_map(after).collect()
}

/// The path that a browser on `page` requests for `address`.
fn resolve(page: &str, address: &str) -> String {
    let mut folders: Vec<&str> = page.split('/').collect();
    folders.pop();
    let path = address.split(['?', '#']).next().unwrap_or_default();
    for part in path.split('/') {
        match part {
            ".." => drop(folders.pop()),
            other => folders.push(other),
        }
    }
    folders.join("/")
}

#[test]
fn every_link_of_every_page_works_below_any_prefix() {
    let run = run("x", "running");
    let (list, gates) = (support::run_list("x"), support::inbox("x"));
    let filters = RunFilters { status: "open", goal: "a b", ..RunFilters::default() };
    let asked = gate("x");
    let older = support::selected(run.clone(), Place::Before(9));
    let detail = support::detail(&asked, "x");
    let contents = support::contents("x");
    let ended = support::detail(&support::decided("x", "passed"), "x");
    let decision = |base, detail, refused| {
        decision_page(&DecisionPage { base, refused, contents: &contents, ..support::decision(detail) })
    };
    let refused = |why| Some(Refused { why, decision: Decision::Waive, actor: "ada", reason: "fine" });
    let typed = typed("x");
    let new = |base| new_run_page(&new_run(base, &typed, Outcome::None));
    let step = |status, attempt| {
        let step = support::step_detail("x", status);
        step_page(&StepPage { attempt, ..StepPage::new(&step, "t") })
    };
    let (made, evidence) = (artifact::artifact("x", "text"), artifact::artifact("x", "gate_evidence"));
    let holds = artifact::stored(Content::Text("x".into()));
    let note = Message { title: "t", sentence: "s", hint: None };
    let pages = [
        ("/ui/runs", run_list(&RunsPage { base: Base::TOP, list: &list, filters, api: "" })),
        ("/ui/inbox", inbox(&InboxPage { base: Base::TOP, list: &gates, gate_type: "x", everybody: false })),
        ("/ui/inbox", decided_list(Base::TOP, &support::decisions("x"))),
        ("/ui/new", new(Base::TOP)),
        ("/ui/new/check", new(Base::RUN)),
        ("/ui/runs/1", run_page(&RunPage::new(&run, "t"))),
        ("/ui/runs/1", run_page(&RunPage::new(&older, "t"))),
        ("/ui/runs/1/steps/4", step("running", None)),
        ("/ui/runs/1/steps/4", step("failed", Some(3))),
        ("/ui/artifacts/3", artifact::page(&made, Ok(&holds), None)),
        ("/ui/artifacts/3", artifact::page(&evidence, Err(&Unreadable::Gone), Some(&Signature::Missing))),
        ("/ui/gates/2", decision(Base::RUN, &detail, None)),
        ("/ui/gates/2", decision(Base::RUN, &ended, None)),
        ("/ui/gates/2/approve", decision(Base::GATE, &detail, refused(Refusal::Problems(&[])))),
        ("/ui/gates/2/waive", decision(Base::GATE, &ended, refused(Refusal::Conflict("no")))),
        ("/ui/a/b/c", message(Base(2), &note)),
    ];
    for prefix in ["", "/prod", "/base/path"] {
        for (place, page) in &pages {
            let addresses = addresses(page);
            assert!(addresses.len() > 4);
            for address in addresses.into_iter().filter(|address| !address.is_empty() && !address.starts_with('#')) {
                let path = resolve(&format!("{prefix}{place}"), address);
                let below = path.strip_prefix(&format!("{prefix}/ui/"));
                let known =
                    ["runs", "inbox", "new", "policy", "rules", "usage", "health", "static/", "artifacts/", "gates/"];
                let is_page = below.is_some_and(|below| known.iter().any(|start| below.starts_with(start)));
                // The API is below the same prefix.
                let leads = is_page || path.starts_with(&format!("{prefix}/runs/{}/", run.id));
                assert!(leads, "{address} on {prefix}{place} leads to {path}");
            }
        }
    }
}
