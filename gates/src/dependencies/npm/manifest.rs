//! package.json: the fields that decide what npm installs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::manifest_refused;
use super::names::{is_package_name, is_tool, owner_of_command, source_problem};
use super::to_text;
use crate::finding::Reason;

/// Fields with dependencies, in the order in which npm lets the later one win.
pub const DEPENDENCIES: [&str; 4] = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];

/// A package.json without scripts, settings and anything else that does not decide what is installed.
#[derive(Debug)]
pub struct Manifest {
    pub name: Option<String>,
    fields: Map<String, Value>,
    /// Its own commands: name and path in its folder.
    pub commands: BTreeMap<String, String>,
}

impl Manifest {
    /// `folders` are the workspace's own packages, and `folder` is this one's.
    pub fn read(path: &str, json: &Map<String, Value>, folder: &str, folders: &[String]) -> Result<Self, Reason> {
        let mut fields = Map::new();
        let name = json.get("name").and_then(Value::as_str).filter(|name| is_package_name(name)).map(str::to_owned);
        if let Some(name) = &name {
            fields.insert("name".into(), json!(name));
        }
        if let Some(version) = json.get("version").and_then(Value::as_str) {
            fields.insert("version".into(), json!(version));
        }
        for field in DEPENDENCIES {
            let Some(value) = json.get(field) else { continue };
            let entries = dependencies(&format!("{path}: {field}"), value, folder, folders)?;
            fields.insert(field.into(), Value::Object(entries));
        }
        if let Some(Value::Object(meta)) = json.get("peerDependenciesMeta") {
            fields.insert("peerDependenciesMeta".into(), peer_meta(meta));
        }
        if let Some(Value::Object(overrides)) = json.get("overrides").filter(|_| folder.is_empty()) {
            check_overrides(path, overrides, 0)?;
            fields.insert("overrides".into(), Value::Object(overrides.clone()));
        }
        Ok(Self { commands: commands(json, name.as_deref()), name, fields })
    }

    pub fn has_dependencies(&self) -> bool {
        // npm installs the root's peers too.
        DEPENDENCIES.into_iter().any(|field| self.entries(field).next().is_some())
    }

    /// Whether this manifest itself asks for the package.
    pub fn names(&self, package: &str) -> bool {
        DEPENDENCIES.into_iter().any(|field| self.entries(field).any(|(name, _)| name == package))
    }

    fn entries(&self, field: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.fields.get(field).and_then(Value::as_object).into_iter().flatten()
    }

    /// A package of the workspace may not stand in the place of a tool.
    pub fn check_own_name(&self, path: &str) -> Result<(), Reason> {
        let Some(name) = &self.name else {
            return Err(manifest_refused(path, "has no valid name", "name each package of the workspace"));
        };
        if is_tool(name) {
            let why = format!("is a package of the workspace named {name}, which would run instead of that tool");
            return Err(manifest_refused(path, why, "rename it"));
        }
        for command in self.commands.keys() {
            if let Some(owner) = owner_of_command(command, name) {
                let why = format!("provides the command {command}, which belongs to {owner}");
                return Err(manifest_refused(path, why, "rename the command"));
            }
        }
        Ok(())
    }

    /// The text that npm reads. `folders` replaces the patterns of `workspaces`.
    pub fn normalised(&self, folders: &[String]) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.insert("private".into(), json!(true));
        if !folders.is_empty() {
            fields.insert("workspaces".into(), json!(folders));
        }
        to_text(&Value::Object(fields))
    }
}

/// Names and sources of a dependency field. `entry` names it in the message.
pub fn dependencies(
    entry: &str,
    value: &Value,
    folder: &str,
    folders: &[String],
) -> Result<Map<String, Value>, Reason> {
    let Value::Object(entries) = value else {
        // npm ignores it, and so does the installation.
        return Ok(Map::new());
    };
    for (name, source) in entries {
        let entry = format!("{entry}: {name}");
        let Some(source) = source.as_str() else {
            return Err(manifest_refused(entry, "has no version", "name a version range"));
        };
        if !is_package_name(name) {
            return Err(manifest_refused(entry, "is not a package name", "remove it"));
        }
        if is_own_folder(source, folder, folders) {
            continue;
        }
        check_source(&entry, name, source)?;
    }
    Ok(entries.clone())
}

fn check_source(entry: &str, name: &str, source: &str) -> Result<(), Reason> {
    if let Some(why) = source_problem(source) {
        return Err(manifest_refused(
            format!("{entry}@{source}"),
            why,
            "use a version of the registry, or a package of the workspace",
        ));
    }
    if is_tool(name) && source.trim().starts_with("npm:") {
        let why = "is an alias, so that another package would run instead of that tool";
        return Err(manifest_refused(format!("{entry}@{source}"), why, "use the tool itself"));
    }
    Ok(())
}

/// Whether `file:` names a package of the workspace.
fn is_own_folder(source: &str, folder: &str, folders: &[String]) -> bool {
    let Some(path) = source.strip_prefix("file:") else { return false };
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return false;
                }
            }
            "" => return false,
            part => parts.push(part),
        }
    }
    folders.contains(&parts.join("/"))
}

pub fn peer_meta(meta: &Map<String, Value>) -> Value {
    let optional = |value: &Value| json!({"optional": value.get("optional") == Some(&Value::Bool(true))});
    Value::Object(
        meta.iter()
            .filter(|(name, _)| is_package_name(name))
            .map(|(name, value)| (name.clone(), optional(value)))
            .collect(),
    )
}

/// Overrides name packages, maybe with a range, and versions, maybe by reference to a dependency of the root.
fn check_overrides(path: &str, overrides: &Map<String, Value>, depth: usize) -> Result<(), Reason> {
    const MAX_DEPTH: usize = 20;
    for (key, value) in overrides {
        let entry = format!("{path}: overrides: {key}");
        let name_end = key.get(1..).and_then(|rest| rest.find('@')).map_or(key.len(), |at| at + 1);
        let (name, range) = key.split_at(name_end);
        let has_good_key =
            key == "." || is_package_name(name) && source_problem(range.trim_start_matches('@')).is_none();
        if !has_good_key || depth > MAX_DEPTH {
            return Err(manifest_refused(entry, "is not a package", "remove it"));
        }
        match value {
            Value::String(source) if source.strip_prefix('$').is_some_and(is_package_name) => {}
            Value::String(source) => check_source(&entry, name, source)?,
            Value::Object(inner) => check_overrides(path, inner, depth + 1)?,
            _ => return Err(manifest_refused(entry, "is not a version", "remove it")),
        }
    }
    Ok(())
}

/// Commands that a package provides: name and path in its folder, as npm reads `bin`.
pub fn commands(json: &Map<String, Value>, name: Option<&str>) -> BTreeMap<String, String> {
    let base = name.map(|name| name.rsplit('/').next().unwrap_or(name));
    let entries: Vec<(&str, &Value)> = match (json.get("bin"), base) {
        (Some(path @ Value::String(_)), Some(base)) => vec![(base, path)],
        (Some(Value::Object(entries)), _) => entries.iter().map(|(name, path)| (name.as_str(), path)).collect(),
        _ => Vec::new(),
    };
    let clean = |(name, path): (&str, &Value)| {
        let name = name.rsplit(['/', '\\', ':']).next().unwrap_or(name);
        let parts: Vec<&str> =
            path.as_str()?.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").collect();
        let is_inside = !parts.is_empty() && !parts.contains(&"..");
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains('\0');
        (is_inside && is_name).then(|| (name.to_owned(), parts.join("/")))
    };
    entries.into_iter().filter_map(clean).collect()
}
