//! The transaction of a write by `db_write`: what stands behind the table, who writes, and what was changed. The statement
//! itself is made by the function, of the table and the operation.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Error, Row, Transaction};

use super::pool::Param;
use crate::domain::TenantId;
use crate::view::Target;

/// Longest wait for somebody else's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a write needs to know before it begins.
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

/// What a transaction has done.
#[derive(Debug, Deserialize)]
pub struct Account {
    /// The target as it is now.
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

/// A write that a role does for a tenant.
pub struct WriteSession<'a> {
    pub transaction: &'a Transaction<'a>,
    pub tenant: &'a TenantId,
    /// Who writes.
    pub role: &'a str,
    /// When the step's timeout is over: the database ends the statement that runs then.
    pub deadline: Instant,
}

/// Rule, role and target in one round trip; `None` when the database gave no answer.
pub async fn db_write_look(
    transaction: &Transaction<'_>,
    tenant: &TenantId,
    schema: &str,
    table: &str,
) -> Result<Option<Look>, Error> {
    let call = json!({"tenant_id": tenant, "schema": schema, "table": table});
    ask(transaction, "select nofx.db_write_look($1)", &call).await
}

impl WriteSession<'_> {
    /// Policies of the table see the tenant.
    pub async fn claim_tenant(&self) -> Result<(), Error> {
        let claims = json!({"role": self.role, "app_metadata": {"tenant_id": self.tenant}}).to_string();
        let sql = "select pg_catalog.set_config('request.jwt.claims', $1, true)";
        self.transaction.query_typed(sql, &[(&claims, Type::TEXT)]).await?;
        Ok(())
    }

    /// Runs a statement as the role that writes.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.become_role().await?;
        self.transaction.query_typed(sql, params).await
    }

    /// Everything that would only be looked at by the commit is looked at now, still as the role that writes.
    pub async fn force_constraints(&self) -> Result<(), Error> {
        self.become_role().await?;
        let settings = format!("{}; set constraints all immediate; reset role", self.timeouts());
        self.transaction.batch_execute(&settings).await
    }

    /// What the transaction did to any table, and the target as it is now. As the worker again.
    pub async fn account(&self, schema: &str, table: &str, dependants: &[&String]) -> Result<Option<Account>, Error> {
        let call = json!({"schema": schema, "table": table, "dependants": dependants});
        ask(self.transaction, "select nofx.db_write_account($1)", &call).await
    }

    /// From here on nothing but the role's own rights counts, and no name is looked up outside the database's own schema.
    /// Said again before each statement: a function of the table's own could have changed it.
    async fn become_role(&self) -> Result<(), Error> {
        let settings = format!(
            "{}; set local search_path = pg_catalog, pg_temp; set local role {}",
            self.timeouts(),
            quoted(self.role)
        );
        self.transaction.batch_execute(&settings).await
    }

    /// What is left of the step's time, for the statements that follow.
    fn timeouts(&self) -> String {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let (statement, lock) = (left.as_millis(), left.min(LOCK_TIMEOUT).as_millis());
        format!("set local statement_timeout = {statement}; set local lock_timeout = {lock}")
    }
}

impl Account {
    /// What was changed since those effects were counted.
    #[must_use]
    pub fn since(mut self, before: &[Effect]) -> Self {
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
}

/// A delimited identifier (SQL: quotes inside are doubled).
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn ask<T: DeserializeOwned>(transaction: &Transaction<'_>, sql: &str, call: &Value) -> Result<Option<T>, Error> {
    let rows = transaction.query_typed(sql, &[(&Json(call), Type::JSONB)]).await?;
    let answer = rows.first().map(|row| row.try_get::<_, Json<T>>(0)).transpose()?;
    Ok(answer.map(|json| json.0))
}
