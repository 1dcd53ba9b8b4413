//! `POST /plans/check` gives the answer of `POST /runs` but stores nothing.

use std::fs;
use std::path::Path;

use nofx::commands::plan;
use nofx::output::Format;
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::gateway::{Gateway, SHAPES};
use crate::submit::serve;

fn examples() -> impl Iterator<Item = Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    fs::read_dir(folder).expect("the examples").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        (path.extension()? == "json").then(|| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    })
}

/// Bodies that `POST /runs` rejects, one for each kind of problem.
fn invalid_bodies() -> Vec<Value> {
    let step = |name: &str| json!({"name": name, "tool": "echo", "depends_on": []});
    let plan = |steps: Value| json!({"plan": {"goal": "g", "steps": steps}});
    let with_workspace =
        |workspace: Value| json!({"plan": {"goal": "g", "steps": [step("a")], "workspace": workspace}});
    let mut cycle = [step("a"), step("b")];
    (cycle[0]["depends_on"], cycle[1]["depends_on"]) = (json!(["b"]), json!(["a"]));
    vec![
        json!({}),
        json!({"plan": 1}),
        json!({"plan": {"goal": "g", "steps": [step("a")]}, "dry": true}),
        json!({"plan": {"goal": " ", "steps": []}}),
        plan(json!([step("a"), step("a"), {"name": "c", "tool": "bash", "inputs": {"x": "${{ steps.z.outputs }}"}}])),
        plan(json!(cycle)),
        plan(json!([{"name": "a", "tool": "echo", "inputs": {"x": "y".repeat(300 << 10)}}])),
        with_workspace(json!({"archive": "x"})),
        with_workspace(json!({"archive": Uuid::new_v4()})),
        with_workspace(json!({"archive": Uuid::new_v4(), "base": Uuid::new_v4()})),
        with_workspace(json!({"archive": Uuid::new_v4(), "diff": Uuid::new_v4(), "base": null})),
    ]
}

#[tokio::test]
async fn an_invalid_plan_gets_the_answer_of_post_runs_and_a_valid_one_creates_no_run() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        for body in invalid_bodies() {
            let (created, checked) = (api.post("/runs", &body).await, api.post("/plans/check", &body).await);
            assert_eq!(created.status, 400, "{body}");
            assert!(created.body["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{created:?}");
            assert_eq!((checked.status, checked.body), (created.status, created.body), "{body}");
        }
        for text in ["{", "[]", "", r#"{"plan": {}, "plan": {}}"#, r#"{"plan": 12345678901234567890123}"#] {
            let (created, checked) = (
                api.send("POST", "/runs", &[], Some(text.into())).await,
                api.send("POST", "/plans/check", &[], Some(text.into())).await,
            );
            assert_eq!((checked.status, checked.body), (created.status, created.body), "{text}");
        }
        for body in examples().chain([json!({"plan": plans::chain(3)})]) {
            assert_eq!(api.post("/plans/check", &body).await.status, 200, "{body}");
        }
        let rows: i64 = lab.admin.query_one("select count(*) from nofx.run", &[]).await.unwrap().get(0);
        assert_eq!(rows, 0, "nothing is stored");
        for body in examples() {
            assert_eq!(api.post("/runs", &body).await.status, 201, "{body}");
        }
    }
}

#[tokio::test]
async fn a_valid_plan_is_returned_with_its_defaults_order_and_references() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, SHAPES[0]);
    let upload = json!({"sha256": "a".repeat(64), "size_bytes": 1, "media_type": "application/gzip"});
    let archive = api.post("/workspaces", &upload).await.body["id"].take();
    let body = json!({"plan": {
        "goal": "g", "timeout_s": 60, "workspace": {"archive": archive},
        "steps": [
            {"name": "ask", "tool": "manual:x", "depends_on": ["lint", "say"],
             "inputs": {"reason": "${{ steps.say.outputs.a[0].b }} ${{ steps.lint.outputs }}"}},
            {"name": "lint", "tool": "gate:lint", "depends_on": ["say"], "timeout_s": 7,
             "retry": {"max_attempts": 1, "backoff_ms": 0}},
            {"name": "say", "tool": "echo"},
        ],
    }});
    let step = |name: &str, tool: &str, handler: &str, level: u32| {
        json!({"name": name, "tool": tool, "handler": handler, "level": level, "depends_on": [], "references": [],
               "timeout_s": null, "max_attempts": 3, "backoff_ms": 1000, "approval": null})
    };
    let mut steps =
        [step("ask", "manual:x", "manual", 2), step("lint", "gate:lint", "gate", 1), step("say", "echo", "echo", 0)];
    steps[0]["depends_on"] = json!(["lint", "say"]);
    steps[0]["references"] = json!([{"step": "lint", "path": []}, {"step": "say", "path": ["a", "0", "b"]}]);
    steps[1]["depends_on"] = json!(["say"]);
    (steps[1]["timeout_s"], steps[1]["max_attempts"], steps[1]["backoff_ms"]) = (json!(7), json!(1), json!(0));
    steps[2]["timeout_s"] = json!(20);
    let answer = api.post("/plans/check", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, json!({"goal": "g", "timeout_s": 60, "budget_usd_micros": null, "steps": steps}));

    let sql = "update nofx.artifact set tenant_id = 'other'";
    assert_eq!(lab.admin.execute(sql, &[]).await.unwrap(), 1);
    let (created, checked) = (api.post("/runs", &body).await, api.post("/plans/check", &body).await);
    assert_eq!((created.status, checked.status), (400, 400), "another tenant's artifact is not found");
    assert_eq!(created.body, checked.body);
}

#[tokio::test]
async fn the_command_prints_the_problems_of_the_api() {
    let lab = Lab::new().await;
    let api = serve(&lab).await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/release.yaml");
    plan::check(&api, &example, Format::default()).await.expect("the example is valid");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.yaml");
    fs::write(
        &file,
        "$schema: plan.schema.json\nplan: {goal: g, steps: [{name: a, tool: bash},\n  {name: a, tool: echo}]}",
    )
    .unwrap();
    let problems = plan::check(&api, &file, Format::default()).await.expect_err("the plan is invalid").to_string();
    assert!(problems.starts_with(&format!("{} is not valid\n", file.display())), "{problems}");
    for path in ["plan.yaml:2: plan.steps[0].tool: unknown tool", "plan.yaml:3: plan.steps[1].name: "] {
        assert!(problems.contains(path), "{problems}");
    }
    assert!(!problems.contains("$schema"), "{problems}");
}
