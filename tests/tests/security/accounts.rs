//! Sessions, API tokens and members: who may have which, how they end, and where their secrets are not.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nofx_tests::issuer::{CallerOf, Issuer};
use nofx_tests::{Deliver, Lab, Script};
use serde_json::{Value, json};
use shared::domain::Role;

use crate::approvals::gate_of;

/// A tenant with people of each role, and its API.
struct Tenant {
    lab: Lab,
    issuer: Issuer,
}

impl Tenant {
    async fn new() -> Self {
        let mut lab = Lab::new().await;
        let issuer = Issuer::of(&mut lab).await;
        for role in Role::ALL {
            lab.member(role.as_str(), *role).await;
        }
        Self { lab, issuer }
    }

    /// The caller with this credential.
    fn with(&self, credential: &str) -> CallerOf {
        CallerOf::new(api::router(self.lab.ctx.clone()).expect("a router"), credential)
    }

    /// The person with this subject, who has just logged in.
    fn person(&self, subject: &str) -> CallerOf {
        self.with(&self.issuer.login(subject))
    }

    /// The same with a session.
    async fn session(&self, subject: &str) -> CallerOf {
        let (status, made) = self.person(subject).post("/sessions", json!({})).await;
        assert_eq!(status, 201, "{made}");
        self.with(made["token"].as_str().expect("a token"))
    }

    /// A new token of an admin: its id and the caller that has it.
    async fn token(&self, body: Value) -> (String, CallerOf) {
        let (status, made) = self.person("admin").post("/tokens", body).await;
        assert_eq!(status, 201, "{made}");
        (made["id"].as_str().expect("an id").to_owned(), self.with(made["token"].as_str().expect("a token")))
    }
}

#[tokio::test]
async fn a_session_has_the_role_of_its_member_until_it_ends() {
    let tenant = Tenant::new().await;
    let session = tenant.session("viewer").await;
    let (status, who) = session.get("/whoami").await;
    assert_eq!(
        (status, &who["subject"], &who["role"], &who["kind"]),
        (200, &json!("viewer"), &json!("viewer"), &json!("person"))
    );
    assert!(who["expires_at"].is_string() && who["token_id"].is_string(), "{who}");
    assert!(!who["permissions"].as_array().unwrap().contains(&json!("runs.create")), "{who}");
    let (status, changed) =
        tenant.person("admin").send("PUT", "/members/viewer", Some(json!({"role": "operator"}))).await;
    assert_eq!((status, &changed["role"]), (200, &json!("operator")));
    assert!(session.get("/whoami").await.1["permissions"].as_array().unwrap().contains(&json!("runs.create")));

    // A session starts no other one: a stolen one would never end.
    let (status, problem) = session.post("/sessions", json!({})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("forbidden")));
    assert_eq!(session.send("DELETE", "/sessions/current", None).await.1, json!({"result": "ended"}));
    assert_eq!(session.get("/whoami").await.0, 401);
    // A login has no session that could end.
    let unchanged = tenant.person("viewer").send("DELETE", "/sessions/current", None).await;
    assert_eq!(unchanged, (200, json!({"result": "unchanged"})));
    assert_eq!(tenant.person("nobody").post("/sessions", json!({})).await.0, 403);
}

#[tokio::test]
async fn a_person_has_at_most_fifty_sessions() {
    let tenant = Tenant::new().await;
    let first = tenant.session("viewer").await;
    let second = tenant.session("viewer").await;
    for _ in 0..49 {
        tenant.session("viewer").await;
    }
    assert_eq!((first.get("/whoami").await.0, second.get("/whoami").await.0), (401, 200));
    let sql = "select count(*) from nofx.api_token where revoked_at is null";
    assert_eq!(tenant.lab.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 50);
}

