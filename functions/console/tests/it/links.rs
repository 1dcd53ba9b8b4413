//! Links work below any prefix.

use console::page::{Base, DecisionPage, Message, Refused, RunPage, decision_page, inbox, message, run_list, run_page};
use shared::db::console::{Inbox, RunList};

use crate::support::{gate, run, run_id, run_row};

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
    let list = RunList { runs: vec![run_row("x")], older: Some(run_id()), ..RunList::default() };
    let asked = gate("x");
    let gates = Inbox { gates: vec![asked.clone()], newer: Some(asked.id), ..Inbox::default() };
    let shown = |before| run_page(&RunPage { base: Base::RUN, run: &run, decided: None, before });
    let decision =
        |base, refused| decision_page(&DecisionPage { base, gate: &asked, change: None, token: "t", refused });
    let refused = Refused { why: "no", actor: "ada", reason: "fine" };
    let note = Message { title: "t", sentence: "s", hint: None };
    let pages = [
        ("/ui/runs", run_list(Base::TOP, &list)),
        ("/ui/inbox", inbox(Base::TOP, &gates)),
        ("/ui/runs/1", shown(None)),
        ("/ui/runs/1", shown(Some(9))),
        ("/ui/gates/2", decision(Base::RUN, None)),
        ("/ui/gates/2/approve", decision(Base::GATE, Some(refused))),
        ("/ui/a/b/c", message(Base(2), &note)),
    ];
    for prefix in ["", "/prod", "/base/path"] {
        for (place, page) in &pages {
            let addresses = addresses(page);
            assert!(addresses.len() > 4);
            for address in addresses.into_iter().filter(|address| !address.starts_with('#')) {
                let path = resolve(&format!("{prefix}{place}"), address);
                let below = path.strip_prefix(&format!("{prefix}/ui/"));
                let known = ["runs", "inbox", "static/", "artifacts/signed", "gates/"];
                let is_page = below.is_some_and(|below| known.iter().any(|start| below.starts_with(start)));
                // The API is below the same prefix.
                let leads = is_page || path == format!("{prefix}/runs/{}/plan", run.id);
                assert!(leads, "{address} on {prefix}{place} leads to {path}");
            }
        }
    }
}
