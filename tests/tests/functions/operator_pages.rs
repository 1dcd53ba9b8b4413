//! The console's pages for operators, on a real database: policy, write rules, usage, health.

use nofx_tests::lab::session;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::console::{health_fetch, usage_fetch};
use shared::db::step::{ClaimItem, steps_claim};
use shared::domain::{RunId, StepId, TenantId};
use shared::flow::sweep::sweep;
use uuid::Uuid;

use crate::gateway::{Answer, Gateway, Shape};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const COOKIE: (&str, &str) = ("cookie", "nofx-csrf=0123456789abcdef0123456789abcdef");

async fn set(console: &Gateway, version: u32, document: &str, reason: &str) -> Answer {
    let encoded = |text: &str| shared::http::encoded(text);
    let form =
        format!("document={}&version={version}&actor=cai&reason={}&csrf={TOKEN}", encoded(document), encoded(reason));
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin"), COOKIE];
    console.send("POST", "/ui/policy", &headers, Some(form)).await
}

fn html(answer: &Answer) -> &str {
    answer.body.as_str().expect("a page")
}

#[tokio::test]
async fn a_policy_is_set_with_a_reason_if_nobody_set_another_meanwhile() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    assert!(html(&console.get("/ui/policy").await).contains("No policy is set"));
    let first = set(&console, 0, "gates:\r\n  require_base: true\r\n", "a start").await;
    assert_eq!((first.status, first.header("location")), (303, Some("policy")), "{first:?}");
    let second = set(&console, 1, r#"{"gates": {"minimum_threshold": 0.8}}"#, "80 % at least").await;
    assert_eq!(second.status, 303);

    let page = console.get("/ui/policy").await;
    for words in
        ["version <b>2</b>", "80 % at least", "Version 1", "a start", "removed: </span></span><code>require_base"]
    {
        assert!(html(&page).contains(words), "{words}: {}", html(&page));
    }
    let older = console.get("/ui/policy?after=2").await;
    assert!(html(&older).contains("Version 1") && !html(&older).contains("Version 2"), "{}", html(&older));

    let stale = set(&console, 1, r#"{"gates": {"network": "when_asked"}}"#, "too late").await;
    assert_eq!(stale.status, 409);
    assert!(html(&stale).contains("Somebody set version 2 meanwhile") && html(&stale).contains("when_asked"));
    for (document, reason, words) in [
        ("{\"gates\": {\"network\": \"always\"}}", "x", "must be never or when_asked"),
        ("{\"gates\": ", "x", "line 1: EOF"),
        ("gates: {}", " ", "reason: is missing"),
        ("", "x", "document: is missing"),
    ] {
        let refused = set(&console, 2, document, reason).await;
        assert_eq!(refused.status, 400, "{document}");
        assert!(html(&refused).contains(words), "{words}: {}", html(&refused));
    }
    let versions: i64 = lab.admin.query_one("select count(*) from nofx.policy", &[]).await.unwrap().get(0);
    assert_eq!(versions, 2);

    let mut other = Lab::on(lab.database, lab.ctx.config.clone()).await;
    other.ctx.config.tenant = TenantId("other".into());
    let console = Gateway::console(&other, Shape::Http);
    assert!(html(&console.get("/ui/policy").await).contains("No policy is set"));
}

#[tokio::test]
async fn rules_are_listed_and_one_is_shown_with_its_table() {
    let lab = Lab::new().await;
    lab.admin
        .batch_execute(
            "create table public.notes (id int primary key);
             create table public.lines (id int, note int references public.notes on delete cascade);
             create function public.note() returns trigger language plpgsql as $$ begin return new; end $$;
             create trigger note before insert on public.notes for each row execute function public.note()",
        )
        .await
        .unwrap();
    let (api, console) = (Gateway::api(&lab, Shape::Http), Gateway::console(&lab, Shape::Http));
    assert!(html(&console.get("/ui/rules").await).contains("Plans may write no table"));
    for (ops, actor) in [(json!(["insert"]), "ann"), (json!(["insert", "delete"]), "bob")] {
        let body = json!({"allowed_ops": ops, "columns": ["id"], "key": ["id"], "max_rows": 7, "actor": actor});
        api.send("PUT", "/rules/public.notes", &[], Some(body.to_string())).await;
    }
    let list = console.get("/ui/rules").await;
    for words in ["href=\"rules/public.notes\"", "insert, delete", "<bdi>bob</bdi>"] {
        assert!(html(&list).contains(words), "{words}: {}", html(&list));
    }
    let rule = console.get("/ui/rules/public.notes").await;
    for words in [
        "Plans may insert and delete up to 7 rows a write, by ",
        "They may not update.",
        "public.notes.note",
        "not pinned",
        "public.lines",
        "follows: rows are deleted",
        "allowed_ops",
    ] {
        assert!(html(&rule).contains(words), "{words}: {}", html(&rule));
    }
    assert_eq!(console.get("/ui/rules/public.none").await.status, 404);
    lab.admin.execute("update nofx.db_write_rule set tenant_id = 'other'", &[]).await.unwrap();
    assert_eq!(console.get("/ui/rules/public.notes").await.status, 404);
    assert!(html(&console.get("/ui/rules").await).contains("Plans may write no table"));
}

async fn used(lab: &Lab, run: RunId, tenant: &str, count: i32, days_ago: i32, payload: serde_json::Value) {
    let sql = "insert into nofx.event (run_id, seq, tenant_id, type, payload, timestamp)
               select $1, (select max(seq) from nofx.event where run_id = $1) + n, $2, 'codegen.usage', $5,
                      now() - make_interval(days => $4)
                 from generate_series(1, $3) n";
    lab.admin.execute(sql, &[&run.0, &tenant, &count, &days_ago, &payload]).await.unwrap();
}

#[tokio::test]
async fn usage_is_summed_by_model_day_and_run_of_the_tenant() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let model = |name: &str, input: serde_json::Value| {
        json!({"provider": "p", "model": name, "usable": true,
        "input_tokens": input, "output_tokens": 5, "cached_input_tokens": 2})
    };
    used(&lab, run, "acme", 3, 0, model("large", json!(1_000))).await;
    used(&lab, run, "acme", 2, 1, model("small", json!(null))).await;
    used(&lab, run, "acme", 1, 40, model("old", json!(9))).await;
    used(&lab, run, "other", 1, 0, model("foreign", json!(9))).await;
    let template = json!({"provider": "template", "model": "template", "usable": true,
                          "input_tokens": null, "output_tokens": null});
    used(&lab, run, "acme", 4, 0, template).await;
    let usage = usage_fetch(&session(&lab.ctx.db, &lab.tenant)).await.expect("usage");
    assert_eq!(usage.total.templates, 4, "no model was called for them");
    assert_eq!((usage.total.calls, usage.total.input_tokens, usage.total.output_tokens), (5, 3_000, 25));
    assert_eq!((usage.total.cached_tokens, usage.total.uncounted, usage.truncated), (10, 2, false));
    let models: Vec<_> = usage.models.iter().map(|one| (one.model.as_str(), one.tokens.calls)).collect();
    assert_eq!(models, [("large", 3), ("small", 2)]);
    assert_eq!(usage.days.iter().map(|day| day.tokens.calls).collect::<Vec<_>>(), [3, 2], "newest first");
    assert_eq!((usage.runs.len(), usage.runs[0].run_id), (1, run));
    let page = Gateway::console(&lab, Shape::Http).get("/ui/usage").await;
    assert!(html(&page).contains("5 calls") && !html(&page).contains("foreign"), "{}", html(&page));
}

