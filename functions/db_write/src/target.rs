//! What a table's name refers to, and what a write changed besides its own rows. The facts come from the catalog, and
//! the rule judges them.

use std::collections::{BTreeMap, BTreeSet};

use shared::db::db_write::{Role, RoleState, WriteReport};
use shared::domain::rule::{Allowance, Rule};
use shared::view::Target;

use crate::operation::{Kind, Operation};
use crate::refusal::Refusal;

/// Refuses a role with more than its own rights.
pub(crate) fn check_role(role: &Role) -> Result<(), Refusal> {
    let Role { name, .. } = role;
    let why = match role.state {
        RoleState::Usable => return Ok(()),
        RoleState::Missing => format!("the rule's role {name} does not exist"),
        RoleState::Superuser => format!(
            "the rule's role {name}, or a role that it is a member of, is a superuser or bypasses row level security"
        ),
        RoleState::ReachesNofx => format!("the rule's role {name} can use the schema nofx"),
        RoleState::Owner => format!("the rule's role {name} owns the table, so its policies would not apply"),
        RoleState::NotMember => {
            format!("the worker is not a member of the rule's role {name}; grant {name} to its login role")
        }
    };
    Err(Refusal::denied("role_not_allowed", why))
}

/// Refuses a target that could do more than the rule says.
pub(crate) fn check_target(target: &Target, operation: &Operation, rule: &Rule) -> Result<(), Refusal> {
    let table = &target.table;
    let refused = |why: String| Err(Refusal::denied("target_not_allowed", why));
    let needed = match target.kind {
        'r' | 'p' => None,
        'v' => Some((Allowance::View, "a view")),
        'f' => Some((Allowance::ForeignTable, "a foreign table")),
        _ => return refused(format!("{table} is not a table")),
    };
    if let Some((allowance, what)) = needed
        && !rule.allows(allowance)
    {
        return refused(format!("{table} is {what}, and the rule does not allow that"));
    }
    if target.inherited && !rule.allows(Allowance::Inheritance) {
        return refused(format!("other tables inherit from {table}, and the rule does not allow that"));
    }
    if let Some(closed) = target.closed.first() {
        return refused(format!("{table} reaches {closed}, which plans may not write"));
    }
    if let Some(view) = target.definer_views.first() {
        let message = format!("the view {view} runs with its owner's rights; set security_invoker = true on it");
        return refused(message);
    }
    if !target.counts {
        return refused("the server does not count changed rows (track_counts is off)".into());
    }
    check_triggers(target, rule)?;
    let reached = cascades(target, operation);
    match reached.iter().find(|child| !rule.dependants.contains_key(**child)) {
        None => Ok(()),
        Some(child) => {
            let op = operation.kind.op().name();
            let message = format!("{op} on {table} cascades to {child}, which the rule does not list in dependants");
            Err(Refusal::denied("cascade_not_allowed", message))
        }
    }
}

fn check_triggers(target: &Target, rule: &Rule) -> Result<(), Refusal> {
    if let Some(name) = target.deferrable.first() {
        let message = format!("the trigger {name} is deferrable, so it could run after rows were counted");
        return Err(Refusal::denied("trigger_not_allowed", message));
    }
    for (name, digest) in &target.triggers {
        let message = match rule.triggers.get(name) {
            Some(pinned) if pinned == digest => continue,
            Some(_) => format!("{name} has changed since it was pinned; its sha256 is now {digest}"),
            None => format!("the rule does not pin the trigger or rewrite rule {name} (sha256 {digest})"),
        };
        return Err(Refusal::denied("trigger_not_allowed", message));
    }
    Ok(())
}

/// Tables that foreign keys would change along with this operation.
fn cascades<'a>(target: &'a Target, operation: &Operation) -> BTreeSet<&'a str> {
    // Tables to look from, with the columns that change there; all of them where rows go away.
    let own = |columns: Option<BTreeSet<&'_ str>>| -> Vec<(&str, Option<BTreeSet<String>>)> {
        let columns = columns.map(|columns| columns.into_iter().map(str::to_owned).collect());
        target.members.iter().map(|member| (member.as_str(), columns.clone())).collect()
    };
    let mut open = match &operation.kind {
        Kind::Insert { .. } => return BTreeSet::new(),
        Kind::Update { set, .. } => own(Some(set.keys().map(String::as_str).collect())),
        Kind::Delete { .. } => own(None),
    };
    let (mut reached, mut seen) = (BTreeSet::new(), BTreeSet::new());
    while let Some((table, columns)) = open.pop() {
        if !seen.insert((table, columns.clone())) {
            continue;
        }
        for key in target.foreign_keys.iter().filter(|key| key.parent == table) {
            let changes = match &columns {
                None => key.on_delete,
                Some(columns) if key.parent_columns.iter().any(|column| columns.contains(column)) => key.on_update,
                Some(_) => continue,
            };
            if !matches!(changes, 'c' | 'n' | 'd') {
                continue;
            }
            reached.insert(key.child.as_str());
            let gone = columns.is_none() && changes == 'c';
            open.push((&key.child, (!gone).then(|| key.child_columns.iter().cloned().collect())));
        }
    }
    reached
}

