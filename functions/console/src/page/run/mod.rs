//! One run.

mod artifacts;
mod head;
mod steps;
mod timeline;

use maud::{Markup, html};
use shared::db::console::{Gate, Run};
use shared::domain::GateId;

use super::gates::gates;
use super::icon::look;
use super::layout::{Base, Layout, Part, layout};
use super::parts::notice;
pub(super) use artifacts::artifact_item;

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
        p.toast #announcer role="status" {}
        @if page.is_live() && is_deciding { noscript { p.note { "Reload the page to see what has changed." } } }
        (run_live(page))
    };
    let title = format!("{}: {}", run.status, run.goal);
    layout(&Layout { base: page.base, title: &title, part: Part::Runs, refresh_s }, &content)
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
            (head::title(base, run))
            @if let Some(failure) = &run.failure { (notice("bad", "bad", "note", &html! { p { bdi { (failure) } } })) }
            (gates(base, run, page.token))
            div.columns.even {
                div {
                    (steps::steps(base, run))
                    (artifacts::artifacts(base, run))
                    (head::plan(base, run))
                }
                div { (timeline::timeline(base, run, page.before)) }
            }
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
                div.notice.(look(gate.status).tone) role="status" {
                    p { "The gate " bdi { (gate.gate_type) } " is " strong { (gate.status) }
                        @if let Some(actor) = &gate.actor { " by " bdi { (actor) } } "." }
                }
            }
        },
    }
}
