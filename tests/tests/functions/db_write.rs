//! `db_write` on a real table: exactly once, or not at all.

use ::db_write::DbWrite;
use nofx_tests::delivery::{body, event_of};
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::domain::{RunId, tool};
use shared::worker::{InTransaction, Worker};

const TABLE: &str = "create table public.products (id int generated always as identity primary key,
    name text not null, price numeric not null check (price >= 0), owner text);
    create table public.secrets (id int primary key)";

async fn shop() -> Lab {
    let lab = Lab::new().await;
    lab.admin.batch_execute(TABLE).await.unwrap();
    let rule = "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints) values
        ('acme', 'public.products', array['insert', 'update', 'delete'],
         '{\"columns\": [\"name\", \"price\"], \"key\": [\"id\"], \"max_rows\": 2}')";
    lab.admin.batch_execute(rule).await.unwrap();
    lab
}

fn worker(lab: &Lab) -> Worker<InTransaction<DbWrite>> {
    Worker::new(lab.ctx.clone(), tool::handler("db_write").expect("a handler"), InTransaction(DbWrite))
}

/// Runs one operation; every message is delivered three times.
async fn write(lab: &Lab, inputs: Value) -> RunId {
    let mut step = plans::step("write", "db_write", inputs);
    step["retry"] = json!({"max_attempts": 1});
    let run = lab.submit(&json!({"goal": "g", "steps": [step]})).await;
    let wakeups = lab.sent().await;
    let worker = worker(lab);
    for _ in 0..2 {
        let twice = wakeups.iter().flat_map(|wakeup| [body(wakeup), body(wakeup)]);
        worker.handle_batch(event_of(twice), None).await;
    }
    run
}

async fn products(lab: &Lab) -> Vec<(String, String)> {
    let rows = lab.admin.query("select name, price::text from public.products order by id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn error_code(lab: &Lab, run: RunId) -> String {
    lab.text("select coalesce(error ->> 'code', status) from nofx.step where run_id = $1", run.0).await
}

#[tokio::test]
async fn delivered_four_times_the_rows_are_written_once() {
    let lab = shop().await;
    let values = json!([{"name": "Widget", "price": 10}, {"name": "it's \"quoted\"; --", "price": "2.50"}]);
    let run = write(&lab, json!({"table": "public.products", "op": "insert", "values": values})).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let expected = [("Widget".into(), "10".into()), ("it's \"quoted\"; --".into(), "2.50".into())];
    assert_eq!(products(&lab).await, expected);
    let outputs = lab.snapshot(run).await["steps"]["write"]["outputs"].clone();
    assert_eq!((&outputs["rows"], &outputs["keys"]), (&json!(2), &json!([{"id": 1}, {"id": 2}])));
}

#[tokio::test]
async fn rows_are_found_by_their_key_alone() {
    let lab = shop().await;
    let values = json!([{"name": "a", "price": 1}, {"name": "b", "price": 2}]);
    write(&lab, json!({"table": "public.products", "op": "insert", "values": values})).await;
    let update = json!({"table": "public.products", "op": "update", "where": {"id": 2}, "set": {"price": 5}});
    assert_eq!(lab.run_status(write(&lab, update).await).await, "succeeded");
    let delete = json!({"table": "public.products", "op": "delete", "where": {"id": 1}});
    assert_eq!(lab.run_status(write(&lab, delete).await).await, "succeeded");
    assert_eq!(products(&lab).await, [("b".into(), "5".into())]);
    let null = json!({"table": "public.products", "op": "delete", "where": {"id": null}});
    let run = write(&lab, null).await;
    assert_eq!(lab.snapshot(run).await["steps"]["write"]["outputs"]["rows"], 0);
    assert_eq!(products(&lab).await.len(), 1);
}

#[tokio::test]
async fn what_no_rule_allows_changes_nothing_and_says_why() {
    let lab = shop().await;
    write(&lab, json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]})).await;
    let refused = [
        (json!({"table": "public.secrets", "op": "insert", "values": [{"id": 1}]}), "no_rule"),
        (json!({"table": "nofx.run", "op": "delete", "where": {"id": 1}}), "no_rule"),
        (json!({"table": "public.products", "op": "insert", "values": [{"owner": "me"}]}), "column_not_allowed"),
        (json!({"table": "public.products", "op": "delete", "where": {"name": "a"}}), "predicate_not_allowed"),
        (json!({"table": "public.products", "op": "delete", "where": "1=0; drop table products"}), "invalid_inputs"),
        (
            json!({"table": "public.products", "op": "insert", "values": [{"name": "x", "price": 1},
            {"name": "y", "price": 1}, {"name": "z", "price": 1}]}),
            "too_many_rows",
        ),
        (
            json!({"table": "public.products", "op": "insert", "values": [{"name": "x", "price": -1}]}),
            "database_refused",
        ),
    ];
    for (inputs, code) in refused {
        let run = write(&lab, inputs.clone()).await;
        assert_eq!(
            (error_code(&lab, run).await.as_str(), lab.run_status(run).await.as_str()),
            (code, "failed"),
            "{inputs}"
        );
    }
    assert_eq!(products(&lab).await, [("a".into(), "1".into())]);
}

#[tokio::test]
async fn an_update_that_touches_more_rows_than_allowed_is_rolled_back() {
    let lab = shop().await;
    lab.admin
        .batch_execute(
            "create table public.logs (day int, line text);
        insert into public.logs values (1, 'a'), (1, 'b'), (1, 'c');
        insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints) values
        ('acme', 'public.logs', array['delete'], '{\"key\": [\"day\"], \"max_rows\": 2}')",
        )
        .await
        .unwrap();
    let run = write(&lab, json!({"table": "public.logs", "op": "delete", "where": {"day": 1}})).await;
    assert_eq!(error_code(&lab, run).await, "too_many_rows");
    let left: i64 = lab.admin.query_one("select count(*) from public.logs", &[]).await.unwrap().get(0);
    assert_eq!(left, 3);
}

#[tokio::test]
async fn an_attempt_that_was_cancelled_meanwhile_takes_its_rows_back() {
    let lab = shop().await;
    let inputs = json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]});
    let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("write", "db_write", inputs)]})).await;
    let wakeups = lab.sent().await;
    // The table's lock holds the insert up between claim and finish.
    lab.admin.batch_execute("begin; lock table public.products in exclusive mode").await.unwrap();
    let worker = worker(&lab);
    let working = tokio::spawn(async move { worker.handle_batch(event_of([body(&wakeups[0])]), None).await });
    let step = lab.step(run, "write").await;
    let waiting = "select exists (select from pg_locks where relation = 'public.products'::regclass and not granted)";
    let other = nofx_tests::database::connect_to(&lab.database.url).await;
    while !other.query_one(waiting, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    let cancel = shared::db::run::Control::Cancel;
    let ctx = lab.another_ctx().await;
    shared::flow::control_run::control_run(&ctx, &lab.tenant, run, cancel, "ann").await.unwrap();
    lab.admin.batch_execute("commit").await.unwrap();
    working.await.unwrap();
    assert_eq!(lab.step_status(step).await, "cancelled");
    assert_eq!(products(&lab).await, []);
}
