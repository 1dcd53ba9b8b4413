//! What the pages show is executed or checked, and every page can be found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nofx_tests::documents::{Block, Document};

/// Languages of blocks that the e2e suite executes, and of those that this suite reads (`rust`, `toml`).
const CHECKED: [&str; 8] = ["json", "output", "python", "rust", "sh", "sql", "toml", "yaml"];

/// Blocks of commands that no test executes, by page and first line, and why.
const NOT_EXECUTED: [(&str, &str, &str); 6] = [
    ("docs/cli.md", "$ nofx login --email ann@example.com", "asks for a password"),
    ("docs/cli.md", ".local/py/bin/cargo-lambda lambda watch -A 127.0.0.1 -P 3000", "runs until it is stopped"),
    (
        "docs/coverage.md",
        "nofx gate coverage --report coverage/coverage-final.json --diff change.diff --root .",
        "judges a report of the reader's repository",
    ),
    (
        "docs/deploying.md",
        "aws secretsmanager put-secret-value --secret-id LLM_SECRET --secret-string '{\"OPENAI_API_KEY\": \"..\", \"ANTHROPIC_API_KEY\": \"..\"}'",
        "needs the stack on AWS",
    ),
    (
        "docs/deploying.md",
        "nofx dev --auth --user ann@local.test=operator --user ben@local.test=approver",
        "runs until it is stopped",
    ),
    ("docs/deploying.md", "eval \"$(target/debug/nofx env)\"", "runs until it is stopped"),
];

/// Words with which a line of commands starts.
const PROGRAMS: [&str; 20] = [
    "$", "aws", "brew", "cargo", "cd", "curl", "docker", "eval", "export", "git", "make", "node", "nofx", "npm", "npx",
    "openssl", "pip", "psql", "python3", "sudo",
];

fn blocks() -> Vec<(String, Block)> {
    let documents = Document::all();
    assert!(documents.len() > 30, "pages are missing");
    let of = |document: &Document| {
        let path = document.path.clone();
        document.blocks().into_iter().map(move |block| (path.clone(), block)).collect::<Vec<_>>()
    };
    documents.iter().flat_map(of).collect()
}

#[test]
fn every_block_is_checked_or_shows_no_commands() {
    let mut checked = 0;
    for (page, Block { line, language, text, .. }) in blocks() {
        match language.as_str() {
            "console" => {}
            "text" => {
                let is_command = |line: &&str| PROGRAMS.contains(&line.split(' ').next().unwrap_or_default());
                let command = text.lines().find(is_command);
                assert_eq!(command, None, "{page}:{line}: mark commands as sh, so that a test executes them");
            }
            other => {
                assert!(CHECKED.contains(&other), "{page}:{line}: nothing checks {language:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "{checked} blocks");
}

#[test]
fn blocks_of_commands_that_no_test_executes_are_listed() {
    let console = blocks().into_iter().filter(|(_, block)| block.language == "console");
    let first_line = |block: &Block| block.text.lines().next().unwrap_or_default().to_owned();
    let found: Vec<_> = console.map(|(page, block)| (page, first_line(&block))).collect();
    let listed: Vec<_> = NOT_EXECUTED.iter().map(|(page, line, _)| ((*page).to_owned(), (*line).to_owned())).collect();
    assert_eq!(found, listed, "list the blocks in the order of the pages, each with its reason");
}

/// A typing mistake in an attribute would weaken a test.
#[test]
fn attributes_of_blocks_are_known() {
    for (page, block) in blocks() {
        for attribute in &block.attributes {
            let is_known = match block.language.as_str() {
                "sh" => {
                    ["checkout", "repository"].contains(&attribute.as_str())
                        || attribute.strip_prefix("exit=").is_some_and(is_failure)
                }
                "rust" => attribute.starts_with("file="),
                _ => false,
            };
            assert!(is_known, "{page}:{}: {attribute}", block.line);
        }
    }
}

/// So what a page shows is built and tested, and stays what it is.
#[test]
fn blocks_of_rust_are_excerpts_of_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut excerpts = 0;
    for (page, block) in blocks().into_iter().filter(|(_, block)| block.language == "rust") {
        let file =
            block.attribute("file").unwrap_or_else(|| panic!("{page}:{}: name the file of the excerpt", block.line));
        let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&block.text), "{page}:{}: this is not in {file}", block.line);
        excerpts += 1;
    }
    assert!(excerpts > 4, "only {excerpts} excerpts");
}

fn is_failure(status: &str) -> bool {
    status.parse::<u8>().is_ok_and(|status| status > 0)
}

#[test]
fn the_table_of_contents_lists_every_page() {
    let documents: BTreeMap<String, Document> =
        Document::all().into_iter().map(|document| (document.path.clone(), document)).collect();
    let contents = documents["docs/README.md"].text();
    let links = contents.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let linked: BTreeSet<String> = links.map(|link| format!("docs/{link}")).collect();
    let is_listed = |path: &&String| path.starts_with("docs/") && !path.starts_with("docs/decisions/0");
    for path in documents.keys().filter(is_listed).filter(|path| *path != "docs/README.md") {
        assert!(linked.contains(path), "docs/README.md has no link to {path}");
    }
}

/// The first paragraph says what the page is for.
#[test]
fn every_page_starts_with_a_short_paragraph() {
    for document in Document::all().iter().filter(|document| !document.path.starts_with("docs/decisions/0")) {
        let mut lines = document.text().lines();
        let title = lines.next().unwrap_or_default();
        assert!(title.starts_with("# "), "{}: a title", document.path);
        let paragraph: Vec<_> = lines.skip(1).take_while(|line| !line.is_empty()).collect();
        let is_prose =
            paragraph.first().is_some_and(|line| line.starts_with(|c: char| c.is_alphabetic() || c == '`' || c == '['));
        assert!(is_prose && paragraph.len() <= 5, "{}: say in two sentences what the page is for", document.path);
    }
}
