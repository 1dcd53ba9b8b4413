//! The rules of `db_write`: a list, and one rule with its table.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::Value;
use shared::db::console::{RuleList, RuleRow};
use shared::domain::bounds::shortened;
use shared::domain::rule::Op;
use shared::http::encoded;
use shared::view::{ForeignKey, Rule, RuleChange, RuleDetail, Target};

use super::icon::icon;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{blank, crumbs, facts, head, many, notice, pairs, person, section, time};
use super::source::visible;

/// Length of a list of columns in a cell.
const CELL_BYTES: usize = 200;
/// Entries of a list that are shown.
const ENTRIES: usize = 100;

/// `GET /ui/rules`.
pub fn rule_list(base: Base, list: &RuleList) -> String {
    let content = html! {
        @if list.rules.is_empty() && !list.is_continuation { (none()) }
        @else {
            (head(&html! { "Write rules" }, &facts([html! { "Plans may write these tables and no other" }]), None))
            @if list.rules.is_empty() { p { "No further rules." } } @else { (table(base, &list.rules)) }
            @if list.is_continuation || list.next.is_some() {
                nav.pages aria-label="Pages" {
                    @if list.is_continuation { a href=(base.to("rules")) { "First rules" } }
                    @if let Some(next) = list.next { a href={ (base.to("rules")) "?after=" (next) } rel="next" { "Further rules" } }
                }
            }
        }
    };
    layout(&Layout { part: Part::Rules, waiting: list.waiting, ..Layout::new(base, "Write rules") }, &content)
}

fn none() -> Markup {
    blank(
        "Plans may write no table",
        &html! {
            p.prose { "A step " code { "db_write" } " fails until a rule allows its table, its columns and its number of rows." }
            pre.output tabindex="0" role="region" aria-label="Command" {
                "nofx rules set public.orders --ops insert,update --columns id,status,total --key id --max-rows 50"
            }
        },
    )
}

fn table(base: Base, rules: &[RuleRow]) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Table", "Plans may", "Columns"] { th role="columnheader" scope="col" { (heading) } }
                    th.number role="columnheader" scope="col" { "Rows a write" }
                    th role="columnheader" scope="col" { "Changed" }
                }
            }
            tbody role="rowgroup" {
                @for rule in rules {
                    tr role="row" data-row {
                        td role="cell" {
                            a.main href={ (base.to("rules/")) (encoded(&rule.table)) } { bdi { (visible(&rule.table)) } }
                        }
                        td role="cell" data-label="Plans may" { (ops(&rule.allowed_ops)) }
                        td role="cell" data-label="Columns" {
                            code { bdi { (visible(&shortened(&listed(rule.columns.as_ref()).join(", "), CELL_BYTES))) } }
                        }
                        td.number role="cell" data-label="Rows a write" { (visible(&shortened(&rule.max_rows.to_string(), 20))) }
                        td role="cell" data-label="Changed" {
                            span { @if let Some(actor) = &rule.changed_by { (person(actor)) ", " } (time(&rule.changed_at)) }
                        }
                    }
                }
            }
        }
    }
}

/// `GET /ui/rules/{table}`.
pub fn rule_page(base: Base, detail: &RuleDetail, waiting: u64) -> String {
    let rule = &detail.rule;
    let set = detail.changes.first();
    let by = html! {
        @if let Some(set) = set { "set by " b { bdi { (visible(&set.actor)) } } ", " } (time(&rule.updated_at))
    };
    let content = html! {
        (crumbs(&[("Write rules", base.to("rules"))], &visible(&rule.table)))
        (head(&html! { code.mono { bdi { (visible(&rule.table)) } } }, &facts([by]), None))
        p.question { (sentence(rule)) }
        div.columns {
            div {
                (says(rule))
                @match &detail.target {
                    None => (notice("bad", "bad", "note", &html! { p { b { "There is no such table. " } "Writes fail." } })),
                    Some(target) => {
                        (triggers(rule, target))
                        (foreign_keys(rule, target))
                    }
                }
            }
            div { (changes(&detail.changes)) }
        }
    };
    layout(
        &Layout { part: Part::Rules, waiting, ..Layout::new(base, &format!("{}: write rule", rule.table)) },
        &content,
    )
}

