//! What Cargo downloads: crates of crates.io with their checksums, for the workspace's own packages.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::npm::glob_matches;
use super::{Ecosystem, InstallPlan, Locked, manifest_refused, read, refused};
use crate::finding::{ExamineError, Reason};
use crate::snapshot::Snapshot;

const REGISTRIES: [&str; 2] =
    ["registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/"];
const DEPENDENCIES: [&str; 5] =
    ["dependencies", "dev-dependencies", "dev_dependencies", "build-dependencies", "build_dependencies"];
/// What a dependency may say. `git`, `registry` and the like are not among it.
const DEPENDENCY_KEYS: [&str; 8] =
    ["version", "path", "features", "optional", "default-features", "default_features", "package", "workspace"];
/// More packages than any workspace has.
const MAX_FOLDERS: usize = 2000;

pub fn plan(snapshot: &Snapshot) -> Result<Option<InstallPlan>, ExamineError> {
    let Some(root) = manifest(snapshot, "")? else { return Ok(None) };
    let manifests = manifests(snapshot, root)?;
    let text = read(snapshot, "Cargo.lock")?;
    let Some(text) = text else {
        let has_dependencies = manifests.values().any(has_dependencies);
        let message = "Cargo.toml declares dependencies, but there is no Cargo.lock to pin them; commit one (cargo generate-lockfile)";
        return if has_dependencies { Err(Reason::new("no_lockfile", message).into()) } else { Ok(None) };
    };
    let packages = lock(&text, &manifests)?;
    if packages.is_empty() {
        return Ok(None);
    }
    let mut plan = InstallPlan::new(Ecosystem::Cargo, "Cargo.lock", &text);
    plan.packages = packages;
    plan.files.insert("Cargo.lock".into(), text);
    let folders: Vec<&String> = manifests.keys().filter(|folder| !folder.is_empty()).collect();
    for (folder, manifest) in &manifests {
        let written = normalised(manifest, folder, &folders)?;
        plan.files.insert(in_folder(folder, "Cargo.toml"), written.into_bytes());
        plan.files.insert(in_folder(folder, "lib.rs"), Vec::new());
    }
    Ok(Some(plan))
}

fn in_folder(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn manifest(snapshot: &Snapshot, folder: &str) -> Result<Option<Table>, ExamineError> {
    let path = in_folder(folder, "Cargo.toml");
    let Some(text) = read(snapshot, &path)? else { return Ok(None) };
    let parsed = std::str::from_utf8(&text).map_err(|error| error.to_string());
    let parsed = parsed.and_then(|text| text.parse::<Table>().map_err(|error| error.message().to_owned()));
    parsed.map(Some).map_err(|why| manifest_refused(path, format!("cannot be read: {why}"), "mend it").into())
}

/// The manifests of the workspace, by folder: the root, its members, and what they name by path.
fn manifests(snapshot: &Snapshot, root: Table) -> Result<BTreeMap<String, Table>, ExamineError> {
    let mut waiting = members(snapshot, &root)?;
    let mut found = BTreeMap::from([(String::new(), root)]);
    waiting.extend(paths(&found[""], "")?);
    while let Some(folder) = waiting.pop() {
        if found.contains_key(&folder) {
            continue;
        }
        let Some(manifest) = manifest(snapshot, &folder)? else {
            let what = format!("Cargo.toml: the folder {folder:?}");
            return Err(manifest_refused(what, "has no Cargo.toml", "commit it, or remove the path").into());
        };
        waiting.extend(paths(&manifest, &folder)?);
        found.insert(folder, manifest);
        if found.len() > MAX_FOLDERS {
            return Err(manifest_refused("Cargo.toml", "has more than 2000 packages", "split the workspace").into());
        }
    }
    Ok(found)
}

fn members(snapshot: &Snapshot, root: &Table) -> Result<Vec<String>, Reason> {
    let list = |field: &str| {
        let values = root.get("workspace").and_then(|workspace| workspace.get(field)).and_then(Value::as_array);
        values
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|text| text.trim_start_matches("./").trim_end_matches('/'))
    };
    let excluded: BTreeSet<&str> = list("exclude").collect();
    let mut members = Vec::new();
    for pattern in list("members") {
        if folder("", pattern).is_none() {
            let entry = format!("Cargo.toml: workspace.members: {pattern}");
            return Err(manifest_refused(entry, "leaves the workspace", "list folders inside the workspace"));
        }
        let folders = snapshot.files().keys().filter_map(|path| path.strip_suffix("/Cargo.toml"));
        let matching = folders.filter(|folder| !excluded.contains(folder) && glob_matches(pattern, folder));
        members.extend(matching.map(str::to_owned));
    }
    Ok(members)
}

