//! `nofx login`, `logout`, `whoami`, `token` and `member`, with the functions and an issuer of the test.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use nofx_tests::Lab;
use nofx_tests::command::Nofx;
use nofx_tests::issuer::Issuer;
use serde_json::{Value, json};
use shared::config::LoginConfig;
use shared::domain::Role;
use tokio::net::TcpListener;

use crate::commands::{serve, texts};

pub const PASSWORD: &str = "correct horse battery staple";

/// A tenant with the members ann (admin) and ben (viewer), and an issuer at which ann has a password.
pub struct Tenant {
    pub lab: Lab,
    issuer: Arc<Issuer>,
}

async fn at_some_port(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Tenant {
    pub async fn new() -> Self {
        let mut lab = Lab::new().await;
        let issuer = Arc::new(Issuer::of(&mut lab).await);
        lab.member("ann", Role::Admin).await;
        lab.member("ben", Role::Viewer).await;
        let granting = Arc::clone(&issuer);
        let grant = post(async move |headers: HeaderMap, Json(body): Json<Value>| {
            let is_ann = body["email"].as_str().is_some_and(|email| email.starts_with("ann"));
            let is_right = is_ann && body["password"] == PASSWORD;
            if is_right && headers.get("apikey").is_some_and(|key| key == "public") {
                (StatusCode::OK, Json(json!({"access_token": granting.login("ann"), "refresh_token": "r"})))
            } else {
                let refused = json!({"error": "invalid_grant", "error_description": "Invalid login credentials"});
                (StatusCode::BAD_REQUEST, Json(refused))
            }
        });
        let url = at_some_port(Router::new().route("/auth/v1/token", grant)).await;
        let login = LoginConfig { url: format!("{url}/auth/v1"), publishable_key: "public".into() };
        let mut auth = (*lab.ctx.config.auth).clone();
        auth.login = Some(login);
        lab.ctx.config.auth = Arc::new(auth);
        Self { lab, issuer }
    }
}

/// A call that reads a secret from standard input.
async fn with_input(nofx: &Nofx, arguments: &[&str], input: &str) -> Output {
    let mut command = nofx.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("an input").write_all(input.as_bytes()).expect("it reads");
    // The functions of the test answer in the meantime.
    tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ends")).await.expect("it ends")
}

#[tokio::test]
async fn a_person_logs_in_and_the_session_stays_with_its_origin_until_logout() {
    let tenant = Tenant::new().await;
    let nofx = serve(&tenant.lab).await;
    let refused = nofx.output(&["runs"]).await;
    let (_, told) = texts(&refused);
    assert_eq!(refused.status.code(), Some(8), "{told}");
    assert!(told.contains("log in with nofx login"), "{told}");

    let wrong = with_input(&nofx, &["login", "--email", "ann@acme.test"], "wrong\n").await;
    let (_, told) = texts(&wrong);
    assert!(!wrong.status.success() && told.contains("refuses the login: Invalid login credentials"), "{told}");
    let file = nofx.folder().join("credentials.toml");
    assert!(!file.exists());

    let done = with_input(&nofx, &["login", "--email", "ann@acme.test"], &format!("{PASSWORD}\n")).await;
    let (printed, told) = texts(&done);
    assert!(printed.starts_with("ann, admin of the tenant acme (expires in 29 d"), "{printed}{told}");
    let stored = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        stored.contains("nofx_person_") && !stored.contains(PASSWORD) && !stored.contains("eyJ"),
        "no password, no JWT"
    );
    assert_eq!(nofx.json(&["whoami", "--json"]).await["subject"], "ann");

    // Another API with the same file gets no token.
    let mut elsewhere = nofx.command(&["whoami"]);
    elsewhere.env("NOFX_API_URL", serve_elsewhere(&tenant.lab).await);
    let other = nofx_tests::command::output(elsewhere).await;
    assert_eq!(other.status.code(), Some(8), "{}", texts(&other).1);

    assert!(nofx.output(&["logout"]).await.status.success());
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "");
    let sql = "select count(*) from nofx.api_token where kind = 'person' and revoked_at is null";
    assert_eq!(tenant.lab.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(nofx.output(&["whoami"]).await.status.code(), Some(8));
    let (_, told) = texts(&nofx.output(&["logout"]).await);
    assert!(told.starts_with("nobody is logged in at "), "{told}");
}

