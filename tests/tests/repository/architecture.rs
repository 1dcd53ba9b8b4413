//! Checks that each room imports only the rooms that CONTRIBUTING.md allows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use shared::domain::tool::HANDLERS;

/// The rooms of a crate, and the rooms that each may import.
type AllowedImports = [(&'static str, &'static [&'static str])];

const SHARED: &AllowedImports = &[
    ("domain", &[]),
    ("view", &["domain"]),
    ("error", &["domain"]),
    ("config", &["domain", "error"]),
    ("telemetry", &["error"]),
    ("db", &["domain", "view", "error", "config"]),
    ("queue", &["domain", "error"]),
    ("storage", &["domain", "error"]),
    ("secrets", &["error"]),
    ("auth", &["config", "domain", "error"]),
    ("invoke", &["error"]),
    ("signing", &["config", "domain", "error"]),
    ("encryption", &["signing"]),
    ("context", &["config", "db", "error", "queue", "secrets", "signing", "storage"]),
    ("flow", &["context", "db", "domain", "error", "queue", "signing", "storage", "telemetry", "view"]),
    ("worker", &["context", "db", "domain", "error", "flow", "queue", "storage", "telemetry"]),
    ("http", &["auth", "config", "context", "db", "domain", "error", "telemetry", "view"]),
];

const LOCAL: &AllowedImports = &[
    ("report", &[]),
    ("port", &[]),
    ("function", &[]),
    ("checkout", &["report"]),
    ("process", &["report"]),
    ("throwaway", &["checkout", "process"]),
    ("tools", &["checkout", "process", "report"]),
    ("database", &["report"]),
    ("migrate", &["database", "report"]),
    ("postgres", &["checkout", "database", "process", "report", "tools"]),
    ("issuer", &[]),
    ("model", &["checkout"]),
    ("aws", &["checkout", "function", "port", "process", "report", "tools"]),
    ("lambda", &["aws", "function", "port", "process", "report"]),
    ("gateway", &["aws", "checkout", "process"]),
    (
        "stack",
        &[
            "aws",
            "checkout",
            "database",
            "gateway",
            "function",
            "issuer",
            "lambda",
            "migrate",
            "model",
            "port",
            "postgres",
            "process",
            "report",
            "throwaway",
            "tools",
        ],
    ),
];

const CLI: &AllowedImports = &[
    ("client", &[]),
    ("output", &["client"]),
    ("deploy", &[]),
    // Completions and man pages describe the whole command line.
    ("commands", &["cli", "client", "deploy", "output"]),
    ("cli", &["client", "commands", "output"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rust files below a folder, without tests: relative path and text.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut to_visit = vec![folder.to_owned()];
    while let Some(next) = to_visit.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                to_visit.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap();
                if !name.ends_with("tests.rs") {
                    found.push((name, text));
                }
            }
        }
    }
    found
}

/// The code of a file, without comments and tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn room(file: &str) -> String {
    file.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
}

/// The first names after `krate::`, including those in `use krate::{a, b::c}`.
fn rooms_named(code: &str, krate: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut named = BTreeSet::new();
    for after in code.split(&format!("{krate}::")).skip(1) {
        match after.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            named.insert(name(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => {
                named.insert(name(after));
            }
        }
    }
    named
}

#[test]
fn imports_are_parsed() {
    let named = rooms_named("use crate::{a, b::{c, d}, e};\nfn f() { crate::g::h() }", "crate");
    assert_eq!(named, ["a", "b", "e", "g"].map(str::to_owned).into());
}

fn assert_imports(folder: &str, allowed_imports: &AllowedImports, min_files: usize) {
    let allowed: BTreeMap<_, _> = allowed_imports.iter().copied().collect();
    let mut files = 0;
    for (file, text) in sources(&root().join(folder)) {
        let from = room(&file);
        if from == "lib" || from == "main" {
            continue;
        }
        let allowed =
            allowed.get(from.as_str()).unwrap_or_else(|| panic!("{folder}/{file} is in a room that is not listed"));
        for to in rooms_named(&code(&text), "crate") {
            assert!(
                to == from || allowed.contains(&to.as_str()),
                "{folder}/{file} imports {to}; {from} may import {allowed:?}"
            );
        }
        files += 1;
    }
    assert!(files >= min_files, "only {files} files in {folder}; did the sources move?");
}

#[test]
fn the_rooms_of_shared_import_only_allowed_rooms() {
    assert_imports("shared/src", SHARED, 25);
}

#[test]
fn the_rooms_of_the_local_stack_import_only_allowed_rooms() {
    assert_imports("local/src", LOCAL, 30);
}

#[test]
fn the_rooms_of_the_command_import_only_allowed_rooms() {
    assert_imports("cli/src", CLI, 20);
}

#[test]
fn the_api_client_does_not_need_the_local_stack() {
    for (file, text) in sources(&root().join("cli/src/client")) {
        let named = rooms_named(&code(&text), "nofx_local");
        assert!(
            named.iter().all(|room| room == "report"),
            "cli/src/client/{file} imports {named:?} of the local stack"
        );
    }
}

#[test]
fn contributing_lists_these_rooms() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    for (room, allowed) in SHARED {
        let names: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let row = format!("| `{room}` | {names} |");
        assert!(page.contains(&row), "CONTRIBUTING.md has no row {row}");
    }
}

#[test]
fn the_domain_is_pure() {
    let impure = [
        "async ",
        ".await",
        "tokio",
        "aws_",
        "std::env",
        "std::fs",
        "SystemTime",
        "Instant",
        "now_v7",
        "new_v4",
        "fastrand",
        "tracing",
    ];
    for (file, text) in sources(&root().join("shared/src/domain")) {
        for word in impure {
            assert!(!code(&text).contains(word), "domain/{file} has {word}");
        }
    }
}

#[test]
fn only_one_file_of_shared_reads_the_environment() {
    let readers: Vec<_> = sources(&root().join("shared/src"))
        .into_iter()
        .filter(|(_, text)| code(text).contains("env::var") || code(text).contains("env::vars"))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(readers, ["config.rs"]);
}

/// Starts of SQL statements, and calls that send them.
const SQL: [&str; 17] = [
    "\"select ",
    "\"insert into ",
    "\"update nofx.",
    "\"delete from ",
    "\"with source as ",
    "\"begin",
    "\"create schema ",
    "\"create table ",
    "\"set local ",
    "\"set constraints ",
    "\"reset role",
    "\"discard all",
    ".query_typed(",
    ".query_one(",
    ".simple_query(",
    ".batch_execute(",
    ".prepare(",
];

/// Places outside `shared/src/db` that may have SQL, and why.
const SQL_EXCEPTIONS: [(&str, &str); 2] = [
    ("functions/db_write/src/statement.rs", "builds the statement from a plan's table and columns"),
    ("local/src/migrate/", "applies migrations and records them"),
];

/// The SQL in a file. Ignores line breaks before a statement.
fn sql_in(text: &str) -> Vec<&'static str> {
    let code = code(text).to_lowercase();
    let words = code.split_whitespace().collect::<Vec<_>>().join(" ").replace("\" ", "\"");
    SQL.into_iter().filter(|sql| words.contains(sql)).collect()
}

