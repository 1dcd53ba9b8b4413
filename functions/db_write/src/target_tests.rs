use serde::Deserialize;
use serde_json::{Value, json};
use shared::db::db_write::Effect;
use shared::view::ForeignKey;

use super::*;

fn target(kind: char) -> Target {
    let key = |parent: &str, child: &str, on_delete, on_update| ForeignKey {
        parent: format!("public.{parent}"),
        child: format!("public.{child}"),
        on_delete,
        on_update,
        parent_columns: vec!["id".into()],
        child_columns: vec!["parent_id".into()],
    };
    Target {
        oid: 1,
        table: "public.parent".into(),
        kind,
        counts: true,
        members: vec!["public.parent".into()],
        inherited: false,
        closed: Vec::new(),
        definer_views: Vec::new(),
        deferrable: Vec::new(),
        triggers: BTreeMap::new(),
        foreign_keys: vec![
            key("parent", "child", 'c', 'c'),
            key("child", "grandchild", 'n', 'a'),
            key("parent", "stranger", 'a', 'a'),
        ],
    }
}

fn rule(constraints: &Value) -> Rule {
    let mut stored = json!({"allowed_ops": ["insert", "update", "delete"]});
    stored.as_object_mut().unwrap().extend(constraints.as_object().cloned().unwrap());
    Rule::parse(&stored).unwrap_or_else(|_| panic!("a rule"))
}

fn operation(inputs: &Value) -> Operation {
    Operation::parse(inputs).unwrap_or_else(|_| panic!("an operation"))
}

fn delete() -> Operation {
    operation(&json!({"table": "public.parent", "op": "delete", "where": {"id": 1}}))
}

fn update(column: &str) -> Operation {
    operation(&json!({"table": "public.parent", "op": "update", "where": {"id": 1}, "set": {column: 2}}))
}

fn code(checked: Result<(), Refusal>) -> String {
    match checked {
        Ok(()) => "allowed".into(),
        Err(Refusal::Denied(error)) => error.code,
        Err(Refusal::Database(_)) => panic!("no database here"),
    }
}

#[test]
fn cascades_are_walked_from_the_operation() {
    let target = target('r');
    assert_eq!(cascades(&target, &delete()), ["public.child", "public.grandchild"].into());
    // The child keeps its own key when its parent's changes, so nothing goes on from there.
    assert_eq!(cascades(&target, &update("id")), ["public.child"].into());
    assert_eq!(cascades(&target, &update("name")), BTreeSet::new());
    let insert = operation(&json!({"table": "public.parent", "op": "insert", "values": [{"id": 1}]}));
    assert_eq!(cascades(&target, &insert), BTreeSet::new());
}

#[test]
fn what_is_no_plain_table_needs_to_be_allowed() {
    let none = rule(&json!({"dependants": {"public.child": 1, "public.grandchild": 1}}));
    assert_eq!(code(check_target(&target('r'), &delete(), &none)), "allowed");
    for kind in ['v', 'f', 'm', 'S', 'i'] {
        assert_eq!(code(check_target(&target(kind), &delete(), &none)), "target_not_allowed", "{kind}");
    }
    let open = rule(&json!({"dependants": {"public.child": 1, "public.grandchild": 1}, "allow": ["view"]}));
    assert_eq!(code(check_target(&target('v'), &delete(), &open)), "allowed");
    let refused = [
        Target { closed: vec!["nofx.run".into()], ..target('v') },
        Target { inherited: true, ..target('r') },
        Target { counts: false, ..target('r') },
        Target { definer_views: vec!["public.parent".into()], ..target('v') },
    ];
    for target in refused {
        assert_eq!(code(check_target(&target, &delete(), &open)), "target_not_allowed", "{target:?}");
    }
    assert_eq!(code(check_target(&target('r'), &delete(), &rule(&json!({})))), "cascade_not_allowed");
}

