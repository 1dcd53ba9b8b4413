//! Filters of `GET /runs`: each alone, combined, with pages, and with many runs that do not match.

use nofx::commands::runs::{self, Args};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, SHAPES, Shape};
use crate::submit::serve;

fn plan(goal: &str, tools: &[&str]) -> Value {
    let step = |(index, tool): (usize, &&str)| plans::step(&format!("s{index}"), tool, json!({}));
    json!({"goal": goal, "steps": tools.iter().enumerate().map(step).collect::<Vec<_>>()})
}

/// The goals on a page, in its order.
fn goals(page: &Answer) -> Vec<String> {
    assert_eq!(page.status, 200, "{page:?}");
    let runs = page.body["runs"].as_array().expect("runs").iter();
    runs.map(|run| run["goal"].as_str().expect("a goal").to_owned()).collect()
}

/// Follows `Link` through all pages. Returns the goals and the number of pages.
async fn all_pages(api: &Gateway, query: &str) -> (Vec<String>, usize) {
    let (mut all, mut next) = (Vec::new(), format!("/runs{query}"));
    for pages in 1..100 {
        let page = api.get(&next).await;
        all.extend(goals(&page));
        let Some(link) = page.header("link") else {
            assert_eq!(page.body["next"], Value::Null);
            return (all, pages);
        };
        let target = link.trim_start_matches('<').split('>').next().expect("a target");
        let cursor = page.body["next"].as_str().expect("a cursor");
        assert!(target.starts_with(&format!("?after={cursor}&limit=")), "{target}");
        next = format!("/runs{target}");
    }
    panic!("{query}: too many pages");
}

#[tokio::test]
async fn a_list_has_the_runs_that_match_all_filters() {
    let lab = Lab::new().await;
    lab.submit(&plan("Deploy Größe", &["echo", "manual:release"])).await;
    lab.submit(&plan("deploy [a-c]+ 50%_", &["echo"])).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    lab.submit(&plan("third", &["manual:release"])).await;
    let sql = "update nofx.run set created_at = case goal when 'third' then timestamptz '2026-11-03 10:00:00+00'
               when 'Deploy Größe' then '2026-11-01 10:00:00+00' else '2026-11-02 10:00:00.000001+00' end";
    lab.admin.execute(sql, &[]).await.unwrap();
    let sql = "update nofx.run set created_by = case goal when 'third' then 'ann' else 'ben & co' end";
    lab.admin.execute(sql, &[]).await.unwrap();
    let (first, second, third) = ("Deploy Größe", "deploy [a-c]+ 50%_", "third");
    for shape in SHAPES {
        let api = Gateway::api(&lab, shape);
        for (query, expected) in [
            ("", &[third, second, first][..]),
            ("status=queued", &[third]),
            ("status=blocked,succeeded", &[second, first]),
            ("status=failed", &[]),
            ("tool=manual:release", &[third, first]),
            ("tool=manual:release&status=blocked", &[first]),
            ("tool=manual", &[]),
            ("tool=manual:", &[third, first]),
            ("tool=gate:", &[]),
            ("tool=:", &[]),
            ("goal=DEPLOY", &[second, first]),
            ("goal=GR%C3%96%C3%9FE", &[first]),
            ("goal=[a-c]%2B+50%25_", &[second]),
            ("goal=.", &[]),
            ("goal=^t", &[]),
            ("created_by=ann", &[third]),
            ("created_by=ben+%26+co", &[second, first]),
            ("created_by=ben+%26+co&tool=manual:release", &[first]),
            ("created_by=Ann", &[]),
            ("created_from=2026-11-02T10:00:00.000001Z", &[third, second]),
            ("created_from=2026-11-02T10:00:00.000002Z", &[third]),
            ("created_to=2026-11-02T12:00:00.000001%2B02:00", &[first]),
            (
                "created_from=2026-11-01T00:00:00Z&created_to=2026-11-03T00:00:00Z&tool=echo&goal=deploy",
                &[second, first],
            ),
        ] {
            assert_eq!(goals(&api.get(&format!("/runs?{query}")).await), expected, "{query}");
            let (all, pages) = all_pages(&api, &format!("?limit=1&{query}")).await;
            assert_eq!((all, pages), (expected.iter().map(ToString::to_string).collect(), expected.len().max(1)));
        }
    }
}

