//! Admission: who a caller is and what it may do, as the database decides it.

use std::collections::BTreeMap;

use nofx_tests::Lab;
use nofx_tests::database::connect_to;
use nofx_tests::environment::with_role;
use serde_json::{Value, json};
use shared::domain::Caller;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

const SECRET: &str = "5f16bd24b0ad7d5ba1b7bd0a9ee71c19e3f5a64d1b9c6d1e6ff5a7f0b7f9bb01";
const ROLES: [&str; 4] = ["viewer", "operator", "approver", "admin"];

/// Two tenants. `acme` has a person of each role, named after it, and tokens of each kind and role. `other` has one admin.
async fn members(lab: &Lab) -> BTreeMap<String, Uuid> {
    let tenants = "update nofx.tenant set is_solo = false; delete from nofx.membership";
    lab.admin.batch_execute(tenants).await.unwrap();
    let mut tokens = BTreeMap::new();
    for role in ROLES {
        let person = "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ('acme', $1, $1, $1, 'test')";
        lab.admin.execute(person, &[&role]).await.unwrap();
        for kind in ["agent", "service"] {
            tokens.insert(format!("{kind} {role}"), token(lab, kind, &format!("{kind}:{role}"), Some(role)).await);
        }
        tokens.insert(format!("person {role}"), token(lab, "person", role, None).await);
    }
    let other = "insert into nofx.membership (tenant_id, subject, role, name, created_by) values ('other', 'eve', 'admin', 'Eve', 'test')";
    lab.admin.batch_execute(other).await.unwrap();
    tokens
}

async fn token(lab: &Lab, kind: &str, subject: &str, role: Option<&str>) -> Uuid {
    let id = Uuid::new_v4();
    let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, secret_sha256, expires_at)
               values ($1, 'acme', $2, $3, 'admin', $3, $4, decode($5, 'hex'), clock_timestamp() + interval '1 hour')";
    lab.admin.execute(sql, &[&id, &kind, &subject, &role, &SECRET]).await.unwrap();
    id
}

fn by_token(id: Uuid, kind: &str) -> Value {
    json!({ "tenant": "acme", "via": "token", "token_id": id, "kind": kind, "secret_sha256": SECRET, "ip": "127.0.0.1" })
}

fn by_jwt(subject: &str) -> Value {
    json!({ "tenant": "acme", "via": "jwt", "subject": subject })
}

async fn api(lab: &Lab) -> Client {
    connect_to(&with_role(&lab.database.url, "nofx_api", None)).await
}

/// The principal, or the SQLSTATE.
async fn admit(api: &Client, caller: &Value, permission: Option<&str>) -> Result<Value, String> {
    let sql = "select nofx.principal_json(nofx.caller_admit($1, $2))";
    match api.query_one(sql, &[caller, &permission]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error.code().expect("an error of the database").code().to_owned()),
    }
}

const UNKNOWN: &str = "NF401";
const FORBIDDEN: &str = "NF403";

#[tokio::test]
async fn a_principal_is_what_the_database_says_of_it() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let agent = admit(&api, &by_token(tokens["agent viewer"], "agent"), Some("runs.read")).await.unwrap();
    let expected = json!({ "tenant": "acme", "subject": "agent:viewer", "name": "agent:viewer", "kind": "agent", "role": "viewer",
                           "token_id": tokens["agent viewer"], "owner": "admin", "solo": false });
    assert_eq!(agent, expected);
    let session = admit(&api, &by_token(tokens["person viewer"], "person"), Some("runs.read")).await.unwrap();
    assert_eq!(
        (&session["kind"], &session["role"], &session["name"]),
        (&json!("person"), &json!("viewer"), &json!("viewer"))
    );
    // A session has the role that the member has now.
    lab.admin.batch_execute("update nofx.membership set role = 'admin' where subject = 'viewer'").await.unwrap();
    admit(&api, &by_token(tokens["person viewer"], "person"), Some("gates.waive")).await.unwrap();
    admit(&api, &by_jwt("viewer"), Some("gates.waive")).await.unwrap();
}