#[tokio::test]
async fn usage_and_health_read_no_other_events_of_a_long_history() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    used(&lab, run, "acme", 50, 0, json!({"provider": "p", "model": "m", "input_tokens": 1, "output_tokens": 1})).await;
    let sql = "insert into nofx.event (run_id, seq, tenant_id, type, timestamp)
               select $1, 1000 + n, 'acme', 'step.started', now() from generate_series(1, 50000) n";
    lab.admin.execute(sql, &[&run.0]).await.unwrap();
    lab.admin.batch_execute("analyze nofx.event").await.unwrap();
    let scans = "select seq_scan from pg_stat_user_tables where relid = 'nofx.event'::regclass";
    lab.admin.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    let before: i64 = lab.admin.query_one(scans, &[]).await.unwrap().get(0);

    let ctx = lab.another_ctx().await;
    assert_eq!(usage_fetch(&session(&ctx.db, &lab.tenant)).await.expect("usage").total.calls, 50);
    health_fetch(&session(&ctx.db, &lab.tenant)).await.expect("health");
    // A connection reports what it did when it ends.
    drop(ctx);
    lab.until(
        "the statistics of the reads",
        "select coalesce(sum(idx_scan), 0) >= 3 from pg_stat_user_indexes where indexrelname = 'event_watched'",
    )
    .await;
    let after: i64 = lab.admin.query_one(scans, &[]).await.unwrap().get(0);
    assert_eq!(after, before, "no read of the whole table");
}

