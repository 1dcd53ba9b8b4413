//! The gates that wait for a person, and the decisions of people.

use maud::{Markup, html};
use shared::db::console::{Asked, COUNTED_GATES, Decided, DecidedList, FOLLOWED, Gate, Inbox};
use shared::domain::gate::Decision;
use shared::http::encoded;

use super::format;
use super::gates::{blocked_by, look_of, verdict, words_of};
use super::icon::{icon, mark};
use super::layout::{Base, Layout, Part, WAITING_SHOWN, layout};
use super::parts::{elapsed, left, many, person, time};
use super::source::visible;

/// Pending gates, and how to show them.
#[derive(Debug, Clone, Copy)]
pub struct InboxPage<'a> {
    pub base: Base,
    pub list: &'a Inbox,
    /// The only type that is shown, or empty.
    pub gate_type: &'a str,
    /// Whether the list also has gates that the reader may not decide.
    pub everybody: bool,
}

/// `GET /ui/inbox`.
pub fn inbox(page: &InboxPage<'_>) -> String {
    let InboxPage { base, list, everybody, .. } = *page;
    let is_empty = list.waiting == 0 && !list.is_continuation;
    let fragment = (!list.is_continuation).then(|| address(base, page.gate_type, everybody, None));
    let content = html! {
        p.toast #announcer role="status" {}
        div #live data-fragment=[fragment.as_ref()] {
            div.head data-region="head" {
                @if !is_empty {
                    div { h1 { "Inbox" } p.facts { span { (count(page)) } } }
                    @if fragment.is_some() { p.note { span.live { "live" } } }
                }
            }
            div data-region="list" {
                @if is_empty { (nothing(base, &list.decided)) } @else { (gates(page)) }
            }
        }
    };
    layout(&Layout { part: Part::Inbox, waiting: list.waiting, ..Layout::new(base, "Inbox") }, &content)
}

fn address(base: Base, gate_type: &str, everybody: bool, after: Option<&str>) -> String {
    let all = if everybody { "1" } else { "" };
    let pairs = [("type", gate_type), ("all", all), ("after", after.unwrap_or_default())];
    let set = pairs.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<_> = set.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}{mark}{}", base.to("inbox"), query.join("&"))
}

fn waiting(count: u64) -> String {
    if count > WAITING_SHOWN {
        return format!("More than {WAITING_SHOWN} gates wait");
    }
    many(count, "gate waits", "gates wait")
}

fn count(page: &InboxPage<'_>) -> Markup {
    let list = page.list;
    let oldest = list.gates.first().filter(|_| page.gate_type.is_empty() && !list.is_continuation);
    html! {
        (waiting(list.waiting))
        @if let Some(oldest) = oldest { ", the oldest has waited " b { (elapsed(&oldest.gate.created_at)) } }
    }
}

fn nothing(base: Base, decided: &Decided) -> Markup {
    html! {
        div.message {
            (icon("good", "good"))
            h1 { "Nothing waits for you" }
            p.lead {
                "A gate that needs a person appears here at once."
                @if let Some(last) = &decided.last {
                    " The last one was decided " (time(&last.created_at)) " by " (person(&last.actor)) "."
                }
            }
            @if decided.last.is_some() { p { a href={ (base.to("inbox")) "?decided=1" } { "Decisions" } } }
        }
    }
}

