//! package-lock.json: each package is a version of a registry with the digest of its content.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::{Link, Locked, refused};
use super::manifest::{DEPENDENCIES, Manifest, dependencies, peer_meta};
use super::names::{is_package_name, is_tool, is_version};
use super::registries::Registries;
use super::{Workspaces, object, to_text};
use crate::finding::Reason;

/// More packages than any project has.
const MAX_PACKAGES: usize = 20_000;

/// A vetted lock file.
#[derive(Debug)]
pub struct Lock {
    pub packages: Vec<Locked>,
    pub links: Vec<Link>,
    /// What npm reads instead.
    pub text: Vec<u8>,
}

pub fn read(
    file: &str,
    text: &[u8],
    root: &Manifest,
    workspaces: &Workspaces,
    registries: &Registries,
) -> Result<Lock, Reason> {
    let json = object(file, text)?;
    let Some(version @ (2 | 3)) = json.get("lockfileVersion").and_then(Value::as_u64) else {
        let why = "was not written by npm 7 or later";
        return Err(refused(file, why, "write it anew with: npm install --package-lock-only"));
    };
    let Some(Value::Object(entries)) = json.get("packages") else {
        return Err(refused(file, format!("has version {version} but no packages"), "write it anew"));
    };
    if entries.len() > MAX_PACKAGES {
        return Err(refused(file, "pins more than 20000 packages", "split the project"));
    }
    let folders: Vec<String> = workspaces.keys().cloned().collect();
    let mut reader = Reader { file, entries, root, workspaces, folders, registries, digests: BTreeMap::new() };
    let (mut packages, mut links, mut written) = (Vec::new(), Vec::new(), Map::new());
    for (key, entry) in entries {
        let Value::Object(entry) = entry else {
            return Err(reader.refuse(key, "is not an object", "write it anew"));
        };
        let normalised = match reader.kind(key, entry)? {
            EntryKind::Manifest(folder) => reader.manifest(key, entry, folder)?,
            EntryKind::Link(link) => {
                let normalised = json!({"resolved": link.folder, "link": true});
                links.push(link);
                normalised
            }
            EntryKind::Package(name) => {
                let (normalised, locked) = reader.package(key, entry, name)?;
                packages.extend(locked);
                normalised
            }
        };
        written.insert(key.clone(), normalised);
    }
    let mut lock = json!({"lockfileVersion": 3, "requires": true, "packages": written});
    if let (Some(name), Some(fields)) = (&root.name, lock.as_object_mut()) {
        fields.insert("name".into(), json!(name));
    }
    Ok(Lock { packages, links, text: to_text(&lock) })
}

struct Reader<'a> {
    file: &'a str,
    entries: &'a Map<String, Value>,
    root: &'a Manifest,
    workspaces: &'a Workspaces,
    folders: Vec<String>,
    registries: &'a Registries,
    /// Name and version by digest.
    digests: BTreeMap<String, (String, String)>,
}

