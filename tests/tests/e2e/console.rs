//! What a person does in the console, in a real browser on a running stack. The steps are in `tests/browser/story.mjs`.

use std::fs;
use std::path::Path;

use nofx::client::workspace;
use nofx_tests::browser;
use serde_json::Value;

use super::stack::{Stack, cargo_run, free_port};

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[tokio::test]
async fn a_person_mends_a_change_approves_it_and_gets_what_the_gates_signed() {
    let state = tempfile::tempdir().expect("a folder");
    let mut stack = Stack::start(state.path(), free_port()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("workspace.tar.gz");
    let packed = workspace::pack(&Path::new(CHECKOUT).join("examples/workspace"), None).expect("an archive");
    fs::write(&archive, packed).expect("write it");
    let url = stack.at("");
    let variables = [
        ("NOFX_TEST_URL", url.as_str()),
        ("NOFX_TEST_FOLDER", folder.path().to_str().expect("a path")),
        ("NOFX_TEST_WORKSPACE", archive.to_str().expect("a path")),
    ];
    browser::run(&["story.mjs"], &variables).await;

    // The command line agrees with what the pages said about the signatures.
    let runs = stack.get("/runs").await;
    let verdict = async |goal: &str| {
        let run = runs["runs"].as_array().expect("runs").iter().find(|run| run["goal"] == goal).expect(goal);
        let gates = stack.get(&format!("/runs/{}/gates", run["id"].as_str().expect("an id"))).await;
        let gate = gates.as_array().expect("gates").iter().find(|gate| gate["gate_type"] == "gate:unit");
        verify(&stack, state.path(), gate.expect("a gate")["id"].as_str().expect("an id"))
    };
    let failed = verdict("delivery costs for the shop, first attempt").await;
    let passed = verdict("delivery costs for the shop, mended").await;
    assert_eq!([&failed["result"], &passed["result"]], ["FAILED", "PASSED"], "{failed} {passed}");
    assert_eq!([&failed["matches"][0], &passed["matches"][0]], ["evidence"; 2], "{failed} {passed}");
    stack.stop();
}

/// What `nofx verify` says about the attestation of a gate.
fn verify(stack: &Stack, state: &Path, gate: &str) -> Value {
    let mut command = cargo_run(state, &["verify", gate, "--json"]);
    let verified = command.env("NOFX_API_URL", stack.at("")).output().expect("run nofx verify");
    let (printed, why) = (String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    let verdict: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("no JSON: {printed}\n{why}"));
    // The attestation holds in both cases. 7 says that the gate did not pass.
    let expected = if verdict["result"] == "PASSED" { 0 } else { 7 };
    assert_eq!(verified.status.code(), Some(expected), "{printed}\n{why}");
    verdict
}
