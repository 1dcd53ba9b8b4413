//! Compares an installation with its lock file, and finds the commands of its packages.
//!
//! A lock file may say that a content belongs to another package, or that a package has other commands. So names,
//! versions and commands are read from the packages themselves, whose content the digests prove.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::npm::{commands, has_checks, owner_of_command};
use super::pip::canonical;
use super::{InstallPlan, Locked, shown};
use crate::finding::{ExamineError, Reason};

/// The `node_modules` of a workspace.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub folders: Vec<Folder>,
}

/// One `node_modules`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// The folder in the workspace that holds it. Empty for the root.
    pub path: String,
    pub packages: BTreeSet<String>,
    /// Packages of the workspace: name and folder.
    pub links: BTreeMap<String, String>,
    /// Path below `node_modules` by command.
    pub commands: BTreeMap<String, String>,
}

const LAYOUT: &str = "layout.json";

impl Layout {
    pub fn load(installation: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(installation.join(LAYOUT))?)?)
    }

    fn save(&self, installation: &Path) -> io::Result<()> {
        fs::write(installation.join(LAYOUT), serde_json::to_vec(self)?)
    }
}

/// Checks what npm installed, and writes the layout.
pub fn npm(plan: &InstallPlan, installation: &Path) -> Result<(), ExamineError> {
    let mut folders: BTreeMap<&str, Folder> = BTreeMap::new();
    // Commands of the first package win: no alias, and named by the root.
    let mut packages: Vec<&Locked> = plan.packages.iter().collect();
    packages.sort_by_key(|package| (!package.path.ends_with(&package.name), !package.direct, &package.path));
    for package in packages {
        let path = installation.join(&package.path);
        let Some(json) = package_json(&path)? else {
            if package.optional && !has_checks(&package.name) {
                continue;
            }
            return Err(differs(package, "npm did not install it").into());
        };
        check_identity(package, &json)?;
        let Some((folder, name)) = top_level(&package.path) else { continue };
        let entry = folders.entry(folder).or_default();
        entry.packages.insert(name.to_owned());
        for (command, program) in commands(&json, Some(&package.name)) {
            if let Some(owner) = owner_of_command(&command, &package.name) {
                let why = format!("provides the command {command}, which belongs to {owner}; do not install it");
                return Err(Reason::new("tool_shadowed", format!("{} {why}", package.name)).into());
            }
            if make_executable(&path, &program)? {
                entry.commands.entry(command).or_insert_with(|| format!("{name}/{program}"));
            }
        }
    }
    for link in &plan.links {
        let Some((folder, name)) = top_level(&link.path) else { continue };
        let entry = folders.entry(folder).or_default();
        entry.links.insert(name.to_owned(), link.folder.clone());
        for (command, program) in &link.commands {
            entry.commands.entry(command.clone()).or_insert_with(|| format!("{name}/{program}"));
        }
    }
    let mut layout = Layout::default();
    for (folder, mut found) in folders {
        folder.clone_into(&mut found.path);
        check_nothing_else(&found, &installation.join(folder).join("node_modules"))?;
        layout.folders.push(found);
    }
    Ok(layout.save(installation)?)
}

/// `node_modules/x` of the workspace or of one of its packages: that folder, and x.
fn top_level(path: &str) -> Option<(&str, &str)> {
    let (folder, name) = match path.strip_prefix("node_modules/") {
        Some(name) => ("", name),
        None => path.split_once("/node_modules/")?,
    };
    (!name.contains("node_modules/")).then_some((folder, name))
}

fn package_json(folder: &Path) -> Result<Option<Map<String, Value>>, ExamineError> {
    let text = match fs::read(folder.join("package.json")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    Ok(Some(serde_json::from_slice(text).unwrap_or_default()))
}

fn check_identity(package: &Locked, json: &Map<String, Value>) -> Result<(), Reason> {
    let text = |field: &str| json.get(field).and_then(Value::as_str).unwrap_or_default();
    // Publishing removes `v` and build metadata from the version, but not from the file.
    let plain = |version: &str| version.trim().trim_start_matches(['v', '=']).split('+').next().map(str::to_owned);
    if text("name") == package.name && plain(text("version")) == plain(&package.version) {
        return Ok(());
    }
    Err(differs(package, &format!("its content is {}@{}", shown(text("name")), shown(text("version")))))
}

fn differs(package: &Locked, why: &str) -> Reason {
    let Locked { path, name, version, .. } = package;
    Reason::new("lockfile_refused", format!("the lock file says {path} is {name}@{version}, but {why}; write it anew"))
}

/// Returns whether the program exists inside of its package.
fn make_executable(package: &Path, program: &str) -> io::Result<bool> {
    let path = package.join(program);
    let (Ok(real), Ok(root)) = (path.canonicalize(), package.canonicalize()) else { return Ok(false) };
    let is_inside = real.starts_with(root) && real.is_file();
    if is_inside {
        fs::set_permissions(&real, Permissions::from_mode(0o755))?;
    }
    Ok(is_inside)
}

fn check_nothing_else(expected: &Folder, modules: &Path) -> Result<(), ExamineError> {
    let unknown = |name: &str| {
        let message = format!("npm installed {}, which the lock file does not name; write it anew", shown(name));
        ExamineError::from(Reason::new("lockfile_refused", message))
    };
    let entries = match fs::read_dir(modules) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut names = vec![name.clone()];
        if name.starts_with('@') {
            names.clear();
            for package in fs::read_dir(entry.path())? {
                names.push(format!("{name}/{}", package?.file_name().to_string_lossy()));
            }
        } else if name == ".package-lock.json" {
            continue;
        }
        if let Some(name) =
            names.iter().find(|name| !expected.packages.contains(*name) && !expected.links.contains_key(*name))
        {
            return Err(unknown(name));
        }
    }
    Ok(())
}

