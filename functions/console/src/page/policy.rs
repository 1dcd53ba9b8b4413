//! The policy: what it demands in words, how it changed, and the form for its next version.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::{Map, Value};
use shared::db::console::PolicyHistory;
use shared::domain::Policy;
use shared::domain::bounds::shortened;
use shared::domain::policy::{GatePolicy, Network, OnWeakening, Sandbox, TrustedBase};
use shared::view::PolicyVersion;

use super::format;
use super::layout::{Base, Layout, Part, layout};
use super::parts::{actor_field, blank, facts, fold, head, many, notice, section, time};
use super::source::visible;
use super::{policy_approvals, policy_artifacts, policy_models};

/// The policy, and how to show it.
#[derive(Debug, Clone, Copy)]
pub struct PolicyPage<'a> {
    pub base: Base,
    /// The token for the form.
    pub token: &'a str,
    pub history: &'a PolicyHistory,
    /// A version that was not set.
    pub typed: Option<TypedPolicy<'a>>,
}

/// A version that was not set, with what was typed.
#[derive(Debug, Clone, Copy)]
pub struct TypedPolicy<'a> {
    pub document: &'a str,
    pub actor: &'a str,
    pub reason: &'a str,
    pub why: &'a str,
}

/// Length of a value in the history.
const VALUE_BYTES: usize = 400;
/// Entries of a list of trusted bases or repositories that are shown.
const ENTRIES: usize = 10;

/// `GET /ui/policy`.
pub fn policy_page(page: &PolicyPage<'_>) -> String {
    let history = page.history;
    let content = html! {
        @if let Some(typed) = page.typed {
            (notice("bad", "bad", "alert", &html! { p { b { "Nothing was changed. " } bdi { (visible(typed.why)) } } }))
        }
        @match &history.current {
            None => {
                (none())
                (change(page))
            }
            Some(current) => {
                (head(&html! { "Policy" }, &facts([
                    html! { "version " b { (current.version) } },
                    html! { "set by " b { bdi { (visible(&current.changed_by)) } } ", " (time(&current.created_at)) },
                    html! { "counts for every gate of the tenant" },
                ]), None))
                @if let Some(reason) = &current.reason { p.quote { bdi { (visible(reason)) } } }
                div.columns {
                    div { (demands(&current.document)) (change(page)) }
                    div { (versions(page)) }
                }
            }
        }
    };
    layout(&Layout { part: Part::Policy, waiting: history.waiting, ..Layout::new(page.base, "Policy") }, &content)
}

fn none() -> Markup {
    blank(
        "No policy is set",
        &html! {
            p.prose {
                "Gates follow the defaults: a person decides when a change weakens its own checks, gates run without network, and a "
                "plan may name any base. Set a policy to demand more, whatever a plan says."
            }
        },
    )
}

/// The fields with their values and what they mean.
fn demands(document: &Map<String, Value>) -> Markup {
    let Ok(policy) = Policy::parse(&Value::Object(document.clone()), "") else {
        let why =
            html! { p { b { "This version cannot read the policy. " } "Gates fail until a readable one is set." } };
        return html! { (notice("bad", "bad", "alert", &why)) pre.output { (visible(&format!("{:#}", Value::Object(document.clone())))) } };
    };
    let set = gates_of(document);
    html! {
        (table("demands", "What gates demand", &rows(&policy.gates), &set))
        (table("approvals", "What approvals demand", &policy_approvals::rows(&policy.approvals), &set))
        (table("models", "Models and money", &policy_models::rows(&policy.models), &set))
        (table("artifacts", "How long artifacts are kept", &policy_artifacts::rows(&policy.artifacts), &set))
    }
}

fn table(id: &str, title: &str, rows: &[Row], set: &Map<String, Value>) -> Markup {
    let is_set = |name: &str| set.contains_key(name);
    let count = rows.iter().filter(|(_, name, ..)| is_set(name)).count();
    let body = html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" { @for heading in ["Rule", "Value", "Which means"] { th role="columnheader" scope="col" { (heading) } } }
            }
            tbody role="rowgroup" {
                @for (words, name, value, means) in rows {
                    tr role="row" {
                        td role="cell" { b { (words) } br; code.note { (name) } }
                        td role="cell" data-label="Value" {
                            span { (value) @if !is_set(name) { " " span.note { "default" } } }
                        }
                        td role="cell" data-label="Means" { (means) }
                    }
                }
            }
        }
    };
    section(id, title, &html! { p.note { (count) " set, " (rows.len() - count) " defaults" } }, &body)
}

/// Words, field, value and meaning of each rule.
pub(super) type Row = (&'static str, &'static str, Markup, String);

