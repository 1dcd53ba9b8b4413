//! A new run: examples, the plan as text, and what a check says about it.

mod checked;
mod form;
mod graph;
mod problems;

use maud::{Markup, html};
use shared::domain::{ArtifactId, RunId};
use shared::view::PlanChecked;

use super::layout::{Base, Layout, Part, layout};
use super::parts::{crumbs, many, notice, section};
use super::source::visible;
use crate::examples::{EXAMPLES, Example};
use crate::plan_text::Located;

/// The page of a new run.
#[derive(Debug)]
pub struct NewRunPage<'a> {
    pub base: Base,
    pub waiting: u64,
    /// The token for the form.
    pub token: &'a str,
    pub typed: &'a Typed,
    pub outcome: Outcome<'a>,
}

/// What the form holds.
#[derive(Debug, Clone, Default)]
pub struct Typed {
    pub plan: String,
    pub actor: String,
    /// Makes sure that the same form starts one run.
    pub key: String,
    /// Archives that are stored already.
    pub workspace: Option<Stored>,
    pub base: Option<Stored>,
    /// The example that the text comes from.
    pub example: Option<&'static str>,
    /// The run whose plan the text is.
    pub from: Option<RunId>,
}

/// An archive that an earlier send of the form stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: ArtifactId,
    /// The name of the file, if this send has just stored it.
    pub name: Option<String>,
}

/// What became of the last send of the form.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It was not sent.
    None,
    /// The plan has problems.
    Problems(&'a [Located]),
    /// The plan is valid. `has_base` says whether a gate of it is compared with a base.
    Checked { plan: &'a PlanChecked, has_base: bool },
    /// Another field is wrong.
    WrongActor(&'a str),
    /// Something else is wrong.
    Refused { maybe_done: bool, sentence: &'a str, hint: &'a str },
}

/// Renders the page.
pub fn new_run_page(page: &NewRunPage<'_>) -> String {
    let base = page.base;
    let content = html! {
        (crumbs(&[("Runs", base.to("runs"))], "new"))
        div.head { h1 { "New run" } }
        (said(&page.outcome))
        (stored(page.typed))
        @if let Outcome::Checked { plan, .. } = page.outcome { (graph::graph(plan)) }
        @else { (examples(base, page.typed.example)) }
        @if let Some(run) = page.typed.from {
            p.note { "This is the plan of " a href={ (base.to("runs/")) (run) } { "an earlier run" } "." }
        }
        div.columns.even {
            (form::form(page))
            div {
                @match page.outcome {
                    Outcome::Problems(problems) => (problems::problems(&page.typed.plan, problems)),
                    Outcome::Checked { plan, has_base } => (checked::needs(plan, has_base)),
                    _ => (before()),
                }
            }
        }
        @if let Outcome::Checked { plan, .. } = page.outcome { (checked::order(plan)) }
    };
    let title = match page.outcome {
        Outcome::None | Outcome::Checked { .. } => "New run",
        _ => "Not started: new run",
    };
    layout(&Layout { part: Part::Runs, waiting: page.waiting, ..Layout::new(base, title) }, &content)
}

/// The result of the last send, above everything else.
fn said(outcome: &Outcome<'_>) -> Markup {
    match outcome {
        Outcome::None => html! {},
        Outcome::Problems(problems) => {
            let count = many(problems.len() as u64, "problem", "problems");
            let sentence =
                html! { p { b { "Nothing was started." } " The plan has " a href="#problems" { (count) } "." } };
            notice("bad", "bad", "alert", &sentence)
        }
        Outcome::Checked { plan, .. } => {
            let levels = plan.steps.iter().map(|step| step.level + 1).max().unwrap_or_default();
            let sentence = html! {
                p {
                    b { "The plan is valid." } " "
                    (many(plan.steps.len() as u64, "step", "steps")) " in "
                    (many(levels as u64, "level", "levels")) ". Nothing was started yet."
                }
            };
            notice("good", "good", "status", &sentence)
        }
        Outcome::WrongActor(_) => notice(
            "bad",
            "bad",
            "alert",
            &html! { p { b { "Nothing was started." } " Your name is missing or wrong." } },
        ),
        Outcome::Refused { maybe_done, sentence, hint } => {
            let lead = if *maybe_done { "Perhaps a run was started." } else { "Nothing was started." };
            let sentence = html! { p { b { (lead) } " " bdi { (visible(sentence)) } @if !sentence.ends_with('.') { "." } " " (hint) } };
            notice("bad", "bad", "alert", &sentence)
        }
    }
}

/// Archives that this send has stored: a browser cannot show a chosen file again.
fn stored(typed: &Typed) -> Markup {
    let names = [&typed.workspace, &typed.base].into_iter().flatten().filter_map(|stored| stored.name.as_deref());
    html! {
        @for name in names {
            (notice("", "good", "status", &html! {
                p { bdi { (visible(name)) } " is stored. The form keeps it, so you need not choose it again." }
            }))
        }
    }
}

fn examples(base: Base, current: Option<&str>) -> Markup {
    let link = |example: &Example| {
        let is_current = current == Some(example.name);
        let steps = many(example.steps as u64, "step", "steps");
        html! {
            a href={ (base.to("new")) "?example=" (example.name) } data-row aria-current=[is_current.then_some("true")] {
                b { (example.title) }
                span.note { (steps) ": " (example.families.join(", ")) "; " (example.hint) }
            }
        }
    };
    html! {
        section.section aria-labelledby="examples" {
            div.title { h2 #examples { "Examples" } p.note { "An example replaces the text below." } }
            div.gallery { @for example in EXAMPLES.iter() { (link(example)) } }
        }
    }
}

fn before() -> Markup {
    section(
        "before",
        "Before it runs",
        &html! {},
        &html! {
            p.prose {
                "Check the plan to see its problems beside their lines, its graph, and what it will ask for. A check starts nothing."
            }
            p.prose.note {
                "The command line packs a folder and uploads archives of up to 64 MiB: "
                code { "nofx run plan.yaml --workspace ." }
            }
        },
    )
}
