//! Checks the target of a write and its side effects against the rule. The data comes from the database's catalog and
//! statistics.

use std::collections::{BTreeMap, BTreeSet};

use shared::db::db_write::{Role, RoleState, WriteReport};
use shared::domain::operation::{Kind, Operation};
use shared::domain::rule::{Allowance, Rule};
use shared::view::Target;

use crate::error::WriteError;

/// Rejects a role that has too many rights, or that the worker cannot use.
pub(crate) fn check_role(role: &Role) -> Result<(), WriteError> {
    let Role { name, .. } = role;
    let message = match role.state {
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
    Err(WriteError::denied("role_not_allowed", message))
}

/// Rejects a target that could change more than the rule allows.
pub(crate) fn check_target(target: &Target, operation: &Operation, rule: &Rule) -> Result<(), WriteError> {
    let table = &target.table;
    let rejected = |message: String| Err(WriteError::denied("target_not_allowed", message));
    let required = match target.kind {
        'r' | 'p' => None,
        'v' => Some((Allowance::View, "a view")),
        'f' => Some((Allowance::ForeignTable, "a foreign table")),
        _ => return rejected(format!("{table} is not a table")),
    };
    if let Some((allowance, what)) = required
        && !rule.allows(allowance)
    {
        return rejected(format!("{table} is {what}, and the rule does not allow that"));
    }
    if target.inherited && !rule.allows(Allowance::Inheritance) {
        return rejected(format!("other tables inherit from {table}, and the rule does not allow that"));
    }
    if let Some(closed) = target.closed.first() {
        return rejected(format!("{table} leads to {closed}, which plans may not write"));
    }
    if let Some(view) = target.definer_views.first() {
        let message = format!("the view {view} runs with its owner's rights; set security_invoker = true on it");
        return rejected(message);
    }
    if !target.counts {
        return rejected("the server does not count changed rows (track_counts is off)".into());
    }
    check_triggers(target, rule)?;
    let reached = cascades(target, operation);
    match reached.iter().find(|child| !rule.dependants.contains_key(**child)) {
        None => Ok(()),
        Some(child) => {
            let op = operation.kind.op().name();
            let message = format!("{op} on {table} cascades to {child}, which the rule does not list in dependants");
            Err(WriteError::denied("cascade_not_allowed", message))
        }
    }
}

fn check_triggers(target: &Target, rule: &Rule) -> Result<(), WriteError> {
    if let Some(name) = target.deferrable.first() {
        let message = format!("the trigger {name} is deferrable, so it could run after the rows were counted");
        return Err(WriteError::denied("trigger_not_allowed", message));
    }
    for (name, digest) in &target.triggers {
        let message = match rule.triggers.get(name) {
            Some(pinned) if pinned == digest => continue,
            Some(_) => format!("{name} has changed since it was pinned; its sha256 is now {digest}"),
            None => format!("the rule does not pin the trigger or rewrite rule {name} (sha256 {digest})"),
        };
        return Err(WriteError::denied("trigger_not_allowed", message));
    }
    Ok(())
}

/// The tables that foreign keys change together with this operation.
fn cascades<'a>(target: &'a Target, operation: &Operation) -> BTreeSet<&'a str> {
    // Tables to visit, with the columns that change. `None` means that rows are deleted.
    let members = |columns: Option<BTreeSet<&'_ str>>| -> Vec<(&str, Option<BTreeSet<String>>)> {
        let columns = columns.map(|columns| columns.into_iter().map(str::to_owned).collect());
        target.members.iter().map(|member| (member.as_str(), columns.clone())).collect()
    };
    let mut to_visit = match &operation.kind {
        Kind::Insert { .. } => return BTreeSet::new(),
        Kind::Update { set, .. } => members(Some(set.keys().map(String::as_str).collect())),
        Kind::Delete { .. } => members(None),
    };
    let (mut reached, mut seen) = (BTreeSet::new(), BTreeSet::new());
    while let Some((table, columns)) = to_visit.pop() {
        if !seen.insert((table, columns.clone())) {
            continue;
        }
        for key in target.foreign_keys.iter().filter(|key| key.parent == table) {
            let action = match &columns {
                None => key.on_delete,
                Some(columns) if key.parent_columns.iter().any(|column| columns.contains(column)) => key.on_update,
                Some(_) => continue,
            };
            if !matches!(action, 'c' | 'n' | 'd') {
                continue;
            }
            reached.insert(key.child.as_str());
            let deletes = columns.is_none() && action == 'c';
            to_visit.push((&key.child, (!deletes).then(|| key.child_columns.iter().cloned().collect())));
        }
    }
    reached
}

