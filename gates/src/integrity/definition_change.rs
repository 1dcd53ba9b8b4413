//! Whether the change's definition checks less than the base's.

use serde_json::{Value, json};

use super::change::Changes;
use super::difference::Difference;
use super::finding::{Weakening, WeakeningKind};
use super::meaning::{Leaf, leaves};
use crate::definition::{Definition, FILE, GateDefinition};

/// Files that define gates, or from which presets follow.
const SOURCES: [&str; 9] = [
    FILE,
    "package.json",
    "Cargo.toml",
    "pyproject.toml",
    "setup.cfg",
    "requirements.txt",
    "requirements.lock",
    "go.mod",
    "nextest.toml",
];

pub fn find(changes: &Changes, base: &Definition, head: &Definition) -> Vec<Weakening> {
    const SHOWN: usize = 5;
    if base.digest == head.digest {
        return Vec::new();
    }
    let (old, new) = (meaning(base), meaning(head));
    let lost: Vec<Leaf> = leaves(&old, &new).into_iter().filter(|leaf| !is_stronger(leaf)).collect();
    if lost.is_empty() {
        return Vec::new();
    }
    let shown: Vec<String> = lost.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = lost.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let message = format!("The gates are defined differently than at the base: {}{more}.", shown.join("; "));
    let difference = match changes.get(FILE) {
        Some(change) => Difference::between(FILE, change.base.text(), change.head.text()),
        None => Difference::of_changes(&lost.iter().flat_map(Leaf::lines).collect::<Vec<_>>()),
    };
    let path = SOURCES.iter().find_map(|name| {
        changes.files.iter().map(|change| change.path.as_str()).find(|path| path.rsplit('/').next() == Some(name))
    });
    let path = path.unwrap_or(FILE);
    vec![Weakening::new(WeakeningKind::DefinitionChanged, path, None, message).with(difference)]
}

fn meaning(definition: &Definition) -> Value {
    // A gate that only the change has cannot weaken the others. A stub belongs to the gates that name it.
    let gates: serde_json::Map<String, Value> =
        definition.gates.iter().map(|(name, gate)| (name.clone(), gate_meaning(gate))).collect();
    json!({
        "gates": gates,
        "tests": definition.tests,
        "sources": definition.sources,
        "ignore": definition.ignore,
        "protected": definition.protected,
        "stubs": definition.stubs,
    })
}

fn gate_meaning(gate: &GateDefinition) -> Value {
    let mut value = json!(gate);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("origin");
        // Words of a command are read together.
        fields.insert(
            "command".to_owned(),
            json!(shlex::try_join(gate.command.iter().map(String::as_str)).unwrap_or_default()),
        );
    }
    value
}

/// The difference cannot let more through.
fn is_stronger(leaf: &Leaf) -> bool {
    let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    let rank = |value: &Option<Value>| match value.as_ref().and_then(Value::as_str) {
        Some("limits") => 1,
        Some("landlock") => 2,
        Some("namespaces") => 3,
        _ => 0,
    };
    match path.as_slice() {
        ["gates" | "stubs" | "protected" | "sources", _] | ["gates", _, "protected" | "stubs", _] => leaf.old.is_none(),
        ["ignore", _] | ["gates", _, "allow", _] => leaf.new.is_none(),
        ["gates", _, "coverage", "threshold" | "file_floor"] => {
            number(&leaf.new).is_some_and(|new| number(&leaf.old).is_some_and(|old| new >= old))
                || (leaf.old.as_ref().is_none_or(Value::is_null) && number(&leaf.new).is_some_and(|new| new >= 0.9))
        }
        ["gates", _, "coverage", "strict"] => leaf.new == Some(Value::Bool(true)),
        ["gates", _, "network"] => leaf.new == Some(Value::Bool(false)),
        ["gates", _, "severity"] => leaf.new == Some(json!("error")),
        ["gates", _, "sandbox"] => rank(&leaf.new) >= rank(&leaf.old),
        ["gates", _, "timeout_s"] => true,
        ["gates", _, "mutants", "limit"] => number(&leaf.new) >= number(&leaf.old),
        _ => false,
    }
}
