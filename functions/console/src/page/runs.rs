//! The inbox of pending gates and the list of runs.

use maud::{Markup, html};

use super::format;
use super::gates::evidence;
use super::icon::{look, state};
use super::layout::{Base, Layout, Part, layout};
use super::parts::time;
use shared::db::console::{Gate, RunList, RunRow};

/// `GET /ui/runs`.
pub fn run_list(base: Base, list: &RunList) -> String {
    let content = html! {
        @if !list.inbox.is_empty() || list.inbox_is_continuation { (inbox(base, list)) }
        h1 { "Runs" }
        @if list.runs.is_empty() {
            p.empty {
                @if list.is_continuation { "No older runs." }
                @else { "No runs yet. Post a plan to " code { "/runs" } " and it appears here." }
            }
        } @else {
            (table(base, &list.runs))
        }
        @if list.is_continuation || list.older.is_some() {
            nav.pages aria-label="Pages" {
                @if list.is_continuation { a href=(base.to("runs")) { "Newest runs" } }
                @if let Some(older) = list.older {
                    a href={ (base.to("runs")) "?after=" (older) } rel="next" { "Older runs" }
                }
            }
        }
    };
    layout(&Layout { base, title: "Runs", part: Part::Runs, refresh_s: None }, &content)
}

fn inbox(base: Base, list: &RunList) -> Markup {
    html! {
        section.inbox aria-labelledby="inbox" {
            h2 #inbox { "Waiting for a decision" }
            ul.plain { @for gate in &list.inbox { (inbox_item(base, gate)) } }
            @if list.inbox_is_continuation || list.inbox_next.is_some() {
                nav.pages aria-label="Pages of the inbox" {
                    @if list.inbox_is_continuation { a href=(base.to("runs")) { "Oldest gates" } }
                    @if let Some(next) = list.inbox_next {
                        a href={ (base.to("runs")) "?inbox=" (next) } rel="next" { "Newer gates" }
                    }
                }
            }
        }
    }
}

fn inbox_item(base: Base, gate: &Gate) -> Markup {
    html! {
        li {
            @if gate.is_about_change() {
                a href={ (base.to("gates/")) (gate.id) } { (gate.gate_type) }
            } @else {
                a href={ (base.to("runs/")) (gate.run_id) "?gate=" (gate.id) "#gate-" (gate.id) } { (gate.gate_type) }
            }
            " of " bdi { (gate.goal) }
            @if let Some(step) = &gate.step { ", step " bdi { (step) } }
            span.note {
                ", since " (time(&gate.created_at))
                @if let Some(at) = &gate.expires_at { ", expires " (time(at)) }
            }
            @if let Some(reason) = &gate.reason { p.quote { bdi { (reason) } } }
            (evidence(base, gate))
        }
    }
}

fn table(base: Base, runs: &[RunRow]) -> Markup {
    // Narrow screens show rows as cards. With the roles, screen readers still see a table.
    html! {
        table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Status", "Goal", "Created", "Duration"] {
                        th role="columnheader" scope="col" { (heading) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for run in runs {
                    tr role="row" {
                        td.short role="cell" data-label="Status" { (state(look(run.status))) }
                        td.wide role="cell" data-label="Goal" {
                            a href={ (base.to("runs/")) (run.id) } { bdi { (run.goal) } }
                        }
                        td.short role="cell" data-label="Created" { (time(&run.created_at)) }
                        td.short role="cell" data-label="Duration" {
                            @if let Some(ms) = run.duration_ms { (format::duration(ms)) } @else { "not started" }
                        }
                    }
                }
            }
        }
    }
}
