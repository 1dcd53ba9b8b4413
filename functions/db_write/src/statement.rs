//! Translates an operation to SQL. Identifiers are quoted. Values are bound JSON parameters, which the table's own
//! types read. Functions and operators are named with their schema.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use shared::domain::TenantId;
use shared::domain::number;
use shared::domain::rule::Rule;
use tokio::time::{Duration, Instant};
use tokio_postgres::Transaction;
use tokio_postgres::types::{Json, ToSql, Type};

use crate::faithful;
use crate::operation::{Kind, Operation, Table};
use crate::refusal::Refusal;
use crate::target::{Account, Look};

/// Longest wait for a lock of another session.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The transaction of one write.
pub(crate) struct Session<'a> {
    pub transaction: &'a Transaction<'a>,
    pub tenant: &'a TenantId,
    /// The database role that writes.
    pub role: &'a str,
    /// When the step's timeout ends. The database then cancels the running statement.
    pub deadline: Instant,
}

/// A row that was written.
pub(crate) struct Written {
    /// Its key columns, or the written columns if the rule has no key. Numbers that JSON cannot hold exactly are
    /// strings.
    pub key: Value,
    /// Whether the written columns have the given values.
    pub same: bool,
}

impl Session<'_> {
    /// What the transaction changed in any table, and the target as it is now. Runs as the worker again.
    pub async fn account(&self, table: &Table, rule: &Rule) -> Result<Account, Refusal> {
        let dependants: Vec<_> = rule.dependants.keys().collect();
        let facts = json!({"schema": table.schema, "table": table.name, "dependants": dependants});
        call(self.transaction, "select nofx.db_write_account($1)", &facts).await
    }

    /// Sets the claims in which policies of the table find the tenant.
    pub async fn claim_tenant(&self) -> Result<(), Refusal> {
        let claims = json!({"role": self.role, "app_metadata": {"tenant_id": self.tenant}}).to_string();
        let sql = "select pg_catalog.set_config('request.jwt.claims', $1, true)";
        self.transaction.query_typed(sql, &[(&claims, Type::TEXT)]).await?;
        Ok(())
    }

    /// Refuses values that the table's types would change.
    pub async fn check_values(&self, operation: &Operation) -> Result<(), Refusal> {
        let empty = Map::new();
        let (rows, key): (Vec<&Map<String, Value>>, &Map<String, Value>) = match &operation.kind {
            Kind::Insert { rows } => (rows.iter().collect(), &empty),
            Kind::Update { key, set } => (vec![key, set], key),
            Kind::Delete { key } => (vec![key], key),
        };
        self.become_role().await?;
        let sql = format!(
            "select pg_catalog.to_jsonb(pg_catalog.jsonb_populate_record(null::{table}, g.v))
               from pg_catalog.jsonb_array_elements($1) with ordinality as g(v, n) order by g.n",
            table = quoted_table(&operation.table)
        );
        let read = self.transaction.query_typed(&sql, &[(&Json(&rows), Type::JSONB)]).await?;
        for (given, row) in rows.iter().zip(&read) {
            let text: Json<Box<RawValue>> = row.try_get(0)?;
            let stored: Value = serde_json::from_str(&number::quoted_where_inexact(text.0.get())).unwrap_or_default();
            for (column, value) in *given {
                let is_key = std::ptr::eq(*given, key);
                if !faithful::is_kept(value, &stored[column]) || is_key && !faithful::is_same(value, &stored[column]) {
                    return Err(faithful::refusal(&operation.table.to_string(), column, is_key));
                }
            }
        }
        Ok(())
    }

    /// Switches to the role and its rights, and limits name lookups to Postgres' own schema. Call it before each
    /// statement, because a function of the table could have changed the settings.
    async fn become_role(&self) -> Result<(), Refusal> {
        let settings = format!(
            "{}; set local search_path = pg_catalog, pg_temp; set local role {}",
            self.timeouts(),
            quoted(self.role)
        );
        Ok(self.transaction.batch_execute(&settings).await?)
    }

    /// Writes, and returns each touched row.
    pub async fn execute(&self, operation: &Operation, rule: &Rule) -> Result<Vec<Written>, Refusal> {
        self.become_role().await?;
        let table = quoted_table(&operation.table);
        let key = &rule.key;
        let shown: Vec<&str> =
            if key.is_empty() { operation.kind.written() } else { key.iter().map(String::as_str).collect() };
        let (shown, stored) = (object("t", &shown), object("t", &operation.kind.written()));
        let rows = match &operation.kind {
            Kind::Insert { rows } => {
                let columns = operation.kind.written();
                let sql = format!(
                    "with source as materialized (
                         select e.n as n, pg_catalog.jsonb_populate_record(null::{table}, e.v) as r
                           from pg_catalog.jsonb_array_elements($1) with ordinality as e(v, n)
                     ), given as (
                         insert into {table} as t ({names})
                         select {values} from source order by source.n
                         returning {shown} as key, {stored} as stored
                     ), numbered as (
                         select pg_catalog.row_number() over () as n, given.key, given.stored from given
                     ), asked as (
                         select source.n, {asked} as stored from source
                     )
                     select numbered.key, numbered.stored operator(pg_catalog.=) asked.stored
                       from numbered join asked on asked.n operator(pg_catalog.=) numbered.n",
                    names = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "),
                    values = columns
                        .iter()
                        .map(|column| format!("(source.r).{}", quoted(column)))
                        .collect::<Vec<_>>()
                        .join(", "),
                    asked = object("(source.r)", &columns),
                );
                self.transaction.query_typed(&sql, &[(&Json(rows), Type::JSONB)]).await?
            }
            Kind::Update { key, set } => {
                let columns = operation.kind.written();
                let sql = format!(
                    "with source as materialized (
                         select pg_catalog.jsonb_populate_record(null::{table}, $1) as k,
                                pg_catalog.jsonb_populate_record(null::{table}, $2) as s
                     ), given as (
                         update {table} as t set {assignments} from source where {predicate}
                         returning {shown} as key, {stored} as stored
                     )
                     select given.key, given.stored operator(pg_catalog.=) (select {asked} from source) from given",
                    assignments = columns
                        .iter()
                        .map(|column| format!("{0} = (source.s).{0}", quoted(column)))
                        .collect::<Vec<_>>()
                        .join(", "),
                    predicate = predicate(key),
                    asked = object("(source.s)", &columns),
                );
                let params: [(&(dyn ToSql + Sync), Type); 2] = [(&Json(key), Type::JSONB), (&Json(set), Type::JSONB)];
                self.transaction.query_typed(&sql, &params).await?
            }
            Kind::Delete { key } => {
                let sql = format!(
                    "with source as materialized (select pg_catalog.jsonb_populate_record(null::{table}, $1) as k),
                     given as (delete from {table} as t using source where {} returning {shown} as key)
                     select given.key, true from given",
                    predicate(key)
                );
                self.transaction.query_typed(&sql, &[(&Json(key), Type::JSONB)]).await?
            }
        };
        rows.iter()
            .map(|row| {
                let key: Json<Box<RawValue>> = row.try_get(0)?;
                let key = serde_json::from_str(&number::quoted_where_inexact(key.0.get())).unwrap_or_default();
                Ok(Written { key, same: row.try_get(1)? })
            })
            .collect()
    }

    /// Checks now, still as the writing role, the constraints that are otherwise checked at commit.
    pub async fn force_constraints(&self) -> Result<(), Refusal> {
        self.become_role().await?;
        let settings = format!("{}; set constraints all immediate; reset role", self.timeouts());
        Ok(self.transaction.batch_execute(&settings).await?)
    }

    /// Timeouts for the next statements, from the step's remaining time.
    fn timeouts(&self) -> String {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let (statement, lock) = (left.as_millis(), left.min(LOCK_TIMEOUT).as_millis());
        format!("set local statement_timeout = {statement}; set local lock_timeout = {lock}")
    }
}