#[tokio::test]
async fn health_counts_what_is_ready_running_lost_and_overdue() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(3)).await;
    let health = async || health_fetch(&session(&lab.ctx.db, &lab.tenant)).await.expect("health");
    let first = health().await;
    let [echo] = first.handlers.as_slice() else { panic!("{first:?}") };
    assert_eq!((echo.handler.as_str(), echo.running, echo.overdue), ("echo", 0, 0));
    assert!(echo.ready >= 1 && echo.waits_ms.is_some_and(|ms| ms >= 0), "{echo:?}");
    assert!(first.sweep.is_none());

    // A step whose worker is lost.
    let sql = "select id from nofx.step where run_id = $1 and status = 'ready' limit 1";
    let step: Uuid = lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0);
    let item = ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id: StepId(step),
        lease_s: 60,
        refs_bytes: 1 << 20,
        terms: false,
    };
    assert_eq!(steps_claim(&lab.ctx.db, &[item]).await.expect("a claim").claimed.len(), 1);
    let of_echo = async || health().await.handlers.first().map(|echo| (echo.running, echo.overdue));
    assert_eq!(of_echo().await, Some((1, 0)));
    lab.admin
        .execute("update nofx.attempt set lease_until = now() - interval '4 minutes' where step_id = $1", &[&step])
        .await
        .unwrap();
    assert_eq!(of_echo().await, Some((1, 1)));
    lab.lease_over(StepId(step)).await;
    assert_eq!(sweep(&lab.ctx).await.expect("a sweep").leases_ended, 1);
    let lost = health().await;
    assert_eq!((lost.lost_total, lost.lost.first().map(|lost| lost.run_id)), (1, Some(run)));

    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(sweep(&lab.ctx).await.expect("a sweep").leases_ended, 0);
    let swept = health().await;
    let sweep = swept.sweep.expect("a recorded sweep");
    assert!(!sweep.failed && sweep.ago_ms < 60_000 && sweep.report["leases_ended"] == 0, "{sweep:?}");
    assert!(swept.handlers.is_empty(), "{:?}", swept.handlers);

    let sql = "insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
               values ($1, 9001, 'acme', $2, 'step.worker_lost', '{}', now()),
                      ($1, 9002, 'acme', $2, 'step.worker_lost', '{}', now() - interval '2 hours'),
                      ($1, 9003, 'acme', $2, 'step.failed', '{\"error\": {\"code\": \"undeliverable\"}}', now()),
                      ($1, 9004, 'other', $2, 'step.failed', '{\"error\": {\"code\": \"foreign\"}}', now())";
    lab.admin.execute(sql, &[&run.0, &step]).await.unwrap();
    let sick = health().await;
    assert_eq!((sick.lost_total, sick.lost.len(), sick.undeliverable), (2, 2, 1), "of the last hour and day");
    assert_eq!(sick.failures.iter().map(|one| one.code.as_str()).collect::<Vec<_>>(), ["undeliverable"]);
}
