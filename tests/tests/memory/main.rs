//! The memory of an invocation is bounded. This is a separate suite, because it measures the peak of the whole process.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::Arc;

use nofx_tests::delivery::{event, failed_ids};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::tool;
use tokio::sync::Barrier;

/// The limit in ARCHITECTURE.md for a batch of ten, without the memory of an idle function.
const MAX_KIB: u64 = 124 << 10;

/// `VmHWM` of /proc/self/status: the peak memory of this process.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
}

fn reset_peak() {
    // See proc(5): writing 5 resets the peak.
    fs::write("/proc/self/clear_refs", "5").expect("reset the peak");
}

/// As many small values as a step's inputs may have.
fn small_values() -> Value {
    json!((0..9_000).map(|_| json!({ "": 0 })).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_batch_of_the_largest_steps_stays_within_the_memory_limit() {
    let lab = Lab::new().await;
    let batch = tool::handler("echo").expect("a handler").batch_size;
    let mut runs = Vec::new();
    for index in 0..batch {
        // Half of the plans have as many values as allowed. The others reference more bytes than the limit.
        let plan = if index % 2 == 0 {
            json!({ "goal": "small values", "steps": [
                plans::step("a", "echo", json!({ "values": small_values() })),
                plans::step("b", "echo", json!({ "values": "${{ steps.a.outputs.values }}" })),
            ] })
        } else {
            let many: Vec<_> = (0..5_000).map(|_| "${{ steps.a.outputs.text }}").collect();
            json!({ "goal": "multiply", "steps": [
                plans::step("a", "echo", json!({ "text": "x".repeat(250_000) })),
                plans::step("b", "echo", json!({ "many": many })),
            ] })
        };
        runs.push(lab.submit(&plan).await);
    }
    // All steps hold their inputs at the same time.
    let together = Arc::new(Barrier::new(batch as usize));
    let script = Script::overriding(move |step, _| {
        let together = together.clone();
        async move {
            if step.name == "a" {
                together.wait().await;
            }
            None
        }
    });
    let worker = lab.worker("echo", &script);
    let sent = lab.sent().await;
    assert_eq!(sent.len(), batch as usize, "one batch");
    let event = event(&sent, Deliver::Once);
    reset_peak();
    let before = peak_kib();
    let response = worker.handle_batch(event, None).await;
    let growth_kib = peak_kib() - before;
    assert!(failed_ids(&response).is_empty());
    for (index, run) in runs.iter().enumerate() {
        let expected = if index % 2 == 0 { "succeeded" } else { "failed" };
        assert_eq!(lab.run_status(*run).await, expected);
    }
    println!("a batch of {batch} grew the process by {growth_kib} KiB");
    assert!(growth_kib < MAX_KIB, "{growth_kib} KiB");
}
