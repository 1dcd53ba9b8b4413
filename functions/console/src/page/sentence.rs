//! Sentences about a run, with its names as links.

use maud::{Markup, html};
use shared::domain::RunId;
use shared::view::sentence::Part;
use shared::view::sentence::words::duration;

use super::layout::Base;
use super::parts::{elapsed, left, person, time};
use super::source::visible;

/// The parts of a sentence about the run `run`, in their order.
pub(super) fn sentence(base: Base, run: RunId, parts: &[Part<'_>]) -> Markup {
    html! { @for part in parts { (piece(base, run, part)) } }
}

fn piece(base: Base, run: RunId, part: &Part<'_>) -> Markup {
    let linked = |name: &str, path: Option<String>| {
        html! {
            @match path {
                Some(path) => a href=(base.to(&path)) { b { bdi { (visible(name)) } } },
                None => b { bdi { (visible(name)) } },
            }
        }
    };
    match part {
        Part::Text(text) => html! { (visible(text)) },
        Part::Actor(name) => person(name),
        Part::Code(text) => html! { code { (visible(text)) } },
        Part::Step { name, ordinal } => linked(name, ordinal.map(|ordinal| format!("runs/{run}/steps/{ordinal}"))),
        Part::Gate { gate_type, id } => linked(gate_type, id.map(|id| format!("gates/{id}"))),
        Part::Artifact { name, id } => linked(name, id.map(|id| format!("artifacts/{id}"))),
        Part::Duration(ms) => html! { span.nowrap { (duration(*ms)) } },
        Part::Since(at) => elapsed(at),
        Part::Until(at) => left(at),
        Part::At(at) => time(at),
    }
}