#[tokio::test]
async fn a_token_may_do_what_its_role_kind_and_scopes_allow() {
    let tenant = Tenant::new().await;
    let scoped = json!({"kind": "agent", "name": "reader", "role": "operator", "scopes": ["runs.read"]});
    let (id, agent) = tenant.token(scoped).await;
    let (_, who) = agent.get("/whoami").await;
    assert_eq!(
        (&who["subject"], &who["name"], &who["owner"], &who["permissions"]),
        (&json!("agent:reader"), &json!("agent:reader"), &json!("admin"), &json!(["account.read", "runs.read"]))
    );
    assert_eq!(agent.get("/runs").await.0, 200);
    assert_eq!(agent.get("/policy").await.0, 403);

    let admin = tenant.person("admin");
    let listed = admin.get("/tokens").await.1;
    assert_eq!((&listed["tokens"][0]["id"], &listed["tokens"][0]["live"]), (&json!(id), &json!(true)));
    assert!(listed["tokens"][0]["last_used_at"].is_string(), "{listed}");
    assert_eq!(admin.send("DELETE", &format!("/tokens/{id}"), None).await.1["result"], "revoked");
    assert_eq!(admin.send("DELETE", &format!("/tokens/{id}"), None).await.1["result"], "unchanged");
    assert_eq!(agent.get("/whoami").await.0, 401);
    assert_eq!(admin.get("/tokens").await.1["tokens"][0]["live"], false);

    for (wrong, path) in [
        (json!({"kind": "person", "name": "a", "role": "viewer"}), "kind"),
        (json!({"kind": "agent", "name": "a b", "role": "viewer"}), "name"),
        (json!({"kind": "agent", "name": "a", "role": "viewer", "scopes": ["runs.create"]}), "scopes"),
        // No agent decides, whatever its role is.
        (json!({"kind": "agent", "name": "a", "role": "admin", "scopes": ["gates.decide"]}), "scopes"),
        (json!({"kind": "agent", "name": "a", "role": "viewer", "expires_in_s": 40_000_000}), "expires_in_s"),
        (json!({"kind": "agent", "name": "a", "role": "viewer", "owner": "nobody"}), "owner"),
        (json!({"kind": "agent", "name": "a", "role": "operator", "owner": "viewer"}), "role"),
    ] {
        let (status, problem) = admin.post("/tokens", wrong.clone()).await;
        assert_eq!((status, &problem["errors"][0]["path"]), (400, &json!(path)), "{wrong}: {problem}");
    }
}

#[tokio::test]
async fn a_token_may_do_no_more_than_its_owner_may_now() {
    let tenant = Tenant::new().await;
    tenant.lab.member("other", Role::Admin).await;
    let made = tenant.person("other").post("/tokens", json!({"kind": "service", "name": "s", "role": "admin"})).await.1;
    let service = tenant.with(made["token"].as_str().unwrap());
    assert_eq!((service.get("/audit").await.0, service.get("/whoami").await.1["role"].as_str()), (200, Some("admin")));
    let admin = tenant.person("admin");
    assert_eq!(admin.send("PUT", "/members/other", Some(json!({"role": "viewer"}))).await.0, 200);
    let who = service.get("/whoami").await.1;
    assert_eq!((service.get("/audit").await.0, &who["role"]), (403, &json!("viewer")), "{who}");
    assert!(!who["permissions"].as_array().unwrap().contains(&json!("runs.create")), "{who}");
    // Somebody deletes the member by hand, and not the token.
    tenant
        .lab
        .admin
        .batch_execute("update nofx.membership set removed_at = now() where subject = 'other'")
        .await
        .unwrap();
    assert_eq!(service.get("/whoami").await.0, 401);
}

#[tokio::test]
async fn who_uses_a_token_can_own_it_and_approves_nothing_that_it_started() {
    let tenant = Tenant::new().await;
    let (_, agent) = tenant.token(json!({"kind": "agent", "name": "a", "role": "operator", "owner": "approver"})).await;
    assert_eq!(agent.get("/whoami").await.1["owner"], "approver");
    let plan = json!({"plan": {"goal": "g", "steps": [{"name": "ask", "tool": "manual:release", "inputs": {}}]}});
    let run = agent.post("/runs", plan).await.1["id"].as_str().expect("a run").to_owned();
    let lab = &tenant.lab;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gate = gate_of(lab, run.parse().expect("an id")).await;
    let approve = async |who: &str| {
        let router = approvals::router(lab.ctx.clone()).expect("a router");
        let caller = CallerOf::new(router, &tenant.issuer.login(who));
        caller.post(&format!("/gates/{gate}/approve"), json!({})).await
    };
    let (status, problem) = approve("approver").await;
    assert_eq!((status, &problem["code"]), (403, &json!("self_approval")), "{problem}");
    assert_eq!(approve("admin").await.0, 200);
    // The token ends with its owner.
    assert_eq!(tenant.person("admin").send("DELETE", "/members/approver", None).await.0, 200);
    assert_eq!(agent.get("/whoami").await.0, 401);
}

