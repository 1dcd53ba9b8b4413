//! Files that a configuration, a script or a gate's command names: what they extend, import, or run.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::lex::{self, Language, Token, TokenKind};
use super::super::meaning;
use super::kinds::{self, Form};
use super::package;
use crate::definition::Definition;
use crate::snapshot::Snapshot;

const MAX_BYTES: u64 = 2 * 1024 * 1024;
/// Keys of configurations whose strings name files that are loaded.
const KEYS: [&str; 16] = [
    "setupFiles",
    "setupFilesAfterEnv",
    "globalSetup",
    "globalTeardown",
    "reporters",
    "testEnvironment",
    "transform",
    "preset",
    "runner",
    "resolver",
    "extends",
    "require",
    "import",
    "snapshotSerializers",
    "testSequencer",
    "environment",
];
/// Flags whose value is a file of settings or code.
const FLAGS: [&str; 18] = [
    "--config",
    "-c",
    "--project",
    "-p",
    "--require",
    "-r",
    "--import",
    "--loader",
    "--rcfile",
    "--ignore-path",
    "--config-file",
    "--setupFiles",
    "--globalSetup",
    "--configuration",
    "--rulesdir",
    "--resolve-plugins-relative-to",
    "--env-file",
    "--plugin",
];
const INTERPRETERS: [&str; 12] =
    ["node", "tsx", "ts-node", "sh", "bash", "python", "python3", "bun", "deno", "zsh", "ruby", "perl"];

pub fn files(snapshot: &Snapshot, definition: &Definition) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for gate in definition.gates.values() {
        named_by_command(snapshot, &gate.directory, &gate.command, definition, &mut found);
    }
    for stub in definition.stubs.values() {
        named_by_command(snapshot, &stub.directory, &stub.command, definition, &mut found);
    }
    let mut to_visit: Vec<(String, u32)> = Vec::new();
    for path in snapshot.files().keys() {
        match kinds::form(path, definition) {
            Some(Form::Package) => {
                for script in gate_scripts(snapshot, path) {
                    let words = shlex::split(&script)
                        .unwrap_or_else(|| script.split_whitespace().map(ToOwned::to_owned).collect());
                    named_by_command(snapshot, folder(path), &words, definition, &mut found);
                }
                to_visit.push((path.clone(), 0));
            }
            Some(Form::TsConfig) if !path.contains('/') => to_visit.push((path.clone(), 0)),
            Some(Form::Script | Form::Json | Form::Lines) => to_visit.push((path.clone(), 0)),
            _ => {}
        }
    }
    to_visit.extend(found.iter().map(|path| (path.clone(), 0)));
    let mut seen = BTreeSet::new();
    while let Some((path, depth)) = to_visit.pop() {
        const MAX_DEPTH: u32 = 8;
        // What a setup file imports is often the program itself, so imports are followed from configurations alone.
        let is_code = kinds::form_by_language(&path) == Form::Script && kinds::form(&path, definition).is_none();
        if depth > MAX_DEPTH || is_code || !seen.insert(path.clone()) {
            continue;
        }
        for named in named_by_file(snapshot, &path) {
            if let Some(file) = resolve(snapshot, folder(&path), &named) {
                found.insert(file.clone());
                to_visit.push((file, depth + 1));
            }
        }
    }
    found
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn read(snapshot: &Snapshot, path: &str) -> Option<String> {
    snapshot.files().get(path).filter(|entry| entry.size <= MAX_BYTES)?;
    String::from_utf8(snapshot.read(path).ok()??).ok()
}

fn gate_scripts(snapshot: &Snapshot, path: &str) -> Vec<String> {
    let Some(package) = read(snapshot, path).as_deref().and_then(meaning::json) else { return Vec::new() };
    let scripts = package.get("scripts").and_then(Value::as_object).cloned().unwrap_or_default();
    let names = package::closure(&scripts);
    scripts
        .iter()
        .filter(|(name, _)| names.contains(*name))
        .filter_map(|(_, text)| text.as_str().map(ToOwned::to_owned))
        .collect()
}

fn named_by_command(
    snapshot: &Snapshot,
    folder: &str,
    words: &[String],
    definition: &Definition,
    found: &mut BTreeSet<String>,
) {
    let mut words: Vec<String> = words.to_vec();
    if let [shell, flag, line] = words.as_slice()
        && matches!(shell.as_str(), "sh" | "bash")
        && flag == "-c"
    {
        words = line.split([' ', ';', '&', '|', '\n']).map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    }
    for (at, word) in words.iter().enumerate() {
        let previous = at.checked_sub(1).and_then(|at| words.get(at)).map(String::as_str);
        let by_flag = FLAGS.iter().find_map(|flag| word.strip_prefix(flag)?.strip_prefix('='));
        let runs = at == 0
            || previous.is_some_and(|word| {
                INTERPRETERS.contains(&word) || FLAGS.contains(&word) || matches!(word, "&&" | "||" | ";")
            });
        let is_script = [".sh", ".bash"].iter().any(|end| word.ends_with(end));
        let name = by_flag.unwrap_or(word);
        if (by_flag.is_some() || runs || is_script)
            && let Some(file) = resolve_exactly(snapshot, folder, name)
            && !definition.tests.matches(&file)
        {
            found.insert(file);
        }
        let implied: &[&str] = match word.as_str() {
            "make" | "gmake" => &["Makefile", "GNUmakefile", "makefile"],
            "just" => &["justfile", "Justfile", ".justfile"],
            "task" => &["Taskfile.yml", "Taskfile.yaml"],
            "nox" => &["noxfile.py"],
            "pre-commit" => &[".pre-commit-config.yaml"],
            _ => &[],
        };
        found.extend(implied.iter().filter_map(|name| resolve(snapshot, folder, name)));
    }
}

