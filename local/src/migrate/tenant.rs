//! Tenants, their first members and tokens, as the owner of the database makes them. Members and tokens are otherwise made by
//! admins, with requests.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use shared::auth::ApiToken;
use shared::domain::{Kind, Role, TenantId, TokenId};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::report::hinted;

/// Makes the tenant of a laptop, with one person who needs no login. Safe to repeat. Only such a tenant admits a caller without
/// credentials, so it must be made only on a laptop.
pub async fn local_tenant(client: &Client, tenant: &str) -> Result<()> {
    let sql = "with made as (
                   insert into nofx.tenant (tenant_id, is_solo) values ($1, true)
                       on conflict (tenant_id) do update set is_solo = true)
               insert into nofx.membership (tenant_id, subject, role, name, created_by)
               values ($1, 'local', 'admin', 'local', 'nofx dev')
                   on conflict (tenant_id, subject) do update
                      set role = 'admin', removed_at = null,
                          joined_at = case when membership.removed_at is null then membership.joined_at else clock_timestamp() end
                where membership.removed_at is not null or membership.role <> 'admin'";
    client.execute_typed(sql, &[(&tenant, Type::TEXT)]).await.map(|_| ()).context("cannot make the local tenant")
}

/// A person of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// `sub` of the person's tokens from the issuer.
    pub subject: &'a str,
    pub email: &'a str,
    pub role: Role,
}

/// Makes the tenant and this member, or gives the member this role again. Everybody in such a tenant logs in.
pub async fn set_member(client: &Client, tenant: &TenantId, person: &Person<'_>) -> Result<()> {
    let sql = "with made as (
                   insert into nofx.tenant (tenant_id) values ($1)
                       on conflict (tenant_id) do update set is_solo = false)
               insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
               values ($1, $2, $3, $4, $4, 'database:' || session_user)
                   on conflict (tenant_id, subject) do update
                      set role = excluded.role, email = excluded.email, removed_at = null,
                          joined_at = case when membership.removed_at is null then membership.joined_at else clock_timestamp() end";
    write_member(client, sql, tenant, person).await
}

/// Makes this person a member, unless they are or were one.
pub async fn add_member(client: &Client, tenant: &TenantId, person: &Person<'_>) -> Result<()> {
    let sql = "insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
               values ($1, $2, $3, $4, $4, 'database:' || session_user) on conflict do nothing";
    write_member(client, sql, tenant, person).await
}

async fn write_member(client: &Client, sql: &str, tenant: &TenantId, person: &Person<'_>) -> Result<()> {
    let Person { subject, email, role } = *person;
    let parameters = [tenant.0.as_str(), subject, role.as_str(), email];
    let typed = parameters.each_ref().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT));
    client.execute_typed(sql, &typed).await.map(|_| ()).context("cannot make the member")
}

/// Sets limits of a tenant, and removes others. Stored bytes are counted again when they matter. Returns all limits, or nothing
/// if there is no such tenant.
pub async fn set_limits(client: &Client, tenant: &TenantId, set: &Value, unset: &[&str]) -> Result<Option<Value>> {
    let sql = "with counted as (delete from nofx.stored_bytes where tenant_id = $1)
               update nofx.tenant set limits = (limits || $2) - $3 where tenant_id = $1 returning limits";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&tenant.0, Type::TEXT), (&set, Type::JSONB), (&unset, Type::TEXT_ARRAY)];
    let rows = client.query_typed(sql, &params).await.context("cannot set the limits")?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Makes a tenant in which everybody logs in. The person of the local mode is removed, and the tokens that they own are revoked.
pub async fn team_tenant(client: &Client, tenant: &TenantId) -> Result<()> {
    let sql = "with made as (
                   insert into nofx.tenant (tenant_id) values ($1)
                       on conflict (tenant_id) do update set is_solo = false),
                    ended as (
                   update nofx.api_token set revoked_at = clock_timestamp(), revoked_by = 'nofx dev --auth'
                    where tenant_id = $1 and owner = 'local' and revoked_at is null)
               update nofx.membership set removed_at = clock_timestamp()
                where tenant_id = $1 and subject = 'local' and removed_at is null";
    let done = client.execute_typed(sql, &[(&tenant.0, Type::TEXT)]).await;
    done.map(|_| ()).context("cannot make the tenant")
}

/// A token to make.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    pub kind: Kind,
    /// The member who owns it; for a session, the person.
    pub owner: &'a str,
    pub name: &'a str,
    /// None for a session, which has the role of its member.
    pub role: Option<Role>,
    pub lasts: Duration,
}

/// Makes a token. Fails unless its owner is a member.
pub async fn make_token(client: &Client, tenant: &TenantId, new: &NewToken<'_>) -> Result<ApiToken> {
    let token = ApiToken::generate(new.kind, TokenId(Uuid::new_v4()), tenant.clone())?;
    let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, secret_sha256, expires_at)
               select $2, m.tenant_id, $3, case $3 when 'person' then m.subject else n.name end, m.subject, n.name, $6, $7,
                      clock_timestamp() + make_interval(secs => $8)
                 from nofx.membership m
                      -- The name of a program in records cannot look like a person.
                cross join lateral (select case $3 when 'person' then $5 else $3 || ':' || $5 end as name) n
                 join nofx.tenant t using (tenant_id)
                where m.tenant_id = $1 and m.subject = $4 and m.removed_at is null and t.disabled_at is null";
    let (hash, role) = (token.hash(), new.role.map(Role::as_str));
    let made = client
        .execute_typed(
            sql,
            &[
                (&tenant.0, Type::TEXT),
                (&token.id.0, Type::UUID),
                (&new.kind.as_str(), Type::TEXT),
                (&new.owner, Type::TEXT),
                (&new.name, Type::TEXT),
                (&role, Type::TEXT),
                (&hash.as_bytes().as_slice(), Type::BYTEA),
                (&new.lasts.as_secs_f64(), Type::FLOAT8),
            ],
        )
        .await
        .context("cannot make the token")?;
    if made == 0 {
        return Err(hinted(
            format!("{} is not a member of the tenant {tenant}", new.owner),
            "nofx admin bootstrap makes a tenant with its first admin; a disabled tenant makes no tokens",
        ));
    }
    Ok(token)
}
