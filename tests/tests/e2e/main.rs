//! The whole stack as a user starts it with `nofx dev`: real gates on the sample workspace, the console in a browser, the
//! examples of the documents, a killed function, a clean stop, and a restart that keeps all state.

mod auth;
mod console;
mod documents;
mod front;
mod long_polls;
mod stack;

use std::collections::BTreeMap;

use nofx_tests::catalogue::{Catalogue, shape};
use serde_json::{Value, json};

use stack::{Stack, cargo_run, free_port};

const RUNS: usize = 20;

#[tokio::test]
async fn the_whole_stack_runs_the_demo_and_survives_a_kill_and_a_restart() {
    let state = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let mut stack = Stack::start(state.path(), port).await;

    let demo = cargo_run(state.path(), &["demo", "--port", &port.to_string()]).output().expect("run the demo");
    let shown = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success(), "{shown}\n{}", String::from_utf8_lossy(&demo.stderr));
    assert!(shown.contains("all 7 plans ended as expected"), "{shown}");
    assert!(shown.contains("tests generates again, because unit failed; time 2 of at most 3"), "{shown}");

    smoke_requests(&stack).await;
    front::check(&stack).await;
    kill_in_the_middle(&stack).await;
    let before = statuses(&stack).await;
    assert!(before.len() > RUNS);

    let processes = stack.processes();
    assert!(processes.len() > 10, "each function is a process: {processes:?}");
    stack.stop();
    let survivors: Vec<_> = processes.into_iter().filter(stack::Process::is_alive).collect();
    assert_eq!(survivors, [], "a stopped stack leaves no process");

    let mut again = Stack::start(state.path(), port).await;
    assert_eq!(statuses(&again).await, before, "state survives a restart");
    again.stop();
}

/// Every event of a run matches docs/events.md.
async fn events_are_documented(stack: &Stack, run: &str) {
    let catalogue = Catalogue::read();
    let events = stack.get(&format!("/runs/{run}/timeline?limit=1000")).await;
    for event in events.as_array().expect("events") {
        let problems = catalogue.problems(event["type"].as_str().expect("a type"), &shape(&event["payload"]));
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// The smoke requests of the first version, which users may have in their notes.
async fn smoke_requests(stack: &Stack) {
    let gated = json!({"plan":{"goal":"gated codegen","steps":[{"name":"typecheck","tool":"gate:typecheck"},
        {"name":"lint","tool":"gate:lint"},{"name":"unit","tool":"gate:unit"},{"name":"generate readme",
        "tool":"codegen","inputs":{"topic":"Welcome","bullets":["Control plane","Verification","Workers"]}}]}});
    let run = stack.submit(&gated).await;
    let ended = stack.follow(&run).await;
    assert_eq!(ended["run"]["status"], "succeeded", "{ended}");
    let artifacts = ended["artifacts"].as_array().expect("artifacts");
    let count = |kind: &str| artifacts.iter().filter(|artifact| artifact["type"] == kind).count();
    assert_eq!((count("gate_evidence"), count("gate_attestation")), (3, 3), "each gate leaves both: {ended}");
    assert_eq!(artifacts.len() - count("gate_attachment"), 8, "and there is a text with its SBOM: {ended}");
    events_are_documented(stack, &run).await;
    assert!(stack.text(&format!("/ui/runs/{run}")).await.contains("gated codegen"));

    let manual =
        json!({"plan":{"goal":"manual deploy","steps":[{"name":"wait deploy approval","tool":"manual:deploy"}]}});
    let run = stack.submit(&manual).await;
    stack.wait_for(&run, "blocked").await;
    let gate = stack.get(&format!("/runs/{run}/gates")).await[0]["id"].as_str().expect("a gate").to_owned();
    assert_eq!(stack.post(&format!("/gates/{gate}/approve"), &json!({})).await.0, 200);
    assert_eq!(stack.post(&format!("/gates/{gate}/reject"), &json!({"reason": "too late"})).await.0, 409);
    assert_eq!(stack.follow(&run).await["run"]["status"], "succeeded");
    events_are_documented(stack, &run).await;

    let write = json!({"plan":{"goal":"db write test","steps":[{"name":"insert products","tool":"db_write",
        "inputs":{"table":"public.products","op":"insert","values":[{"name":"Widget","price":10}]}}]}});
    let run = stack.submit(&write).await;
    assert_eq!(stack.follow(&run).await["run"]["status"], "succeeded");
    events_are_documented(stack, &run).await;
}

async fn kill_in_the_middle(stack: &Stack) {
    let chain: Vec<Value> = (0..4).map(|n| json!({"name": format!("s{n}"), "tool": "echo"})).collect();
    let mut runs = Vec::new();
    for n in 0..RUNS {
        runs.push(stack.submit(&json!({"plan": {"goal": format!("kill {n}"), "steps": chain}})).await);
    }
    stack.kill_function("echo");
    for run in &runs {
        let ended = stack.follow(run).await;
        assert_eq!(ended["run"]["status"], "succeeded", "{ended}");
        let mut completed: BTreeMap<&str, usize> = BTreeMap::new();
        let events = stack.get(&format!("/runs/{run}/timeline?limit=1000")).await;
        for event in events.as_array().expect("events").iter().filter(|event| event["type"] == "step.succeeded") {
            *completed.entry(event["step"].as_str().expect("a step")).or_default() += 1;
        }
        assert_eq!(completed.values().copied().collect::<Vec<_>>(), [1, 1, 1, 1], "each step completed once");
    }
}

async fn statuses(stack: &Stack) -> BTreeMap<String, String> {
    let runs = stack.get("/runs?limit=1000").await;
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    runs["runs"].as_array().expect("runs").iter().map(|run| (text(&run["id"]), text(&run["status"]))).collect()
}
