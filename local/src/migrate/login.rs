//! The login of workers. Queue functions and the sweeper need only the rights of `nofx_worker`, here as on AWS.

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::database::{self, with_login};

/// Name of the login.
pub const WORKER_LOGIN: &str = "nofx_worker_login";

/// Creates the login in a migrated database and returns its URL. Each call sets a new password.
pub async fn worker_login(url: &str) -> Result<String> {
    worker_login_with(url, &Uuid::new_v4().simple().to_string()).await
}

/// The same with this password.
pub async fn worker_login_with(url: &str, password: &str) -> Result<String> {
    let client = database::connect(url).await?;
    let quoted = password.replace('\'', "''");
    let sql = format!(
        "do $$ begin
            if not exists (select from pg_roles where rolname = '{WORKER_LOGIN}') then
                create role {WORKER_LOGIN} login in role nofx_worker;
            end if;
        end $$;
        alter role {WORKER_LOGIN} password '{quoted}'"
    );
    client.batch_execute(&sql).await.context("cannot create the login of workers")?;
    Ok(with_login(url, WORKER_LOGIN, password))
}
