//! Every route with every kind of principal and every role, for objects of its own tenant and of another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use nofx_tests::database::TestDatabase;
use nofx_tests::lab::{config, create_bucket, sdk};
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::auth::{ApiToken, LinkToken};
use shared::config::{AuthConfig, AuthMode};
use shared::db::gate::{GateCreated, GateRequest, gate_create};
use shared::domain::principal::Permission;
use shared::domain::{GateId, Kind, LinkId, Role, TenantId};
use shared::http::{BodyKind, Route, with_layers};
use tower::ServiceExt;
use uuid::Uuid;

/// The functions of a deployment with real authentication, and all their routes.
struct Functions {
    routers: [(Router, Vec<Route>); 3],
}

impl Functions {
    fn of(lab: &Lab) -> Self {
        let ctx = || lab.ctx.clone();
        let routers = [
            (api::router(ctx()).expect("a router"), api::routes().table().to_vec()),
            (approvals::router(ctx()).expect("a router"), approvals::routes().table().to_vec()),
            (console::router(ctx()).expect("a router"), console::routes().table().to_vec()),
        ];
        Self { routers: routers.map(|(router, routes)| (with_layers(router), routes)) }
    }

    fn routes(&self) -> impl Iterator<Item = (&Router, &Route)> {
        self.routers.iter().flat_map(|(router, routes)| routes.iter().map(move |route| (router, route)))
    }
}

/// Objects that paths and bodies name.
#[derive(Clone)]
struct Objects {
    run: String,
    gate: String,
    artifact: String,
    table: &'static str,
    /// A token, and a member who owns no other object.
    token: String,
    member: String,
    /// A one-time link to the gate.
    link: String,
}

impl Objects {
    /// A run that asks, an artifact and a rule.
    async fn of(lab: &mut Lab, tenant: &str, table: &'static str) -> Self {
        lab.tenant = TenantId(tenant.into());
        let run = lab.submit(&plans::chain(1)).await;
        let (gate, artifact) = (GateId(Uuid::new_v4()), Uuid::new_v4());
        let request = GateRequest {
            id: gate,
            run_id: run,
            step_id: None,
            gate_type: "manual:release".into(),
            evidence_uri: None,
            reason: None,
            expires_after_s: None,
        };
        assert_eq!(gate_create(&lab.session(), &request).await.expect("a gate"), GateCreated::Created);
        let sql = "insert into nofx.artifact (id, tenant_id, run_id, name, type, uri, hash, size_bytes, media_type)
                   values ($1, $2, $3, 'x', 'text', $4, repeat('a', 64), 1, 'text/plain')";
        let uri = format!("s3://{}/x", lab.ctx.config.artifacts.bucket);
        lab.admin.execute(sql, &[&artifact, &tenant, &run.0, &uri]).await.unwrap();
        let sql = "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops) values ($1, $2, '{insert}')";
        lab.admin.execute(sql, &[&tenant, &table]).await.unwrap();
        let member = format!("member-of-{tenant}");
        let sql = "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ($1, $2, 'viewer', $2, 'test')";
        lab.admin.execute(sql, &[&tenant, &member]).await.unwrap();
        let token = lab.token(Kind::Agent, Role::Viewer).await;
        let token = ApiToken::parse(&token).expect("a token").id.to_string();
        let link = LinkToken::generate(LinkId(Uuid::new_v4())).expect("a link");
        let sql = "insert into nofx.gate_link (id, tenant_id, run_id, gate_id, subject, bound_digest, secret_sha256, created_by, created_at, expires_at)
                   select $1, g.tenant_id, g.run_id, g.id, $4, g.bound_digest, $3, 'test', now(), now() + interval '1 h' from nofx.gate g where g.id = $2";
        let hash = link.hash().as_bytes().to_vec();
        assert_eq!(lab.admin.execute(sql, &[&link.id.0, &gate.0, &hash, &member]).await.unwrap(), 1);
        Self {
            run: run.to_string(),
            gate: gate.to_string(),
            artifact: artifact.to_string(),
            table,
            token,
            member,
            link: link.expose(),
        }
    }

    /// Objects that do not exist.
    fn missing() -> Self {
        let id = || Uuid::new_v4().to_string();
        Self {
            run: id(),
            gate: id(),
            artifact: id(),
            table: "public.nothing",
            token: id(),
            member: "nobody".into(),
            link: Self::link(),
        }
    }

    /// A link that nobody made.
    fn link() -> String {
        LinkToken::generate(LinkId(Uuid::new_v4())).expect("a link").expose()
    }

