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
        let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, secret_sha256, login_at, expires_at)
                   values ($1, $2, 'person', $3, $3, 'console', $4, clock_timestamp(), clock_timestamp() + interval '1 hour')";
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
        let decided =
            gate::gate_decide(&self.lab.person(who), &decision, Some(&json!({})), Some(&proof)).await.unwrap();
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
        assert_eq!(site.open(Method::HEAD, &link, None).await.status, StatusCode::UNAUTHORIZED, "{n}");
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
    let mut site = Site::new().await;
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

    // A member of another tenant with the same subject, who has got hold of the link.
    site.lab.tenant = TenantId("other".into());
    site.lab.team(&TEAM).await;
    let ben = site.log_in("ben").await;
    assert_eq!(site.get(&link, &ben).await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.decide(&link, &ben, "approve").await.status, StatusCode::NOT_FOUND);
    site.assert_untouched(gate, "of another tenant").await;
}

#[tokio::test]
async fn a_link_that_has_expired_or_whose_gate_has_changed_is_void() {
    let site = Site::new().await;
    let (_, gate) = site.asking(json!(null)).await;
    let (link, ben) = (site.link(gate, "ben").await, site.log_in("ben").await);
    let sql = "update nofx.gate_link set created_at = now() - interval '2 h', expires_at = now() - interval '1 s' where gate_id = $1";
    assert_eq!(site.lab.admin.execute(sql, &[&gate.0]).await.unwrap(), 1);
    for answer in [site.get(&link, &ben).await, site.decide(&link, &ben, "approve").await] {
        assert_eq!(answer.status, StatusCode::GONE, "{}", answer.body);
        assert!(answer.body.contains("This link has expired"), "{}", answer.body);
    }
    assert_eq!(site.decide_in_the_database("ben", gate, &link).await, Err(LinkFault::Expired));
    site.assert_untouched(gate, "expired").await;

    // A change that nobody has noticed yet: the page looks. Nothing is written before somebody decides.
    let (run, gate) = site.asking(json!(null)).await;
    let link = site.link(gate, "ben").await;
    let change = "update nofx.run set plan_digest = repeat($2, 64) where id = $1";
    site.lab.admin.execute(change, &[&run.0, &"c"]).await.unwrap();
    for answer in [site.get(&link, &ben).await, site.decide(&link, &ben, "approve").await] {
        assert_eq!(answer.status, StatusCode::GONE, "{}", answer.body);
        assert!(
            answer.body.contains("the gate has changed") && answer.body.contains("<bdi>plan</bdi>"),
            "{}",
            answer.body
        );
    }
    assert_eq!(events(&site.lab, run, "gate.voided").await.len(), 0);
    site.assert_untouched(gate, "changed").await;
    // One that was noticed when somebody else decided. The gate has another digest now.
    assert_eq!(approve(&site.lab, "carol", gate).await, "changed plan");
    let shown = site.get(&link, &ben).await;
    assert_eq!(shown.status, StatusCode::GONE);
    assert!(shown.body.contains("<bdi>plan</bdi>"), "{}", shown.body);
    assert_eq!(site.decide_in_the_database("ben", gate, &link).await, Err(LinkFault::Changed));
    site.assert_untouched(gate, "noticed").await;
    // Another link is about what is there now.
    let again = site.link(gate, "ben").await;
    assert_eq!(site.decide(&again, &ben, "approve").await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_link_widens_nothing_that_the_rule_of_its_gate_refuses() {
    let site = Site::new().await;
    site.set_policy(json!({ "self": "allowed" })).await;
    let (_, gate) = site.asking_of("ben", json!(null)).await;
    let (link, ben) = (site.link(gate, "ben").await, site.log_in("ben").await);
    let refused = async |verb: &str, why: &str| {
        let answer = site.decide(&link, &ben, verb).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{verb}: {}", answer.body);
        assert!(answer.body.contains(why), "{why}: {}", answer.body);
        site.assert_untouched(gate, why).await;
    };
    // Each of these became true after the link was made.
    site.set_policy(json!({})).await;
    refused("approve", "it is your own work").await;
    refused("reject", "it is your own work").await;
    site.set_policy(json!({ "self": "allowed", "roles": ["admin"] })).await;
    // A gate keeps what was stricter, so this one is of another run.
    let (_, gate) = site.asking(json!(null)).await;
    site.set_policy(json!({})).await;
    let (_, later) = site.asking(json!(null)).await;
    let why = site.make(&site.log_in("ann").await.0.expose(), gate, &json!({ "for": "ben" })).await;
    assert_eq!(why.status, StatusCode::BAD_REQUEST, "{}", why.body);
    let (link, gate) = (site.link(later, "ben").await, later);
    let refused = async |who: &Person, verb: &str, status: StatusCode, why: &str| {
        let answer = site.decide(&link, who, verb).await;
        assert_eq!(answer.status, status, "{verb}: {}", answer.body);
        assert!(answer.body.contains(why), "{why}: {}", answer.body);
        site.assert_untouched(gate, why).await;
    };
    refused(&ben, "waive", StatusCode::FORBIDDEN, "you may not do this").await;
    site.set_policy(json!({ "roles": ["admin"] })).await;
    refused(&ben, "approve", StatusCode::FORBIDDEN, "rule requires other people").await;
    site.set_policy(json!({ "max_session_age_s": 60 })).await;
    let old = site.log_in("ben").await;
    let sql = "update nofx.api_token set login_at = login_at - interval '2 minutes' where id = $1";
    site.lab.admin.execute(sql, &[&old.0.id.0]).await.unwrap();
    refused(&old, "approve", StatusCode::FORBIDDEN, "you logged in too long ago").await;
    // A decision needs its reason, and a form of this session.
    let (form_token, foreign) = (ben.0.form_token(), old.0.form_token());
    let forged = [(form_token.as_str(), "cross-site"), (foreign.as_str(), "same-origin"), ("", "same-origin")];
    for (csrf, from) in forged {
        let answer = site.decide_with(&link, &ben, "approve", csrf, from).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{csrf} {from}: {}", answer.body);
    }
    for verb in ["", "approved", "approve&decision=reject"] {
        assert_eq!(site.decide(&link, &ben, verb).await.status, StatusCode::BAD_REQUEST, "{verb}");
    }
    site.assert_untouched(gate, "forged").await;
    assert_eq!(site.decide(&link, &ben, "approve").await.status, StatusCode::SEE_OTHER);
    assert_eq!((site.approvals(gate).await, site.used(gate).await), (1, 1));
}

#[tokio::test]
async fn who_has_left_or_logged_out_decides_nothing() {
    let site = Site::new().await;
    let (_, gate) = site.asking(json!(null)).await;
    let (link, ben) = (site.link(gate, "ben").await, site.log_in("ben").await);
    let sql = "update nofx.api_token set revoked_at = now(), revoked_by = 'test' where id = $1";
    site.lab.admin.execute(sql, &[&ben.0.id.0]).await.unwrap();
    assert_eq!(site.get(&link, &ben).await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.decide(&link, &ben, "approve").await.status, StatusCode::UNAUTHORIZED);
    let ben = site.log_in("ben").await;
    for change in ["set role = 'operator'", "set removed_at = now()"] {
        let sql = format!("update nofx.membership {change} where subject = 'ben' and tenant_id = 'acme'");
        assert_eq!(site.lab.admin.execute(&sql, &[]).await.unwrap(), 1);
        assert_eq!(site.decide(&link, &ben, "approve").await.status, StatusCode::FORBIDDEN, "{change}");
    }
    assert_eq!(site.get(&link, &ben).await.status, StatusCode::FORBIDDEN);
    site.assert_untouched(gate, "left").await;
}

#[tokio::test]
async fn a_link_is_made_for_a_member_who_may_decide_and_for_nobody_else() {
    let site = Site::new().await;
    let (_, gate) = site.asking(json!({ "people": ["ben", "dan@acme.test"] })).await;
    let ann = site.log_in("ann").await.0.expose();
    for (person, why) in [
        ("nobody", "names no member"),
        ("carol", "its rule names others"),
        ("vic", "their role may not"),
        ("ann", "their role may not"),
        (" ", "for"),
    ] {
        let refused = site.make(&ann, gate, &json!({ "for": person })).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{person}: {}", refused.body);
        assert!(refused.body.contains(why), "{person}: {}", refused.body);
    }
    for body in
        [json!({}), json!({ "for": "ben", "expires_in_s": 59 }), json!({ "for": "ben", "expires_in_s": 2_592_001 })]
    {
        assert_eq!(site.make(&ann, gate, &body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let missing = site.make(&ann, GateId(Uuid::new_v4()), &json!({ "for": "ben" })).await;
    assert_eq!((missing.status, missing.json()["code"].as_str()), (StatusCode::NOT_FOUND, Some("not_found")));
    // Agents and viewers make none.
    for (kind, role) in [(Kind::Agent, Role::Admin), (Kind::Person, Role::Viewer)] {
        let token = site.lab.token(kind, role).await;
        let refused = site.make(&token, gate, &json!({ "for": "ben" })).await;
        assert_eq!((refused.status, &refused.json()["permission"]), (StatusCode::FORBIDDEN, &json!("gates.link")));
    }
    let two = "insert into nofx.membership (tenant_id, subject, role, name, email, created_by)
               values ('acme', 'ben2', 'approver', 'ben2', 'Ben@acme.test', 'test')";
    site.lab.admin.batch_execute(two).await.unwrap();
    let several = site.make(&ann, gate, &json!({ "for": "ben@acme.test" })).await;
    assert!(several.body.contains("of several members"), "{}", several.body);

    // The host is never that of the request: it could be anybody's.
    let service = site.lab.token(Kind::Service, Role::Operator).await;
    let made = site.make(&service, gate, &json!({ "for": "Dan@acme.test", "expires_in_s": 60 })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let made = made.json();
    assert!(made["url"].as_str().unwrap().starts_with("/ui/links/nofx_link_"), "{made}");
    assert_eq!((&made["for"], &made["subject"], &made["gate_id"]), (&json!("dan"), &json!("dan"), &json!(gate)));
    let seen = gate::gate_fetch(&site.lab.person("dan"), gate).await.unwrap().unwrap();
    assert_eq!(made["digest"], json!(seen.digest));
    // No part of the secret is stored. The audit and the timeline say who made it, for whom.
    let secret = made["url"].as_str().unwrap().rsplit('_').next().unwrap();
    let sql = "select (select string_agg(l::text, '') from nofx.gate_link l) || (select string_agg(e::text, '') from nofx.event e)
                      || (select string_agg(a.body, '') from nofx.audit a)";
    let stored: String = site.lab.admin.query_one(sql, &[]).await.unwrap().get(0);
    assert!(!stored.contains(secret) && stored.contains(made["id"].as_str().unwrap()));
    let audited = "select body::jsonb from nofx.audit where action = 'link.created'";
    let entry: Value = site.lab.admin.query_one(audited, &[]).await.unwrap().get(0);
    assert_eq!((&entry["subject"], &entry["detail"]["subject"]), (&made["id"], &json!("dan")));
    assert_eq!((&entry["actor"], &entry["by"]["kind"]), (&json!("service:operator"), &json!("service")));

    let more = "insert into nofx.gate_link (id, tenant_id, run_id, gate_id, subject, bound_digest, secret_sha256, created_by, created_at, expires_at)
                select gen_random_uuid(), l.tenant_id, l.run_id, l.gate_id, l.subject, l.bound_digest, sha256('x'), 'test', now(), now() + interval '1 h'
                  from nofx.gate_link l, generate_series(1, 99)";
    assert_eq!(site.lab.admin.execute(more, &[]).await.unwrap(), 99);
    let many = site.make(&ann, gate, &json!({ "for": "dan" })).await;
    assert_eq!(many.status, StatusCode::BAD_REQUEST);
    assert!(many.body.contains("100 open links"), "{}", many.body);
    // Whoever has approved needs no link, and a gate that was decided takes none.
    let dan = site.log_in("dan").await;
    let path = format!("/ui/links/{}", made["url"].as_str().unwrap().rsplit('/').next().unwrap());
    assert_eq!(site.decide(&path, &dan, "approve").await.status, StatusCode::SEE_OTHER);
    let late = site.make(&ann, gate, &json!({ "for": "ben" })).await;
    assert_eq!((late.status, late.json()["code"].as_str()), (StatusCode::CONFLICT, Some("gate_decided")));
    let sql = "select body::jsonb from nofx.audit where action = 'link.used' and body::jsonb ->> 'subject' = $1";
    let entry: Value = site.lab.admin.query_one(sql, &[&made["id"].as_str().unwrap()]).await.unwrap().get(0);
    assert_eq!((&entry["actor"], &entry["detail"]["gate_id"]), (&json!("dan"), &json!(gate)));
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_has_the_secret_of_a_link() {
    let site = Site::new().await;
    let (_, gate) = site.asking(json!(null)).await;
    let (lines, ben) = (Lines::default(), site.log_in("ben").await);
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE);
    let guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let link = site.link(gate, "ben").await;
    site.get(&link, &ben).await;
    site.open(Method::HEAD, &link, None).await;
    site.open(Method::GET, &format!("{link}/more"), None).await;
    site.decide(&link, &ben, "approve").await;
    site.decide(&link, &ben, "approve").await;
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/ui/links/…"), "{text}");
    let secret = link.rsplit('_').next().unwrap();
    assert!(!text.contains(secret), "{text}");
}
