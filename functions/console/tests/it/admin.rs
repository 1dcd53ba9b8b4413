//! Pages for operators: policy, write rules, usage, health.

use axum::body::Body;
use axum::http::{Request, header};
use console::page::{
    Base, HealthPage, Letters, PolicyPage, TypedPolicy, health_page, policy_page, rule_list, rule_page, usage_page,
};
use serde_json::{Map, Value, json};
use shared::db::console::{
    DayUsage, FailureCode, HandlerSteps, Health, LostWorker, ModelUsage, PolicyHistory, RuleList, RuleRow, RunUsage,
    Sweep, Tokens, Usage,
};
use shared::domain::rule::Op;
use shared::domain::{StepId, StepStatus, Timestamp};
use shared::view::{DeadLetter, DeadLetterStep, PolicyVersion, QueueDepth, RuleDetail};
use uuid::Uuid;

use crate::support::{Answer, HOSTILE, assert_inert, get, run_id, send};

fn at(text: &str) -> Timestamp {
    Timestamp(text.into())
}

fn map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).expect("an object")
}

fn version(number: u32, text: &str, document: Value) -> PolicyVersion {
    PolicyVersion {
        version: number,
        document: map(document),
        changed_by: text.into(),
        reason: Some(text.into()),
        created_at: at(text),
    }
}

fn history(versions: Vec<PolicyVersion>) -> PolicyHistory {
    PolicyHistory { current: versions.first().cloned(), versions, before: None, is_continuation: false, waiting: 2 }
}

fn policy(history: &PolicyHistory, typed: Option<TypedPolicy<'_>>) -> String {
    policy_page(&PolicyPage { base: Base::TOP, token: "t", history, typed })
}

fn steps(handler: &str) -> HandlerSteps {
    HandlerSteps { handler: handler.into(), ready: 3, running: 2, ..HandlerSteps::default() }
}

fn healthy() -> Health {
    Health {
        handlers: vec![steps("echo")],
        sweep: Some(Sweep { ended_at: at("x"), ago_ms: 20_000, duration_ms: 12, failed: false, report: json!({}) }),
        ..Health::default()
    }
}

fn depth(handler: &str, dead_letters: u64) -> QueueDepth {
    QueueDepth { handler: handler.into(), waiting: 1, in_flight: 2, delayed: 3, dead_letters }
}

fn letter(text: &str, has_step: bool) -> DeadLetter {
    let step = DeadLetterStep {
        id: StepId(Uuid::from_u128(9)),
        name: text.into(),
        status: StepStatus::Ready,
        run_id: run_id(),
        goal: text.into(),
    };
    DeadLetter {
        id: text.into(),
        sent_at: Some(at(text)),
        reason: text.into(),
        step: has_step.then_some(step),
        body: Some(text.into()),
    }
}

fn health(health: &Health, queues: Option<&[QueueDepth]>, letters: &[Letters]) -> String {
    let page = HealthPage {
        base: Base::TOP,
        token: "t",
        health,
        database_ms: 4,
        queues,
        letters,
        redriven: None,
        refused: None,
    };
    health_page(&page)
}

fn rule(text: &str) -> RuleDetail {
    let value = json!({
        "id": Uuid::nil(), "table": text, "allowed_ops": ["insert", "update"], "columns": [text, "b"], "key": [text],
        "max_rows": 50, "role": text, "triggers": {"public.t.same": "11", "public.t.old": "22", text: "33"},
        "dependants": {"public.lines": 5, text: 1}, "allow": [text], "created_at": text, "updated_at": text,
        "target": {
            "oid": 1, "table": text, "kind": "r", "counts": true, "members": [text], "inherited": false, "closed": [],
            "definer_views": [], "triggers": {"public.t.same": "11", "public.t.old": "99", "public.t.new": "44"},
            "deferrable": [],
            "foreign_keys": [{"parent": text, "child": "public.lines", "on_delete": "c", "on_update": "a",
                              "parent_columns": ["id"], "child_columns": [text]}],
        },
        "changes": [
            {"type": "rule.set", "actor": text, "timestamp": text, "payload": {
                "before": {"allowed_ops": ["insert"], "constraints": {"max_rows": 5}},
                "after": {"allowed_ops": ["insert", "update"], "constraints": {"max_rows": 50, "role": text}}}},
            {"type": "rule.set", "actor": text, "timestamp": text, "payload": {"before": null, "after": {"allowed_ops": []}}},
            {"type": "rule.deleted", "actor": text, "timestamp": text, "payload": {"before": {}, "after": null}},
        ],
    });
    // Through text, because a payload is kept as it was written.
    serde_json::from_str(&value.to_string()).expect("a rule")
}

