//! A workspace's package.json: its scripts, its dependencies, and the lockfile that pins them.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared::domain::digest::{canonical_sha256, hex};

use crate::finding::{ExamineError, Reason};

/// A package.json, read before any code of the workspace runs.
#[derive(Debug)]
pub struct Package {
    fields: Map<String, Value>,
    pub lock: Option<Lock>,
    /// sha256 of the project's `.npmrc`, which can change what npm installs.
    settings: Option<String>,
}

/// package-lock.json, or npm-shrinkwrap.json, which npm prefers.
#[derive(Debug)]
pub struct Lock {
    pub sha256: String,
    /// All packages come from a registry, so the same lockfile installs the same files in any folder.
    pub is_portable: bool,
}

const DEPENDENCY_FIELDS: [&str; 3] = ["dependencies", "devDependencies", "optionalDependencies"];

impl Package {
    /// Reads the root of a workspace.
    pub fn read(root: &Path) -> Result<Self, ExamineError> {
        let Some(text) = read_small(&root.join("package.json"))? else {
            let message = "the workspace has no package.json at its root, so there is no command to run";
            return Err(Reason::new("no_command", message).into());
        };
        let fields = match serde_json::from_slice(&text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(unreadable("it is not a JSON object").into()),
            Err(error) => return Err(unreadable(&error.to_string()).into()),
        };
        let mut lock = None;
        for name in ["npm-shrinkwrap.json", "package-lock.json"] {
            if let Some(text) = read_small(&root.join(name))? {
                lock = Some(Lock { sha256: hex(&Sha256::digest(&text)), is_portable: is_portable(&text) });
                break;
            }
        }
        let settings = read_small(&root.join(".npmrc"))?.map(|text| hex(&Sha256::digest(text)));
        Ok(Self { fields, lock, settings })
    }

    /// The name and text of the first of these scripts that exists.
    pub fn script<'a>(&'a self, names: &'a [String]) -> Option<(&'a str, &'a str)> {
        let scripts = self.fields.get("scripts")?;
        let text = |name: &String| scripts.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        names.iter().find_map(|name| text(name).map(|text| (name.as_str(), text)))
    }

    pub fn has_dependencies(&self) -> bool {
        let is_filled = |field: &str| match self.fields.get(field) {
            Some(Value::Object(entries)) => !entries.is_empty(),
            Some(Value::Array(entries)) => !entries.is_empty(),
            _ => false,
        };
        DEPENDENCY_FIELDS.into_iter().chain(["workspaces"]).any(is_filled)
    }

    /// Cache key of an installation: equal keys mean equal files. `None` if that cannot be guaranteed.
    pub fn install_key(&self, environment: &[&str]) -> Option<String> {
        let lock = self.lock.as_ref().filter(|lock| lock.is_portable)?;
        // `npm ci` fails if package.json and lockfile disagree. A cached installation must not hide that, so the
        // declared dependencies are part of the key.
        let declared: Map<String, Value> = DEPENDENCY_FIELDS
            .into_iter()
            .chain(["peerDependencies", "bundleDependencies", "overrides", "workspaces", "engines"])
            .filter_map(|field| Some((field.to_string(), self.fields.get(field)?.clone())))
            .collect();
        canonical_sha256(&(&lock.sha256, declared, &self.settings, environment)).ok()
    }
}

fn unreadable(why: &str) -> Reason {
    Reason::new("no_command", format!("package.json cannot be read: {why}"))
}

/// Reads a file. `None` if it does not exist, is a link, or is larger than 32 MiB.
fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    const MAX_BYTES: u64 = 32 * 1024 * 1024;
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() <= MAX_BYTES => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_portable(lock: &[u8]) -> bool {
    let Ok(Value::Object(lock)) = serde_json::from_slice(lock) else { return false };
    let Some(Value::Object(packages)) = lock.get("packages") else { return false };
    packages.iter().all(|(path, package)| {
        let is_local = package.get("link").is_some()
            || package.get("resolved").and_then(Value::as_str).is_some_and(|from| from.starts_with("file:"));
        path.is_empty() || (path.starts_with("node_modules/") && !is_local)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[(&str, &str)]) -> Result<Package, Reason> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Package::read(folder.path()).map_err(|error| match error {
            ExamineError::GateFailed(reason) => reason,
            ExamineError::Infra(error) => panic!("{error}"),
        })
    }

    const LOCK: &str = r#"{"packages": {"": {}, "node_modules/a": {"version": "1.0.0"}}}"#;

    #[test]
    fn a_workspace_without_a_readable_package_has_no_command() {
        for files in [vec![], vec![("package.json", "[]")], vec![("package.json", "{")]] {
            assert_eq!(package(&files).unwrap_err().code, "no_command");
        }
    }

    #[test]
    fn an_empty_script_is_not_a_command() {
        let package =
            package(&[("package.json", r#"{"scripts": {"lint": " ", "test": "t", "coverage": "c"}}"#)]).unwrap();
        assert_eq!(package.script(&["lint".into()]), None);
        assert_eq!(package.script(&["coverage".into(), "test".into()]), Some(("coverage", "c")));
        assert_eq!(package.script(&["nothing".into(), "test".into()]), Some(("test", "t")));
    }

    #[test]
    fn only_what_affects_the_installation_changes_its_key() {
        let key = |package_json: &str, lock: &str, settings: &str| {
            package(&[("package.json", package_json), ("package-lock.json", lock), (".npmrc", settings)])
                .unwrap()
                .install_key(&["v20"])
        };
        let first = key(r#"{"dependencies": {"a": "1.0.0"}}"#, LOCK, "");
        assert!(first.is_some());
        assert_eq!(key(r#"{"dependencies": {"a": "1.0.0"}, "scripts": {"lint": "x"}}"#, LOCK, ""), first);
        assert_ne!(key(r#"{"dependencies": {"a": "1.0.1"}}"#, LOCK, ""), first);
        assert_ne!(key(r#"{"dependencies": {"a": "1.0.0"}}"#, &LOCK.replace("1.0.0", "1.0.1"), ""), first);
        assert_ne!(key(r#"{"dependencies": {"a": "1.0.0"}}"#, LOCK, "omit=dev"), first);
    }

    #[test]
    fn an_installation_that_depends_on_the_workspace_is_not_cached() {
        for packages in [
            r#"{"packages": {"": {}, "packages/x": {}}}"#,
            r#"{"packages": {"": {}, "node_modules/x": {"link": true}}}"#,
            r#"{"packages": {"": {}, "node_modules/x": {"resolved": "file:x.tgz"}}}"#,
            r#"{"lockfileVersion": 1}"#,
            "",
        ] {
            let package = package(&[("package.json", "{}"), ("package-lock.json", packages)]).unwrap();
            assert_eq!(package.install_key(&[]), None, "{packages}");
        }
    }
}
