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
use super::pip::{canonical, is_of_the_system};
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

pub const LAYOUT: &str = "layout.json";

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
            let owner = match file.strip_prefix("../../../bin/") {
                _ if is_of_the_system(file, name) => Some("the system"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::{Ecosystem, Link};

    /// An installation with these packages: place and package.json.
    fn installed(packages: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, json) in packages {
            let path = folder.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("package.json"), json).unwrap();
            fs::write(path.join("cli.js"), "").unwrap();
        }
        folder
    }

    fn locked(path: &str, name: &str, optional: bool) -> Locked {
        Locked { path: path.into(), name: name.into(), version: "1.0.0".into(), optional, direct: false }
    }

    fn plan(packages: Vec<Locked>) -> InstallPlan {
        let mut plan = InstallPlan::new(Ecosystem::Npm, "package-lock.json", b"");
        plan.packages = packages;
        plan
    }

    fn refusal(result: Result<(), ExamineError>) -> Reason {
        match result {
            Err(ExamineError::GateFailed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn content_of_another_package_is_refused() {
        for (json, shown) in [
            (r#"{"name": "evil", "version": "1.0.0"}"#, "evil@1.0.0"),
            (r#"{"name": "a", "version": "1.0.1"}"#, "a@1.0.1"),
            ("broken", "its content is @"),
        ] {
            let folder = installed(&[("node_modules/a", json)]);
            let reason = refusal(npm(&plan(vec![locked("node_modules/a", "a", false)]), folder.path()));
            assert!(reason.code == "lockfile_refused" && reason.message.contains(shown), "{reason:?}");
        }
        let folder = installed(&[("node_modules/a", r#"{"name": "a", "version": "v1.0.0+build"}"#)]);
        npm(&plan(vec![locked("node_modules/a", "a", false)]), folder.path()).unwrap();
    }

    #[test]
    fn only_what_the_lock_file_names_is_installed() {
        let a = ("node_modules/a", r#"{"name": "a", "version": "1.0.0"}"#);
        for path in ["node_modules/b", "node_modules/.bin", "node_modules/@s/b"] {
            let folder = installed(&[a, (path, "{}")]);
            let reason = refusal(npm(&plan(vec![locked("node_modules/a", "a", false)]), folder.path()));
            assert!(reason.message.contains("does not name"), "{path}: {reason:?}");
        }
        let folder = installed(&[a]);
        let missing = |name: &str, optional| {
            let packages =
                vec![locked("node_modules/a", "a", false), locked(&format!("node_modules/{name}"), name, optional)];
            npm(&plan(packages), folder.path())
        };
        assert!(refusal(missing("b", false)).message.contains("did not install"));
        missing("b", true).unwrap();
        // A lock file cannot make a tool optional.
        assert!(refusal(missing("typescript", true)).message.contains("did not install"));
    }

    #[test]
    fn commands_come_from_the_packages_and_those_of_tools_from_the_tools() {
        let folder = installed(&[
            (
                "node_modules/b",
                r#"{"name": "b", "version": "1.0.0", "bin": {"both": "cli.js", "out": "../a/cli.js", "gone": "no.js"}}"#,
            ),
            ("node_modules/alias", r#"{"name": "typescript", "version": "1.0.0", "bin": {"tsc": "cli.js"}}"#),
            ("node_modules/typescript", r#"{"name": "typescript", "version": "1.0.0", "bin": {"tsc": "./cli.js"}}"#),
            ("node_modules/@s/a", r#"{"name": "@s/a", "version": "1.0.0", "bin": "cli.js"}"#),
        ]);
        let mut plan_of = plan(vec![
            locked("node_modules/alias", "typescript", false),
            locked("node_modules/b", "b", false),
            locked("node_modules/typescript", "typescript", false),
            locked("node_modules/@s/a", "@s/a", false),
        ]);
        let commands = BTreeMap::from([("mine".into(), "x.js".into()), ("both".into(), "x.js".into())]);
        plan_of.links = vec![Link { path: "node_modules/own".into(), folder: "packages/own".into(), commands }];
        npm(&plan_of, folder.path()).unwrap();
        let layout = Layout::load(folder.path()).unwrap();
        let expected = [("a", "@s/a/cli.js"), ("both", "b/cli.js"), ("mine", "own/x.js"), ("tsc", "typescript/cli.js")];
        let expected: BTreeMap<String, String> =
            expected.into_iter().map(|(name, path)| (name.to_owned(), path.to_owned())).collect();
        assert_eq!(layout.folders[0].commands, expected);
        for (command, owner) in [("tsc", "typescript"), ("vitest", "vitest"), ("sh", "the system"), ("node", "node")] {
            let json = format!(r#"{{"name": "b", "version": "1.0.0", "bin": {{"{command}": "cli.js"}}}}"#);
            let folder = installed(&[("node_modules/b", &json)]);
            let reason = refusal(npm(&plan(vec![locked("node_modules/b", "b", false)]), folder.path()));
            assert!(reason.code == "tool_shadowed" && reason.message.contains(owner), "{reason:?}");
        }
    }

    fn venv(packages: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, record) in packages {
            let info = folder.path().join(format!("lib/python3.11/site-packages/{name}-1.0.0.dist-info"));
            fs::create_dir_all(&info).unwrap();
            fs::write(info.join("RECORD"), record).unwrap();
        }
        folder
    }

    #[test]
    fn python_packages_do_not_replace_tools() {
        let pytest = ("pytest", "pytest/__init__.py,sha256=x,1\n../../../bin/pytest,,\n");
        let packages = || vec![locked("", "pytest", false), locked("", "other-one", false)];
        for record in [
            "pytest/__init__.py,,",
            "../../../bin/pytest,,",
            "../../../bin/mypy,,",
            "../../../bin/python,,",
            "../../../bin/sh,,",
            "../../../pyvenv.cfg,,",
            "sitecustomize.py,,",
            "\"pytest/__init__.py\",,",
        ] {
            let folder = venv(&[pytest, ("Other_One", record)]);
            let reason = refusal(pip(&plan(packages()), folder.path()));
            assert!(reason.code == "tool_shadowed" && reason.message.contains("other-one"), "{record}: {reason:?}");
        }
        pip(&plan(packages()), venv(&[pytest, ("Other_One", "tests/__init__.py,,")]).path()).unwrap();
        let reason = refusal(pip(&plan(packages()), venv(&[pytest]).path()));
        assert!(reason.message.contains("did not install other-one"), "{reason:?}");
        let folder = venv(&[pytest, ("other_one", ""), ("extra", "")]);
        assert!(refusal(pip(&plan(packages()), folder.path())).message.contains("pip installed extra"));
    }
}
