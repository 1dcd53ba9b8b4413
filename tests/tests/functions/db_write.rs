//! `db_write` on real tables: it writes exactly once or not at all.

mod effects;

use ::db_write::DbWrite;
use nofx_tests::delivery::{body, event_of};
use nofx_tests::lab::session;
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::domain::{RunId, tool};
use shared::worker::{InTransaction, Worker};
use tokio_postgres::error::SqlState;

const TABLE: &str = "create table public.products (id int generated always as identity primary key,
    name text not null, price numeric not null check (price >= 0), owner text);
    create table public.secrets (id int primary key)";

async fn products_lab() -> Lab {
    let lab = Lab::new().await;
    lab.admin.batch_execute(TABLE).await.unwrap();
    grant_all(&lab).await;
    let rule = "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints) values
        ('acme', 'public.products', array['insert', 'update', 'delete'],
         '{\"columns\": [\"name\", \"price\"], \"key\": [\"id\"], \"max_rows\": 2}')";
    lab.admin.batch_execute(rule).await.unwrap();
    lab
}

/// Grants the writer every table in `public`, as the database's owner would.
async fn grant_all(lab: &Lab) {
    let grant = "grant select, insert, update, delete on all tables in schema public to nofx_writer";
    lab.admin.batch_execute(grant).await.unwrap();
}

/// Creates a table with this SQL, and a rule for it.
async fn with_rule(lab: &Lab, sql: &str, table: &str, constraints: Value) {
    lab.admin.batch_execute(sql).await.unwrap();
    grant_all(lab).await;
    let ops = vec!["insert", "update", "delete"];
    let rule = "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints)
                values ('acme', $1, $2, $3)";
    lab.admin.execute(rule, &[&table, &ops, &constraints]).await.unwrap();
}

async fn number(lab: &Lab, sql: &str) -> i64 {
    lab.admin.query_one(sql, &[]).await.unwrap().get(0)
}

/// A worker with its own login, so that these tests run with the role `nofx_worker`.
async fn worker(lab: &Lab) -> Worker<InTransaction<DbWrite>> {
    Worker::new(lab.worker_ctx().await, tool::handler("db_write").expect("a handler"), InTransaction(DbWrite))
}

/// Runs one operation, and delivers its message four times.
async fn write(lab: &Lab, inputs: Value) -> RunId {
    let mut step = plans::step("write", "db_write", inputs);
    step["retry"] = json!({"max_attempts": 1});
    let run = lab.submit(&json!({"goal": "g", "steps": [step]})).await;
    let wakeups = lab.sent().await;
    let worker = worker(lab).await;
    for _ in 0..2 {
        let twice = wakeups.iter().flat_map(|wakeup| [body(wakeup), body(wakeup)]);
        worker.handle_batch(event_of(twice), None).await;
    }
    lab.assert_invariants().await;
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
async fn a_message_delivered_four_times_writes_its_rows_once() {
    let lab = products_lab().await;
    let values = json!([{"name": "Widget", "price": 10}, {"name": "it's \"quoted\"; --", "price": "2.50"}]);
    let run = write(&lab, json!({"table": "public.products", "op": "insert", "values": values})).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let expected = [("Widget".into(), "10".into()), ("it's \"quoted\"; --".into(), "2.50".into())];
    assert_eq!(products(&lab).await, expected);
    let outputs = lab.snapshot(run).await["steps"]["write"]["outputs"].clone();
    assert_eq!((&outputs["rows"], &outputs["keys"]), (&json!(2), &json!([{"id": 1}, {"id": 2}])));
}

#[tokio::test]
async fn rows_are_selected_only_by_their_key() {
    let lab = products_lab().await;
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
async fn an_operation_that_no_rule_allows_changes_nothing_and_has_a_code() {
    let lab = products_lab().await;
    write(&lab, json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]})).await;
    let rejected = [
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
            "check_violation",
        ),
    ];
    for (inputs, code) in rejected {
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
    let lab = products_lab().await;
    lab.admin
        .batch_execute(
            "create table public.logs (day int, line text);
        insert into public.logs values (1, 'a'), (1, 'b'), (1, 'c');
        insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops, constraints) values
        ('acme', 'public.logs', array['delete'], '{\"key\": [\"day\"], \"max_rows\": 2}')",
        )
        .await
        .unwrap();
    grant_all(&lab).await;
    let run = write(&lab, json!({"table": "public.logs", "op": "delete", "where": {"day": 1}})).await;
    assert_eq!(error_code(&lab, run).await, "too_many_rows");
    let remaining: i64 = lab.admin.query_one("select count(*) from public.logs", &[]).await.unwrap().get(0);
    assert_eq!(remaining, 3);
}