/// Every table of dependencies, with its name.
fn dependency_tables(manifest: &Table) -> Vec<(String, &Table)> {
    let mut tables = Vec::new();
    for field in DEPENDENCIES {
        if let Some(Value::Table(entries)) = manifest.get(field) {
            tables.push((field.to_owned(), entries));
        }
    }
    for (target, value) in manifest.get("target").and_then(Value::as_table).into_iter().flatten() {
        for field in DEPENDENCIES {
            if let Some(Value::Table(entries)) = value.get(field) {
                tables.push((format!("target.{target}.{field}"), entries));
            }
        }
    }
    let workspace = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    if let Some(Value::Table(entries)) = workspace {
        tables.push(("workspace.dependencies".into(), entries));
    }
    for (registry, value) in manifest.get("patch").and_then(Value::as_table).into_iter().flatten() {
        if let Value::Table(entries) = value {
            tables.push((format!("patch.{registry}"), entries));
        }
    }
    tables
}

fn has_dependencies(manifest: &Table) -> bool {
    dependency_tables(manifest).iter().any(|(_, entries)| !entries.is_empty())
}

/// The folders that a manifest names by path. Refuses every other source than crates.io.
fn paths(manifest: &Table, at: &str) -> Result<Vec<String>, Reason> {
    let file = in_folder(at, "Cargo.toml");
    if manifest.contains_key("replace") {
        return Err(manifest_refused(format!("{file}: replace"), "is outdated", "use [patch.crates-io]"));
    }
    let mut folders = Vec::new();
    for (table, entries) in dependency_tables(manifest) {
        for (name, dependency) in entries {
            let entry = format!("{file}: {table}: {name}");
            let Value::Table(fields) = dependency else { continue };
            if let Some(key) = fields.keys().find(|key| !DEPENDENCY_KEYS.contains(&key.as_str())) {
                let why = format!("names a source by `{key}`");
                return Err(manifest_refused(entry, why, "use a version of crates.io, or a package of the workspace"));
            }
            match fields.get("path") {
                None => {}
                Some(path) => {
                    let inside = path.as_str().and_then(|path| folder(at, path));
                    let why = format!("has a path outside the workspace: {path}");
                    folders.push(inside.ok_or_else(|| manifest_refused(entry, why, "use a path inside it"))?);
                }
            }
        }
    }
    Ok(folders)
}

/// A path below the workspace. `None` if it leaves it.
fn folder(at: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = at.split('/').filter(|part| !part.is_empty()).collect();
    if path.starts_with('/') || path.contains(['\\', ':', '\0']) {
        return None;
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The crates that the lock file pins.
fn lock(text: &[u8], manifests: &BTreeMap<String, Table>) -> Result<Vec<Locked>, Reason> {
    let file = "Cargo.lock";
    let parsed = std::str::from_utf8(text).map_err(|error| error.to_string());
    let parsed = parsed.and_then(|text| text.parse::<Table>().map_err(|error| error.message().to_owned()));
    let lock = parsed.map_err(|why| refused(file, format!("cannot be read: {why}"), "write it anew"))?;
    if !matches!(lock.get("version").and_then(Value::as_integer), Some(3 | 4)) {
        return Err(refused(file, "has another version than 3 or 4", "write it anew with a current cargo"));
    }
    let own: BTreeSet<&str> =
        manifests.values().filter_map(|manifest| manifest.get("package")?.get("name")?.as_str()).collect();
    let mut packages = Vec::new();
    for package in lock.get("package").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
        let text = |field: &str| package.get(field).and_then(Value::as_str);
        let (name, version) = (text("name").unwrap_or_default(), text("version").unwrap_or_default());
        let refuse =
            |why: String, what_to_do: &str| Err(refused(format_args!("{file}: {name} {version}"), why, what_to_do));
        let Some(source) = package.get("source") else {
            if own.contains(name) {
                continue;
            }
            return refuse("has no source and is not a package of the workspace".into(), "write the lock file anew");
        };
        if !source.as_str().is_some_and(|source| REGISTRIES.contains(&source)) {
            return refuse(format!("comes from {source}"), "use a version of crates.io");
        }
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let is_version = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte));
        let checksum = text("checksum").unwrap_or_default();
        if !is_name || !is_version || version.is_empty() {
            return refuse("is not a crate with a version".into(), "write the lock file anew");
        }
        if checksum.len() != 64 || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return refuse("has no checksum, so that any content would do".into(), "write the lock file anew");
        }
        let (name, version) = (name.to_owned(), version.to_owned());
        packages.push(Locked { path: String::new(), name, version, optional: false, direct: false });
    }
    Ok(packages)
}