#[tokio::test]
async fn each_permission_belongs_to_its_roles_and_kinds() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let list = lab.admin.query("select permission, role, kinds from nofx.permission_list()", &[]).await.unwrap();
    assert!(list.len() > 20);
    for row in list {
        let (permission, least, kinds): (String, String, Vec<String>) = (row.get(0), row.get(1), row.get(2));
        let least = ROLES.iter().position(|role| *role == least).expect("a role");
        for (rank, role) in ROLES.iter().enumerate() {
            for kind in ["person", "agent", "service"] {
                let answer = admit(&api, &by_token(tokens[&format!("{kind} {role}")], kind), Some(&permission)).await;
                let expected = rank >= least && kinds.iter().any(|allowed| allowed == kind);
                assert_eq!(
                    answer.map(|_| ()).err().as_deref(),
                    (!expected).then_some(FORBIDDEN),
                    "{permission} {kind} {role}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_agent_never_decides_and_never_changes_who_may_do_what() {
    let lab = Lab::new().await;
    let sql =
        "select nofx.permits($1, role, 'agent') from unnest(array['viewer', 'operator', 'approver', 'admin']) role";
    for permission in ["gates.decide", "gates.waive", "policy.write", "rules.write", "members.write", "tokens.write"] {
        for row in lab.admin.query(sql, &[&permission]).await.unwrap() {
            assert!(!row.get::<_, bool>(0), "{permission}");
        }
    }
}

#[tokio::test]
async fn unknown_words_permit_nothing() {
    let lab = Lab::new().await;
    let sql = "select nofx.permits($1, $2, $3)";
    for (permission, role, kind) in [
        (None, Some("admin"), Some("person")),
        (Some("runs.read"), None, Some("person")),
        (Some("runs.read"), Some("admin"), None),
        (Some("runs.write"), Some("admin"), Some("person")),
        (Some("runs.read"), Some("root"), Some("person")),
        (Some("runs.read"), Some("admin"), Some("robot")),
        (Some("RUNS.READ"), Some("admin"), Some("person")),
        (Some(""), Some(""), Some("")),
    ] {
        let permitted: bool = lab.admin.query_one(sql, &[&permission, &role, &kind]).await.unwrap().get(0);
        assert!(!permitted, "{permission:?} {role:?} {kind:?}");
    }
    members(&lab).await;
    let api = api(&lab).await;
    for permission in [None, Some("runs.write"), Some("")] {
        assert_eq!(admit(&api, &by_jwt("admin"), permission).await, Err(FORBIDDEN.into()), "{permission:?}");
    }
}

#[tokio::test]
async fn a_caller_without_proof_is_nobody() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let whole = by_token(tokens["service admin"], "service");
    admit(&api, &whole, Some("runs.read")).await.expect("the whole caller is admitted");
    let mut callers = vec![json!(null), json!({}), json!([]), json!("acme"), json!(1), json!([whole])];
    for key in ["tenant", "via", "token_id", "kind", "secret_sha256"] {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(key);
        callers.push(without);
        for value in
            [json!(null), json!(""), json!(true), json!(1), json!([]), json!({}), json!("x"), json!([whole[key]])]
        {
            let mut other = whole.clone();
            other[key] = value;
            callers.push(other);
        }
    }
    let changes = [
        json!({ "tenant": "other" }),
        json!({ "kind": "agent" }),
        json!({ "kind": "person" }),
        json!({ "token_id": Uuid::new_v4() }),
        json!({ "token_id": tokens["agent admin"] }),
        json!({ "secret_sha256": "00".repeat(32) }),
        json!({ "secret_sha256": &SECRET[..62] }),
        json!({ "via": "jwt" }),
        json!({ "via": "local", "subject": "admin" }),
        json!({ "via": "TOKEN" }),
    ];
    for change in changes {
        let mut other = whole.clone();
        other.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        callers.push(other);
    }
    for caller in callers {
        admit(&api, &caller, Some("runs.read")).await.expect_err(&caller.to_string());
    }
}

#[tokio::test]
async fn a_login_that_is_no_member_of_the_tenant_may_do_nothing() {
    let lab = Lab::new().await;
    members(&lab).await;
    let api = api(&lab).await;
    for subject in ["eve", "stranger", "", "Admin", "admin ", "agent:admin"] {
        assert_eq!(admit(&api, &by_jwt(subject), Some("account.read")).await, Err(FORBIDDEN.into()), "{subject}");
    }
    let nobody = json!({ "tenant": "acme", "via": "jwt" });
    assert_eq!(admit(&api, &nobody, Some("account.read")).await, Err(FORBIDDEN.into()));
}

#[tokio::test]
async fn an_end_counts_at_once() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let agent = by_token(tokens["agent admin"], "agent");
    let session = by_token(tokens["person admin"], "person");
    for (what, change, caller, answer) in [
        (
            "revoked",
            "update nofx.api_token set revoked_at = clock_timestamp(), revoked_by = 'test' where kind = 'agent'",
            &agent,
            UNKNOWN,
        ),
        (
            "expired",
            "update nofx.api_token set created_at = now() - interval '2 h', expires_at = now() - interval '1 h' where kind = 'person'",
            &session,
            UNKNOWN,
        ),
        (
            "removed",
            "update nofx.membership set removed_at = clock_timestamp() where subject = 'operator'",
            &by_jwt("operator"),
            FORBIDDEN,
        ),
        (
            "disabled",
            "update nofx.tenant set disabled_at = clock_timestamp() where tenant_id = 'acme'",
            &by_jwt("admin"),
            UNKNOWN,
        ),
    ] {
        admit(&api, caller, Some("runs.read")).await.expect(what);
        lab.admin.batch_execute(change).await.unwrap();
        assert_eq!(admit(&api, caller, Some("runs.read")).await, Err(answer.into()), "{what}");
    }
}

#[tokio::test]
async fn a_scope_narrows_a_token_and_widens_nothing() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let scopes = "update nofx.api_token set scopes = '{runs.read,gates.decide}'";
    lab.admin.batch_execute(scopes).await.unwrap();
    let service = by_token(tokens["service admin"], "service");
    admit(&api, &service, Some("runs.read")).await.unwrap();
    for permission in ["runs.create", "policy.write", "account.read", "gates.decide"] {
        assert_eq!(admit(&api, &service, Some(permission)).await, Err(FORBIDDEN.into()), "{permission}");
    }
    for scopes in ["{}", "{null}", "{runs.create,null}"] {
        lab.admin.execute("update nofx.api_token set scopes = $1::text::text[]", &[&scopes]).await.unwrap();
        assert_eq!(admit(&api, &service, Some("runs.read")).await, Err(FORBIDDEN.into()), "{scopes}");
    }
}

