//! Executes the examples of the README and of `docs` on a running stack, page by page and block by block.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use nofx_tests::catalogue::{Catalogue, shape};
use nofx_tests::database::connect_to;
use nofx_tests::documents::{Block, Document};
use serde_json::Value;
use tokio_postgres::Client;

use super::stack::{Stack, cargo_run};

/// The API's address in the documents.
const DOCUMENTED_API: &str = "http://127.0.0.1:3000";

/// Defines the commands of the documents, stricter than on a user's machine: a response that is not 2xx and a missing id
/// fail the block. `make` runs dry, because it would start these suites. Python replaces jq, which this repository does
/// not require.
const PRELUDE: &str = r#"
set -euo pipefail
nofx() { target/debug/nofx "$@"; }
curl() { command curl --fail --show-error --max-time 60 "$@"; }
make() { command make --dry-run "$@"; }
jq() { python3 -c '
import json, re, sys
value = json.load(sys.stdin)
for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", sys.argv[-1]):
    value = value[key] if key else (value[int(index):] or [{"id": None}])[0]
sys.exit("no such value") if value is None else print(value)
' "$@"; }
"#;

/// Executes blocks on a stack.
struct Runner<'a> {
    stack: &'a Stack,
    state: &'a Path,
    database_url: String,
    database: Client,
}

/// Executes every block of every page.
pub async fn execute_all(stack: &Stack, state: &Path) {
    let runner = Runner::new(stack, state).await;
    for document in Document::all() {
        for block in document.blocks() {
            runner.execute(&block, &format!("{}:{}", document.path, block.line)).await;
        }
    }
}

impl<'a> Runner<'a> {
    async fn new(stack: &'a Stack, state: &'a Path) -> Self {
        let script = r#"eval "$(target/debug/nofx env)"; printf %s "$DATABASE_URL""#;
        let printed = bash(script, state).output().expect("run bash");
        let database_url = text_of(&printed);
        let database = connect_to(&database_url).await;
        Self { stack, state, database_url, database }
    }

    async fn execute(&self, Block { language, text, .. }: &Block, place: &str) {
        match language.as_str() {
            "sh" => self.run_in_shell(text, place).await,
            "sql" => self.database.batch_execute(text).await.unwrap_or_else(|error| panic!("{place}: {error:?}")),
            "json" => self.submit_or_compare(text, place).await,
            // `gate_examples` of the repository suite reads TOML.
            "text" | "toml" => {}
            other => panic!("{place}: no executor for {other:?}"),
        }
    }

    /// The commands must exit with 0, and the runs that they create must not fail.
    async fn run_in_shell(&self, text: &str, place: &str) {
        let before = self.runs().await;
        let commands = text.replace(DOCUMENTED_API, &self.stack.at(""));
        let mut shell = bash(&format!("{PRELUDE}{commands}"), self.state);
        shell.env("NOFX_API_URL", self.stack.at("")).env("DATABASE_URL", &self.database_url);
        let output = tokio::task::spawn_blocking(move || shell.output()).await.expect("bash").expect("run bash");
        assert!(output.status.success(), "{place}:\n{}", text_of(&output));
        for run in self.runs().await.difference(&before) {
            self.assert_not_failed(run, place).await;
        }
    }

    /// Submits a plan, whose run must not fail. Compares an event with the catalogue and with a timeline.
    async fn submit_or_compare(&self, text: &str, place: &str) {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"));
        if value["plan"].is_object() {
            let run = self.stack.submit(&value).await;
            self.assert_not_failed(&run, place).await;
            return;
        }
        let kind = value["type"].as_str().unwrap_or_else(|| panic!("{place}: neither a plan nor an event"));
        let problems = Catalogue::read().problems(kind, &shape(&value["payload"]));
        assert!(problems.is_empty(), "{place}: {problems:?}");
        let run = self.runs().await.pop_first().expect("a run");
        let timeline = self.stack.get(&format!("/runs/{run}/timeline")).await;
        assert_eq!(shape(&value).keys().collect::<Vec<_>>(), shape(&timeline[0]).keys().collect::<Vec<_>>(), "{place}");
    }

    /// The run succeeds, or an example cancels it or leaves a gate undecided.
    async fn assert_not_failed(&self, run: &str, place: &str) {
        let ended = self.stack.until(run, &["succeeded", "failed", "cancelled", "blocked"]).await;
        assert_ne!(ended["run"]["status"], "failed", "{place}: {ended}");
    }

    async fn runs(&self) -> BTreeSet<String> {
        let runs = self.stack.get("/runs?limit=1000").await;
        let ids = runs["runs"].as_array().expect("runs").iter();
        ids.map(|run| run["id"].as_str().expect("an id").to_owned()).collect()
    }
}

/// Checks the subcommands, options and make targets in sentences.
#[test]
fn every_command_in_a_sentence_exists() {
    let state = tempfile::tempdir().expect("a folder");
    let mut options: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for document in Document::all() {
        for command in document.commands("nofx") {
            let words: Vec<_> = command.split(' ').map(|word| word.trim_matches(['[', ']'])).skip(1).collect();
            let is_name = |word: &&&str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-');
            let names = words.iter().take_while(|word| !word.starts_with("--")).take_while(is_name);
            let given = words.iter().filter(|word| word.starts_with("--") && word.len() > 2);
            options.entry(names.map(ToString::to_string).collect()).or_default().extend(given.map(ToString::to_string));
        }
        for command in document.commands("make") {
            let words = command.split(' ').skip(1);
            let made = Command::new("make").arg("--dry-run").args(words).current_dir(root()).output();
            let made = made.expect("run make");
            assert!(made.status.success(), "{}: {command}: {}", document.path, text_of(&made));
        }
    }
    assert!(options.len() > 10, "{options:?}");
    for (names, given) in options {
        let arguments: Vec<_> = names.iter().map(String::as_str).chain(["--help"]).collect();
        let help = cargo_run(state.path(), &arguments).output().expect("run nofx");
        assert!(help.status.success(), "{names:?}: {}", text_of(&help));
        let help = text_of(&help);
        let known: Vec<_> = help.split([' ', '\n', ',']).collect();
        for option in given {
            assert!(known.contains(&option.as_str()), "nofx {names:?} has no {option}");
        }
    }
}

fn bash(script: &str, state: &Path) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(root()).env("NOFX_STATE_DIR", state);
    command.env_remove("DATABASE_URL").env_remove("AWS_ENDPOINT_URL");
    command
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
