//! The database fails before a claim, during a claim, during a finish, and while a function is frozen.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nofx_tests::database::connect_to;
use nofx_tests::delivery::{event, failed_ids, worker_on};
use nofx_tests::environment::database_url;
use nofx_tests::lab::{context, session};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::context::Ctx;
use shared::db::gate::{GateCreated, GateDecision, GateRequest, gate_create};
use shared::db::run::Control;
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId};
use shared::error::{Code, Error};
use shared::flow::control_run::control_run;
use shared::flow::decide_gate::decide_gate;
use tokio_postgres::Client;
use uuid::Uuid;

/// Holds the run's lock until the connection is dropped.
async fn lock_run(lab: &Lab, run: RunId) -> Client {
    let client = connect_to(&lab.database.url).await;
    client.batch_execute("begin").await.unwrap();
    client.execute("select from nofx.run where id = $1 for update", &[&run.0]).await.unwrap();
    client
}

/// Waits for a connection that waits for a lock, and kills it. `before` was killed last, and is ignored because the server
/// still shows it for a while.
async fn kill_waiting_connection(lab: &Lab, before: i32) -> i32 {
    let others = format!("{WAITING} and pid <> {before}");
    lab.until("a connection that waits for the lock", &format!("select count(*) > 0 {others}")).await;
    let killed = format!("select pid from (select pid, pg_terminate_backend(pid) {others}) killed");
    lab.admin.query_one(&killed, &[]).await.expect("it is still waiting").get(0)
}

async fn wait_for_another_waiter(lab: &Lab, before: i32) {
    lab.until("another connection that waits", &format!("select count(*) > 0 {WAITING} and pid <> {before}")).await;
}

const NOBODY: i32 = 0;
const WAITING: &str = "from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()";

#[tokio::test]
async fn without_a_database_every_message_returns_to_the_queue() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(3)).await;
    let sent = lab.sent().await;
    let mut config = lab.ctx.config.clone();
    // Nobody listens on port 1.
    config.database.url = "postgresql://nobody@127.0.0.1:1/none?sslmode=disable".into();
    let without_database = context(config).await;
    let response =
        worker_on(&without_database, "echo", &Script::deployed()).handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(failed_ids(&response), HashSet::from(["m0".into(), "m1".into(), "m2".into()]));
    lab.worker("echo", &Script::deployed()).handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_database_that_fails_during_a_claim_returns_the_messages() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(2)).await;
    let sent = lab.sent().await;
    let before = lab.everything(run).await;
    let lock = lock_run(&lab, run).await;
    let worker = lab.worker("echo", &Script::deployed());
    let batch = event(&sent, Deliver::Once);
    let batch = tokio::spawn(async move { worker.handle_batch(batch, None).await });
    // The claim and its one retry.
    let first = kill_waiting_connection(&lab, NOBODY).await;
    kill_waiting_connection(&lab, first).await;
    let response = batch.await.unwrap();
    assert_eq!(failed_ids(&response).len(), 2);
    drop(lock);
    lab.assert_unchanged(run, &before).await;
    lab.worker("echo", &Script::deployed()).handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn a_connection_that_dies_during_a_claim_is_replaced_and_the_step_claimed_once() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    let lock = lock_run(&lab, run).await;
    let worker = lab.worker("echo", &Script::deployed());
    let batch = tokio::spawn(async move { worker.handle_batch(event(&sent, Deliver::Once), None).await });
    let killed = kill_waiting_connection(&lab, NOBODY).await;
    wait_for_another_waiter(&lab, killed).await;
    drop(lock);
    assert!(batch.await.unwrap().batch_item_failures.is_empty());
    assert_eq!(lab.snapshot(run).await["steps"]["s0"]["attempts"], json!(["succeeded"]));
}

#[tokio::test]
async fn a_connection_that_dies_during_a_finish_is_replaced_and_the_step_finished_once() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let sent = lab.sent().await;
    let url = lab.database.url.clone();
    let (sender, mut locks) = tokio::sync::mpsc::unbounded_channel();
    // The handler takes the lock, so that the claim succeeds and the finish waits.
    let script = Script::overriding(move |step, _| {
        let (url, sender) = (url.clone(), sender.clone());
        async move {
            if step.name != "s0" {
                return None;
            }
            let client = connect_to(&url).await;
            client.batch_execute("begin").await.unwrap();
            client.execute("select from nofx.run where id = $1 for update", &[&step.run_id.0]).await.unwrap();
            sender.send(client).unwrap();
            None
        }
    });
    let worker = lab.worker("echo", &script);
    let batch = tokio::spawn(async move { worker.handle_batch(event(&sent, Deliver::Once), None).await });
    let lock = locks.recv().await.unwrap();
    let killed = kill_waiting_connection(&lab, NOBODY).await;
    wait_for_another_waiter(&lab, killed).await;
    drop(lock);
    assert!(batch.await.unwrap().batch_item_failures.is_empty());
    assert!(lab.sent().await.is_empty(), "the invocation continued with the child");
    let steps = &lab.snapshot(run).await["steps"];
    assert_eq!([&steps["s0"]["attempts"], &steps["s1"]["attempts"]], [&json!(["succeeded"]); 2]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn connections_that_died_while_the_function_was_frozen_are_replaced() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(4)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let run_after = lab.submit(&plans::chain(4)).await;
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    assert!(lab.admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!((lab.run_status(run).await, lab.run_status(run_after).await), ("succeeded".into(), "succeeded".into()));
}

#[tokio::test]
async fn an_outcome_that_could_not_be_recorded_returns_the_message_and_the_step_runs_again() {
    let mut lab = Lab::new().await;
    let run = lab.submit(&plans::chain(2)).await;
    let sent = lab.sent().await;
    let server = Arc::new(connect_to(&database_url()).await);
    let database = lab.text("select current_database()::text where $1::uuid is not null", run.0).await;
    // While the handler works, the database fails for longer than a worker waits.
    let shut_down = format!(
        "alter database {database} with allow_connections false;
         select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'"
    );
    let (server_for_handler, calls) = (server.clone(), Arc::new(AtomicUsize::new(0)));
    let script = Script::overriding(move |_, _| {
        let (server, shut_down, calls) = (server_for_handler.clone(), shut_down.clone(), calls.clone());
        async move {
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                server.batch_execute(&shut_down).await.unwrap();
            }
            None
        }
    });
    let worker = lab.worker("echo", &script);
    let response = worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(failed_ids(&response), HashSet::from(["m0".into()]));

    server.batch_execute(&format!("alter database {database} with allow_connections true")).await.unwrap();
    lab.admin = connect_to(&lab.database.url).await;
    assert_eq!(lab.run_status(run).await, "running", "the outcome is not recorded");
    // Deliver the message once before the lease ends, and once after.
    worker.handle_batch(event(&sent, Deliver::Once), None).await;
    lab.leases_over(run).await;
    worker.handle_batch(event(&sent, Deliver::Once), None).await;
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    assert_eq!(lab.snapshot(run).await["steps"]["s0"]["attempts"], json!(["lost", "succeeded"]));
}