/// Reads rule, role and target in one round trip.
pub(crate) async fn look(transaction: &Transaction<'_>, tenant: &TenantId, table: &Table) -> Result<Look, Refusal> {
    let facts = json!({"tenant_id": tenant, "schema": table.schema, "table": table.name});
    call(transaction, "select nofx.db_write_look($1)", &facts).await
}

async fn call<T: DeserializeOwned>(transaction: &Transaction<'_>, sql: &str, facts: &Value) -> Result<T, Refusal> {
    let row = transaction.query_typed(sql, &[(&Json(facts), Type::JSONB)]).await?;
    let answer = row.first().map(|row| row.try_get::<_, Json<T>>(0)).transpose()?;
    answer.map(|json| json.0).ok_or_else(|| Refusal::denied("database_refused", "the database returned no answer"))
}

/// A JSON object of these columns. It is built from a subquery, because a function has a limited number of arguments.
/// `.*` means the subquery's row even if a column has the same name.
fn object(of: &str, columns: &[&str]) -> String {
    let columns: Vec<_> = columns.iter().map(|column| format!("{of}.{0} as {0}", quoted(column))).collect();
    format!("(select pg_catalog.to_jsonb(\"nofx.row\".*) from (select {}) as \"nofx.row\")", columns.join(", "))
}

fn predicate(key: &Map<String, Value>) -> String {
    // `=`, not `is not distinct from`: null matches no row.
    let equal = |column: &String| format!("t.{0} operator(pg_catalog.=) (source.k).{0}", quoted(column));
    key.keys().map(equal).collect::<Vec<_>>().join(" and ")
}

fn quoted_table(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

/// A quoted identifier, with quotes in it doubled.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
