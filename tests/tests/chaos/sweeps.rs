//! Several sweepers run concurrently with workers: they recover nothing twice, and nothing deadlocks.

use futures::future::join_all;
use nofx_tests::delivery::{event, worker_on};
use nofx_tests::{Deliver, Lab, Script, plans};
use shared::db::step::{self, ClaimItem};
use shared::domain::WakeUp;
use shared::flow::sweep::{Report, sweep};

const ROUNDS: usize = 12;
const SWEEPERS: usize = 4;

async fn claim_all(lab: &Lab) -> usize {
    let sent = lab.sent().await;
    let items: Vec<_> = sent.iter().map(|wakeup| item(lab, wakeup)).collect();
    step::steps_claim(&lab.ctx.db, &items).await.unwrap().claimed.len()
}

fn item(lab: &Lab, wakeup: &WakeUp) -> ClaimItem {
    ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: wakeup.run_id,
        step_id: wakeup.step_id,
        lease_s: 60,
        refs_bytes: 1 << 20,
        terms: false,
    }
}

/// Runs sweepers with different connections concurrently, and adds up their reports.
async fn sweep_concurrently(lab: &Lab) -> Report {
    let mut sweepers = Vec::new();
    for _ in 0..SWEEPERS {
        let ctx = lab.another_ctx().await;
        // Connect first. Otherwise the first sweeper finishes before the others start.
        drop(ctx.db.client().await.unwrap());
        sweepers.push(tokio::spawn(async move { sweep(&ctx).await.expect("no deadlock") }));
    }
    let mut sum = Report::default();
    for report in join_all(sweepers).await {
        let report = report.unwrap();
        sum.runs_timed_out += report.runs_timed_out;
        sum.gates_expired += report.gates_expired;
        sum.leases_ended += report.leases_ended;
        sum.wakeups_sent += report.wakeups_sent;
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sweepers_end_each_expired_lease_once() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let mut runs = Vec::new();
        for _ in 0..5 {
            let run = lab.submit(&plans::wide(4)).await;
            assert_eq!(claim_all(&lab).await, 4);
            lab.leases_over(run).await;
            runs.push(run);
        }
        let sum = sweep_concurrently(&lab).await;
        assert_eq!(sum.leases_ended, 20);
        assert_eq!(lab.sent().await.len(), 20, "each is woken once");
        for run in runs {
            for step in lab.snapshot(run).await["steps"].as_object().unwrap().values() {
                assert_eq!((&step["status"], &step["workers_lost"]), (&"ready".into(), &1.into()));
            }
        }
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sweepers_send_each_owed_wakeup_once() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::wide(30)).await;
        lab.sent().await;
        lab.wakeups_due(run).await;
        assert_eq!(sweep_concurrently(&lab).await.wakeups_sent, 30);
        let mut woken: Vec<_> = lab.sent().await.iter().map(|wakeup| wakeup.step_id).collect();
        woken.sort();
        woken.dedup();
        assert_eq!(woken.len(), 30);
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sweepers_do_not_deadlock_on_undeliverable_and_owed_steps_of_the_same_runs() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let mut runs = Vec::new();
        for _ in 0..8 {
            let run = lab.submit(&plans::wide(20)).await;
            lab.wakeups_due(run).await;
            lab.wakeups_exhausted(lab.step(run, "s5").await).await;
            runs.push(run);
        }
        sweep_concurrently(&lab).await;
        sweep_concurrently(&lab).await;
        for run in runs {
            assert_eq!(lab.run_status(run).await, "failed");
        }
        lab.assert_invariants().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweepers_concurrent_with_workers_lose_no_step_and_run_none_twice() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::wide(40)).await;
        let mut sent = lab.sent().await;
        // Workers that crashed had claimed half of the steps.
        let abandoned = sent.split_off(20);
        let items: Vec<_> = abandoned.iter().map(|wakeup| item(&lab, wakeup)).collect();
        assert_eq!(step::steps_claim(&lab.ctx.db, &items).await.unwrap().claimed.len(), 20);
        let workers = sent.chunks(4).map(|batch| {
            let (ctx, batch) = (lab.ctx.clone(), event(batch, Deliver::Once));
            tokio::spawn(async move {
                let response = worker_on(&ctx, "echo", &Script::deployed()).handle_batch(batch, None).await;
                assert!(response.batch_item_failures.is_empty());
            })
        });
        let workers: Vec<_> = workers.collect();
        for wakeup in &abandoned {
            lab.lease_over(wakeup.step_id).await;
            lab.wakeups_due(run).await;
            sweep(&lab.ctx).await.expect("no deadlock");
        }
        join_all(workers).await.into_iter().for_each(|worker| worker.unwrap());
        // A sweeper skips a locked run. The next one finds it.
        sweep(&lab.ctx).await.unwrap();
        lab.assert_invariants().await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        lab.assert_invariants().await;
    }
}
