//! What a decision can rely on: verdicts of gates, what earlier steps returned, and their documents.

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::Value;
use shared::db::console::{Exhibit, GateDetail, Proof, StepOutputs};
use shared::domain::tool::{Effect, effect_of};
use shared::domain::{RunId, StepStatus};

use super::{Content, DecisionPage};
use crate::page::format;
use crate::page::gates::{evidence, evidence_href};
use crate::page::icon::{Look, PENDING_GATE, look, mark};
use crate::page::layout::Base;
use crate::page::markdown::markdown;
use crate::page::parts::{fold, many, section};
use crate::page::source::visible;

/// Verdicts of the gates before this one, with their numbers.
pub(super) fn proofs(page: &DecisionPage<'_>) -> Markup {
    let DecisionPage { base, detail, change, .. } = *page;
    let gate = &detail.gate;
    let (listed, total) = (detail.proofs.len(), detail.proof_counts.values().sum::<u64>());
    let body = html! {
        ul.proofs {
            @for proof in &detail.proofs { (proof_of(base, gate.run_id, proof)) }
            @if let (Some(step), true) = (&gate.step, change.is_some()) {
                li {
                    (mark(PENDING_GATE))
                    b { bdi { (visible(step)) } }
                    span { "has no verdict yet: it asks you first" }
                    span {}
                }
            }
        }
        @if total > listed as u64 {
            p.note { "The first " (listed) " of " (total) " gates are shown." }
        }
        @if change.is_none() { (evidence(base, gate)) }
    };
    let nothing = html! { p.note { "No gate ran before this one: there is no evidence." } };
    let is_empty = detail.proofs.is_empty() && change.is_none() && gate.evidence_uri.is_none();
    let count = html! { @if total > 0 { p.note { (verdicts(&detail.proof_counts)) } } };
    section("evidence", "What has been proved", &count, if is_empty { &nothing } else { &body })
}

/// How many gates passed and failed, and how many have not judged.
fn verdicts(counts: &HashMap<StepStatus, u64>) -> String {
    let (mut failed, mut open, mut never) = (0, 0, 0);
    for (status, count) in counts {
        match status {
            StepStatus::Succeeded => {}
            StepStatus::Failed => failed += count,
            StepStatus::Pending | StepStatus::Ready | StepStatus::Running | StepStatus::Blocked => open += count,
            StepStatus::Skipped | StepStatus::Cancelled => never += count,
        }
    }
    let passed = match counts.get(&StepStatus::Succeeded).copied().unwrap_or_default() {
        0 => "no gate passed".to_owned(),
        passed => many(passed, "gate passed", "gates passed"),
    };
    let others = [
        (failed, format!("{} failed", format::number(failed))),
        (open, many(open, "has no verdict yet", "have no verdict yet")),
        (never, format!("{} did not run", format::number(never))),
    ];
    let others = others.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words);
    std::iter::once(passed).chain(others).collect::<Vec<_>>().join(", ")
}

fn is_good(proof: &Proof) -> bool {
    look(proof.status).tone == "good"
}

fn proof_of(base: Base, run: RunId, proof: &Proof) -> Markup {
    let href = base.to(&format!("runs/{run}/steps/{}", proof.ordinal));
    let Look { symbol, tone, word } = look(proof.status);
    let word = if is_good(proof) { "passed" } else { word };
    html! {
        li {
            (mark(Look { symbol, tone, word }))
            span { b { a href=(href) { bdi { (visible(&proof.name)) } } } @if proof.name != proof.tool { br; code.note { (visible(&proof.tool)) } } }
            span {
                @if let Some(reason) = &proof.reason { bdi { (visible(reason)) } } @else { (word) }
                @let numbers = numbers(proof);
                @if !numbers.is_empty() { div.note { (numbers.join(", ")) } }
            }
            @if proof.evidence_id.is_some() { a href=(evidence_href(base, run, proof.ordinal, None)) { "evidence" } } @else { span {} }
        }
    }
}

/// Coverage and findings of a verdict.
fn numbers(proof: &Proof) -> Vec<String> {
    let mut numbers = Vec::new();
    if let Some(coverage) = &proof.coverage {
        let count = |name: &str| coverage[name].as_u64().unwrap_or_default();
        let (covered, uncovered, unmeasured) = (count("covered"), count("uncovered"), count("unmeasured"));
        let all = covered + uncovered + unmeasured;
        if all > 0 {
            let ran = format!("{} of {}", format::number(covered), many(all, "changed line", "changed lines"));
            let needed = coverage["threshold"].as_f64().map(|share| format!(", {} needed", format::percent(share)));
            numbers.push(format!("{ran} ran in tests{}", needed.unwrap_or_default()));
        }
        if unmeasured > 0 {
            numbers.push(many(unmeasured, "line not measured", "lines not measured"));
        }
    }
    let findings = proof.findings.as_ref().and_then(Value::as_object).into_iter().flatten();
    numbers.extend(findings.filter_map(|(severity, count)| {
        let count = count.as_u64().filter(|count| *count > 0)?;
        Some(format!("{} of severity {}", many(count, "finding", "findings"), visible(severity)))
    }));
    numbers
}

