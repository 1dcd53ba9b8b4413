//! The page of a run, read from a real database: its graph, and its steps with their attempts.

use nofx_tests::script::{broken, flaky};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::RunId;
use uuid::Uuid;

use crate::gateway::{Gateway, Shape};

const MAX_BYTES: usize = 1 << 20;

async fn page(console: &Gateway, path: &str) -> String {
    let answer = console.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert!(answer.bytes < MAX_BYTES, "{path}: {} bytes", answer.bytes);
    answer.body.as_str().expect("a page").to_owned()
}

/// The row of a step.
fn row(page: &str, ordinal: usize) -> &str {
    let start = page.find(&format!("<li class=\"row\" id=\"step-{ordinal}\"")).expect("a row");
    page[start..].split("</li>").next().expect("its end")
}

fn ordinals(page: &str) -> Vec<usize> {
    let ids = page.split("<li class=\"row\" id=\"step-").skip(1).filter_map(|part| part.split('"').next());
    ids.map(|id| id.parse().expect("an ordinal")).collect()
}

/// The title of each box of the graph.
fn boxes(page: &str) -> Vec<(&str, &str)> {
    let parts = page.split("<a class=\"node").skip(1);
    parts
        .filter_map(|part| Some((part.split('"').next()?, part.split("<title>").nth(1)?.split("</title>").next()?)))
        .collect()
}

#[tokio::test]
async fn a_run_that_waits_shows_what_was_done_and_what_is_ahead() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    let run = lab.submit(&plans::approval(600)).await;
    let fresh = page(&console, &format!("/ui/runs/{run}")).await;
    assert_eq!(boxes(&fresh).iter().map(|found| found.0.trim()).collect::<Vec<_>>(), ["ahead"; 3]);
    assert_eq!(fresh.matches("<path class=\"wire ahead\"").count(), 2);
    assert!(row(&fresh, 0).contains("<svg class=\"fall\" aria-hidden=\"true\">"), "no attempt, no bar");

    lab.settle(&Script::deployed(), Deliver::Once).await;
    let waiting = page(&console, &format!("/ui/runs/{run}")).await;
    let found = boxes(&waiting);
    assert_eq!(found.iter().map(|found| found.0.trim()).collect::<Vec<_>>(), ["critical", "warn critical", "ahead"]);
    assert_eq!(found[1].1, "ask, manual:deploy, waits for a person, waits");
    assert_eq!(found[2].1, "deploy, echo, pending");
    assert!(row(&waiting, 0).contains("attempt 1 succeeded after "));
    let asked = row(&waiting, 1);
    assert!(asked.contains("<rect class=\"hold\"") && asked.contains("<bdi>may it be deployed?</bdi>"), "{asked}");

    let gate: Uuid = lab.admin.query_one("select id from nofx.gate", &[]).await.unwrap().get(0);
    let approvals = Gateway::approvals(&lab, Shape::Http);
    let approved = approvals.post(&format!("/gates/{gate}/approve"), &json!({"actor": "ada"})).await;
    assert_eq!(approved.status, 200);
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let done = page(&console, &format!("/ui/runs/{run}")).await;
    assert_eq!(boxes(&done).iter().map(|found| found.0.trim()).collect::<Vec<_>>(), ["critical"; 3]);
    assert!(row(&done, 1).contains("<rect class=\"hold\"") && !row(&done, 1).contains("class=\"said"));
    lab.assert_invariants().await;
}

