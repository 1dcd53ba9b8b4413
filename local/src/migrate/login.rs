//! The logins of the functions, here as on AWS. HTTP functions need only the rights of `nofx_api`, queue functions and the sweeper
//! only those of `nofx_worker`.

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::database::{self, with_login};

/// Name of the login of HTTP functions.
pub const API_LOGIN: &str = "nofx_api_login";
/// Name of the login of workers.
pub const WORKER_LOGIN: &str = "nofx_worker_login";

/// Creates the login of HTTP functions in a migrated database and returns its URL. Each call sets a new password.
pub async fn api_login(url: &str) -> Result<String> {
    login(url, API_LOGIN, "nofx_api", &new_password()).await
}

/// The same for workers.
pub async fn worker_login(url: &str) -> Result<String> {
    worker_login_with(url, &new_password()).await
}

/// The same with this password.
pub async fn worker_login_with(url: &str, password: &str) -> Result<String> {
    login(url, WORKER_LOGIN, "nofx_worker", password).await
}

fn new_password() -> String {
    Uuid::new_v4().simple().to_string()
}

async fn login(url: &str, name: &str, role: &str, password: &str) -> Result<String> {
    let client = database::connect(url).await?;
    let quoted = password.replace('\'', "''");
    let sql = format!(
        "do $$ begin
            if not exists (select from pg_roles where rolname = '{name}') then
                create role {name} login in role {role};
            end if;
        end $$;
        alter role {name} password '{quoted}'"
    );
    client.batch_execute(&sql).await.with_context(|| format!("cannot create the login {name}"))?;
    Ok(with_login(url, name, password))
}
