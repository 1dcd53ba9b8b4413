//! What a table's name refers to, and what a write changed besides its own rows. The facts come from the catalog, and
//! the rule judges them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::operation::{Kind, Operation};
use crate::refusal::Refusal;
use shared::domain::rule::{Allowance, Rule};

/// The answer of `nofx.db_write_look`.
#[derive(Debug, Deserialize)]
pub struct Look {
    /// Whether the table's schema is closed to every rule.
    pub closed: bool,
    /// The rule as stored.
    pub rule: Option<Value>,
    pub role: Option<Role>,
    pub target: Option<Target>,
    /// What the connection had changed before this write.
    #[serde(default)]
    pub effects: Vec<Effect>,
}

/// The role that is to write.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Role {
    pub name: String,
    pub state: RoleState,
}

/// Whether a role may write for plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleState {
    Usable,
    Missing,
    /// It, or a role that it is a member of, is a superuser or bypasses row level security.
    Superuser,
    /// It can use the schema `nofx`.
    ReachesUs,
    /// It owns the table, so policies do not apply to it.
    Owner,
    /// The worker's login is not a member of it.
    NoMember,
}

/// A table as the catalog describes it. If two descriptions are equal, nothing changed that a rule relies on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Target {
    pub oid: i64,
    /// `schema.table`.
    pub table: String,
    /// `relkind` of `pg_class`.
    pub kind: char,
    /// Whether the server counts changed rows.
    pub counts: bool,
    /// The table, its partitions and the tables that inherit from it.
    pub members: Vec<String>,
    pub inherited: bool,
    /// Tables of closed schemas that a view or cascade reaches.
    pub closed: Vec<String>,
    /// Views behind the name that run with their owner's rights.
    pub definer_views: Vec<String>,
    /// Enabled triggers and rewrite rules of all reached tables, with the sha256 of their definitions.
    pub triggers: BTreeMap<String, String>,
    /// Those of them that could run after rows were counted.
    pub deferrable: Vec<String>,
    pub foreign_keys: Vec<ForeignKey>,
}

/// A foreign key that changes its child's rows when the parent changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ForeignKey {
    pub parent: String,
    pub child: String,
    /// `confdeltype` and `confupdtype` of `pg_constraint`: c cascade, n set null, d set default, a and r no change.
    pub on_delete: char,
    pub on_update: char,
    pub parent_columns: Vec<String>,
    pub child_columns: Vec<String>,
}

/// The answer of `nofx.db_write_account`.
#[derive(Debug, Deserialize)]
pub struct Account {
    pub target: Option<Target>,
    pub effects: Vec<Effect>,
    /// Whether a table was truncated or altered, which row counters do not show.
    pub alters: bool,
}

/// Rows of one table that the connection has changed.
#[derive(Debug, Clone, Deserialize)]
pub struct Effect {
    pub table: String,
    /// The partitioned table that it belongs to, else the table itself.
    pub root: String,
    /// Whether its schema is closed to every rule.
    pub closed: bool,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl Role {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let Self { name, .. } = self;
        let why = match self.state {
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
}

impl Target {
    /// Refuses a target that could do more than the rule allows.
    pub(crate) fn check(&self, operation: &Operation, rule: &Rule) -> Result<(), Refusal> {
        let table = &self.table;
        let refused = |why: String| Err(Refusal::denied("target_not_allowed", why));
        let needed = match self.kind {
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
        if self.inherited && !rule.allows(Allowance::Inheritance) {
            return refused(format!("other tables inherit from {table}, and the rule does not allow that"));
        }
        if let Some(closed) = self.closed.first() {
            return refused(format!("{table} reaches {closed}, which plans may not write"));
        }
        if let Some(view) = self.definer_views.first() {
            let message = format!("the view {view} runs with its owner's rights; set security_invoker = true on it");
            return refused(message);
        }
        if !self.counts {
            return refused("the server does not count changed rows (track_counts is off)".into());
        }
        self.check_triggers(rule)?;
        let reached = self.cascades(operation);
        match reached.iter().find(|child| !rule.dependants.contains_key(**child)) {
            None => Ok(()),
            Some(child) => {
                let op = operation.kind.op().name();
                let message =
                    format!("{op} on {table} cascades to {child}, which the rule does not list in dependants");
                Err(Refusal::denied("cascade_not_allowed", message))
            }
        }
    }

    fn check_triggers(&self, rule: &Rule) -> Result<(), Refusal> {
        if let Some(name) = self.deferrable.first() {
            let message = format!("the trigger {name} is deferrable, so it could run after rows were counted");
            return Err(Refusal::denied("trigger_not_allowed", message));
        }
        for (name, digest) in &self.triggers {
            let message = match rule.triggers.get(name) {
                Some(pinned) if pinned == digest => continue,
                Some(_) => format!("{name} has changed since it was pinned; its sha256 is now {digest}"),
                None => format!("the rule does not pin the trigger or rewrite rule {name} (sha256 {digest})"),
            };
            return Err(Refusal::denied("trigger_not_allowed", message));
        }
        Ok(())
    }

    /// Tables that foreign keys would change with this operation.
    fn cascades(&self, operation: &Operation) -> BTreeSet<&str> {
        // Tables to follow, each with the columns that change. `None` if rows are deleted.
        let own = |columns: Option<BTreeSet<&'_ str>>| -> Vec<(&str, Option<BTreeSet<String>>)> {
            let columns = columns.map(|columns| columns.into_iter().map(str::to_owned).collect());
            self.members.iter().map(|member| (member.as_str(), columns.clone())).collect()
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
            for key in self.foreign_keys.iter().filter(|key| key.parent == table) {
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
}

impl Account {
    /// Only what was changed since these effects were counted.
    pub(crate) fn since(mut self, before: &[Effect]) -> Self {
        for effect in &mut self.effects {
            if let Some(old) = before.iter().find(|old| old.table == effect.table) {
                effect.inserted = effect.inserted.saturating_sub(old.inserted);
                effect.updated = effect.updated.saturating_sub(old.updated);
                effect.deleted = effect.deleted.saturating_sub(old.deleted);
            }
        }
        self.effects.retain(|effect| effect.inserted + effect.updated + effect.deleted > 0);
        self
    }

    /// Refuses a write that changed anything except `rows` rows of its own and what the rule lists.
    pub(crate) fn check(&self, before: &Target, operation: &Operation, rule: &Rule, rows: u64) -> Result<(), Refusal> {
        if self.target.as_ref() != Some(before) {
            let message = format!("{} was altered during the write", before.table);
            return Err(Refusal::denied("target_changed", message));
        }
        if self.alters {
            let message = "a trigger or function truncated or altered a table; such changes cannot be counted";
            return Err(Refusal::denied("unexpected_effects", message));
        }
        let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
        let mut others: BTreeMap<&str, u64> = BTreeMap::new();
        for effect in &self.effects {
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
            // A row that moves to another partition counts as deleted and inserted.
            Kind::Update { .. } => inserted == deleted && updated + inserted == rows,
            Kind::Delete { .. } => (inserted, updated, deleted) == (0, 0, rows),
        };
        // A foreign key from the table to itself may cascade within it.
        let beyond = (inserted + updated + deleted).saturating_sub(rows);
        let listed = rule.dependants.get(&before.table).is_some_and(|most| beyond <= *most);
        // The rows of a view are counted for its tables, and those of a foreign table by its server.
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
                None => format!(
                    "it would also change {changed} rows of {table}, which the rule does not list in dependants"
                ),
            };
            return Err(Refusal::denied("cascade_not_allowed", message));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
