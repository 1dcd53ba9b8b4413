//! The examples of `docs/db_write.md`, executed as they stand there: SQL on a database, commands against the API, plans
//! through the handler.

use std::fs;
use std::path::Path;

use ::db_write::DbWrite;
use clap::Parser;
use nofx::client::api::Api;
use nofx::commands::rules;
use nofx_tests::Lab;
use nofx_tests::delivery::{body, event_of};
use serde_json::{Value, json};
use shared::domain::tool;
use shared::http::with_layers;
use shared::worker::{InTransaction, Worker};
use tokio::net::TcpListener;

/// `nofx rules ...` as it is typed.
#[derive(Parser)]
struct Typed {
    #[command(subcommand)]
    command: rules::Command,
}

/// The blocks of a page in this language.
fn blocks(language: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/db_write.md");
    let page = fs::read_to_string(page).expect("the page");
    let fence = format!("```{language}\n");
    let blocks: Vec<_> =
        page.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect();
    assert!(!blocks.is_empty(), "no example in {language}");
    blocks
}

/// The API over HTTP, for as long as the test runs.
pub async fn serve(lab: &Lab) -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = with_layers(api::router(lab.ctx.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Api::at(&url)
}

#[tokio::test]
async fn every_example_of_the_page_does_what_it_says() {
    let lab = Lab::new().await;
    let api = serve(&lab).await;
    let sql = blocks("sql");
    // The policy is of a table with a tenant's column.
    let (tables, policies): (Vec<_>, Vec<_>) = sql.into_iter().partition(|text| text.contains("create table"));
    for text in &tables {
        lab.admin.batch_execute(text).await.expect(text);
    }
    for text in &policies {
        let with_column = format!("begin; alter table public.orders add column tenant text; {text} rollback;");
        lab.admin.batch_execute(&with_column).await.expect(text);
    }

    let mut run = None;
    for command in blocks("sh") {
        let words = command.split_whitespace().collect::<Vec<_>>();
        assert_eq!(words[..2], ["nofx", "rules"], "{command}");
        rules::run(&api, &Typed::parse_from(&words[1..]).command).await.expect(&command);
        if run.is_some() {
            continue;
        }
        // The plan of the page goes with its first rule.
        let plan: Value = serde_json::from_str(&blocks("json")[0]).expect("the plan");
        let id = lab.submit(&plan["plan"]).await;
        let worker =
            Worker::new(lab.ctx.clone(), tool::handler("db_write").expect("a handler"), InTransaction(DbWrite));
        worker.handle_batch(event_of(lab.sent().await.iter().map(body)), None).await;
        assert_eq!(lab.run_status(id).await, "succeeded");
        assert_eq!(lab.snapshot(id).await["steps"]["pay"]["outputs"]["keys"], json!([{ "id": 1 }]));
        run = Some(id);
    }
    let rule: Value = api.get("/rules/public.orders").await.expect("the last rule");
    assert_eq!(rule["dependants"], json!({ "public.order_lines": 500 }));
    lab.assert_invariants().await;
}
