//! What an approval starts, with the rows that a `db_write` will write and the rule that lets it.

use maud::{Markup, html};
use shared::db::console::{Effects, Start};
use shared::domain::StepStatus;
use shared::domain::gate::APPROVAL;
use shared::domain::rule::{Op, Rule};
use shared::http::encoded;
use shared::view::OnPass;

use super::{DecisionPage, Rows, preview};
use crate::page::icon::{icon, look, mark};
use crate::page::parts::{many, notice, person, section, time};
use crate::page::source::visible;
use crate::write::{Verdict, Write};

pub(super) fn starts(page: &DecisionPage<'_>) -> Markup {
    let detail = page.detail;
    let is_open = detail.gate.is_pending();
    let body = html! {
        @if detail.gate.step.is_none() {
            p { "Nothing starts: the gate only holds back the end of the run." }
        } @else if detail.starts.is_empty() {
            p { "Nothing starts: no step waits for this one." }
        }
        @for start in &detail.starts { (step(page, start)) }
        (rest(detail.starts_counts, &detail.starts))
        @if detail.later_counts.total() > 0 {
            h3 { "Later, without another question" }
            @for start in &detail.later { (step(page, start)) }
            (rest(detail.later_counts, &detail.later))
        }
    };
    let title = if !is_open {
        "What waited for this"
    } else if detail.gate.asks_nobody() {
        "What goes on when there is money"
    } else {
        "What an approval starts"
    };
    section("then", title, &html! {}, &body)
}

/// What the steps do that are not listed.
fn rest(all: Effects, listed: &[Start]) -> Markup {
    let rest = all.without(Effects::of(listed.iter().map(|start| start.tool.as_str())));
    let mut words = effects(rest);
    if rest.others > 0 {
        words.push(format!("{} without effects beyond the run", many(rest.others, "step", "steps")));
    }
    html! { @if rest.total() > 0 { p.note { "And " (many(rest.total(), "more step", "more steps")) ": " (words.join(", ")) "." } } }
}

/// `1 step writes to a table`, `2 steps run commands`.
pub(super) fn effects(counts: Effects) -> Vec<String> {
    let kinds = [
        (counts.writes, "step writes to a table", "steps write to tables"),
        (counts.models, "step asks a model", "steps ask models"),
        (counts.commands, "step runs commands", "steps run commands"),
    ];
    kinds.into_iter().filter(|(count, ..)| *count > 0).map(|(count, one, several)| many(count, one, several)).collect()
}

fn step(page: &DecisionPage<'_>, start: &Start) -> Markup {
    let gate = &page.detail.gate;
    let is_open = gate.is_pending();
    let is_own = gate.step.as_deref() == Some(start.name.as_str());
    let is_again = is_own && gate.on_pass == OnPass::Resume && !gate.gate_type.starts_with(APPROVAL);
    let write = Write::of(start);
    let href = |first| {
        let from = if page.from_inbox { "from=inbox&" } else { "" };
        let address = page.base.to(&format!("gates/{}", gate.id));
        format!("{address}?{from}write={}&rows={first}#then", encoded(&start.name))
    };
    let first = page.rows.filter(|(_, of)| *of == start.name).map(|(first, _)| first);
    let rows = Rows { first, href: &href };
    let others = start.blockers.saturating_sub(1);
    let symbol = match start.tool.as_str() {
        "db_write" => "table",
        "codegen" => "model",
        tool if tool.starts_with("manual:") => "decide",
        _ => "arrow",
    };
    html! {
        div.section {
            p {
                (icon(symbol, "quiet")) " " b { bdi { (visible(&start.name)) } } " "
                @match (&write, &start.table) {
                    (Some(write), Some(table)) => { (what(write)) " " code { bdi { (visible(table)) } } }
                    _ => code.note { (visible(&start.tool)) }
                }
                @if !is_open { " " span.note { (mark(look(start.status))) " " (look(start.status).word) } }
                @if is_open && is_again { span.note { " runs again" } }
                @if is_open && others > 0 { span.note { " after " (many(others, "more step or gate", "more steps or gates")) } }
            }
            @if let Some(write) = &write { (preview(write, &rows)) (rule(start, write)) }
            @else if start.tool == "db_write" { p.note { "The inputs are too large for this page, or cannot be read. The API has them." } }
        }
    }
}

/// What a write does, without its table.
pub(in crate::page) fn what(write: &Write) -> String {
    match write.op {
        Op::Insert if write.rows.is_empty() => "inserts rows into".to_owned(),
        Op::Insert => format!("inserts {} into", many(write.rows.len() as u64, "row", "rows")),
        Op::Update => "changes rows of".to_owned(),
        Op::Delete => "deletes rows of".to_owned(),
    }
}

/// What the rule of the table says.
pub(in crate::page) fn rule(start: &Start, write: &Write) -> Markup {
    use StepStatus::{Cancelled, Failed, Skipped, Succeeded};
    let has_ended = matches!(start.status, Succeeded | Failed | Skipped | Cancelled);
    match write.verdict(start.table.as_deref().unwrap_or_default(), start.rule.as_ref()) {
        Verdict::Allowed(rule) => html! { p.note { (allowed(start, &rule)) } },
        // The rule may have changed since.
        Verdict::Refused(_) | Verdict::Unknown if has_ended => html! {},
        Verdict::Refused(why) => {
            notice("warn", "decide", "note", &html! { p { "The step will fail: " bdi { (visible(&why)) } "." } })
        }
        Verdict::Unknown => {
            html! { p.note { "Whether the rule allows it is not known yet: that depends on outputs of steps." } }
        }
    }
}

fn allowed(start: &Start, rule: &Rule) -> Markup {
    let ops: Vec<_> = rule.allowed_ops.iter().map(|op| op.name()).collect();
    html! {
        "Allowed by the rule"
        @if let Some(actor) = &start.rule_actor { " of " (person(actor)) }
        @if let Some(at) = &start.rule_at { ", " (time(at)) }
        ": " (ops.join(", ")) ", up to " (many(rule.max_rows as u64, "row", "rows"))
        @if rule.triggers.is_empty() { ", no trigger" } @else { ", " (many(rule.triggers.len() as u64, "trigger", "triggers")) }
        @if !rule.dependants.is_empty() {
            ", may change " (many(rule.dependants.len() as u64, "other table", "other tables")) " by cascades"
        }
        "."
    }
}
