//! One run.

mod artifacts;
mod control;
mod fall;
mod filter;
mod graph;
mod head;
mod next;
mod steps;
mod timeline;
mod work;

use maud::{Markup, html};
use shared::db::console::{Place, Run};
use shared::db::run::Control;
use shared::domain::GateId;

use super::gates::gates;
use super::icon::look;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{notice, person};
use super::source::visible;
pub(super) use artifacts::artifact_item;
pub use control::RefusedControl;
pub(super) use control::{Controlled, control, is_possible};
pub use filter::{Filter, Steps};
use work::Work;

/// Reload interval for browsers without scripts.
const REFRESH_S: u32 = 10;

/// A run, and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct RunPage<'a> {
    pub base: Base,
    pub run: &'a Run,
    /// The gate that the reader has just decided. The page shows what its row says, because anyone can write an id into the
    /// address.
    pub decided: Option<GateId>,
    /// Which steps to list.
    pub filter: Filter,
    /// The token for forms.
    pub token: &'a str,
    /// What the reader tried, and why it was not done.
    pub refused: Option<RefusedControl<'a>>,
    /// Without a script the page does not reload, so that there is time to fill in a form.
    pub is_still: bool,
}

impl<'a> RunPage<'a> {
    /// The newest state of a run, at its own address.
    pub fn new(run: &'a Run, token: &'a str) -> Self {
        Self { base: Base::RUN, run, decided: None, filter: Filter::default(), token, refused: None, is_still: false }
    }

    fn controlled(&self) -> Controlled<'a> {
        let RunPage { base, run, token, refused, .. } = *self;
        Controlled { base, id: run.id, status: run.status, token, refused }
    }

    /// Only the page at the run's own address refreshes, because the fragment's links are relative to it. A page of older
    /// events does not change. A run that has ended changes when somebody retries it.
    fn is_live(&self) -> bool {
        let can_change = self.run.is_open() || is_possible(Control::Retry, self.run.status);
        can_change && self.base.0 == Base::RUN.0 && self.run.timeline.selection.place == Place::Newest
    }

    /// Whether the page reloads in a browser without scripts.
    fn reloads(&self) -> bool {
        self.run.is_open() && self.is_live() && !self.is_still
    }
}

/// `GET /ui/runs/{id}`.
pub fn run_page(page: &RunPage<'_>) -> String {
    let run = page.run;
    let refresh_s = page.reloads().then_some(REFRESH_S);
    let content = html! {
        @if let Some(refused) = &page.refused { (control::refused(refused)) }
        @if let Some(id) = page.decided { (decided(run, id)) }
        p.toast #announcer role="status" {}
        (run_live(page))
    };
    let title = format!("{}: {}", run.status, run.goal);
    layout(&Layout { part: Part::Runs, waiting: run.waiting, refresh_s, ..Layout::new(page.base, &title) }, &content)
}

/// `GET /ui/runs/{id}/fragment`: the part that changes while a run is open. The script replaces its regions one by one.
pub fn run_live(page: &RunPage<'_>) -> Markup {
    let (base, run) = (page.base, page.run);
    let fragment = page.is_live().then(|| {
        let gate = run.focus.gate.map(|id| format!("&gate={id}")).unwrap_or_default();
        base.to(&format!(
            "runs/{}/fragment?{}{}{gate}",
            run.id,
            page.filter.query(),
            timeline::query(&run.timeline.selection)
        ))
    });
    let work = Work::new(base, run);
    html! {
        div #live data-status=(run.status) data-fragment=[fragment] data-pace=[(!run.is_open()).then_some("calm")] {
            (head::title(page))
            (next::next(page))
            (graph::graph(&work))
            div.columns {
                div {
                    (steps::steps(&work, page.filter))
                    (gates(base, run))
                    (artifacts::artifacts(base, run))
                    (head::plan(base, run))
                }
                div { (timeline::timeline(page)) }
            }
        }
    }
}

/// What became of the gate that the reader decided.
fn decided(run: &Run, id: GateId) -> Markup {
    let Some(gate) = run.gates.iter().find(|gate| gate.id == id) else { return html! {} };
    let Some(actor) = &gate.actor else { return html! {} };
    let look = look(gate.status);
    let sentence = html! { p { "The gate " bdi { (visible(&gate.gate_type)) } " is " strong { (gate.status) } " by " (person(actor)) "." } };
    notice(look.tone, look.symbol, "status", &sentence)
}
