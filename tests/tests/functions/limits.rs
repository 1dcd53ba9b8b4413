//! Limits of a tenant: exact, named, and of no other tenant.

use futures::future::join_all;
use nofx_tests::lab::{context, session};
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::db::run::{RunFilter, run_list};
use shared::domain::{RunId, TenantId};
use shared::error::Error;
use shared::flow::create_run::{Request, create_run};

use crate::commands::serve;
use crate::gateway::{Answer, Gateway, SHAPES, Shape};

async fn limit(lab: &Lab, limits: &Value) {
    let sql = "update nofx.tenant set limits = $1 where tenant_id = 'acme'";
    assert_eq!(lab.admin.execute(sql, &[limits]).await.unwrap(), 1);
}

/// Creates so many runs of the plan at once, on connections of their own. Returns what was refused, by limit.
async fn create_at_once(lab: &Lab, tenant: &str, plan: &Value, count: usize) -> (Vec<RunId>, Vec<String>) {
    let mut config = lab.ctx.config.clone();
    config.database.pool_size = 25;
    let mut ctx = context(config).await;
    ctx.queue = lab.ctx.queue.clone();
    let body = json!({ "plan": plan });
    let tenant = TenantId(tenant.to_owned());
    let creates = (0..count).map(|_| {
        let (ctx, body, tenant) = (ctx.clone(), body.clone(), tenant.clone());
        tokio::spawn(async move {
            let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
            create_run(&ctx, &session(&ctx.db, &tenant), &request).await
        })
    });
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    for result in join_all(creates).await {
        match result.unwrap() {
            Ok(run) => made.push(run.id),
            Err(Error::Limited { limit, retry_after_s: Some(30) }) => refused.push(limit),
            Err(error) => panic!("{error:?}"),
        }
    }
    (made, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_runs_are_open_as_the_limit_says_under_concurrent_creates() {
    let lab = Lab::new().await;
    limit(&lab, &json!({ "open_runs": 7 })).await;
    let (made, refused) = create_at_once(&lab, "acme", &plans::chain(2), 50).await;
    assert_eq!((made.len(), refused), (7, vec!["open_runs".to_owned(); 43]));
    let (others, refused) = create_at_once(&lab, "other", &plans::chain(2), 20).await;
    assert_eq!((others.len(), refused.len()), (20, 0), "another tenant has no limit");

    // A run that ends makes room for one, and a retry takes it.
    let api = Gateway::api(&lab, Shape::Http);
    let (first, second) = (made[0], made[1]);
    assert_eq!(api.post(&format!("/runs/{first}/cancel"), &json!({})).await.status, 200);
    assert_eq!(api.post(&format!("/runs/{first}/retry"), &json!({})).await.status, 200);
    assert_eq!(api.post(&format!("/runs/{second}/cancel"), &json!({})).await.status, 200);
    let (again, refused) = create_at_once(&lab, "acme", &plans::chain(2), 10).await;
    assert_eq!((again.len(), refused.len()), (1, 9));
    let retried = api.post(&format!("/runs/{second}/retry"), &json!({})).await;
    assert_eq!((retried.status, &retried.body["limit"]), (429, &json!("open_runs")));
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_as_many_steps_wait_as_the_limit_says() {
    let lab = Lab::new().await;
    limit(&lab, &json!({ "queued_steps": 10 })).await;
    let (made, refused) = create_at_once(&lab, "acme", &plans::chain(3), 20).await;
    assert_eq!((made.len(), refused), (3, vec!["queued_steps".to_owned(); 17]));
    let (made, _) = create_at_once(&lab, "acme", &plans::chain(1), 5).await;
    assert_eq!(made.len(), 1, "one step more");
}

#[tokio::test]
async fn a_refusal_names_the_limit_and_says_when_to_come_back() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        limit(&lab, &json!({ "open_runs": 1 })).await;
        let api = Gateway::api(&lab, shape);
        let body = json!({ "plan": plans::chain(1) });
        let create =
            async |key: &str| api.send("POST", "/runs", &[("Idempotency-Key", key)], Some(body.to_string())).await;
        assert_eq!(create("one").await.status, 201);
        let refused = create("two").await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("30")));
        assert_eq!((&refused.body["code"], &refused.body["limit"]), (&json!("limit_exceeded"), &json!("open_runs")));
        assert_eq!(create("one").await.status, 200, "a repeated request is answered as the first one");
        limit(&lab, &json!({})).await;
        assert_eq!(create("two").await.status, 201);
    }
}

fn upload(size: u64) -> Value {
    json!({ "sha256": "0".repeat(64), "size_bytes": size })
}

