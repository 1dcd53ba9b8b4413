//! Logins in the console: session, cookie, forms, and what pages show of it.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, header};
use nofx_tests::{Lab, plans};
use serde_json::json;
use shared::domain::Role;
use shared::http::encoded;
use tower::ServiceExt;

use crate::logins::{PASSWORD, Tenant};

/// A browser at the console: it keeps cookies, and says that its forms are from our pages.
struct Browser {
    console: Router,
    cookies: BTreeMap<String, String>,
    over_tls: bool,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn location(&self) -> &str {
        self.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The token of the page's forms.
    fn csrf(&self) -> String {
        let rest = self.body.split_once("name=\"csrf\" value=\"").map(|(_, rest)| rest).expect("a form");
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}

impl Browser {
    fn at(lab: &Lab) -> Self {
        let console = shared::http::with_layers(console::router(lab.ctx.clone()).expect("a router"));
        Self { console, cookies: BTreeMap::new(), over_tls: false }
    }

    async fn send(&mut self, method: &str, path: &str, site: &str, form: Option<&[(&str, &str)]>) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        request = request.header(header::COOKIE, cookies.join("; ")).header("sec-fetch-site", site);
        if self.over_tls {
            request = request.header("x-forwarded-proto", "https");
        }
        let body = form.map_or_else(Body::empty, |form| {
            let pairs: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
            Body::from(pairs.join("&"))
        });
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let answer = self.console.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").expect("attributes");
            let (name, value) = pair.split_once('=').expect("a cookie");
            assert!(attributes.contains("HttpOnly") && attributes.contains("Path=/"), "{attributes}");
            assert_eq!(attributes.contains("Secure"), self.over_tls, "{attributes}");
            assert_eq!(name.starts_with("__Host-"), self.over_tls, "{name}");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = String::from_utf8(to_bytes(body, 4 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "none", None).await
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send("POST", path, "same-origin", Some(form)).await
    }

    async fn log_in(&mut self, next: &str) -> Answer {
        let csrf = self.get("/ui/login").await.csrf();
        let form = [("email", "ann@acme.test"), ("password", PASSWORD), ("next", next), ("csrf", &csrf)];
        self.post("/ui/login", &form).await
    }
}

async fn sessions(lab: &Lab) -> i64 {
    let sql = "select count(*) from nofx.api_token where kind = 'person' and revoked_at is null";
    lab.admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_page_leads_to_the_login_and_the_login_back_to_it() {
    let tenant = Tenant::new().await;
    for over_tls in [false, true] {
        let mut browser = Browser { over_tls, ..Browser::at(&tenant.lab) };
        let sent = browser.get("/ui/inbox?decided=1").await;
        assert_eq!((sent.status, sent.location()), (303, "login?next=inbox%3Fdecided%3D1"));
        assert_eq!(browser.get("/ui/runs/1/fragment").await.status, 401);
        let form = browser.get("/ui/login?next=inbox%3Fdecided%3D1").await;
        assert!(form.body.contains("name=\"next\" value=\"inbox?decided=1\""), "{}", form.body);
        assert!(!form.body.contains("<nav"), "it leads nowhere else");
        let done = browser.log_in("inbox?decided=1").await;
        assert_eq!((done.status, done.location()), (303, "inbox?decided=1"));
        let page = browser.get("/ui/inbox?decided=1").await;
        assert_eq!(page.status, 200);
        for shown in ["Logged in as ", "<bdi>ann</bdi>", "admin", "acme", "Log out", ">Members<", ">Tokens<"] {
            assert!(page.body.contains(shown), "{shown}");
        }
        let csrf = page.csrf();
        let out = browser.post("/ui/logout", &[("csrf", &csrf)]).await;
        assert_eq!((out.status, out.location()), (303, "login"));
        assert!(!browser.cookies.keys().any(|name| name.ends_with("nofx-session")));
        assert_eq!(browser.get("/ui/runs").await.status, 303);
    }
    assert_eq!(sessions(&tenant.lab).await, 0);
}

#[tokio::test]
async fn a_login_that_fails_starts_nothing_and_five_are_enough() {
    let tenant = Tenant::new().await;
    let mut browser = Browser::at(&tenant.lab);
    let csrf = browser.get("/ui/login").await.csrf();
    let form =
        |password, email, csrf| [("email", email), ("password", password), ("next", "//evil.test"), ("csrf", csrf)];
    // Another site cannot log somebody in, to an account of its own.
    let right = form(PASSWORD, "ann.other@acme.test", &csrf);
    assert_eq!(browser.send("POST", "/ui/login", "cross-site", Some(&right)).await.status, 403);
    let old = form(PASSWORD, "ann.other@acme.test", "00000000000000000000000000000000");
    assert_eq!(browser.post("/ui/login", &old).await.status, 403);
    for (at, status) in [401, 401, 401, 401, 401, 429].into_iter().enumerate() {
        let answer = browser.post("/ui/login", &form("wrong", "Ann.other@acme.test", &csrf)).await;
        assert_eq!(answer.status, status, "attempt {at}");
        let why = if status == 401 { "The e-mail address or the password is wrong." } else { "too many attempts" };
        assert!(answer.body.contains(why) && answer.body.contains("value=\"Ann.other@acme.test\""), "{}", answer.body);
        assert!(!answer.body.contains("wrong\""), "the password is not shown again");
    }
    // Also with the right password, and for this address alone.
    assert_eq!(browser.post("/ui/login", &right).await.status, 429);
    assert_eq!(browser.post("/ui/login", &form("x", "ben@acme.test", &csrf)).await.status, 401);
    assert_eq!(sessions(&tenant.lab).await, 0);
    let mut other = Browser::at(&tenant.lab);
    other.cookies.insert("nofx-session".into(), "nofx_person_garbage".into());
    assert_eq!(other.get("/ui/runs").await.status, 303);
}

#[tokio::test]
async fn a_form_acts_for_its_session_and_for_no_other() {
    let tenant = Tenant::new().await;
    submit(&tenant.lab).await;
    let run: uuid::Uuid = tenant.lab.admin.query_one("select id from nofx.run", &[]).await.unwrap().get(0);
    let (mut browser, mut other) = (Browser::at(&tenant.lab), Browser::at(&tenant.lab));
    assert_eq!(browser.log_in("//evil.test").await.location(), "runs", "no place of another site");
    other.log_in("runs").await;
    let page = browser.get(&format!("/ui/runs/{run}")).await;
    assert!(!page.body.contains("name=\"actor\""), "the session says who acts");
    let (csrf, foreign) = (page.csrf(), other.get("/ui/runs").await.csrf());
    assert_ne!(csrf, foreign);
    let pause = format!("/ui/runs/{run}/pause");
    for (token, site) in
        [(foreign.as_str(), "same-origin"), ("", "same-origin"), (&csrf, "cross-site"), (&csrf, "none")]
    {
        let answer = browser.send("POST", &pause, site, Some(&[("csrf", token)])).await;
        assert_eq!(answer.status, 403, "{token} {site}");
    }
    let mut without = Browser::at(&tenant.lab);
    let ended = without.post(&pause, &[("csrf", &csrf)]).await;
    assert!(
        ended.status == 401 && ended.body.contains("Your session has ended. Nothing was changed."),
        "{}",
        ended.body
    );
    let status = "select status from nofx.run where id = $1";
    assert_ne!(tenant.lab.text(status, run).await, "paused");
    // A name in the form does not count.
    let done = browser.post(&pause, &[("csrf", &csrf), ("actor", "eve")]).await;
    assert_eq!(done.status, 303);
    let actor =
        "select coalesce(payload ->> 'actor', '') from nofx.event where run_id = $1 and type = 'run.pause_requested'";
    assert_eq!(tenant.lab.text(actor, run).await, "ann");
}

#[tokio::test]
async fn an_admin_manages_members_and_tokens_and_sees_a_secret_once() {
    let tenant = Tenant::new().await;
    let mut browser = Browser::at(&tenant.lab);
    browser.log_in("members").await;
    let csrf = browser.get("/ui/members").await.csrf();
    let eve =
        [("csrf", csrf.as_str()), ("subject", "sub-7"), ("role", "operator"), ("name", ""), ("email", "eve@acme.test")];
    let done = browser.post("/ui/members", &eve).await;
    assert_eq!((done.status, done.location()), (303, "members"), "{}", done.body);
    let page = browser.get("/ui/members").await.body;
    assert!(page.contains("eve@acme.test") && page.contains("sub-7") && page.contains(">ben<"), "{page}");
    let own = [("csrf", csrf.as_str()), ("subject", "ann"), ("role", "viewer"), ("name", ""), ("email", "")];
    let last = browser.post("/ui/members", &own).await;
    assert!(last.status == 400 && last.body.contains("no admin left"), "{}", last.status);
    let gone = browser.post("/ui/members/remove", &[("csrf", &csrf), ("subject", "sub-7"), ("tokens_to", "")]).await;
    assert_eq!((gone.status, gone.location()), (303, "../members"));

    let new = [("csrf", csrf.as_str()), ("kind", "agent"), ("name", "planner"), ("role", "operator"), ("days", "30")];
    let made = browser.post("/ui/tokens", &new).await;
    assert_eq!(made.status, 200);
    let token = made.body.split_once("nofx_agent_").map(|(_, rest)| rest.split(['<', '"']).next().unwrap()).unwrap();
    assert_eq!(made.headers[header::CACHE_CONTROL], "no-store");
    let tokens = browser.get("/ui/tokens").await.body;
    assert!(tokens.contains("agent:planner") && !tokens.contains(token), "the secret is shown once");
    assert!(browser.get("/ui/tokens?sessions=true").await.body.contains(">console<"));
    let id: uuid::Uuid = {
        let sql = "select id from nofx.api_token where kind = 'agent'";
        tenant.lab.admin.query_one(sql, &[]).await.unwrap().get(0)
    };
    let revoked = browser.post(&format!("/ui/tokens/{id}/revoke"), &[("csrf", &csrf)]).await;
    assert_eq!((revoked.status, revoked.location()), (303, "../../tokens"));
    let sql = "select revoked_by from nofx.api_token where id = $1";
    assert_eq!(tenant.lab.text(sql, id).await, "ann");

    // Who is no admin sees neither page, nor its link.
    tenant.lab.member("second", Role::Admin).await;
    tenant.lab.admin.batch_execute("update nofx.membership set role = 'operator' where subject = 'ann'").await.unwrap();
    for path in ["/ui/members", "/ui/tokens"] {
        assert_eq!(browser.get(path).await.status, 403, "{path}");
    }
    let page = browser.get("/ui/runs").await.body;
    assert!(page.contains("operator") && !page.contains(">Members<") && !page.contains(">Tokens<"));
}

#[tokio::test]
async fn no_page_changes_anything_by_being_looked_at() {
    let tenant = Tenant::new().await;
    submit(&tenant.lab).await;
    let mut browser = Browser::at(&tenant.lab);
    browser.log_in("runs").await;
    // The first use of the session is recorded.
    browser.get("/ui/runs").await;
    let state = async || {
        let tables =
            "select relname::text from pg_class where relnamespace = 'nofx'::regnamespace and relkind = 'r' order by 1";
        let mut state = Vec::new();
        for row in tenant.lab.admin.query(tables, &[]).await.unwrap() {
            let sql = format!(
                "select coalesce(string_agg(t::text, ' ' order by t::text), '') from nofx.{} t",
                row.get::<_, String>(0)
            );
            state.push(tenant.lab.admin.query_one(&sql, &[]).await.unwrap().get::<_, String>(0));
        }
        state
    };
    let before = state().await;
    let run: uuid::Uuid = tenant.lab.admin.query_one("select id from nofx.run", &[]).await.unwrap().get(0);
    let mut looked = 0;
    for route in console::routes().table().iter().filter(|route| route.method == "GET") {
        let path =
            route.path.replace("{id}", &run.to_string()).replace("{ordinal}", "0").replace("{table}", "public.x");
        browser.get(&path).await;
        looked += 1;
    }
    assert!(looked > 15, "{looked} pages");
    assert!(before == state().await, "a page changed a row");
}

#[tokio::test]
async fn the_local_mode_has_no_login_and_ignores_a_cookie_of_another_stack() {
    let lab = Lab::new().await;
    let mut browser = Browser::at(&lab);
    browser.cookies.insert("nofx-session".into(), "nofx_person_garbage".into());
    let page = browser.get("/ui/runs").await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("Log out") && !page.body.contains(">Members<"));
    let login = browser.get("/ui/login").await;
    assert_eq!((login.status, login.location()), (303, "runs"));
    assert!(browser.get("/ui/new").await.body.contains("name=\"actor\""));
}

/// Creates a run of the tenant.
async fn submit(lab: &Lab) {
    let sql = "update nofx.tenant set is_solo = true;
                   insert into nofx.membership (tenant_id, subject, role, name, created_by)
                   values ('acme', 'local', 'admin', 'local', 'test')";
    lab.admin.batch_execute(sql).await.unwrap();
    lab.submit(&json!({"goal": "g", "steps": [plans::step("a", "echo", json!({}))]})).await;
    let sql = "update nofx.tenant set is_solo = false; delete from nofx.membership where subject = 'local'";
    lab.admin.batch_execute(sql).await.unwrap();
}