#[tokio::test]
async fn an_attempt_that_is_cancelled_during_the_write_rolls_back() {
    let lab = products_lab().await;
    let inputs = json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]});
    let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("write", "db_write", inputs)]})).await;
    let wakeups = lab.sent().await;
    // A lock on the table stops the insert between claim and finish.
    lab.admin.batch_execute("begin; lock table public.products in exclusive mode").await.unwrap();
    let worker = worker(&lab).await;
    let working = tokio::spawn(async move { worker.handle_batch(event_of([body(&wakeups[0])]), None).await });
    let step = lab.step(run, "write").await;
    let waiting = "select exists (select from pg_locks where relation = 'public.products'::regclass and not granted)";
    let other = nofx_tests::database::connect_to(&lab.database.url).await;
    while !other.query_one(waiting, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    let cancel = shared::db::run::Control::Cancel;
    let ctx = lab.another_ctx().await;
    shared::flow::control_run::control_run(&ctx, &session(&ctx.db, &lab.tenant), run, cancel, "ann").await.unwrap();
    lab.admin.batch_execute("commit").await.unwrap();
    working.await.unwrap();
    assert_eq!(lab.step_status(step).await, "cancelled");
    assert_eq!(products(&lab).await, []);
}

#[tokio::test]
async fn a_step_that_fails_because_of_its_outputs_writes_no_row() {
    let lab = Lab::new().await;
    let rule = json!({"columns": ["c"], "max_rows": 200});
    with_rule(&lab, "create table public.wide (c char(2000))", "public.wide", rule).await;
    let values: Vec<_> = (0..200).map(|n| json!({"c": n.to_string()})).collect();
    let run = write(&lab, json!({"table": "public.wide", "op": "insert", "values": values})).await;
    assert_eq!(error_code(&lab, run).await, "outputs_too_large");
    assert_eq!(number(&lab, "select count(*) from public.wide").await, 0);
}

#[tokio::test]
async fn a_number_is_stored_exactly_or_not_at_all() {
    let lab = Lab::new().await;
    let sql = "create table public.exact (id numeric primary key, price numeric(12, 2), f real, m money, many numeric(12, 2)[])";
    with_rule(&lab, sql, "public.exact", json!({"columns": ["id", "price", "f", "m", "many"], "key": ["id"]})).await;
    let insert = |row: Value| json!({"table": "public.exact", "op": "insert", "values": [row]});
    for row in [
        json!({"id": 1, "price": 10.005}),
        json!({"id": 1, "price": "10.005"}),
        json!({"id": 1, "f": 16_777_217}),
        json!({"id": 1, "f": "0.1234567890123"}),
        json!({"id": 1, "m": 10.005}),
        json!({"id": 1, "many": [10.005]}),
    ] {
        let run = write(&lab, insert(row.clone())).await;
        assert_eq!(error_code(&lab, run).await, "inexact_value", "{row}");
    }
    // PostgreSQL 16 and later parse this as a number, earlier versions do not.
    let run = write(&lab, insert(json!({"id": 1, "price": "10.00_5"}))).await;
    assert!(["inexact_value", "invalid_value"].contains(&error_code(&lab, run).await.as_str()));
    let huge = "12345678901234567890123.5";
    let run = write(&lab, insert(json!({"id": huge, "price": "9999999999.99", "f": 0.5, "m": "$1,000.50"}))).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let stored: String = lab.admin.query_one("select id::text from public.exact", &[]).await.unwrap().get(0);
    assert_eq!(stored, huge);
    let outputs = lab.snapshot(run).await["steps"]["write"]["outputs"].clone();
    assert_eq!(outputs["keys"], json!([{"id": huge}]), "the outputs do not round it to a double");
    let update = json!({"table": "public.exact", "op": "update", "where": {"id": huge}, "set": {"price": 1.999}});
    let run = write(&lab, update).await;
    assert_eq!(error_code(&lab, run).await, "inexact_value");
}

