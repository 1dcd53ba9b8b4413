//! What happened in a run.

use maud::{Markup, html};
use shared::db::console::{Event, Run};

use crate::page::icon::{Look, PENDING_GATE, icon, look};
use crate::page::layout::Base;
use crate::page::parts::{clock, section};

/// A page of the events, newest first.
pub(super) fn timeline(base: Base, run: &Run, before: Option<i64>) -> Markup {
    let page = base.to(&format!("runs/{}", run.id));
    let body = html! {
        ol.timeline { @for event in &run.events { (event_item(event)) } }
        @if before.is_some() || run.events.last().is_some_and(|event| event.seq > 1) {
            nav.pages aria-label="Pages of the timeline" {
                @if before.is_some() { a href={ (page) "#timeline" } { "Newest events" } }
                @if let Some(last) = run.events.last().filter(|event| event.seq > 1) {
                    a href={ (page) "?before=" (last.seq) "#timeline" } rel="next" { "Older events" }
                }
            }
        }
    };
    section("timeline", "Timeline", &html! { p.note { "newest first" } }, &body)
}

/// The state that an event is about, for its symbol.
fn look_of(event: &Event) -> Look {
    match event.kind.split_once('.').map_or("", |(_, verb)| verb) {
        "started" | "resumed" | "unblocked" => Look { symbol: "arrow", ..look("running") },
        "retrying" | "retried" => Look { symbol: "again", ..look("blocked") },
        "worker_lost" => look("lost"),
        "created" if event.kind == "gate.created" => PENDING_GATE,
        "created" if event.kind == "artifact.created" => Look { symbol: "doc", ..look("pending") },
        "timed_out" => look("failed"),
        "pause_requested" => look("paused"),
        "cancel_requested" => look("cancelled"),
        "usage" => Look { symbol: "model", ..look("pending") },
        "executed" => Look { symbol: "table", ..look("succeeded") },
        verb => look(verb),
    }
}

fn event_item(event: &Event) -> Markup {
    let look = look_of(event);
    html! {
        li id={ "event-" (event.seq) } {
            (icon(look.symbol, look.tone))
            span {
                @if let Some(step) = &event.step { b { bdi { (step) } } " " }
                code { (event.kind) }
                @if let Some(subject) = &event.subject { " " bdi { (subject) } }
                @if let Some(error) = &event.error { span.bad { ": " bdi { (error) } } }
            }
            (clock(&event.timestamp))
            @if event.actor.is_some() || event.attempt.is_some() {
                p.also {
                    @if let Some(attempt) = &event.attempt { "attempt " (attempt) " " }
                    @if let Some(actor) = &event.actor { "by " bdi { (actor) } }
                }
            }
            @if let Some(reason) = &event.reason { p.quote { bdi { (reason) } } }
        }
    }
}
