//! The front and the Runtime API as servers, with a function that this test plays.

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::process::stop::{self, Stopper};

struct Place {
    front: String,
    /// The Runtime API, as the function `echo` sees it.
    runtime: String,
    client: Client,
    _stoppers: [Stopper; 2],
}

/// What the played function does with an invocation.
#[derive(Clone, Copy)]
enum Act {
    /// Answers with a body of so many bytes.
    Answer(usize),
    /// Posts this in place of an answer.
    Post(&'static str),
    /// Reports an error.
    Fail,
    /// Ends, as a process does: with all its connections.
    End,
}

async fn place(answer_limit: Duration) -> Place {
    let routes = Routes::from_table(&json!({ "/echo": "echo", "/echo/{id}": "echo" })).unwrap();
    let functions = Arc::new(Functions::new(routes.functions()));
    let front = Front { answer_limit, ..Front::new(routes, Arc::clone(&functions)) };
    let (front, one) = start(front.router(), || ()).await;
    let (_, function) = functions.iter().next().unwrap();
    let echo = Arc::clone(function);
    let (runtime, other) = start(Arc::clone(function).router(), move || echo.presence()).await;
    let runtime = format!("{runtime}/2018-06-01/runtime/invocation");
    Place { front, runtime, client: Client::new(), _stoppers: [one, other] }
}

async fn start<P: Send + 'static>(router: Router, presence: impl Fn() -> P + Send + 'static) -> (String, Stopper) {
    let listener = server::listen(0).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stopper, stop) = stop::channel();
    tokio::spawn(server::serve(listener, router, presence, None, stop));
    (url, stopper)
}

impl Place {
    /// Plays the function for one invocation; gives the event and what the Runtime API said to the answer.
    fn play(&self, act: Act) -> JoinHandle<(Value, u16)> {
        let base = self.runtime.clone();
        tokio::spawn(async move {
            // A client of its own: its connections end with it.
            let client = Client::new();
            let invocation = client.get(format!("{base}/next")).send().await.unwrap();
            let id = invocation.headers()["lambda-runtime-aws-request-id"].to_str().unwrap().to_owned();
            let deadline: u128 = invocation.headers()["lambda-runtime-deadline-ms"].to_str().unwrap().parse().unwrap();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
            assert!(deadline + 1000 > now, "a deadline of {deadline} at {now}");
            let event: Value = invocation.json().await.unwrap();
            let (path, body) = match act {
                Act::Answer(size) => ("response", json!({ "statusCode": 200, "body": "x".repeat(size) }).to_string()),
                Act::Post(text) => ("response", text.to_owned()),
                Act::Fail => ("error", json!({ "errorMessage": "boom", "errorType": "Panic" }).to_string()),
                Act::End => return (event, 0),
            };
            let told = client.post(format!("{base}/{id}/{path}")).body(body).send().await.unwrap();
            (event, told.status().as_u16())
        })
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.front)).send().await.unwrap()
    }

    /// The problem document that a request gives.
    async fn problem(&self, path: &str) -> (u16, String) {
        problem_of(self.get(path).await).await
    }
}

async fn problem_of(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let document: Value = response.json().await.unwrap();
    assert_eq!((&document["status"], &document["request_id"]), (&json!(status), &json!(id)));
    (status, document["detail"].as_str().unwrap().to_owned())
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_unknown_path_gives_the_functions_own_kind_of_document_and_no_name_of_a_function() {
    let place = place(LONG).await;
    let ours = place.get("/lambda-url/echo/x").await;
    assert_eq!(ours.status(), 404);
    let mut ours: Value = ours.json().await.unwrap();
    assert!(!ours.to_string().contains("echo"), "{ours}");
    assert!(ours.as_object_mut().unwrap().remove("request_id").is_some());
    let theirs = shared::http::problem(Code::NotFound, "this path was not found", &[]);
    let theirs = axum::body::to_bytes(theirs.into_body(), 1000).await.unwrap();
    assert_eq!(ours, serde_json::from_slice::<Value>(&theirs).unwrap());
}

#[tokio::test]
async fn large_answers_arrive_whole() {
    let place = place(LONG).await;
    for size in [27_000, 750_000, 5_900_000] {
        let played = place.play(Act::Answer(size));
        let response = place.get("/echo").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.bytes().await.unwrap().len(), size);
        assert_eq!(played.await.unwrap().1, 202);
    }
}