fn gates(page: &InboxPage<'_>) -> Markup {
    let InboxPage { base, list, gate_type, everybody } = *page;
    let is_listed = list.types.iter().any(|one| one.gate_type == gate_type);
    let is_unknown = !gate_type.is_empty() && !is_listed && list.types_total == list.types.len() as u64;
    html! {
        (types(page))
        @if list.gates.is_empty() {
            p {
                @if list.is_continuation { "No newer gates." }
                @else if !everybody && !is_unknown { "You cannot decide any of these gates." }
                @else { "No gate of this type waits." }
            }
        } @else {
            table.table role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Decision", "Run", "With", "Has waited", "Expires"] {
                            th role="columnheader" scope="col" { (heading) }
                        }
                    }
                }
                tbody role="rowgroup" { @for asked in &list.gates { (row(base, asked)) } }
            }
        }
        nav.pages aria-label="More" {
            @if list.is_continuation { a href=(address(base, gate_type, everybody, None)) { "Oldest gates" } }
            @else { (lately(base, &list.decided)) }
            @if let Some(newer) = list.newer {
                a href=(address(base, gate_type, everybody, Some(&newer.to_string()))) rel="next" { "Newer gates" }
            }
        }
    }
}

fn types(page: &InboxPage<'_>) -> Markup {
    let InboxPage { base, list, gate_type, everybody } = *page;
    let all = if list.waiting > WAITING_SHOWN { format!("{WAITING_SHOWN}+") } else { list.waiting.to_string() };
    let rest = list.types_total.saturating_sub(list.types.len() as u64);
    html! {
        nav.filters.chips aria-label="Whose gates" {
            a href=(address(base, gate_type, false, None)) aria-current=[(!everybody).then_some("true")] { "For me" }
            a href=(address(base, gate_type, true, None)) aria-current=[everybody.then_some("true")] { "For everybody" }
        }
        nav.filters.chips aria-label="Gates by type" {
            a href=(address(base, "", everybody, None)) aria-current=[gate_type.is_empty().then_some("true")] { "All " span.note { (all) } }
            @for one in &list.types {
                a href=(address(base, &one.gate_type, everybody, None)) aria-current=[(one.gate_type == gate_type).then_some("true")] {
                    bdi { (capital(&words_of(&one.gate_type))) } " " span.note { (format::number(one.count.min(COUNTED_GATES))) @if list.is_cut { "+" } }
                }
            }
            @if rest > 0 { span.note { "and " (many(rest, "more type", "more types")) } }
        }
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn row(base: Base, asked: &Asked) -> Markup {
    let gate = &asked.gate;
    html! {
        tr role="row" data-row {
            td.full role="cell" { (what(base, gate, "?from=inbox")) }
            td.fifth role="cell" data-label="Run" {
                span { bdi { (visible(&gate.goal)) } br; span.note { (blocked_by(gate)) } }
            }
            td.fifth role="cell" data-label="With" { span { (with(asked)) } }
            td.nowrap role="cell" data-label="Has waited" { (elapsed(&gate.created_at)) }
            td.nowrap role="cell" data-label="Expires" {
                @if let Some(at) = &gate.expires_at { (left(at)) } @else { span.note { "never" } }
            }
        }
    }
}

/// The question of a gate, with a link to its page.
fn what(base: Base, gate: &Gate, query: &str) -> Markup {
    html! {
        div.state {
            (mark(look_of(gate)))
            a.main id={ "gate-" (gate.id) } href={ (base.to("gates/")) (gate.id) (query) } {
                bdi { (visible(gate.reason.as_deref().unwrap_or(&gate.gate_type))) }
            }
        }
        @if gate.reason.is_some() { code.note.indent { bdi { (visible(&gate.gate_type)) } } }
    }
}

/// What a decision can rely on, and what an approval starts.
fn with(asked: &Asked) -> Markup {
    let mut parts = Vec::new();
    if let Some(required) = asked.required.filter(|required| *required > 1) {
        parts.push(format!("{} of {required} approvals", asked.approved.unwrap_or_default()));
    }
    if asked.passed > 0 {
        parts.push(many(asked.passed, "gate passed", "gates passed"));
    }
    if asked.gate.is_about_change() {
        parts.push("a change of its own checks".to_owned());
    } else if asked.gate.evidence_uri.is_some() {
        parts.push("evidence".to_owned());
    }
    if asked.rows > 0 {
        parts.push(many(asked.rows, "row to insert", "rows to insert"));
    }
    if asked.writes > 0 {
        parts.push(many(asked.writes, "other write to a table", "other writes to tables"));
    }
    if asked.models > 0 {
        parts.push(many(asked.models, "question to a model", "questions to models"));
    }
    if asked.commands > 0 {
        parts.push(many(asked.commands, "step that runs commands", "steps that run commands"));
    }
    if asked.has_more {
        parts.push(format!("more than {FOLLOWED} steps after it"));
    }
    html! { @if parts.is_empty() { span.note { "only the question" } } @else { (parts.join(", ")) } }
}

/// The decisions of the last week in numbers.
fn lately(base: Base, decided: &Decided) -> Markup {
    let number = |decision: &Decision| Some(format!("{} {}", decided.counts.get(decision)?, decision.participle()));
    let numbers: Vec<_> = DECISIONS.iter().filter_map(number).collect();
    html! {
        @if decided.last.is_some() {
            span.note {
                a href={ (base.to("inbox")) "?decided=1" } { "Decisions" }
                @if !numbers.is_empty() { ", in the last week: " (numbers.join(", ")) }
            }
        }
    }
}

const DECISIONS: [Decision; 3] = [Decision::Approve, Decision::Reject, Decision::Waive];

/// `GET /ui/inbox?decided=1`.
pub fn decided_list(base: Base, list: &DecidedList) -> String {
    let content = html! {
        nav.crumbs aria-label="Where this is" { a href=(base.to("inbox")) data-go="up" { "Inbox" } span { "Decisions" } }
        div.head { div { h1 { "Decisions" } p.facts { span { (week(&list.decided)) } span { (waiting(list.waiting)) } } } }
        @if list.gates.is_empty() {
            p { @if list.is_continuation { "No older decisions." } @else { "Nobody has decided anything yet." } }
        } @else { (decisions(base, &list.gates)) }
        @if list.is_continuation || list.older.is_some() {
            nav.pages aria-label="Pages" {
                @if list.is_continuation { a href={ (base.to("inbox")) "?decided=1" } { "Newest decisions" } }
                @if let Some(older) = list.older {
                    a href={ (base.to("inbox")) "?decided=1&after=" (older) } rel="next" { "Older decisions" }
                }
            }
        }
    };
    layout(&Layout { part: Part::Inbox, waiting: list.waiting, ..Layout::new(base, "Decisions") }, &content)
}

fn week(decided: &Decided) -> String {
    let count = |decision| decided.counts.get(&decision).copied().unwrap_or_default();
    let numbers = DECISIONS.map(|decision| format!("{} {}", count(decision), decision.participle()));
    format!("in the last week {}", numbers.join(", "))
}

fn decisions(base: Base, gates: &[Gate]) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Decision", "Run", "By", "When"] { th role="columnheader" scope="col" { (heading) } }
                }
            }
            tbody role="rowgroup" {
                @for gate in gates {
                    tr role="row" data-row {
                        td.full role="cell" {
                            (what(base, gate, ""))
                            @if let Some(reason) = &gate.decision_reason { p.note.indent { bdi { (visible(reason)) } } }
                        }
                        td.fifth role="cell" data-label="Run" {
                            span { bdi { (visible(&gate.goal)) } br; span.note { (blocked_by(gate)) } }
                        }
                        td role="cell" data-label="By" {
                            span {
                                (verdict(gate.status)) " by " (person(gate.actor.as_deref().unwrap_or_default()))
                            }
                        }
                        td.nowrap role="cell" data-label="When" {
                            @if let Some(at) = &gate.decided_at { (time(at)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_the_type() {
        assert_eq!(address(Base::TOP, "", false, None), "inbox");
        assert_eq!(address(Base::RUN, "a&b", true, Some("1")), "../inbox?type=a%26b&all=1&after=1");
    }

    #[test]
    fn the_first_letter_is_a_capital() {
        assert_eq!(["change of checks", "über", ""].map(capital), ["Change of checks", "Über", ""]);
    }
}
