//! The first admin of a tenant and its tokens, as the owner of the database makes them.

use std::time::Duration;

use nofx::commands::admin::first_admin;
use nofx_local::migrate::tenant::{NewToken, make_token};
use nofx_tests::Lab;
use nofx_tests::database::connect_to;
use nofx_tests::environment::with_role;
use serde_json::{Value, json};
use shared::auth::ApiToken;
use shared::domain::{Kind, Role, TenantId};
use tokio_postgres::Client;

const HOUR: Duration = Duration::from_hours(1);

fn team() -> TenantId {
    TenantId("team".into())
}

/// What the token's principal is, or the SQLSTATE.
async fn admit(api: &Client, token: &ApiToken, permission: &str) -> Result<Value, String> {
    let caller = json!({ "tenant": token.tenant, "via": "token", "token_id": token.id, "kind": token.kind,
                         "secret_sha256": token.hash().to_hex(), "ip": "127.0.0.1" });
    let sql = "select nofx.principal_json(nofx.caller_admit($1, $2))";
    match api.query_one(sql, &[&caller, &permission]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error.code().expect("an error of the database").code().to_owned()),
    }
}

fn service(owner: &str) -> NewToken<'_> {
    NewToken { kind: Kind::Service, owner, name: "ci", role: Some(Role::Operator), lasts: HOUR }
}

#[tokio::test]
async fn the_first_admin_gets_a_session_of_an_hour_in_a_tenant_where_everybody_logs_in() {
    let lab = Lab::new().await;
    let api = connect_to(&with_role(&lab.database.url, "nofx_api", None)).await;
    let token = first_admin(&lab.admin, &team(), "sub-1", "ann@acme.test").await.unwrap();
    let admitted = admit(&api, &token, "members.write").await.unwrap();
    let expected = json!({ "tenant": "team", "subject": "sub-1", "name": "ann@acme.test", "kind": "person", "role": "admin",
                           "token_id": token.id, "owner": "sub-1", "solo": false });
    assert_eq!(admitted, expected);
    let lasts = "select expires_at - created_at <= interval '1 hour' from nofx.api_token where id = $1";
    assert!(lab.admin.query_one(lasts, &[&token.id.0]).await.unwrap().get::<_, bool>(0));
    let by = "select created_by like 'database:%' from nofx.membership where tenant_id = 'team'";
    assert!(lab.admin.query_one(by, &[]).await.unwrap().get::<_, bool>(0));
    // The tenant of a laptop does not stay one.
    assert!(admit_local(&api, &lab.tenant).await);
    first_admin(&lab.admin, &lab.tenant, "sub-1", "ann@acme.test").await.unwrap();
    assert!(!admit_local(&api, &lab.tenant).await);
}

async fn admit_local(api: &Client, tenant: &TenantId) -> bool {
    let caller = json!({ "tenant": tenant, "via": "local", "subject": "local" });
    api.query_one("select nofx.caller_admit($1, 'runs.read')", &[&caller]).await.is_ok()
}

#[tokio::test]
async fn an_admin_who_was_removed_or_degraded_is_let_in_again() {
    let lab = Lab::new().await;
    let api = connect_to(&with_role(&lab.database.url, "nofx_api", None)).await;
    first_admin(&lab.admin, &team(), "sub-1", "ann@acme.test").await.unwrap();
    let changes = ["role = 'viewer'", "removed_at = clock_timestamp()"];
    for change in changes {
        lab.admin.batch_execute(&format!("update nofx.membership set {change} where subject = 'sub-1'")).await.unwrap();
        let token = first_admin(&lab.admin, &team(), "sub-1", "ann@acme.test").await.unwrap();
        assert_eq!(admit(&api, &token, "tokens.write").await.unwrap()["role"], "admin", "{change}");
    }
}

#[tokio::test]
async fn a_token_needs_an_owner_who_is_a_member_of_an_open_tenant() {
    let lab = Lab::new().await;
    let api = connect_to(&with_role(&lab.database.url, "nofx_api", None)).await;
    first_admin(&lab.admin, &team(), "sub-1", "ann@acme.test").await.unwrap();
    let token = make_token(&lab.admin, &team(), &service("sub-1")).await.unwrap();
    let admitted = admit(&api, &token, "runs.create").await.unwrap();
    assert_eq!((&admitted["subject"], &admitted["owner"]), (&json!("service:ci"), &json!("sub-1")));
    assert_eq!(admit(&api, &token, "gates.decide").await, Err("NF403".into()));

    let refused = async |owner| {
        let error = make_token(&lab.admin, &team(), &service(owner)).await.unwrap_err().to_string();
        assert_eq!(error, format!("{owner} is not a member of the tenant team"));
    };
    refused("nobody").await;
    lab.admin.batch_execute("update nofx.tenant set disabled_at = clock_timestamp()").await.unwrap();
    refused("sub-1").await;
    lab.admin.batch_execute("update nofx.tenant set disabled_at = null").await.unwrap();
    lab.admin.batch_execute("update nofx.membership set removed_at = clock_timestamp()").await.unwrap();
    refused("sub-1").await;
    let count = lab.admin.query_one("select count(*) from nofx.api_token where kind = 'service'", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 1);
}
