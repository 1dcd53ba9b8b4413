//! The list of a run's steps, with the waterfall of their attempts.

use maud::{Markup, html};

use super::fall::waterfall;
use super::filter::{Filter, Listed, Steps, is_large, list};
use super::work::Work;
use crate::page::format;
use crate::page::graph::count;
use crate::page::icon::{look, mark};
use crate::page::parts::{many, section};

pub(super) fn steps(work: &Work<'_>, filter: Filter) -> Markup {
    let listed = list(work, filter);
    let has_choice = is_large(work) || filter.steps != Steps::Usual;
    let body = html! {
        @if has_choice { (chips(work, filter.steps)) }
        @if listed.steps.is_empty() {
            p.note { "No step matches." }
        } @else {
            (waterfall(work, &listed.steps))
        }
        (pages(work, filter, &listed))
    };
    section("steps", "Steps", &aside(work, filter.steps), &body)
}

fn aside(work: &Work<'_>, steps: Steps) -> Markup {
    let total = work.run.steps_total;
    html! {
        p.note {
            @match steps {
                Steps::Usual if is_large(work) => "failed, waiting, running, slowest",
                Steps::Levels(first, last) if first == last => { "level " (first) },
                Steps::Levels(first, last) => { "levels " (first) "–" (last) },
                _ => {
                    (many(total as u64, "step", "steps")) ", "
                    (many(work.edges.len() as u64, "dependency", "dependencies"))
                },
            }
            @if total > work.steps.len() { "; the first " (format::number(work.steps.len() as u64)) " are shown" }
        }
    }
}

/// Links to the steps of each state.
fn chips(work: &Work<'_>, current: Steps) -> Markup {
    let chip = |steps: Steps, words: Markup, count: Option<u64>| {
        let is_current = (steps == current).then_some("true");
        html! {
            a href=(work.page(&format!("?{}#steps", steps.query()))) aria-current=[is_current] {
                (words) @if let Some(count) = count { " " span.note { (format::number(count)) } }
            }
        }
    };
    html! {
        nav.chips aria-label="Steps by state" {
            @if is_large(work) { (chip(Steps::Usual, html! { "Worth a look" }, None)) }
            @for (status, count) in count(work.steps.iter().map(|step| step.status)) {
                @let look = look(status);
                (chip(Steps::State(status), html! { (mark(look)) (look.word) }, Some(count)))
            }
            (chip(Steps::All, html! { "all" }, Some(work.steps.len() as u64)))
        }
    }
}

fn pages(work: &Work<'_>, filter: Filter, listed: &Listed) -> Markup {
    let to = |from: i64| work.page(&format!("?{}#steps", Filter { from, ..filter }.query()));
    let is_part = listed.steps.len() < work.steps.len();
    html! {
        @if is_part {
            nav.pages aria-label="Pages of steps" {
                @if let Some(from) = listed.previous { a href=(to(from)) rel="prev" { "Previous steps" } }
                span.note {
                    (format::number(listed.steps.len() as u64)) " of "
                    (many(work.steps.len().min(listed.total.max(listed.steps.len())) as u64, "step", "steps"))
                }
                @if let Some(from) = listed.next {
                    a href=(to(from)) rel="next" { "Next steps" }
                } @else if filter.steps == Steps::Usual {
                    a href=(work.page("?state=all#steps")) { "All steps" }
                }
            }
        }
    }
}
