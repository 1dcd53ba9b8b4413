//! What a step got, returned, wrote and stored.

use maud::{Markup, html};
use shared::db::console::StoredJson;
use shared::domain::StepStatus;
use shared::http::encoded;

use super::StepPage;
use crate::page::decision::{Rows, preview, rule, what};
use crate::page::format;
use crate::page::json::pretty;
use crate::page::parts::{fold, section};
use crate::page::run::artifact_item;
use crate::page::source::visible;
use crate::write::Write;

/// Inputs, outputs, error.
pub(super) fn values(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let inputs = format!("as posted, {}", format::size(step.inputs.bytes));
    // A step that shows nothing else shows what it returned.
    let is_plain =
        page.evidence.is_none() && step.calls.is_empty() && step.artifacts.is_empty() && step.write.is_none();
    let body = html! {
        (value(page, "Inputs", &inputs, &step.inputs, step.outputs.is_none() && is_plain))
        @match &step.outputs {
            _ if !page.is_of_newest_attempt() => (of_attempt(page)),
            Some(outputs) => (value(page, "Outputs", &format::size(outputs.bytes), outputs, is_plain)),
            None => (fold("Outputs", "none", false, &html! { p.note { "The step has returned nothing." } })),
        }
        @if let (Some(error), true) = (&step.error, page.is_of_newest_attempt()) {
            @let code = visible(error.code.as_deref().unwrap_or("no code"));
            (fold("Error", &code, false, &html! {
                @if !error.message.is_empty() { p.quote { bdi { (visible(&error.message)) } } }
                (shown("Error", &error.json))
                (rest(page, &error.json))
            }))
        }
    };
    section("data", "Inputs and outputs", &html! {}, &body)
}

/// What is known of an earlier attempt. Only the newest one leaves outputs.
fn of_attempt(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let error = page.earlier_attempt().and_then(|attempt| attempt.error.as_deref());
    html! {
        p.note {
            "Outputs and the whole error are kept of the newest attempt only: "
            a href=(page.step_href(step.ordinal)) { "attempt " (step.attempt) } "."
        }
        @if let Some(error) = error {
            (fold("Error", "its message", true, &html! { p.quote { bdi { (visible(error)) } } }))
        }
    }
}

fn value(page: &StepPage<'_>, title: &str, note: &str, json: &StoredJson, is_open: bool) -> Markup {
    fold(title, note, is_open, &html! { (shown(title, json)) (rest(page, json)) })
}

fn shown(title: &str, json: &StoredJson) -> Markup {
    html! { pre.output tabindex="0" role="region" aria-label=(title) { (pretty(&json.text).markup) } }
}

/// What the page leaves out, and who has it.
fn rest(page: &StepPage<'_>, json: &StoredJson) -> Markup {
    let is_cut = (json.text.len() as u64) < json.bytes || pretty(&json.text).is_cut;
    // The API answers below the same prefix as the console.
    let api = page.base.to(&format!("../runs/{}/steps/{}", page.step.run_id, encoded(&page.step.name)));
    html! {
        @if is_cut {
            p.note { "This is the beginning of " (format::size(json.bytes)) ". " a href=(api) { "The API has all of it" } "." }
        }
    }
}

/// What a `db_write` writes, and the rule that lets it.
pub(super) fn write(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    let Some(start) = &step.write else { return html! {} };
    let table = visible(start.table.as_deref().unwrap_or("a table"));
    let title = match step.status {
        _ if !page.is_of_newest_attempt() => "What the step writes",
        StepStatus::Succeeded => "What it wrote",
        StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled => "What it would have written",
        _ => "What it will write",
    };
    let write = Write::of(start);
    let attempt = page.attempt.map(|attempt| format!("attempt={attempt}&")).unwrap_or_default();
    let href = |first| format!("{}?{attempt}rows={first}#rows", page.step_href(step.ordinal));
    let rows = Rows { first: page.rows, href: &href };
    let body = html! {
        @if let Some(write) = &write {
            p { "It " (what(write)) " " code { bdi { (table) } } @if step.status == StepStatus::Succeeded && page.is_of_newest_attempt() { ", exactly once" } "." }
            (preview(write, &rows))
            (rule(start, write))
        } @else {
            p.note { "The inputs are too large for this page, or cannot be read. The API has them." }
        }
    };
    section("rows", title, &html! { p.note { code { bdi { (table) } } } }, &body)
}

/// Artifacts of the shown attempt.
pub(super) fn stored(page: &StepPage<'_>) -> Markup {
    let step = page.step;
    if step.artifacts.is_empty() {
        return html! {};
    }
    let body = html! {
        ul.files { @for artifact in &step.artifacts { (artifact_item(page.base, artifact)) } }
        @if step.artifacts_total > step.artifacts.len() {
            p.note { (step.artifacts.len()) " of " (step.artifacts_total) " artifacts are shown." }
        }
    };
    section("stored", "Stored", &html! { p.note { "attempt " (step.shown) } }, &body)
}
