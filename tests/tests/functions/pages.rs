//! Every response is bounded, and paging reaches every row.

use std::time::{Duration, Instant};

use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::domain::RunId;
use uuid::Uuid;

use crate::gateway::{Answer, Gateway, Shape};

const MAX_BYTES: usize = 1 << 20;

/// Reads all rows of a list, following `Link`. `key` is the member with the rows in a page, or empty for a bare array.
async fn all_rows(gateway: &Gateway, list: &str, first: &str, key: &str) -> Vec<Value> {
    let (mut rows, mut next) = (Vec::new(), format!("{list}{first}"));
    for _ in 0..1_000 {
        let page = gateway.get(&next).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.bytes < MAX_BYTES, "{next}: {} bytes", page.bytes);
        let listed = if key.is_empty() { &page.body } else { &page.body[key] };
        rows.extend(listed.as_array().expect("a list").iter().cloned());
        let Some(target) = link(&page) else { return rows };
        next = format!("{list}{target}");
    }
    panic!("{list} never ends");
}

fn link(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    Some(link.trim_start_matches('<').split('>').next()?.to_owned())
}

/// Makes every step of the run succeed with this many bytes of outputs.
async fn finish(lab: &Lab, run: RunId, bytes: i32) {
    let sql = "update nofx.step set status = 'succeeded', blockers = 0, notify_at = null, finished_at = now(),
                      started_at = now(), attempt = 1, outputs = jsonb_build_object('text', repeat('x', $2))
                where run_id = $1";
    lab.admin.execute(sql, &[&run.0, &bytes]).await.unwrap();
}

fn steps(count: usize, text: &str) -> Value {
    let step = |index: usize| plans::after(&format!("s {index}/%"), &[], json!({"text": text, "index": index}));
    json!({"goal": "g", "steps": (0..count).map(step).collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_run_with_a_thousand_large_steps_is_read_in_small_pages() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let run = lab.submit(&steps(1_000, "")).await;
    finish(&lab, run, 250_000).await;
    let start = Instant::now();
    let first = api.get(&format!("/runs/{run}")).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(first.status, 200);
    assert!(first.bytes < MAX_BYTES, "{} bytes", first.bytes);
    assert_eq!(first.body["steps"].as_array().map(Vec::len), Some(100));
    let link = link(&first).expect("a link");
    assert!(link.starts_with(&format!("{run}/steps?after=")), "{link}");
    let next = first.body["steps_next"].as_str().expect("a cursor").to_owned();

    let mut listed = first.body["steps"].as_array().cloned().unwrap();
    let list = format!("/runs/{run}/steps");
    listed.extend(all_rows(&api, &list, &format!("?limit=1000&after={next}"), "steps").await);
    let names: Vec<_> = listed.iter().map(|step| step["name"].clone()).collect();
    assert_eq!(names, (0..1_000).map(|index| json!(format!("s {index}/%"))).collect::<Vec<_>>());
    assert_eq!((&listed[7]["outputs"], &listed[7]["inputs"]["index"]), (&Value::Null, &json!(7)));
    let omitted = &listed[7]["outputs_omitted"];
    assert_eq!(omitted["bytes"], 250_012);
    let step = api.get(omitted["href"].as_str().expect("an address")).await;
    assert_eq!(step.body["name"], "s 7/%");
    assert_eq!(step.body["outputs"]["text"].as_str().map(str::len), Some(250_000));
    assert!(step.body.get("outputs_omitted").is_none());
}

#[tokio::test]
async fn a_page_with_large_rows_has_fewer_rows() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let run = lab.submit(&steps(60, &"y".repeat(10_000))).await;
    let first = api.get(&format!("/runs/{run}")).await;
    assert!(first.body["steps"].as_array().is_some_and(|steps| steps.len() < 60), "bounded in bytes");
    assert_eq!(first.body["run"]["plan"], Value::Null);
    let omitted = &first.body["run"]["plan_omitted"];
    assert!(omitted["bytes"].as_u64().is_some_and(|bytes| bytes > 600_000), "{omitted}");
    let plan = api.get(omitted["href"].as_str().expect("an address")).await;
    assert_eq!(plan.body["steps"].as_array().map(Vec::len), Some(60));
    let all = all_rows(&api, &format!("/runs/{run}/steps"), "", "steps").await;
    assert_eq!(all.len(), 60);

    let sql = "update nofx.event set payload = jsonb_build_object('text', repeat('x', 200000)) where run_id = $1";
    assert!(lab.rewrite("event", sql, &[&run.0]).await > 0);
    let events = all_rows(&api, &format!("/runs/{run}/timeline"), "?limit=1000", "").await;
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].clone()).collect();
    assert_eq!(seqs, (1..=seqs.len()).map(|seq| json!(seq)).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_numbers_are_returned_as_short_as_they_were_sent() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let numbers = vec![json!(1e300); 30_000];
    let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("s", "echo", json!({"n": numbers}))]})).await;
    let (plan, step) = (api.get(&format!("/runs/{run}/plan")).await, api.get(&format!("/runs/{run}/steps/s")).await);
    for answer in [&plan, &step] {
        assert!(answer.bytes < 300_000, "{} bytes", answer.bytes);
    }
    assert_eq!((&plan.body["steps"][0]["inputs"]["n"], &step.body["inputs"]["n"]), (&json!(numbers), &json!(numbers)));
}

