//! The steps of a run.

use maud::{Markup, html};
use shared::db::console::{Run, STEPS, Step};

use crate::page::format;
use crate::page::icon::{look, mark};
use crate::page::layout::Base;
use crate::page::parts::{many, section, time};

/// A page of the steps, in the order of the plan.
pub(super) fn steps(base: Base, run: &Run) -> Markup {
    let body = html! {
            table.table role="table" aria-labelledby="steps" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Step", "Depends on", "Attempts"] { th role="columnheader" scope="col" { (heading) } }
                        th.number role="columnheader" scope="col" { "Duration" }
                    }
                }
                tbody role="rowgroup" { @for step in &run.steps { (row(base, run, step)) } }
            }
            (step_pages(base, run))
    };
    let total = many(run.steps_total as u64, "step", "steps");
    section("steps", "Steps", &html! { p.note { (total) } }, &body)
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
        tr role="row" data-row id={ "step-" (step.ordinal) } {
            td.full role="cell" {
                div {
                    div.state { (mark(look(step.status))) strong { bdi { (step.name) } } }
                    code.note.indent { (step.tool) }
                    @if let Some(error) = &step.error { p.bad { bdi { (error) } } }
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
            td.number role="cell" data-label="Duration" {
                @if let Some(ms) = step.duration_ms { (format::duration(ms)) } @else { span.note { (look(step.status).word) } }
            }
        }
    }
}
