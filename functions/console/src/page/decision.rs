//! A gate that a person decides, with exactly what the decision is about.

use maud::{Markup, html};
use shared::db::console::{Document, Gate};

use super::gates::{blocked_by, form, said};
use super::icon::{PENDING_GATE, look, state};
use super::layout::{Base, Layout, Part, layout};
use super::parts::time;
use super::source::visible;
use super::weakening::weakenings;
use crate::evidence::{ChangeSubject, Digest, GateChange};

/// A gate, and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct DecisionPage<'a> {
    pub base: Base,
    pub gate: &'a Gate,
    /// The difference that it asks about, with the documents of its attempt.
    pub change: Option<(&'a Document, &'a GateChange)>,
    /// The token for the form.
    pub token: &'a str,
}

/// `GET /ui/gates/{id}`.
pub fn decision_page(page: &DecisionPage<'_>) -> String {
    let DecisionPage { base, gate, change, token } = *page;
    let run = format!("{}?gate={}", base.to(&format!("runs/{}", gate.run_id)), gate.id);
    let content = html! {
        nav.origin aria-label="Origin" {
            a href=(run) { bdi { (gate.goal) } }
            span.note { (blocked_by(gate)) }
        }
        h1 { bdi { (gate.gate_type) } " " @if gate.is_pending() { (state(PENDING_GATE)) } @else { (state(look(gate.status))) } }
        p.facts.note {
            span { "requested " (time(&gate.created_at)) }
            @if let Some(at) = &gate.expires_at { span { "expires " (time(at)) } }
        }
        @if let Some(reason) = &gate.reason { p.quote { bdi { (visible(reason)) } } }
        (said(gate))
        @if let Some((document, change)) = change { (difference(base, document, change)) }
        @if gate.is_pending() {
            section.gate aria-labelledby={ "title-" (gate.id) } {
                h2 id={ "title-" (gate.id) } { "Your decision" }
                p { "Everybody who can open this console may decide. Your name is recorded, and the evidence of the gate will show it." }
                @if change.is_some() {
                    p { "Approve only if the change is meant to alter its own checks. The step then runs again with the checks of the change." }
                }
                (form(base, gate, token))
            }
        }
    };
    let title = format!("{} {}: {}", gate.gate_type, gate.status, gate.goal);
    layout(&Layout { base, title: &title, part: Part::Runs, refresh_s: None }, &content)
}

fn difference(base: Base, document: &Document, change: &GateChange) -> Markup {
    let evidence = document.documents.iter().filter(|one| one.kind == super::EVIDENCE);
    let total = change.weakenings.len();
    html! {
        section aria-labelledby="difference" {
            h2 #difference { "What the change does to its own checks" }
            p.facts.note {
                span { (total) @if total == 1 { " change" } @else { " changes" } }
                span { a href={ (base.to("artifacts/signed")) "?id=" (document.artifact.id) } { "the whole document" } }
                @for one in evidence { span { a href={ (base.to("evidence/")) (one.id) } { "the evidence so far" } } }
            }
            @if total == 0 {
                div.notice.warn role="note" { p { "The document lists no change. Read the evidence before you decide." } }
            }
            (weakenings(&change.weakenings, total as u64))
            (subject(&change.subject))
        }
    }
}

fn subject(subject: &ChangeSubject) -> Markup {
    let tree = |digest: &Digest| html! { code { (visible(&digest.sha1)) } };
    html! {
        details {
            summary { "The decision counts for exactly this difference" }
            dl.pairs {
                @if let Some(digest) = &subject.tree { dt { "Tree" } dd { (tree(digest)) } }
                @if let Some(digest) = &subject.base { dt { "Base" } dd { (tree(digest)) } }
                dt { "Difference" } dd { code { "sha256 " (visible(&subject.difference)) } }
            }
        }
    }
}
