//! Sets, reads and deletes rules through the API. Every change is recorded.

use nofx_tests::Lab;
use serde_json::{Value, json};

use crate::gateway::{Gateway, Shape};

async fn put(api: &Gateway, table: &str, rule: &Value) -> (u64, Value) {
    let answer = api.send("PUT", &format!("/rules/{table}"), &[], Some(rule.to_string())).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_rule_is_set_replaced_read_and_deleted_and_each_change_is_an_event() {
    let lab = Lab::new().await;
    lab.admin
        .batch_execute(
            "create table public.notes (id int primary key);
             create function public.note() returns trigger language plpgsql as $$ begin return new; end $$;
             create trigger note before insert on public.notes for each row execute function public.note()",
        )
        .await
        .unwrap();
    let api = Gateway::api(&lab, Shape::Http);
    let (status, rule) =
        put(&api, "public.notes", &json!({"allowed_ops": ["insert"], "columns": ["id"], "actor": "ann"})).await;
    assert_eq!((status, &rule["max_rows"], &rule["role"]), (201, &json!(100), &json!("nofx_writer")));
    let triggers = rule["target"]["triggers"].clone();
    assert!(triggers["public.notes.note"].is_string(), "{rule}");
    let pinned = json!({"allowed_ops": ["insert"], "columns": ["id"], "triggers": triggers, "actor": "bob"});
    assert_eq!(put(&api, "public.notes", &pinned).await.0, 200);

    let rule = api.get("/rules/public.notes").await.body;
    assert_eq!(rule["triggers"], triggers);
    let who: Vec<_> = rule["changes"].as_array().unwrap().iter().map(|change| &change["actor"]).collect();
    assert_eq!(who, [&json!("bob"), &json!("ann")], "newest first");
    assert_eq!(rule["changes"][0]["payload"]["before"]["columns"], json!(["id"]));
    let list = api.get("/rules").await.body;
    assert_eq!((list["rules"].as_array().unwrap().len(), &list["next"]), (1, &Value::Null));

    // A change by SQL is recorded too. Fields that it does not set have their defaults.
    let by_sql = "update nofx.db_write_rule set allowed_ops = '{insert,delete}', constraints = '{}'";
    lab.admin.batch_execute(by_sql).await.unwrap();
    let rule = api.get("/rules/public.notes").await.body;
    let counts = (shared::domain::rule::DEFAULT_MAX_ROWS, shared::domain::rule::DEFAULT_ROLE);
    assert_eq!((&rule["max_rows"], &rule["role"]), (&json!(counts.0), &json!(counts.1)));
    assert_eq!(rule["changes"][0]["actor"], "database:postgres");

    let deleted = api.send("DELETE", "/rules/public.notes", &[], Some(json!({"actor": "ann"}).to_string())).await;
    assert_eq!((deleted.status, &deleted.body["result"]), (200, &json!("deleted")));
    for method in ["GET", "DELETE"] {
        assert_eq!(api.send(method, "/rules/public.notes", &[], None).await.status, 404, "{method}");
    }
    let sql =
        "select string_agg(type || ' ' || actor, ', ' order by id) from nofx.tenant_event where tenant_id = 'acme'";
    let events: String = lab.admin.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(events, "rule.set ann, rule.set bob, rule.set database:postgres, rule.deleted ann");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_invalid_rule_is_rejected_with_the_paths_of_its_problems() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let rule = json!({"allowed_ops": ["insert", "truncate"], "max_rows": "1", "columns": "id"});
    let (status, problem) = put(&api, "public.notes", &rule).await;
    let paths: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["path"]).collect();
    assert_eq!((status, paths), (400, vec![&json!("allowed_ops[1]"), &json!("columns"), &json!("max_rows")]));
    let valid = json!({"allowed_ops": ["insert"]});
    for table in ["notes", "a.b.c", "nofx.run", "pg_catalog.pg_class", "auth.users"] {
        assert_eq!(put(&api, table, &valid).await.0, 400, "{table}");
    }
    assert_eq!(api.get("/rules").await.body["rules"], json!([]));
}

#[tokio::test]
async fn rules_are_paged_and_belong_to_their_tenant() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    for table in ["public.a", "public.b", "public.c"] {
        assert_eq!(put(&api, table, &json!({"allowed_ops": ["delete"], "key": ["id"]})).await.0, 201);
    }
    let first = api.get("/rules?limit=2").await;
    let next = first.body["next"].as_str().unwrap().to_owned();
    let second = api.get(&format!("/rules?limit=2&after={next}")).await.body;
    let tables =
        |page: &Value| page["rules"].as_array().unwrap().iter().map(|rule| rule["table"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (tables(&first.body), tables(&second)),
        (vec![json!("public.a"), json!("public.b")], vec![json!("public.c")])
    );
    lab.admin.batch_execute("update nofx.db_write_rule set tenant_id = 'other'").await.unwrap();
    assert_eq!(api.get("/rules/public.a").await.status, 404);
    assert_eq!(api.get("/rules").await.body["rules"], json!([]));
}