#[tokio::test]
async fn a_key_in_another_notation_is_rejected() {
    let lab = Lab::new().await;
    let sql = "create table public.days (k date primary key); insert into public.days values ('2026-01-01');
        create table public.names (k name primary key)";
    with_rule(&lab, sql, "public.days", json!({"key": ["k"]})).await;
    let delete = |key: &str| json!({"table": "public.days", "op": "delete", "where": {"k": key}});
    assert_eq!(error_code(&lab, write(&lab, delete("2026-01-01T23:59:59-11:00")).await).await, "inexact_key");
    assert_eq!(lab.run_status(write(&lab, delete("2026-01-01")).await).await, "succeeded");
    with_rule(&lab, "select 1", "public.names", json!({"key": ["k"]})).await;
    let long = json!({"table": "public.names", "op": "delete", "where": {"k": "x".repeat(70)}});
    assert_eq!(error_code(&lab, write(&lab, long).await).await, "inexact_key");
}

#[tokio::test]
async fn objects_in_the_search_path_cannot_replace_built_in_ones() {
    let mut lab = Lab::new().await;
    let sql = "create type public.letter as enum ('a', 'b');
        create table public.letters (k public.letter primary key, n int);
        insert into public.letters values ('a', 1), ('b', 2);
        create function public.always(public.letter, public.letter) returns boolean language sql immutable as 'select true';
        create operator public.= (leftarg = public.letter, rightarg = public.letter, function = public.always);
        create function public.jsonb_build_object(variadic text[]) returns jsonb language sql as $$select '{\"forged\": 1}'::jsonb$$;
        create function public.to_jsonb(anyelement) returns jsonb language sql as $$select '{\"forged\": 1}'::jsonb$$;
        grant execute on all functions in schema public to public";
    with_rule(&lab, sql, "public.letters", json!({"columns": ["n"], "key": ["k"]})).await;
    let path = "alter database %I set search_path = public, pg_catalog";
    lab.admin
        .batch_execute(&format!("do $$ begin execute format('{path}', current_database()); end $$"))
        .await
        .unwrap();
    // New connections have that search path.
    lab.ctx = lab.another_ctx().await;
    let update = json!({"table": "public.letters", "op": "update", "where": {"k": "a"}, "set": {"n": 7}});
    let run = write(&lab, update).await;
    let outputs = lab.snapshot(run).await["steps"]["write"]["outputs"].clone();
    assert_eq!(outputs["keys"], json!([{"k": "a"}]));
    assert_eq!(number(&lab, "select count(*) from public.letters where n = 7").await, 1);
}

#[tokio::test]
async fn a_write_must_touch_the_expected_number_of_rows() {
    let lab = products_lab().await;
    write(&lab, json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]})).await;
    let update = |id: i32, expected: i32| {
        json!({"table": "public.products", "op": "update", "where": {"id": id}, "set": {"price": 5},
               "expected_rows": expected})
    };
    assert_eq!(error_code(&lab, write(&lab, update(7, 1)).await).await, "unexpected_rows");
    assert_eq!(error_code(&lab, write(&lab, update(1, 0)).await).await, "unexpected_rows");
    assert_eq!(lab.run_status(write(&lab, update(1, 1)).await).await, "succeeded");
    assert_eq!(products(&lab).await, [("a".into(), "5".into())]);
}

