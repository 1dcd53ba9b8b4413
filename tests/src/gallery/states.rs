//! Runs in every state that a page can show. Each function makes one by the transitions of the engine.

use reqwest::Method;
use serde_json::{Value, json};
use shared::db::redrive::{Redrive, redrive_record};
use shared::domain::RunId;
use uuid::Uuid;

use super::clock::When;
use super::commands::{Ended, MISSED_LINE, TESTS_FAIL, TESTS_PASS, TYPE_ERRORS};
use super::shop::{self, once, step};
use super::site::Site;
use super::work::Act;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const UNAVAILABLE: Act =
    Act::Fail { code: "provider_unavailable", message: "OpenAI answered 529: overloaded", retryable: true };

/// A run that goes on as far as it can, and ended or stopped then.
async fn run(site: &Site, goal: &str, steps: &[Value], when: When) -> RunId {
    let run = site.create(goal, steps).await;
    site.settle().await;
    site.was(run, when).await;
    run
}

pub async fn queued(site: &Site) -> RunId {
    let run = site.create("rebuild the search index", &shop::fan(3)).await;
    site.lose_wakeups().await;
    run
}

/// One gate is running, in its second attempt after a lost worker.
pub async fn running(site: &Site) -> RunId {
    let run = site.create("delivery costs for the shop, with express", &shop::delivery()).await;
    site.act(run, "unit", Act::Hold);
    site.settle().await;
    lose_worker(site, run, "unit").await;
    site.was(run, When::seconds(28, 6)).await;
    run
}

pub async fn retrying(site: &Site) -> RunId {
    let mut notes = step("notes", "codegen", &[], json!({ "prompt": "Release notes." }));
    notes["retry"] = json!({ "max_attempts": 5, "backoff_ms": 900_000 });
    let run =
        site.create("notes for the release of Friday", &[notes, step("send", "echo", &["notes"], json!({}))]).await;
    site.act(run, "notes", UNAVAILABLE);
    site.let_wait(run, "notes").await;
    site.settle().await;
    site.was(run, When::seconds(9, 40)).await;
    run
}

pub async fn blocked(site: &Site) -> RunId {
    run(site, "delivery costs for the shop", &shop::delivery(), When::seconds(31, 3 * MINUTE)).await
}

pub async fn blocked_on_change(site: &Site) -> RunId {
    run(site, "faster tests for the cart", &shop::weaker_checks(), When::seconds(7, 7 * MINUTE)).await
}

pub async fn blocked_on_write(site: &Site) -> RunId {
    run(site, "prices of deliveries abroad", &shop::price_change(), When::seconds(2, 50 * MINUTE)).await
}

/// The write is one step behind the step that the decision starts.
pub async fn blocked_before_a_later_write(site: &Site) -> RunId {
    run(site, "the summer prices", &shop::later_write(), When::seconds(2, 20 * MINUTE)).await
}

/// A step and the run itself wait for gates that a client has made.
pub async fn blocked_on_requests(site: &Site) -> RunId {
    let run = site.create("move the orders to the new database", &shop::fan(2)).await;
    let copy = site.lab.step(run, "sum up").await;
    for (step, gate_type, reason) in [
        (json!(copy), "manual:legal", "Legal keeps the old copy for a year."),
        (Value::Null, "manual:release", "Everybody has seen the new numbers."),
    ] {
        let mut body = json!({ "run_id": run, "gate_type": gate_type, "reason": reason, "expires_after_s": 2 * DAY });
        if !step.is_null() {
            body["step_id"] = step;
        }
        site.send(Method::POST, "/gates", &body).await;
    }
    site.settle().await;
    site.was(run, When::seconds(4, 5 * HOUR)).await;
    run
}

pub async fn paused(site: &Site) -> RunId {
    let run = site.create("rename Line to CartLine", &shop::checks()).await;
    site.act(run, "lint", UNAVAILABLE);
    site.let_wait(run, "lint").await;
    site.settle().await;
    site.control(run, "pause", &json!({ "actor": "ben" })).await;
    site.was(run, When::seconds(12, 15 * MINUTE)).await;
    run
}

pub async fn succeeded(site: &Site) -> RunId {
    let run = site.create("delivery costs for the shop, second attempt", &shop::delivery()).await;
    site.settle().await;
    site.decide(site.gate(run).await, "approve", "ann", "The notes are fine. Rates as agreed on Monday.").await;
    site.settle().await;
    site.was(run, When::seconds(1_325, 3 * HOUR)).await;
    run
}