fn rows(gates: &GatePolicy) -> [Row; 9] {
    let word = |text: &str| html! { code { (text) } };
    let flag = |flag: bool| word(if flag { "true" } else { "false" });
    let (weakening, on_weakening) = match gates.on_weakening {
        OnWeakening::Ask => ("ask", "a person decides"),
        OnWeakening::Fail => ("fail", "the gate fails"),
    };
    let base = if gates.require_base {
        "a gate without a base fails"
    } else {
        "without a base a change defines its own checks"
    };
    let network = serde_json::to_value(gates.network).unwrap_or_default();
    let on_network = match gates.network {
        Network::Never => "gates run without network",
        Network::WhenAsked => "a gate has network if its definition asks for it",
    };
    let (sandbox, isolation) = match gates.minimum_sandbox {
        Sandbox::Limits => ("limits", "limits on resources are enough"),
        Sandbox::Landlock => ("landlock", "limits alone are not enough"),
        Sandbox::Namespaces => ("namespaces", "tested code needs namespaces of its own"),
    };
    let reuse = if gates.reuse_evidence { "evidence of the same inputs counts again" } else { "every gate runs anew" };
    let threshold = gates.minimum_threshold.map_or_else(
        || "definitions choose".to_owned(),
        |ratio| format!("no definition may demand less than {}", format::percent(ratio)),
    );
    let longest =
        gates.max_timeout_s.map_or_else(|| "no limit".to_owned(), |seconds| format!("a gate ends after {seconds} s"));
    let repositories = match gates.repositories.len() {
        0 => "workspace:git may fetch nothing".to_owned(),
        count => format!("workspace:git may fetch what begins with {}", many(count as u64, "URL", "of these URLs")),
    };
    let number = |text: Option<String>| html! { code { (text.as_deref().unwrap_or("none")) } };
    [
        ("When checks get weaker", "on_weakening", word(weakening), on_weakening.to_owned()),
        ("A base", "require_base", flag(gates.require_base), base.to_owned()),
        ("Trusted bases", "trusted_base", bases(&gates.trusted_base), trusted(&gates.trusted_base)),
        ("Network", "network", word(network.as_str().unwrap_or_default()), on_network.to_owned()),
        ("Isolation", "minimum_sandbox", word(sandbox), isolation.to_owned()),
        ("Reused evidence", "reuse_evidence", flag(gates.reuse_evidence), reuse.to_owned()),
        ("Repositories", "repositories", entries(&gates.repositories), repositories),
        (
            "Lowest coverage",
            "minimum_threshold",
            number(gates.minimum_threshold.map(|ratio| ratio.to_string())),
            threshold,
        ),
        ("Longest gate", "max_timeout_s", number(gates.max_timeout_s.map(|seconds| seconds.to_string())), longest),
    ]
}

fn bases(trusted: &TrustedBase) -> Markup {
    match trusted {
        TrustedBase::Any => html! { code { "any" } },
        TrustedBase::Git => html! { code { "git" } },
        TrustedBase::Listed(digests) => entries(digests),
    }
}

fn trusted(trusted: &TrustedBase) -> String {
    match trusted {
        TrustedBase::Any => "the plan may name any base".to_owned(),
        TrustedBase::Git => "only bases of a repository's default branch define gates".to_owned(),
        TrustedBase::Listed(digests) => {
            format!("only {} define gates", many(digests.len() as u64, "listed base", "listed bases"))
        }
    }
}

fn entries(list: &[String]) -> Markup {
    html! {
        @if list.is_empty() { code { "none" } }
        @for entry in list.iter().take(ENTRIES) { code { bdi { (visible(entry)) } } br; }
        @if list.len() > ENTRIES { span.note { "and " (list.len() - ENTRIES) " more" } }
    }
}

fn versions(page: &PolicyPage<'_>) -> Markup {
    let history = page.history;
    let older = history.versions.iter().skip(1).chain(&history.before).map(Some).chain([None]);
    let body = html! {
        @if history.versions.is_empty() { p { "No older versions." } }
        ol.rows { @for (version, older) in history.versions.iter().zip(older) { (entry(version, older)) } }
        @if history.is_continuation || history.before.is_some() {
            nav.pages aria-label="Pages of the history" {
                @if history.is_continuation { a href=(page.base.to("policy")) { "Newest versions" } }
                @if let (Some(_), Some(last)) = (&history.before, history.versions.last()) {
                    a href={ (page.base.to("policy")) "?after=" (last.version) } rel="next" { "Older versions" }
                }
            }
        }
    };
    section("history", "History", &html! { p.note { "newest first" } }, &body)
}

fn entry(version: &PolicyVersion, older: Option<&PolicyVersion>) -> Markup {
    let by = html! { "by " bdi { (visible(&version.changed_by)) } ", " (time(&version.created_at)) };
    html! {
        li {
            p { b { "Version " (version.version) } " " span.note { (by) } }
            @if let Some(reason) = &version.reason { p.note { bdi { (visible(reason)) } } }
            div.code.slight {
                @for (is_added, text) in changes(older.map(|older| &older.document), &version.document) {
                    @let (tone, sign, word) = if is_added { ("good", "+", "added: ") } else { ("bad", "−", "removed: ") };
                    div class={ "line " (tone) } {
                        span.n {}
                        span class={ "sign " (tone) } { span aria-hidden="true" { (sign) } span.hidden-text { (word) } }
                        code { (visible(&text)) }
                    }
                }
            }
        }
    }
}

