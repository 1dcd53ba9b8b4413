//! A step: where it stands, what it got and returned, what an attempt left.

mod data;
mod models;
mod next;
mod side;

use maud::{Markup, html};
use shared::db::console::{StepDetail, TriedAttempt};
use shared::domain::ArtifactId;

use super::evidence::{Links, verdict, verdict_missing};
use super::format;
use super::icon::{look, state};
use super::layout::{Base, Layout, Part, layout};
use super::parts::{crumbs, elapsed, facts, head, notice, time};
use super::source::visible;
use crate::evidence::Evidence;

/// Reload interval for browsers without scripts.
const REFRESH_S: u32 = 10;

/// A step, and which attempt of it to show.
#[derive(Debug, Clone, Copy)]
pub struct StepPage<'a> {
    pub base: Base,
    pub step: &'a StepDetail,
    /// The attempt that the address names.
    pub attempt: Option<i64>,
    /// The evidence of the shown attempt, or why it cannot be shown.
    pub evidence: Option<Result<&'a Evidence, &'a str>>,
    /// The first row of its write to show.
    pub rows: Option<usize>,
    /// The token for forms.
    pub token: &'a str,
}

impl<'a> StepPage<'a> {
    /// The newest state of a step.
    pub fn new(step: &'a StepDetail, token: &'a str) -> Self {
        Self { base: Base::STEP, step, attempt: None, evidence: None, rows: None, token }
    }

    /// The address of a step of the same run.
    fn step_href(&self, ordinal: i64) -> String {
        self.base.to(&format!("runs/{}/steps/{ordinal}", self.step.run_id))
    }

    fn run_href(&self) -> String {
        self.base.to(&format!("runs/{}", self.step.run_id))
    }

    /// The page of an earlier attempt does not change.
    fn is_live(&self) -> bool {
        self.step.is_open() && self.attempt.is_none()
    }

    fn is_of_newest_attempt(&self) -> bool {
        self.step.shown == self.step.attempt
    }

    /// The attempt that the page shows, if another one followed and it is among the attempts that are read.
    fn earlier_attempt(&self) -> Option<&'a TriedAttempt> {
        let attempts = self.step.attempts.iter();
        attempts.filter(|_| !self.is_of_newest_attempt()).find(|attempt| attempt.number == self.step.shown)
    }
}

/// `GET /ui/runs/{id}/steps/{ordinal}`.
pub fn step_page(page: &StepPage<'_>) -> String {
    let step = page.step;
    let word = look(step.status).word;
    let fragment = page.is_live().then(|| page.step_href(step.ordinal));
    let content = html! {
        p.toast #announcer role="status" {}
        div #live data-status=(word) data-fragment=[fragment] {
            (title(page))
            @if page.is_of_newest_attempt() { (next::next(page)) } @else { (other_attempt(page)) }
            div.columns {
                // One region: an attempt that ends adds parts.
                div data-region="main" { (main(page)) }
                aside aria-label="Facts of the step" data-region="side" { (side::side(page)) }
            }
        }
    };
    let earlier = format!("attempt {}", step.shown);
    let what = if page.is_of_newest_attempt() { word } else { earlier.as_str() };
    let title = format!("{} {what}: {}", visible(&step.name), visible(&step.goal));
    let refresh_s = page.is_live().then_some(REFRESH_S);
    layout(&Layout { part: Part::Runs, waiting: step.waiting, refresh_s, ..Layout::new(page.base, &title) }, &content)
}

fn title(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let tool = html! { code { bdi { (visible(&step.tool)) } } };
    let mut list = match page.earlier_attempt() {
        Some(attempt) => vec![side::outcome(attempt), tool],
        None if page.is_of_newest_attempt() => vec![state(look(step.status)), tool],
        None => vec![tool],
    };
    let (duration_ms, started_at) = match page.earlier_attempt() {
        Some(attempt) => (attempt.duration_ms, Some(&attempt.started_at)),
        None if page.is_of_newest_attempt() => (step.duration_ms, step.started_at.as_ref()),
        None => (None, None),
    };
    match (duration_ms, started_at) {
        (Some(ms), _) => list.push(html! { "took " b { (format::duration(ms)) } }),
        (None, Some(at)) => list.push(html! { b { (elapsed(at)) } }),
        (None, None) => {}
    }
    if let Some(at) = started_at {
        list.push(html! { "started " (time(at)) });
    }
    if step.attempt > 1 {
        list.push(html! { (step.attempt) " attempts" });
    }
    if page.is_live() {
        list.push(html! { span.live { "live" } });
    }
    let beside = |ordinal: i64, rel: &str, words: &str| {
        html! { a.button.slight href=(page.step_href(ordinal)) rel=(rel) { (words) } }
    };
    let actions = html! {
        @if step.ordinal > 0 { (beside(step.ordinal - 1, "prev", "Previous step")) }
        @if step.ordinal + 1 < step.steps_total { (beside(step.ordinal + 1, "next", "Next step")) }
    };
    let goal = visible(&step.goal);
    html! {
        (crumbs(&[("Runs", page.base.to("runs")), (&goal, page.run_href())], &format!("step {}", step.ordinal + 1)))
        (head(&html! { bdi { (visible(&step.name)) } }, &facts(list), Some(&actions)))
    }
}

/// An earlier attempt must not look like the state of the step.
fn other_attempt(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    html! {
        @if !page.is_of_newest_attempt() {
            (notice("warn", "again", "note", &html! {
                p {
                    "This page shows what attempt " (step.shown) " left. The step has gone on since: "
                    strong { (look(step.status).word) } ". "
                    a href=(page.step_href(step.ordinal)) { "Show the newest one, attempt " (step.attempt) }
                }
            }))
        }
    }
}

fn main(page: &StepPage<'_>) -> Markup {
    html! {
        @match page.evidence {
            Some(Ok(evidence)) => div #evidence { (verdict(evidence, &links(page))) },
            Some(Err(why)) => div #evidence { (verdict_missing(why, &links(page))) },
            None => {}
        }
        (models::writing(page.step))
        (models::models(page.step))
        (data::write(page))
        (data::stored(page))
        (data::values(page))
    }
}

/// The pages of what the gate stored.
fn links(page: &StepPage<'_>) -> Links {
    let href = |id: ArtifactId| page.base.to(&format!("artifacts/{id}"));
    let is_log = |kind: &str, name: &str| kind == "gate_attachment" && name.ends_with("-log.txt");
    let log = page.step.artifacts.iter().find(|artifact| is_log(&artifact.kind, &artifact.name));
    Links { document: page.step.evidence.as_ref().map(|evidence| href(evidence.id)), log: log.map(|log| href(log.id)) }
}
