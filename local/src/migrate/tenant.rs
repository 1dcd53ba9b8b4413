//! The tenant of a laptop: one person, who acts without a login.

use anyhow::{Context, Result};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Makes the tenant and its person in a migrated database. Safe to repeat. Only such a tenant admits a caller without
/// credentials, so nobody makes one elsewhere than on a laptop.
pub async fn local_tenant(client: &Client, tenant: &str) -> Result<()> {
    let sql = "with made as (insert into nofx.tenant (tenant_id, is_solo) values ($1, true) on conflict do nothing)
               insert into nofx.membership (tenant_id, subject, role, name, created_by)
               values ($1, 'local', 'admin', 'local', 'nofx dev') on conflict do nothing";
    client.execute_typed(sql, &[(&tenant, Type::TEXT)]).await.map(|_| ()).context("cannot make the local tenant")
}