enum EntryKind<'a> {
    /// The root, or a package of the workspace.
    Manifest(&'a str),
    Link(Link),
    /// A package of a registry, by the name of its place.
    Package(&'a str),
}

impl<'a> Reader<'a> {
    fn refuse(&self, key: &str, why: impl std::fmt::Display, what_to_do: &str) -> Reason {
        refused(format_args!("{}: {key:?}", self.file), why, what_to_do)
    }

    fn kind(&self, key: &'a str, entry: &Map<String, Value>) -> Result<EntryKind<'a>, Reason> {
        if key.is_empty() {
            return Ok(EntryKind::Manifest(""));
        }
        let Some((folder, name)) = place(key) else {
            return Err(self.refuse(key, "is not a place below node_modules", "write the lock file anew"));
        };
        if !folder.is_empty() && !self.workspaces.contains_key(folder) {
            let why = "is in a folder that `workspaces` of package.json does not name";
            return Err(self.refuse(key, why, "add the folder to `workspaces`, or remove the entry"));
        }
        let Some(name) = name else { return Ok(EntryKind::Manifest(folder)) };
        match entry.get("link") {
            None | Some(Value::Bool(false)) => Ok(EntryKind::Package(name)),
            Some(_) => self.link(key, entry, name).map(EntryKind::Link),
        }
    }

    fn link(&self, key: &str, entry: &Map<String, Value>, name: &str) -> Result<Link, Reason> {
        let target = entry.get("resolved").and_then(Value::as_str).unwrap_or_default();
        let Some(manifest) = self.workspaces.get(target) else {
            let why = format!("is a link to {target:?}, which is not a package of the workspace");
            return Err(self.refuse(key, why, "use a version of the registry, or add the folder to `workspaces`"));
        };
        if manifest.name.as_deref() != Some(name) || is_tool(name) {
            let why = format!("is a link to {target:?}, whose name is another one");
            return Err(self.refuse(key, why, "write the lock file anew"));
        }
        Ok(Link { path: key.to_owned(), folder: target.to_owned(), commands: manifest.commands.clone() })
    }

    /// The lock file's copy of a package.json. npm compares both.
    fn manifest(&self, key: &str, entry: &Map<String, Value>, folder: &str) -> Result<Value, Reason> {
        let mut fields = self.dependency_fields(key, entry, folder)?;
        for field in ["name", "version"] {
            if let Some(value @ Value::String(_)) = entry.get(field) {
                fields.insert(field.into(), value.clone());
            }
        }
        Ok(Value::Object(fields))
    }

    fn dependency_fields(
        &self,
        key: &str,
        entry: &Map<String, Value>,
        folder: &str,
    ) -> Result<Map<String, Value>, Reason> {
        let mut fields = Map::new();
        for field in DEPENDENCIES {
            if let Some(value) = entry.get(field) {
                let checked = dependencies(field, value, folder, &self.folders)
                    .map_err(|reason| self.refuse(key, reason.message, "write the lock file anew"))?;
                fields.insert(field.into(), Value::Object(checked));
            }
        }
        if let Some(Value::Object(meta)) = entry.get("peerDependenciesMeta") {
            fields.insert("peerDependenciesMeta".into(), peer_meta(meta));
        }
        Ok(fields)
    }

    /// The entry of a package, and what must be there afterwards. Bundled packages come inside of another one.
    fn package(
        &mut self,
        key: &str,
        entry: &Map<String, Value>,
        place_name: &str,
    ) -> Result<(Value, Option<Locked>), Reason> {
        let mut fields = self.dependency_fields(key, entry, "")?;
        // npm would install the developer's dependencies of a package if its entry listed them.
        fields.remove("devDependencies");
        let text = |field: &str| entry.get(field).and_then(Value::as_str);
        let name = text("name").unwrap_or(place_name);
        let version = text("version").unwrap_or_default();
        if !is_package_name(name) || !is_version(version) {
            let why = format!("has no exact version of a package: {name}@{version}");
            return Err(self.refuse(key, why, "use a version of the registry"));
        }
        if name != place_name && is_tool(place_name) {
            let why = format!("is an alias of {name}, which would run instead of that tool");
            return Err(self.refuse(key, why, "use the tool itself"));
        }
        self.check_address(key, entry, name, version)?;
        if name != place_name {
            fields.insert("name".into(), json!(name));
        }
        fields.insert("version".into(), json!(version));
        for flag in ["dev", "optional", "devOptional", "peer"] {
            if entry.get(flag) == Some(&Value::Bool(true)) {
                fields.insert(flag.into(), json!(true));
            }
        }
        for list in ["os", "cpu", "libc"] {
            if let Some(value @ (Value::Array(_) | Value::String(_))) = entry.get(list) {
                fields.insert(list.into(), value.clone());
            }
        }
        if text("integrity").is_none() && self.is_bundled(key, entry) {
            fields.insert("inBundle".into(), json!(true));
            return Ok((Value::Object(fields), None));
        }
        let integrity = self.integrity(key, entry, name, version)?;
        fields.insert("integrity".into(), json!(integrity));
        if let Some(address) = self.registries.address(name, version) {
            fields.insert("resolved".into(), json!(address));
        }
        if let Some(Value::Array(bundled)) = entry.get("bundleDependencies") {
            let names = bundled.iter().filter(|name| name.as_str().is_some_and(is_package_name)).cloned().collect();
            fields.insert("bundleDependencies".into(), Value::Array(names));
        }
        let optional = ["optional", "devOptional"].iter().any(|flag| fields.contains_key(*flag));
        let direct = key == format!("node_modules/{place_name}") && self.root.names(place_name);
        let (name, version) = (name.to_owned(), version.to_owned());
        Ok((Value::Object(fields), Some(Locked { path: key.to_owned(), name, version, optional, direct })))
    }

    /// An address is compared and then forgotten: what npm gets follows from name and version.
    fn check_address(&self, key: &str, entry: &Map<String, Value>, name: &str, version: &str) -> Result<(), Reason> {
        let address = match entry.get("resolved") {
            None => return Ok(()),
            Some(Value::String(address)) => address,
            Some(other) => return Err(self.refuse(key, format!("has the address {other}"), "write it anew")),
        };
        if self.registries.is_address(address, name, version) {
            return Ok(());
        }
        let what = if address.starts_with("git") { "comes from git" } else { "does not come from a known registry" };
        let why = format!("{what}: {address:?} is not {name}@{version} there");
        Err(self.refuse(key, why, "use a version of the registry"))
    }

    /// Whether the package comes inside of the package in whose node_modules it is.
    fn is_bundled(&self, key: &str, entry: &Map<String, Value>) -> bool {
        let Some((parent, _)) = key.rsplit_once("/node_modules/") else { return false };
        let parent_entry = self.entries.get(parent).and_then(Value::as_object);
        entry.get("inBundle") == Some(&Value::Bool(true))
            && place(parent).is_some_and(|(_, name)| name.is_some())
            && parent_entry.is_some_and(|parent| !parent.contains_key("link"))
    }

    fn integrity(
        &mut self,
        key: &str,
        entry: &Map<String, Value>,
        name: &str,
        version: &str,
    ) -> Result<String, Reason> {
        let Some(text) = entry.get("integrity").and_then(Value::as_str) else {
            let why = "has no integrity, so that any content would do";
            return Err(self.refuse(key, why, "write the lock file anew with: npm install --package-lock-only"));
        };
        // npm takes the strongest algorithm that it finds. Only that one is passed on.
        let strongest = text.split_ascii_whitespace().filter_map(strength).max();
        let Some((_, integrity)) = strongest else {
            let why = format!("has no usable integrity: {text:?}");
            return Err(self.refuse(key, why, "write the lock file anew, so that it has sha512"));
        };
        let package = (name.to_owned(), version.to_owned());
        // npm keeps contents by their digest. With the digest of another package it would install that one.
        let known = self.digests.entry(integrity.to_owned()).or_insert_with(|| package.clone());
        if *known != package {
            let why = format!("has the integrity of {}@{}", known.0, known.1);
            return Err(self.refuse(key, why, "write the lock file anew"));
        }
        Ok(integrity.to_owned())
    }
}

/// A digest that cannot be forged, with its strength. `None` for sha1, md5 and anything malformed.
fn strength(hash: &str) -> Option<(u32, &str)> {
    let (algorithm, digest) = hash.split_once('-')?;
    let (bits, length, padding) = match algorithm {
        "sha512" => (512, 88, "=="),
        "sha384" => (384, 64, ""),
        _ => return None,
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let body = digest.strip_suffix(padding)?;
    (digest.len() == length && body.bytes().all(is_base64)).then_some((bits, hash))
}

/// A key's folder in the workspace and the name of its package, if it has one. `None` if it is neither.
fn place(key: &str) -> Option<(&str, Option<&str>)> {
    if key.split('/').any(|part| matches!(part, "" | "." | "..")) || key.contains(['\\', '\0']) {
        return None;
    }
    let (folder, packages) = match key.strip_prefix("node_modules/") {
        Some(rest) => ("", Some(rest)),
        None => key.split_once("/node_modules/").map_or((key, None), |(folder, rest)| (folder, Some(rest))),
    };
    if folder.split('/').any(|part| part == "node_modules") {
        return None;
    }
    let Some(packages) = packages else { return Some((folder, None)) };
    let mut last = None;
    for name in packages.split("/node_modules/") {
        last = Some(name).filter(|name| is_package_name(name));
        last?;
    }
    Some((folder, last))
}