    /// The texts that an answer may repeat.
    fn names(&self) -> [&str; 7] {
        [&self.run, &self.gate, &self.artifact, self.table, &self.token, &self.member, &self.link]
    }

    /// The path with these objects. A new parameter of a path needs a line here.
    fn path(&self, route: &Route) -> String {
        let id = match route.path.split('/').find(|part| ["runs", "gates", "artifacts", "tokens"].contains(part)) {
            Some("gates") => &self.gate,
            Some("artifacts") => &self.artifact,
            Some("tokens") => &self.token,
            _ => &self.run,
        };
        let path = route.path.replace("{id}", id).replace("{table}", self.table).replace("{subject}", &self.member);
        let path = path.replace("{name}", "s0").replace("{ordinal}", "0").replace("{handler}", "echo");
        let path = path.replace("{verb}", "approve").replace("{token}", &self.link);
        assert!(!path.contains('{'), "what does {} name?", route.path);
        match route.path {
            "/ui/artifacts/signed" => format!("{path}?id={}", self.artifact),
            "/ui/new" if route.method == Method::GET => format!("{path}?from={}", self.run),
            _ => path,
        }
    }

    fn body(&self, route: &Route) -> Value {
        let path = route.path;
        if path == "/plans/check" || path == "/runs" {
            json!({ "plan": plans::chain(1) })
        } else if path == "/gates" {
            json!({ "run_id": self.run, "gate_type": "manual:more" })
        } else if path == "/policy" {
            json!({ "document": {}, "reason": "a test" })
        } else if path.starts_with("/rules") && route.method == Method::PUT {
            json!({ "allowed_ops": ["insert"], "columns": ["a"], "key": ["a"], "max_rows": 1 })
        } else if path == "/tokens" {
            json!({ "kind": "agent", "name": "more", "role": "viewer" })
        } else if path.starts_with("/members") && route.method == Method::PUT {
            json!({ "role": "viewer", "name": "a member" })
        } else if path == "/gates/{id}/links" {
            json!({ "for": self.member })
        } else if path == "/artifacts/{id}/restore" {
            json!({ "days": 1 })
        } else if path.starts_with("/gates/") || path == "/artifacts/{id}" {
            json!({ "reason": "a test" })
        } else {
            json!({})
        }
    }
}

/// Whether the route is about an object that a path, a query or a body names, and which another tenant may have.
fn names_an_object(route: &Route) -> bool {
    let is_named = route.path.contains("{id}")
        || route.path.contains("{token}")
        || ["/ui/artifacts/signed", "/gates"].contains(&route.path);
    // The own tenant may have a rule and a member of this name too.
    let has_name = route.path.contains("{table}") || route.path.contains("{subject}");
    (is_named || has_name && route.method != Method::PUT) && !(route.path == "/gates" && route.method == Method::GET)
}

fn of_queues(route: &Route) -> bool {
    matches!(route.permission, Permission::QueuesRead | Permission::QueuesRedrive)
}

const CSRF: &str = "0123456789abcdef0123456789abcdef";

async fn send(router: &Router, route: &Route, objects: &Objects, token: Option<&str>) -> (StatusCode, String) {
    let (media_type, body) = match route.takes.body {
        BodyKind::Nothing | BodyKind::Json => ("application/json", objects.body(route).to_string()),
        BodyKind::Form(fields) => {
            let person =
                if fields.contains(&"for") { format!("&for={}&days=1", objects.member) } else { String::new() };
            ("application/x-www-form-urlencoded", format!("csrf={CSRF}{person}"))
        }
        BodyKind::Upload => {
            let field = "content-disposition: form-data; name=\"csrf\"";
            ("multipart/form-data; boundary=x", format!("--x\r\n{field}\r\n\r\n{CSRF}\r\n--x--\r\n"))
        }
    };
    let mut request = Request::builder()
        .method(route.method.clone())
        .uri(objects.path(route))
        .header(header::HOST, "api.example")
        .header(header::ORIGIN, "https://api.example")
        .header(header::COOKIE, format!("nofx-csrf={CSRF}"))
        .header(header::CONTENT_TYPE, media_type);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = if route.method == Method::GET { Body::empty() } else { Body::from(body) };
    let answer = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, String::from_utf8_lossy(&bytes).into_owned())
}

/// An answer without what differs from request to request. Of a page, its content.
fn shape(body: &str, objects: &Objects) -> String {
    let content = body.split_once("<main").and_then(|(_, rest)| rest.split_once("<p><a")).map(|(content, _)| content);
    let mut shape = content.unwrap_or(body).to_owned();
    for name in objects.names() {
        shape = shape.replace(name, "NAME");
    }
    match serde_json::from_str::<Value>(&shape) {
        Ok(Value::Object(mut document)) => {
            document.remove("request_id");
            Value::Object(document).to_string()
        }
        _ => shape,
    }
}

