//! The gateway and the Runtime API as servers. The tests act as the function.

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::process::stop::{self, StopSender};

struct TestServers {
    gateway: String,
    /// The Runtime API, as the function `echo` sees it.
    runtime: String,
    client: Client,
    _stop_senders: [StopSender; 2],
}

/// What the function does with an invocation.
#[derive(Clone, Copy)]
enum Act {
    /// Answers with a body of this size.
    Answer(usize),
    /// Posts this text as the answer.
    Post(&'static str),
    /// Reports an error.
    Fail,
    /// Closes all connections, like a process that ends.
    End,
}

async fn start_servers(answer_limit: Duration) -> TestServers {
    let routes = Routes::from_table(&json!({ "/echo": "echo", "/echo/{id}": "echo", "/ui/x": "echo" })).unwrap();
    let functions = Arc::new(Functions::new(routes.functions()));
    let gateway = Gateway { answer_limit, ..Gateway::new(routes, Arc::clone(&functions)) };
    let (gateway, one) = start(gateway.router(), || ()).await;
    let (_, function) = functions.iter().next().unwrap();
    let echo = Arc::clone(function);
    let (runtime, other) = start(Arc::clone(function).router(), move || echo.connection_guard()).await;
    let runtime = format!("{runtime}/2018-06-01/runtime/invocation");
    TestServers { gateway, runtime, client: Client::new(), _stop_senders: [one, other] }
}

async fn start<P: Send + 'static>(
    router: Router,
    connection_guard: impl Fn() -> P + Send + 'static,
) -> (String, StopSender) {
    let listener = server::listen(0).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop_sender, stop) = stop::channel();
    tokio::spawn(server::serve(listener, router, connection_guard, None, stop));
    (url, stop_sender)
}

impl TestServers {
    /// Acts as the function for one invocation. Returns the event and the Runtime API's status for the answer.
    fn serve_one(&self, act: Act) -> JoinHandle<(Value, u16)> {
        let base = self.runtime.clone();
        tokio::spawn(async move {
            // Its own client, so that its connections close with it.
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
            let response = client.post(format!("{base}/{id}/{path}")).body(body).send().await.unwrap();
            (event, response.status().as_u16())
        })
    }

    /// As a browser asks for a page.
    async fn open(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.gateway));
        request.header("accept", "text/html,*/*;q=0.8").send().await.unwrap()
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.gateway)).send().await.unwrap()
    }

    /// Status and detail of the problem document that answers a request.
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
async fn an_unknown_path_gets_the_same_problem_document_as_from_a_function() {
    let servers = start_servers(LONG).await;
    let ours = servers.get("/lambda-url/echo/x").await;
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
    let servers = start_servers(LONG).await;
    for size in [27_000, 750_000, 5_900_000] {
        let served = servers.serve_one(Act::Answer(size));
        let response = servers.get("/echo").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.bytes().await.unwrap().len(), size);
        assert_eq!(served.await.unwrap().1, 202);
    }
}

#[tokio::test]
async fn an_answer_that_lambda_would_refuse_is_refused() {
    let servers = start_servers(LONG).await;
    let served = servers.serve_one(Act::Answer(6_700_000));
    let (status, detail) = servers.problem("/echo").await;
    assert_eq!(status, 502);
    assert!(detail.contains("Lambda takes at most 6291556"), "{detail}");
    assert_eq!(served.await.unwrap().1, 413);
}

#[tokio::test]
async fn runtime_headers_of_a_client_do_not_reach_the_function() {
    let servers = start_servers(LONG).await;
    let served = servers.serve_one(Act::Answer(1));
    let request = servers.client.get(format!("{}/echo", servers.gateway)).header("lambda-runtime-client-context", "{");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let (event, _) = served.await.unwrap();
    assert!(!event.to_string().contains("client-context"), "{event}");
}

#[tokio::test]
async fn a_body_over_the_limit_reaches_no_function() {
    let servers = start_servers(Duration::ZERO).await;
    let body = vec![b'x'; MAX_BODY_BYTES + 1];
    let response = servers.client.post(format!("{}/echo", servers.gateway)).body(body).send().await.unwrap();
    let (status, detail) = problem_of(response).await;
    assert_eq!((status, detail.as_str()), (413, "the body has more than 10485760 bytes"));
}

#[tokio::test]
async fn a_process_that_ends_during_a_request_is_reported_at_once() {
    let servers = start_servers(LONG).await;
    let served = servers.serve_one(Act::End);
    let (status, detail) = servers.problem("/echo").await;
    assert_eq!(status, 502);
    assert!(detail.contains("ended before it answered"), "{detail}");
    served.await.unwrap();
}

#[tokio::test]
async fn a_request_that_nobody_took_is_withdrawn() {
    let servers = start_servers(Duration::ZERO).await;
    let response = servers.get("/echo/1").await;
    assert_eq!(response.headers()["retry-after"], "2");
    let (status, detail) = problem_of(response).await;
    assert_eq!(status, 503);
    assert!(detail.contains("may be sent again"), "{detail}");
}