fn usage(text: &str) -> Usage {
    let tokens = Tokens {
        calls: 3,
        templates: 4,
        input_tokens: 1_200,
        output_tokens: 300,
        cached_tokens: 7,
        unusable: 1,
        uncounted: 1,
    };
    Usage {
        total: tokens,
        models: vec![ModelUsage { provider: text.into(), model: text.into(), tokens }],
        days: vec![DayUsage { day: "2026-11-23".into(), tokens }],
        runs: vec![RunUsage { run_id: run_id(), goal: text.into(), tokens }],
        truncated: true,
        waiting: 0,
    }
}

#[test]
fn hostile_text_is_escaped_on_every_page() {
    for text in HOSTILE {
        let versions = vec![
            version(2, text, json!({"gates": {"repositories": [text]}, text: text})),
            version(1, text, json!({"gates": {"require_base": true}})),
        ];
        let typed = TypedPolicy { document: text, actor: text, reason: text, why: text };
        assert_inert(&policy(&history(versions.clone()), Some(typed)), text);
        assert_inert(&policy(&history(versions), None), text);

        let row = RuleRow {
            id: Uuid::nil(),
            table: text.into(),
            allowed_ops: vec![Op::Insert],
            columns: Some(json!([text])),
            max_rows: json!(text),
            changed_by: Some(text.into()),
            changed_at: at(text),
        };
        let rules = RuleList { rules: vec![row], next: Some(Uuid::nil()), is_continuation: true, waiting: 0 };
        assert_inert(&rule_list(Base::TOP, &rules), text);
        assert_inert(&rule_page(Base::RUN, &rule(text), 0), text);
        assert_inert(&usage_page(Base::TOP, &usage(text)), text);

        let mut sick = healthy();
        sick.lost = vec![LostWorker { run_id: run_id(), step: text.into(), handler: "echo".into(), at: at(text) }];
        sick.failures = vec![FailureCode { code: text.into(), count: 2 }];
        let messages = vec![letter(text, true), letter(text, false)];
        let letters = [Letters { handler: "echo".into(), total: 12, messages }];
        assert_inert(&health(&sick, Some(&[depth("echo", 12)]), &letters), text);
    }
}

