//! The data of a tenant as its caller may see and change it. Every statement of an HTTP function goes through a
//! [`Session`], which says who calls and what for. The database admits the caller in the same statement.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::pool::{Database, column};
use crate::domain::TenantId;
use crate::domain::principal::{Caller, Permission, Principal};
use crate::error::Error;

/// A caller, and the permission that its request needs. Clones share their state.
#[derive(Clone)]
pub struct Session {
    db: Database,
    caller: Arc<Caller>,
    permission: Permission,
    principal: Arc<OnceLock<Principal>>,
    /// Whether the database has answered a statement of the session. Transitions do not return the principal.
    is_admitted: Arc<AtomicBool>,
}

/// A parameter of a read, and its Postgres type.
pub(super) type Arg<'a> = (&'a (dyn Argument + Sync), Type);

/// A row of a read: one JSON value, and a count where the query selects one.
pub(super) struct Item {
    pub json: String,
    pub count: i64,
}

const READ: &str = "select who, item, n from nofx.read($1, $2, $3, $4)";

impl Session {
    /// A session for a request that needs `permission`.
    pub fn new(db: Database, caller: Arc<Caller>, permission: Permission) -> Self {
        Self { db, caller, permission, principal: Arc::default(), is_admitted: Arc::default() }
    }

    /// The tenant of every row that the session reads or writes.
    pub fn tenant(&self) -> &TenantId {
        &self.caller.tenant
    }

    /// The subject of the login or the id of the token, as the request claims it.
    pub fn subject(&self) -> &str {
        &self.caller.subject
    }

    /// The principal, if a statement of the session has returned it.
    pub fn known(&self) -> Option<&Principal> {
        self.principal.get()
    }

    /// Whether the database has admitted the caller.
    pub fn is_admitted(&self) -> bool {
        self.is_admitted.load(Ordering::Relaxed)
    }

    /// The principal. Asks the database if no statement of the session has.
    pub async fn principal(&self) -> Result<&Principal, Error> {
        if self.principal.get().is_none() {
            self.read("select null::text as item, 0::bigint as n where false", &[]).await?;
        }
        self.principal.get().ok_or_else(|| Error::internal("admit a caller", "no row"))
    }

    /// Runs `sql`, which selects (item text, n bigint), under row level security, in one round trip. `$1` is the tenant,
    /// and `args` follow from `$2`. It must be safe to repeat.
    pub(super) async fn read(&self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Item>, Error> {
        let sql = with_arguments(sql, args);
        let values: Vec<Value> =
            std::iter::once(self.tenant().0.to_json()).chain(args.iter().map(|(value, _)| value.to_json())).collect();
        let rows = self
            .db
            .query(
                READ,
                &[
                    (&Json(&*self.caller), Type::JSONB),
                    (&self.permission.as_str(), Type::TEXT),
                    (&sql, Type::TEXT),
                    (&Json(&values), Type::JSONB),
                ],
            )
            .await?;
        let unreadable = |error| Error::internal("read a database answer", error);
        let (first, rows) = rows.split_first().ok_or_else(|| Error::internal("admit a caller", "no row"))?;
        let principal: Json<Principal> = column(first)?;
        self.principal.get_or_init(|| principal.0);
        self.is_admitted.store(true, Ordering::Relaxed);
        let item = |row: &tokio_postgres::Row| {
            let count: Option<i64> = row.try_get(2).map_err(unreadable)?;
            let json: Option<String> = row.try_get(1).map_err(unreadable)?;
            Ok(Item { json: json.unwrap_or_default(), count: count.unwrap_or_default() })
        };
        rows.iter().map(item).collect()
    }

    /// The value that `sql` selects as its only column, of the only row, if there is one.
    pub(super) async fn value<T: DeserializeOwned>(&self, sql: &str, args: &[Arg<'_>]) -> Result<Option<T>, Error> {
        let sql = format!("select to_json(q.value)::text as item, null::bigint as n from ({sql}) q(value)");
        let unreadable = |error| Error::internal("read a database answer", error);
        let rows = self.read(&sql, args).await?;
        rows.first()
            .map(|row| serde_json::from_str::<Option<T>>(&row.json).map_err(unreadable))
            .transpose()
            .map(Option::flatten)
    }

    /// Calls a transition function for the caller: JSON in, JSON out, one round trip. The function admits the caller and
    /// takes the tenant from it.
    pub(super) async fn transition<T: DeserializeOwned>(
        &self,
        sql: &'static str,
        input: &(impl Serialize + Sync + std::fmt::Debug),
    ) -> Result<T, Error> {
        #[derive(Debug, Serialize)]
        struct Call<'a, I> {
            caller: &'a Caller,
            #[serde(flatten)]
            input: &'a I,
        }
        let answer = self.db.transition(sql, &Call { caller: &self.caller, input }).await?;
        self.is_admitted.store(true, Ordering::Relaxed);
        Ok(answer)
    }
}

/// A value as an argument of a read.
pub(super) trait Argument {
    fn to_json(&self) -> Value;
}

macro_rules! arguments {
    ($($type:ty),+) => {
        $(impl Argument for $type {
            fn to_json(&self) -> Value {
                serde_json::json!(self)
            }
        })+
    };
}

arguments!(str, &str, String, bool, i32, i64, Uuid, Value, Vec<Uuid>, Vec<String>, Vec<&str>);

impl Argument for SystemTime {
    fn to_json(&self) -> Value {
        DateTime::from(*self).fmt(DateTimeFormat::DateTime).map_or(Value::Null, Value::String)
    }
}

impl<T: Argument> Argument for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Argument::to_json)
    }
}

/// The query with its parameters taken from a JSON array: `$1` is the tenant, `$2` the first of the arguments.
fn with_arguments(sql: &str, args: &[Arg<'_>]) -> String {
    let mut parts = sql.split('$');
    let mut query = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        match number.parse() {
            Ok(1) => push_argument(&mut query, 0, &Type::TEXT),
            Ok(n) if n >= 2 && n < args.len() + 2 => push_argument(&mut query, n - 1, &args[n - 2].1),
            // Not a parameter, or a missing one. Postgres reports that.
            _ => query.extend(["$", number]),
        }
        query.push_str(rest);
    }
    query
}

fn push_argument(query: &mut String, index: usize, of: &Type) {
    // Writing to a string does not fail.
    let _ = match *of {
        Type::JSONB => write!(query, "nullif($1 -> {index}, 'null')"),
        Type::UUID_ARRAY | Type::TEXT_ARRAY => {
            let of = if *of == Type::UUID_ARRAY { "uuid" } else { "text" };
            write!(query, "array(select jsonb_array_elements_text($1 -> {index}))::{of}[]")
        }
        ref of => write!(query, "($1 ->> {index})::{}", of.name()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_elements_of_an_array() {
        let (name, ids) = (Some("ann"), vec![Uuid::nil()]);
        let args: [Arg<'_>; 3] = [(&name, Type::TEXT), (&ids, Type::UUID_ARRAY), (&Value::Null, Type::JSONB)];
        assert_eq!(
            with_arguments("select $1, $2, x = any ($3), $4, '^a$', $5", &args),
            "select ($1 ->> 0)::text, ($1 ->> 1)::text, x = any (array(select jsonb_array_elements_text($1 -> 2))::uuid[]), \
             nullif($1 -> 3, 'null'), '^a$', $5"
        );
    }

    #[test]
    fn a_time_keeps_its_microseconds() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(time.to_json(), "2023-11-14T22:13:20.123456Z");
    }
}