/// Relative names of files that a configuration loads.
fn named_by_file(snapshot: &Snapshot, path: &str) -> Vec<String> {
    let Some(text) = read(snapshot, path) else { return Vec::new() };
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("ts" | "mts" | "cts" | "tsx" | "js" | "mjs" | "cjs" | "jsx") => named_by_script(&text),
        Some("yml" | "yaml") => named_by_lines(&text),
        _ => match meaning::json(&text) {
            Some(mut value) => {
                if path.ends_with("package.json")
                    && let Some(fields) = value.as_object_mut()
                {
                    // The rest of package.json names files of the program.
                    let tools = ["jest", "eslintConfig", "mocha", "c8", "nyc", "ava", "babel", "vitest", "prettier"];
                    fields.retain(|key, _| tools.contains(&key.as_str()));
                }
                let mut found = Vec::new();
                named_by_json(&value, false, &mut found);
                found
            }
            None => named_by_lines(&text),
        },
    }
}

fn named_by_lines(text: &str) -> Vec<String> {
    let is_path = |word: &&str| word.starts_with("./") || word.starts_with("../");
    let split = |letter: char| letter.is_whitespace() || "'\",[]:=".contains(letter);
    text.split(split).filter(is_path).map(ToOwned::to_owned).collect()
}

fn named_by_json(value: &Value, counts: bool, found: &mut Vec<String>) {
    match value {
        Value::String(text) if counts => found.push(text.replace("<rootDir>/", "./")),
        Value::Array(items) => items.iter().for_each(|item| named_by_json(item, counts, found)),
        Value::Object(fields) => fields.iter().for_each(|(key, item)| {
            let names = KEYS.contains(&key.as_str()) || key == "references";
            named_by_json(item, names || (counts && key == "path"), found);
        }),
        _ => {}
    }
}

/// Relative imports, and the strings after the keys that load files.
fn named_by_script(text: &str) -> Vec<String> {
    let tokens = lex::code(Language::Script, text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = |offset: usize| tokens.get(at + offset);
        let string = |token: Option<&Token<'_>>| {
            token
                .filter(|token| token.kind == TokenKind::Text)
                .map(|token| token.unquoted().replace("<rootDir>/", "./"))
        };
        match token.text {
            "from" | "import" => {
                let call = usize::from(next(1).is_some_and(|token| token.is_mark('(')));
                found.extend(string(next(1 + call)).filter(|name| name.starts_with('.')));
            }
            "require" if next(1).is_some_and(|token| token.is_mark('(')) => {
                found.extend(string(next(2)).filter(|name| name.starts_with('.')));
            }
            key if KEYS.contains(&key.trim_matches(['"', '\''])) && next(1).is_some_and(|token| token.is_mark(':')) => {
                let end = tokens.get(at + 2).map_or(at + 3, |open| {
                    if matches!(open.text, "[" | "{") {
                        super::super::ignores::closing(&tokens, at + 2)
                    } else {
                        at + 3
                    }
                });
                let values = tokens.get(at + 2..end).unwrap_or_default();
                found.extend(values.iter().filter_map(|token| string(Some(token))).filter(|name| !name.is_empty()));
            }
            _ => {}
        }
    }
    found
}

/// The file that a word of a command means: itself, or the settings of a folder of TypeScript.
fn resolve_exactly(snapshot: &Snapshot, folder: &str, name: &str) -> Option<String> {
    let path = join(folder, name)?;
    [path.clone(), format!("{path}/tsconfig.json")].into_iter().find(|path| snapshot.files().contains_key(path))
}

/// The file of the workspace that a name means, as tools look for it.
fn resolve(snapshot: &Snapshot, folder: &str, name: &str) -> Option<String> {
    const ENDINGS: [&str; 12] = [
        "",
        ".json",
        ".ts",
        ".mts",
        ".js",
        ".mjs",
        ".cjs",
        ".tsx",
        "/tsconfig.json",
        "/index.js",
        "/index.ts",
        "/package.json",
    ];
    let path = join(folder, name)?;
    // TypeScript writes `./a.js` for a.ts.
    let without = path.strip_suffix(".js").or_else(|| path.strip_suffix(".mjs")).map(|stem| format!("{stem}.ts"));
    let names = ENDINGS.iter().map(|ending| format!("{path}{ending}")).chain(without);
    names.into_iter().find(|name| snapshot.files().contains_key(name))
}

/// A path relative to a folder. `None` if it leaves the workspace.
fn join(folder: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    (!path.is_empty()).then_some(path)
}