#[test]
fn a_trigger_runs_only_as_the_rule_has_seen_it() {
    let digest = "a".repeat(64);
    let triggers = BTreeMap::from([("public.parent.audit".to_owned(), digest.clone())]);
    let target = Target { triggers, foreign_keys: Vec::new(), ..target('r') };
    assert_eq!(code(check_target(&target, &delete(), &rule(&json!({})))), "trigger_not_allowed");
    let changed = rule(&json!({"triggers": {"public.parent.audit": "b".repeat(64)}}));
    assert_eq!(code(check_target(&target, &delete(), &changed)), "trigger_not_allowed");
    let pinned = rule(&json!({"triggers": {"public.parent.audit": digest}}));
    assert_eq!(code(check_target(&target, &delete(), &pinned)), "allowed");
    let deferrable = Target { deferrable: vec!["public.parent.audit".into()], ..target };
    assert_eq!(code(check_target(&deferrable, &delete(), &pinned)), "trigger_not_allowed");
}

#[test]
fn every_changed_row_is_accounted_for() {
    let before = target('r');
    let effect = |table: &str, inserted, updated, deleted| Effect {
        table: format!("public.{table}"),
        root: format!("public.{table}"),
        closed: false,
        inserted,
        updated,
        deleted,
    };
    let check = |effects: Vec<Effect>, constraints: Value, rows| {
        let account = Account { target: Some(before.clone()), effects, alters: false };
        code(check_account(&account, &before, &delete(), &rule(&constraints), rows))
    };
    let listed = json!({"dependants": {"public.child": 2}});
    assert_eq!(check(vec![effect("parent", 0, 0, 1)], json!({}), 1), "allowed");
    assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 0, 2)], listed.clone(), 1), "allowed");
    assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 1, 2)], listed, 1), "cascade_not_allowed");
    assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 0, 1)], json!({}), 1), "cascade_not_allowed");
    // A tree: its own rows cascade, as many as the rule allows.
    let own = json!({"dependants": {"public.parent": 2}});
    assert_eq!(check(vec![effect("parent", 0, 0, 3)], own.clone(), 1), "allowed");
    assert_eq!(check(vec![effect("parent", 0, 0, 4)], own, 1), "unexpected_effects");
    let ours = Effect { closed: true, ..effect("child", 1, 0, 0) };
    assert_eq!(
        check(vec![effect("parent", 0, 0, 1), ours], json!({"dependants": {"public.child": 9}}), 1),
        "cascade_not_allowed"
    );
    let truncated = Account { target: Some(before.clone()), effects: vec![effect("parent", 0, 0, 1)], alters: true };
    assert_eq!(code(check_account(&truncated, &before, &delete(), &rule(&json!({})), 1)), "unexpected_effects");
    // The server counts nothing, or a trigger did more.
    assert_eq!(check(vec![], json!({}), 1), "unexpected_effects");
    assert_eq!(check(vec![effect("parent", 1, 0, 1)], json!({}), 1), "unexpected_effects");
    let moved = Account { target: Some(before.clone()), effects: vec![effect("parent", 2, 1, 2)], alters: false };
    assert_eq!(code(check_account(&moved, &before, &update("name"), &rule(&json!({})), 3)), "allowed");
    let replaced = Account { target: Some(Target { oid: 2, ..before.clone() }), effects: Vec::new(), alters: false };
    assert_eq!(code(check_account(&replaced, &before, &delete(), &rule(&json!({})), 0)), "target_changed");
}

#[test]
fn a_role_with_more_than_its_own_rights_does_not_write() {
    let role = |state: &str| Role::deserialize(json!({"name": "w", "state": state})).unwrap();
    assert_eq!(code(check_role(&role("usable"))), "allowed");
    for state in ["missing", "superuser", "owner", "reaches_us", "no_member"] {
        assert_eq!(code(check_role(&role(state))), "role_not_allowed", "{state}");
    }
}