const SOON: Duration = Duration::from_millis(900);

/// A run with a pending gate, and a context with this limit on statements.
async fn asked(lab: &Lab, limit: Duration) -> (RunId, GateId, Ctx) {
    let run = lab.submit(&plans::chain(1)).await;
    let id = GateId(Uuid::now_v7());
    let request = GateRequest {
        id,
        run_id: run,
        step_id: None,
        gate_type: "manual:release".into(),
        evidence_uri: None,
        reason: None,
        expires_after_s: None,
    };
    assert_eq!(gate_create(&lab.session(), &request).await.unwrap(), GateCreated::Created);
    let mut ctx = lab.another_ctx().await;
    ctx.db = ctx.db.with_statement_limit(limit);
    (run, id, ctx)
}

async fn reject(ctx: &Ctx, gate_id: GateId) -> Result<(), Error> {
    let decision = GateDecision { gate_id, decision: Decision::Reject, actor: "ann", reason: Some("no"), seen: None };
    decide_gate(ctx, &session(&ctx.db, &ctx.config.tenant), &decision).await.map(|_| ())
}

/// Waits until no statement runs that calls a transition.
async fn until_idle(lab: &Lab) {
    let running = "select count(*) = 0 from pg_stat_activity
        where datname = current_database() and state <> 'idle' and query like 'select nofx.%'";
    lab.until("the end of every transition", running).await;
}

async fn gate_status(lab: &Lab, gate: GateId) -> String {
    lab.text("select status from nofx.gate where id = $1", gate.0).await
}

#[tokio::test]
async fn a_decision_that_waits_for_a_lock_is_refused_and_does_not_happen_later() {
    let lab = Lab::new().await;
    let (run, gate, ctx) = asked(&lab, SOON).await;
    let before = lab.run_status(run).await;
    let lock = connect_to(&lab.database.url).await;
    lock.batch_execute("begin; lock table nofx.gate in access exclusive mode").await.unwrap();
    let refused = reject(&ctx, gate).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nothing was changed: {refused}");
    lock.batch_execute("rollback").await.unwrap();
    let lock = lock_run(&lab, run).await;
    let refused = control_run(&ctx, &session(&ctx.db, &lab.tenant), run, Control::Cancel, "ann").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nothing was changed: {refused}");
    lock.batch_execute("rollback").await.unwrap();

    until_idle(&lab).await;
    assert_eq!((gate_status(&lab, gate).await, lab.run_status(run).await), ("pending".to_owned(), before));
    reject(&lab.ctx, gate).await.unwrap();
}

/// Makes each decision run these statements.
async fn slow_decisions(lab: &Lab, body: &str) {
    let sql = format!(
        "create function nofx.slow() returns trigger language plpgsql as $$ begin {body} return new; end $$;
         create trigger slow before insert on nofx.approval for each row execute function nofx.slow()"
    );
    lab.admin.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_decision_that_takes_too_long_is_cancelled_and_does_not_happen_later() {
    let lab = Lab::new().await;
    let (_, gate, ctx) = asked(&lab, SOON).await;
    slow_decisions(&lab, "perform pg_sleep(3600);").await;
    let refused = reject(&ctx, gate).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nothing was changed: {refused}");
    until_idle(&lab).await;
    assert_eq!(gate_status(&lab, gate).await, "pending");
}

#[tokio::test]
async fn a_decision_that_cannot_be_cancelled_is_answered_as_unknown() {
    let lab = Lab::new().await;
    // Longer, so that the statement has begun to wait when it is cancelled.
    let (_, gate, ctx) = asked(&lab, SOON * 3).await;
    // It catches the cancellation, and waits until the test has its answer.
    slow_decisions(
        &lab,
        "begin perform pg_sleep(3600);
         exception when query_canceled then
             perform set_config('lock_timeout', '0', true);
             perform pg_advisory_xact_lock(31);
         end;",
    )
    .await;
    lab.admin.execute("select pg_advisory_lock(31)", &[]).await.unwrap();
    let refused = reject(&ctx, gate).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutcomeUnknown, "{refused}");
    assert!(refused.to_string().contains("not known whether"), "{refused}");
    lab.admin.execute("select pg_advisory_unlock(31)", &[]).await.unwrap();
    until_idle(&lab).await;
    assert_eq!(gate_status(&lab, gate).await, "failed");
}
