//! Concurrent calls on several connections, in many rounds. Each round starts at a barrier, so that the calls overlap.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use nofx_tests::lab::session;
use nofx_tests::{Lab, plans};
use serde_json::{Map, json};
use shared::db::event::event_list;
use shared::db::gate::{self, GateDecided, GateDecision};
use shared::db::run::{self, Control, Controlled};
use shared::db::step::{self, ClaimItem, Claimed, FinishItem, FinishResult, FinishTo};
use shared::domain::gate::Decision;
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::{GateId, NewGate, Outcome, RunId, StepError, StepId};
use shared::flow::create_run::{Request, create_run};
use shared::flow::finish_step::finish_item;
use tokio::sync::Barrier;
use uuid::Uuid;

const ROUNDS: usize = 25;

async fn claim(lab: &Lab, run: RunId, steps: &[StepId]) -> Vec<Claimed> {
    let item = |&step_id: &StepId| ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id,
        lease_s: 60,
        refs_bytes: 1 << 20,
        terms: false,
    };
    let items: Vec<_> = steps.iter().map(item).collect();
    step::steps_claim(&lab.ctx.db, &items).await.unwrap().claimed
}

async fn steps(lab: &Lab, run: RunId, names: &[String]) -> Vec<StepId> {
    let mut ids = Vec::new();
    for name in names {
        ids.push(lab.step(run, name).await);
    }
    ids
}

fn done(claimed: &Claimed) -> FinishItem {
    finish_item(claimed, Outcome::succeeded(Map::new()), 1 << 20, 0.0)
}

