//! Who must approve a gate, who has, and why the reader may not.

use maud::{Markup, html};
use shared::domain::approval::{ApprovalRule, Waivers};
use shared::domain::gate::Decision;
use shared::domain::principal::Role;
use shared::view::{Standing, WhyNot};

use crate::page::icon::icon;
use crate::page::parts::{many, notice, person, time};
use crate::page::source::visible;

/// Why the reader may not approve or reject, if they may not. `None` for a gate that says so elsewhere.
pub(super) fn why_not(standing: &Standing) -> Option<WhyNot> {
    let why = standing.may_decide.filter(|may| !may.ok)?.why?;
    (!matches!(why, WhyNot::Decided | WhyNot::Expired)).then_some(why)
}

/// Tells readers why they may not decide.
pub(super) fn excluded(standing: &Standing, why: WhyNot) -> Markup {
    let may_waive = standing.may_decide.is_some_and(|may| may.waive);
    let (tone, symbol) = if why == WhyNot::Done { ("good", "good") } else { ("warn", "decide") };
    notice(
        tone,
        symbol,
        "note",
        &html! {
            p {
                strong {
                    @if why == WhyNot::Done { "Your approval is recorded. " }
                    @else if why.asks_nobody() { "Nobody approves this gate. " }
                    @else { "You cannot approve this gate. " }
                }
                (capital(why.sentence())) "."
            }
            @if may_waive { p { "As an admin you can waive it, with a reason." } }
        },
    )
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// How many have approved, who, and what the rule demands.
pub(super) fn so_far(standing: &Standing) -> Markup {
    let Some((required, rule)) = standing.required.zip(standing.rule.as_ref()) else { return html! {} };
    let approved = standing.approved.unwrap_or_default();
    let missing = required.saturating_sub(approved);
    html! {
        @if required > 1 || !standing.approvals.is_empty() {
            p { b { (approved) " of " (required) } " approvals" @if approved > 0 { " count" } "." }
            ul.rows {
                @for one in &standing.approvals {
                    li {
                        (icon(symbol(one.decision), "quiet")) " " (person(&one.actor)) " " (one.decision.participle())
                        span.note { ", " (time(&one.created_at)) @if one.is_self { ", their own work" } }
                        @if let Some(reason) = &one.reason { p.quote { bdi { (visible(reason)) } } }
                    }
                }
            }
        }
        p.note { (demand(rule, required)) }
        @if let Some(eligible) = standing.eligible.filter(|eligible| *eligible < required) {
            (notice("warn", "decide", "note", &html! {
                p {
                    "Only " (many(u64::from(eligible), "person", "people")) " may approve this gate, and " (many(u64::from(missing), "approval is", "approvals are"))
                    " missing. It cannot pass"
                    @if rule.waive == Waivers::Admins { " unless an admin waives it" }
                    "."
                }
            }))
        }
    }
}

fn symbol(decision: Decision) -> &'static str {
    match decision {
        Decision::Approve => "good",
        Decision::Reject => "bad",
        Decision::Waive => "waived",
    }
}

/// The rule in a sentence.
fn demand(rule: &ApprovalRule, required: u32) -> Markup {
    let who = if rule.roles.contains(&Role::Approver) { "approvers and admins" } else { "admins" };
    html! {
        @if required == 1 { "One approval is enough." } @else { (required) " different people must approve." }
        " One rejection fails it. "
        @match &rule.people {
            None => { "These may decide: " (who) },
            Some(people) => {
                "These may decide: "
                @for (index, name) in people.iter().enumerate() { @if index > 0 { ", " } b { bdi { (visible(name)) } } }
                ", as " (who)
            },
        }
        @if !rule.by_self { ", but not the people who started or retried the run, or uploaded or made its files" }
        "."
    }
}