#[tokio::test]
async fn a_token_that_floods_the_tenant_can_be_revoked() {
    let tenant = Tenant::new().await;
    let (id, agent) = tenant.token(json!({"kind": "agent", "name": "a", "role": "viewer"})).await;
    tenant.lab.admin.batch_execute("update nofx.tenant set limits = '{\"requests_per_minute\": 3}'").await.unwrap();
    for _ in 0..3 {
        assert_eq!(agent.get("/runs").await.0, 200);
    }
    let (admin, revoke) = (tenant.person("admin"), format!("/tokens/{id}"));
    assert_eq!((agent.get("/runs").await.0, admin.get("/runs").await.0), (429, 429));
    assert_eq!((admin.get("/tokens").await.0, admin.post("/sessions", json!({})).await.0), (200, 201));
    assert_eq!(tenant.person("viewer").post("/sessions", json!({})).await.0, 429);
    assert_eq!(admin.send("DELETE", &revoke, None).await.1["result"], "revoked");
    assert_eq!(agent.get("/runs").await.0, 401);
}

#[tokio::test]
async fn only_a_person_who_is_an_admin_manages_tokens_and_members() {
    let tenant = Tenant::new().await;
    let (_, agent) = tenant.token(json!({"kind": "agent", "name": "a", "role": "admin"})).await;
    let (_, service) = tenant.token(json!({"kind": "service", "name": "s", "role": "admin"})).await;
    let new = json!({"kind": "agent", "name": "b", "role": "viewer"});
    let writes = [
        ("POST", "/tokens", Some(new)),
        ("DELETE", "/tokens/00000000-0000-0000-0000-000000000000", None),
        ("PUT", "/members/eve", Some(json!({"role": "admin"}))),
        ("DELETE", "/members/viewer", None),
    ];
    let others = [&tenant.person("approver"), &tenant.session("operator").await, &agent, &service];
    for (at, caller) in others.into_iter().enumerate() {
        for (method, path, body) in writes.clone() {
            let (status, problem) = caller.send(method, path, body).await;
            assert_eq!((status, &problem["code"]), (403, &json!("forbidden")), "{at} {method} {path}");
        }
    }
    // A service that is an admin may look.
    assert_eq!((service.get("/tokens").await.0, service.get("/members").await.0), (200, 200));
    assert_eq!((agent.get("/tokens").await.0, agent.get("/members").await.0), (403, 403));
    assert_eq!(tenant.person("approver").get("/members").await.0, 403);
}

#[tokio::test]
async fn nobody_gives_a_role_above_their_own_even_if_the_table_of_permissions_let_them() {
    let tenant = Tenant::new().await;
    let table: String = {
        let sql = "select pg_get_functiondef('nofx.permission_list()'::regprocedure)";
        tenant.lab.admin.query_one(sql, &[]).await.unwrap().get(0)
    };
    let loose = table
        .replace("('members.write',     'admin'", "('members.write',     'operator'")
        .replace("('tokens.write',      'admin'", "('tokens.write',      'operator'");
    assert_ne!(loose, table);
    tenant.lab.admin.batch_execute(&loose).await.unwrap();
    let operator = tenant.person("operator");
    for (role, may) in [("viewer", true), ("operator", true), ("approver", false), ("admin", false)] {
        let (status, made) = operator.post("/tokens", json!({"kind": "service", "name": role, "role": role})).await;
        assert_eq!(status, if may { 201 } else { 400 }, "{role}: {made}");
        let (status, made) = operator.send("PUT", &format!("/members/new-{role}"), Some(json!({"role": role}))).await;
        assert_eq!(status, if may { 201 } else { 400 }, "{role}: {made}");
    }
}

