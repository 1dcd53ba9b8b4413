//! A tenant whose people log in. One of them looks at its pages, as an admin.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use shared::auth::ApiToken;
use shared::config::{AuthConfig, AuthMode, LoginConfig};
use shared::context::Ctx;
use shared::domain::{Kind, TenantId, TokenId};
use uuid::Uuid;

use crate::Lab;

/// The prefix of its pages.
pub const TEAM: &str = "/team";
const TENANT: &str = "shop-team";

/// Somebody's session.
pub type Session = Arc<ApiToken>;

/// The tenant with members, tokens and sessions, and the session of its first admin. Nobody issues logins.
pub async fn context(lab: &Lab) -> (Ctx, Session) {
    let mut ctx = lab.another_ctx().await;
    let tenant = TenantId(TENANT.into());
    ctx.config.tenant = tenant.clone();
    let login = LoginConfig { url: "http://127.0.0.1:1/auth/v1".into(), publishable_key: String::new() };
    let auth = AuthConfig { mode: Some(AuthMode::On), login: Some(login), ..AuthConfig::default() };
    ctx.config.auth = Arc::new(auth);
    lab.admin.batch_execute(ROWS).await.expect("a team");
    let session = ApiToken::generate(Kind::Person, TokenId(Uuid::from_u128(7)), tenant).expect("a session");
    let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, secret_sha256, expires_at)
               values ($1, 'shop-team', 'person', $2, $2, 'console', $3, clock_timestamp() + interval '12 h')";
    let hash = session.hash().as_bytes().to_vec();
    lab.admin.execute(sql, &[&session.id.0, &"6b1f0c1e-ann", &hash]).await.expect("a session");
    (ctx, Arc::new(session))
}

/// Sends the session's cookie with every request but that of the login.
pub async fn logged_in(State(session): State<Session>, mut request: Request, next: Next) -> Response {
    if !request.uri().path().ends_with("/login") {
        let own = format!("nofx-session={}", session.expose());
        add_cookie(request.headers_mut(), &own);
    }
    next.run(request).await
}

fn add_cookie(headers: &mut HeaderMap, own: &str) {
    let value = HeaderValue::from_str(own).expect("a cookie");
    headers.append(header::COOKIE, value);
}

const ROWS: &str = "
insert into nofx.tenant (tenant_id) values ('shop-team');
insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
select 'shop-team', m.subject, m.role, m.name, m.email, 'Ann Archer'
  from (values ('6b1f0c1e-ann', 'admin', 'Ann Archer', 'ann@shop.test'),
               ('0d4a7f22-ben', 'approver', 'Ben Baker', 'ben@shop.test'),
               ('b7c9e3d4-cai', 'operator', 'Cai with a name that is much longer than the names of most other people', null),
               ('f00dbabe-eve', 'viewer', '<b>Eve</b> \"& co', 'eve@shop.test')) m(subject, role, name, email);
insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, scopes, secret_sha256, created_at, expires_at, revoked_at,
                            revoked_by, last_used_at)
select gen_random_uuid(), 'shop-team', t.kind, t.name, '6b1f0c1e-ann', t.name, t.role, t.scopes, sha256(t.name::bytea), now() - t.age,
       now() - t.age + interval '90 d', case when t.is_revoked then now() - interval '1 h' end,
       case when t.is_revoked then 'Ann Archer' end, case when not t.is_revoked then now() - interval '7 min' end
  from (values ('agent', 'agent:planner', 'operator', '{account.read,runs.read,runs.create}'::text[], interval '3 d', false),
               ('service', 'service:ci', 'operator', null, interval '20 d', false),
               ('service', 'service:old-ci', 'admin', null, interval '40 d', true),
               ('agent', 'agent:reviewer', 'viewer', null, interval '100 d', false)) t(kind, name, role, scopes, age, is_revoked);
";