/// The same functions at another address.
async fn serve_elsewhere(lab: &Lab) -> String {
    at_some_port(nofx_tests::gallery::site::functions(&lab.ctx)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_makes_a_token_that_a_program_uses_and_revokes_it() {
    let tenant = Tenant::new().await;
    let nofx = serve(&tenant.lab).await;
    assert!(with_input(&nofx, &["login", "--email", "ann@acme.test"], PASSWORD).await.status.success());
    let create = ["token", "create", "ci", "--kind", "service", "--role", "operator", "--expires", "12h"];
    let made = nofx.output(&create).await;
    let (token, told) = texts(&made);
    assert!(token.starts_with("nofx_service_") && token.lines().count() == 1, "{told}");
    assert!(told.starts_with("service:ci has this token until ") && !told.contains(token.trim()), "{told}");
    let by_token = |arguments: &[&str]| {
        let mut command = nofx.command(arguments);
        command.env("NOFX_TOKEN", token.trim());
        nofx_tests::command::output(command)
    };
    // NOFX_TOKEN wins over the session.
    let (printed, _) = texts(&by_token(&["whoami"]).await);
    assert!(printed.starts_with("service:ci, operator of the tenant acme, owned by ann (expires in 11 h"), "{printed}");
    let (_, told) = texts(&by_token(&["member", "list"]).await);
    assert!(told.contains("you may not do this (forbidden)") && told.contains("nofx whoami"), "{told}");

    let scoped = ["token", "create", "r", "--kind", "agent", "--role", "viewer", "--scope", "runs.create"];
    let (_, told) = texts(&nofx.output(&scoped).await);
    assert!(told.contains("scopes: has permissions that the role and kind do not include: runs.create"), "{told}");
    let listed = nofx.json(&["token", "list", "--json"]).await;
    let id = listed["tokens"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((listed["tokens"].as_array().unwrap().len(), &listed["tokens"][0]["name"]), (1, &json!("service:ci")));
    assert_eq!(nofx.json(&["token", "list", "--sessions", "--json"]).await["tokens"][0]["name"], "nofx login");
    assert_eq!(texts(&nofx.output(&["token", "revoke", &id]).await).0.trim(), format!("{id}  was revoked"));
    assert_eq!(by_token(&["whoami"]).await.status.code(), Some(8));
    assert_eq!(nofx.json(&["token", "list", "--json"]).await["tokens"], json!([]));
    let all = texts(&nofx.output(&["token", "list", "--all"]).await).0;
    assert!(all.contains("revoked") && all.contains("by ann"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sets_and_removes_members_and_a_program_logs_in_with_its_token() {
    let tenant = Tenant::new().await;
    let nofx = serve(&tenant.lab).await;
    // A session that somebody else made counts as any token.
    let login = tenant.issuer.login("ann");
    let stored = with_input(&nofx, &["login", "--token", "-"], &login).await;
    assert!(texts(&stored).0.starts_with("ann, admin of the tenant acme at "), "{}", texts(&stored).1);
    let set = nofx.output(&["member", "set", "sub-7", "--role", "approver", "--email", "eve@acme.test"]).await;
    assert_eq!(texts(&set).0.trim(), "sub-7  eve@acme.test  approver");
    let listed = nofx.json(&["member", "list", "--json"]).await;
    assert_eq!(listed["members"].as_array().unwrap().len(), 3);
    assert_eq!(texts(&nofx.output(&["member", "remove", "ben"]).await).0.trim(), "ben  was removed");
    let gone = nofx.output(&["member", "remove", "ben"]).await;
    assert_eq!(gone.status.code(), Some(5));
    assert!(texts(&gone).1.contains("nofx member list lists the members"), "{}", texts(&gone).1);
    let last = nofx.output(&["member", "set", "ann", "--role", "viewer"]).await;
    assert!(texts(&last).1.contains("would have no admin left"), "{}", texts(&last).1);

    let nonsense = with_input(&nofx, &["login", "--token", "-"], "nofx_service_x_y\n").await;
    assert_eq!(nonsense.status.code(), Some(8));
    // The one before stays.
    assert!(nofx.output(&["whoami"]).await.status.success());
}

#[tokio::test]
async fn a_local_stack_needs_no_login() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let (printed, told) = texts(&nofx.output(&["login"]).await);
    assert!(
        printed.is_empty() && told.contains("needs no login: every request is that of the person local"),
        "{printed}{told}"
    );
    let (printed, _) = texts(&nofx.output(&["whoami"]).await);
    assert!(printed.starts_with("local, admin of the tenant acme\nmay: account.read, "), "{printed}");
}
