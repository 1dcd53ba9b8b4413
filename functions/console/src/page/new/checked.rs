//! A valid plan before it runs: the order of its steps with their defaults, and what it will ask for.

use maud::{Markup, html};
use shared::view::{CheckedStep, PlanChecked};

use crate::page::format;
use crate::page::icon::icon;
use crate::page::parts::{many, section};
use crate::page::source::visible;

/// Steps that are listed.
const LISTED: usize = 200;
/// Names in one cell or sentence.
const NAMES: usize = 5;

/// The steps in the order in which they can start.
pub(super) fn order(plan: &PlanChecked) -> Markup {
    let mut steps: Vec<&CheckedStep> = plan.steps.iter().collect();
    steps.sort_by_key(|step| step.level);
    let body = html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Step", "Tool", "Starts after"] { th role="columnheader" scope="col" { (heading) } }
                    @for heading in ["Timeout", "Attempts"] { th.number role="columnheader" scope="col" { (heading) } }
                }
            }
            tbody role="rowgroup" { @for step in steps.iter().take(LISTED) { (row(step)) } }
        }
        @if steps.len() > LISTED { p.note { (LISTED) " of " (format::number(steps.len() as u64)) " steps are listed." } }
    };
    section("order", "Order", &html! { p.note { "what can start first comes first" } }, &body)
}

fn row(step: &CheckedStep) -> Markup {
    html! {
        tr role="row" {
            td role="cell" { b { bdi { (visible(&step.name)) } } }
            td role="cell" data-label="Tool" { code { (step.tool) } }
            td role="cell" data-label="Starts after" {
                @if step.depends_on.is_empty() { span.note { "at once" } }
                @else { span { (names(step.depends_on.iter().map(String::as_str))) } }
            }
            td.number role="cell" data-label="Timeout" {
                @if let Some(timeout_s) = step.timeout_s { (format::duration(i64::from(timeout_s) * 1_000)) }
                @else { span.note { "none" } }
            }
            td.number role="cell" data-label="Attempts" { "up to " (step.max_attempts) }
        }
    }
}

/// What the plan will ask for.
pub(super) fn needs(plan: &PlanChecked, has_base: bool) -> Markup {
    let of = |handler: &str| plan.steps.iter().filter(move |step| step.handler == handler).collect::<Vec<_>>();
    let (manual, models, writes) = (of("manual"), of("codegen"), of("db_write"));
    let forever: Vec<_> = manual.iter().filter(|step| step.timeout_s.is_none()).copied().collect();
    let judges = plan.steps.iter().any(|step| step.tool.starts_with("gate:"));
    let body = html! {
        ul.problems {
            @if manual.is_empty() { (item("good", "good", &html! { "No step waits for a person." })) }
            @else {
                (item("decide", "warn", &html! {
                    (listed(&manual)) @if manual.len() == 1 { " waits for a person." } @else { " wait for a person." }
                    @if !forever.is_empty() { " Without " code { "timeout_s" } " a decision may take as long as the run lasts." }
                }))
            }
            @if judges && !has_base {
                (item("decide", "warn", &html! { "No gate has a base: the change defines its own checks." }))
            }
            @if !models.is_empty() {
                (item("model", "quiet", &html! { (listed(&models)) @if models.len() == 1 { " asks a model." } @else { " ask a model." } }))
            }
            @if !writes.is_empty() {
                (item("table", "quiet", &html! {
                    (listed(&writes)) @if writes.len() == 1 { " writes" } @else { " write" } " rows, if a rule allows it."
                }))
            }
            @if models.is_empty() && writes.is_empty() {
                (item("good", "good", &html! { "No step writes to a database, none asks a model." }))
            }
            @if let Some(timeout_s) = plan.timeout_s {
                (item("ready", "quiet", &html! { "The run fails after " (format::duration(i64::from(timeout_s) * 1_000)) "." }))
            }
        }
    };
    section("needs", "What it will ask for", &html! {}, &body)
}

fn item(symbol: &str, tone: &str, words: &Markup) -> Markup {
    html! { li { (icon(symbol, tone)) span { (words) } } }
}

fn listed(steps: &[&CheckedStep]) -> Markup {
    names(steps.iter().map(|step| step.name.as_str()))
}

/// The first names, and how many more there are.
fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Markup {
    let more = names.len().saturating_sub(NAMES);
    html! {
        @for (index, name) in names.take(NAMES).enumerate() {
            @if index > 0 { ", " }
            b { bdi { (visible(name)) } }
        }
        @if more > 0 { " and " (many(more as u64, "more", "more")) }
    }
}
