//! Queues and dead letters over the API and in the console, with the emulator's SQS.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use nofx_tests::delivery::body;
use nofx_tests::lab::{sdk, sdk_at};
use nofx_tests::{Lab, plans};
use serde_json::{Value, json};
use shared::context::request_limits;
use shared::domain::TenantId;
use shared::domain::tool::{HANDLERS, dead_letter_queue_name, queue_name};
use shared::flow::sweep::sweep;
use shared::queue::{Queue, WakeUp};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::gateway::{Answer, Gateway, SHAPES, Shape};

const COOKIE: (&str, &str) = ("cookie", "nofx-csrf=0123456789abcdef0123456789abcdef");
const FORM: &str = "actor=ann&csrf=0123456789abcdef0123456789abcdef";

/// A lab whose functions use the queues of all handlers.
struct Queues {
    lab: Lab,
    client: Client,
}

impl Queues {
    async fn new() -> Self {
        let mut lab = Lab::new().await;
        let client = Client::new(&sdk().await);
        let prefix = lab.ctx.config.sqs_prefix.clone();
        for handler in HANDLERS {
            for name in [handler.queue(&prefix), handler.dead_letter_queue(&prefix)] {
                client.create_queue().queue_name(name).send().await.expect("make a queue");
            }
        }
        lab.ctx.queue = Queue::sqs(client.clone(), &prefix);
        Self { lab, client }
    }

    async fn url(&self, name: String) -> String {
        let answer = self.client.get_queue_url().queue_name(name).send().await.expect("a queue");
        answer.queue_url.expect("its URL")
    }

    async fn put_dead(&self, handler: &str, bodies: &[String]) {
        let url = self.url(dead_letter_queue_name(&self.lab.ctx.config.sqs_prefix, handler)).await;
        for body in bodies {
            self.client.send_message().queue_url(&url).message_body(body).send().await.expect("sent");
        }
    }

    /// Every message of the handler's queue.
    async fn receive(&self, handler: &str) -> Vec<String> {
        let url = self.url(queue_name(&self.lab.ctx.config.sqs_prefix, handler)).await;
        let mut found = Vec::new();
        loop {
            let receive = self.client.receive_message().queue_url(&url).max_number_of_messages(10);
            let messages = receive.send().await.expect("received").messages.unwrap_or_default();
            if messages.is_empty() {
                return found;
            }
            found.extend(messages.into_iter().filter_map(|message| message.body));
        }
    }

    /// The wake-up of the first step of a new run, and how a message writes it.
    async fn wakeup(&self, tenant: &str) -> String {
        let run = self.lab.submit(&plans::chain(1)).await;
        let step_id = self.lab.step(run, "s0").await;
        body(&WakeUp {
            tenant_id: TenantId(tenant.into()),
            run_id: run,
            step_id,
            handler: "echo".into(),
            delay_ms: 0,
            traceparent: None,
        })
    }
}

async fn redrive(console: &Gateway, handler: &str, form: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin"), COOKIE];
    console.send("POST", &format!("/ui/health/{handler}/redrive"), &headers, Some(form.to_owned())).await
}