/// The type checker found errors.
pub async fn failed_on_findings(site: &Site) -> RunId {
    let found = Ended { exit: 2, printed: TYPE_ERRORS, reports: &[("stdout", TYPE_ERRORS)] };
    site.runner.answer("tsc", &found);
    let run =
        run(site, "delivery costs for the shop, from memory", &shop::checks(), When::seconds(11, 42 * MINUTE)).await;
    site.runner.all_pass();
    run
}

/// All tests passed, and a changed line did not run in them.
pub async fn failed_on_coverage(site: &Site) -> RunId {
    let printed = "      Tests  3 passed (3)\n All files | 75 % | src/shipping.ts: 8\n";
    let ended =
        Ended { printed, reports: &[("junit.xml", TESTS_PASS), ("lcov.info", MISSED_LINE)], ..Ended::default() };
    site.runner.answer("vitest", &ended);
    let goal = "delivery costs for the shop, first attempt";
    let run = run(site, goal, &shop::checks(), When::seconds(44, 27 * MINUTE)).await;
    site.runner.all_pass();
    run
}

/// Two tests failed.
pub async fn failed_on_tests(site: &Site) -> RunId {
    let printed =
        " FAIL  test/money.test.ts > formats a negative amount\n FAIL  test/money.test.ts > rounds half a cent\n";
    let ended = Ended { exit: 1, printed, reports: &[("junit.xml", TESTS_FAIL), ("lcov.info", MISSED_LINE)] };
    site.runner.answer("vitest", &ended);
    let run = run(site, "round amounts as the bank does", &shop::delivery(), When::seconds(38, 2 * HOUR)).await;
    site.runner.all_pass();
    run
}

/// The same step failed several times.
pub async fn failed_after_attempts(site: &Site) -> RunId {
    let call = once(step("call the carrier", "echo", &[], json!({})));
    let mut send = step("send the labels", "echo", &["call the carrier"], json!({ "labels": 12 }));
    send["retry"] = json!({ "max_attempts": 3, "backoff_ms": 0 });
    let run = site.create("print the labels of the day", &[call, send]).await;
    let message = "The carrier answered 502: bad gateway. It has answered nothing else since this morning.";
    site.act(run, "send the labels", Act::Fail { code: "carrier_unavailable", message, retryable: true });
    site.settle().await;
    site.was(run, When::seconds(190, 6 * HOUR)).await;
    run
}

/// No worker of a step came back.
pub async fn failed_on_lost_workers(site: &Site) -> RunId {
    let run = site.create("compress the pictures of 2025", &shop::fan(4)).await;
    site.act(run, "package 03", Act::Hold);
    site.settle().await;
    while site.lab.run_status(run).await == "running" {
        lose_worker(site, run, "package 03").await;
    }
    site.was(run, When::seconds(700, 9 * HOUR)).await;
    run
}

/// The worker of a running step is not heard of again.
async fn lose_worker(site: &Site, run: RunId, name: &str) {
    site.lab.lease_over(site.lab.step(run, name).await).await;
    site.sweep().await;
}

pub async fn timed_out(site: &Site) -> RunId {
    let mut plan = json!({ "goal": "wait for the answer of the bank", "steps": shop::price_change() });
    plan["timeout_s"] = json!(3_600);
    let run = site.create_with(plan).await;
    site.settle().await;
    site.lab.deadline_over(run).await;
    site.sweep().await;
    site.was(run, When::seconds(HOUR, 11 * HOUR)).await;
    run
}

pub async fn cancelled(site: &Site) -> RunId {
    let run = site.create("nightly copy of the price list", &shop::delivery()).await;
    site.act(run, "unit", Act::Hold);
    site.settle().await;
    site.control(run, "cancel", &json!({ "actor": "cron" })).await;
    site.was(run, When::seconds(94, 26 * HOUR)).await;
    run
}

/// It failed, was retried, and succeeded.
pub async fn retried(site: &Site) -> RunId {
    let found = Ended { exit: 2, printed: TYPE_ERRORS, reports: &[("stdout", TYPE_ERRORS)] };
    site.runner.answer("tsc", &found);
    let run = site.create("translate the mails", &shop::checks()).await;
    site.settle().await;
    site.runner.all_pass();
    site.control(run, "retry", &json!({ "actor": "ben" })).await;
    site.settle().await;
    site.was(run, When::seconds(400, 30 * HOUR)).await;
    run
}

/// A run whose gate was decided in this way.
pub async fn decided(site: &Site, verb: &str, days: u64) -> RunId {
    let (goal, actor, reason) = match verb {
        "reject" => {
            ("prices of deliveries to islands", "ann", "The price of Sicily is missing.\nAsk the carrier first.")
        }
        "waive" => ("prices of deliveries at night", "ben", "Nobody of the team is here before Monday."),
        _ => ("prices of deliveries on Sundays", "ann", "As agreed."),
    };
    let run = site.create(goal, &shop::price_change()).await;
    site.settle().await;
    site.decide(site.gate(run).await, verb, actor, reason).await;
    site.settle().await;
    site.was(run, When::seconds(20 * MINUTE, days * DAY)).await;
    run
}

