//! Rules of `db_write`, and definitions of tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::rule::Op;

/// A table's rule as stored. A rule that was written with SQL may be malformed. `db_write` refuses such a rule, but it
/// is shown as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Rule {
    pub id: Uuid,
    /// `schema.table`.
    pub table: String,
    pub allowed_ops: Vec<Op>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    pub max_rows: Value,
    pub role: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependants: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A page of rules, ordered by table name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RulePage {
    pub rules: Vec<Rule>,
    /// `after` of the next page.
    pub next: Option<Uuid>,
}

/// A rule, the table's current definition, and the latest changes of the rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RuleDetail {
    #[serde(flatten)]
    pub rule: Rule,
    /// Null if there is no such table.
    pub target: Option<Target>,
    /// Newest first.
    pub changes: Vec<RuleChange>,
}

/// A change of a rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RuleChange {
    /// `rule.set` or `rule.deleted`.
    #[serde(rename = "type")]
    pub kind: String,
    pub actor: String,
    /// `{before, after}`: the rule, or null.
    pub payload: Box<RawValue>,
    pub timestamp: Timestamp,
}

/// A deleted rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RuleDeleted {
    pub table: String,
    /// `deleted`.
    pub result: String,
}

/// The definition of a table in the catalog, as far as a rule relies on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Target {
    pub oid: i64,
    /// `schema.table`.
    pub table: String,
    /// `relkind` in `pg_class`.
    pub kind: char,
    /// Whether the server counts changed rows.
    pub counts: bool,
    /// The table, its partitions, and the tables that inherit from it.
    pub members: Vec<String>,
    pub inherited: bool,
    /// Tables of closed schemas that a view or a cascade reaches.
    pub closed: Vec<String>,
    /// Views that read with their owner's rights.
    pub definer_views: Vec<String>,
    /// Enabled triggers and rewrite rules of all tables that a write reaches, with the sha256 of their definitions.
    pub triggers: BTreeMap<String, String>,
    /// Those triggers that could run after rows were counted.
    pub deferrable: Vec<String>,
    pub foreign_keys: Vec<ForeignKey>,
}

/// A foreign key, and what it does to its child when the parent changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ForeignKey {
    pub parent: String,
    pub child: String,
    /// `confdeltype` in `pg_constraint`: c cascade, n set null, d set default, a no action, r restrict. `on_update` is
    /// the same for `confupdtype`.
    pub on_delete: char,
    pub on_update: char,
    pub parent_columns: Vec<String>,
    pub child_columns: Vec<String>,
}