#[tokio::test]
async fn the_error_lists_every_invalid_filter() {
    let lab = Lab::new().await;
    let long = "x".repeat(201);
    for shape in SHAPES {
        let api = Gateway::api(&lab, shape);
        let query = format!("status=done,,failed&limit=0&after=x&tool=&goal={long}&created_from=today");
        let refused = api.get(&format!("/runs?{query}")).await;
        assert_eq!(refused.status, 400);
        let errors = refused.body["errors"].as_array().expect("errors");
        let texts: Vec<_> = errors
            .iter()
            .map(|error| format!("{} {}", error["path"].as_str().unwrap(), error["message"].as_str().unwrap()))
            .collect();
        let states = "queued, running, blocked, paused, succeeded, failed, cancelled";
        assert_eq!(
            texts,
            [
                "after is not a cursor of this list".to_owned(),
                "limit must be a whole number from 1 to 1000".to_owned(),
                format!("status \"done\" is not a status of a run; use {states}"),
                format!("status has an empty item; use {states}, separated by commas"),
                "tool must have from 1 to 200 characters".to_owned(),
                "goal must have from 1 to 200 characters".to_owned(),
                "created_from must be an RFC 3339 timestamp, such as 2026-11-23T10:00:00Z".to_owned(),
            ]
        );
        let time = "2026-11-23T10:00:00Z";
        let refused = api.get(&format!("/runs?created_from={time}&created_to={time}")).await;
        assert_eq!(refused.body["detail"], "created_to: must be after created_from");
        let unknown = "0198c0de-0000-7000-8000-000000000001";
        for filter in ["status=failed", "tool=echo", "created_from=2026-11-23T10:00:00Z"] {
            assert_eq!(api.get(&format!("/runs?after={unknown}&{filter}")).await.status, 400, "{filter}");
        }
    }
}

/// Inserts runs that were created 1 s apart, oldest first.
async fn insert_runs(lab: &Lab, tenant: &str, count: i32) {
    let sql = "insert into nofx.run (id, tenant_id, goal, plan, plan_digest, request_digest, created_at)
               select gen_random_uuid(), $1, 'run ' || n, '{}', repeat('0', 64), repeat('0', 64),
                      timestamptz '2026-11-01 00:00:00+00' + n * interval '1 second'
                 from generate_series(1, $2) n";
    lab.admin.execute(sql, &[&tenant, &count]).await.unwrap();
}

#[tokio::test]
async fn a_filtered_page_reads_a_bounded_number_of_runs() {
    let lab = Lab::new().await;
    insert_runs(&lab, &lab.tenant.0, 20_500).await;
    insert_runs(&lab, "other", 100).await;
    let sql = "insert into nofx.step (id, tenant_id, run_id, ordinal, name, tool, handler, inputs, status, blockers,
                                      max_attempts, backoff_ms)
               select gen_random_uuid(), r.tenant_id, r.id, 0, 's', 'gate:lint', 'gate', '{}', 'pending', 1, 1, 1
                 from nofx.run r where r.goal in ('run 20500', 'run 19500', 'run 20')";
    lab.admin.execute(sql, &[]).await.unwrap();
    let api = Gateway::api(&lab, Shape::Http);

    let (none, pages) = all_pages(&api, "?status=failed").await;
    assert_eq!((none.len(), pages), (0, 3), "10,000 runs per page");
    // The last run but one of a page, the last one, and the first one of the next page.
    let sql =
        "update nofx.run set goal = 'match ' || goal where goal in ('run 10502', 'run 10501', 'run 10500', 'run 1')";
    lab.admin.execute(sql, &[]).await.unwrap();
    let expected = ["match run 10502", "match run 10501", "match run 10500", "match run 1"];
    for (limit, max_pages) in [(1, 6), (2, 5), (100, 3)] {
        let (found, pages) = all_pages(&api, &format!("?limit={limit}&goal=MATCH&status=queued")).await;
        assert_eq!(found, expected, "{limit}");
        assert!(pages <= max_pages, "{limit}: {pages} pages");
    }
    let (found, pages) = all_pages(&api, "?tool=gate:lint").await;
    let of_tool = ["run 20500", "run 19500", "run 20"];
    assert_eq!(found, of_tool, "no run of another tenant");
    assert_eq!(pages, 42, "500 runs per page, and an empty last page");
    let (found, pages) = all_pages(&api, "?tool=gate:lint&created_to=2026-11-01T00:05:00Z").await;
    assert_eq!((found, pages), (vec!["run 20".to_owned()], 1));

    let client = serve(&lab).await;
    let args = Args { tool: Some("gate:lint".into()), goal: Some("Run".into()), ..Args::default() };
    let listed = runs::list(&client, &args).await.unwrap();
    assert_eq!(listed.iter().map(|run| run.goal.as_str()).collect::<Vec<_>>(), of_tool);
    let args = Args { since: Some("2026-11-01T05:41:30Z".into()), ..Args::default() };
    assert_eq!(runs::list(&client, &args).await.unwrap().len(), 11);
    assert_eq!(runs::list(&client, &Args::default()).await.unwrap().len(), 30);
    assert_eq!(runs::list(&client, &Args { limit: 100, ..Args::default() }).await.unwrap().len(), 100);
    let args = Args { status: Some("done".into()), ..Args::default() };
    let refused = runs::list(&client, &args).await.unwrap_err().to_string();
    assert!(refused.contains("\"done\" is not a status of a run"), "{refused}");
}