#[tokio::test]
async fn the_write_has_only_the_rights_of_the_rules_role() {
    let lab = products_lab().await;
    // A policy for the tenant applies.
    lab.admin
        .batch_execute(
            "alter table public.products enable row level security;
             create policy mine on public.products using (true)
                 with check (owner = current_setting('request.jwt.claims')::jsonb -> 'app_metadata' ->> 'tenant_id');
             update nofx.db_write_rule set constraints = constraints || '{\"columns\": [\"name\", \"price\", \"owner\"]}'",
        )
        .await
        .unwrap();
    let insert = |owner: &str| json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1, "owner": owner}]});
    assert_eq!(error_code(&lab, write(&lab, insert("other")).await).await, "not_permitted");
    assert_eq!(lab.run_status(write(&lab, insert("acme")).await).await, "succeeded");
    lab.admin.batch_execute("revoke insert on public.products from nofx_writer").await.unwrap();
    assert_eq!(error_code(&lab, write(&lab, insert("acme")).await).await, "not_permitted");
    for (role, code) in
        [("postgres", "role_not_allowed"), ("nobody_at_all", "role_not_allowed"), ("nofx_api", "role_not_allowed")]
    {
        let sql = "update nofx.db_write_rule set constraints = constraints || jsonb_build_object('role', $1::text)";
        lab.admin.execute(sql, &[&role]).await.unwrap();
        assert_eq!(error_code(&lab, write(&lab, insert("acme")).await).await, code, "{role}");
    }
}

#[tokio::test]
async fn every_database_error_has_its_own_code() {
    let lab = Lab::new().await;
    let sql = "create table public.parent (id int primary key);
        create table public.strict (id smallint primary key, name varchar(3) not null, at timestamptz, j int,
            parent_id int references public.parent deferrable initially deferred, unique (j) deferrable initially deferred)";
    let columns = json!({"columns": ["id", "name", "at", "parent_id", "j", "nope"], "key": ["id"]});
    with_rule(&lab, sql, "public.strict", columns).await;
    lab.admin.batch_execute("insert into public.strict values (1, 'a', null, 1, null)").await.unwrap();
    let cases = [
        (json!({"id": 1, "name": "a"}), "unique_violation"),
        (json!({"id": 99_999, "name": "a"}), "out_of_range"),
        (json!({"id": 2, "name": "abcd"}), "value_too_long"),
        (json!({"id": 2, "name": null}), "not_null_violation"),
        (json!({"id": 2, "name": "a", "parent_id": 7}), "foreign_key_violation"),
        (json!({"id": 2, "name": "a", "j": 1}), "unique_violation"),
        (json!({"id": 2, "name": "a", "at": "never ever"}), "invalid_value"),
        (json!({"id": 2, "name": "a", "nope": 1}), "unknown_column"),
        (json!({"id": "x".repeat(200_000), "name": "a"}), "invalid_value"),
    ];
    for (row, code) in cases {
        let run = write(&lab, json!({"table": "public.strict", "op": "insert", "values": [row]})).await;
        assert_eq!(error_code(&lab, run).await, code);
        let sql = "select octet_length(error::text)::bigint from nofx.step where run_id = $1";
        let bytes: i64 = lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0);
        assert!(bytes < 2_000, "{code}: {bytes} bytes");
    }
    assert_eq!(number(&lab, "select count(*) from public.strict").await, 1);
}

