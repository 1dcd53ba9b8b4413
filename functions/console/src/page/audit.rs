//! Who changed what, when and from where, for admins.

use std::fmt::Write as _;

use maud::{Markup, html};
use serde_json::Value;
use shared::http::encoded;
use shared::view::{AuditEntry, AuditPage};

use super::layout::{Base, Layout, Part, layout};
use super::parts::{facts, fold, hash, head, person, time};
use super::source::visible;

/// A page of entries, with its filters.
#[derive(Debug, Clone, Copy)]
pub struct AuditList<'a> {
    pub base: Base,
    pub waiting: u64,
    pub page: &'a AuditPage,
    pub action: Option<&'a str>,
    pub actor: Option<&'a str>,
}

/// `GET /ui/audit`.
pub fn audit_page(list: &AuditList<'_>) -> String {
    let page = list.page;
    let about = facts([
        html! { "Entry " (page.head.seq) " is the newest" },
        html! { "Entries never change. " code { "nofx audit verify" } " checks that" },
    ]);
    let content = html! {
        (head(&html! { "Audit" }, &about, None))
        @if list.action.is_some() || list.actor.is_some() { (filters(list)) }
        @if page.entries.is_empty() { p { "There are no such entries." } } @else { (table(list)) }
        @if let Some(next) = page.next {
            nav.pages aria-label="Pages" {
                a href=(address(list, list.action, list.actor, Some(next))) rel="next" { "Older entries" }
            }
        }
        @if page.head.seq > 0 {
            (fold("The head of the chain", "compare it with what you have exported", false, &html! {
                p { "sha256 " (hash(&page.head.hash, "hash")) }
            }))
        }
    };
    layout(&Layout { part: Part::Audit, waiting: list.waiting, ..Layout::new(list.base, "Audit") }, &content)
}

/// The active filters, each with a link that removes it.
fn filters(list: &AuditList<'_>) -> Markup {
    let drop = |href: String, what: &str, value: &str| {
        html! {
            a href=(href) aria-label={ "All, not only " (what) " " (visible(value)) } { (what) " " bdi { (visible(value)) } " ×" }
        }
    };
    html! {
        nav.filters.chips aria-label="Filters" {
            @if let Some(action) = list.action { (drop(address(list, None, list.actor, None), "action", action)) }
            @if let Some(actor) = list.actor { (drop(address(list, list.action, None, None), "by", actor)) }
        }
    }
}

fn address(list: &AuditList<'_>, action: Option<&str>, actor: Option<&str>, after: Option<u64>) -> String {
    let mut query = String::new();
    let after = after.map(|after| after.to_string());
    for (name, value) in [("action", action), ("actor", actor), ("after", after.as_deref())] {
        if let Some(value) = value {
            let separator = if query.is_empty() { '?' } else { '&' };
            // Writing to a string does not fail.
            let _ = write!(query, "{separator}{name}={}", encoded(value));
        }
    }
    list.base.to(&format!("audit{query}"))
}

fn table(list: &AuditList<'_>) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Entry", "What", "By", "When", "From", "Detail"] {
                        th role="columnheader" scope="col" { (heading) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for entry in &list.page.entries { (row(list, entry)) }
            }
        }
    }
}

fn row(list: &AuditList<'_>, entry: &AuditEntry) -> Markup {
    let of_action = address(list, Some(&entry.action), list.actor, None);
    let of_actor = address(list, list.action, Some(&entry.actor), None);
    html! {
        tr role="row" {
            td role="cell" data-label="Entry" { (entry.seq) }
            td role="cell" data-label="What" {
                a href=(of_action) { (visible(&entry.action)) } " "
                @if !entry.action.starts_with(&entry.subject) { code { bdi { (visible(&entry.subject)) } } }
            }
            td role="cell" data-label="By" {
                a href=(of_actor) { (person(&entry.actor)) }
                @if let Some(by) = &entry.by { " " span.note { (visible(&by.kind)) ", " (visible(&by.role)) } }
            }
            td role="cell" data-label="When" { span { (time(&entry.at)) } }
            td role="cell" data-label="From" { @if let Some(ip) = entry.ip { (ip) } }
            td role="cell" data-label="Detail" { (detail(entry)) }
        }
    }
}

/// Fields of the row, and its digests.
fn detail(entry: &AuditEntry) -> Markup {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    html! {
        @for (at, (name, value)) in entry.detail.iter().enumerate() {
            @if at > 0 { ", " }
            (visible(name)) " " bdi { (visible(&text(value))) }
        }
    }
}