#[tokio::test]
async fn dead_letters_are_described_and_go_back_to_their_queue() {
    for shape in SHAPES {
        let queues = Queues::new().await;
        let api = Gateway::api(&queues.lab, shape);
        let (ours, theirs) = (queues.wakeup("acme").await, queues.wakeup("other").await);
        queues.receive("echo").await;
        let poison = r#"{"hello": "<script>"}"#.to_owned();
        queues.put_dead("echo", &[ours.clone(), theirs.clone(), poison.clone()]).await;

        let list = api.get("/queues").await;
        assert_eq!(list.status, 200, "{list:?}");
        let names: Vec<_> = list.body["queues"].as_array().expect("queues").iter().map(|one| &one["handler"]).collect();
        assert_eq!(names, HANDLERS.iter().map(|handler| handler.name).collect::<Vec<_>>());
        let of = |handler: &str| {
            let all = list.body["queues"].as_array().expect("queues");
            all.iter().find(|one| one["handler"] == handler).expect("a handler").clone()
        };
        assert_eq!((&of("echo")["dead_letters"], &of("gate")["dead_letters"]), (&json!(3), &json!(0)));

        for _ in 0..2 {
            let echo = api.get("/queues/echo").await.body;
            let messages = echo["messages"].as_array().expect("messages");
            assert_eq!((messages.len(), &echo["dead_letters"]), (3, &json!(3)), "reading leaves them: {echo}");
            let with = |words: &str| {
                let found = messages.iter().find(|one| one["reason"].as_str().is_some_and(|text| text.contains(words)));
                found.unwrap_or_else(|| panic!("{words}: {echo}")).clone()
            };
            let ready = with("Its step is ready");
            assert_eq!((&ready["step"]["name"], &ready["body"]), (&json!("s0"), &json!(ours)));
            assert!(ready["sent_at"].as_str().is_some_and(|at| at.starts_with("20")), "{ready}");
            assert_eq!(with("not a wake-up")["body"], json!(poison));
            let foreign = with("another tenant");
            assert_eq!((&foreign["body"], &foreign["step"]), (&Value::Null, &Value::Null));
        }

        let moved = api.post("/queues/echo/redrive", &json!({"actor": "ann"})).await;
        assert_eq!(moved.body, json!({"handler": "echo", "moved": 3, "more": false}));
        let found: BTreeSet<String> = queues.receive("echo").await.into_iter().collect();
        assert_eq!(found, BTreeSet::from([ours, theirs, poison]));
        assert_eq!(api.get("/queues/echo").await.body["dead_letters"], 0);
        for path in ["/queues/none", "/queues/gate_long"] {
            assert_eq!(api.get(path).await.status, 404, "{path}");
        }
        assert_eq!(api.post("/queues/none/redrive", &json!({})).await.status, 404);
    }
}

#[tokio::test]
async fn one_redrive_moves_at_most_a_hundred_messages_and_says_that_more_are_left() {
    let queues = Queues::new().await;
    let bodies: Vec<String> = (0..120).map(|index| format!("m{index}")).collect();
    queues.put_dead("manual", &bodies).await;
    let api = Gateway::api(&queues.lab, Shape::Http);
    let first = api.post("/queues/manual/redrive", &json!({})).await.body;
    assert_eq!(first, json!({"handler": "manual", "moved": 100, "more": true}));
    let second = api.post("/queues/manual/redrive", &json!({})).await.body;
    assert_eq!(second, json!({"handler": "manual", "moved": 20, "more": false}));
    let found: BTreeSet<String> = queues.receive("manual").await.into_iter().collect();
    assert_eq!(found, bodies.into_iter().collect());
    let page = Gateway::console(&queues.lab, Shape::Http).get("/ui/health").await;
    let page = page.body.as_str().expect("a page");
    assert!(page.contains(" moved 100 messages back") && page.contains("and more may have been left"), "{page}");
    assert!(page.contains(" moved 20 messages back"), "{page}");
}

