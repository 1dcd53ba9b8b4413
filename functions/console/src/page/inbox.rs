//! The gates that wait for a person.

use maud::{Markup, html};
use shared::db::console::{Gate, Inbox};

use super::gates::blocked_by;
use super::icon::{PENDING_GATE, icon};
use super::layout::{Base, Layout, Part, WAITING_SHOWN, layout};
use super::parts::{blank, elapsed, many, time};
use super::source::visible;

/// `GET /ui/inbox`.
pub fn inbox(base: Base, list: &Inbox) -> String {
    let content = html! {
        @if list.gates.is_empty() && !list.is_continuation {
            (blank("Nothing waits for you", &html! {
                p.prose { "A gate appears here when a step needs a person: a release, a change that weakens its own checks, a question of a plan." }
            }))
        } @else {
            div.head.small {
                div { h1 { "Inbox" } p.facts { span { (count(list.waiting)) } } }
            }
            @if list.gates.is_empty() { p { "No newer gates." } } @else { (table(base, &list.gates)) }
            @if list.is_continuation || list.newer.is_some() {
                nav.pages aria-label="Pages" {
                    @if list.is_continuation { a href=(base.to("inbox")) { "Oldest gates" } }
                    @if let Some(newer) = list.newer {
                        a href={ (base.to("inbox")) "?after=" (newer) } rel="next" { "Newer gates" }
                    }
                }
            }
        }
    };
    layout(&Layout { part: Part::Inbox, waiting: list.waiting, ..Layout::new(base, "Inbox") }, &content)
}

fn count(waiting: u64) -> String {
    if waiting > WAITING_SHOWN {
        return format!("more than {WAITING_SHOWN} gates wait");
    }
    many(waiting, "gate waits", "gates wait")
}

fn table(base: Base, gates: &[Gate]) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Decision", "Run", "Waits", "Expires"] {
                        th role="columnheader" scope="col" { (heading) }
                    }
                }
            }
            tbody role="rowgroup" { @for gate in gates { (row(base, gate)) } }
        }
    }
}

fn row(base: Base, gate: &Gate) -> Markup {
    html! {
        tr role="row" data-row {
            td.full role="cell" {
                div.state {
                    (icon(PENDING_GATE.symbol, PENDING_GATE.tone))
                    a.main href={ (base.to("gates/")) (gate.id) } {
                        bdi { (visible(gate.reason.as_deref().unwrap_or(&gate.gate_type))) }
                    }
                }
                @if gate.reason.is_some() { code.note.indent { (gate.gate_type) } }
            }
            td role="cell" data-label="Run" {
                span { bdi { (gate.goal) } br; span.note { (blocked_by(gate)) } }
            }
            td.nowrap role="cell" data-label="Waits" { (elapsed(&gate.created_at)) }
            td.nowrap role="cell" data-label="Expires" {
                @if let Some(at) = &gate.expires_at { (time(at)) } @else { span.note { "never" } }
            }
        }
    }
}
