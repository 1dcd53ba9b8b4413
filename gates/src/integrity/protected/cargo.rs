//! Cargo.toml and Cargo.lock.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::meaning::{self, Leaf};
use super::{Reasons, settings};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
const SPARSE: &str = "sparse+https://index.crates.io/";

pub fn manifest(base: Option<&str>, head: Option<&str>) -> Reasons {
    if base.is_none() {
        // A new package. Its dependencies count, the rest judges nothing that was there.
        return settings::values(Some(""), head, meaning::toml, |leaf| !is_dependency(&leaf.path) || is_harmless(leaf));
    }
    settings::values(base, head, meaning::toml, is_harmless)
}

fn is_dependency(path: &[String]) -> bool {
    path.iter().any(|key| {
        matches!(key.as_str(), "dependencies" | "dev-dependencies" | "build-dependencies" | "patch" | "replace")
    })
}

fn is_harmless(leaf: &Leaf) -> bool {
    let path: Vec<&str> = leaf.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        [
            "package" | "workspace",
            ..,
            "version" | "description" | "authors" | "license" | "license-file" | "repository" | "homepage"
            | "documentation" | "keywords" | "categories" | "readme" | "publish" | "name" | "default-run" | "links",
        ] if path.len() <= 3 && !is_dependency(&leaf.path) => true,
        ["package", "authors" | "keywords" | "categories" | "include" | "exclude" | "publish", ..]
        | ["package" | "workspace", "metadata", ..]
        | ["profile", "release" | "bench", ..] => true,
        ["workspace", "package", "version" | "authors" | "license" | "repository" | "edition" | "rust-version", ..] => {
            path.last() != Some(&"edition")
        }
        ["workspace", "members", _] | ["features"] | ["features" | "bin" | "example" | "bench", _] => {
            leaf.old.is_none()
        }
        // A feature of a dependency switches no test of the package off.
        ["features", _, element] => leaf.old.is_none() || element.contains('/') || element.starts_with("dep:"),
        ["lints", ..] | ["workspace", "lints", ..] => is_stricter(leaf),
        path if is_dependency(&leaf.path) => is_harmless_dependency(path, leaf),
        _ => false,
    }
}

fn is_stricter(leaf: &Leaf) -> bool {
    let level = |value: &Option<Value>| {
        let name = value.as_ref().and_then(|value| value.as_str().or_else(|| value.get("level")?.as_str()));
        name.map_or(0, |name| match name {
            "warn" => 1,
            "deny" => 2,
            "forbid" => 3,
            _ => 0,
        })
    };
    match (&leaf.old, &leaf.new) {
        // A new table of lints.
        (None, Some(Value::Object(lints))) if !lints.contains_key("level") => {
            lints.values().all(|lint| level(&Some(lint.clone())) > 0)
        }
        (old, new) => level(new) >= level(old) && level(new) > 0,
    }
}

/// A dependency from the registry may come, go and get another version or other features.
fn is_harmless_dependency(path: &[&str], leaf: &Leaf) -> bool {
    if path.contains(&"patch") || path.contains(&"replace") {
        return false;
    }
    let at = path.iter().position(|key| key.ends_with("dependencies")).unwrap_or_default();
    match path.get(at + 1..).unwrap_or_default() {
        [] => [&leaf.old, &leaf.new]
            .iter()
            .filter_map(|value| value.as_ref()?.as_object())
            .flat_map(serde_json::Map::values)
            .all(is_registry),
        // A crate of the workspace that stands in for one of the registry can have other checks in its macros.
        [_] => {
            let has_path = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.get("path").is_some());
            let stands_in = leaf.old.is_some() && !has_path(&leaf.old) && has_path(&leaf.new);
            !stands_in && leaf.new.as_ref().is_none_or(is_registry)
        }
        [_, "version" | "features" | "default-features" | "optional" | "workspace", ..] => true,
        _ => false,
    }
}

fn is_registry(dependency: &Value) -> bool {
    match dependency {
        Value::Object(table) => {
            let stays = |path: &Value| path.as_str().is_some_and(|path| !path.starts_with('/'));
            !["git", "registry", "registry-index", "package"].iter().any(|key| table.contains_key(*key))
                && table.get("path").is_none_or(stays)
        }
        _ => true,
    }
}

/// Crates that come from elsewhere, and other bytes for the same version.
pub fn lock(base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let Some(new) = packages(head) else { return vec!["it cannot be parsed".to_owned()] };
    let old = base.and_then(packages).unwrap_or_default();
    let was_of_registry = |name: &str| {
        let mut same = old.iter().filter(|((known, _), _)| known == name).map(|(_, (source, _))| source).peekable();
        same.peek().is_some() && same.all(Option::is_some)
    };
    new.iter()
        .filter_map(|(key, (source, checksum))| {
            let before = old.get(key);
            if before == Some(&(source.clone(), checksum.clone())) {
                return None;
            }
            let (name, version) = key;
            match source.as_deref() {
                None => {
                    was_of_registry(name).then(|| format!("{name} comes from the workspace instead of the registry"))
                }
                Some(REGISTRY | SPARSE) if checksum.is_none() => Some(format!("{name} {version} has no checksum")),
                Some(REGISTRY | SPARSE) => {
                    before.and_then(|(_, old)| old.as_ref()).map(|_| format!("{name} {version} has other bytes"))
                }
                Some(other) => Some(format!("{name} comes from {other:?}")),
            }
        })
        .collect()
}

type Packages = BTreeMap<(String, String), (Option<String>, Option<String>)>;

fn packages(text: &str) -> Option<Packages> {
    let value = meaning::toml(text)?;
    let list = value.get("package").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    Some(
        list.iter()
            .filter_map(|package| {
                let key = (text(package, "name")?, text(package, "version")?);
                Some((key, (text(package, "source"), text(package, "checksum"))))
            })
            .collect(),
    )
}