#[tokio::test]
async fn only_a_tenant_of_one_person_admits_a_caller_without_credentials() {
    let lab = Lab::new().await;
    members(&lab).await;
    let api = api(&lab).await;
    let local = json!({ "tenant": "acme", "via": "local", "subject": "admin" });
    assert_eq!(admit(&api, &local, Some("runs.read")).await, Err(UNKNOWN.into()));
    lab.admin.batch_execute("update nofx.tenant set is_solo = true where tenant_id = 'acme'").await.unwrap();
    assert_eq!(admit(&api, &local, Some("runs.read")).await.unwrap()["solo"], true);
}

#[tokio::test]
async fn the_last_use_of_a_token_is_written_at_most_every_five_minutes() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let caller = by_token(tokens["service viewer"], "service");
    let used = "select last_used_at::text, host(last_used_ip) from nofx.api_token where id = $1";
    let mut seen = Vec::new();
    for age in [None, Some("4 minutes"), Some("6 minutes")] {
        if let Some(age) = age {
            let sql = format!("update nofx.api_token set last_used_at = clock_timestamp() - interval '{age}'");
            lab.admin.batch_execute(&sql).await.unwrap();
        }
        let before: Option<String> = lab.admin.query_one(used, &[&tokens["service viewer"]]).await.unwrap().get(0);
        admit(&api, &caller, Some("runs.read")).await.unwrap();
        let after = lab.admin.query_one(used, &[&tokens["service viewer"]]).await.unwrap();
        assert_eq!(after.get::<_, Option<String>>(1).as_deref(), Some("127.0.0.1"));
        seen.push(before != after.get(0));
    }
    assert_eq!(seen, [true, false, true]);
}

#[tokio::test]
async fn a_read_has_the_rights_and_the_rows_of_its_caller_and_leaves_no_trace_in_the_session() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    for tenant in ["acme", "other", "other"] {
        let policy = "insert into nofx.policy (tenant_id, version, document, changed_by)
                      select $1, count(*) + 1, '{}', 'ann' from nofx.policy where tenant_id = $1";
        lab.admin.execute(policy, &[&tenant]).await.unwrap();
    }
    // The owner of the tables sees every row without a role.
    let read = "select who ->> 'tenant', item, n from nofx.read($1, 'policy.read', $2, $3)";
    let caller = by_token(tokens["agent viewer"], "agent");
    let count = "select count(*)::text as item, count(*) as n from nofx.policy";
    let rows = lab.admin.query(read, &[&caller, &count, &json!([])]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<_, Option<&str>>(0), Some("acme"));
    assert_eq!((rows[1].get::<_, &str>(1), rows[1].get::<_, i64>(2)), ("1", 1));
    let foreign = "select p.tenant_id as item, 1::bigint as n from nofx.policy p where p.tenant_id = $1 ->> 0";
    assert_eq!(
        lab.admin.query(read, &[&caller, &foreign, &json!(["other"])]).await.unwrap().len(),
        1,
        "only the principal"
    );
    let writes = [
        "insert into nofx.policy (tenant_id, version, document, changed_by) values ('acme', 9, '{}', 'x') returning tenant_id as item, 1::bigint as n",
        "select secret_sha256::text as item, 1::bigint as n from nofx.api_token",
        "select subject as item, 1::bigint as n from nofx.membership",
    ];
    for sql in writes {
        lab.admin.query(read, &[&caller, &sql, &json!([])]).await.expect_err(sql);
    }
    let session = "select current_user::text, current_setting('request.jwt.claims', true)";
    let row = lab.admin.query_one(session, &[]).await.unwrap();
    assert_ne!(row.get::<_, &str>(0), "nofx_api");
    assert_eq!(row.get::<_, Option<&str>>(1).unwrap_or_default(), "");
}

