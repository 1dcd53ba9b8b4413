//! The handler that docs/handlers.md shows. The page's code is an excerpt of this file.

use nofx_tests::delivery::event;
use nofx_tests::{Deliver, Lab, plans};
use serde_json::{Value, json};
use shared::domain::fields::{self, Most, Null};
use shared::domain::{Outcome, Problem, StepError, tool};
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::{ClaimedStep, Handler, WorkThenRecord, Worker};

/// The handler of tool `csv`: stores rows as a CSV file.
struct Csv;

impl Handler for Csv {
    async fn handle(&self, step: &ClaimedStep, store: &StepStore) -> Outcome {
        let table = match Table::read(&step.inputs) {
            Ok(table) => table,
            Err(problems) => return Outcome::failed(StepError::invalid_inputs(problems)),
        };
        let meta = ArtifactMeta { kind: "text", media_type: "text/csv; charset=utf-8", ..ArtifactMeta::default() };
        match store.put("table.csv", meta, table.text().into_bytes()).await {
            Ok(artifact) => {
                let mut outputs = serde_json::Map::new();
                outputs.insert("artifact_id".to_owned(), json!(artifact.id));
                outputs.insert("rows".to_owned(), json!(table.rows.len()));
                Outcome { artifacts: vec![artifact], ..Outcome::succeeded(outputs) }
            }
            Err(error) => Outcome::retryable(StepError::new(
                "artifact_not_stored",
                format!("The table could not be stored: {error}."),
            )),
        }
    }
}

const MAX_COLUMNS: usize = 100;
const MAX_ROWS: usize = 1_000;
const MAX_NAME_CHARS: usize = 200;

/// The inputs.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// Collects all problems, each with its path, such as `inputs.rows[3]`.
    fn read(inputs: &Value) -> Result<Self, Vec<Problem>> {
        fields::read(inputs, "inputs", &[&["columns"], &["rows"]], Null::Wrong, |fields| {
            fields.require(&["columns", "rows"]);
            let columns = fields.list("columns", MAX_COLUMNS, |name| {
                fields::filled(name, Most::Chars(MAX_NAME_CHARS)).map(str::to_owned)
            });
            let rows = fields.list("rows", MAX_ROWS, |row| match row {
                Value::Array(cells) if cells.len() == columns.len() => Ok(cells.clone()),
                _ => Err("must be a list with a value for each column".to_owned()),
            });
            Some(Self { columns, rows })
        })
    }

    fn text(&self) -> String {
        let head = self.columns.iter().map(|name| cell(name)).collect::<Vec<_>>();
        let row = |cells: &Vec<Value>| cells.iter().map(|value| cell(&plain(value))).collect::<Vec<_>>();
        let lines = std::iter::once(head).chain(self.rows.iter().map(row));
        lines.map(|cells| cells.join(",") + "\r\n").collect()
    }
}

/// Quotes a cell as RFC 4180 says.
fn cell(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Runs a step by this handler in a real worker. `echo` lends its row, because no tool `csv` is deployed.
async fn outputs(lab: &Lab, inputs: Value) -> (String, Value, Value) {
    let run = lab.submit(&json!({ "goal": "g", "steps": [plans::step("table", "echo", inputs)] })).await;
    let worker = Worker::new(lab.ctx.clone(), tool::handler("echo").expect("a row"), WorkThenRecord(Csv));
    let sent = lab.sent().await;
    worker.handle_batch(event(&sent, Deliver::Thrice), None).await;
    let sql = "select status, coalesce(outputs, 'null'), coalesce(error, 'null') from nofx.step where run_id = $1";
    let row = lab.admin.query_one(sql, &[&run.0]).await.expect("a step");
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn the_handler_of_the_documents_stores_a_table_and_refuses_wrong_inputs() {
    let lab = Lab::with_bucket().await;
    let inputs = json!({ "columns": ["item", "cents"], "rows": [["a \"b\", c", 250], ["d", null]] });
    let (status, outputs_of_step, _) = outputs(&lab, inputs).await;
    assert_eq!((status.as_str(), &outputs_of_step["rows"]), ("succeeded", &json!(2)));
    let sql = "select hash::text from nofx.artifact where name = 'table.csv'";
    let hash: String = lab.admin.query_one(sql, &[]).await.expect("one artifact").get(0);
    let text = "\"item\",\"cents\"\r\n\"a \"\"b\"\", c\",\"250\"\r\n\"d\",\"null\"\r\n";
    assert_eq!(hash, shared::domain::digest::sha256_hex(text.as_bytes()));

    let (status, _, error) = outputs(&lab, json!({ "columns": ["item"], "rows": [["a"], ["b", 1]], "x": 1 })).await;
    assert_eq!((status.as_str(), &error["code"]), ("failed", &json!("invalid_inputs")));
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains("inputs.rows[1]: must be a list") && message.contains("inputs.x"), "{message}");
    lab.assert_invariants().await;
}