/// Nobody decided in time.
pub async fn expired(site: &Site) -> RunId {
    let mut steps = shop::price_change();
    steps[1]["timeout_s"] = json!(600);
    let run = site.create("prices of deliveries by bicycle", &steps).await;
    site.settle().await;
    site.lab.gates_due(run).await;
    site.sweep().await;
    site.was(run, When::seconds(10 * MINUTE, 4 * DAY)).await;
    run
}

/// 60 steps, as many as a graph shows.
pub async fn sixty(site: &Site) -> RunId {
    let run = site.create("build all packages", &shop::fan(58)).await;
    for name in ["package 11", "package 30", "package 58"] {
        site.act(run, name, Act::Hold);
    }
    site.settle().await;
    site.was(run, When::seconds(73, 2)).await;
    run
}

/// Texts that break a page which trusts them.
pub async fn hostile(site: &Site) -> RunId {
    let long = "unbreakable".repeat(18);
    let markup = "<script>alert(1)</script><img src=x onerror=alert(1)> & \"quotes\" 'too'";
    // A plan cannot bring these characters into a goal or a reason, but an output can.
    let backwards = "\u{202e}txet sdrawkcab\u{202c}";
    let bidi = format!("${{{{ steps.{long}.outputs.bidi }}}}");
    let steps = [
        step(&long, "echo", &[], json!({ "html": "<b>bold</b>", "line": "x".repeat(4_000), "bidi": backwards })),
        step("<b>a step</b> & more", "echo", &[&long], json!({})),
        step("مرحبا بالعالم שלום עולם 你好 🚚", "echo", &["<b>a step</b> & more"], json!({})),
        step(
            &format!("ask{}", "0".repeat(190)),
            "manual:a.very_long-word.of_sixty-four.characters_that-has.no_space",
            &["<b>a step</b> & more"],
            json!({ "reason": format!("{markup} {bidi}\n{long}\n\njavascript:alert(1)") }),
        ),
    ];
    run(site, &format!("{markup} {long}"), &steps, When::seconds(3, 6 * DAY)).await
}

/// Enough runs for a second page.
pub async fn many(site: &Site, count: u64) {
    for index in 0..count {
        let run = site.create(&format!("price list of week {}", count - index), &shop::fan(2)).await;
        site.settle().await;
        site.was(run, When::seconds(6, (7 + index) * DAY)).await;
    }
}

/// A table with rows, and rules for it and others. A policy with a history.
pub async fn settings(site: &Site) {
    let tables = "create table public.rates (zone text primary key, cents int not null check (cents >= 0),
                                             free_from_cents int);
                  insert into public.rates values ('FR', 890, null), ('IT', 890, 10000), ('CH', 1290, null);
                  create table public.orders (id bigint primary key, status text not null, total numeric(12, 2));
                  grant select, insert, update, delete on public.rates, public.orders to nofx_writer";
    site.lab.admin.batch_execute(tables).await.expect("tables");
    let rates = json!({ "allowed_ops": ["insert", "update"], "columns": ["zone", "cents", "free_from_cents"],
                        "key": ["zone"], "max_rows": 10, "actor": "ann" });
    let orders = |max_rows: u32| {
        json!({ "allowed_ops": ["update"], "columns": ["status"], "key": ["id"],
                                         "max_rows": max_rows, "actor": "ben" })
    };
    for (table, rule) in [("rates", rates), ("orders", orders(50)), ("orders", orders(1))] {
        site.send(Method::PUT, &format!("/rules/public.{table}"), &rule).await;
    }
    for (gates, reason) in [
        (json!({ "minimum_threshold": 0.8 }), "Less is too little."),
        (
            json!({ "minimum_threshold": 0.8, "require_base": true, "minimum_sandbox": "landlock" }),
            "After the audit of May.",
        ),
    ] {
        let policy = json!({ "document": { "gates": gates }, "actor": "ann", "reason": reason });
        site.send(Method::PUT, "/policy", &policy).await;
    }
    let session = site.lab.session();
    for (id, handler, actor, moved, more) in
        [(Uuid::from_u128(1), "gate", "ben", 100, true), (REDRIVE, "gate", "ann", 12, false)]
    {
        let redrive = Redrive { id, handler, actor, moved, more };
        redrive_record(&session, &redrive).await.expect("a record");
    }
}

/// A redrive that was made just now.
pub const REDRIVE: Uuid = Uuid::from_u128(2);