pub(crate) async fn lab() -> Lab {
    let database = TestDatabase::create().await;
    let auth = Arc::new(AuthConfig { mode: Some(AuthMode::On), ..AuthConfig::default() });
    let config = shared::config::Config { auth, ..config(&database.url) };
    create_bucket(&sdk().await, &config.artifacts.bucket).await;
    Box::pin(Lab::on(database, config)).await
}

/// A token of each kind with each role.
async fn tokens(lab: &Lab) -> BTreeMap<(Kind, Role), String> {
    let mut tokens = BTreeMap::new();
    for &kind in Kind::ALL {
        for &role in Role::ALL {
            tokens.insert((kind, role), lab.token(kind, role).await);
        }
    }
    tokens
}

/// A digest of every row of a tenant, by table.
async fn rows_of(lab: &Lab, tenant: &str) -> BTreeMap<String, Option<String>> {
    let sql =
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
                where c.relnamespace = 'nofx'::regnamespace and c.relkind = 'r'";
    let mut rows = BTreeMap::new();
    for table in lab.admin.query(sql, &[]).await.unwrap() {
        let table: String = table.get(0);
        let sql =
            format!("select md5(string_agg(t::text, '|' order by t::text)) from nofx.{table} t where tenant_id = $1");
        rows.insert(table, lab.admin.query_one(&sql, &[&tenant]).await.unwrap().get(0));
    }
    rows
}

/// What the database permits, by permission, role and kind.
async fn permitted(lab: &Lab) -> BTreeSet<(String, Role, Kind)> {
    let sql = "select l.permission from nofx.permission_list() l where nofx.permits(l.permission, $1, $2)";
    let mut permitted = BTreeSet::new();
    for &kind in Kind::ALL {
        for &role in Role::ALL {
            for row in lab.admin.query(sql, &[&role.as_str(), &kind.as_str()]).await.unwrap() {
                permitted.insert((row.get(0), role, kind));
            }
        }
    }
    permitted
}

/// The table of `docs/security.md`: permission, least role, kinds.
fn documented() -> BTreeSet<(String, Role, Kind)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let text = fs::read_to_string(path).expect("docs/security.md");
    let mut documented = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(least) = cells.get(1).and_then(|role| Role::parse(role)) else { continue };
        for kind in cells[2].split(", ") {
            let kind = Kind::parse(kind).unwrap_or_else(|| panic!("no kind: {kind}"));
            let permission = cells[0].trim_matches('`');
            documented.extend(
                Role::ALL.iter().filter(|role| **role >= least).map(|role| (permission.to_owned(), *role, kind)),
            );
        }
    }
    documented
}

#[tokio::test]
async fn the_document_lists_every_permission_as_the_database_has_it() {
    let lab = Lab::new().await;
    let (permitted, documented) = (permitted(&lab).await, documented());
    assert_eq!(documented.difference(&permitted).collect::<Vec<_>>(), Vec::<&_>::new(), "in the document only");
    assert_eq!(permitted.difference(&documented).collect::<Vec<_>>(), Vec::<&_>::new(), "in the database only");
    let named: BTreeSet<&str> = permitted.iter().map(|(permission, ..)| permission.as_str()).collect();
    let known: BTreeSet<&str> =
        Permission::ALL.iter().filter(|one| **one != Permission::Public).map(|one| one.as_str()).collect();
    assert_eq!(named, known);
}

#[tokio::test]
async fn every_route_admits_exactly_whom_its_permission_names() {
    let mut lab = Box::pin(lab()).await;
    // A link refuses everybody but its person, so this is one that nobody made. `links.rs` has the others.
    let own = Objects { link: Objects::link(), ..Objects::of(&mut lab, "acme", "public.rates").await };
    let (permitted, functions) = (permitted(&lab).await, Functions::of(&lab));
    let mut sent = 0;
    for ((kind, role), token) in tokens(&lab).await {
        for (router, route) in functions.routes().filter(|(_, route)| route.permission != Permission::Public) {
            // A route that ends a session gets one of its own.
            let ends = route.path == "/ui/logout" || route.path.starts_with("/sessions/");
            let token = if ends { lab.token(kind, role).await } else { token.clone() };
            let (status, body) = send(router, route, &own, Some(&token)).await;
            // Only a login starts a session.
            let may = route.permission != Permission::SessionsCreate
                && permitted.contains(&(route.permission.as_str().to_owned(), role, kind));
            let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let answer = shape(&body, &own);
            assert_eq!(is_refused, !may, "{kind} {role}: {} {}: {status} {answer}", route.method, route.path);
            // The lab has no queues.
            let is_broken = status.is_server_error() && !of_queues(route);
            assert!(!is_broken, "{} {}: {status} {answer}", route.method, route.path);
            sent += 1;
        }
    }
    assert!(sent > 800, "{sent}");
}

