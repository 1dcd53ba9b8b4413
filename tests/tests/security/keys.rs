//! The keys of the issuer survive the process: a new one knows them while the issuer is down.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::routing::get;
use nofx_tests::Lab;
use nofx_tests::issuer::{CallerOf, Issuer};
use serde_json::json;
use shared::config::{AuthConfig, KeySource};
use shared::db::jwks::{IssuerKey, jwks_last, jwks_store};
use shared::domain::Role;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The issuer of the lab at an address of its own. Aborting the task takes it down.
async fn serve(lab: &mut Lab) -> JoinHandle<()> {
    let mut auth = AuthConfig::clone(&lab.ctx.config.auth);
    let issuer = auth.issuer.as_mut().expect("an issuer");
    let KeySource::Document(document) = issuer.keys.clone() else { panic!("the lab's issuer has a document") };
    let keys: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    issuer.keys = KeySource::Url(format!("http://{}/jwks.json", listener.local_addr().expect("an address")));
    issuer.max_stale = Duration::from_hours(24);
    lab.ctx.config.auth = Arc::new(auth);
    let router = axum::Router::new().route("/jwks.json", get(async move || Json(keys)));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") })
}

/// The stored documents.
async fn count(lab: &Lab) -> i64 {
    lab.admin.query_one("select count(*) from nofx.jwks", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_new_process_knows_the_keys_while_the_issuer_is_down() {
    let mut lab = Lab::new().await;
    let issuer = Issuer::of(&mut lab).await;
    lab.member("ann", Role::Viewer).await;
    let server = serve(&mut lab).await;
    // Each router is a process of its own, with its own cache.
    let ann = || CallerOf::new(api::router(lab.ctx.clone()).expect("a router"), &issuer.login("ann"));
    assert_eq!(ann().get("/runs").await.0, 200);
    lab.until("the keys are stored", "select count(*) = 1 from nofx.jwks").await;

    server.abort();
    let _ = server.await;
    assert_eq!(ann().get("/runs").await.0, 200);
    let stranger = Issuer::stranger();
    let forged = CallerOf::new(api::router(lab.ctx.clone()).expect("a router"), &stranger.login("ann"));
    assert_eq!(forged.get("/runs").await.0, 401, "the stored keys verify");
    // Of another issuer, or too old: they admit nobody.
    lab.admin.batch_execute("update nofx.jwks set fetched_at = fetched_at - interval '25 hours'").await.unwrap();
    assert_eq!(ann().get("/runs").await.0, 401);
    lab.admin.batch_execute("update nofx.jwks set fetched_at = clock_timestamp(), issuer = 'another'").await.unwrap();
    assert_eq!(ann().get("/runs").await.0, 401);
    assert_eq!(count(&lab).await, 1);
}

#[tokio::test]
async fn a_document_is_written_when_it_changes_or_ages_and_never_becomes_older() {
    let lab = Lab::new().await;
    let key = IssuerKey { tenant_id: lab.tenant.clone(), issuer: "https://issuer.test".into() };
    let db = &lab.ctx.db;
    assert_eq!(jwks_last(db, &key).await.unwrap(), None);
    let start = Duration::from_secs(1_700_000_000);
    for (minutes, document, expected) in [
        (10, "a", (10, "a")),
        (20, "a", (10, "a")),
        (41, "a", (41, "a")),
        (42, "b", (42, "b")),
        (30, "c", (42, "b")),
        (200, "b", (200, "b")),
    ] {
        jwks_store(db, &key, document, start + Duration::from_mins(minutes)).await.unwrap();
        let (minutes, document) = expected;
        let expected = (document.to_owned(), start + Duration::from_mins(minutes));
        assert_eq!(jwks_last(db, &key).await.unwrap(), Some(expected));
    }
    // A clock that is ahead does not keep later documents out.
    jwks_store(db, &key, "ahead", Duration::from_hours(2_500_000)).await.unwrap();
    let is_past = "select fetched_at <= clock_timestamp() from nofx.jwks";
    assert!(lab.admin.query_one(is_past, &[]).await.unwrap().get::<_, bool>(0));
    let other = IssuerKey { tenant_id: shared::domain::TenantId("other".into()), ..key };
    assert_eq!(jwks_last(db, &other).await.unwrap(), None);
    assert!(jwks_store(db, &other, &json!("x".repeat(70_000)).to_string(), start).await.is_err(), "a bound");
}
