//! Runs at the limits: 1,000 steps with 2,500 dependencies, and 100,000 events.

use serde_json::{Value, json};
use shared::domain::RunId;

use super::clock::When;
use super::shop;
use super::site::Site;
use super::work::Act;

/// Steps of a large run, in levels. Each step but those of the first level has two or three parents.
const STEPS: usize = 1_000;
const LEVEL: usize = 40;
const EDGES: usize = 2_500;
/// Events of the run with a long timeline.
pub const EVENTS: i64 = 100_000;

/// A graph of [`STEPS`] steps and [`EDGES`] dependencies.
fn steps() -> Vec<Value> {
    let kinds = ["build", "typecheck", "lint", "unit", "pack"];
    let name = |index: usize| format!("{} {:03}", kinds[index / LEVEL % kinds.len()], index);
    let with_parents = STEPS - LEVEL;
    (0..STEPS)
        .map(|index| {
            let Some(above) = index.checked_sub(LEVEL) else {
                return shop::step(&name(index), "echo", &[], json!({ "index": index }));
            };
            let count = 2 + usize::from(above < EDGES - 2 * with_parents);
            let level = above / LEVEL * LEVEL;
            // 13 and 40 have no common factor, so these are different steps of the level above.
            let parents: Vec<String> = (0..count).map(|nth| name(level + (above + nth * 13) % LEVEL)).collect();
            let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
            shop::step(&name(index), "echo", &parents, json!({ "index": index }))
        })
        .collect()
}

/// A run of 1,000 steps of which some run, some wait for their next attempt, and most have not started.
pub async fn running(site: &Site) -> RunId {
    let run = site.create("upgrade TypeScript in all packages", &steps()).await;
    let flaky = Act::Fail { code: "registry_unavailable", message: "The registry answered 503.", retryable: true };
    for (step, act) in
        [("lint 081", Act::Hold), ("unit 137", Act::Hold), ("typecheck 250", flaky.clone()), ("lint 300", Act::Hold)]
    {
        site.act(run, step, act);
    }
    site.let_wait(run, "typecheck 250").await;
    site.settle().await;
    site.was(run, When::seconds(96, 4)).await;
    run
}

/// A run of 1,000 steps that failed in the middle.
pub async fn failed(site: &Site) -> RunId {
    let run = site.create("upgrade vitest in all packages", &steps()).await;
    let act =
        Act::Fail { code: "tests_failed", message: "2 tests failed in the package “money”.", retryable: false };
    site.act(run, "lint 300", act);
    site.settle().await;
    site.was(run, When::seconds(168, 7_300)).await;
    run
}

/// A run whose steps were tried again until it had 100,000 events.
pub async fn eventful(site: &Site) -> RunId {
    let run = site.create("keep the mirror of the registry in step", &shop::fan(20)).await;
    site.act(run, "package 07", Act::Hold);
    site.settle().await;
    let sql = "with newest as (select event_seq as seq from nofx.run where id = $1),
               steps as (select array_agg(id order by ordinal) as ids, count(*) as count from nofx.step where run_id = $1),
               written as (
                   insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
                   select $1, n, $2, s.ids[1 + (n / 2) % s.count],
                          case n % 2 when 0 then 'step.started' else 'step.worker_lost' end,
                          jsonb_build_object('attempt', 1 + (n / 2) / s.count)
                              || case n % 2 when 0 then '{}' else jsonb_build_object('workers_lost', 1) end,
                          clock_timestamp() - make_interval(secs => ($3 - n) * 0.5)
                     from newest, steps s, generate_series(newest.seq + 1, $3) n
               )
               update nofx.run set event_seq = $3 where id = $1";
    site.lab.admin.execute(sql, &[&run.0, &site.lab.tenant.0, &EVENTS]).await.expect("events");
    site.lab.leases_last(run).await;
    run
}