#[tokio::test]
async fn a_failed_function_and_a_malformed_answer_get_a_problem_document() {
    let servers = start_servers(LONG).await;
    for (act, expected) in [
        (Act::Fail, "the function echo failed: boom"),
        (Act::Post("nonsense"), "returned an invalid answer"),
        (Act::Post(r#"{"statusCode":1}"#), "returned an invalid answer"),
    ] {
        let served = servers.serve_one(act);
        let (status, detail) = servers.problem("/echo").await;
        assert_eq!(status, 502);
        assert!(detail.contains(expected), "{detail}");
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_for_a_foreign_host_reaches_no_function() {
    let servers = start_servers(Duration::from_secs(10)).await;
    for host in ["evil.test:3000", "127.0.0.1.evil.test", "10.0.0.1"] {
        let request = servers.client.post(format!("{}/echo", servers.gateway)).header("host", host);
        let answer = request.header("origin", format!("http://{host}")).send().await.unwrap();
        assert_eq!(answer.status(), 421, "{host}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{host}");
    }
    for host in ["localhost:3000", "nofx.localhost", "[::1]:3000", "127.0.0.1"] {
        let served = servers.serve_one(Act::Answer(10));
        let answer = servers.client.get(format!("{}/echo", servers.gateway)).header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
        served.await.unwrap();
    }
}

#[test]
fn connection_cannot_drop_headers_that_show_the_sender() {
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

/// Sends a request with this `Accept-Encoding`.
async fn send_accepting(servers: &TestServers, method: &str, path: &str, encodings: &str) -> reqwest::Response {
    let method = method.parse().unwrap();
    let request =
        servers.client.request(method, format!("{}{path}", servers.gateway)).header("accept-encoding", encodings);
    request.send().await.unwrap()
}

fn encoding(response: &reqwest::Response) -> Option<&str> {
    response.headers().get("content-encoding").map(|value| value.to_str().unwrap())
}

async fn gunzip(response: reqwest::Response) -> String {
    let bytes = response.bytes().await.unwrap();
    std::io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).unwrap()
}

#[tokio::test]
async fn answers_from_the_minimum_size_on_are_compressed_if_the_client_accepts_gzip() {
    let servers = start_servers(LONG).await;
    let min_bytes = usize::from(MIN_COMPRESSED_BYTES);
    for (size, encodings, expected) in [
        (min_bytes - 1, "gzip", None),
        (min_bytes, "gzip", Some("gzip")),
        (5_900_000, "br;q=1.0, gzip;q=0.5", Some("gzip")),
        (min_bytes, "br, identity", None),
        (min_bytes, "gzip;q=0", None),
        (min_bytes, "", None),
    ] {
        let served = servers.serve_one(Act::Answer(size));
        let response = send_accepting(&servers, "GET", "/echo", encodings).await;
        assert_eq!((response.status().as_u16(), encoding(&response)), (200, expected), "{size} {encodings}");
        assert_eq!(response.headers().contains_key("vary"), size >= min_bytes, "{size} {encodings}");
        let text = if expected.is_some() { gunzip(response).await } else { response.text().await.unwrap() };
        assert_eq!(text, "x".repeat(size));
        served.await.unwrap();
    }
}

/// Posts an answer with these headers.
fn answer_with(status: u16, headers: &Value, body: &str) -> Act {
    let answer = json!({ "statusCode": status, "headers": headers, "body": body }).to_string();
    Act::Post(Box::leak(answer.into_boxed_str()))
}

#[tokio::test]
async fn compression_keeps_the_etag_and_includes_problem_documents() {
    let servers = start_servers(LONG).await;
    let json_answer = json!({ "text": "x".repeat(2_000) }).to_string();
    let headers = json!({ "content-type": "application/json", "etag": "W/\"a\"" });
    let served = servers.serve_one(answer_with(200, &headers, &json_answer));
    let response = send_accepting(&servers, "GET", "/echo", "gzip").await;
    let tag = response.headers()["etag"].clone();
    assert_eq!((encoding(&response), tag.to_str().unwrap()), (Some("gzip"), "W/\"a\""));
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(gunzip(response).await, json_answer);
    served.await.unwrap();

    let problem = json!({ "title": "Bad Request", "status": 400, "detail": "x".repeat(2_000) }).to_string();
    let served = servers.serve_one(answer_with(400, &json!({ "content-type": "application/problem+json" }), &problem));
    let response = send_accepting(&servers, "GET", "/echo", "gzip").await;
    assert_eq!((response.status().as_u16(), encoding(&response)), (400, Some("gzip")));
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(gunzip(response).await, problem);
    served.await.unwrap();
    assert_eq!(encoding(&send_accepting(&servers, "GET", "/nowhere", "gzip").await), None, "a small problem document");

    for (method, status) in [("GET", 304), ("HEAD", 304), ("HEAD", 200)] {
        let served = servers.serve_one(answer_with(status, &headers, ""));
        let response = send_accepting(&servers, method, "/echo", "gzip").await;
        assert_eq!((response.status().as_u16(), encoding(&response)), (status, None), "{method} {status}");
        assert_eq!(response.headers()["etag"], "W/\"a\"");
        assert_eq!(response.bytes().await.unwrap().len(), 0);
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_browser_gets_the_errors_of_the_gateway_as_pages() {
    let servers = start_servers(Duration::from_millis(200)).await;
    let busy = servers.open("/ui/x").await;
    assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    assert_eq!(busy.headers()["content-type"], "text/html; charset=utf-8");
    let page = busy.text().await.unwrap();
    assert!(page.contains("did not take the request") && page.contains("Nothing was changed."), "{page}");
    assert_eq!(servers.open("/ui/nope").await.headers()["content-type"], "text/html; charset=utf-8");
    // Programs get problem documents.
    assert_eq!(servers.open("/nope").await.headers()["content-type"], "application/problem+json");
    assert_eq!(servers.get("/ui/x").await.headers()["content-type"], "application/problem+json");
}