/// The manifest that cargo reads: dependencies and features, and one empty library.
fn normalised(manifest: &Table, folder: &str, folders: &[&String]) -> Result<String, Reason> {
    let mut written = Table::new();
    if let Some(Value::Table(package)) = manifest.get("package") {
        let mut kept: Table = package
            .iter()
            .filter(|(key, _)| ["name", "version", "edition", "resolver"].contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for key in ["build", "autobins", "autoexamples", "autotests", "autobenches"] {
            kept.insert(key.into(), Value::Boolean(false));
        }
        written.insert("package".into(), Value::Table(kept));
        written.insert("lib".into(), Value::Table(Table::from_iter([("path".into(), Value::String("lib.rs".into()))])));
    }
    for key in DEPENDENCIES.into_iter().chain(["features", "patch"]) {
        if let Some(value @ Value::Table(_)) = manifest.get(key) {
            written.insert(key.into(), value.clone());
        }
    }
    for (target, value) in manifest.get("target").and_then(Value::as_table).into_iter().flatten() {
        let tables = DEPENDENCIES.into_iter().filter_map(|field| Some((field.to_owned(), value.get(field)?.clone())));
        let targets = written.entry("target").or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(targets) = targets {
            targets.insert(target.clone(), Value::Table(tables.collect()));
        }
    }
    if let (true, Some(Value::Table(workspace))) = (folder.is_empty(), manifest.get("workspace")) {
        let mut kept: Table = workspace
            .iter()
            .filter(|(key, _)| ["resolver", "dependencies", "package"].contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let members = folders.iter().map(|folder| Value::String((*folder).clone())).collect();
        kept.insert("members".into(), Value::Array(members));
        written.insert("workspace".into(), Value::Table(kept));
    }
    toml::to_string(&written).map_err(|error| {
        manifest_refused(in_folder(folder, "Cargo.toml"), format!("cannot be written anew: {error}"), "simplify it")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn planned(files: &[(&str, &str)]) -> Result<Option<InstallPlan>, Reason> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        plan(&Snapshot::take(folder.path()).unwrap()).map_err(|error| match error {
            ExamineError::GateFailed(reason) => reason,
            ExamineError::Infra(error) => panic!("{error}"),
        })
    }

    const SUM: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn lock(packages: &str) -> String {
        format!("version = 4\n[[package]]\nname = \"x\"\nversion = \"0.1.0\"\n{}", packages.replace("SUM", SUM))
    }

    const SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

    #[test]
    fn crates_that_are_not_pinned_by_checksum_are_refused() {
        let manifest = "[package]\nname = \"x\"\nversion = \"0.1.0\"\n[dependencies]\na = \"1\"\n";
        for (packages, why) in [
            ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"git+https://h/a?rev=1#1\"\n".to_owned(), "comes from"),
            ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+https://evil.example/index\"\nchecksum = \"SUM\"\n".to_owned(), "comes from"),
            ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"sparse+http://127.0.0.1/\"\nchecksum = \"SUM\"\n".to_owned(), "comes from"),
            ("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n".to_owned(), "no source"),
            (format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{SOURCE}\n"), "no checksum"),
            (format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{SOURCE}\nchecksum = \"00\"\n"), "no checksum"),
            (format!("[[package]]\nname = \"../a\"\nversion = \"1.0.0\"\n{SOURCE}\nchecksum = \"SUM\"\n"), "not a crate"),
            (format!("[[package]]\nname = \"a\"\nversion = \"1/..\"\n{SOURCE}\nchecksum = \"SUM\"\n"), "not a crate"),
        ] {
            let reason = planned(&[("Cargo.toml", manifest), ("Cargo.lock", &lock(&packages))]).expect_err(&packages);
            assert!(reason.code == "lockfile_refused" && reason.message.contains(why), "{packages}: {reason:?}");
        }
        for text in ["", "version = 1\n", "[", "version = 99\n"] {
            assert_eq!(
                planned(&[("Cargo.toml", manifest), ("Cargo.lock", text)]).unwrap_err().code,
                "lockfile_refused",
                "{text}"
            );
        }
        assert_eq!(planned(&[("Cargo.toml", manifest)]).unwrap_err().code, "no_lockfile");
    }

    #[test]
    fn manifests_that_name_other_sources_are_refused() {
        for (lines, why) in [
            ("[dependencies]\na = { git = \"https://h/a\" }", "`git`"),
            ("[dependencies.a]\nregistry = \"evil\"", "`registry`"),
            ("[dependencies.a]\nregistry-index = \"https://evil.example\"", "`registry-index`"),
            ("[dev-dependencies]\na = { path = \"../a\" }", "outside the workspace"),
            ("[build-dependencies]\na = { path = \"/etc\" }", "outside the workspace"),
            ("[dependencies]\na = { path = 1 }", "outside the workspace"),
            ("[target.'cfg(unix)'.dependencies]\na = { git = \"https://h/a\" }", "target.cfg(unix).dependencies"),
            ("[patch.crates-io]\na = { git = \"https://h/a\" }", "patch.crates-io"),
            ("[patch.'https://h']\na = { path = \"../../a\" }", "outside the workspace"),
            ("[replace]\n\"a:1.0.0\" = { path = \"a\" }", "outdated"),
            ("[workspace.dependencies]\na = { git = \"https://h/a\" }", "workspace.dependencies"),
            ("[workspace]\nmembers = [\"../*\"]", "leaves the workspace"),
            ("[dependencies]\na = { path = \"gone\" }", "no Cargo.toml"),
            ("[", "cannot be read"),
        ] {
            let manifest = format!("[package]\nname = \"x\"\nversion = \"0.1.0\"\n{lines}\n");
            let reason = planned(&[("Cargo.toml", &manifest), ("Cargo.lock", &lock(""))]).expect_err(lines);
            assert!(reason.code == "manifest_refused" && reason.message.contains(why), "{lines}: {reason:?}");
        }
    }

    #[test]
    fn cargo_sees_dependencies_and_one_empty_library() {
        let root = "cargo-features = [\"x\"]\n[package]\nname = \"x\"\nversion = \"0.1.0\"\nedition = \"2024\"\nbuild = \"evil.rs\"\nlinks = \"y\"\n[dependencies]\na = \"1\"\n[[bin]]\nname = \"z\"\npath = \"/etc/passwd\"\n[workspace]\nmembers = [\"m\"]\nexclude = [\"e\"]\n[profile.dev]\ndebug = 1\n[target.'cfg(unix)'.dependencies]\nb.workspace = true\n[workspace.dependencies]\nb = \"1\"\n[features]\nf = []\n";
        let packages = format!(
            "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{SOURCE}\nchecksum = \"SUM\"\n[[package]]\nname = \"m\"\nversion = \"0.1.0\"\n"
        );
        let member = "[package]\nname = \"m\"\nversion = \"0.1.0\"\n";
        let files = [
            ("Cargo.toml", root),
            ("m/Cargo.toml", member),
            ("e/Cargo.toml", "[dependencies]\nq = { git = \"x\" }\n"),
            (".cargo/config.toml", "[source.crates-io]\nreplace-with = \"evil\"\n"),
            ("Cargo.lock", &lock(&packages)),
        ];
        let plan = planned(&files).unwrap().unwrap();
        assert_eq!(
            plan.files.keys().collect::<Vec<_>>(),
            ["Cargo.lock", "Cargo.toml", "lib.rs", "m/Cargo.toml", "m/lib.rs"]
        );
        let written: Table = std::str::from_utf8(&plan.files["Cargo.toml"]).unwrap().parse().unwrap();
        assert_eq!(
            written.keys().collect::<Vec<_>>(),
            ["dependencies", "features", "lib", "package", "target", "workspace"]
        );
        let package = written["package"].as_table().unwrap();
        assert_eq!((package["build"].as_bool(), package.contains_key("links")), (Some(false), false));
        assert_eq!(written["workspace"]["members"].as_array().unwrap(), &[Value::String("m".into())]);
        assert_eq!(plan.packages(), 1);
    }

    #[test]
    fn this_workspace_is_accepted() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = tempfile::tempdir().unwrap();
        let mut folders = vec![root.clone()];
        for parent in ["functions", "."] {
            folders.extend(fs::read_dir(root.join(parent)).unwrap().flatten().map(|entry| entry.path()));
        }
        for path in folders.iter().filter(|path| path.join("Cargo.toml").is_file()) {
            let target = folder.path().join(
                path.strip_prefix(&root)
                    .unwrap()
                    .components()
                    .filter(|part| part.as_os_str() != ".")
                    .collect::<std::path::PathBuf>(),
            );
            fs::create_dir_all(&target).unwrap();
            fs::copy(path.join("Cargo.toml"), target.join("Cargo.toml")).unwrap();
        }
        fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
        let plan = plan(&Snapshot::take(folder.path()).unwrap()).unwrap().unwrap();
        assert!(plan.packages() > 100);
    }
}