#[tokio::test]
async fn uploads_and_runs_are_refused_once_the_bytes_are_used() {
    let lab = Lab::with_bucket().await;
    let api = Gateway::api(&lab, Shape::Http);
    assert_eq!(api.post("/workspaces", &upload(600)).await.status, 201);
    limit(&lab, &json!({ "stored_bytes": 1000 })).await;
    let refused = api.post("/workspaces", &upload(401)).await;
    assert_eq!(
        (refused.status, &refused.body["limit"], refused.header("retry-after")),
        (403, &json!("stored_bytes"), None)
    );
    assert_eq!(api.post("/workspaces", &upload(400)).await.status, 201);
    let create = async || api.post("/runs", &json!({ "plan": plans::chain(1) })).await;
    assert_eq!((create().await.status, create().await.body["limit"].clone()), (403, json!("stored_bytes")));

    // Bytes that were counted long ago, of a run and of uploads.
    limit(&lab, &json!({ "stored_bytes": 2000 })).await;
    assert_eq!(create().await.status, 201);
    let old = "update nofx.artifact set created_at = created_at - interval '3 days';
               insert into nofx.artifact (id, tenant_id, run_id, name, type, uri, hash, size_bytes, media_type, created_at)
               select gen_random_uuid(), r.tenant_id, r.id, 'a', 'text', 'u', repeat('0', 64), 1000, 'text/plain', now() - interval '2 days'
                 from nofx.run r;
               delete from nofx.stored_bytes";
    lab.admin.batch_execute(old).await.unwrap();
    let used = async || api.get("/limits").await.body["used"]["stored_bytes"].clone();
    assert_eq!((used().await, used().await), (json!(2000), json!(2000)));
    assert_eq!(create().await.status, 403);
    lab.admin.execute("delete from nofx.run", &[]).await.unwrap();
    assert_eq!(used().await, json!(1000), "what went with a run is no longer counted");
    assert_eq!(create().await.status, 201);
}

#[tokio::test]
async fn requests_of_a_minute_are_counted_by_request_whatever_function_answers() {
    let lab = Lab::new().await;
    let functions = [Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http)];
    limit(&lab, &json!({ "requests_per_minute": 4 })).await;
    // All requests of the test gateway have one id. API Gateway gives each its own.
    let forget = "update nofx.request set request_id = gen_random_uuid()::text";
    let ask = async |n: usize| -> Answer {
        let path = if n.is_multiple_of(2) { "/runs" } else { "/gates" };
        let answer = functions[n % 2].get(path).await;
        lab.admin.execute(forget, &[]).await.unwrap();
        answer
    };
    for n in 0..4 {
        assert_eq!(ask(n).await.status, 200, "{n}");
    }
    for n in 0..2 {
        let refused = ask(n).await;
        assert_eq!((refused.status, &refused.body["limit"]), (429, &json!("requests_per_minute")));
        let after: u32 = refused.header("retry-after").expect("a time").parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
    }
    let counted = "select count(*) from nofx.request";
    assert_eq!(lab.admin.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), 4, "what was refused does not count");
    let other = session(&lab.ctx.db, &TenantId("other".into()));
    assert!(run_list(&other, &RunFilter::default(), None, 10).await.is_ok(), "another tenant has no limit");

    lab.admin.execute("update nofx.request set at = at - interval '61 s'", &[]).await.unwrap();
    assert_eq!(ask(0).await.status, 200);
    assert_eq!(lab.admin.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), 1, "old ones are removed");
}

#[tokio::test]
async fn the_owner_sets_limits_and_everybody_of_the_tenant_reads_them() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let none = nofx.json(&["limits", "--json"]).await;
    assert_eq!(
        none["limits"],
        json!({"open_runs": null, "queued_steps": null, "stored_bytes": null, "requests_per_minute": null})
    );
    let admin = async |tenant: &str, change: &[&str]| {
        let place = ["admin", "limits", "--database-url", &lab.database.url, "--tenant", tenant];
        nofx.output(&[&place[..], change].concat()).await
    };
    let set = admin("acme", &["open_runs=2", "stored_bytes=1000"]).await;
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&set.stdout).unwrap(), json!({"open_runs": 2, "stored_bytes": 1000}));
    assert!(admin("acme", &["stored_bytes=none"]).await.status.success());
    lab.submit(&plans::chain(3)).await;
    let limits = Gateway::api(&lab, Shape::Http).get("/limits").await.body;
    assert_eq!((&limits["limits"]["open_runs"], &limits["limits"]["stored_bytes"]), (&json!(2), &Value::Null));
    assert_eq!(limits["used"], json!({"open_runs": 1, "queued_steps": 3, "stored_bytes": 0, "requests_per_minute": 0}));
    for (tenant, bad) in [("nobody", "open_runs=1"), ("acme", "runs=1"), ("acme", "requests_per_minute=0")] {
        assert!(!admin(tenant, &[bad]).await.status.success(), "{tenant} {bad}");
    }
    let audited = "select body::jsonb -> 'detail' -> 'limits' from nofx.audit where action = 'tenant.set' and tenant_id = 'acme' order by seq";
    let rows = lab.admin.query(audited, &[]).await.unwrap();
    let told: Vec<Value> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(told, [json!({"open_runs": 2, "stored_bytes": 1000}), json!({"open_runs": 2})]);
}
