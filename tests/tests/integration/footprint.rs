//! A transition reads only the rows of its batch, whatever else the tables contain and whenever its plans were made.

use nofx_tests::database::connect_to;
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::domain::{RunId, StepId};
use tokio_postgres::Client;
use uuid::Uuid;

/// The limit on pages that a claim or a finish may touch. Each takes 36 to 80: index and heap pages for every lookup of a
/// row. One scan of the steps below would take 90 more.
const MAX_PAGES: f64 = 100.0;

async fn pages_of(session: &Client, statement: &str) -> f64 {
    let explained = format!("explain (analyze, buffers, timing off, format json) {statement}");
    let plan: Value = session.query_one(&explained, &[]).await.unwrap().get(0);
    let blocks = |name: &str| plan[0]["Plan"][name].as_f64().unwrap();
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

/// The pages that a claim and a finish of the step touch. The session caches its plans.
async fn claim_and_finish(lab: &Lab, session: &Client, run: RunId, step: StepId) -> (f64, f64) {
    claim_and_finish_with(lab, session, run, step, false).await
}

/// The same, with the terms of the step or without.
async fn claim_and_finish_with(lab: &Lab, session: &Client, run: RunId, step: StepId, terms: bool) -> (f64, f64) {
    let (tenant, call) = (&lab.tenant, Uuid::new_v4());
    let item = json!([{ "tenant_id": tenant, "run_id": run, "step_id": step, "lease_s": 30, "refs_bytes": 1 << 20,
        "terms": terms }]);
    let claim = pages_of(session, &format!("select nofx.steps_claim('{item}', '{call}')")).await;
    let item = json!([{ "tenant_id": tenant, "run_id": run, "step_id": step, "attempt": 1, "to": "succeeded",
        "outputs": { "said": "hello" }, "delay_ms": 0, "artifacts": [], "gates": [], "events": [] }]);
    let next = json!({ "call": call, "handler": "echo", "lease_s": 30, "timeout_s": 27, "refs_bytes": 1 << 20,
        "terms": terms });
    let finish = pages_of(session, &format!("select nofx.steps_finish('{item}', '{next}')")).await;
    assert_eq!(lab.step_status(step).await, "succeeded");
    (claim, finish)
}

#[tokio::test]
async fn plans_made_on_small_tables_read_no_more_pages_when_the_tables_grow() {
    let lab = Lab::new().await;
    let session = connect_to(&lab.database.url).await;
    // Autovacuum would invalidate the cached plans, so turn it off.
    for table in ["run", "step", "step_edge", "attempt", "event"] {
        let sql = format!("alter table nofx.{table} set (autovacuum_enabled = off)");
        lab.admin.batch_execute(&sql).await.unwrap();
    }
    let first = lab.submit(&plans::chain(3)).await;
    lab.admin.batch_execute("vacuum analyze").await.unwrap();
    claim_and_finish(&lab, &session, first, lab.step(first, "s0").await).await;

    for _ in 0..20 {
        lab.submit(&plans::chain(100)).await;
    }
    let last = lab.submit(&plans::chain(3)).await;
    let (claim, finish) = claim_and_finish(&lab, &session, last, lab.step(last, "s0").await).await;
    assert!(claim < MAX_PAGES && finish < MAX_PAGES, "a claim reads {claim} pages, a finish {finish}");
}

#[tokio::test]
async fn a_step_of_a_wide_run_is_read_without_its_siblings() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(1000)).await;
    let session = connect_to(&lab.database.url).await;
    // The first calls of a session also read the system catalogue.
    claim_and_finish(&lab, &session, run, lab.step(run, "s0").await).await;
    let (claim, finish) = claim_and_finish(&lab, &session, run, lab.step(run, "s500").await).await;
    assert!(claim < MAX_PAGES && finish < MAX_PAGES, "a claim reads {claim} pages, a finish {finish}");
    lab.admin.batch_execute("analyze").await.unwrap();
    claim_and_finish(&lab, &session, run, lab.step(run, "s1").await).await;
    let (claim, finish) = claim_and_finish(&lab, &session, run, lab.step(run, "s501").await).await;
    assert!(claim < MAX_PAGES && finish < MAX_PAGES, "after ANALYZE a claim reads {claim} pages, a finish {finish}");
}

/// The limit on pages that the terms of a step add to its claim: those of the policy's newest version and of the step's gates.
const MAX_PAGES_OF_TERMS: f64 = 24.0;

#[tokio::test]
async fn only_a_claim_with_terms_reads_policies_and_gates_and_only_those_of_its_step() {
    let lab = Lab::new().await;
    let session = connect_to(&lab.database.url).await;
    // Others' gates and policies, and earlier versions.
    let wide = lab.submit(&plans::wide(200)).await;
    let sql =
        "insert into nofx.gate (id, tenant_id, run_id, step_id, gate_type, status, on_pass, generation, decided_at)
               select gen_random_uuid(), s.tenant_id, s.run_id, s.id, 'gate:x', 'passed', 'finish', 1, now()
                 from nofx.step s, generate_series(1, 20) where s.run_id = $1 and s.name not in ('s0', 's2')";
    lab.admin.execute(sql, &[&wide.0]).await.unwrap();
    let sql = "insert into nofx.policy (tenant_id, version, document, changed_by)
               select t, v, '{}', 'ann' from unnest('{acme,other}'::text[]) t, generate_series(1, 1000) v";
    lab.admin.batch_execute(sql).await.unwrap();

    let run = lab.submit(&plans::wide(6)).await;
    for warm in ["s0", "s1"] {
        claim_and_finish_with(&lab, &session, run, lab.step(run, warm).await, true).await;
        claim_and_finish_with(&lab, &session, wide, lab.step(wide, warm).await, false).await;
    }
    let (without, _) = claim_and_finish_with(&lab, &session, run, lab.step(run, "s2").await, false).await;
    let (with, finish) = claim_and_finish_with(&lab, &session, run, lab.step(run, "s3").await, true).await;
    assert!(with <= without + MAX_PAGES_OF_TERMS, "{without} pages without terms, {with} with");
    // The gates of other steps count only if a person decided about changed checks.
    let (wide_with, _) = claim_and_finish_with(&lab, &session, wide, lab.step(wide, "s2").await, true).await;
    assert!(wide_with <= without + MAX_PAGES_OF_TERMS, "{without} pages without terms, {wide_with} in a run of gates");
    assert!(finish < MAX_PAGES, "a finish reads {finish} pages");
}
