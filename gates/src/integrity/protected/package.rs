//! package.json: scripts that gates run, settings of tools, dependencies. The rest (name, version, description, other
//! scripts) may change.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::meaning::{self, Leaf, leaves};
use super::Reasons;
use super::dependency;
use crate::definition::{GATE_SCRIPTS, script_calls};

const SETTINGS: [&str; 22] = [
    "jest",
    "eslintConfig",
    "eslintIgnore",
    "c8",
    "nyc",
    "vitest",
    "mocha",
    "babel",
    "ava",
    "tap",
    "type",
    "workspaces",
    "engines",
    "stryker",
    "biome",
    "standard",
    "xo",
    "prettier",
    "imports",
    "packageManager",
    "wireit",
    "ts-node",
];
const DEPENDENCIES: [&str; 5] =
    ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "bundleDependencies"];

pub fn reasons(base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(new) = head.and_then(meaning::json) else {
        return match head {
            Some(_) => vec!["it cannot be parsed".to_owned()],
            None => vec!["it is deleted".to_owned()],
        };
    };
    let old = base.and_then(meaning::json);
    let empty = Map::new();
    let (new, old_fields) =
        (new.as_object().unwrap_or(&empty), old.as_ref().and_then(Value::as_object).unwrap_or(&empty));
    let mut reasons = dependencies(old_fields, new);
    // A new package brings its own scripts and settings. They judge nothing that was there.
    if base.is_some() {
        reasons.extend(scripts(old_fields, new));
        for key in SETTINGS {
            let pick = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or(Value::Null);
            for mut leaf in leaves(&pick(old_fields), &pick(new)) {
                leaf.path.insert(0, key.to_owned());
                if !is_stricter(&leaf) {
                    reasons.push(leaf.to_string());
                }
            }
        }
    }
    reasons
}

fn is_stricter(leaf: &Leaf) -> bool {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    match leaf.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["jest", "coverageThreshold", ..] => {
            number(&leaf.new).zip(number(&leaf.old)).is_some_and(|(new, old)| new >= old && old >= 0.0)
        }
        ["workspaces", _] => leaf.old.is_none(),
        // A newer minimum, and a newer version of the same package manager.
        ["engines", _] | ["packageManager"] => is_newer(leaf),
        ["c8" | "nyc", "lines" | "branches" | "functions" | "statements"] => number(&leaf.new) >= number(&leaf.old),
        _ => false,
    }
}

fn is_newer(leaf: &Leaf) -> bool {
    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(ToOwned::to_owned);
    let (Some(old), Some(new)) = (text(&leaf.old), text(&leaf.new)) else { return false };
    let name = |text: &str| text.split('@').next().filter(|_| text.contains('@')).map(ToOwned::to_owned);
    name(&old) == name(&new) && dependency::version(&new) >= dependency::version(&old)
}

fn scripts(old: &Map<String, Value>, new: &Map<String, Value>) -> Reasons {
    let of =
        |fields: &Map<String, Value>| fields.get("scripts").and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (of(old), of(new));
    let names: BTreeSet<String> = closure(&old).into_iter().chain(closure(&new)).collect();
    let mut reasons = Vec::new();
    for name in names {
        match (old.get(&name), new.get(&name)) {
            (one, other) if one == other => {}
            // A gate that the base did not have.
            (None, Some(_)) if is_entry(&name) => {}
            (one, other) => {
                let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), ToString::to_string);
                reasons.push(format!("the script {name:?} was {} and is {}", text(one), text(other)));
            }
        }
    }
    reasons
}

fn is_entry(name: &str) -> bool {
    GATE_SCRIPTS.iter().any(|(_, names)| names.contains(&name))
}

/// The scripts that gates run, with their hooks and the scripts that they start.
pub fn closure(scripts: &Map<String, Value>) -> BTreeSet<String> {
    let mut to_visit: Vec<String> = scripts.keys().filter(|name| is_entry(name)).cloned().collect();
    let mut found = BTreeSet::new();
    while let Some(name) = to_visit.pop() {
        if !found.insert(name.clone()) {
            continue;
        }
        to_visit.extend(
            ["pre", "post"].map(|hook| format!("{hook}{name}")).into_iter().filter(|name| scripts.contains_key(name)),
        );
        let called = scripts.get(&name).and_then(Value::as_str).map(script_calls).unwrap_or_default();
        for pattern in called {
            let stem = pattern.trim_end_matches('*');
            let matching = scripts
                .keys()
                .filter(|name| **name == pattern || (stem.len() < pattern.len() && name.starts_with(stem)));
            to_visit.extend(matching.cloned());
        }
    }
    found
}

fn dependencies(old: &Map<String, Value>, new: &Map<String, Value>) -> Reasons {
    let collect = |fields: &Map<String, Value>| {
        let tables = DEPENDENCIES.iter().filter_map(|key| fields.get(*key)?.as_object().cloned());
        tables.flatten().collect::<Map<String, Value>>()
    };
    let (before, after) = (collect(old), collect(new));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut reasons: Reasons =
        names.into_iter().filter_map(|name| dependency::reason(name, before.get(name), after.get(name))).collect();
    for key in ["overrides", "resolutions", "pnpm"] {
        let pick = |fields: &Map<String, Value>| fields.get(key).cloned().unwrap_or(Value::Object(Map::new()));
        for leaf in leaves(&pick(old), &pick(new)) {
            let names = leaf.path.iter().map(|part| {
                part.rsplit_once('@').map_or(part.as_str(), |(name, _)| if name.is_empty() { part } else { name })
            });
            let tool = names.clone().find(|name| dependency::is_tool(name));
            let name = leaf.path.last().map(String::as_str).unwrap_or_default();
            if let Some(tool) = tool {
                reasons.push(format!("{key} changes the tool {tool}: {leaf}"));
            } else if let Some(reason) = dependency::reason(name, None, leaf.new.as_ref()) {
                reasons.push(reason);
            }
        }
    }
    reasons
}
