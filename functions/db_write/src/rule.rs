//! Rules: which table, which operations, which columns, how many rows. No rule means no.

use serde_json::Value;
use shared::domain::TenantId;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::Refusal;
use crate::operation::{Kind, Operation, Table};

/// What a tenant may do with a table.
#[derive(Debug, Clone)]
pub struct Rule {
    pub allowed_ops: Vec<String>,
    /// Columns that may be written; without the list, none.
    pub columns: Vec<String>,
    /// Columns that may find rows, all of them together; without the list, none.
    pub key: Vec<String>,
    /// Most rows a statement may touch.
    pub max_rows: usize,
}

/// Rows a statement may touch when a rule names no number.
const DEFAULT_MAX_ROWS: usize = 100;
/// Schemas that no rule opens: ours, the database's and Supabase's.
const OURS: [&str; 7] = ["nofx", "pg_catalog", "information_schema", "supabase_migrations", "auth", "storage", "vault"];

impl Rule {
    /// The tenant's rule for a table.
    pub(crate) async fn fetch(
        transaction: &Transaction<'_>,
        tenant: &TenantId,
        table: &Table,
    ) -> Result<Self, Refusal> {
        let name = table.to_string();
        if OURS.contains(&table.schema.as_str()) {
            return Err(Refusal::denied("no_rule", format!("the schema {} is not for plans to write", table.schema)));
        }
        let sql = "select r.allowed_ops, r.constraints from nofx.db_write_rule r
                    where r.tenant_id = $1 and r.table_name = $2";
        let rows = transaction.query_typed(sql, &[(&tenant.0, Type::TEXT), (&name, Type::TEXT)]).await?;
        let row =
            rows.first().ok_or_else(|| Refusal::denied("no_rule", format!("no rule allows writing to {name}")))?;
        let constraints: Value = row.try_get(1)?;
        Ok(Self {
            allowed_ops: row.try_get(0)?,
            columns: names(&constraints["columns"]),
            key: names(&constraints["key"]),
            max_rows: constraints["max_rows"]
                .as_u64()
                .map_or(DEFAULT_MAX_ROWS, |most| usize::try_from(most).unwrap_or(usize::MAX)),
        })
    }

    /// Refuses what the rule does not allow, before anything is sent.
    pub(crate) fn check(&self, operation: &Operation) -> Result<(), Refusal> {
        let (table, op) = (&operation.table, operation.kind.name());
        if !self.allowed_ops.iter().any(|allowed| allowed == op) {
            return Err(Refusal::denied("op_not_allowed", format!("the rule for {table} does not allow {op}")));
        }
        let written = operation.kind.written();
        if let Some(column) = written.iter().find(|column| !self.columns.iter().any(|allowed| allowed == *column)) {
            let message = format!("the rule for {table} does not allow writing column \"{column}\"");
            return Err(Refusal::denied("column_not_allowed", message));
        }
        let finding = operation.kind.finding();
        let whole_key = finding.len() == self.key.len() && self.key.iter().all(|key| finding.contains(&key.as_str()));
        if !matches!(operation.kind, Kind::Insert { .. }) && (!whole_key || self.key.is_empty()) {
            let message = if self.key.is_empty() {
                format!("the rule for {table} names no key, so no row can be found for {op}")
            } else {
                format!("{op} on {table} must find rows by exactly {}", self.key.join(", "))
            };
            return Err(Refusal::denied("predicate_not_allowed", message));
        }
        if let Kind::Insert { rows } = &operation.kind
            && rows.len() > self.max_rows
        {
            let message = format!("has {} rows; the rule for {table} allows {}", rows.len(), self.max_rows);
            return Err(Refusal::denied("too_many_rows", message));
        }
        Ok(())
    }
}

fn names(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(rule: &Rule, inputs: &Value) -> String {
        let Ok(operation) = Operation::parse(inputs) else { panic!("not parsed") };
        match rule.check(&operation) {
            Ok(()) => "allowed".into(),
            Err(Refusal::Denied(error)) => error.code,
            Err(Refusal::Database(_)) => panic!("no database here"),
        }
    }

    #[test]
    fn only_what_the_rule_names_is_allowed() {
        let rule = Rule {
            allowed_ops: vec!["insert".into(), "update".into()],
            columns: vec!["name".into(), "price".into()],
            key: vec!["id".into()],
            max_rows: 1,
        };
        let insert = |values: Value| json!({"table": "public.products", "op": "insert", "values": values});
        let update =
            |key: Value| json!({"table": "public.products", "op": "update", "where": key, "set": {"price": 1}});
        assert_eq!(code(&rule, &insert(json!([{"name": "a"}]))), "allowed");
        assert_eq!(code(&rule, &insert(json!([{"owner": "a"}]))), "column_not_allowed");
        assert_eq!(code(&rule, &insert(json!([{"name": "a"}, {"name": "b"}]))), "too_many_rows");
        assert_eq!(code(&rule, &update(json!({"id": 1}))), "allowed");
        assert_eq!(code(&rule, &update(json!({"price": 1}))), "predicate_not_allowed");
        assert_eq!(code(&rule, &update(json!({"id": 1, "price": 1}))), "predicate_not_allowed");
        let delete = json!({"table": "public.products", "op": "delete", "where": {"id": 1}});
        assert_eq!(code(&rule, &delete), "op_not_allowed");
        let keyless = Rule { key: Vec::new(), ..rule };
        assert_eq!(code(&keyless, &update(json!({"id": 1}))), "predicate_not_allowed");
    }
}
