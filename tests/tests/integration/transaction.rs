//! Handlers that run in the transaction that finishes their step. Their effect happens exactly once or not at all.

use std::sync::Arc;

use futures::future::BoxFuture;
use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::{flaky, succeeded};
use nofx_tests::{Deliver, Lab, plans};
use serde_json::json;
use shared::domain::{Outcome, tool};
use shared::worker::{ClaimedStep, InTransaction, TransactionHandler, Worker};
use tokio_postgres::Transaction;

type ChooseOutcome = dyn Fn(ClaimedStep) -> BoxFuture<'static, Option<Outcome>> + Send + Sync;

/// Writes a row, then returns the outcome that the test chooses.
struct Writes(Arc<ChooseOutcome>);

impl TransactionHandler for Writes {
    async fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> Outcome {
        let row = transaction.execute("insert into written (by) values ($1)", &[&step.name]).await;
        row.expect("the effect");
        (self.0)(step.clone()).await.unwrap_or_else(|| succeeded(json!({ "rows": 1 })))
    }
}

async fn lab() -> Lab {
    let lab = Lab::new().await;
    lab.admin.batch_execute("create table written (by text not null)").await.unwrap();
    lab
}

fn worker<F>(lab: &Lab, choose: impl Fn(ClaimedStep) -> F + Send + Sync + 'static) -> Worker<InTransaction<Writes>>
where
    F: Future<Output = Option<Outcome>> + Send + 'static,
{
    let writes = Writes(Arc::new(move |step| Box::pin(choose(step))));
    Worker::new(lab.ctx.clone(), tool::handler("echo").unwrap(), InTransaction(writes))
}

async fn written(lab: &Lab) -> i64 {
    lab.admin.query_one("select count(*) from written", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_message_delivered_many_times_has_its_effect_once() {
    let lab = lab().await;
    let run = lab.submit(&plans::wide(4)).await;
    let sent = lab.sent().await;
    let worker = worker(&lab, |_| async { None });
    for deliver in [Deliver::Thrice, Deliver::Once] {
        worker.handle_batch(event(&sent, deliver), None).await;
    }
    assert_eq!((written(&lab).await, lab.run_status(run).await), (4, "succeeded".into()));
}

#[tokio::test]
async fn the_effect_of_a_failed_attempt_is_rolled_back() {
    let lab = lab().await;
    let run = lab.submit(&plans::wide(1)).await;
    let worker = worker(&lab, |step| async move { (step.attempt < 3).then(flaky) });
    for attempt in 1..=3 {
        let sent = lab.sent().await;
        assert_eq!(sent.len(), 1, "attempt {attempt} is woken");
        lab.delay_over(sent[0].step_id).await;
        worker.handle_batch(event(&sent, Deliver::Once), None).await;
    }
    assert_eq!((written(&lab).await, lab.run_status(run).await), (1, "succeeded".into()));
}

#[tokio::test]
async fn the_effect_of_an_attempt_that_lost_its_step_is_rolled_back() {
    let lab = lab().await;
    let run = lab.submit(&plans::wide(1)).await;
    let sent = lab.sent().await;
    let (ctx, tenant) = (lab.another_ctx().await, lab.tenant.clone());
    // The run is cancelled between the effect and the finish.
    let worker = worker(&lab, move |step| {
        let (ctx, tenant) = (ctx.clone(), tenant.clone());
        async move {
            let cancel = shared::db::run::Control::Cancel;
            shared::flow::control_run::control_run(&ctx, &session(&ctx.db, &tenant), step.run_id, cancel, "ann")
                .await
                .unwrap();
            None
        }
    });
    let response = worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert!(response.batch_item_failures.is_empty());
    assert_eq!((written(&lab).await, lab.run_status(run).await), (0, "cancelled".into()));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_panic_in_a_transaction_rolls_back_its_effect_and_frees_its_connection() {
    let lab = lab().await;
    let run = lab.submit(&plans::wide(12)).await;
    let sent = lab.sent().await;
    let worker = worker(&lab, |step| async move {
        assert!(step.attempt > 1, "a defect of the handler");
        None
    });
    // More steps than connections in the pool: a leaked connection would leave none.
    worker.handle_batch(event(&sent, Deliver::Once), None).await;
    assert_eq!(written(&lab).await, 0);
    let again = lab.sent().await;
    for wakeup in &again {
        lab.delay_over(wakeup.step_id).await;
    }
    worker.handle_batch(event(&again, Deliver::Once), None).await;
    assert_eq!((written(&lab).await, lab.run_status(run).await), (12, "succeeded".into()));
}
