//! One-time links to gates: how to make one, and what a link that cannot be used says.

use maud::{Markup, html};
use shared::db::console::Gate;
use shared::domain::access::MAX_EMAIL_BYTES;
use shared::domain::principal::{Principal, Role};
use shared::domain::{GateId, Kind, Timestamp};

use super::gates::{verdict, words_of};
use super::icon::icon;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{crumbs, facts, hash, head, left, notice, person, section, time};
use super::source::visible;
use crate::viewer;

/// Days that a link may last, in the form.
pub(crate) const DAYS: [u32; 4] = [1, 3, 7, 30];

/// Who a page of a gate is for, if a link led to it.
#[derive(Debug, Clone, Copy)]
pub struct LinkNote<'a> {
    /// The text of the link.
    pub token: &'a str,
    pub name: &'a str,
    pub expires_at: &'a Timestamp,
}

/// A new link with its secret.
#[derive(Clone, Copy)]
pub struct MadeLink<'a> {
    pub url: &'a str,
    pub name: &'a str,
    pub expires_at: &'a Timestamp,
}

impl std::fmt::Debug for MadeLink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeLink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The page after somebody asked for a link.
#[derive(Debug, Clone, Copy)]
pub struct LinkPage<'a> {
    pub base: Base,
    /// The token for the form.
    pub token: &'a str,
    pub gate: GateId,
    /// The link, which no other page shows. Or why none was made, with what was typed.
    pub outcome: Result<MadeLink<'a>, (&'a str, &'a str)>,
}

/// Why a link cannot be used.
#[derive(Debug, Clone, Copy)]
pub enum Void<'a> {
    /// At this time, by its person.
    Used(Option<&'a Timestamp>),
    Expired(&'a Timestamp),
    /// The gate has changed since the link was made, at these paths.
    Changed(&'a [String]),
}

/// `POST /ui/gates/{id}/links`.
pub fn link_page(page: &LinkPage<'_>) -> String {
    let gate = page.base.to(&format!("gates/{}", page.gate));
    let typed = page.outcome.err().map_or("", |(_, typed)| typed);
    let content = html! {
        (crumbs(&[("Inbox", page.base.to("inbox")), ("Gate", gate.clone())], "Link"))
        @match page.outcome {
            Ok(made) => (notice("good", "good", "status", &html! {
                p { b { "The link for " (person(made.name)) ". " } "Copy it now: it is not shown again. It expires " (left(made.expires_at)) "." }
                p { (hash(made.url, "link")) }
                p.note { "Whoever opens it logs in as " (person(made.name)) " to see the gate. Opening it decides nothing." }
            })),
            Err((why, _)) => (notice("bad", "bad", "alert", &html! { p { b { "No link was made. " } bdi { (visible(why)) } } })),
        }
        (head(&html! { "A link to the gate" }, &facts([html! { a href=(gate) { "Open the gate" } }]), None))
        (section("link", "Make another link", &html! {}, &form(page.base, page.gate, page.token, typed)))
    };
    layout(&Layout { part: Part::Inbox, ..Layout::new(page.base, "A link to a gate") }, &content)
}

/// The form on the page of a gate, for those who may make links.
pub(super) fn offer(base: Base, gate: GateId, token: &str) -> Markup {
    let may = |who: &Principal| who.role >= Role::Operator && who.kind != Kind::Agent;
    html! {
        @if viewer::principal().is_some_and(|(who, _)| may(&who)) {
            (section("link", "Make a link", &html! { p.note { "for mail and chat" } }, &form(base, gate, token, "")))
        }
    }
}

fn form(base: Base, gate: GateId, token: &str, typed: &str) -> Markup {
    html! {
        form.form method="post" action=(base.to(&format!("gates/{gate}/links"))) aria-labelledby="link" {
            input type="hidden" name="csrf" value=(token);
            div.field {
                label for="link-for" { "For " span.note { "the e-mail address or the id of a member who may approve" } }
                input #link-for name="for" required maxlength=(MAX_EMAIL_BYTES) autocomplete="off" spellcheck="false" value=(typed);
            }
            div.field {
                label for="link-days" { "Expires" }
                select #link-days name="days" {
                    @for days in DAYS { option value=(days) { "after " (days) @if days == 1 { " day" } @else { " days" } } }
                }
            }
            div.actions { button type="submit" { "Make the link" } }
        }
    }
}

/// What the page of a gate says that a link led to.
pub(super) fn note(link: &LinkNote<'_>) -> Markup {
    notice(
        "",
        "decide",
        "note",
        &html! {
            p {
                "This link is for " (person(link.name)) ", for one decision. It expires " (left(link.expires_at)) "."
                " Nothing is decided until you press a button."
            }
        },
    )
}

/// A link of the reader that cannot be used, and where to go on.
pub fn void_link_page(base: Base, gate: &Gate, void: Void<'_>) -> String {
    let title = match void {
        Void::Used(_) => "This link has been used",
        Void::Expired(_) => "This link has expired",
        Void::Changed(_) => "This link is void: the gate has changed",
    };
    let content = html! {
        div.message {
            (icon("decide", "warn"))
            h1 { (title) }
            @match void {
                Void::Used(at) => p.lead role="alert" { "You decided with it" @if let Some(at) = at { " " (time(at)) } "." },
                Void::Expired(at) => p.lead role="alert" { "It was valid until " (time(at)) "." },
                Void::Changed(paths) => {
                    p.lead role="alert" { "Nothing was decided. The gate asks about something else than when the link was made." }
                    @if !paths.is_empty() {
                        p.note { "Changed: " @for (at, path) in paths.iter().enumerate() { @if at > 0 { ", " } code { bdi { (visible(path)) } } } }
                    }
                }
            }
            p {
                "The gate " b { bdi { (words_of(&gate.gate_type)) } } " of " bdi { (visible(&gate.goal)) } " "
                @match &gate.actor {
                    Some(actor) => { "is " (verdict(gate.status)) " by " (person(actor)) "." },
                    None if gate.is_open() => "waits for a decision.",
                    None => { "is " (gate.status) "." },
                }
            }
            p { a.button.primary href=(base.to(&format!("gates/{}", gate.id))) { "Open the gate" } }
        }
    };
    layout(&Layout { part: Part::Inbox, ..Layout::new(base, title) }, &content)
}

/// A link of somebody else. It says nothing about its gate or its person.
pub fn foreign_link_page(base: Base) -> String {
    let content = html! {
        div.message {
            (icon("bad", "bad"))
            h1 { "This link is for somebody else" }
            p.lead role="alert" { "Nothing was decided. Log in as the person whom it was sent to." }
            p { a.button href=(base.to("inbox")) { "Your inbox" } }
        }
    };
    layout(&Layout { part: Part::Inbox, ..Layout::new(base, "A link for somebody else") }, &content)
}
