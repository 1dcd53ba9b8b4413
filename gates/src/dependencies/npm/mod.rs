//! What npm installs: package.json and package-lock.json, vetted and written anew.
//!
//! npm trusts a lock file: its addresses, commands and links. So the lock file is read here first. npm then gets files
//! that hold known fields only, and addresses that follow from names and versions.

mod lock;
mod manifest;
mod names;
mod registries;
mod workspaces;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Ecosystem, InstallPlan, manifest_refused, read, refused};
use crate::finding::{ExamineError, Reason};
use crate::snapshot::Snapshot;

use manifest::Manifest;
pub use manifest::commands;
pub use names::{SYSTEM, has_checks, owner_of_command};
pub use registries::{Registries, settings};
pub use workspaces::glob_matches;

/// The manifests of the workspace's own packages, by folder.
type Workspaces = BTreeMap<String, Manifest>;

pub fn plan(snapshot: &Snapshot, registries: &Registries) -> Result<Option<InstallPlan>, ExamineError> {
    let Some(text) = read(snapshot, "package.json")? else { return Ok(None) };
    let fields = object("package.json", &text)?;
    let folders = workspaces::folders(snapshot, &fields)?;
    let root = Manifest::read("package.json", &fields, "", &folders)?;
    if !root.has_dependencies() && folders.is_empty() {
        return Ok(None);
    }
    let mut workspaces = Workspaces::new();
    for folder in &folders {
        let path = format!("{folder}/package.json");
        let text = read(snapshot, &path)?.unwrap_or_default();
        let manifest = Manifest::read(&path, &object(&path, &text)?, folder, &folders)?;
        manifest.check_own_name(&path)?;
        workspaces.insert(folder.clone(), manifest);
    }
    let (name, text) = lock_file(snapshot)?;
    let lock = lock::read(name, &text, &root, &workspaces, registries)?;
    let mut plan = InstallPlan::new(Ecosystem::Npm, name, &text);
    plan.files.insert("package.json".into(), root.normalised(&folders));
    for (folder, manifest) in &workspaces {
        plan.files.insert(format!("{folder}/package.json"), manifest.normalised(&[]));
    }
    plan.files.insert("package-lock.json".into(), lock.text);
    (plan.packages, plan.links) = (lock.packages, lock.links);
    // The workspace's .npmrc never reaches npm. This setting alone changes which trees are valid, and is harmless.
    plan.legacy_peer_deps = read(snapshot, ".npmrc")?.is_some_and(|npmrc| {
        let npmrc = String::from_utf8_lossy(&npmrc).into_owned();
        settings(&npmrc).any(|setting| setting == ("legacy-peer-deps", "true"))
    });
    Ok(Some(plan))
}

/// npm prefers npm-shrinkwrap.json.
fn lock_file(snapshot: &Snapshot) -> Result<(&'static str, Vec<u8>), ExamineError> {
    for name in ["npm-shrinkwrap.json", "package-lock.json"] {
        if let Some(text) = read(snapshot, name)? {
            return Ok((name, text));
        }
    }
    let others = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];
    let other = others.into_iter().find(|name| snapshot.files().contains_key(*name));
    let message = match other {
        None => "package.json declares dependencies, but there is no package-lock.json to pin them; commit one".into(),
        Some(other) => format!(
            "gates install with npm, which does not read {other}; commit a package-lock.json too (npm install --package-lock-only)"
        ),
    };
    Err(Reason::new("no_lockfile", message).into())
}

/// Parses a JSON object. A key that occurs twice counts as npm counts it: the last one is written, and alone.
fn object(path: &str, text: &[u8]) -> Result<Map<String, Value>, Reason> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let refuse = |why: String| {
        let build = if path.ends_with("package.json") { manifest_refused } else { refused };
        build(&path, &why, "mend the file")
    };
    match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(refuse("is not a JSON object".into())),
        Err(error) => Err(refuse(format!("cannot be read: {error}"))),
    }
}

/// JSON as npm reads it.
fn to_text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
#[path = "npm_tests.rs"]
mod tests;
