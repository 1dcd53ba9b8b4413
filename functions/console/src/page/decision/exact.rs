//! Digests of what the page shows, and the policy in force. The decision does not store them.

use maud::{Markup, html};
use serde_json::{Map, Value};
use shared::db::console::GateDetail;

use super::DecisionPage;
use crate::page::parts::{hash, pairs, section};
use crate::page::source::visible;

pub(super) fn exact(page: &DecisionPage<'_>) -> Markup {
    let detail = page.detail;
    let mut list: Vec<(&str, Markup)> = detail.subject.as_ref().map(subject).unwrap_or_default();
    for exhibit in detail.documents.iter().take(page.contents.len()) {
        let name = html! { div.note { bdi { (visible(&exhibit.name)) } } };
        list.push(("Document", html! { (hash(&exhibit.artifact.hash, "sha256")) (name) }));
    }
    list.push(("Plan", hash(&detail.plan_digest, "digest of the plan")));
    list.push(("Policy", policy(detail)));
    section("exact", "Digests of what is shown", &html! {}, &pairs(list))
}

/// Digests of what is judged, by the names that gates give them.
fn subject(subject: &Map<String, Value>) -> Vec<(&'static str, Markup)> {
    let known = [("tree", "Tree"), ("base", "Base"), ("difference", "Difference"), ("evidence", "Evidence")];
    let digest = |name: &str| {
        let value = subject.get(name)?;
        value.as_str().or_else(|| value["sha256"].as_str()).map(visible)
    };
    known.into_iter().filter_map(|(name, words)| Some((words, hash(&digest(name)?, "sha256")))).collect()
}

fn policy(detail: &GateDetail) -> Markup {
    let document = detail.policy.as_ref().map(|policy| &policy.document);
    let on_weakening = document.and_then(|document| document["gates"]["on_weakening"].as_str()).unwrap_or("ask");
    html! {
        @match &detail.policy { Some(policy) => { "version " (policy.version) }, None => "none: the defaults count" }
        @if detail.gate.is_about_change() { ". When checks get weaker: " code { "on_weakening" } " is " code { (visible(on_weakening)) } }
    }
}