#[tokio::test]
async fn every_route_refuses_a_request_without_a_valid_credential_in_the_same_words() {
    let mut lab = Box::pin(lab()).await;
    let own = Objects::of(&mut lab, "acme", "public.rates").await;
    let valid = lab.token(Kind::Service, Role::Admin).await;
    let revoked = lab.token(Kind::Service, Role::Admin).await;
    let expired = lab.token(Kind::Person, Role::Admin).await;
    let of_nobody = lab.token(Kind::Person, Role::Viewer).await;
    for (token, change) in [
        (&revoked, "update nofx.api_token set revoked_at = now(), revoked_by = 'test' where id = $1"),
        (
            &expired,
            "update nofx.api_token set created_at = now() - interval '2 h', expires_at = now() - interval '1 h' where id = $1",
        ),
    ] {
        let id = ApiToken::parse(token).expect("a token").id.0;
        assert_eq!(lab.admin.execute(change, &[&id]).await.unwrap(), 1);
    }
    let leaving = "update nofx.membership set removed_at = now() where subject = 'person:viewer'";
    assert_eq!(lab.admin.execute(leaving, &[]).await.unwrap(), 1);
    let other_secret = format!("{}{}", &valid[..valid.len() - 4], "aaaa");
    let before = rows_of(&lab, "acme").await;
    let functions = Functions::of(&lab);
    let refused =
        [None, Some("x"), Some(&other_secret), Some(&revoked), Some(&expired), Some("eyJhbGciOiJub25lIn0.e30.")];
    let mut texts = BTreeSet::new();
    for (router, route) in functions.routes().filter(|(_, route)| route.permission != Permission::Public) {
        for token in refused {
            let (status, body) = send(router, route, &own, token).await;
            let place = format!("{} {} {token:?}: {body}", route.method, route.path);
            // A page leads to the login. What the script of a page loads does not.
            let is_page = route.path.starts_with("/ui") && !route.path.ends_with("/fragment");
            if is_page && route.method == Method::GET {
                assert_eq!(status, StatusCode::SEE_OTHER, "{place}");
            } else {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{place}");
                texts.insert(shape(&body, &own));
            }
        }
        let (status, _) = send(router, route, &own, Some(&of_nobody)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{} {}: no member any more", route.method, route.path);
    }
    assert_eq!(texts.len(), 2, "one for the API and one for pages: {texts:?}");
    assert_eq!(rows_of(&lab, "acme").await, before);
}

#[tokio::test]
async fn an_object_of_another_tenant_is_one_that_does_not_exist() {
    let mut lab = Box::pin(lab()).await;
    let foreign = Objects::of(&mut lab, "other", "public.secret").await;
    Objects::of(&mut lab, "acme", "public.rates").await;
    let before = rows_of(&lab, "other").await;
    let (missing, functions, permitted) = (Objects::missing(), Functions::of(&lab), permitted(&lab).await);
    for kind in [Kind::Person, Kind::Service] {
        let admin = lab.token(kind, Role::Admin).await;
        for (router, route) in functions.routes().filter(|(_, route)| names_an_object(route)) {
            let (status, body) = send(router, route, &foreign, Some(&admin)).await;
            let (expected, nothing) = send(router, route, &missing, Some(&admin)).await;
            let place = format!("{kind}: {} {}", route.method, route.path);
            assert_eq!((status, shape(&body, &foreign)), (expected, shape(&nothing, &missing)), "{place}");
            let may = permitted.contains(&(route.permission.as_str().to_owned(), Role::Admin, kind));
            assert_eq!(status, if may { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN }, "{place}: {body}");
        }
    }
    assert_eq!(rows_of(&lab, "other").await, before);
}

#[tokio::test]
async fn queues_are_shown_to_the_home_tenant_only() {
    let mut lab = Box::pin(lab()).await;
    let objects = Objects::of(&mut lab, "other", "public.rates").await;
    let admin = lab.token(Kind::Person, Role::Admin).await;
    let functions = Functions::of(&lab);
    for (router, route) in functions.routes().filter(|(_, route)| of_queues(route)) {
        let (status, body) = send(router, route, &objects, Some(&admin)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{} {}: {body}", route.method, route.path);
    }
}
