//! What a table's name refers to, and what a write changed besides its own rows. The facts come from the catalog, and
//! the rule judges them.

use std::collections::{BTreeMap, BTreeSet};

use shared::db::db_write::{Account, Role, RoleState};
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
        RoleState::ReachesUs => format!("the rule's role {name} can use the schema nofx"),
        RoleState::Owner => format!("the rule's role {name} owns the table, so its policies would not apply"),
        RoleState::NoMember => {
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
    account: &Account,
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
#[path = "target_tests.rs"]
mod tests;
