//! `soak`: sends ordinary and hostile requests for some minutes and watches the memory of every function. It runs only by
//! name, and only on Linux, because it reads `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nofx_local::checkout::Checkout;
use nofx_local::{function, report};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::smoke::SmokeStack;
use crate::stats;

/// Requests in flight.
const CLIENTS: usize = 4;
/// How often to read the memory. The output has the maximum of each quarter of the soak.
const POLL_PERIOD: Duration = Duration::from_secs(5);
const QUARTERS: usize = 4;

/// Counts of the responses.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    server_errors: AtomicU64,
    /// Responses that are neither JSON nor a problem document nor a page.
    unknown_format: AtomicU64,
    unanswered: AtomicU64,
}

/// Runs the soak on the local stack for `minutes`.
pub async fn run(checkout: &Checkout, minutes: u64) -> Result<()> {
    let stack = SmokeStack::find_or_start(checkout).await?;
    let result = soak(checkout, &stack.api.url(""), Duration::from_secs(minutes * 60)).await;
    stack.stop(result.is_ok()).await;
    result
}

async fn soak(checkout: &Checkout, base: &str, time: Duration) -> Result<()> {
    report::line("soak", format_args!("{} minutes against {base}", time.as_secs() / 60));
    let (counts, start) = (Counts::default(), Instant::now());
    let clients = async {
        let work = (0..CLIENTS).map(|client| send_until(base, client, start + time, &counts));
        futures::future::join_all(work).await;
    };
    let memory = watch(checkout, start, time);
    let ((), memory) = tokio::join!(clients, memory);
    for (function, quarters) in &memory {
        let peaks: Vec<u64> = quarters.iter().map(|kib| kib / 1024).collect();
        stats::print(&json!({"bench": "soak", "function": function, "rss_peak_mib_by_quarter": peaks}));
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    stats::print(&json!({
        "bench": "soak", "minutes": time.as_secs() / 60, "requests": count(&counts.requests),
        "server_errors": count(&counts.server_errors), "foreign_answers": count(&counts.unknown_format),
        "unanswered": count(&counts.unanswered),
    }));
    ensure!(!memory.is_empty(), "no function of this checkout is running");
    Ok(())
}

/// Sends requests one after another, alternating between ordinary and hostile ones.
async fn send_until(base: &str, client: usize, end: Instant, counts: &Counts) {
    let http = Client::new();
    let hostile = hostile_requests();
    let mut run = String::new();
    let mut index = client;
    while Instant::now() < end {
        index += 1;
        let request = if index.is_multiple_of(2) {
            ordinary(&http, base, &run, index / 2)
        } else {
            hostile[(index / 2) % hostile.len()](&http, base)
        };
        let response = timeout(Duration::from_secs(40), async {
            let response = request.send().await?;
            let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let (status, kind) = (response.status(), kind.to_owned());
            Ok::<_, reqwest::Error>((status, kind, response.bytes().await?))
        });
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let Ok(Ok((status, kind, body))) = response.await else {
            counts.unanswered.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        if status.is_server_error() {
            counts.server_errors.fetch_add(1, Ordering::Relaxed);
        }
        let our_formats = ["application/json", "application/problem+json", "text/html"];
        if !body.is_empty() && !our_formats.iter().any(|format| kind.starts_with(format)) {
            counts.unknown_format.fetch_add(1, Ordering::Relaxed);
        }
        if status == 201
            && let Ok(body) = serde_json::from_slice::<Value>(&body)
            && let Some(id) = body["id"].as_str()
        {
            id.clone_into(&mut run);
        }
    }
}

fn ordinary(http: &Client, base: &str, run: &str, index: usize) -> RequestBuilder {
    let chain: Vec<Value> =
        (0..3).map(|n| json!({"name": format!("s{n}"), "tool": "echo", "inputs": {"n": n}})).collect();
    match index % 6 {
        0 => http.post(format!("{base}/runs")).json(&json!({"plan": {"goal": "soak", "steps": chain}})),
        1 => http.get(format!("{base}/runs")),
        2 => http.get(format!("{base}/runs/{run}")),
        3 => http.get(format!("{base}/runs/{run}/timeline")),
        4 => http.get(format!("{base}/ui/runs")),
        _ => http.get(format!("{base}/gates")),
    }
}

type BuildRequest = Box<dyn Fn(&Client, &str) -> RequestBuilder + Send + Sync>;

fn hostile_requests() -> Vec<BuildRequest> {
    let post = |body: String| -> BuildRequest {
        Box::new(move |http, base| {
            http.post(format!("{base}/runs")).header("content-type", "application/json").body(body.clone())
        })
    };
    let plan = |steps: Value| json!({"plan": {"goal": "hostile", "steps": steps}}).to_string();
    let echo = |name: &str, inputs: Value| json!({"name": name, "tool": "echo", "inputs": inputs});
    let unknown: Vec<String> = (0..60_000).map(|key| format!("\"k{key}\":1")).collect();
    let many: Vec<&str> = (0..5_000).map(|_| "${{ steps.a.outputs.text }}").collect();
    let small_values: Vec<Value> = (0..9_000).map(|_| json!({"": 0})).collect();
    let names: Vec<String> = (0..440).map(|n| format!("s{n}")).collect();
    let dense: Vec<Value> =
        (0..440).map(|n| json!({"name": names[n], "tool": "echo", "depends_on": names[..n]})).collect();
    vec![
        post("[".repeat(100_000)),
        post(format!("{{{}}}", unknown.join(","))),
        post("x".repeat(3 << 20)),
        post(plan(json!(dense))),
        post(plan(json!([echo("a", json!({"text": "x".repeat(250_000)})), echo("b", json!({"many": many}))]))),
        post(plan(json!([
            echo("a", json!({"values": small_values})),
            echo("b", json!({"all": "${{ steps.a.outputs }}"}))
        ]))),
        post(r#"{"plan": {"goal": "n", "steps": [{"name": "a", "tool": "echo", "inputs": {"n": 1e400}}]}}"#.to_owned()),
        Box::new(|http, base| http.post(format!("{base}/runs")).header("content-type", "text/plain").body("{}")),
        Box::new(|http, base| http.get(format!("{base}/runs?after=MjAyNi0xMy0zM3wwMTkw"))),
        Box::new(|http, base| http.get(format!("{base}/runs/a%00b/steps/%FF/why"))),
        Box::new(|http, base| http.get(format!("{base}/no/such/path"))),
        Box::new(|http, base| http.request(Method::DELETE, format!("{base}/runs"))),
        Box::new(|http, base| http.get(format!("{base}/health")).header("lambda-runtime-client-context", "{")),
        Box::new(|http, base| {
            http.post(format!("{base}/gates/{}/waive", "0".repeat(36))).header("origin", "https://evil.test").body("[]")
        }),
    ]
}

/// The peak memory of each function in each quarter of the soak, in KiB.
async fn watch(checkout: &Checkout, start: Instant, time: Duration) -> BTreeMap<&'static str, [u64; QUARTERS]> {
    let mut memory: BTreeMap<&'static str, [u64; QUARTERS]> = BTreeMap::new();
    let (mut ticks, mut pending) = (interval(POLL_PERIOD), JoinSet::new());
    while start.elapsed() < time {
        ticks.tick().await;
        let root = checkout.root().to_owned();
        pending.spawn_blocking(move || resident(&root));
        let Some(Ok(found)) = pending.join_next().await else { continue };
        let spent = start.elapsed().as_secs_f64() / time.as_secs_f64();
        let quarter = (0..QUARTERS).find(|quarter| spent < f64::from(u8::try_from(quarter + 1).unwrap_or(4)) / 4.0);
        for (function, kib) in found {
            let peak = &mut memory.entry(function).or_default()[quarter.unwrap_or(QUARTERS - 1)];
            *peak = kib.max(*peak);
        }
    }
    memory
}

/// Resident memory in KiB of each function that runs a binary of this checkout: that of its largest process.
fn resident(root: &Path) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(program) = fs::read_link(entry.path().join("exe")) else { continue };
        let Some(function) = function::names().find(|name| program.file_name().is_some_and(|file| file == *name))
        else {
            continue;
        };
        if !program.starts_with(root) {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let largest = found.entry(function).or_default();
        *largest = kib.unwrap_or(0).max(*largest);
    }
    found
}
