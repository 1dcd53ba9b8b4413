//! The form of a decision, and what each button does.

use maud::{Markup, html};
use shared::db::console::{GateDetail, Start};
use shared::domain::gate::Decision;
use shared::domain::rule::Op;
use shared::domain::{Problem, RunStatus};
use shared::view::OnPass;

use super::{DecisionPage, Refusal};
use crate::page::parts::{actor_field, many, notice, said, wrong_field};
use crate::page::source::visible;
use crate::write::Write;

/// Verb, label and style of each button.
const VERBS: [(Decision, &str, &str, &str); 3] = [
    (Decision::Approve, "approve", "Approve", "primary"),
    (Decision::Reject, "reject", "Reject", "danger"),
    (Decision::Waive, "waive", "Waive", ""),
];
/// Steps that the effect of an approval names.
const NAMED: usize = 3;
/// Fields of the form with their problem beside them.
const FIELDS: [&str; 2] = ["actor", "reason"];

pub(super) fn decide(page: &DecisionPage<'_>) -> Markup {
    let DecisionPage { base, detail, token, refused, .. } = *page;
    let gate = &detail.gate;
    let verbs = VERBS.iter().filter(|(decision, ..)| page.can_be_read() || *decision == Decision::Reject);
    let verb = |verb: &str| base.to(&format!("gates/{}/{verb}", gate.id));
    let problems = match refused.map(|refused| refused.why) {
        Some(Refusal::Problems(problems)) => problems,
        _ => &[],
    };
    let wrong = |field: &str| problems.iter().find(|problem| problem.path == field).map(said);
    let reason = wrong("reason");
    html! {
        section.decide.stay.section #decide aria-labelledby="decision" {
            div.title { h2 #decision { "Your decision" } }
            (nothing_decided(problems))
            @if let Some(Refusal::Form(sentence)) = refused.map(|refused| refused.why) {
                (notice("bad", "bad", "alert", &html! {
                    p { strong { "Nothing was decided." } " " (sentence) " What you typed is still here." }
                }))
            }
            form.form method="post" action=(verb("approve")) aria-labelledby="decision" {
                // The enter key presses the first button. Disable that one, so that each decision needs a click.
                button type="submit" disabled hidden {}
                input type="hidden" name="csrf" value=(token);
                @if page.from_inbox { input type="hidden" name="from" value="inbox"; }
                (actor_field("actor", refused.map_or("", |refused| refused.actor), wrong("actor").as_deref()))
                div.field {
                    label for="reason" { "Reason " span.note { "needed to reject or waive; everybody can read it" } }
                    textarea #reason name="reason" rows="3" maxlength="2000" aria-invalid=[reason.as_ref().map(|_| "true")]
                        aria-describedby=[reason.as_ref().map(|_| "reason-wrong")] { (refused.map_or("", |refused| refused.reason)) }
                    (wrong_field("reason-wrong", reason.as_deref()))
                }
                div.verbs {
                    @for (_, word, label, style) in verbs.clone() {
                        button class=(style) type="submit" formaction=(verb(word)) aria-describedby={ "o-" (word) } { (label) }
                    }
                }
                dl.outcomes {
                    @for (decision, word, label, _) in verbs { dt { (label) } dd id={ "o-" (word) } { (effect(detail, *decision)) } }
                }
            }
            p.note {
                "One decision is enough, and nobody has decided yet. Everybody who can open this console may decide."
                @if detail.same > 0 && page.can_be_read() {
                    " An approval also answers " (many(detail.same, "other gate", "other gates"))
                    " of the run with the same question."
                }
            }
        }
    }
}

/// Problems of the form. Those without a field of their own are listed.
fn nothing_decided(problems: &[Problem]) -> Markup {
    let others = problems.iter().filter(|problem| !FIELDS.contains(&problem.path.as_str()));
    html! {
        @if !problems.is_empty() {
            (notice("bad", "bad", "alert", &html! {
                p {
                    strong { "Nothing was decided." }
                    " The form has " (many(problems.len() as u64, "problem", "problems")) "."
                }
                @for problem in others { p { code { bdi { (visible(&problem.path)) } } " " bdi { (visible(&problem.message)) } } }
            }))
        }
    }
}

/// What a decision does.
fn effect(detail: &GateDetail, decision: Decision) -> Markup {
    let step = detail.gate.step.as_deref().map(visible);
    match decision {
        Decision::Approve => approval(detail),
        Decision::Waive => html! { "The same as approve, and the record says that it was waived." },
        Decision::Reject => {
            // A step with a gate of its own waits, too, if it has not started.
            let own = u64::from(step.is_some() && detail.gate.on_pass == OnPass::Release);
            let skipped = detail.steps_waiting.saturating_sub(own);
            html! {
                @if let Some(step) = step { b { bdi { (step) } } " fails" } @else { "The run fails" }
                @if skipped > 0 { ", " (many(skipped, "step is skipped", "steps are skipped")) }
                @if detail.gate.step.is_some() { ", and the run fails" }
                "."
                @if detail.gates_waiting > 0 {
                    " " (many(detail.gates_waiting, "other gate of the run is", "other gates of the run are"))
                    " cancelled: nobody can decide " @if detail.gates_waiting == 1 { "it" } @else { "them" } " any more."
                }
                " The run can be retried."
            }
        }
    }
}

fn approval(detail: &GateDetail) -> Markup {
    let step = detail.gate.step.as_deref().map(visible).unwrap_or_default();
    let ready: Vec<&Start> = detail.starts.iter().filter(|start| start.blockers <= 1).collect();
    match detail.gate.on_pass {
        OnPass::Resume => html! {
            b { bdi { (step) } } " runs again, with the checks of the change"
            @if detail.run_status == RunStatus::Paused { ", when the run is resumed" }
            "."
        },
        OnPass::Release if detail.gate.step.is_none() => {
            html! { "The run succeeds when its other steps have succeeded and its other gates have passed." }
        }
        _ if detail.run_status == RunStatus::Paused => {
            html! { "Recorded now. The steps start when the run is resumed." }
        }
        _ if ready.is_empty() => html! {
            @if detail.starts.is_empty() { b { bdi { (step) } } " succeeds. Nothing waits for it." }
            @else { "Nothing starts yet: what follows waits for other steps or gates too." }
        },
        _ => html! {
            @for (index, start) in ready.iter().take(NAMED).enumerate() {
                @if index > 0 { ", " }
                b { bdi { (visible(&start.name)) } } " " (does(start))
            }
            @if ready.len() > NAMED { ", and " (ready.len() - NAMED) " more start" }
            "."
        },
    }
}

fn does(start: &Start) -> String {
    match Write::of(start) {
        Some(Write { op: Op::Insert, rows, .. }) if !rows.is_empty() => {
            format!("writes {}", many(rows.len() as u64, "row", "rows"))
        }
        Some(Write { op: Op::Insert, .. }) => "writes rows".to_owned(),
        Some(Write { op: Op::Update, .. }) => "changes rows".to_owned(),
        Some(Write { op: Op::Delete, .. }) => "deletes rows".to_owned(),
        None => "starts".to_owned(),
    }
}
