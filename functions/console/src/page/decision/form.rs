//! The form of a decision, and what each button does.

use maud::{Markup, html};
use shared::db::console::{Effects, GateDetail, Start};
use shared::domain::gate::{APPROVAL, BUDGET, Decision};
use shared::domain::{Problem, RunStatus};
use shared::view::{OnPass, WhyNot};

use super::starts::{effects, what};
use super::{DecisionPage, Refusal, approvals};
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
    let excluded = approvals::why_not(&detail.standing);
    let may_waive = detail.standing.may_decide.is_some_and(|may| may.waive);
    let offered = |decision: Decision| match decision {
        Decision::Reject => excluded.is_none_or(|why| why == WhyNot::Done || why.asks_nobody()),
        Decision::Approve => excluded.is_none() && page.can_be_read(),
        Decision::Waive => may_waive && page.can_be_read(),
    };
    let verbs = VERBS.iter().filter(|(decision, ..)| offered(*decision));
    let has_form = verbs.clone().next().is_some();
    let verb = |verb: &str| match &page.link {
        Some(link) => base.to(&format!("links/{}", link.token)),
        None => base.to(&format!("gates/{}/{verb}", gate.id)),
    };
    // A link has one address for every decision.
    let is_link = page.link.is_some();
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
            @match refused.map(|refused| refused.why) {
                Some(Refusal::Excluded(sentence)) => (notice("bad", "bad", "alert", &html! {
                    p { strong { "Nothing was decided: " } (sentence) "." }
                })),
                Some(Refusal::Changed(paths)) => (changed(paths)),
                _ => {}
            }
            @if !detail.gate.asks_nobody() { (approvals::so_far(&detail.standing)) }
            @if let Some(why) = excluded { (approvals::excluded(&detail.standing, why)) }
            @if has_form { form.form method="post" action=(verb("approve")) aria-labelledby="decision" {
                // The enter key presses the first button. Disable that one, so that each decision needs a click.
                button type="submit" disabled hidden {}
                input type="hidden" name="csrf" value=(token);
                @if let Some(digest) = &detail.digest { input type="hidden" name="digest" value=(digest); }
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
                        button id={ "do-" (word) } class=(style) type="submit" formaction=[(!is_link).then(|| verb(word))]
                            name=[is_link.then_some("decision")] value=[is_link.then_some(word)] aria-describedby={ "o-" (word) } { (label) }
                    }
                }
                dl.outcomes {
                    @for (decision, word, label, _) in verbs { dt { (label) } dd id={ "o-" (word) } { (effect(detail, *decision)) } }
                }
            } }
            @if detail.same > 0 && page.can_be_read() {
                p.note {
                    "An approval also answers " (many(detail.same, "other gate", "other gates"))
                    " of the run with the same question."
                }
            }
        }
    }
}

/// The gate covers other bytes than the reader saw.
fn changed(paths: &[String]) -> Markup {
    notice(
        "bad",
        "bad",
        "alert",
        &html! {
            p { strong { "Nothing was decided: the gate has changed since you saw it." } " Look at it again." }
            @if !paths.is_empty() {
                p.note { @for (index, path) in paths.iter().enumerate() { @if index > 0 { ", " } code { bdi { (visible(path)) } } } }
            }
        },
    )
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
        Decision::Waive => {
            html! { "The gate passes at once, even if approvals are missing. The record says that it was waived." }
        }
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
    let standing = &detail.standing;
    let others = standing.required.unwrap_or(1).saturating_sub(standing.approved.unwrap_or_default() + 1);
    html! {
        @if others > 0 { (many(u64::from(others), "more approval is", "more approvals are")) " needed after yours. Then: " }
        (at_once(detail))
        (afterwards(detail))
    }
}

/// Steps that can start as soon as the gate has passed, as far as a sentence names them.
fn named(detail: &GateDetail) -> Vec<&Start> {
    let is_paused = detail.run_status == RunStatus::Paused;
    let is_start = detail.gate.step.is_some() && detail.gate.on_pass != OnPass::Resume && !is_paused;
    let ready = detail.starts.iter().filter(|start| is_start && start.blockers <= 1);
    ready.take(NAMED).collect()
}

fn at_once(detail: &GateDetail) -> Markup {
    let step = detail.gate.step.as_deref().map(visible).unwrap_or_default();
    let ready = detail.starts.iter().filter(|start| start.blockers <= 1).count();
    let named = named(detail);
    match detail.gate.on_pass {
        OnPass::Resume => html! {
            @if detail.gate.gate_type == BUDGET { "The budget of the run is raised, and " }
            b { bdi { (step) } }
            @if detail.gate.gate_type.starts_with(APPROVAL) { " starts" }
            @else if detail.gate.gate_type == BUDGET { " resumes at the request that the budget refused" }
            @else { " runs again, with the checks of the change" }
            @if detail.run_status == RunStatus::Paused { ", when the run is resumed" }
            "."
        },
        OnPass::Release if detail.gate.step.is_none() => {
            html! { "The run succeeds when its other steps have succeeded and its other gates have passed." }
        }
        _ if detail.run_status == RunStatus::Paused => {
            html! { "Recorded now. The steps start when the run is resumed." }
        }
        _ if named.is_empty() => html! {
            @if detail.starts.is_empty() { b { bdi { (step) } } " succeeds. Nothing waits for it." }
            @else { "Nothing starts yet: what follows waits for other steps or gates too." }
        },
        _ => html! {
            @for (index, start) in named.iter().enumerate() {
                @if index > 0 { ", " }
                b { bdi { (visible(&start.name)) } } " " (does(start))
            }
            @if ready > named.len() { ", and " (ready - named.len()) " more start" }
            "."
        },
    }
}

/// What else follows without another question: writes by name, as many as a sentence can hold, and the number of all others.
fn afterwards(detail: &GateDetail) -> Markup {
    let at_once = named(detail);
    // A gate's own step runs again: that is said already.
    let is_own = |start: &&Start| detail.gate.step.as_deref() == Some(start.name.as_str());
    let own = detail.starts.iter().find(is_own).filter(|_| detail.gate.on_pass == OnPass::Resume);
    let said = at_once.iter().copied().chain(own).map(|start| start.tool.as_str());
    let all = detail.starts_counts.and(detail.later_counts).without(Effects::of(said));
    let is_said = |start: &&Start| at_once.iter().any(|said| said.name == start.name);
    let listed = detail.starts.iter().chain(&detail.later);
    let writes: Vec<_> = listed.filter(|start| start.tool == "db_write" && !is_said(start)).take(NAMED).collect();
    let rest = all.without(Effects { writes: writes.len() as u64, ..Effects::default() });
    let rest = effects(rest);
    html! {
        @if !writes.is_empty() || !rest.is_empty() {
            " Later, without another question: "
            @for (index, start) in writes.iter().enumerate() {
                @if index > 0 { ", " }
                b { bdi { (visible(&start.name)) } } " " (does_to(start))
            }
            @if !writes.is_empty() && !rest.is_empty() { ", " }
            (rest.join(", ")) "."
        }
    }
}

/// What a write does, and to which table.
fn does_to(start: &Start) -> Markup {
    let table = start.table.as_deref().map(visible);
    html! { @match (Write::of(start), table) {
        (Some(write), Some(table)) => { (what(&write)) " " code { bdi { (table) } } },
        (None, Some(table)) => { "writes to " code { bdi { (table) } } },
        (_, None) => "writes to a table",
    } }
}

fn does(start: &Start) -> Markup {
    html! { @if start.tool == "db_write" { (does_to(start)) } @else { "starts" } }
}
