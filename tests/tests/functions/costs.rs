//! What model calls cost, over HTTP, in the console and on the command line.

use nofx_tests::Lab;
use nofx_tests::plans;
use serde_json::json;
use shared::db::gate::gate_list_of_run;
use shared::db::policy::{NewPolicy, policy_set};
use shared::domain::RunId;

use crate::codegen::{deliver, providers};
use crate::commands::serve;
use crate::gateway::{Answer, Gateway, Shape};

fn text(answer: &Answer) -> &str {
    answer.body.as_str().expect("a page")
}

/// A run with a budget of three dollars, and two calls of its step: one that cost 1.25 dollars, and one in flight.
async fn spent(lab: &Lab) -> RunId {
    let mut plan = plans::chain(1);
    plan["budget"] = json!({ "usd": 3 });
    let run = lab.submit(&plan).await;
    let step = lab.step(run, "s0").await;
    let sql = "with calls as (
                   insert into nofx.llm_call (id, tenant_id, run_id, step_id, attempt, provider, model_requested, model_served, deployment,
                                              because, state, reserved_usd_micros, charged_usd_micros, input_tokens, output_tokens, is_usable,
                                              started_at, due_at, ended_at)
                   values (gen_random_uuid(), 'acme', $1, $2, 1, 'openai', 'asked', 'served', 'd', '{}', 'settled', 2000000, 1250000, 1000, 10,
                           true, now(), now() + interval '1 h', now()),
                          (gen_random_uuid(), 'acme', $1, $2, 1, 'gemini', 'flash', null, 'd', '{}', 'open', 500000, null, null, null, null,
                           now(), now() + interval '1 h', null)
               ), spend as (
                   insert into nofx.llm_spend (tenant_id, period, starts_on, spent_usd_micros, reserved_usd_micros)
                   values ('acme', 'day', (now() at time zone 'UTC')::date, 1250000, 500000))
               update nofx.run set spent_usd_micros = 1250000, reserved_usd_micros = 500000 where id = $1";
    assert_eq!(lab.admin.execute(sql, &[&run.0, &step.0]).await.unwrap(), 1);
    run
}

#[tokio::test]
async fn a_run_shows_its_budget_and_what_its_steps_and_models_cost() {
    let lab = Lab::new().await;
    let run = spent(&lab).await;
    let api = Gateway::api(&lab, Shape::Http);
    let read = api.get(&format!("/runs/{run}")).await.body;
    let money = ["budget_usd_micros", "spent_usd_micros", "reserved_usd_micros"].map(|name| read["run"][name].clone());
    assert_eq!(money, [json!(3_000_000), json!(1_250_000), json!(500_000)]);
    assert_eq!(read["steps"][0]["cost_usd_micros"], 1_250_000);
    let costs = api.get(&format!("/runs/{run}/costs")).await;
    assert!(costs.header("etag").is_some());
    let models: Vec<_> =
        costs.body["models"].as_array().unwrap().iter().map(|one| (&one["model"], &one["cost_usd_micros"])).collect();
    assert_eq!(models, [(&json!("served"), &json!(1_250_000)), (&json!("flash"), &json!(0))]);
    assert_eq!((&costs.body["steps"][0]["calls"], &costs.body["steps"][0]["open"]), (&json!(2), &json!(1)));

    let page = Gateway::console(&lab, Shape::Http);
    let run_page = page.get(&format!("/ui/runs/{run}")).await;
    assert!(text(&run_page).contains("models cost <b>$1.25</b> of $3.00, $0.50 reserved"), "{}", text(&run_page));
    let costs_page = page.get("/ui/costs").await;
    assert!(text(&costs_page).contains("$1.25") && text(&costs_page).contains("served"), "{}", text(&costs_page));
    let nofx = serve(&lab).await;
    let told = nofx.output(&["costs", &run.to_string()]).await;
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.starts_with("spent $1.25, reserved $0.50, budget $3.00\n") && told.contains("openai/served"),
        "{told}"
    );
    let told = nofx.output(&["show", &run.to_string()]).await;
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("models cost $1.25 of $3.00, $0.50 reserved"), "{told}");
    let told = nofx.output(&["costs"]).await;
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.contains("$1.25 in 2 calls") && told.contains("this day: spent $1.25, reserved $0.50, no budget"),
        "{told}"
    );
}

#[tokio::test]
async fn costs_of_a_tenant_are_of_whole_days() {
    let lab = Lab::new().await;
    spent(&lab).await;
    let api = Gateway::api(&lab, Shape::Http);
    let all = api.get("/costs").await.body;
    let today = all["to"].as_str().unwrap().to_owned();
    assert_eq!(
        (&all["total"]["calls"], &all["total"]["cost_usd_micros"], &all["days"][0]["day"]),
        (&json!(2), &json!(1_250_000), &json!(today))
    );
    let one_day = api.get(&format!("/costs?from={today}&to={today}")).await.body;
    assert_eq!(one_day["total"], all["total"]);
    let past = api.get("/costs?from=2024-01-01&to=2024-12-31").await.body;
    assert_eq!((&past["total"]["calls"], &past["days"]), (&json!(0), &json!([])));
    for (query, paths) in [
        ("from=2024-01-01&to=2025-01-01", vec!["to"]),
        ("from=2026-02-30&to=x", vec!["from", "to"]),
        ("from=2026-02-02&to=2026-02-01", vec!["to"]),
        ("from=2026-02-02", vec!["to"]),
    ] {
        let refused = api.get(&format!("/costs?{query}")).await;
        let found: Vec<_> =
            refused.body["errors"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!((refused.status, found), (400, paths), "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn pages_and_commands_say_what_a_step_without_money_waits_for() {
    let lab = Lab::with_bucket().await;
    let url = providers().await;
    let session = lab.session();
    let document = json!({ "models": { "budgets": { "day_usd": "0.0001" } } });
    let policy = NewPolicy { document: &document, actor: "ann", reason: None, if_version: None };
    policy_set(&session, &policy).await.unwrap();
    let step = plans::step("write", "codegen", json!({ "prompt": "p", "provider": "anthropic" }));
    let run = lab.submit(&json!({ "goal": "g", "steps": [step] })).await;
    deliver(&lab, &url).await;
    let gates = gate_list_of_run(&session, run, None, 10).await.unwrap();
    let id = gates.items[0].id;
    let page = Gateway::console(&lab, Shape::Http).get(&format!("/ui/gates/{id}")).await;
    let page = page.body.as_str().expect("a page");
    for words in ["Waits for money", "Nobody approves this gate", "What goes on when there is money", "do-reject"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    for words in ["One approval is enough", "What an approval starts", "do-approve", "do-waive"] {
        assert!(!page.contains(words), "{words}: {page}");
    }
    let nofx = serve(&lab).await;
    let run = run.to_string();
    for command in [vec!["why", &run], vec!["show", &run], vec!["watch", &run, "--exit-when-blocked"]] {
        let told = nofx.output(&command).await;
        let told = String::from_utf8_lossy(&told.stdout);
        assert!(told.contains("models.budgets") && !told.contains("nofx approve"), "{command:?}: {told}");
    }
    let waived = nofx.output(&["waive", &id.to_string(), "--reason", "so"]).await;
    let told = String::from_utf8_lossy(&waived.stderr);
    assert!(told.contains("the budget of the tenant is exhausted"), "{told}");
}
