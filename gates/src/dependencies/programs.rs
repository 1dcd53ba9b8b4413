//! The programs that install and test: where they are, and their versions.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::npm::settings;

/// The programs of an ecosystem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toolchain {
    /// By program, for the evidence.
    pub versions: BTreeMap<String, String>,
    /// The program to start, by name.
    pub programs: BTreeMap<String, PathBuf>,
    /// Folders that the tested command must be able to read, besides the system's.
    pub folders: Vec<PathBuf>,
}

/// A program of a search path, without links: a version manager's link may be gone in a sandbox.
pub fn find(name: &str, search_path: &str) -> Option<PathBuf> {
    env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The version of npm from its package.json. Starting npm to ask for it takes 150 ms.
pub fn npm_version(npm: &Path) -> Option<String> {
    let program = fs::canonicalize(npm).ok()?;
    let text = fs::read(program.parent()?.parent()?.join("package.json")).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let is_npm = json.get("name")?.as_str()? == "npm";
    is_npm.then(|| json.get("version")?.as_str().map(str::to_owned)).flatten()
}

/// npm's global settings: where its own settings say, else next to Node.
pub fn npm_global_config(toolchain: &Toolchain) -> Option<PathBuf> {
    let npm = toolchain.programs.get("npm").and_then(|npm| fs::canonicalize(npm).ok());
    let own = npm.and_then(|npm| fs::read_to_string(npm.parent()?.parent()?.join("npmrc")).ok()).unwrap_or_default();
    if let Some((_, path)) = settings(&own).find(|(key, _)| *key == "globalconfig") {
        return Some(PathBuf::from(path));
    }
    let node = fs::canonicalize(toolchain.programs.get("node")?).ok()?;
    Some(node.parent()?.parent()?.join("etc/npmrc"))
}
