//! A gate, with what a person decides about, and the form.

use maud::{Markup, html};
use shared::db::console::{Document, Gate};

use super::gates::{blocked_by, evidence, look_of, said};
use super::icon::state;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{actor_field, crumbs, facts, fold, head, many, notice, pairs, section, time};
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
    /// A decision that was not recorded.
    pub refused: Option<Refused<'a>>,
}

/// A decision that was not recorded, with what was typed.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    pub why: &'a str,
    pub actor: &'a str,
    pub reason: &'a str,
}

/// `GET /ui/gates/{id}`.
pub fn decision_page(page: &DecisionPage<'_>) -> String {
    let DecisionPage { base, gate, change, .. } = *page;
    let run = format!("{}#gate-{}", base.to(&format!("runs/{}", gate.run_id)), gate.id);
    let step = gate.step.as_deref().unwrap_or("the run itself");
    let content = html! {
        (crumbs(&[("Inbox", base.to("inbox")), (&visible(&gate.goal), run)], &visible(step)))
        (head(&html! { bdi { (visible(&gate.gate_type)) } }, &facts(facts_of(gate)), None))
        @if let Some(refused) = page.refused {
            (notice("bad", "bad", "alert", &html! { p { strong { "Nothing was decided. " } bdi { (visible(refused.why)) } } }))
        }
        div.columns {
            div {
                @if let Some(reason) = &gate.reason { p.quote { bdi { (visible(reason)) } } }
                (evidence(base, gate))
                @if let Some((document, change)) = change { (difference(base, document, change)) }
            }
            div { @if gate.is_pending() { (decide(page)) } @else { (decided(gate)) } }
        }
    };
    let title = format!("{} {}: {}", gate.gate_type, gate.status, gate.goal);
    layout(&Layout { part: Part::Inbox, ..Layout::new(base, &title) }, &content)
}

fn facts_of(gate: &Gate) -> Vec<Markup> {
    let expiry = html! { @match &gate.expires_at { Some(at) => { "expires " (time(at)) }, None => "no expiry" } };
    vec![state(look_of(gate)), blocked_by(gate), html! { "asked " (time(&gate.created_at)) }, expiry]
}

fn decided(gate: &Gate) -> Markup {
    html! {
        section.decide.stay.section #decide aria-labelledby="decision" {
            div.title { h2 #decision { "Decision" } }
            (said(gate))
            @if gate.actor.is_none() { p { "Nobody decided: the gate is " (gate.status) "." } }
        }
    }
}

/// Verb, label, style and effect of each decision.
const VERBS: [(&str, &str, &str, &str); 3] = [
    ("approve", "Approve", "primary", "The step or the run that waits goes on."),
    ("reject", "Reject", "danger", "The step fails, and what depends on it is skipped. The run can be retried."),
    ("waive", "Waive", "", "The gate passes without approval. The record says so."),
];

fn decide(page: &DecisionPage<'_>) -> Markup {
    let DecisionPage { base, gate, change, token, refused } = *page;
    let verb = |verb: &str| base.to(&format!("gates/{}/{verb}", gate.id));
    html! {
        section.decide.stay.section #decide aria-labelledby="decision" {
            div.title { h2 #decision { "Your decision" } }
            @if change.is_some() {
                p { "Approve only if the change is meant to alter its own checks. The step then runs again with the checks of the change." }
            }
            form.form method="post" action=(verb("approve")) aria-labelledby="decision" {
                // The enter key presses the first button. Disable that one, so that each decision needs a click.
                button type="submit" disabled hidden {}
                input type="hidden" name="csrf" value=(token);
                (actor_field("actor", refused.map_or("", |refused| refused.actor), None))
                div.field {
                    label for="reason" { "Reason " span.note { "recorded; everybody can read it" } }
                    textarea #reason name="reason" rows="3" maxlength="2000" { (refused.map_or("", |refused| refused.reason)) }
                }
                div.verbs {
                    @for (word, label, style, _) in VERBS {
                        button class=(style) type="submit" formaction=(verb(word)) aria-describedby={ "o-" (word) } { (label) }
                    }
                }
                dl.outcomes { @for (word, label, _, effect) in VERBS { dt { (label) } dd id={ "o-" (word) } { (effect) } } }
            }
            p.note { "Everybody who can open this console may decide. Your name is recorded, and the evidence of the gate will show it." }
        }
    }
}

fn difference(base: Base, document: &Document, change: &GateChange) -> Markup {
    let proofs = document.documents.iter().filter(|one| one.kind == super::EVIDENCE);
    let total = change.weakenings.len();
    let body = html! {
        p.facts {
            span { a href={ (base.to("artifacts/signed")) "?id=" (document.artifact.id) } { "the whole document" } }
            @for one in proofs { span { a href={ (base.to("evidence/")) (one.id) } { "the evidence so far" } } }
        }
        @if total == 0 {
            (notice("warn", "decide", "note", &html! { p { "The document lists no change. Read the evidence before you decide." } }))
        }
        (weakenings(&change.weakenings, total as u64))
        (subject(&change.subject))
    };
    let count = html! { p.note { (many(total as u64, "change", "changes")) } };
    section("difference", "What the change does to its own checks", &count, &body)
}

fn subject(subject: &ChangeSubject) -> Markup {
    let tree = |digest: &Digest| html! { code { (visible(&digest.sha1)) } };
    let trees = [("Tree", &subject.tree), ("Base", &subject.base)];
    let mut list: Vec<_> = trees.into_iter().filter_map(|(name, one)| Some((name, tree(one.as_ref()?)))).collect();
    list.push(("Difference", html! { code { "sha256 " (visible(&subject.difference)) } }));
    fold("The decision counts for exactly this difference", "", false, &pairs(list))
}