#[tokio::test]
async fn a_small_run_has_all_its_fields() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let run = lab.submit(&plans::chain(3)).await;
    let read = api.get(&format!("/runs/{run}")).await;
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>().join(" "));
    assert_eq!(keys(&read.body).as_deref(), Some("artifacts run steps"));
    assert_eq!(read.header("link"), None);
    let step = "attempt blockers depends_on error finished_at id inputs name outputs ready_at started_at status tool";
    assert_eq!(keys(&read.body["steps"][0]).as_deref(), Some(step));
    assert_eq!(read.body["run"]["plan"], plans::chain(3));
    let one = api.get(&format!("/runs/{run}/steps/s1")).await;
    assert_eq!(one.body, read.body["steps"][1]);
}

#[tokio::test]
async fn paging_reaches_all_of_205_pending_gates() {
    let lab = Lab::new().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Rest), Gateway::approvals(&lab, Shape::Rest));
    let run = lab.submit(&plans::chain(1)).await;
    let mut created = Vec::new();
    for index in 0..205 {
        let body = json!({"run_id": run, "gate_type": format!("g{index}"), "reason": "ü".repeat(2_000)});
        created.push(approvals.post("/gates", &body).await.body["id"].clone());
    }
    for (gateway, list) in [(&approvals, "/gates".to_owned()), (&api, format!("/runs/{run}/gates"))] {
        for first in ["", "?limit=7", "?limit=1000"] {
            let ids: Vec<_> = all_rows(gateway, &list, first, "").await.iter().map(|gate| gate["id"].clone()).collect();
            assert_eq!(ids, created, "{list}{first}");
        }
    }
    // A gate that was decided in the meantime still works as a cursor.
    let cursor = created[99].as_str().expect("an id");
    assert_eq!(approvals.post(&format!("/gates/{cursor}/waive"), &json!({"reason": "fine"})).await.status, 200);
    assert_eq!(all_rows(&approvals, "/gates", &format!("?after={cursor}"), "").await[0]["id"], created[100]);

    let console = Gateway::console(&lab, Shape::Http);
    let (mut seen, mut next) = (Vec::new(), "/ui/inbox".to_owned());
    loop {
        let page = console.get(&next).await;
        let html = page.body.as_str().expect("a page");
        for part in html.split("href=\"gates/").skip(1) {
            seen.push(part[..36].to_owned());
        }
        let Some(more) = html.split("inbox?after=").nth(1) else { break };
        next = format!("/ui/inbox?after={}", &more[..36]);
    }
    assert_eq!(seen.len(), 204);
    let last = seen.last().expect("a gate");
    let page = console.get(&format!("/ui/runs/{run}?gate={last}")).await;
    assert!(page.body.as_str().is_some_and(|html| html.contains(&format!("id=\"gate-{last}\""))), "{}", page.bytes);
    assert!(page.bytes < 4 * MAX_BYTES);
}

#[tokio::test]
async fn a_large_lineage_is_truncated_and_marked() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let run = lab.submit(&plans::chain(1)).await;
    let sql =
        "insert into nofx.artifact (id, tenant_id, run_id, name, type, uri, hash, size_bytes, media_type, metadata)
               select gen_random_uuid(), $2, $1, 'a' || n, 't', 's3://b/' || n, repeat('a', 64), 1, 'x/y',
                      jsonb_build_object('text', repeat('m', 20000))
                 from generate_series(1, 1500) n";
    lab.admin.execute(sql, &[&run.0, &lab.tenant.0]).await.unwrap();
    let lineage = api.get(&format!("/runs/{run}/lineage")).await;
    assert_eq!((lineage.status, &lineage.body["truncated"]), (200, &json!(true)));
    assert_eq!(lineage.body["nodes"].as_array().map(Vec::len), Some(1_000));
    let first = api.get(&format!("/runs/{run}")).await;
    assert!(first.bytes < MAX_BYTES && first.body["artifacts_next"].is_string(), "{} bytes", first.bytes);
    let all = all_rows(&api, &format!("/runs/{run}/artifacts"), "?limit=1000", "artifacts").await;
    assert_eq!(all.len(), 1_500);
    assert!(all[0]["metadata_omitted"]["href"].as_str().is_some_and(|href| href.starts_with("/artifacts/")));
    assert_eq!(api.get(&format!("/runs/{}/artifacts", RunId(Uuid::nil()))).await.status, 404);
}

#[tokio::test]
async fn a_plan_at_the_limits_is_created_within_ten_seconds() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let plan: Vec<_> = (0..1_000_usize)
        .map(|index| {
            let parents: Vec<_> = (index.saturating_sub(10)..index).map(|at| format!("s{at}")).collect();
            let refs: Vec<_> = parents.iter().map(|name| format!("${{{{ steps.{name}.outputs.x }}}}")).collect();
            let parents: Vec<_> = parents.iter().map(String::as_str).collect();
            plans::after(&format!("s{index}"), &parents, json!({"refs": refs}))
        })
        .collect();
    let start = Instant::now();
    let made = api.post("/runs", &json!({"plan": {"goal": "g", "steps": plan}})).await;
    assert_eq!(made.status, 201, "{made:?}");
    println!("1,000 steps and 9,945 dependencies: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