/// Runs the futures concurrently, each in its own task.
async fn run_concurrently<T: Send + 'static>(work: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(work.len()));
    let tasks = work.into_iter().map(|work| {
        let barrier = barrier.clone();
        tokio::spawn(async move {
            barrier.wait().await;
            work.await
        })
    });
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_concurrent_claims_gets_the_step() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::wide(1)).await;
        let id = lab.step(run, "s0").await;
        let item = ClaimItem {
            tenant_id: lab.tenant.clone(),
            run_id: run,
            step_id: id,
            lease_s: 60,
            refs_bytes: 1 << 20,
            terms: false,
        };
        let claimants = (0..6).map(|_| {
            let (db, item) = (lab.ctx.db.clone(), item.clone());
            async move { step::steps_claim(&db, &[item]).await.unwrap().claimed.len() }
        });
        let won: usize = run_concurrently(claimants.collect()).await.into_iter().sum();
        assert_eq!(won, 1);
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_concurrent_claims_takes_over_an_expired_lease() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::wide(1)).await;
        let id = lab.step(run, "s0").await;
        claim(&lab, run, &[id]).await;
        lab.lease_over(id).await;
        let item = ClaimItem {
            tenant_id: lab.tenant.clone(),
            run_id: run,
            step_id: id,
            lease_s: 60,
            refs_bytes: 1 << 20,
            terms: false,
        };
        let claimants = (0..6).map(|_| {
            let (db, item) = (lab.ctx.db.clone(), item.clone());
            async move { step::steps_claim(&db, &[item]).await.unwrap().claimed }
        });
        let won: Vec<_> = run_concurrently(claimants.collect()).await.into_iter().flatten().collect();
        assert_eq!(won.iter().map(|claimed| claimed.attempt).collect::<Vec<_>>(), [2]);
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_finish_concurrently_wake_their_child_once() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::diamond(8)).await;
        let root = claim(&lab, run, &[lab.step(run, "root").await]).await;
        step::steps_finish(&lab.ctx.db, &[done(&root[0])], None).await.unwrap();
        let names: Vec<String> = (0..8).map(|index| format!("m{index}")).collect();
        let parents = claim(&lab, run, &steps(&lab, run, &names).await).await;
        assert_eq!(parents.len(), 8);
        let finishes = parents.iter().map(|claimed| {
            let (db, item) = (lab.ctx.db.clone(), done(claimed));
            async move { step::steps_finish(&db, &[item], None).await.unwrap().ready.len() }
        });
        let woken: usize = run_concurrently(finishes.collect()).await.into_iter().sum();
        assert_eq!(woken, 1, "the child is woken once");
        assert_eq!(lab.step_status(lab.step(run, "join").await).await, "ready");
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn parents_that_finish_in_one_batch_wake_their_child_once() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::diamond(5)).await;
    let root = claim(&lab, run, &[lab.step(run, "root").await]).await;
    step::steps_finish(&lab.ctx.db, &[done(&root[0])], None).await.unwrap();
    let names: Vec<String> = (0..5).map(|index| format!("m{index}")).collect();
    let parents = claim(&lab, run, &steps(&lab, run, &names).await).await;
    let items: Vec<_> = parents.iter().map(done).collect();
    let finishes = step::steps_finish(&lab.ctx.db, &items, None).await.unwrap();
    assert_eq!(finishes.ready.len(), 1);
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_concurrent_with_a_siblings_retry_leaves_no_step_to_run() {
    let lab = Lab::new().await;
    for round in 0..ROUNDS {
        let run = lab.submit(&plans::wide(2)).await;
        let ids = steps(&lab, run, &["s0".into(), "s1".into()]).await;
        let claimed = claim(&lab, run, &ids).await;
        let fails = finish_item(&claimed[0], Outcome::failed(StepError::new("broken", "never")), 1 << 20, 0.0);
        let retries = finish_item(&claimed[1], Outcome::retryable(StepError::new("flaky", "now")), 1 << 20, 0.0);
        assert_eq!((fails.to, retries.to), (FinishTo::Failed, FinishTo::Ready));
        if round == 0 {
            // Both in one batch.
            step::steps_finish(&lab.ctx.db, &[fails, retries], None).await.unwrap();
        } else {
            let finishes = [fails, retries].map(|item| {
                let db = lab.ctx.db.clone();
                async move { step::steps_finish(&db, &[item], None).await.unwrap() }
            });
            run_concurrently(finishes.into()).await;
        }
        assert_eq!(lab.run_status(run).await, "failed");
        assert!(claim(&lab, run, &ids).await.is_empty());
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finishes_concurrent_with_a_cancel_neither_deadlock_nor_change_a_cancelled_run() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::diamond(4)).await;
        let root = claim(&lab, run, &[lab.step(run, "root").await]).await;
        step::steps_finish(&lab.ctx.db, &[done(&root[0])], None).await.unwrap();
        let names: Vec<String> = (0..4).map(|index| format!("m{index}")).collect();
        let parents = claim(&lab, run, &steps(&lab, run, &names).await).await;
        let (db, tenant) = (lab.ctx.db.clone(), lab.tenant.clone());
        let cancel = async move {
            let answer = run::run_control(&session(&db, &tenant), run, Control::Cancel, "ann").await;
            assert!(matches!(answer.expect("no deadlock"), Controlled::Cancelled(_)));
            None
        };
        let mut work: Vec<futures::future::BoxFuture<'static, Option<(StepId, FinishResult)>>> = vec![Box::pin(cancel)];
        for claimed in &parents {
            let (db, item) = (lab.ctx.db.clone(), done(claimed));
            work.push(Box::pin(async move {
                let answer = step::steps_finish(&db, &[item], None).await.expect("no deadlock");
                Some((answer.items[0].step_id, answer.items[0].result))
            }));
        }
        for (step, result) in run_concurrently(work).await.into_iter().flatten() {
            let status = lab.step_status(step).await;
            let expected = if result == FinishResult::Finished { "succeeded" } else { "cancelled" };
            assert_eq!(status, expected, "{result:?}");
        }
        assert_eq!(lab.run_status(run).await, "cancelled");
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_concurrent_decisions_counts() {
    let lab = Lab::new().await;
    for _ in 0..ROUNDS {
        let run = lab.submit(&plans::chain(2)).await;
        let claimed = claim(&lab, run, &[lab.step(run, "s0").await]).await;
        let gate_id = GateId(Uuid::new_v4());
        let new_gate = NewGate {
            id: gate_id,
            gate_type: "manual:deploy".into(),
            status: NewGateStatus::Pending,
            subject: None,
            evidence_uri: None,
            on_pass: OnPass::Finish,
            expires_after_s: None,
            reason: None,
        };
        let item = finish_item(&claimed[0], Outcome::blocked(new_gate), 1 << 20, 0.0);
        step::steps_finish(&lab.ctx.db, &[item], None).await.unwrap();
        let deciders = [Decision::Approve, Decision::Reject, Decision::Waive, Decision::Approve].map(|decision| {
            let session = lab.session();
            async move {
                let decision = GateDecision { gate_id, decision, actor: "ann", reason: Some("so"), seen: None };
                matches!(
                    gate::gate_decide(&session, &decision, Some(&json!({})), None).await.unwrap(),
                    GateDecided::Decided { .. }
                )
            }
        });
        let decided = run_concurrently(deciders.into()).await;
        assert_eq!(decided.iter().filter(|decided| **decided).count(), 1, "{decided:?}");
        let sql = "select count(*) from nofx.approval where gate_id = $1";
        let approvals: i64 = lab.admin.query_one(sql, &[&gate_id.0]).await.unwrap().get(0);
        assert_eq!(approvals, 1);
    }
    lab.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeline_reader_concurrent_with_writers_misses_no_event() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(60)).await;
    let names: Vec<String> = (0..60).map(|index| format!("s{index}")).collect();
    let ids = steps(&lab, run, &names).await;
    let writers = ids.chunks(15).map(|ids| {
        let (db, tenant_id, ids) = (lab.ctx.db.clone(), lab.tenant.clone(), ids.to_vec());
        tokio::spawn(async move {
            for step_id in ids {
                let item = ClaimItem {
                    tenant_id: tenant_id.clone(),
                    run_id: run,
                    step_id,
                    lease_s: 60,
                    refs_bytes: 1 << 20,
                    terms: false,
                };
                let claims = step::steps_claim(&db, &[item]).await.unwrap();
                step::steps_finish(&db, &[done(&claims.claimed[0])], None).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let (mut cursor, mut seen, mut reads) = (0, Vec::new(), 0);
    loop {
        let over = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let page = event_list(&session(&lab.ctx.db, &lab.tenant), run, cursor, 7).await.unwrap().items;
        seen.extend(page.iter().map(|event| event.seq));
        cursor = seen.last().copied().unwrap_or(0);
        reads += 1;
        if over && page.is_empty() {
            break;
        }
    }
    join_all(writers).await.into_iter().for_each(|writer| writer.unwrap());
    let sql = "select event_seq from nofx.run where id = $1";
    let last: i64 = lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0);
    assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "after {reads} reads");
    assert!(last > 180, "every step was made ready, started and finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_posts_with_one_idempotency_key_creates_a_run() {
    let lab = Lab::new().await;
    for round in 0..ROUNDS {
        let posts = (0..6).map(|post| {
            let (ctx, tenant) = (lab.ctx.clone(), lab.tenant.clone());
            async move {
                // One of them posts a different plan with the same key.
                let width = if post == 5 { 2 } else { 1 };
                let body = json!({ "plan": plans::wide(width) });
                let key = format!("key-{round}");
                let request = Request { body: &body, idempotency_key: Some(&key), traceparent: None, actor: None };
                create_run(&ctx, &session(&ctx.db, &tenant), &request).await
            }
        });
        let answers = run_concurrently(posts.collect()).await;
        let accepted: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(accepted.iter().filter(|accepted| accepted.created).count(), 1);
        assert_eq!(accepted.iter().map(|accepted| accepted.id.0).collect::<BTreeSet<_>>().len(), 1);
        let rejected: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(rejected.iter().all(|error| matches!(error, shared::error::Error::Conflict(..))));
        // Either the request with the different plan is rejected, or all others if that one was first.
        assert!(matches!(rejected.len(), 1 | 5), "{rejected:?}");
        let runs: i64 = lab.admin.query_one("select count(*) from nofx.run", &[]).await.unwrap().get(0);
        assert_eq!(usize::try_from(runs).unwrap(), round + 1);
    }
    lab.assert_invariants().await;
}