#[tokio::test]
async fn a_removed_member_has_no_session_and_no_token_left() {
    let tenant = Tenant::new().await;
    tenant.lab.member("second", Role::Admin).await;
    let second = tenant.session("second").await;
    let token = |name: &str| json!({"kind": "service", "name": name, "role": "viewer"});
    let made = second.post("/tokens", token("orphan")).await.1;
    let service = tenant.with(made["token"].as_str().unwrap());
    let admin = tenant.person("admin");
    assert_eq!(
        admin.send("DELETE", "/members/second", None).await.1,
        json!({"sessions": 1, "tokens": 1, "tokens_moved": 0})
    );
    assert_eq!((second.get("/whoami").await.0, service.get("/whoami").await.0), (401, 401));
    // A login that is still valid at the issuer.
    assert_eq!(tenant.person("second").get("/whoami").await.0, 403);
    assert_eq!(admin.send("DELETE", "/members/second", None).await.0, 404);
    let named = admin.get("/members").await.1;
    let subjects: Vec<&str> =
        named["members"].as_array().unwrap().iter().map(|member| member["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["admin", "approver", "operator", "viewer"]);

    // Who comes back has no earlier session. Tokens may have another owner.
    let back = admin.send("PUT", "/members/second", Some(json!({"role": "admin", "name": "Second"}))).await;
    assert_eq!((back.0, &back.1["name"]), (201, &json!("Second")));
    assert_eq!((second.get("/whoami").await.0, tenant.person("second").get("/whoami").await.0), (401, 200));
    let made = tenant.person("second").post("/tokens", token("kept")).await.1;
    let service = tenant.with(made["token"].as_str().unwrap());
    let nobody = admin.send("DELETE", "/members/second", Some(json!({"tokens_to": "nobody"}))).await;
    assert_eq!((nobody.0, &nobody.1["errors"][0]["path"]), (400, &json!("tokens_to")));
    let moved = admin.send("DELETE", "/members/second", Some(json!({"tokens_to": "viewer"}))).await;
    assert_eq!(moved.1, json!({"sessions": 0, "tokens": 0, "tokens_moved": 1}));
    assert_eq!(service.get("/whoami").await.1["owner"], "viewer");
}

#[tokio::test]
async fn the_last_admin_stays() {
    let tenant = Tenant::new().await;
    let admin = tenant.person("admin");
    for (method, body) in [("DELETE", None), ("PUT", Some(json!({"role": "approver"})))] {
        let (status, problem) = admin.send(method, "/members/admin", body).await;
        assert_eq!((status, &problem["code"]), (409, &json!("last_admin")), "{method}");
    }
    // Two admins who remove each other at once: one of them stays.
    for round in 0..20 {
        let (one, other) = (format!("one-{round}"), format!("other-{round}"));
        tenant.lab.admin.batch_execute("update nofx.membership set removed_at = now()").await.unwrap();
        tenant.lab.member(&one, Role::Admin).await;
        tenant.lab.member(&other, Role::Admin).await;
        let (removes, degrades) = (tenant.person(&one), tenant.person(&other));
        let (path, own_path) = (format!("/members/{other}"), format!("/members/{one}"));
        tokio::join!(
            removes.send("DELETE", &path, None),
            degrades.send("PUT", &own_path, Some(json!({"role": "viewer"}))),
        );
        let sql = "select count(*) from nofx.membership where role = 'admin' and removed_at is null";
        assert_eq!(tenant.lab.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_that_starts_after_a_revocation_passes() {
    let tenant = Tenant::new().await;
    let (id, service) = tenant.token(json!({"kind": "service", "name": "busy", "role": "operator"})).await;
    let (is_revoked, passed, refused) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..50)
        .map(|_| {
            let (service, is_revoked) = (service.clone(), Arc::clone(&is_revoked));
            let (passed, refused) = (Arc::clone(&passed), Arc::clone(&refused));
            tokio::spawn(async move {
                loop {
                    let after = is_revoked.load(Ordering::SeqCst);
                    match service.get("/runs").await.0 {
                        200 => {
                            assert!(!after, "a request passed after the revocation");
                            passed.fetch_add(1, Ordering::SeqCst);
                        }
                        401 => {
                            refused.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                        other => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    while passed.load(Ordering::SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    let revoked = tenant.person("admin").send("DELETE", &format!("/tokens/{id}"), None).await;
    is_revoked.store(true, Ordering::SeqCst);
    assert_eq!(revoked.1["result"], "revoked");
    for sender in senders {
        sender.await.expect("no request passed late");
    }
    assert_eq!(refused.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn who_is_being_removed_gets_no_token_that_survives_it() {
    let tenant = Tenant::new().await;
    for round in 0..20 {
        let leaving = format!("leaving-{round}");
        tenant.lab.member(&leaving, Role::Admin).await;
        let (admin, other) = (tenant.person("admin"), tenant.person(&leaving));
        let (path, name) = (format!("/members/{leaving}"), format!("t{round}"));
        tokio::join!(
            admin.send("DELETE", &path, None),
            other.post("/tokens", json!({"kind": "service", "name": name, "role": "admin"})),
            other.post("/sessions", json!({})),
        );
        let sql = "select count(*) from nofx.api_token where owner = $1 and revoked_at is null";
        let left: i64 = tenant.lab.admin.query_one(sql, &[&leaving]).await.unwrap().get(0);
        assert_eq!(left, 0, "round {round}");
    }
}

/// What this thread logs, whatever its level is.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_secret_is_in_one_answer_and_in_no_row_and_no_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let tenant = Tenant::new().await;
    let admin = tenant.person("admin");
    let made = admin.post("/tokens", json!({"kind": "agent", "name": "canary", "role": "operator"})).await.1;
    let session = tenant.person("viewer").post("/sessions", json!({})).await.1;
    let secrets: Vec<String> =
        [&made, &session].map(|made| made["token"].as_str().unwrap().rsplit('_').next().unwrap().to_owned()).into();
    let agent = tenant.with(made["token"].as_str().unwrap());
    agent.post("/runs", json!({"plan": {"goal": "g", "steps": [{"name": "a", "tool": "echo"}]}})).await;
    assert_eq!(agent.get("/whoami").await.0, 200);
    let mut answers = vec![agent.get("/whoami").await.1];
    for path in ["/tokens", "/tokens?sessions=true", "/members", "/whoami"] {
        answers.push(admin.get(path).await.1);
    }
    answers.push(admin.send("DELETE", &format!("/tokens/{}", made["id"].as_str().unwrap()), None).await.1);
    answers.push(agent.get("/whoami").await.1);
    let tables = "select relname::text from pg_class where relnamespace = 'nofx'::regnamespace and relkind = 'r'";
    let tables: BTreeSet<String> =
        tenant.lab.admin.query(tables, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.contains("api_token") && tables.len() > 12, "{tables:?}");
    for table in &tables {
        let sql = format!("select coalesce(string_agg(t::text, ' '), '') from nofx.{table} t");
        answers.push(Value::String(tenant.lab.admin.query_one(&sql, &[]).await.unwrap().get(0)));
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("answered") && logged.contains("not admitted"), "the log has no request");
    answers.push(Value::String(logged));
    for secret in &secrets {
        assert_eq!(secret.len(), 52);
        assert!(answers.iter().all(|answer| !answer.to_string().contains(secret.as_str())));
    }
}

#[tokio::test]
async fn lists_have_pages_and_belong_to_one_tenant() {
    let tenant = Tenant::new().await;
    let sql = "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ('other', 'eve', 'admin', 'Eve', 'test');
               insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, secret_sha256, expires_at)
               values ('018f0000-0000-7000-8000-000000000001', 'other', 'agent', 'agent:x', 'eve', 'x', 'viewer', sha256('x'),
                       now() + interval '1 h')";
    tenant.lab.admin.batch_execute(sql).await.unwrap();
    let admin = tenant.person("admin");
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(tenant.token(json!({"kind": "agent", "name": name, "role": "viewer"})).await.0);
    }
    let first = admin.get("/tokens?limit=2").await.1;
    let next = first["next"].as_str().expect("more").to_owned();
    let second = admin.get(&format!("/tokens?limit=2&after={next}")).await.1;
    let seen: Vec<&Value> = [&first, &second]
        .iter()
        .flat_map(|page| page["tokens"].as_array().unwrap().iter().map(|token| &token["id"]))
        .collect();
    assert_eq!(seen, [&json!(ids[2]), &json!(ids[1]), &json!(ids[0])], "newest first");
    assert_eq!(second["next"], Value::Null);
    let members = admin.get("/members?limit=3").await.1;
    assert_eq!((members["members"].as_array().unwrap().len(), &members["next"]), (3, &json!("operator")));
    assert_eq!(admin.get("/members?limit=3&after=operator").await.1["members"].as_array().unwrap().len(), 1);

    // What another tenant has does not exist here.
    let foreign = "018f0000-0000-7000-8000-000000000001";
    assert_eq!(admin.get(&format!("/tokens?after={foreign}")).await.0, 400);
    assert_eq!(admin.send("DELETE", &format!("/tokens/{foreign}"), None).await.0, 404);
    assert_eq!(admin.send("DELETE", "/members/eve", None).await.0, 404);
    let sql = "select count(*) from nofx.api_token where tenant_id = 'other' and revoked_at is null";
    assert_eq!(tenant.lab.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1);
}
