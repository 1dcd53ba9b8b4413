//! Reads `nofx.toml`.

use std::collections::BTreeMap;

use nofx_sandbox::Level;
use toml::de::{DeTable, DeValue};

use super::environment;
use super::gate::{
    CoverageRules, Ecosystem, Format, GateDefinition, Health, Kind, MutantRules, Origin, Place, REPORTS, ReportFile,
    Severity, Stub,
};
use super::problem::Problem;
use super::table::{Document, Table};
use super::{Definition, FILE, Source};
use crate::snapshot::Snapshot;

const MAX_BYTES: usize = 256 * 1024;
const MAX_GATES: usize = 64;
const MAX_TIMEOUT_S: u32 = 24 * 3600;
const ECOSYSTEMS: [(&str, Ecosystem); 5] = [
    ("none", Ecosystem::None),
    ("npm", Ecosystem::Npm),
    ("pip", Ecosystem::Pip),
    ("cargo", Ecosystem::Cargo),
    ("go", Ecosystem::Go),
];

/// Reads the file over what the presets found: its keys replace those of a preset gate with the same name.
pub fn read(snapshot: &Snapshot, presets: Definition) -> Result<Definition, Vec<Problem>> {
    let whole = |message: String| vec![Problem::whole(FILE, message)];
    let bytes = snapshot
        .read(FILE)
        .map_err(|error| whole(format!("cannot be read: {error}")))?
        .ok_or_else(|| whole("is a link; write a file".to_owned()))?;
    if bytes.len() > MAX_BYTES {
        return Err(whole(format!("is larger than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8".to_owned()))?;
    let (root, errors) = DeTable::parse_recoverable(&text);
    let mut document = Document::new(FILE, &text);
    for error in &errors {
        document.problem(error.span().map_or(0, |span| span.start), "", error.message());
    }
    if !errors.is_empty() {
        return Err(document.problems);
    }
    let mut definition = presets;
    read_root(&mut document, Table::new("", 0, root.as_ref()), snapshot, &mut definition);
    document.problems.sort_by_key(|problem| problem.line);
    if document.problems.is_empty() { Ok(definition) } else { Err(document.problems) }
}

fn read_root(document: &mut Document<'_>, mut root: Table<'_, '_>, snapshot: &Snapshot, definition: &mut Definition) {
    definition.source = Source::File;
    if root.boolean(document, "presets") == Some(false) {
        definition.gates.retain(|_, gate| gate.origin == Origin::BuiltIn);
        definition.unusable.clear();
        definition.explanation.clear();
    }
    if let Some(globs) = root.globs(document, "protected") {
        definition.protected = globs;
    }
    if let Some(globs) = root.globs(document, "tests") {
        definition.tests = globs;
    }
    definition.sources = root.globs(document, "sources");
    if let Some(globs) = root.globs(document, "ignore") {
        definition.ignore = globs;
    }
    if let Some(mut stubs) = root.table(document, "stubs") {
        for (name, table) in stubs.tables(document) {
            definition.stubs.extend(read_stub(document, table, snapshot).map(|stub| (name, stub)));
        }
    }
    if let Some(mut gates) = root.table(document, "gates") {
        let at = gates.at();
        for (name, table) in gates.tables(document) {
            read_gate(document, &name, table, snapshot, definition);
        }
        check_mutants(document, at, definition);
        if definition.gates.len() > MAX_GATES {
            document.problem(at, "gates", format!("there are more than {MAX_GATES} gates"));
        }
    }
    root.finish(document);
}

fn read_gate(
    document: &mut Document<'_>,
    name: &str,
    mut table: Table<'_, '_>,
    snapshot: &Snapshot,
    definition: &mut Definition,
) {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        document.problem(
            table.at(),
            &table.key(""),
            "a gate's name has only a-z, 0-9, _ and -, and at most 64 of them",
        );
    }
    let preset = definition.gates.remove(name);
    let had_preset = preset.is_some();
    let mut gate = preset.unwrap_or_else(|| GateDefinition::new(name, Kind::Command, Origin::File));
    gate.origin = Origin::File;
    let kinds =
        [("command", Kind::Command), ("secrets", Kind::Secrets), ("audit", Kind::Audit), ("mutants", Kind::Mutants)];
    if let Some(kind) = table.choice(document, "kind", &kinds) {
        gate.kind = kind;
    }
    if let Some(command) = read_command(document, &mut table) {
        // The reports, the environment and the network of the preset belong to its command.
        gate.command = command;
        gate.network = false;
        gate.reports.clear();
        gate.environment.clear();
        if table.get("kind").is_none() {
            gate.kind = Kind::Command;
        } else if gate.kind != Kind::Command {
            document.problem(table.at(), &table.key("command"), "never runs with this kind; leave out one of them");
        }
    }
    if let Some(directory) = read_directory(document, &mut table, snapshot) {
        gate.directory = directory;
    }
    read_reports(document, &mut table, &mut gate);
    read_coverage(document, &mut table, &mut gate);
    read_limits(document, &mut table, &mut gate);
    if let Some(mutants) = table.table(document, "mutants") {
        gate.mutants = Some(read_mutants(document, mutants, gate.mutants.take()));
    }
    if let Some(allow) = table.globs(document, "allow") {
        gate.allow = allow;
    }
    if gate.kind == Kind::Command && gate.command.is_empty() && table.get("command").is_none() {
        let why = if had_preset { "" } else { ", and no preset has one" };
        document.problem(table.at(), &table.key("command"), format!("is missing{why}"));
    }
    if let Some(stubs) = table.strings(document, "stubs") {
        for stub in stubs.iter().filter(|stub| !definition.stubs.contains_key(*stub)) {
            document.problem(table.at(), &table.key("stubs"), format!("there is no [stubs.{stub}]"));
        }
        gate.stubs = stubs;
    }
    if gate.kind == Kind::Mutants && gate.mutants.is_none() {
        gate.mutants = Some(MutantRules { limit: super::presets::MUTANTS, tests: "unit".to_owned() });
    }
    table.finish(document);
    definition.unusable.remove(name);
    definition.gates.insert(name.to_owned(), gate);
}

fn read_limits(document: &mut Document<'_>, table: &mut Table<'_, '_>, gate: &mut GateDefinition) {
    if let Some(timeout_s) = table.number(document, "timeout_s", 1, MAX_TIMEOUT_S) {
        gate.timeout_s = timeout_s;
    }
    if let Some(network) = table.boolean(document, "network") {
        gate.network = network;
    }
    let severities = [("error", Severity::Error), ("warning", Severity::Warning)];
    if let Some(severity) = table.choice(document, "severity", &severities) {
        gate.severity = severity;
    }
    if let Some(protected) = table.globs(document, "protected") {
        gate.protected = protected;
    }
    let levels = [Level::Limits, Level::Landlock, Level::Namespaces].map(|level| (level.name(), level));
    if let Some(level) = table.choice(document, "sandbox", &levels) {
        gate.sandbox = Some(level);
    }
    if let Some(environment) = read_environment(document, table) {
        gate.environment = environment;
    }
    if let Some(ecosystem) = table.choice(document, "dependencies", &ECOSYSTEMS) {
        gate.dependencies = ecosystem;
    }
}

/// A string is split into words as a shell would, but no shell runs it. With `shell = true`, `sh -c` does.
fn read_command(document: &mut Document<'_>, table: &mut Table<'_, '_>) -> Option<Vec<String>> {
    let shell = table.boolean(document, "shell").unwrap_or(false);
    let value = table.get("command")?;
    let at = value.span().start;
    let key = table.key("command");
    let command = match value.as_ref() {
        DeValue::String(line) if shell => vec!["sh".to_owned(), "-c".to_owned(), line.to_string()],
        DeValue::String(line) => {
            let Some(words) = shlex::split(line) else {
                document.problem(at, &key, "has a quote that does not end");
                return None;
            };
            let operator =
                words.iter().find(|word| matches!(word.as_str(), "&&" | "||" | ";" | "|" | "&" | ">" | "<" | ">>"));
            if let Some(operator) = operator {
                let message =
                    format!("has the operator {operator:?} of a shell, but no shell runs it; add shell = true");
                document.problem(at, &key, message);
                return None;
            }
            words
        }
        DeValue::Array(_) if shell => {
            document.problem(at, &key, "must be a string with shell = true");
            return None;
        }
        _ => table.strings(document, "command")?,
    };
    if command.first().is_none_or(|program| program.trim().is_empty()) || command.iter().any(|word| word.contains('\0'))
    {
        document.problem(at, &key, "names no program");
        return None;
    }
    Some(command)
}

fn read_directory(document: &mut Document<'_>, table: &mut Table<'_, '_>, snapshot: &Snapshot) -> Option<String> {
    let (path, at) = table.string(document, "directory")?;
    let path = path.trim_start_matches("./").trim_end_matches('/');
    let path = if path == "." { "" } else { path };
    let prefix = format!("{path}/");
    let exists = path.is_empty()
        || snapshot.files().range(prefix.clone()..).next().is_some_and(|(file, _)| file.starts_with(&prefix));
    if !is_inside(path) || !exists {
        document.problem(at, &table.key("directory"), format!("{path:?} is no folder of the workspace"));
        return None;
    }
    Some(path.to_owned())
}

/// A relative path that stays below its folder.
fn is_inside(path: &str) -> bool {
    path.is_empty() || (!path.contains(['\\', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn read_reports(document: &mut Document<'_>, table: &mut Table<'_, '_>, gate: &mut GateDefinition) {
    let Some(value) = table.get("reports") else { return };
    let key = table.key("reports");
    let Some(items) = value.as_ref().as_array() else {
        document.problem(value.span().start, &key, "must be a list of tables");
        return;
    };
    gate.reports.clear();
    for (number, item) in items.iter().enumerate() {
        let Some(entries) = item.as_ref().as_table() else {
            document.problem(
                item.span().start,
                &key,
                "must be a list of tables such as { format = \"junit\", path = \"junit.xml\" }",
            );
            continue;
        };
        let mut table = Table::new(&format!("{key}.{number}"), item.span().start, entries);
        let format = table.choice(document, "format", &Format::ALL);
        let place = read_place(document, &mut table);
        if format.is_none() && table.get("format").is_none() {
            document.problem(table.at(), &table.key("format"), "is missing");
        }
        if let (Some(format), Some(place)) = (format, place) {
            gate.reports.push(ReportFile { format, place });
        }
        table.finish(document);
    }
}

fn read_place(document: &mut Document<'_>, table: &mut Table<'_, '_>) -> Option<Place> {
    if table.get("path").is_none() {
        document.problem(table.at(), &table.key("path"), "is missing; name a file, or \"stdout\"");
        return None;
    }
    let (path, at) = table.string(document, "path")?;
    if path == "stdout" {
        return Some(Place::Stdout);
    }
    let fresh = path.strip_prefix(REPORTS).and_then(|rest| rest.strip_prefix('/'));
    let inside = fresh.unwrap_or(&path).trim_start_matches("./");
    if inside.is_empty() || !is_inside(inside) || inside.contains('$') {
        let message = format!("{path:?} must be a path below {REPORTS}/ or below the gate's directory");
        document.problem(at, &table.key("path"), message);
        return None;
    }
    Some(if fresh.is_some() { Place::Fresh(inside.to_owned()) } else { Place::Directory(inside.to_owned()) })
}

fn read_coverage(document: &mut Document<'_>, table: &mut Table<'_, '_>, gate: &mut GateDefinition) {
    let Some(mut table) = table.table(document, "coverage") else { return };
    gate.coverage = Some(CoverageRules {
        threshold: table.ratio(document, "threshold"),
        file_floor: table.ratio(document, "file_floor"),
        strict: table.boolean(document, "strict").unwrap_or(false),
    });
    if !gate.measures_coverage() {
        document.problem(table.at(), &table.key(""), "needs a report with the format istanbul, lcov or cobertura");
    }
    table.finish(document);
}

fn read_mutants(document: &mut Document<'_>, mut table: Table<'_, '_>, preset: Option<MutantRules>) -> MutantRules {
    let preset = preset.unwrap_or(MutantRules { limit: super::presets::MUTANTS, tests: "unit".to_owned() });
    let rules = MutantRules {
        limit: table.number(document, "limit", 1, 10_000).unwrap_or(preset.limit),
        tests: table.string(document, "tests").map_or(preset.tests, |(name, _)| name),
    };
    table.finish(document);
    rules
}

fn read_environment(document: &mut Document<'_>, table: &mut Table<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut table = table.table(document, "environment")?;
    let mut environment = BTreeMap::new();
    for (name, (value, at)) in table.all_strings(document) {
        match environment::refusal(&name) {
            Some(why) => document.problem(at, &table.key(&name), why),
            None if value.contains('\0') => document.problem(at, &table.key(&name), "has a NUL"),
            None => {
                environment.insert(name, value);
            }
        }
    }
    Some(environment)
}

fn read_stub(document: &mut Document<'_>, mut table: Table<'_, '_>, snapshot: &Snapshot) -> Option<Stub> {
    let command = read_command(document, &mut table);
    if table.get("command").is_none() {
        document.problem(table.at(), &table.key("command"), "is missing");
    }
    let directory = read_directory(document, &mut table, snapshot).unwrap_or_default();
    let (port, port_at) = table.string(document, "port").unwrap_or_else(|| ("PORT".to_owned(), table.at()));
    if let Some(why) = environment::refusal(&port) {
        document.problem(port_at, &table.key("port"), format!("{port:?} {why}"));
    }
    let health = match table.string(document, "health") {
        Some((path, _)) if path.starts_with('/') => Health::Http(path),
        Some((text, at)) if text != "tcp" => {
            document.problem(at, &table.key("health"), "must be \"tcp\" or the path of a URL such as \"/health\"");
            Health::Tcp
        }
        _ => Health::Tcp,
    };
    let start_timeout_s = table.number(document, "start_timeout_s", 1, 600).unwrap_or(30);
    let environment = read_environment(document, &mut table).unwrap_or_default();
    table.finish(document);
    Some(Stub { command: command?, directory, port, health, start_timeout_s, environment })
}

fn check_mutants(document: &mut Document<'_>, at: usize, definition: &Definition) {
    for gate in definition.gates.values().filter(|gate| gate.origin == Origin::File) {
        if let Some(mutants) = &gate.mutants
            && definition.gates.get(&mutants.tests).is_none_or(|tests| tests.kind != Kind::Command)
        {
            let message = format!("{:?} is no gate with a command", mutants.tests);
            document.problem(at, &format!("gates.{}.mutants.tests", gate.name), message);
        }
    }
}
