//! One run.

use maud::{Markup, html};
use shared::db::console::{Artifact, Event, Gate, Run, STEPS, Step};
use shared::domain::GateId;

use super::format;
use super::gates::gates;
use super::layout::{Base, Layout, badge, layout, time};

/// Reload interval for browsers without scripts.
const REFRESH_S: u32 = 10;

/// A run, and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct RunPage<'a> {
    pub base: Base,
    pub run: &'a Run,
    /// The token for the forms.
    pub token: &'a str,
    pub notice: Option<Notice<'a>>,
    /// Show the events before this one. Such a page does not refresh.
    pub before: Option<i64>,
}

/// The result of a decision.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// The gate was decided. The page shows what the gate's row says, because anyone can write the id into the address.
    Decided(GateId),
    /// The decision changed nothing, for this reason.
    Refused(&'a str),
}

impl RunPage<'_> {
    /// Only the page at the run's own address refreshes, because the fragment's links are relative to it.
    fn is_live(&self) -> bool {
        self.run.is_open() && self.base.0 == Base::RUN.0 && self.before.is_none()
    }
}

/// `GET /ui/runs/{id}`.
pub fn run_page(page: &RunPage<'_>) -> String {
    let run = page.run;
    // A reload would clear a form that somebody is filling in.
    let is_deciding = run.gates.iter().any(Gate::is_pending);
    let refresh_s = (page.is_live() && !is_deciding).then_some(REFRESH_S);
    let content = html! {
        @if let Some(notice) = page.notice { (notice_of(page, notice)) }
        h1 { bdi { (run.goal) } }
        p.note #announcer role="status" {}
        @if page.is_live() && is_deciding { noscript { p.note { "Reload the page to see what has changed." } } }
        (run_live(page))
    };
    let title = format!("{}: {}", run.status, run.goal);
    layout(&Layout { base: page.base, title: &title, refresh_s }, &content)
}

/// `GET /ui/runs/{id}/fragment`: the part that changes while a run is open. The script replaces its regions one by one.
pub fn run_live(page: &RunPage<'_>) -> Markup {
    let (base, run) = (page.base, page.run);
    let fragment = page.is_live().then(|| {
        let gate = run.focus.gate.map(|id| format!("&gate={id}")).unwrap_or_default();
        base.to(&format!("runs/{}/fragment?steps={}{gate}", run.id, run.focus.steps_from))
    });
    html! {
        div #live data-status=(run.status) data-fragment=[fragment] {
            (summary(run))
            (gates(base, run, page.token))
            (steps(base, run))
            (artifacts(base, run))
            (timeline(base, run, page.before))
        }
    }
}

fn notice_of(page: &RunPage<'_>, notice: Notice<'_>) -> Markup {
    let run = page.run;
    match notice {
        Notice::Refused(sentence) => html! {
            div.notice.bad role="alert" {
                p { strong { "Nothing was changed: " } bdi { (sentence) } }
                p { a href=(page.base.to(&format!("runs/{}", run.id))) { "Back to the run" } }
            }
        },
        Notice::Decided(id) => html! {
            @if let Some(gate) = run.gates.iter().find(|gate| gate.id == id && gate.actor.is_some()) {
                div.notice.(format::tone(gate.status)) role="status" {
                    p { "The gate " bdi { (gate.gate_type) } " is " strong { (gate.status) }
                        @if let Some(actor) = &gate.actor { " by " bdi { (actor) } } "." }
                }
            }
        },
    }
}

fn summary(run: &Run) -> Markup {
    html! {
        section data-region="summary" {
            p.facts {
                (badge(run.status))
                span { "created " (time(&run.created_at)) }
                @if let Some(at) = &run.started_at { span { "started " (time(at)) } }
                @if let Some(at) = &run.finished_at { span { "ended " (time(at)) } }
                @if let Some(ms) = run.duration_ms { span { "took " (format::duration(ms)) } }
                @if let (true, Some(at)) = (run.is_open(), &run.deadline_at) { span { "times out " (time(at)) } }
                @if run.generation > 1 { span { "generation " (run.generation) } }
            }
            @if let Some(failure) = &run.failure { p.error { bdi { (failure) } } }
            p.note { "Run " code { (run.id) } ", plan " code { (run.plan_digest) } }
        }
    }
}

