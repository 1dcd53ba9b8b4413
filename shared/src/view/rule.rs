//! Rules of `db_write`, and what stands behind a table's name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::rule::Op;

/// A table's rule as it is stored. One that was written by hand may lack parts, or hold what no rule may hold; `db_write`
/// refuses such a rule, and this shows what is in it.
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

/// A page of rules by the name of their table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RulePage {
    pub rules: Vec<Rule>,
    /// `after` of the next page.
    pub next: Option<Uuid>,
}

/// A rule with what it meets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RuleDetail {
    #[serde(flatten)]
    pub rule: Rule,
    /// Null when there is no such table.
    pub target: Option<Target>,
    /// The newest first.
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

/// A rule that is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct RuleDeleted {
    pub table: String,
    /// `deleted`.
    pub result: String,
}

/// A table as the catalog knows it. Two of them are equal only if nothing changed that a rule relies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ForeignKey {
    pub parent: String,
    pub child: String,
    /// `confdeltype` and `confupdtype` of `pg_constraint`: c cascade, n set null, d set default, a and r nothing.
    pub on_delete: char,
    pub on_update: char,
    pub parent_columns: Vec<String>,
    pub child_columns: Vec<String>,
}