/// Python packages that check code, with their commands.
const PYTHON_TOOLS: [(&str, &[&str]); 16] = [
    ("bandit", &["bandit"]),
    ("basedpyright", &["basedpyright"]),
    ("black", &["black"]),
    ("coverage", &["coverage", "coverage3"]),
    ("flake8", &["flake8"]),
    ("hypothesis", &["hypothesis"]),
    ("iniconfig", &[]),
    ("isort", &["isort"]),
    ("mypy", &["mypy", "dmypy"]),
    ("pluggy", &[]),
    ("pylint", &["pylint"]),
    ("pyright", &["pyright", "pyright-python"]),
    ("pytest", &["pytest", "py.test"]),
    ("pytest-cov", &[]),
    ("ruff", &["ruff"]),
    ("ty", &["ty"]),
];

/// Checks what pip installed: these packages and no others, and no package has put a file in the place of a tool's.
pub fn pip(plan: &InstallPlan, venv: &Path) -> Result<(), ExamineError> {
    let mut installed: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for lib in fs::read_dir(venv.join("lib"))?.flatten() {
        for entry in fs::read_dir(lib.path().join("site-packages"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((name, version)) = name.strip_suffix(".dist-info").and_then(|name| name.split_once('-')) else {
                continue;
            };
            let record = fs::read_to_string(entry.path().join("RECORD"))?;
            let files = record.lines().map(|line| recorded(line).to_owned()).collect();
            installed.insert(canonical(name), (version.to_owned(), files));
        }
    }
    let refuse = |message: String| Err(Reason::new("lockfile_refused", message).into());
    for Locked { name, version, optional, .. } in &plan.packages {
        match installed.get(name) {
            None if *optional => {}
            None => return refuse(format!("pip did not install {name}=={version}; write the lock file anew")),
            Some(_) => {}
        }
    }
    if let Some(name) = installed.keys().find(|name| !plan.packages.iter().any(|package| package.name == **name)) {
        return refuse(format!("pip installed {name}, which the lock file does not name; write it anew"));
    }
    check_tool_files(&installed)
}

fn check_tool_files(installed: &BTreeMap<String, (String, Vec<String>)>) -> Result<(), ExamineError> {
    let is_tool = |name: &str| PYTHON_TOOLS.iter().any(|(tool, _)| *tool == name);
    let mut of_tools: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, (_, files)) in installed.iter().filter(|(name, _)| is_tool(name)) {
        of_tools.extend(files.iter().map(|file| (file.as_str(), name.as_str())));
    }
    for (name, (_, files)) in installed {
        for file in files {
            let command = file.strip_prefix("../../../bin/");
            let owner = match command {
                Some(command) if command.starts_with("python") || command.starts_with("pip") && name != "pip" => {
                    Some("the system")
                }
                Some(command) => {
                    PYTHON_TOOLS.iter().find(|(_, commands)| commands.contains(&command)).map(|(tool, _)| *tool)
                }
                None => of_tools.get(file.as_str()).copied(),
            };
            if let Some(owner) = owner.filter(|owner| owner != name) {
                let message = format!("{name} provides {}, which belongs to {owner}; do not install it", shown(file));
                return Err(Reason::new("tool_shadowed", message).into());
            }
        }
    }
    Ok(())
}

/// The path in a line of RECORD, which is CSV.
fn recorded(line: &str) -> &str {
    match line.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => line.split(',').next().unwrap_or_default(),
    }
}

/// Checks that every crate is there.
pub fn cargo(plan: &InstallPlan, home: &Path) -> Result<(), ExamineError> {
    let registries: Vec<_> = fs::read_dir(home.join("registry/src"))?.flatten().collect();
    for Locked { name, version, .. } in &plan.packages {
        let folder = format!("{name}-{version}");
        if !registries.iter().any(|registry| registry.path().join(&folder).is_dir()) {
            let message = format!("cargo did not download {name} {version}; write Cargo.lock anew");
            return Err(Reason::new("lockfile_refused", message).into());
        }
    }
    Ok(())
}