/// What a version removed and added, as lines.
fn changes(older: Option<&Map<String, Value>>, newer: &Map<String, Value>) -> Vec<(bool, String)> {
    let nothing = Map::new();
    let (older, newer) = (older.map(gates_of).unwrap_or_default(), gates_of(newer));
    let (older, newer) = (if older.is_empty() { &nothing } else { &older }, &newer);
    let names: BTreeSet<&String> = older.keys().chain(newer.keys()).collect();
    let line = |name: &str, value: &Value| shortened(&format!("{name}: {}", in_yaml(value)), VALUE_BYTES);
    let mut lines = Vec::new();
    for name in names {
        let (before, after) = (older.get(name), newer.get(name));
        if before != after {
            lines.extend(before.map(|value| (false, line(name, value))));
            lines.extend(after.map(|value| (true, line(name, value))));
        }
    }
    lines
}

/// A value without the quotes of plain words.
fn in_yaml(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(in_yaml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The fields of a document that are set: those of `gates` by their names, those of `approvals` with that before them.
/// Whatever else it has is kept under its own name.
fn gates_of(document: &Map<String, Value>) -> Map<String, Value> {
    let mut found = Map::new();
    for (name, value) in document {
        match value {
            Value::Object(gates) if name == "gates" => found.extend(gates.clone()),
            Value::Object(fields) if name == "approvals" => {
                found.extend(fields.iter().map(|(field, value)| (format!("approvals.{field}"), value.clone())));
            }
            Value::Object(fields) if name == "models" => {
                let is_group = |field: &String| field == "budgets";
                found.extend(
                    fields
                        .iter()
                        .filter(|(field, _)| !is_group(field))
                        .map(|(field, value)| (format!("models.{field}"), value.clone())),
                );
                let budgets = fields.get("budgets").and_then(Value::as_object);
                found.extend(
                    budgets
                        .into_iter()
                        .flatten()
                        .map(|(field, value)| (format!("models.budgets.{field}"), value.clone())),
                );
            }
            Value::Null => {}
            value => drop(found.insert(name.clone(), value.clone())),
        }
    }
    found.retain(|_, value| !value.is_null());
    found
}

fn change(page: &PolicyPage<'_>) -> Markup {
    let current = page.history.current.as_ref();
    let version = current.map_or(0, |current| current.version);
    let document = current.map_or_else(
        || "{\n  \"gates\": {\n    \"require_base\": true\n  }\n}".to_owned(),
        |current| format!("{:#}", Value::Object(current.document.clone())),
    );
    let typed = page.typed;
    let form = html! {
        form.form.editor method="post" action=(page.base.to("policy")) {
            input type="hidden" name="csrf" value=(page.token);
            input type="hidden" name="version" value=(version);
            div.field {
                label for="document" { "Policy " span.note { "the whole document, JSON or YAML; what is left out has its default" } }
                textarea #document name="document" rows="12" spellcheck="false" autocapitalize="off" autocomplete="off" required {
                    "\n" (typed.map_or(document.as_str(), |typed| typed.document))
                }
            }
            (actor_field("policy-actor", typed.map_or("", |typed| typed.actor), None))
            div.field {
                label for="policy-reason" { "Reason " span.note { "recorded; everybody can read it" } }
                textarea #policy-reason name="reason" rows="2" maxlength="2000" required { (typed.map_or("", |typed| typed.reason)) }
            }
            div.actions { button.primary type="submit" { "Set version " (version + 1) } }
        }
    };
    let body =
        fold("Change the policy", "a new version; earlier ones are kept", typed.is_some() || version == 0, &form);
    section("change", "To change it", &html! {}, &body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_version_shows_what_it_removed_and_added() {
        let one = map(&json!({"gates": {"require_base": true, "minimum_sandbox": "namespaces", "network": null}}));
        let two = map(
            &json!({"gates": {"require_base": true, "minimum_sandbox": "landlock", "repositories": ["https://a.b"]}}),
        );
        let lines = |older: Option<&Map<String, Value>>, newer| {
            changes(older, newer)
                .into_iter()
                .map(|(added, text)| format!("{}{text}", if added { "+" } else { "-" }))
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(None, &one), ["+minimum_sandbox: namespaces", "+require_base: true"]);
        let expected = ["-minimum_sandbox: namespaces", "+minimum_sandbox: landlock", "+repositories: [https://a.b]"];
        assert_eq!(lines(Some(&one), &two), expected);
        assert_eq!(lines(Some(&two), &Map::new()).len(), 3);
    }

    #[test]
    fn every_field_of_a_policy_has_words() {
        let names: BTreeSet<&str> = rows(&GatePolicy::default()).iter().map(|row| row.1).collect();
        let fields: BTreeSet<&str> = shared::domain::policy::GATE_FIELDS.iter().map(|names| names[0]).collect();
        assert_eq!(names, fields);
    }
}