/// Rejects a write that changed more than `rows` rows of its table and the dependants in the rule.
pub(crate) fn check_effects(
    account: &WriteReport,
    before: &Target,
    operation: &Operation,
    rule: &Rule,
    rows: u64,
) -> Result<(), WriteError> {
    if account.target.as_ref() != Some(before) {
        let message = format!("the table {} was altered during the write", before.table);
        return Err(WriteError::denied("target_changed", message));
    }
    if account.alters {
        let message = "a trigger or function truncated or altered a table, which the row counters do not show";
        return Err(WriteError::denied("unexpected_effects", message));
    }
    let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
    let mut other_tables: BTreeMap<&str, u64> = BTreeMap::new();
    for effect in &account.effects {
        if effect.closed {
            let message = format!("the write would also change {}, which plans may not write", effect.table);
            return Err(WriteError::denied("cascade_not_allowed", message));
        }
        if before.members.contains(&effect.table) {
            inserted += effect.inserted;
            updated += effect.updated;
            deleted += effect.deleted;
        } else {
            *other_tables.entry(&effect.root).or_default() += effect.inserted + effect.updated + effect.deleted;
        }
    }
    let is_as_expected = match operation.kind {
        Kind::Insert { .. } => (inserted, updated, deleted) == (rows, 0, 0),
        // A row that moves to another partition is deleted in one and inserted into the other.
        Kind::Update { .. } => inserted == deleted && updated + inserted == rows,
        Kind::Delete { .. } => (inserted, updated, deleted) == (0, 0, rows),
    };
    // A foreign key of the table to itself may cascade within it.
    let extra = (inserted + updated + deleted).saturating_sub(rows);
    let is_listed = rule.dependants.get(&before.table).is_some_and(|max| extra <= *max);
    // The counters of a view are those of its tables. The other server counts the rows of a foreign table.
    if matches!(before.kind, 'r' | 'p') && !is_as_expected && !is_listed {
        let message = format!(
            "the write inserted {inserted}, updated {updated} and deleted {deleted} rows of {}; {rows} expected",
            before.table
        );
        return Err(WriteError::denied("unexpected_effects", message));
    }
    for (table, changed) in other_tables {
        let message = match rule.dependants.get(table) {
            Some(max) if changed <= *max => continue,
            Some(max) => format!("the write would also change {changed} rows of {table}; the rule allows {max}"),
            None => {
                format!(
                    "the write would also change {changed} rows of {table}, which the rule does not list in dependants"
                )
            }
        };
        return Err(WriteError::denied("cascade_not_allowed", message));
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

    fn code(checked: Result<(), WriteError>) -> String {
        match checked {
            Ok(()) => "allowed".into(),
            Err(WriteError::Denied(error)) => error.code,
            Err(WriteError::RuleChanged | WriteError::Database(_)) => panic!("this test has no database"),
        }
    }

    #[test]
    fn cascades_follow_the_foreign_keys_of_the_operation() {
        let target = target('r');
        assert_eq!(cascades(&target, &delete()), ["public.child", "public.grandchild"].into());
        // The child's own key does not change, so the cascade ends there.
        assert_eq!(cascades(&target, &update("id")), ["public.child"].into());
        assert_eq!(cascades(&target, &update("name")), BTreeSet::new());
        let insert = operation(&json!({"table": "public.parent", "op": "insert", "values": [{"id": 1}]}));
        assert_eq!(cascades(&target, &insert), BTreeSet::new());
    }

    #[test]
    fn a_target_that_is_not_a_plain_table_needs_an_allowance() {
        let without_allowance = rule(&json!({"dependants": {"public.child": 1, "public.grandchild": 1}}));
        assert_eq!(code(check_target(&target('r'), &delete(), &without_allowance)), "allowed");
        for kind in ['v', 'f', 'm', 'S', 'i'] {
            assert_eq!(
                code(check_target(&target(kind), &delete(), &without_allowance)),
                "target_not_allowed",
                "{kind}"
            );
        }
        let with_view = rule(&json!({"dependants": {"public.child": 1, "public.grandchild": 1}, "allow": ["view"]}));
        assert_eq!(code(check_target(&target('v'), &delete(), &with_view)), "allowed");
        let rejected = [
            Target { closed: vec!["nofx.run".into()], ..target('v') },
            Target { inherited: true, ..target('r') },
            Target { counts: false, ..target('r') },
            Target { definer_views: vec!["public.parent".into()], ..target('v') },
        ];
        for target in rejected {
            assert_eq!(code(check_target(&target, &delete(), &with_view)), "target_not_allowed", "{target:?}");
        }
        assert_eq!(code(check_target(&target('r'), &delete(), &rule(&json!({})))), "cascade_not_allowed");
    }

    #[test]
    fn a_trigger_runs_only_if_the_rule_pins_its_digest() {
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
            code(check_effects(&account, &before, &delete(), &rule(&constraints), rows))
        };
        let listed = json!({"dependants": {"public.child": 2}});
        assert_eq!(check(vec![effect("parent", 0, 0, 1)], json!({}), 1), "allowed");
        assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 0, 2)], listed.clone(), 1), "allowed");
        assert_eq!(check(vec![effect("parent", 0, 0, 1), effect("child", 0, 1, 2)], listed, 1), "cascade_not_allowed");
        assert_eq!(
            check(vec![effect("parent", 0, 0, 1), effect("child", 0, 0, 1)], json!({}), 1),
            "cascade_not_allowed"
        );
        // A tree: rows of the same table cascade, up to the limit in the rule.
        let own_rows = json!({"dependants": {"public.parent": 2}});
        assert_eq!(check(vec![effect("parent", 0, 0, 3)], own_rows.clone(), 1), "allowed");
        assert_eq!(check(vec![effect("parent", 0, 0, 4)], own_rows, 1), "unexpected_effects");
        let in_closed_schema = Effect { closed: true, ..effect("child", 1, 0, 0) };
        assert_eq!(
            check(vec![effect("parent", 0, 0, 1), in_closed_schema], json!({"dependants": {"public.child": 9}}), 1),
            "cascade_not_allowed"
        );
        let truncated =
            WriteReport { target: Some(before.clone()), effects: vec![effect("parent", 0, 0, 1)], alters: true };
        assert_eq!(code(check_effects(&truncated, &before, &delete(), &rule(&json!({})), 1)), "unexpected_effects");
        // The server counts no rows, or a trigger changed more.
        assert_eq!(check(vec![], json!({}), 1), "unexpected_effects");
        assert_eq!(check(vec![effect("parent", 1, 0, 1)], json!({}), 1), "unexpected_effects");
        let moved =
            WriteReport { target: Some(before.clone()), effects: vec![effect("parent", 2, 1, 2)], alters: false };
        assert_eq!(code(check_effects(&moved, &before, &update("name"), &rule(&json!({})), 3)), "allowed");
        let replaced =
            WriteReport { target: Some(Target { oid: 2, ..before.clone() }), effects: Vec::new(), alters: false };
        assert_eq!(code(check_effects(&replaced, &before, &delete(), &rule(&json!({})), 0)), "target_changed");
    }

    #[test]
    fn a_role_with_too_many_rights_is_rejected() {
        let role = |state: &str| Role::deserialize(json!({"name": "w", "state": state})).unwrap();
        assert_eq!(code(check_role(&role("usable"))), "allowed");
        for state in ["missing", "superuser", "owner", "reaches_us", "no_member"] {
            assert_eq!(code(check_role(&role(state))), "role_not_allowed", "{state}");
        }
    }
}