/// What the rule allows, in a sentence.
fn sentence(rule: &Rule) -> Markup {
    let forbidden: Vec<&str> = [Op::Insert, Op::Update, Op::Delete]
        .iter()
        .filter(|op| !rule.allowed_ops.contains(op))
        .map(|op| op.name())
        .collect();
    let (key, max_rows) = (listed(rule.key.as_ref()), rule.max_rows.to_string());
    html! {
        "Plans may " (joined(rule.allowed_ops.iter().map(|op| op.name()).collect(), "and"))
        " up to " (visible(&shortened(&max_rows, 20))) @if max_rows == "1" { " row" } @else { " rows" } " a write"
        @if !key.is_empty() { ", by " code { bdi { (visible(&shortened(&key.join(", "), CELL_BYTES))) } } }
        "."
        @if !forbidden.is_empty() { " They may not " (joined(forbidden, "or")) "." }
    }
}

fn says(rule: &Rule) -> Markup {
    let names = |value: Option<&Value>| {
        let names = listed(value);
        html! {
            @if names.is_empty() { span.note { "none" } }
            @for (index, name) in names.iter().take(ENTRIES).enumerate() {
                @if index > 0 { ", " } code { bdi { (visible(name)) } }
            }
            @if names.len() > ENTRIES { span.note { " and " (names.len() - ENTRIES) " more" } }
        }
    };
    let writes_as = rule.role.as_str().map_or_else(|| rule.role.to_string(), str::to_owned);
    section(
        "allows",
        "What the rule says",
        &html! {},
        &pairs([
            ("Operations", html! { (ops(&rule.allowed_ops)) }),
            ("Columns", names(rule.columns.as_ref())),
            ("Key", names(rule.key.as_ref())),
            ("Rows a write", html! { (visible(&shortened(&rule.max_rows.to_string(), 20))) }),
            ("Writes as", html! { code { (visible(&shortened(&writes_as, CELL_BYTES))) } }),
            ("Dependants", names(rule.dependants.as_ref())),
            ("Also allowed", names(rule.allow.as_ref())),
        ]),
    )
}

/// How a trigger stands to its pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pin {
    Pinned,
    Changed,
    NotPinned,
    Gone,
}

/// The triggers of the table and of the rule, with the digest now.
fn pins(rule: &Rule, target: &Target) -> Vec<(String, Pin, Option<String>)> {
    let nothing = serde_json::Map::new();
    let pinned = rule.triggers.as_ref().and_then(Value::as_object).unwrap_or(&nothing);
    let names: BTreeSet<&String> = target.triggers.keys().chain(pinned.keys()).collect();
    let of = |name: &String| {
        let (pin, now) = (pinned.get(name), target.triggers.get(name));
        let state = match (pin, now) {
            (Some(pin), Some(now)) if pin == now => Pin::Pinned,
            (Some(_), Some(_)) => Pin::Changed,
            (None, _) => Pin::NotPinned,
            (Some(_), None) => Pin::Gone,
        };
        (name.clone(), state, now.cloned())
    };
    names.into_iter().map(of).collect()
}

fn triggers(rule: &Rule, target: &Target) -> Markup {
    let pins = pins(rule, target);
    let refused = pins.iter().filter(|(_, pin, _)| matches!(pin, Pin::Changed | Pin::NotPinned)).count() as u64;
    let body = html! {
        @if refused > 0 {
            (notice("bad", "bad", "note", &html! {
                p {
                    b { "Writes are refused. " }
                    (many(refused, "trigger is", "triggers are")) " not pinned as defined now. Read the definition, then pin it: "
                    code { "nofx rules set" } "."
                }
            }))
        }
        @if pins.is_empty() { p { "A write runs no trigger." } } @else {
            table.table role="table" {
                thead role="rowgroup" {
                    tr role="row" { @for heading in ["Trigger", "Pin", "sha256 now"] { th role="columnheader" scope="col" { (heading) } } }
                }
                tbody role="rowgroup" {
                    @for (name, pin, now) in pins.iter().take(ENTRIES) {
                        @let (symbol, tone, word) = match pin {
                            Pin::Pinned => ("good", "good", "pinned"),
                            Pin::Changed => ("bad", "bad", "changed"),
                            Pin::NotPinned => ("bad", "bad", "not pinned"),
                            Pin::Gone => ("skipped", "quiet", "does not exist any more"),
                        };
                        tr role="row" {
                            td role="cell" { code { bdi { (visible(name)) } } }
                            td role="cell" data-label="Pin" { span.state { (icon(symbol, tone)) span { (word) } } }
                            td role="cell" data-label="sha256 now" { @if let Some(now) = now { code.hash { (now) } } @else { "–" } }
                        }
                    }
                }
            }
            @if pins.len() > ENTRIES { p.note { (ENTRIES) " of " (pins.len()) " triggers are shown." } }
        }
    };
    section("triggers", "Triggers", &html! {}, &body)
}

