//! Log lines of a batch: each names its attempt, and each error is logged once.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use nofx_tests::delivery::event;
use nofx_tests::lab::session;
use nofx_tests::script::{broken, flaky, succeeded};
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::db::run::Control;
use shared::domain::tool;
use shared::domain::{ClaimedStep, Outcome, StepId};
use shared::flow::control_run::control_run;
use shared::queue::WakeUp;
use shared::worker::{InTransaction, TransactionHandler, Worker};
use tokio_postgres::Transaction;
use tracing::subscriber::DefaultGuard;
use uuid::Uuid;

/// The fields of every line about an attempt.
const FIELDS: [&str; 5] = ["run_id", "step_id", "tenant_id", "tool", "attempt"];

/// The log lines of this thread, in the format of the functions on AWS.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn capture() -> (Self, DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().with_target(false).without_time();
        (lines, tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish()))
    }

    fn read(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("the lines").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Level, message and code of each line about these steps, by step name.
    fn by_step(&self, steps: &BTreeMap<StepId, String>) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.read() {
            let written = line.to_string();
            let Some((id, name)) = steps.iter().find(|(id, _)| written.contains(&id.to_string())) else { continue };
            assert_eq!(line["span"]["step_id"], id.to_string(), "{line}");
            assert!(FIELDS.iter().all(|field| !line["span"][field].is_null()), "{line}");
            let [level, message, code] = [&line["level"], &line["fields"]["message"], &line["fields"]["code"]]
                .map(|text| text.as_str().unwrap_or_default());
            found.entry(name.clone()).or_default().push(format!("{level} {message} {code}").trim_end().to_owned());
        }
        found
    }
}

#[tokio::test]
async fn every_line_about_an_attempt_names_it_and_every_error_is_logged_once() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(5)).await;
    let late = lab.submit(&json!({ "goal": "late", "steps": [plans::step("late", "echo", json!({}))] })).await;
    let mut steps = BTreeMap::from([(lab.step(late, "late").await, "late".to_owned())]);
    for name in ["s0", "s1", "s2", "s3", "s4"] {
        steps.insert(lab.step(run, name).await, name.to_owned());
    }
    let mut sent = lab.sent().await;
    let stray = WakeUp { step_id: StepId(Uuid::new_v4()), ..sent[0].clone() };
    sent.push(stray.clone());
    let ctx = lab.ctx.clone();
    let script = Script::new(move |step, _| {
        let ctx = ctx.clone();
        async move {
            match step.name.as_str() {
                "s1" => broken(),
                "s2" => flaky(),
                "s3" => panic!("a defect of the handler"),
                "s4" => succeeded(json!({ "text": "a\u{0}b" })),
                "late" => {
                    let cancelled =
                        control_run(&ctx, &session(&ctx.db, &step.tenant_id), step.run_id, Control::Cancel, "ann")
                            .await;
                    cancelled.expect("the run is cancelled");
                    succeeded(json!({}))
                }
                _ => succeeded(json!({})),
            }
        }
    });

    let (lines, _guard) = Lines::capture();
    lab.worker("echo", &script).handle_batch(event(&sent, Deliver::Once), None).await;

    let expected = json!({
        "s0": ["INFO finished"],
        "s1": ["INFO finished broken"],
        "s2": ["INFO finished flaky"],
        "s3": ["ERROR the handler panicked", "INFO finished handler_panicked"],
        "s4": ["ERROR failed", "INFO finished unrecordable"],
        "late": ["WARN too late: the attempt no longer owned its step"],
    });
    assert_eq!(json!(lines.by_step(&steps)), expected);
    // The stray wake-up led to no attempt, so its line has the fields of the wake-up.
    let lines = lines.read();
    let about = lines.iter().find(|line| line["span"]["step_id"] == stray.step_id.to_string()).expect("a line");
    assert_eq!((&about["level"], &about["span"]["handler"]), (&json!("WARN"), &json!("echo")));
    assert_eq!(about["span"]["run_id"], stray.run_id.to_string());
    assert_eq!(about["span"]["tenant_id"], stray.tenant_id.to_string());
    let errors = lines.iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(errors, 2, "an error is logged twice: {lines:#?}");
}

struct Writes;

impl TransactionHandler for Writes {
    async fn handle(&self, step: &ClaimedStep, _: &Transaction<'_>) -> Outcome {
        if step.name == "s0" { succeeded(json!({})) } else { broken() }
    }
}

#[tokio::test]
async fn the_lines_of_a_transaction_handler_name_their_attempt() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::wide(2)).await;
    let steps = BTreeMap::from([(lab.step(run, "s0").await, "s0".into()), (lab.step(run, "s1").await, "s1".into())]);
    let worker = Worker::new(lab.ctx.clone(), tool::handler("echo").expect("a known handler"), InTransaction(Writes));
    let sent = lab.sent().await;
    let (lines, _guard) = Lines::capture();
    worker.handle_batch(event(&sent, Deliver::Once), None).await;
    let expected = json!({ "s0": ["INFO finished"], "s1": ["INFO finished broken"] });
    assert_eq!(json!(lines.by_step(&steps)), expected);
}
