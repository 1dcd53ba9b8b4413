//! The transaction of a `db_write` step: reads the rule, the role and the table, runs the statement as the role, and
//! reports what changed. The function `db_write` builds the statement.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Error, Row, Transaction};

use super::pool::Param;
use crate::domain::{ClaimedStep, TenantId};
use crate::view::Target;

/// Longest wait for a lock of another session.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a write reads before it starts.
#[derive(Debug, Deserialize)]
pub struct WriteContext {
    /// Whether the table is in a schema that no rule can open.
    pub closed: bool,
    /// The rule as stored.
    pub rule: Option<Value>,
    /// Whether the rule is the one that was in force when people approved the step. True if nobody had to.
    #[serde(default)]
    pub is_rule_approved: bool,
    pub role: Option<Role>,
    pub target: Option<Target>,
    /// What the connection had already changed.
    #[serde(default)]
    pub effects: Vec<Effect>,
}

/// The role that the write uses.
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
    #[serde(rename = "reaches_us")]
    ReachesNofx,
    /// It owns the table, so policies do not apply to it.
    Owner,
    /// The worker's login is not a member of it.
    #[serde(rename = "no_member")]
    NotMember,
}

/// What the transaction changed.
#[derive(Debug, Deserialize)]
pub struct WriteReport {
    /// The table's current definition.
    pub target: Option<Target>,
    pub effects: Vec<Effect>,
    /// Whether a table was truncated or altered. Row counters do not show that.
    pub alters: bool,
}

/// Rows of one table that the connection changed.
#[derive(Debug, Clone, Deserialize)]
pub struct Effect {
    pub table: String,
    /// The partitioned table that it is part of, or the table itself.
    pub root: String,
    /// Whether it is in a schema that no rule can open.
    pub closed: bool,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// The session of one write.
pub struct WriteSession<'a> {
    pub transaction: &'a Transaction<'a>,
    pub tenant: &'a TenantId,
    /// The role that writes.
    pub role: &'a str,
    /// End of the step's timeout. The database cancels a statement that is still running then.
    pub deadline: Instant,
}

/// Reads rule, role and table in one round trip. `None` if the database returned no row.
pub async fn db_write_look(
    transaction: &Transaction<'_>,
    step: &ClaimedStep,
    schema: &str,
    table: &str,
) -> Result<Option<WriteContext>, Error> {
    let call = json!({"tenant_id": step.tenant_id, "step_id": step.step_id, "schema": schema, "table": table});
    ask(transaction, "select nofx.db_write_look($1)", &call).await
}

impl WriteSession<'_> {
    /// Sets the JWT claims, in which the table's policies find the tenant.
    pub async fn claim_tenant(&self) -> Result<(), Error> {
        let claims = json!({"role": self.role, "app_metadata": {"tenant_id": self.tenant}}).to_string();
        let sql = "select pg_catalog.set_config('request.jwt.claims', $1, true)";
        self.transaction.query_typed(sql, &[(&claims, Type::TEXT)]).await?;
        Ok(())
    }

    /// Runs a statement as the role.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.become_role().await?;
        self.transaction.query_typed(sql, params).await
    }

    /// Checks deferred constraints now instead of at the commit, still as the role. Then resets the role.
    pub async fn force_constraints(&self) -> Result<(), Error> {
        self.become_role().await?;
        let settings = format!("{}; set constraints all immediate; reset role", self.timeouts());
        self.transaction.batch_execute(&settings).await
    }

    /// What the transaction changed in any table, and the table's current definition. Call it after the role was reset.
    pub async fn account(
        &self,
        schema: &str,
        table: &str,
        dependants: &[&String],
    ) -> Result<Option<WriteReport>, Error> {
        let call = json!({"schema": schema, "table": table, "dependants": dependants});
        ask(self.transaction, "select nofx.db_write_account($1)", &call).await
    }

    /// Sets the role and a search path that contains only `pg_catalog`. Repeated before each statement, because a
    /// trigger's function may have changed them.
    async fn become_role(&self) -> Result<(), Error> {
        let settings = format!(
            "{}; set local search_path = pg_catalog, pg_temp; set local role {}",
            self.timeouts(),
            quoted(self.role)
        );
        self.transaction.batch_execute(&settings).await
    }

    /// Limits the following statements to the rest of the step's time.
    fn timeouts(&self) -> String {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let (statement, lock) = (left.as_millis(), left.min(LOCK_TIMEOUT).as_millis());
        format!("set local statement_timeout = {statement}; set local lock_timeout = {lock}")
    }
}

impl WriteReport {
    /// Only what changed after `before` was counted.
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

/// A quoted SQL identifier. Quotes inside it are doubled.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn ask<T: DeserializeOwned>(transaction: &Transaction<'_>, sql: &str, call: &Value) -> Result<Option<T>, Error> {
    let rows = transaction.query_typed(sql, &[(&Json(call), Type::JSONB)]).await?;
    let answer = rows.first().map(|row| row.try_get::<_, Json<T>>(0)).transpose()?;
    Ok(answer.map(|json| json.0))
}
