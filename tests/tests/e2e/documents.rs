//! Executes the examples of every page on a running stack: block by block, each page in a new folder.
//!
//! `PAGES=docs/tutorial.md,README.md` executes these pages alone.

mod repository;
mod shell;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use nofx_tests::catalogue::{Catalogue, shape};
use nofx_tests::database::connect_to;
use nofx_tests::documents::{Block, Document, output};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::stack::{Stack, cargo_run, free_port};
use shell::{Script, Shell};
use tools::Tools;

/// The API's address in the documents.
const DOCUMENTED_API: &str = "http://127.0.0.1:3000";

#[tokio::test]
async fn every_example_of_every_page_works() {
    let state = tempfile::tempdir().expect("a folder");
    let mut stack = Stack::start(state.path(), free_port()).await;
    let runner = Runner::new(&stack, state.path()).await;
    let wanted = env::var("PAGES").unwrap_or_default();
    let is_wanted = |page: &Document| wanted.is_empty() || wanted.split(',').any(|path| path == page.path);
    let pages: Vec<_> = Document::all().into_iter().filter(is_wanted).collect();
    assert!(!pages.is_empty(), "no page has the path {wanted}");
    for page in &pages {
        runner.execute(page).await;
    }
    drop(runner);
    stack.stop();
}

/// Executes pages on a stack.
struct Runner<'a> {
    stack: &'a Stack,
    state: &'a Path,
    tools: Tools,
    /// The environment of the functions, as `nofx env` prints it.
    functions_env: PathBuf,
    database_url: String,
    database: Client,
    folder: TempDir,
}

/// A page while it is executed.
struct Page<'a> {
    path: &'a str,
    /// Where its commands run.
    work: PathBuf,
    git_config: PathBuf,
    shell: Shell,
    /// What the commands of the last block printed.
    printed: Option<String>,
}

impl<'a> Runner<'a> {
    async fn new(stack: &'a Stack, state: &'a Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tools = Tools::install(folder.path(), root()).await;
        let printed = cargo_run(state, &["env"]).output().expect("run nofx env");
        let functions_env = folder.path().join("functions.env");
        fs::write(&functions_env, &printed.stdout).expect("write it");
        let script = format!(". '{}'; printf %s \"$DATABASE_URL\"", functions_env.display());
        let printed = Command::new("bash").args(["-c", &script]).output().expect("run bash");
        let database_url = String::from_utf8(printed.stdout).expect("a URL");
        let database = connect_to(&database_url).await;
        Self { stack, state, tools, functions_env, database_url, database, folder }
    }

    /// Executes every block of a page, in order.
    async fn execute(&self, document: &Document) {
        let files = self.folder.path().join(document.path.replace('/', "-"));
        let work = files.join("work");
        fs::create_dir_all(&work).expect("a folder");
        let shell = Shell::start(self.bash(&work), &files).await.expect("start bash");
        let git_config = self.tools.git_config.clone();
        let mut page = Page { path: &document.path, work, git_config, shell, printed: None };
        for block in document.blocks() {
            self.execute_block(&mut page, &block).await;
        }
        self.restore_policy().await;
    }