/// The transitions that the API calls, with the permission of each.
const TRANSITIONS: [(&str, &str); 11] = [
    ("run_create", "runs.create"),
    ("run_cancel", "runs.control"),
    ("run_pause", "runs.control"),
    ("run_resume", "runs.control"),
    ("run_retry", "runs.control"),
    ("gate_create", "gates.create"),
    ("gate_decide", "gates.decide"),
    ("policy_set", "policy.write"),
    ("rule_set", "rules.write"),
    ("rule_delete", "rules.write"),
    ("artifact_upload", "workspaces.create"),
];

#[tokio::test]
async fn each_transition_admits_its_caller_itself_and_refuses_the_others_without_a_trace() {
    let lab = Lab::new().await;
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    let permits = "select nofx.permits($1, $2, $3)";
    let mut refused = 0;
    for (function, permission) in TRANSITIONS {
        for role in ROLES {
            for kind in ["person", "agent", "service"] {
                let permitted: bool = lab.admin.query_one(permits, &[&permission, &role, &kind]).await.unwrap().get(0);
                if permitted {
                    continue;
                }
                let call = json!({ "caller": by_token(tokens[&format!("{kind} {role}")], kind), "id": Uuid::new_v4(), "goal": "x",
                                   "plan": {}, "steps": [], "table_name": "public.x", "allowed_ops": ["insert"], "constraints": {},
                                   "document": {}, "decision": "approve", "tenant_id": "acme", "actor": "admin", "name": "n",
                                   "type": "workspace", "uri": "u", "hash": "h", "size_bytes": 1, "media_type": "m" });
                let error = api.query_one(&format!("select nofx.{function}($1)"), &[&call]).await.expect_err(function);
                assert_eq!(error.code().map(SqlState::code), Some(FORBIDDEN), "{function} {kind} {role}");
                refused += 1;
            }
        }
        let nobody = json!({ "tenant_id": "acme", "actor": "admin" });
        let error = api.query_one(&format!("select nofx.{function}($1)"), &[&nobody]).await.expect_err(function);
        assert_eq!(error.code().map(SqlState::code), Some(UNKNOWN), "{function} without a caller");
    }
    assert!(refused > 60, "{refused}");
    for table in ["run", "gate", "approval", "policy", "db_write_rule", "artifact", "event", "tenant_event"] {
        let rows: i64 = lab.admin.query_one(&format!("select count(*) from nofx.{table}"), &[]).await.unwrap().get(0);
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn an_agent_with_every_role_neither_decides_nor_waives_a_gate() {
    let lab = Lab::new().await;
    let run = lab.submit(&nofx_tests::plans::chain(1)).await;
    let gate = Uuid::new_v4();
    let request =
        json!({ "caller": Caller::local(lab.tenant.clone()), "id": gate, "run_id": run, "gate_type": "manual:x" });
    lab.admin.query_one("select nofx.gate_create($1)", &[&request]).await.unwrap();
    let tokens = members(&lab).await;
    let api = api(&lab).await;
    for role in ROLES {
        for (kind, decision) in [
            ("agent", "approve"),
            ("agent", "reject"),
            ("agent", "waive"),
            ("service", "approve"),
            ("service", "waive"),
        ] {
            let caller = by_token(tokens[&format!("{kind} {role}")], kind);
            let call = json!({ "caller": caller, "gate_id": gate, "decision": decision, "actor": "admin", "reason": "because" });
            let error = api.query_one("select nofx.gate_decide($1)", &[&call]).await.expect_err(decision);
            assert_eq!(error.code().map(SqlState::code), Some(FORBIDDEN), "{kind} {role} {decision}");
        }
    }
    let decide = async |subject: &str, decision: &str| {
        let call = json!({ "caller": by_jwt(subject), "gate_id": gate, "decision": decision, "actor": "mallory", "reason": "because", "envelope": {} });
        api.query_one("select nofx.gate_decide($1)", &[&call]).await.map(|row| row.get::<_, Value>(0))
    };
    decide("approver", "waive").await.expect_err("only an admin waives");
    let decided = decide("approver", "approve").await.unwrap();
    assert_eq!((&decided["result"], &decided["gate"]["approved_by"]), (&json!("decided"), &json!("approver")));
    let by = "select payload -> 'by' from nofx.event where run_id = $1 and type = 'gate.passed'";
    let by: Value = lab.admin.query_one(by, &[&run.0]).await.unwrap().get(0);
    assert_eq!(by, json!({ "kind": "person", "subject": "approver" }));
}