#[test]
fn a_policy_says_in_words_what_it_demands_and_how_it_changed() {
    let one = version(1, "ann", json!({"gates": {"minimum_threshold": 0.7}}));
    let two = version(2, "cai", json!({"gates": {"minimum_threshold": 0.8, "require_base": true}}));
    let page = policy(&history(vec![two, one]), None);
    for words in [
        "version <b>2</b>",
        "2 set, 7 defaults",
        "a gate without a base fails",
        "no definition may demand less than 80\u{a0}%",
        "removed: </span></span><code>minimum_threshold: 0.7</code>",
        "added: </span></span><code>minimum_threshold: 0.8</code>",
        "added: </span></span><code>require_base: true</code>",
        "name=\"version\" value=\"2\"",
        "Set version 3",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let none = policy(&PolicyHistory::default(), None);
    assert!(none.contains("No policy is set") && none.contains("name=\"version\" value=\"0\""), "{none}");
    let unreadable = policy(&history(vec![version(1, "x", json!({"gates": {"network": "always"}}))]), None);
    assert!(unreadable.contains("This version cannot read the policy"), "{unreadable}");
}

#[test]
fn a_rule_says_what_it_allows_and_which_triggers_stop_writes() {
    let page = rule_page(Base::RUN, &rule("public.t"), 0);
    for words in [
        "Plans may insert and update up to 50 rows a write, by ",
        "They may not delete.",
        "2 triggers are not pinned as defined now",
        ">changed<",
        ">not pinned<",
        "does not exist any more",
        "follows: rows are deleted or changed too",
        ">allowed<",
        "allowed plans to write the table",
        "<b><bdi>max_rows</bdi></b> to <code><bdi>50</bdi></code>",
        "deleted the rule",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let mut gone = rule("public.t");
    gone.target = None;
    assert!(rule_page(Base::RUN, &gone, 0).contains("There is no such table."));
    assert!(rule_list(Base::TOP, &RuleList::default()).contains("Plans may write no table"));
}

#[test]
fn usage_shows_tokens_and_never_money() {
    let page = usage_page(Base::TOP, &usage("model-x"));
    for words in ["1,200", "3 calls", "1 not usable", "Only the newest 20,000", "1 answer came without", "2026-11-23"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains('$') && !page.contains("USD") && !page.contains('€'));
    assert!(page.contains("<b>3 calls</b>") && page.contains("<b>4 templates</b> filled in without a model"), "{page}");
    assert!(usage_page(Base::TOP, &Usage::default()).contains("No model was asked"));
    let templates = Tokens { templates: 4, ..Tokens::default() };
    let page = usage_page(Base::TOP, &Usage { total: templates, ..Usage::default() });
    assert!(page.contains("<b>0 calls</b>") && page.contains("No model was called."), "{page}");
}

#[test]
fn the_most_urgent_fact_of_the_health_comes_first() {
    let queues = [depth("echo", 0)];
    let lead = |page: &str| {
        let lead = page.split("<p class=\"lead\">").nth(1).expect("a band");
        lead.split("</p>").next().unwrap_or_default().replace("<b>", "").replace("</b>", "")
    };
    let of = |change: fn(&mut Health)| {
        let mut changed = healthy();
        change(&mut changed);
        lead(&health(&changed, Some(&queues), &[]))
    };
    assert_eq!(of(|_| {}), "Nothing is stuck");
    assert_eq!(of(|health| health.sweep = None), "The sweeper has not run yet");
    let late = |health: &mut Health| health.sweep.as_mut().expect("a sweep").ago_ms = 200_000;
    assert_eq!(of(late), "The sweeper has not run for more than 3 minutes");
    assert_eq!(of(|health| health.sweep.as_mut().expect("a sweep").failed = true), "The last sweep failed in part");
    assert_eq!(of(|health| health.handlers[0].overdue = 1), "1 step runs without a worker");
    assert_eq!(of(|health| health.handlers[0].waits_ms = Some(400_000)), "No worker claims the steps of echo");
    let letters = [Letters { handler: "gate".into(), total: 2, messages: vec![letter("x", false)] }];
    let dead = health(&healthy(), Some(&[depth("gate", 2)]), &letters);
    assert_eq!(lead(&dead), "2 messages are in the dead-letter queue of gate");
    assert!(dead.contains("action=\"health/gate/redrive\"") && dead.contains("1 of them are shown"), "{dead}");
    assert_eq!(lead(&health(&healthy(), None, &[])), "SQS does not answer");
}

#[tokio::test]
async fn pages_without_a_database_are_errors_and_forms_need_their_token() {
    for path in ["/ui/policy", "/ui/rules", "/ui/rules/public.t", "/ui/usage", "/ui/health"] {
        assert_eq!(get(path).await.status, 503, "{path}");
    }
    for path in ["/ui/policy?after=x", "/ui/rules?before=1"] {
        assert_eq!(get(path).await.status, 400, "{path}");
    }
    let post = async |path: &str, body: &str, cookie: &str| -> Answer {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .header(header::COOKIE, cookie);
        send(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    let token = "0123456789abcdef0123456789abcdef";
    let form = format!("actor=ann&csrf={token}");
    for path in ["/ui/policy", "/ui/health/echo/redrive"] {
        assert_eq!(post(path, &form, "").await.status, 403, "{path}");
        assert_eq!(post(path, "actor=ann", &format!("nofx-csrf={token}")).await.status, 403, "{path}");
        assert_eq!(post(path, &form, &format!("nofx-csrf={token}")).await.status, 503, "{path}");
    }
}