#[tokio::test]
async fn a_statement_is_cancelled_at_the_steps_timeout_and_counts_as_one_attempt() {
    let lab = Lab::new().await;
    let sql = "create table public.slow (id int primary key);
        create function public.sleep() returns trigger language plpgsql as
            $$ begin perform pg_catalog.pg_sleep(600); return new; end $$;
        create trigger sleep before insert on public.slow for each row execute function public.sleep()";
    with_rule(&lab, sql, "public.slow", json!({})).await;
    let target: Value = lab.admin.query_one("select nofx.db_write_target('public', 'slow')", &[]).await.unwrap().get(0);
    let rule = json!({"columns": ["id"], "triggers": target["triggers"]});
    lab.admin.execute("update nofx.db_write_rule set constraints = $1", &[&rule]).await.unwrap();
    let mut step =
        plans::step("write", "db_write", json!({"table": "public.slow", "op": "insert", "values": [{"id": 1}]}));
    step["timeout_s"] = json!(1);
    step["retry"] = json!({"max_attempts": 1});
    let run = lab.submit(&json!({"goal": "g", "steps": [step]})).await;
    let wakeups = lab.sent().await;
    worker(&lab).await.handle_batch(event_of([body(&wakeups[0])]), None).await;
    let step = lab.snapshot(run).await["steps"]["write"].clone();
    assert_eq!((&step["status"], &step["error"], &step["attempt"]), (&json!("failed"), &json!("timed_out"), &json!(1)));
    let busy = "select count(*) from pg_stat_activity where state = 'active' and query like '%public%slow%'
                 and pid <> pg_backend_pid()";
    assert_eq!(number(&lab, busy).await, 0, "no statement is still running in the database");
}

#[tokio::test]
async fn writes_that_wait_for_a_lock_do_not_block_other_writes() {
    let mut lab = products_lab().await;
    lab.ctx = {
        let mut config = lab.ctx.config.clone();
        // The pool size that `worker::run` chooses for a batch.
        config.database.pool_size = <InTransaction<DbWrite> as shared::worker::Executor>::connections(10) as usize;
        let queue = lab.ctx.queue.clone();
        shared::context::Ctx { queue, ..nofx_tests::lab::context(config).await }
    };
    with_rule(&lab, "create table public.held (id int primary key)", "public.held", json!({"columns": ["id"]})).await;
    let mut runs = Vec::new();
    for n in 0..10 {
        let inputs = if n < 8 {
            json!({"table": "public.held", "op": "insert", "values": [{"id": n}]})
        } else {
            json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]})
        };
        runs.push(lab.submit(&json!({"goal": "g", "steps": [plans::step("write", "db_write", inputs)]})).await);
    }
    let wakeups = lab.sent().await;
    lab.admin.batch_execute("begin; lock table public.held in exclusive mode").await.unwrap();
    let worker = worker(&lab).await;
    let working = tokio::spawn(async move { worker.handle_batch(event_of(wakeups.iter().map(body)), None).await });
    let other = nofx_tests::database::connect_to(&lab.database.url).await;
    let done = "select count(*) = 2 from nofx.step where status = 'succeeded'";
    while !other.query_one(done, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    lab.admin.batch_execute("commit").await.unwrap();
    working.await.unwrap();
    for run in &runs {
        assert_eq!(lab.run_status(*run).await, "succeeded");
    }
}

#[tokio::test]
async fn an_ambiguous_rule_cannot_be_stored() {
    let lab = products_lab().await;
    for constraints in [
        json!({"max_rows": "1"}),
        json!({"max_rows": -1}),
        json!({"max_rows": 1.5}),
        json!({"maxrows": 1}),
        json!({"columns": "name"}),
        json!({"columns": ["a", "a"]}),
        json!({"key": [1]}),
        json!({"triggers": {"public.t.x": "short"}}),
        json!({"dependants": {"child": 1}}),
        json!({"allow": ["all"]}),
        json!({"role": 1}),
    ] {
        let sql = "update nofx.db_write_rule set constraints = $1";
        let error = lab.admin.execute(sql, &[&constraints]).await.expect_err(&constraints.to_string());
        assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{constraints}");
    }
    let closed =
        "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops) values ('acme', 'nofx.run', '{insert}')";
    assert!(lab.admin.execute(closed, &[]).await.is_err());
    // A rule that was stored before the check existed stays in the table, and allows nothing.
    lab.admin
        .batch_execute(
            "alter table nofx.db_write_rule drop constraint rule_is_sound;
             update nofx.db_write_rule set constraints = '{\"columns\": [\"name\", \"price\"], \"max_rows\": \"1\"}'",
        )
        .await
        .unwrap();
    let insert = json!({"table": "public.products", "op": "insert", "values": [{"name": "a", "price": 1}]});
    assert_eq!(error_code(&lab, write(&lab, insert).await).await, "no_rule");
}
