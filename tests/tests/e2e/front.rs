//! The HTTP front of the stack: large responses arrive complete, and no client header or path can crash a function.

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::stack::Stack;

/// Number of concurrent clients, and requests of each.
const CLIENTS: usize = 4;
const REQUESTS: usize = 50;

pub async fn check(stack: &Stack) {
    large_responses_arrive_complete(stack).await;
    a_malformed_runtime_header_does_not_crash_the_function(stack).await;
    requests_without_a_function_get_a_problem_document(stack).await;
    a_killed_function_is_restarted(stack).await;
}

/// `cargo lambda watch` alone loses about one in fifty of the smaller responses with four clients, and more of the larger
/// ones.
async fn large_responses_arrive_complete(stack: &Stack) {
    let client = Client::new();
    for (size, steps, requests) in [(4_000, 2, REQUESTS), (100_000, 8, 5)] {
        let step = |n: usize| json!({"name": format!("s{n}"), "tool": "echo", "inputs": {"text": "x".repeat(size)}});
        let run =
            stack.submit(&json!({"plan": {"goal": "large", "steps": (0..steps).map(step).collect::<Vec<_>>()}})).await;
        stack.follow(&run).await;
        let url = stack.at(&format!("/runs/{run}/timeline?limit=1000"));
        let detail = stack.at(&format!("/runs/{run}"));
        let one = async |_| {
            let mut lost = 0;
            for _ in 0..requests {
                for url in [&url, &detail] {
                    let answer = client.get(url).send().await.expect("an answer");
                    lost += usize::from(answer.status() != 200 || answer.json::<Value>().await.is_err());
                }
            }
            lost
        };
        let lost: usize = join_all((0..CLIENTS).map(one)).await.into_iter().sum();
        assert_eq!(lost, 0, "lost responses with steps of {size} bytes");
    }
}

async fn a_malformed_runtime_header_does_not_crash_the_function(stack: &Stack) {
    let before = stack.pids("api");
    let client = Client::new();
    for (name, value) in [
        ("lambda-runtime-client-context", "{"),
        ("lambda-runtime-cognito-identity", "{"),
        ("lambda-runtime-aws-request-id", "same"),
        ("lambda-runtime-deadline-ms", "soon"),
    ] {
        let answer = client.get(stack.at("/health")).header(name, value).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{name}");
    }
    let answer = client.get(stack.at("/health")).header("host", "a b").send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
    assert_eq!(stack.pids("api"), before, "the process did not restart");
}

async fn requests_without_a_function_get_a_problem_document(stack: &Stack) {
    let client = Client::new();
    for path in ["/nowhere", "/lambda-url/api/health", "/2015-03-31/functions/echo/invocations"] {
        let answer = client.post(stack.at(path)).body("{}").send().await.expect("an answer");
        let text = problem(answer, 404).await;
        assert!(!text.contains("approvals"), "the names of functions are not shown: {text}");
    }
    let answer = client.post(stack.at("/runs")).body(vec![b' '; 11 << 20]).send().await.expect("an answer");
    problem(answer, 413).await;
}

/// A request to a killed process gets a problem document, or the next process answers it.
async fn a_killed_function_is_restarted(stack: &Stack) {
    stack.kill_function("api");
    let client = Client::builder().timeout(Duration::from_secs(40)).build().expect("a client");
    let answer = client.get(stack.at("/health")).send().await.expect("an answer");
    if answer.status() != 200 {
        let status = answer.status().as_u16();
        assert!([502, 503].contains(&status), "{status}");
        problem(answer, status).await;
    }
    stack.until_healthy().await;
}

async fn problem(answer: Response, status: u16) -> String {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let text = answer.text().await.expect("a body");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["status"], status);
    assert!(document["type"].as_str().is_some_and(|kind| kind.ends_with(document["code"].as_str().expect("a code"))));
    assert!(document["request_id"].is_string() && document["detail"].is_string(), "{text}");
    text
}