#[tokio::test]
async fn failed_attempts_and_their_error_are_shown() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    let mut plan = plans::chain(3);
    plan["steps"][1]["retry"] = json!({"max_attempts": 2, "backoff_ms": 0});
    let run = lab.submit(&plan).await;
    let script = Script::overriding(|step, _| async move {
        (step.name == "s1").then(|| if step.attempt == 1 { flaky() } else { broken() })
    });
    lab.settle(&script, Deliver::Once).await;
    let shown = page(&console, &format!("/ui/runs/{run}")).await;
    let failed = row(&shown, 1);
    assert!(failed.contains("attempt 1 failed after ") && failed.contains("attempt 2 failed after "), "{failed}");
    assert!(failed.contains("<rect class=\"miss\"") && failed.contains("<rect class=\"f-bad\""), "{failed}");
    assert!(failed.contains("<p class=\"said bad\"><bdi>a permanent failure</bdi>"), "{failed}");
    assert!(row(&shown, 2).contains("<span class=\"note\">skipped</span>"));
    let titles = boxes(&shown);
    assert_eq!(titles[1].0, " bad critical");
    assert!(titles[1].1.starts_with("s1, echo, failed, ") && titles[1].1.ends_with(" ×2"), "{titles:?}");
    lab.assert_invariants().await;
}

/// A step for each of many files: a chain of levels, each step with up to three parents in the level before.
fn large(levels: usize, width: usize) -> Value {
    let name = |level: usize, at: usize| format!("level {level}/{at}");
    let step = |index: usize| {
        let (level, at) = (index / width, index % width);
        let parents: Vec<_> =
            (0..if level == 0 { 0 } else { 3 }).map(|n| name(level - 1, (at + n * 7) % width)).collect();
        let parents: Vec<_> = parents.iter().map(String::as_str).collect();
        plans::after(&name(level, at), &parents, json!({}))
    };
    json!({"goal": "large", "steps": (0..levels * width).map(step).collect::<Vec<_>>()})
}

/// Makes all steps of the run succeed, except one that fails.
async fn finish(lab: &Lab, run: RunId, failed: i32) {
    let sql = "update nofx.step set status = case when ordinal = $2 then 'failed' else 'succeeded' end, blockers = 0,
                      notify_at = null, attempt = 1, outputs = case when ordinal <> $2 then '{}'::jsonb end,
                      error = case when ordinal = $2 then jsonb_build_object('message', 'it broke') end,
                      started_at = created_at + ordinal * interval '1 second',
                      finished_at = created_at + (ordinal + 5) * interval '1 second'
                where run_id = $1";
    lab.admin.execute(sql, &[&run.0, &failed]).await.unwrap();
    let sql = "insert into nofx.attempt (step_id, attempt, tenant_id, run_id, status, started_at, finished_at)
               select id, 1, tenant_id, run_id, status, started_at, finished_at from nofx.step where run_id = $1";
    lab.admin.execute(sql, &[&run.0]).await.unwrap();
}

#[tokio::test]
async fn a_run_of_a_thousand_steps_is_a_map_of_levels_and_pages_of_steps() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    let run = lab.submit(&large(40, 25)).await;
    finish(&lab, run, 307).await;
    let first = page(&console, &format!("/ui/runs/{run}")).await;
    assert_eq!(first.matches("<div class=\"level\">").count(), 24);
    assert!(first.contains("Level 12 <span class=\"note\">25 × echo</span>"), "the failed step's level is a row");
    assert!(boxes(&first).is_empty() && ordinals(&first)[0] == 307 && ordinals(&first).len() == 9);
    assert!(row(&first, 307).contains("<bdi>it broke</bdi>"));

    let (mut seen, mut next) = (Vec::new(), format!("/ui/runs/{run}?state=all"));
    loop {
        let shown = page(&console, &next).await;
        seen.extend(ordinals(&shown));
        let Some(link) = shown.split("<a href=\"").find(|part| part.contains("#steps\" rel=\"next\"")) else { break };
        let query = link.split(['?', '#']).nth(1).expect("a query").replace("&amp;", "&");
        next = format!("/ui/runs/{run}?{query}");
    }
    assert_eq!(seen, (0..1_000).collect::<Vec<_>>());
    let level = page(&console, &format!("/ui/runs/{run}?level=12")).await;
    assert_eq!(ordinals(&level), (300..325).collect::<Vec<_>>());
    let failed = page(&console, &format!("/ui/runs/{run}?state=failed")).await;
    assert_eq!(ordinals(&failed), [307]);
}