#[tokio::test]
async fn the_page_of_health_shows_dead_letters_and_its_form_moves_them() {
    let queues = Queues::new().await;
    let console = Gateway::console(&queues.lab, Shape::Http);
    let page = async || console.get("/ui/health").await.body.as_str().expect("a page").to_owned();
    assert!(page().await.contains("The sweeper has not run"));
    sweep(&queues.lab.ctx).await.expect("a sweep");
    assert!(page().await.contains("Nothing is stuck"));

    let (ours, theirs) = (queues.wakeup("acme").await, queues.wakeup("other").await);
    queues.put_dead("echo", &[ours, theirs.clone(), "<b>poison".into()]).await;
    let sick = page().await;
    for words in [
        "3 messages are in the dead-letter queue of <b>echo</b>",
        "Its step is ready",
        "&lt;b&gt;poison",
        "It is a wake-up of another tenant.",
        "action=\"health/echo/redrive\"",
    ] {
        assert!(sick.contains(words), "{words}: {sick}");
    }
    let foreign: Value = serde_json::from_str(&theirs).expect("a wake-up");
    assert!(!sick.contains(foreign["step_id"].as_str().expect("an id")), "of another tenant");

    let unnamed = redrive(&console, "echo", &FORM.replace("ann", "")).await;
    assert_eq!(unnamed.status, 400);
    assert!(unnamed.body.as_str().is_some_and(|page| page.contains("Nothing was moved.")), "{unnamed:?}");
    assert_eq!(redrive(&console, "echo", "actor=ann&csrf=f").await.status, 403);
    assert_eq!(redrive(&console, "none", FORM).await.status, 404);
    let moved = redrive(&console, "echo", FORM).await;
    assert_eq!(moved.status, 303);
    let location = moved.header("location").expect("a location").replace("../../", "/ui/");
    let back = console.get(&location).await;
    let back = back.body.as_str().expect("a page");
    let words = "<b><bdi>ann</bdi></b> moved 3 messages back to the queue of <b>echo</b>";
    assert_eq!(back.matches(words).count(), 2, "a notice, and the record: {back}");
    assert!(back.contains("Nothing is stuck"), "{back}");

    // Who moved what stays on record, and no address invents a redrive.
    let sql = "select jsonb_build_array(tenant_id, type, subject, actor, payload -> 'moved', payload -> 'more')
                 from nofx.tenant_event";
    let event: Value = queues.lab.admin.query_one(sql, &[]).await.expect("one event").get(0);
    assert_eq!(event, json!(["acme", "queue.redriven", "echo", "ann", 3, false]));
    for claimed in ["echo", "0193c0de-0000-7000-8000-000000000001"] {
        let page = console.get(&format!("/ui/health?redriven={claimed}")).await;
        assert_eq!(page.body.as_str().expect("a page").matches(words).count(), 1, "{claimed}");
    }
}

/// A server that takes connections and never answers, with the settings of an HTTP function for it.
async fn hung() -> (TcpListener, SdkConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let sdk = request_limits(&sdk_at(&endpoint, "us-east-1", ("test", "test")).await);
    (listener, sdk)
}

/// The gateway gives up after 29 s.
async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(15), answer).await.expect("an answer")
}

#[tokio::test]
async fn queues_that_hang_delay_no_decision_and_the_page_of_health_says_so() {
    let mut lab = Lab::new().await;
    let (_listener, sdk) = hung().await;
    lab.ctx.queue = Queue::sqs(Client::new(&sdk), &lab.ctx.config.sqs_prefix);
    let (api, console) = (Gateway::api(&lab, Shape::Http), Gateway::console(&lab, Shape::Http));
    let plan = json!({"plan": plans::chain(1)});
    let created = in_time(api.post("/runs", &plan)).await;
    assert_eq!(created.status, 201, "it is committed: {created:?}");
    let health = in_time(console.get("/ui/health")).await;
    assert_eq!(health.status, 200);
    assert!(health.body.as_str().expect("a page").contains("SQS does not answer"), "{health:?}");
    assert_eq!(in_time(api.get("/queues")).await.body["code"], "unavailable");
    // The sweeper repeats the wake-up.
    let owed: i64 = lab
        .admin
        .query_one("select count(*) from nofx.step where status = 'ready'", &[])
        .await
        .expect("a count")
        .get(0);
    assert_eq!(owed, 1);
}

#[tokio::test]
async fn without_queues_the_page_of_health_shows_what_the_database_knows() {
    let lab = Lab::new().await;
    lab.submit(&plans::wide(3)).await;
    let console = Gateway::console(&lab, Shape::Http);
    let page = console.get("/ui/health").await;
    let html = page.body.as_str().expect("a page");
    assert_eq!(page.status, 200);
    assert!(html.contains("SQS does not answer") && html.contains("<b>echo</b>"), "{html}");
    assert_eq!(Gateway::api(&lab, Shape::Http).get("/queues").await.status, 503);
}
