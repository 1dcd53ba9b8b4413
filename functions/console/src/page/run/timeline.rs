//! What happened in a run.

use maud::{Markup, html};
use shared::db::console::{Place, Run, Selection};
use shared::domain::StepStatus;
use shared::view::sentence::{Entry, EventKind, entries};

use super::RunPage;
use super::filter::PAGE;
use crate::page::format::number;
use crate::page::icon::icon;
use crate::page::layout::Base;
use crate::page::parts::{clock, section};
use crate::page::sentence::sentence;
use crate::page::source::visible;

/// A page of the events, newest first.
pub(super) fn timeline(page: &RunPage<'_>) -> Markup {
    let (base, run) = (page.base, page.run);
    let events = &run.timeline.events;
    let is_newest = run.timeline.selection.place == Place::Newest;
    let now_ms = run.created_at.epoch_ms().map(|created_ms| created_ms + run.now_ms);
    let told = entries(events, now_ms.filter(|_| is_newest));
    let days = told.chunk_by(|one, other| day(one) == day(other)).count();
    let body = html! {
        (kinds(page))
        (choice(page))
        @if told.is_empty() {
            p.note {
                @match run.timeline.older {
                    Some(_) => "No event matches so far: go on with older events.",
                    None => "No event matches.",
                }
            }
        }
        ol.timeline {
            @for (at, entry) in told.iter().rev().enumerate() {
                @let newer = at.checked_sub(1).map(|newer| day(&told[told.len() - 1 - newer]));
                // The first day is named only if there are others: most runs take less than one.
                @if newer.is_some_and(|newer| newer != day(entry)) || (newer.is_none() && days > 1) {
                    li.day { (day(entry)) }
                }
                (item(base, run, entry))
            }
        }
        (pages(page))
    };
    let note = html! { p.note { "newest first, " (number(run.timeline.total.unsigned_abs())) " events" } };
    section("timeline", "Timeline", &note, &body)
}

/// The address of the events that `selection` selects, with the same steps in the list of steps.
fn address(page: &RunPage<'_>, selection: &Selection) -> String {
    let rest = format!("{}{}", page.filter.query(), query(selection));
    page.base.to(&format!("runs/{}?{rest}#timeline", page.run.id))
}

/// The query that selects the same events. Each parameter begins with `&`.
pub(super) fn query(selection: &Selection) -> String {
    let kinds: Vec<_> = selection.kinds.iter().map(|kind| kind.as_str()).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!("&kind={}", kinds.join(",")) };
    let step = selection.step.map(|ordinal| format!("&step={ordinal}")).unwrap_or_default();
    let place = match selection.place {
        Place::Newest => String::new(),
        Place::Before(seq) => format!("&before={seq}"),
        Place::After(seq) => format!("&after={seq}"),
    };
    format!("{kinds}{step}{place}")
}

/// Links to the events of each kind.
fn kinds(page: &RunPage<'_>) -> Markup {
    let current = &page.run.timeline.selection;
    let chip = |words: &str, kinds: &[EventKind]| {
        let selection = Selection { kinds: kinds.to_vec(), place: Place::Newest, ..current.clone() };
        html! {
            a href=(address(page, &selection)) aria-current=[(selection.kinds == current.kinds).then_some("true")] { (words) }
        }
    };
    html! {
        nav.chips aria-label="Events by kind" {
            (chip("all", &[]))
            @for kind in EventKind::ALL { (chip(kind.as_str(), &[kind])) }
        }
    }
}

/// A form that selects the events of a step. Of a large run it offers the steps that are worth a look.
fn choice(page: &RunPage<'_>) -> Markup {
    let (run, selected) = (page.run, page.run.timeline.selection.step);
    let is_worth = |status| matches!(status, StepStatus::Failed | StepStatus::Blocked | StepStatus::Running);
    let is_small = run.steps.len() <= PAGE;
    let offered = run.steps.iter().filter(|step| is_small || is_worth(step.status) || selected == Some(step.ordinal));
    let steps = page.filter.steps.query();
    let kinds: Vec<_> = run.timeline.selection.kinds.iter().map(|kind| kind.as_str()).collect();
    html! {
        form.filter-bar method="get" action=(page.base.to(&format!("runs/{}#timeline", run.id))) data-auto {
            @if let Some((name, value)) = steps.split_once('=').filter(|(_, value)| !value.is_empty()) {
                input type="hidden" name=(name) value=(value);
            }
            @if !kinds.is_empty() { input type="hidden" name="kind" value=(kinds.join(",")); }
            label.hidden-text for="event-step" { "Events of the step" }
            select #event-step name="step" {
                option value="" { "All steps" }
                @for step in offered.take(PAGE) {
                    option value=(step.ordinal) selected[selected == Some(step.ordinal)] { (visible(&step.name)) }
                }
            }
            button.filter-button { "Filter" }
        }
    }
}

/// The day of an entry, in UTC as its time.
fn day<'a>(entry: &Entry<'a>) -> &'a str {
    entry.timestamp.0.get(..10).unwrap_or_default()
}

fn item(base: Base, run: &Run, entry: &Entry<'_>) -> Markup {
    html! {
        li id={ "event-" (entry.seq) } {
            (icon(entry.symbol.as_str(), entry.tone.as_str()))
            span {
                (sentence(base, run.id, &entry.sentence))
                @if let Some(error) = entry.error { ": " span.bad { bdi { (visible(error)) } } }
            }
            (clock(entry.timestamp))
            @if !entry.also.is_empty() {
                p.also {
                    @for (at, also) in entry.also.iter().enumerate() {
                        @if at > 0 { " · " }
                        (sentence(base, run.id, also))
                    }
                }
            }
            @if let Some(quote) = entry.quote { p.quote { bdi { (visible(quote)) } } }
        }
    }
}

fn pages(page: &RunPage<'_>) -> Markup {
    let timeline = &page.run.timeline;
    let to = |place| address(page, &Selection { place, ..timeline.selection.clone() });
    html! {
        @if timeline.older.is_some() || timeline.selection.place != Place::Newest {
            nav.pages aria-label="Pages of the timeline" {
                @if timeline.selection.place != Place::Newest { a href=(to(Place::Newest)) { "Newest events" } }
                @if let Some(seq) = timeline.newer { a href=(to(Place::After(seq))) rel="prev" { "Newer events" } }
                @if let Some(seq) = timeline.older { a href=(to(Place::Before(seq))) rel="next" { "Older events" } }
            }
        }
    }
}