/// What earlier steps returned and stored.
pub(super) fn documents(page: &DecisionPage<'_>) -> Markup {
    let DecisionPage { base, detail, contents, .. } = *page;
    if detail.documents.is_empty() && detail.outputs.is_empty() {
        return html! {};
    }
    let (shown, linked) = detail.documents.split_at(contents.len().min(detail.documents.len()));
    let body = html! {
        @for (exhibit, content) in shown.iter().zip(contents) { (document(page, exhibit, content)) }
        @for returned in &detail.outputs { (outputs_of(returned, detail.documents.is_empty())) }
        @if !linked.is_empty() {
            ul.files {
                @for exhibit in linked {
                    li { (crate::page::icon::icon("doc", "quiet")) (link(base, exhibit)) span.note { (origin(exhibit)) } span {} }
                }
            }
        }
        (rest(detail))
    };
    let gate = &detail.gate;
    let title = match (gate.is_open(), gate.actor.is_some()) {
        (true, _) => "What you decide about",
        (false, true) => "What was decided about",
        (false, false) => "What was made before it",
    };
    section("what", title, &html! {}, &body)
}

fn rest(detail: &GateDetail) -> Markup {
    let listed = detail.documents.len();
    html! {
        @if detail.documents_total > listed {
            p.note { "The newest " (listed) " of " (detail.documents_total) " documents are listed. The run has all of them." }
        }
    }
}

fn link(base: Base, exhibit: &Exhibit) -> Markup {
    html! { a href=(base.to(&format!("artifacts/{}", exhibit.artifact.id))) { bdi { (visible(&exhibit.name)) } } }
}

fn origin(exhibit: &Exhibit) -> Markup {
    let by_model = exhibit.tool.as_deref().is_some_and(|tool| effect_of(tool) == Effect::Model);
    html! {
        @if by_model { "written by a model, " }
        @if let Some(step) = &exhibit.step { "of " bdi { (visible(step)) } ", " }
        (format::size(exhibit.artifact.size_bytes))
    }
}

fn document(page: &DecisionPage<'_>, exhibit: &Exhibit, content: &Content) -> Markup {
    let (base, is_open) = (page.base, page.detail.gate.is_open());
    let name = visible(&exhibit.name);
    html! {
        figure.file {
            figcaption { code { (link(base, exhibit)) } span.note { (origin(exhibit)) } }
            @match content {
                Content::Text(text) => (output(&name, &visible(text))),
                Content::Markdown(text) => {
                    @let shown = markdown(text);
                    div.markdown { (shown.markup) }
                    @let left_out = shown.left_out.words();
                    @if !left_out.is_empty() { p.lead.note { "The text above is shown without " (left_out) "." } }
                    @if shown.is_cut { p.lead.note { "The end is too long for this page." } }
                    (fold("Source", "as stored", false, &output(&name, &visible(text))))
                }
                Content::Other => p.lead.note { "This page does not show it." @if is_open { " Read it before you decide." } },
                Content::Unreadable(why) => p.lead.bad { bdi { (visible(why)) } },
            }
        }
    }
}

/// A text that scrolls with the keyboard too.
fn output(name: &str, text: &str) -> Markup {
    html! { pre.output tabindex="0" role="region" aria-label=(name) { (text) } }
}

/// What a step returned. Documents say more than that, so it opens on demand beside them.
fn outputs_of(returned: &StepOutputs, is_open: bool) -> Markup {
    let name = visible(&returned.name);
    let title = html! { bdi { (name) } };
    let note = format!("what the step returned, {}", format::size(returned.bytes));
    let too_large = || html! { p.note { "It is too large for this page. The API has it." } };
    let body = returned.outputs.as_ref().map_or_else(too_large, |outputs| output(&name, &visible(&plain(outputs))));
    fold(title, note, is_open, &body)
}

/// Outputs as text. A value is a text or JSON, below its name.
fn plain(outputs: &Value) -> String {
    let pretty = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    match outputs.as_object() {
        Some(fields) if fields.values().any(Value::is_string) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", pretty(value)));
            fields.collect::<Vec<_>>().join("\n")
        }
        _ => pretty(outputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_a_verdict_are_words() {
        let proof = |coverage: Value, findings: Value| {
            let proof = json!({"ordinal": 2, "name": "unit", "tool": "gate:unit", "status": "succeeded", "reason": null,
                               "evidence_id": null, "coverage": coverage, "findings": findings});
            numbers(&serde_json::from_value(proof).unwrap())
        };
        let coverage = json!({"covered": 17, "uncovered": 3, "unmeasured": 1, "threshold": 0.825});
        assert_eq!(
            proof(coverage, json!({"warning": 2, "error": 0})),
            [
                "17 of 21 changed lines ran in tests, 82.5\u{a0}% needed",
                "1 line not measured",
                "2 findings of severity warning"
            ]
        );
        assert!(proof(Value::Null, Value::Null).is_empty() && proof(json!([]), json!("x")).is_empty());
    }

    #[test]
    fn a_gate_without_a_verdict_has_not_failed() {
        use StepStatus as S;
        let of = |counts: &[(S, u64)]| verdicts(&counts.iter().copied().collect());
        assert_eq!(of(&[(S::Succeeded, 1)]), "1 gate passed");
        assert_eq!(of(&[(S::Succeeded, 57), (S::Failed, 1)]), "57 gates passed, 1 failed");
        assert_eq!(of(&[(S::Pending, 2), (S::Running, 1)]), "no gate passed, 3 have no verdict yet");
        let all = [(S::Succeeded, 2), (S::Failed, 1), (S::Blocked, 1), (S::Skipped, 1), (S::Cancelled, 2)];
        assert_eq!(of(&all), "2 gates passed, 1 failed, 1 has no verdict yet, 3 did not run");
    }

    #[test]
    fn outputs_with_a_text_are_readable_as_text() {
        assert_eq!(
            plain(&json!({"text": "Dear customers,\nthis", "n": [1]})),
            "n: [\n  1\n]\ntext: Dear customers,\nthis"
        );
        assert_eq!(plain(&json!({"n": 1})), "{\n  \"n\": 1\n}");
    }
}