/// Refuses a write that did anything but what was asked: `rows` rows of its own, and what the rule lists.
pub(crate) fn check_account(
    account: &WriteReport,
    before: &Target,
    operation: &Operation,
    rule: &Rule,
    rows: u64,
) -> Result<(), Refusal> {
    if account.target.as_ref() != Some(before) {
        let message = format!("{} was altered during the write", before.table);
        return Err(Refusal::denied("target_changed", message));
    }
    if account.alters {
        let message = "a trigger or function truncated or altered a table; such changes cannot be counted";
        return Err(Refusal::denied("unexpected_effects", message));
    }
    let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
    let mut others: BTreeMap<&str, u64> = BTreeMap::new();
    for effect in &account.effects {
        if effect.closed {
            let message = format!("it would also change {}, which plans may not write", effect.table);
            return Err(Refusal::denied("cascade_not_allowed", message));
        }
        if before.members.contains(&effect.table) {
            inserted += effect.inserted;
            updated += effect.updated;
            deleted += effect.deleted;
        } else {
            *others.entry(&effect.root).or_default() += effect.inserted + effect.updated + effect.deleted;
        }
    }
    let as_asked = match operation.kind {
        Kind::Insert { .. } => (inserted, updated, deleted) == (rows, 0, 0),
        // A row that moves to another partition is deleted here and inserted there.
        Kind::Update { .. } => inserted == deleted && updated + inserted == rows,
        Kind::Delete { .. } => (inserted, updated, deleted) == (0, 0, rows),
    };
    // A key of the table to itself may cascade within it.
    let beyond = (inserted + updated + deleted).saturating_sub(rows);
    let listed = rule.dependants.get(&before.table).is_some_and(|most| beyond <= *most);
    // Rows behind a view are those of its tables, and those of a foreign table are counted elsewhere.
    if matches!(before.kind, 'r' | 'p') && !as_asked && !listed {
        let message = format!(
            "the write inserted {inserted}, updated {updated} and deleted {deleted} rows of {}; it was meant to touch {rows}",
            before.table
        );
        return Err(Refusal::denied("unexpected_effects", message));
    }
    for (table, changed) in others {
        let message = match rule.dependants.get(table) {
            Some(most) if changed <= *most => continue,
            Some(most) => format!("it would also change {changed} rows of {table}; the rule allows {most}"),
            None => {
                format!("it would also change {changed} rows of {table}, which the rule does not list in dependants")
            }
        };
        return Err(Refusal::denied("cascade_not_allowed", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
            let account = WriteReport { target: Some(before.clone()), effects, alters: false };
            code(check_account(&account, &before, &delete(), &rule(&constraints), rows))
        };
        let listed = json!({"dependants": {"public.child": 2}});
        assert_eq!(check(vec![effect("parent", 0, 0, 1)], json!({}), 1), "allowed");
        assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 0, 2)], listed.clone(), 1), "allowed");
        assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 1, 2)], listed, 1), "cascade_not_allowed");
        assert_eq!(
            check(vec![effect("parent", 0, 0, 1), effect("child", 0, 0, 1)], json!({}), 1),
            "cascade_not_allowed"
        );
        // A tree: its own rows cascade, as many as the rule allows.
        let own = json!({"dependants": {"public.parent": 2}});
        assert_eq!(check(vec![effect("parent", 0, 0, 3)], own.clone(), 1), "allowed");
        assert_eq!(check(vec![effect("parent", 0, 0, 4)], own, 1), "unexpected_effects");
        let ours = Effect { closed: true, ..effect("child", 1, 0, 0) };
        assert_eq!(
            check(vec![effect("parent", 0, 0, 1), ours], json!({"dependants": {"public.child": 9}}), 1),
            "cascade_not_allowed"
        );
        let truncated =
            WriteReport { target: Some(before.clone()), effects: vec![effect("parent", 0, 0, 1)], alters: true };
        assert_eq!(code(check_account(&truncated, &before, &delete(), &rule(&json!({})), 1)), "unexpected_effects");
        // The server counts nothing, or a trigger did more.
        assert_eq!(check(vec![], json!({}), 1), "unexpected_effects");
        assert_eq!(check(vec![effect("parent", 1, 0, 1)], json!({}), 1), "unexpected_effects");
        let moved =
            WriteReport { target: Some(before.clone()), effects: vec![effect("parent", 2, 1, 2)], alters: false };
        assert_eq!(code(check_account(&moved, &before, &update("name"), &rule(&json!({})), 3)), "allowed");
        let replaced =
            WriteReport { target: Some(Target { oid: 2, ..before.clone() }), effects: Vec::new(), alters: false };
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
}