fn foreign_keys(rule: &Rule, target: &Target) -> Markup {
    let allowed = listed(rule.dependants.as_ref());
    let effect = |kind: char| match kind {
        'c' => "follows: rows are deleted or changed too",
        'n' => "is set to null",
        'd' => "is set to its default",
        _ => "stops the write",
    };
    let is_allowed = |key: &ForeignKey| allowed.iter().any(|table| table.split(':').next() == Some(key.child.as_str()));
    let body = html! {
        @if target.foreign_keys.is_empty() { p { "No other table refers to this one." } } @else {
            table.table role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Table that refers here", "On delete", "On update", "Dependant"] {
                            th role="columnheader" scope="col" { (heading) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for key in target.foreign_keys.iter().take(ENTRIES) {
                        tr role="row" {
                            td role="cell" {
                                code { bdi { (visible(&key.child)) } } br;
                                span.note { bdi { (visible(&shortened(&key.child_columns.join(", "), CELL_BYTES))) } }
                            }
                            td role="cell" data-label="On delete" { (effect(key.on_delete)) }
                            td role="cell" data-label="On update" { (effect(key.on_update)) }
                            td role="cell" data-label="Dependant" { @if is_allowed(key) { "allowed" } @else { span.note { "not allowed" } } }
                        }
                    }
                }
            }
        }
    };
    section("foreign-keys", "Foreign keys", &html! {}, &body)
}

fn changes(changes: &[RuleChange]) -> Markup {
    let body = html! {
        @if changes.is_empty() { p { "None is recorded." } }
        ol.timeline {
            @for change in changes {
                li {
                    (icon("table", "quiet"))
                    span { (person(&change.actor)) " " (what(change)) }
                    (time(&change.timestamp))
                }
            }
        }
    };
    section("changes", "Changes", &html! { p.note { "newest first" } }, &body)
}

/// What a change did, as the end of a sentence.
fn what(change: &RuleChange) -> Markup {
    if change.kind == "rule.deleted" {
        return html! { "deleted the rule: plans may not write the table any more" };
    }
    let payload: Value = serde_json::from_str(change.payload.get()).unwrap_or_default();
    let (before, after) = (fields(&payload["before"]), fields(&payload["after"]));
    if before.is_empty() {
        return html! { "allowed plans to write the table" };
    }
    let names: BTreeSet<&String> = before.iter().chain(&after).map(|(name, _)| name).collect();
    let value =
        |of: &[(String, Value)], name: &String| of.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let changed: Vec<&String> = names.into_iter().filter(|name| value(&before, name) != value(&after, name)).collect();
    html! {
        @if changed.is_empty() { "set the rule again" } @else {
            "changed "
            @for (index, name) in changed.iter().take(ENTRIES).enumerate() {
                @if index > 0 { ", " }
                b { bdi { (visible(name)) } }
                @if let Some(value) = value(&after, name) { " to " code { bdi { (visible(&shortened(&value.to_string(), CELL_BYTES))) } } }
            }
        }
    }
}

/// The fields of a rule in an event. Those of `constraints` count as its own.
fn fields(rule: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in rule.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) if name == "constraints" => {
                found.extend(inner.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            value => found.push((name.clone(), value.clone())),
        }
    }
    found.retain(|(name, value)| !value.is_null() && !["id", "created_at", "updated_at"].contains(&name.as_str()));
    found
}

fn ops(ops: &[Op]) -> String {
    ops.iter().map(|op| op.name()).collect::<Vec<_>>().join(", ")
}

/// `a, b and c`.
fn joined(mut words: Vec<&str>, last: &str) -> String {
    let Some(end) = words.pop() else { return String::new() };
    if words.is_empty() { end.to_owned() } else { format!("{} {last} {end}", words.join(", ")) }
}

/// Entries of a list, or names with numbers of an object. A malformed value is one entry, as it is stored.
fn listed(value: Option<&Value>) -> Vec<String> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
        }
        Some(Value::Object(entries)) => entries.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        Some(other) => vec![shortened(&other.to_string(), CELL_BYTES)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_as_in_a_sentence() {
        assert_eq!(joined(vec!["a", "b", "c"], "and"), "a, b and c");
        assert_eq!(joined(vec!["a", "b"], "or"), "a or b");
        assert_eq!((joined(vec!["a"], "or"), joined(vec![], "or")), ("a".to_owned(), String::new()));
    }
}
