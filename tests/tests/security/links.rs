//! One-time links to gates: what opening one does, whom it lets decide, and that it widens nothing.

use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures::future::join_all;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::auth::{ApiToken, LinkToken};
use shared::db::gate::{self, GateDecided, GateDecision};
use shared::db::link::{LinkFault, LinkProof};
use shared::db::policy::{self, NewPolicy};
use shared::domain::gate::Decision;
use shared::domain::{GateId, Kind, LinkId, Role, RunId, TenantId, TokenId};
use shared::http::{encoded, with_layers};
use tower::ServiceExt;
use uuid::Uuid;

use crate::approvals::{TEAM, approve, events, gate_of, start_as};
use crate::matrix;

/// A tenant whose people log in, and the functions.
struct Site {
    lab: Lab,
    console: Router,
    api: Router,
}

/// Somebody with a session.
#[derive(Clone)]
struct Person(ApiToken);

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    fn location(&self) -> &str {
        self.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Site {
    async fn new() -> Self {
        let lab = Box::pin(matrix::lab()).await;
        lab.team(&TEAM).await;
        Self::of(lab)
    }

    fn of(lab: Lab) -> Self {
        let console = with_layers(console::router(lab.ctx.clone()).expect("a router"));
        let api = with_layers(approvals::router(lab.ctx.clone()).expect("a router"));
        Self { lab, console, api }
    }

    /// A new session of a member.
    async fn log_in(&self, subject: &str) -> Person {
        let token = ApiToken::generate(Kind::Person, TokenId(Uuid::new_v4()), self.lab.tenant.clone()).unwrap();
        let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, secret_sha256, expires_at)
                   values ($1, $2, 'person', $3, $3, 'console', $4, clock_timestamp() + interval '1 hour')";
        let hash = token.hash().as_bytes().to_vec();
        self.lab.admin.execute(sql, &[&token.id.0, &self.lab.tenant.0, &subject, &hash]).await.unwrap();
        Person(token)
    }

    /// A run of ann that waits for its only step, which only asks.
    async fn asking(&self, approval: Value) -> (RunId, GateId) {
        self.asking_of("ann", approval).await
    }

    async fn asking_of(&self, who: &str, approval: Value) -> (RunId, GateId) {
        let inputs = if approval.is_null() { json!({}) } else { json!({ "approval": approval }) };
        let plan = json!({ "goal": "the secret goal", "steps": [plans::step("ask", "manual:go", inputs)] });
        let run = start_as(&self.lab, &self.lab.person(who), &plan).await;
        self.lab.settle(&Script::deployed(), Deliver::Once).await;
        (run, gate_of(&self.lab, run).await)
    }

    async fn send(&self, router: &Router, request: Request<Body>) -> Answer {
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// `POST /gates/{id}/links` with this token.
    async fn make(&self, token: &str, gate: GateId, body: &Value) -> Answer {
        let request = Request::post(format!("/gates/{gate}/links"))
            .header(header::HOST, "evil.test")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(&self.api, request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// The path of a new link of ann.
    async fn link(&self, gate: GateId, person: &str) -> String {
        let ann = self.log_in("ann").await;
        let made = self.make(&ann.0.expose(), gate, &json!({ "for": person })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        made.json()["url"].as_str().expect("a url").to_owned()
    }

    async fn open(&self, method: Method, path: &str, who: Option<&Person>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "nofx.test");
        if let Some(Person(session)) = who {
            request = request.header(header::COOKIE, format!("nofx-session={}", session.expose()));
        }
        self.send(&self.console, request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str, who: &Person) -> Answer {
        self.open(Method::GET, path, Some(who)).await
    }

    /// Sends the form of the page, as its browser does.
    async fn decide(&self, path: &str, who: &Person, verb: &str) -> Answer {
        self.decide_with(path, who, verb, &who.0.form_token(), "same-origin").await
    }

    async fn decide_with(&self, path: &str, who: &Person, verb: &str, csrf: &str, site: &str) -> Answer {
        let form = format!("decision={verb}&reason={}&csrf={csrf}", encoded("so it is"));
        let request = Request::post(path)
            .header(header::HOST, "nofx.test")
            .header("sec-fetch-site", site)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::COOKIE, format!("nofx-session={}", who.0.expose()));
        self.send(&self.console, request.body(Body::from(form)).unwrap()).await
    }

    async fn approvals(&self, gate: GateId) -> i64 {
        let sql = "select count(*) from nofx.approval where gate_id = $1";
        self.lab.admin.query_one(sql, &[&gate.0]).await.unwrap().get(0)
    }

    /// Links of a gate that were used.
    async fn used(&self, gate: GateId) -> i64 {
        let sql = "select count(*) from nofx.gate_link where gate_id = $1 and used_at is not null";
        self.lab.admin.query_one(sql, &[&gate.0]).await.unwrap().get(0)
    }

    /// Nothing was decided, and no link was used up.
    async fn assert_untouched(&self, gate: GateId, what: &str) {
        let status: String = self.lab.text("select status from nofx.gate where id = $1", gate.0).await;
        let (approvals, used) = (self.approvals(gate).await, self.used(gate).await);
        assert_eq!((status.as_str(), approvals, used), ("pending", 0, 0), "{what}");
    }

    async fn set_policy(&self, approvals: Value) {
        let document = json!({ "approvals": approvals });
        let new = NewPolicy { document: &document, actor: "dan", reason: None, if_version: None };
        policy::policy_set(&self.lab.person("dan"), &new).await.unwrap();
    }

    /// Decides in the database, as `who` with this link.
    async fn decide_in_the_database(&self, who: &str, gate_id: GateId, path: &str) -> Result<(), LinkFault> {
        let (decision, actor, reason) = (Decision::Approve, "", Some("so"));
        let decision = GateDecision { gate_id, decision, actor, reason, seen: None };
        let proof = proof(path);
        let decided = gate::gate_decide_with(&self.lab.person(who), &decision, None, Some(&proof)).await.unwrap();
        match decided {
            GateDecided::Decided { .. } => Ok(()),
            GateDecided::Link { why } => Err(why),
            other => panic!("{other:?}"),
        }
    }
}

fn proof(path: &str) -> LinkProof {
    let token = LinkToken::parse(path.rsplit('/').next().unwrap()).expect("a link");
    LinkProof::new(token.id, token.hash())
}

#[tokio::test]
async fn opening_a_link_a_hundred_times_decides_nothing() {
    let site = Site::new().await;
    let (run, gate) = site.asking(json!(null)).await;
    let link = site.link(gate, "ben").await;
    let ben = site.log_in("ben").await;
    let before = events(&site.lab, run, "gate.linked").await;
    for n in 0..100 {
        let shown = site.get(&link, &ben).await;
        assert_eq!(shown.status, StatusCode::OK, "{n}: {}", shown.body);
        let head = site.open(Method::HEAD, &link, Some(&ben)).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""), "{n}");
        // A scanner of mails has no login.
        let scanned = site.open(Method::GET, &link, None).await;
        assert_eq!(scanned.status, StatusCode::SEE_OTHER, "{n}");
        assert_eq!(site.open(Method::HEAD, &link, None).await.status, StatusCode::SEE_OTHER, "{n}");
    }
    site.assert_untouched(gate, "opened").await;
    assert_eq!((before.len(), events(&site.lab, run, "gate.linked").await.len()), (1, 1));
    let sql = "select count(*) from nofx.event where run_id = $1 and type like 'gate.%'";
    assert_eq!(site.lab.admin.query_one(sql, &[&run.0]).await.unwrap().get::<_, i64>(0), 2, "asked and linked");
    // The page says whom it is for, and its form leads back to the link. No other host gets the address.
    let shown = site.get(&link, &ben).await;
    let token = link.rsplit('/').next().unwrap();
    for part in ["the secret goal", "This link is for ", "<bdi>ben</bdi>", &format!("action=\"../links/{token}\"")] {
        assert!(shown.body.contains(part), "{part}: {}", shown.body);
    }
    assert_eq!(shown.headers["referrer-policy"], "same-origin");
    assert_eq!(shown.headers["cache-control"], "no-store");
    // The login leads back to it.
    let scanned = site.open(Method::GET, &link, None).await;
    assert_eq!(scanned.location(), format!("../login?next=links%2F{token}"));
    let login = site.open(Method::GET, &format!("/ui/login?next=links%2F{token}"), None).await;
    assert!(login.body.contains(&format!("name=\"next\" value=\"links/{token}\"")), "{}", login.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_concurrent_forms_of_a_link_one_decides() {
    let site = Site::new().await;
    for required in [1, 2] {
        let (run, gate) = site.asking(json!({ "required": required })).await;
        let link = site.link(gate, "BEN@acme.test").await;
        let ben = site.log_in("ben").await;
        let answers = join_all((0..20).map(|_| site.decide(&link, &ben, "approve"))).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        assert!(statuses.contains(&303), "{statuses:?}");
        assert!(statuses.iter().all(|status| [303, 409, 410].contains(status)), "{statuses:?}");
        assert_eq!((site.approvals(gate).await, site.used(gate).await), (1, 1));
        assert_eq!(events(&site.lab, run, "gate.approved").await.len(), required - 1);
        // It is used up for every other decision too.
        for verb in ["approve", "reject"] {
            let again = site.decide(&link, &ben, verb).await;
            assert_eq!(again.status, StatusCode::GONE, "{verb}: {}", again.body);
        }
        assert_eq!(site.approvals(gate).await, 1);
        let shown = site.get(&link, &ben).await;
        assert_eq!(shown.status, StatusCode::GONE);
        let said = if required == 1 { " is approved by " } else { "waits for a decision" };
        for part in ["This link has been used", said, &format!("../gates/{gate}")] {
            assert!(shown.body.contains(part), "{part}: {}", shown.body);
        }
        assert_eq!(site.lab.run_status(run).await, if required == 1 { "succeeded" } else { "blocked" });
    }
    site.lab.assert_invariants().await;
}

#[tokio::test]
async fn nobody_else_decides_with_a_link_or_learns_what_it_is_about() {
    let site = Site::new().await;
    let (_, gate) = site.asking(json!(null)).await;
    let link = site.link(gate, "ben").await;
    for who in ["ann", "carol", "dan", "vic"] {
        let person = site.log_in(who).await;
        let shown = site.get(&link, &person).await;
        assert_eq!(shown.status, StatusCode::FORBIDDEN, "{who}");
        assert!(shown.body.contains("This link is for somebody else"), "{who}: {}", shown.body);
        let refused = site.decide(&link, &person, "approve").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{who}");
        for secret in ["the secret goal", "ben", &gate.to_string()] {
            assert!(!shown.body.contains(secret) && !refused.body.contains(secret), "{who} reads {secret}");
        }
    }
    assert_eq!(site.decide_in_the_database("carol", gate, &link).await, Err(LinkFault::Other));
    // Programs, whatever their role is.
    for (kind, role) in [(Kind::Agent, Role::Admin), (Kind::Service, Role::Admin)] {
        let token = site.lab.token(kind, role).await;
        for method in [Method::GET, Method::POST] {
            let request = Request::builder()
                .method(method.clone())
                .uri(&link)
                .header(header::HOST, "nofx.test")
                .header("sec-fetch-site", "same-origin")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::COOKIE, format!("nofx-csrf={}", "0".repeat(32)))
                .header(header::AUTHORIZATION, format!("Bearer {token}"));
            let form = format!("decision=approve&csrf={}", "0".repeat(32));
            let answer = site.send(&site.console, request.body(Body::from(form)).unwrap()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{kind} {method}: {}", answer.body);
            assert!(!answer.body.contains("the secret goal"), "{}", answer.body);
        }
    }
    // A link is no login.
    let token = link.rsplit('/').next().unwrap();
    let request = Request::get("/gates").header(header::AUTHORIZATION, format!("Bearer {token}"));
    let answer = site.send(&site.api, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    site.assert_untouched(gate, "by others").await;
}

#[tokio::test]
async fn a_link_counts_for_its_gate_and_its_tenant_only() {
    let site = Site::new().await;
    let ((_, gate), (_, other)) = (site.asking(json!(null)).await, site.asking(json!(null)).await);
    let link = site.link(gate, "ben").await;
    assert_eq!(site.decide_in_the_database("ben", other, &link).await, Err(LinkFault::Unknown));
    site.assert_untouched(other, "of another gate").await;
    // Another secret, and an id that nobody made.
    let ben = site.log_in("ben").await;
    let id = LinkToken::parse(link.rsplit('/').next().unwrap()).unwrap().id;
    for guess in [LinkToken::generate(id).unwrap(), LinkToken::generate(LinkId(Uuid::new_v4())).unwrap()] {
        let path = format!("/ui/links/{}", guess.expose());
        assert_eq!(site.get(&path, &ben).await.status, StatusCode::NOT_FOUND);
        assert_eq!(site.decide(&path, &ben, "approve").await.status, StatusCode::NOT_FOUND);
        assert_eq!(site.decide_in_the_database("ben", gate, &path).await, Err(LinkFault::Unknown));
    }
    for path in ["/ui/links/x", "/ui/links/nofx_link_", "/ui/links/nofx_link_a_b"] {
        assert_eq!(site.get(path, &ben).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    site.assert_untouched(gate, "by guesses").await;

    // A member of another tenant with the same subject, the same id of a gate in mind, and the link itself.
    let mut elsewhere = Site::new().await;
    elsewhere.lab.database = site.lab.database;
    let mut lab = site.lab_of_another_tenant_with("ben").await;
    lab.tenant = TenantId("other".into());
    let foreign = Site::of(lab);
    let ben = foreign.log_in("ben").await;
    assert_eq!(foreign.get(&link, &ben).await.status, StatusCode::NOT_FOUND);
    assert_eq!(foreign.decide(&link, &ben, "approve").await.status, StatusCode::NOT_FOUND);
}