#[test]
fn sql_is_only_in_the_database_room() {
    assert_eq!(sql_in("let sql = \"\n    SELECT 1\"; client.query_typed(sql, &[])"), ["\"select ", ".query_typed("]);
    let mut files = 0;
    let mut used = BTreeSet::new();
    for folder in ["shared/src", "functions", "cli/src", "local/src"] {
        for (file, text) in sources(&root().join(folder)) {
            let file = format!("{folder}/{file}");
            if file.starts_with("shared/src/db/") || file.contains("/tests/") {
                continue;
            }
            files += 1;
            let found = sql_in(&text);
            let allowed = SQL_EXCEPTIONS.into_iter().find(|(place, _)| file.starts_with(place));
            match allowed {
                Some((place, _)) if !found.is_empty() => drop(used.insert(place)),
                _ => assert!(found.is_empty(), "{file} has SQL: {found:?}; move it to shared/src/db"),
            }
        }
    }
    assert!(files > 150, "only {files} files found; did the sources move?");
    assert_eq!(used.len(), SQL_EXCEPTIONS.len(), "an exception is no longer needed; only these are: {used:?}");
}

#[test]
fn handlers_never_see_the_database() {
    // The exception runs in the transaction that also finishes its step.
    for function in HANDLERS.iter().map(|handler| handler.name).filter(|name| *name != "db_write") {
        for (file, text) in sources(&root().join("functions").join(function).join("src")) {
            for word in ["shared::db", "tokio_postgres", "shared::flow", "ctx.db"] {
                assert!(!code(&text).contains(word), "functions/{function}/src/{file} has {word}");
            }
        }
    }
}

#[test]
fn functions_never_depend_on_each_other() {
    let folders: Vec<PathBuf> = fs::read_dir(root().join("functions"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    assert!(folders.len() >= 9, "{folders:?}");
    let manifest = |folder: &Path| fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let mut names: BTreeSet<String> = folders.iter().map(|folder| package(&manifest(folder))).collect();
    // Nor may they depend on crates for development.
    names.extend(["nofx-local", "nofx"].map(str::to_owned));
    for folder in &folders {
        let text = manifest(folder);
        for dependency in dependencies(&text) {
            assert!(!names.contains(&dependency), "{} depends on {dependency}", package(&text));
        }
    }
    let shared = fs::read_to_string(root().join("shared/Cargo.toml")).unwrap();
    for dependency in dependencies(&shared) {
        assert!(!names.contains(&dependency), "shared depends on the function {dependency}");
    }
}

fn package(manifest: &str) -> String {
    let line = manifest.lines().find(|line| line.starts_with("name = ")).expect("a package has a name");
    line.trim_start_matches("name = ").trim_matches('"').to_owned()
}

/// Names in all sections of dependencies, including those for tests and builds.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut listed = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            listed = section.ends_with("dependencies");
            // [dependencies.name]
            if let Some((_, name)) = section.split_once("dependencies.") {
                found.insert(name.to_owned());
            }
        } else if listed && line.contains('=') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.insert(name.trim_matches('"').to_owned());
        }
    }
    found
}
