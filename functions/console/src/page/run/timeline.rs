//! What happened in a run.

use maud::{Markup, html};
use shared::db::console::{Event, Run};

use crate::page::layout::Base;
use crate::page::parts::time;

pub(super) fn timeline(base: Base, run: &Run, before: Option<i64>) -> Markup {
    let page = base.to(&format!("runs/{}", run.id));
    html! {
        section data-region="timeline" aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            @if run.events.is_empty() { p.empty { "No events." } }
            ol.timeline { @for event in &run.events { (event_item(event)) } }
            @if before.is_some() || run.events.last().is_some_and(|event| event.seq > 1) {
                nav.pages aria-label="Pages of the timeline" {
                    @if before.is_some() { a href={ (page) "#timeline" } { "Newest events" } }
                    @if let Some(last) = run.events.last().filter(|event| event.seq > 1) {
                        a href={ (page) "?before=" (last.seq) "#timeline" } rel="next" { "Older events" }
                    }
                }
            }
        }
    }
}

fn event_item(event: &Event) -> Markup {
    html! {
        li {
            span.seq { (event.seq) }
            div {
                strong { (event.kind) }
                @if let Some(step) = &event.step { " " bdi { (step) } }
                @if let Some(subject) = &event.subject { " " code { (subject) } }
                @if let Some(attempt) = &event.attempt { span.note { ", attempt " (attempt) } }
                @if let Some(actor) = &event.actor { span.note { ", by " bdi { (actor) } } }
                span.note { ", " (time(&event.timestamp)) }
                @if let Some(reason) = &event.reason { p.quote { bdi { (reason) } } }
                @if let Some(error) = &event.error { p.error { bdi { (error) } } }
            }
        }
    }
}