#[tokio::test]
async fn an_answer_that_lambda_would_refuse_is_refused() {
    let place = place(LONG).await;
    let played = place.play(Act::Answer(6_700_000));
    let (status, detail) = place.problem("/echo").await;
    assert_eq!(status, 502);
    assert!(detail.contains("Lambda takes 6291556"), "{detail}");
    assert_eq!(played.await.unwrap().1, 413);
}

#[tokio::test]
async fn headers_in_lambdas_name_reach_nobody() {
    let place = place(LONG).await;
    let played = place.play(Act::Answer(1));
    let request = place.client.get(format!("{}/echo", place.front)).header("lambda-runtime-client-context", "{");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let (event, _) = played.await.unwrap();
    assert!(!event.to_string().contains("client-context"), "{event}");
}

#[tokio::test]
async fn a_body_over_the_bound_reaches_no_function() {
    let place = place(Duration::ZERO).await;
    let body = vec![b'x'; MAX_BODY_BYTES + 1];
    let response = place.client.post(format!("{}/echo", place.front)).body(body).send().await.unwrap();
    let (status, detail) = problem_of(response).await;
    assert_eq!((status, detail.as_str()), (413, "the body has more than 10485760 bytes"));
}

#[tokio::test]
async fn a_process_that_ends_with_a_request_in_hand_is_told_at_once() {
    let place = place(LONG).await;
    let played = place.play(Act::End);
    let (status, detail) = place.problem("/echo").await;
    assert_eq!(status, 502);
    assert!(detail.contains("ended before it answered"), "{detail}");
    played.await.unwrap();
}

#[tokio::test]
async fn a_request_that_nobody_took_is_withdrawn() {
    let place = place(Duration::ZERO).await;
    let response = place.get("/echo/1").await;
    assert_eq!(response.headers()["retry-after"], "2");
    let (status, detail) = problem_of(response).await;
    assert_eq!(status, 503);
    assert!(detail.contains("may be sent again"), "{detail}");
}

#[tokio::test]
async fn a_failed_function_and_a_useless_answer_are_no_bare_500() {
    let place = place(LONG).await;
    for (act, said) in [
        (Act::Fail, "the function echo failed: boom"),
        (Act::Post("nonsense"), "cannot be passed on"),
        (Act::Post(r#"{"statusCode":1}"#), "cannot be passed on"),
    ] {
        let played = place.play(act);
        let (status, detail) = place.problem("/echo").await;
        assert_eq!(status, 502);
        assert!(detail.contains(said), "{detail}");
        played.await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_reaches_no_function() {
    let place = place(Duration::from_secs(10)).await;
    for host in ["evil.test:3000", "127.0.0.1.evil.test", "10.0.0.1"] {
        let request = place.client.post(format!("{}/echo", place.front)).header("host", host);
        let answer = request.header("origin", format!("http://{host}")).send().await.unwrap();
        assert_eq!(answer.status(), 421, "{host}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{host}");
    }
    for host in ["localhost:3000", "nofx.localhost", "[::1]:3000", "127.0.0.1"] {
        let played = place.play(Act::Answer(10));
        let answer = place.client.get(format!("{}/echo", place.front)).header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
        played.await.unwrap();
    }
}

#[test]
fn no_header_that_says_who_asks_is_dropped_by_a_word_of_the_client() {
    let (parts, ()) = axum::http::Request::post("/echo")
        .header("connection", "origin, sec-fetch-site, x-own")
        .header("origin", "http://evil.test")
        .header("sec-fetch-site", "cross-site")
        .header("x-own", "1")
        .body(())
        .unwrap()
        .into_parts();
    let now = DateTime::from_secs(0);
    let event = event::from_request(&parts, &axum::body::Bytes::new(), Uuid::nil(), now).unwrap();
    assert_eq!(event["headers"]["sec-fetch-site"], "cross-site");
    assert_eq!((&event["headers"]["origin"], event["headers"].get("x-own")), (&json!("http://evil.test"), None));
}