    async fn execute_block(&self, page: &mut Page<'_>, block: &Block) {
        let place = format!("{}:{}", page.path, block.line);
        let text = &block.text;
        match block.language.as_str() {
            "sh" => self.run_in_shell(page, block, &place).await,
            "python" => {
                let command = format!("'{}' - <<'END'\n{text}END\n", self.tools.python.display());
                let printed = page.run(block, &command).await;
                page.printed = Some(printed.unwrap_or_else(|error| panic!("{place}: {error}")));
            }
            "output" => {
                let printed = page.printed.as_ref().unwrap_or_else(|| panic!("{place}: no commands before"));
                let wrong = output::difference(text, printed);
                assert_eq!(wrong, None, "{place}: the page is wrong. Printed:\n{printed}");
            }
            "sql" => self.database.batch_execute(text).await.unwrap_or_else(|error| panic!("{place}: {error:?}")),
            "yaml" => {
                fs::write(page.work.join("plan.yaml"), text).expect("write it");
                let checked = page.run(block, "nofx plan check plan.yaml").await;
                checked.unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            "json" => self.submit_or_compare(block, &place).await,
            // The repository suite knows these blocks.
            "console" | "rust" | "text" | "toml" => {}
            other => panic!("{place}: no executor for {other:?}"),
        }
    }

    /// The commands must end as the block says. The runs that they create must not fail, unless the block is about a failure.
    async fn run_in_shell(&self, page: &mut Page<'_>, block: &Block, place: &str) {
        let before = self.runs().await;
        let printed = page.run(block, &block.text.replace(DOCUMENTED_API, &self.stack.at(""))).await;
        page.printed = Some(printed.unwrap_or_else(|error| panic!("{place}: {error}")));
        if block.attribute("exit").is_none() {
            for run in self.runs().await.difference(&before) {
                self.assert_not_failed(run, place).await;
            }
        }
    }

    /// Submits a plan, whose run must not fail, or sets a policy. Compares an event with the catalogue and with a timeline.
    async fn submit_or_compare(&self, block: &Block, place: &str) {
        let value: Value = serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
        if value["plan"].is_object() {
            let run = self.stack.submit(&value).await;
            self.assert_not_failed(&run, place).await;
        } else if value["approvals"].is_object() || value["models"].is_object() || value["artifacts"].is_object() {
            // Under it, the one person of the stack could not decide the gates of later blocks, or a budget would bind them.
            let before = self.stack.get("/policy").await["document"].as_object().cloned().unwrap_or_default();
            for document in [value, before.into()] {
                let (status, answer) = self.stack.put("/policy", &json!({"document": document})).await;
                assert_eq!(status, 200, "{place}: {answer}");
            }
        } else if value["gates"].is_object() {
            let (status, answer) = self.stack.put("/policy", &json!({"document": value})).await;
            assert_eq!(status, 200, "{place}: {answer}");
        } else {
            let kind = value["type"].as_str().unwrap_or_else(|| panic!("{place}: no plan, policy or event"));
            let problems = Catalogue::read().problems(kind, &shape(&value["payload"]));
            assert!(problems.is_empty(), "{place}: {problems:?}");
            let run = self.runs().await.pop_first().expect("a run");
            let timeline = self.stack.get(&format!("/runs/{run}/timeline")).await;
            let keys = |value: &Value| shape(value).into_keys().collect::<Vec<_>>();
            assert_eq!(keys(&value), keys(&timeline[0]), "{place}");
        }
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

    /// The next page's gates are judged without the policy of this one.
    async fn restore_policy(&self) {
        if self.stack.get("/policy").await["document"] != json!({}) {
            let (status, answer) = self.stack.put("/policy", &json!({"document": {}})).await;
            assert_eq!(status, 200, "{answer}");
        }
    }

    /// The environment of somebody who works with this stack.
    fn bash(&self, work: &Path) -> tokio::process::Command {
        let mut bash = tokio::process::Command::new("bash");
        let path = env::var("PATH").unwrap_or_default();
        bash.current_dir(work).env("PATH", format!("{}:{path}", self.tools.bin.display()));
        bash.env("NOFX_STATE_DIR", self.state).env("NOFX_API_URL", self.stack.at(""));
        bash.env("DATABASE_URL", &self.database_url).env("GIT_CONFIG_GLOBAL", &self.tools.git_config);
        bash.env("NOFX_AWS_CLI", &self.tools.aws).env("NOFX_FUNCTIONS_ENV", &self.functions_env);
        // Not what the person who runs the tests keeps there.
        bash.env("NOFX_CONFIG", work.with_file_name("config.toml"));
        bash.env_remove("AWS_ENDPOINT_URL");
        bash
    }
}

impl Page<'_> {
    /// Runs commands as the block says. Line numbers in messages are those of the page.
    async fn run(&mut self, block: &Block, commands: &str) -> Result<String, String> {
        let file = self.work.with_file_name(format!("{}-{}.sh", self.path.replace('/', "-"), block.line));
        fs::write(&file, format!("{}{commands}", "\n".repeat(block.line))).map_err(|error| error.to_string())?;
        let exit = block.attribute("exit").map_or(0, |status| status.parse().expect("an exit status"));
        let folder = match () {
            () if block.has("checkout") => Some(root().to_owned()),
            () if block.has("repository") => Some(self.repository()),
            () => None,
        };
        self.shell.run(&Script { file: &file, folder: folder.as_deref(), exit }).await
    }

    /// The repository that stands for the reader's.
    fn repository(&self) -> PathBuf {
        let folder = self.work.with_file_name("repository");
        if !folder.exists() {
            repository::create(&folder, &self.git_config);
        }
        folder
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
            let said = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "{}: {command}: {said}", document.path);
        }
    }
    assert!(options.len() > 10, "{options:?}");
    for (names, given) in options {
        let arguments: Vec<_> = names.iter().map(String::as_str).chain(["--help"]).collect();
        let help = cargo_run(state.path(), &arguments).output().expect("run nofx");
        assert!(help.status.success(), "{names:?}: {}", String::from_utf8_lossy(&help.stderr));
        let help = String::from_utf8_lossy(&help.stdout);
        let known: Vec<_> = help.split([' ', '\n', ',']).collect();
        for option in given {
            assert!(known.contains(&option.as_str()), "nofx {names:?} has no {option}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