fn steps(base: Base, run: &Run) -> Markup {
    html! {
        section data-region="steps" aria-labelledby="steps" {
            h2 #steps { "Steps" }
            table role="table" aria-labelledby="steps" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Status", "Step", "Depends on", "Attempts", "Duration"] {
                            th role="columnheader" scope="col" { (heading) }
                        }
                    }
                }
                tbody role="rowgroup" { @for step in &run.steps { (row(base, run, step)) } }
            }
            (step_pages(base, run))
        }
    }
}

fn step_pages(base: Base, run: &Run) -> Markup {
    let first = run.focus.steps_from;
    let next = run.steps.last().map(|step| step.ordinal + 1);
    let next = next.filter(|&next| usize::try_from(next).is_ok_and(|next| next < run.steps_total));
    html! {
        @if first > 0 || next.is_some() {
            p.note { (run.steps.len()) " of " (run.steps_total) " steps are shown." }
            nav.pages aria-label="Pages of steps" {
                @if first > 0 {
                    a href=(steps_page(base, run, (first - STEPS).max(0))) rel="prev" { "Previous steps" }
                }
                @if let Some(next) = next { a href=(steps_page(base, run, next)) rel="next" { "Next steps" } }
            }
        }
    }
}

fn steps_page(base: Base, run: &Run, from: i64) -> String {
    format!("{}?steps={from}#steps", base.to(&format!("runs/{}", run.id)))
}

/// The link to a step, which may be on another page.
fn step_link(base: Base, run: &Run, ordinal: i64) -> String {
    if run.steps.iter().any(|step| step.ordinal == ordinal) {
        return format!("#step-{ordinal}");
    }
    format!("{}?steps={ordinal}#step-{ordinal}", base.to(&format!("runs/{}", run.id)))
}

fn row(base: Base, run: &Run, step: &Step) -> Markup {
    html! {
        tr role="row" id={ "step-" (step.ordinal) } {
            td.short role="cell" data-label="Status" { (badge(step.status)) }
            td.wide role="cell" data-label="Step" {
                div {
                    strong { bdi { (step.name) } } " " code { (step.tool) }
                    @if let Some(error) = &step.error { p.error { bdi { (error) } } }
                    @if let Some(at) = &step.ready_at { p.note { "next try " (time(at)) } }
                }
            }
            td role="cell" data-label="Depends on" {
                span {
                    @for (index, parent) in step.depends_on.iter().enumerate() {
                        @if index > 0 { ", " }
                        a href=(step_link(base, run, parent.ordinal)) { bdi { (parent.name) } }
                    }
                    @match step.parents_total.saturating_sub(step.depends_on.len()) {
                        0 if step.depends_on.is_empty() => { "nothing" }
                        0 => {}
                        more => { " and " (more) " more" }
                    }
                }
            }
            td role="cell" data-label="Attempts" {
                span {
                    (step.attempt)
                    @if step.failures > 0 { span.note { " (" (step.failures) " of " (step.max_attempts) " failed)" } }
                    @if step.workers_lost > 0 { span.note { " (" (step.workers_lost) " lost)" } }
                }
            }
            td.short role="cell" data-label="Duration" {
                @if let Some(ms) = step.duration_ms { (format::duration(ms)) } @else { "–" }
            }
        }
    }
}

fn artifacts(base: Base, run: &Run) -> Markup {
    html! {
        section data-region="artifacts" aria-labelledby="artifacts" {
            h2 #artifacts { "Artifacts" }
            @if run.artifacts.is_empty() { p.empty { "None yet." } }
            ul.plain { @for artifact in &run.artifacts { (artifact_item(base, artifact)) } }
            @if run.artifacts_total > run.artifacts.len() {
                p.note { "The newest " (run.artifacts.len()) " of " (run.artifacts_total) " are shown." }
            }
        }
    }
}

pub(super) fn artifact_item(base: Base, artifact: &Artifact) -> Markup {
    html! {
        li {
            a href={ (base.to("artifacts/signed")) "?id=" (artifact.id) } { bdi { (artifact.name) } }
            @if artifact.kind == super::EVIDENCE { " (" a href={ (base.to("evidence/")) (artifact.id) } { "show" } ")" }
            span.note {
                " " (artifact.kind) ", " (artifact.media_type) ", " (format::size(artifact.size_bytes))
                @if let Some(step) = &artifact.step { ", of step " bdi { (step) } }
            }
            div.note { "sha256 " code { (artifact.hash) } }
        }
    }
}

fn timeline(base: Base, run: &Run, before: Option<i64>) -> Markup {
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
