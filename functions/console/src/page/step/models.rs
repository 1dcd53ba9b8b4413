//! Calls of models, with their tokens and the providers that were tried before.

use maud::{Markup, html};
use shared::db::console::{CallUsage, FailedCall, ModelCall, StepDetail};

use crate::page::format;
use crate::page::icon::{Look, look, state};
use crate::page::parts::{many, section, time};
use crate::page::source::visible;

/// Providers that gave no answer, for each call.
const FALLBACKS: usize = 10;
/// Silence that is worth a word, in seconds: the model may think, or its worker may be dead.
const SILENT_S: i64 = 10;
const NUMBERS: [&str; 4] = ["Tokens in", "Out", "Cost", "Duration"];
/// Characters of a provider, a model or a reason.
const WORDS: usize = 300;

pub(super) fn models(step: &StepDetail) -> Markup {
    if step.calls.is_empty() && !step.calls_truncated {
        return html! {};
    }
    let body = html! {
        @if !step.calls.is_empty() {
            table.table role="table" aria-labelledby="models" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Model", "Result"] { th role="columnheader" scope="col" { (heading) } }
                        @for heading in NUMBERS { th.number role="columnheader" scope="col" { (heading) } }
                    }
                }
                tbody role="rowgroup" { @for call in &step.calls { (rows(call)) } }
            }
        }
        @if step.calls_total > step.calls.len() {
            p.note { "The newest " (step.calls.len()) " of " (step.calls_total) " answers are shown." }
        }
        @if step.calls_truncated { p.note { "This run has so many answers of models that older ones were not searched." } }
    };
    section("models", "Model calls", &html! { p.note { (many(step.calls_total as u64, "answer", "answers")) } }, &body)
}

/// What a model has written so far.
pub(super) fn writing(step: &StepDetail) -> Markup {
    let Some(writing) = &step.writing else { return html! {} };
    let note = html! {
        p.note {
            (format::size(writing.bytes)) " so far, by " code { bdi { (short(&writing.model)) } }
            @if writing.silent_s >= SILENT_S { "; nothing new for " (format::duration(writing.silent_s * 1000)) }
        }
    };
    let body = html! {
        pre.output tabindex="0" role="region" aria-label="Being written" { @if (writing.tail.len() as u64) < writing.bytes { "…" } (visible(&writing.tail)) }
        p.note { "A part of an answer is no result. The step stores the answer once it is whole and accepted." }
    };
    section("writing", "Being written", &note, &body)
}

/// The providers that gave no usable answer, then the one that did.
fn rows(call: &ModelCall) -> Markup {
    let usage = &call.usage;
    html! {
        @for failed in usage.fallback_from.iter().take(FALLBACKS) { (failed_row(failed)) }
        tr role="row" {
            (model(&usage.provider, &usage.model))
            td role="cell" data-label="Result" {
                (state(result(usage)))
                div.note {
                    (time(&call.timestamp))
                    @if let Some(tries) = usage.tries.filter(|tries| *tries > 1) { ", " (tries) " tries" }
                    @if let Some(attempt) = usage.late_attempt { ", by attempt " (attempt) ", which had lost its step" }
                }
                @if let Some(reason) = &usage.reason { div.note { bdi { (short(reason)) } } }
            }
            td.number role="cell" data-label=(NUMBERS[0]) {
                (tokens(usage.input_tokens))
                @if let Some(cached) = usage.cached_input_tokens.filter(|cached| *cached > 0) {
                    div.note { (format::number(cached)) " cached" }
                }
            }
            td.number role="cell" data-label=(NUMBERS[1]) { (tokens(usage.output_tokens)) }
            td.number role="cell" data-label=(NUMBERS[2]) {
                @match usage.cost_usd_micros { Some(cost) => (cost), None => "–" }
                @if usage.estimated == Some(true) { div.note { "tokens unknown" } }
            }
            td.number role="cell" data-label=(NUMBERS[3]) {
                @match usage.duration_ms { Some(ms) => (format::duration(ms)), None => "–" }
            }
        }
    }
}

fn failed_row(failed: &FailedCall) -> Markup {
    html! {
        tr role="row" {
            (model(&failed.provider, &failed.model))
            td role="cell" data-label="Result" {
                (state(Look { word: "no usable answer", ..look("failed") }))
                div.note {
                    bdi { (short(&failed.kind)) }
                    @if let Some(tries) = failed.tries.filter(|tries| *tries > 1) { ", " (tries) " tries" }
                    @if !failed.reason.is_empty() { ": " bdi { (short(&failed.reason)) } }
                }
            }
            @for label in NUMBERS { td.number role="cell" data-label=(label) { "–" } }
        }
    }
}

fn model(provider: &str, model: &str) -> Markup {
    html! {
        td role="cell" data-label="Model" {
            @if provider == "template" { "a template" } @else { bdi { (short(model)) } " " span.note { bdi { (short(provider)) } } }
        }
    }
}

fn result(usage: &CallUsage) -> Look {
    match usage.usable {
        Some(false) => Look { word: "cannot be used", ..look("failed") },
        _ if usage.provider == "template" => Look { word: "filled in", ..look("succeeded") },
        _ => Look { word: "answered", ..look("succeeded") },
    }
}

/// Null means that the provider gave no number.
fn tokens(number: Option<u64>) -> String {
    number.map_or_else(|| "not reported".to_owned(), format::number)
}

fn short(text: &str) -> String {
    visible(&shared::domain::bounds::shortened(text, WORDS))
}
