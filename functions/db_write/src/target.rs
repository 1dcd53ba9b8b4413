//! What stands behind a table's name, and what a write did beyond its own rows: facts of the catalog, judged by the rule.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::operation::{Kind, Operation};
use crate::refusal::Refusal;
use shared::domain::rule::{Allowance, Rule};

/// The answer of `nofx.db_write_look`.
#[derive(Debug, Deserialize)]
pub struct Look {
    /// Whether no rule can open the table's schema.
    pub closed: bool,
    /// As it is stored.
    pub rule: Option<Value>,
    pub role: Option<Role>,
    pub target: Option<Target>,
    /// What the connection had changed before.
    #[serde(default)]
    pub effects: Vec<Effect>,
}

/// The role that would write.
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
    /// It, or a role that it belongs to, is a superuser or bypasses row level security.
    Superuser,
    /// It sees our own schema.
    ReachesUs,
    /// It owns the table: policies would not hold.
    Owner,
    /// The worker may not become it.
    NoMember,
}

/// A table as the catalog knows it. Two of them are equal only if nothing changed that a rule relies on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Target {
    pub oid: i64,
    /// `schema.table`.
    pub table: String,
    /// `relkind` of `pg_class`.
    pub kind: char,
    /// Whether the server counts changed rows.
    pub counts: bool,
    /// The table, its partitions and whoever inherits from it.
    pub members: Vec<String>,
    pub inherited: bool,
    /// Tables of closed schemas that a view or a cascade reaches.
    pub closed: Vec<String>,
    /// Views behind the name that read with their owner's rights.
    pub definer_views: Vec<String>,
    /// Enabled triggers and rewrite rules on everything that is reached, with the sha256 of their definitions.
    pub triggers: BTreeMap<String, String>,
    /// Triggers among them that could run after everything was counted.
    pub deferrable: Vec<String>,
    pub foreign_keys: Vec<ForeignKey>,
}

/// A foreign key that changes its own side when the other one changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ForeignKey {
    pub parent: String,
    pub child: String,
    /// `confdeltype` and `confupdtype` of `pg_constraint`: c cascade, n set null, d set default, a and r nothing.
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
    /// Whether a table was truncated or altered, which no counter shows.
    pub alters: bool,
}

/// Rows of one table that the connection has changed.
#[derive(Debug, Clone, Deserialize)]
pub struct Effect {
    pub table: String,
    /// The partitioned table that it belongs to, else itself.
    pub root: String,
    /// Whether no rule can open its schema.
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
            RoleState::Missing => format!("the role {name} of the rule does not exist"),
            RoleState::Superuser => format!(
                "the role {name} of the rule is a superuser or bypasses row level security, or belongs to one who does"
            ),
            RoleState::ReachesUs => format!("the role {name} of the rule reaches the control plane's own schema"),
            RoleState::Owner => format!("the role {name} of the rule owns the table, so its policies would not hold"),
            RoleState::NoMember => {
                format!("the worker may not become the role {name} of the rule; grant {name} to its login role")
            }
        };
        Err(Refusal::denied("role_not_allowed", why))
    }
}

impl Target {
    /// Refuses a target that could do more than the rule says.
    pub(crate) fn check(&self, operation: &Operation, rule: &Rule) -> Result<(), Refusal> {
        let table = &self.table;
        let refused = |why: String| Err(Refusal::denied("target_not_allowed", why));
        let needed = match self.kind {
            'r' | 'p' => None,
            'v' => Some((Allowance::View, "a view")),
            'f' => Some((Allowance::ForeignTable, "a foreign table")),
            _ => return refused(format!("{table} is no table")),
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
            return refused(format!("{table} reaches {closed}, which is not for plans to write"));
        }
        if let Some(view) = self.definer_views.first() {
            let message =
                format!("the view {view} reads with its owner's rights; make it one with security_invoker = true");
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
            let message = format!("the trigger {name} is deferrable: it could run after everything was counted");
            return Err(Refusal::denied("trigger_not_allowed", message));
        }
        for (name, digest) in &self.triggers {
            let message = match rule.triggers.get(name) {
                Some(pinned) if pinned == digest => continue,
                Some(_) => format!("{name} has changed since the rule pinned it; its sha256 is {digest} now"),
                None => format!("the trigger or rewrite rule {name} (sha256 {digest}) is not pinned by the rule"),
            };
            return Err(Refusal::denied("trigger_not_allowed", message));
        }
        Ok(())
    }

    /// Tables that foreign keys would change along with this operation.
    fn cascades(&self, operation: &Operation) -> BTreeSet<&str> {
        // Tables to look from, with the columns that change there; all of them where rows go away.
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
    /// What was changed since those effects were counted.
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

    /// Refuses a write that did anything but what was asked: `rows` rows of its own, and what the rule lists.
    pub(crate) fn check(&self, before: &Target, operation: &Operation, rule: &Rule, rows: u64) -> Result<(), Refusal> {
        if self.target.as_ref() != Some(before) {
            let message = format!("{} was changed while it was written", before.table);
            return Err(Refusal::denied("target_changed", message));
        }
        if self.alters {
            let message = "a trigger or function truncated or altered a table, which cannot be counted";
            return Err(Refusal::denied("unexpected_effects", message));
        }
        let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
        let mut others: BTreeMap<&str, u64> = BTreeMap::new();
        for effect in &self.effects {
            if effect.closed {
                let message = format!("it would also change {}, which is not for plans to write", effect.table);
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
                "{} had {inserted} rows inserted, {updated} updated and {deleted} deleted, where {rows} were asked for",
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
