//! What pip installs: exact versions with digests of their files, from requirements or pylock.toml.
//!
//! pip runs with `--only-binary :all:`, so that no package's code runs while it is installed.

use std::collections::BTreeSet;
use std::fmt::Write;

use toml::{Table, Value};

use super::npm::SYSTEM;
use super::{Ecosystem, InstallPlan, Locked, manifest_refused, read, refused};
use crate::finding::{ExamineError, Reason};
use crate::snapshot::Snapshot;

/// Lock files of other tools, and how to make one for pip.
const OTHERS: [(&str, &str); 4] = [
    ("uv.lock", "uv export --all-groups --all-extras --no-emit-project --output-file requirements.lock"),
    ("poetry.lock", "poetry export --with dev --output requirements.lock"),
    ("pdm.lock", "pdm export --output requirements.lock"),
    ("Pipfile.lock", "pipenv requirements --hash --dev > requirements.lock"),
];

/// Files that pin what to install. The first group of which one exists counts, with all of its files.
const SOURCES: [&[&str]; 3] = [
    &["requirements.lock", "requirements-dev.lock"],
    &["pylock.toml"],
    &["requirements.txt", "requirements-dev.txt", "requirements-test.txt", "dev-requirements.txt"],
];

/// One vetted requirement.
#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    name: String,
    version: String,
    marker: Option<String>,
    /// Like `sha256:00ff`.
    hashes: Vec<String>,
}

pub fn plan(snapshot: &Snapshot) -> Result<Option<InstallPlan>, ExamineError> {
    for files in SOURCES {
        let mut found = Vec::new();
        for file in files {
            found.extend(read(snapshot, file)?.map(|text| (*file, text)));
        }
        let Some((first, _)) = found.first() else { continue };
        let mut requirements = Vec::new();
        for (file, text) in &found {
            let text = std::str::from_utf8(text).map_err(|_| refused(file, "is not UTF-8", "write it anew"))?;
            let more = if *file == "pylock.toml" { pylock(file, text)? } else { self::requirements(file, text)? };
            merge(file, &mut requirements, more)?;
        }
        if requirements.is_empty() {
            continue;
        }
        let texts: Vec<&[u8]> = found.iter().map(|(_, text)| text.as_slice()).collect();
        let mut plan = InstallPlan::new(Ecosystem::Pip, first, &texts.concat());
        plan.files.insert("requirements.txt".into(), normalised(&requirements).into_bytes());
        plan.packages = requirements.into_iter().map(locked).collect();
        return Ok(Some(plan));
    }
    let other = OTHERS.into_iter().find(|(file, _)| snapshot.files().contains_key(*file));
    if let Some((file, command)) = other {
        let message =
            format!("gates install with pip, which does not read {file}; commit a requirements.lock too ({command})");
        return Err(Reason::new("no_lockfile", message).into());
    }
    let Some(text) = read(snapshot, "pyproject.toml")? else { return Ok(None) };
    if !declares_dependencies(&text)? {
        return Ok(None);
    }
    let message = "pyproject.toml declares dependencies, but there is no requirements.lock to pin them; commit one \
        (uv export --all-groups --all-extras --no-emit-project --output-file requirements.lock)";
    Err(Reason::new("no_lockfile", message).into())
}

/// Adds the requirements of a further file.
fn merge(file: &str, all: &mut Vec<Requirement>, more: Vec<Requirement>) -> Result<(), Reason> {
    for requirement in more {
        match all.iter().find(|known| known.name == requirement.name && known.marker == requirement.marker) {
            None => all.push(requirement),
            Some(known) if *known == requirement => {}
            Some(_) => {
                return Err(refused(format_args!("{file}: {}", requirement.name), "is there twice", "pin it once"));
            }
        }
    }
    Ok(())
}

fn locked(requirement: Requirement) -> Locked {
    let Requirement { name, version, marker, .. } = requirement;
    Locked { path: String::new(), name, version, optional: marker.is_some(), direct: false }
}

fn declares_dependencies(text: &[u8]) -> Result<bool, Reason> {
    let file = "pyproject.toml";
    let text = std::str::from_utf8(text).map_err(|_| manifest_refused(file, "is not UTF-8", "mend it"))?;
    let table: Table =
        text.parse().map_err(|error| manifest_refused(file, format!("cannot be read: {error}"), "mend it"))?;
    let is_filled = |value: Option<&Value>| match value {
        Some(Value::Array(entries)) => !entries.is_empty(),
        Some(Value::Table(entries)) => !entries.is_empty(),
        _ => false,
    };
    let project = table.get("project");
    let of_project = |field: &str| is_filled(project.and_then(|project| project.get(field)));
    Ok(of_project("dependencies") || of_project("optional-dependencies") || is_filled(table.get("dependency-groups")))
}

/// Reads requirements as pip-compile and `uv export` write them.
fn requirements(file: &str, text: &str) -> Result<Vec<Requirement>, Reason> {
    let mut requirements = Vec::new();
    let mut names = BTreeSet::new();
    for line in logical_lines(text) {
        if names_another_source(&line) {
            continue;
        }
        let requirement = requirement(&line).map_err(|(why, what_to_do)| {
            refused(format_args!("{file}: {}", line.split(" --hash").next().unwrap_or_default()), why, what_to_do)
        })?;
        if !names.insert(requirement.name.clone()) && requirement.marker.is_none() {
            return Err(refused(format_args!("{file}: {}", requirement.name), "is there twice", "keep one"));
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

/// `-r` or `-c` with a file of the same group, which is read anyway.
fn names_another_source(line: &str) -> bool {
    let file = ["-r ", "-c "].iter().find_map(|option| line.strip_prefix(option));
    file.is_some_and(|file| SOURCES.iter().flat_map(|files| files.iter()).any(|known| *known == file.trim()))
}

/// Lines without comments, joined where one ends in a backslash.
fn logical_lines(text: &str) -> Vec<String> {
    let (mut lines, mut open) = (Vec::new(), String::new());
    for line in text.lines() {
        let code = match line.find('#') {
            Some(0) => "",
            Some(_) => line.find(" #").or_else(|| line.find("\t#")).map_or(line, |at| line.get(..at).unwrap_or(line)),
            None => line,
        };
        let code = code.trim();
        if let Some(code) = code.strip_suffix('\\') {
            open.push_str(code.trim());
            open.push(' ');
        } else {
            open.push_str(code);
            lines.push(std::mem::take(&mut open).trim().to_owned());
        }
    }
    lines.push(open.trim().to_owned());
    lines.retain(|line| !line.is_empty());
    lines
}

type Refusal = (&'static str, &'static str);

fn requirement(line: &str) -> Result<Requirement, Refusal> {
    const PIN: &str = "pin an exact version with hashes";
    if line.starts_with('-') {
        return Err(("is an option, and options decide where packages come from", "remove it"));
    }
    if line.contains('$') {
        return Err(("uses a variable", PIN));
    }
    let mut parts = line.split(" --");
    let specifier = parts.next().unwrap_or_default().trim();
    let mut hashes = Vec::new();
    for option in parts {
        let hash = option.trim().strip_prefix("hash").map(|hash| hash.trim_start_matches(['=', ' ']));
        hashes.push(hash.and_then(digest).ok_or(("has an option other than --hash with sha256 or more", PIN))?);
    }
    let (pinned, marker) =
        specifier.split_once(';').map_or((specifier, None), |(pinned, marker)| (pinned, Some(marker.trim())));
    if pinned.contains("://") || pinned.contains('@') {
        return Err(("comes from a URL or file", "use a version of the package index"));
    }
    let (name, version) = pinned.split_once("==").ok_or(("is not pinned with ==", PIN))?;
    let name = name.split('[').next().unwrap_or_default().trim();
    let version = version.trim_start_matches('=').trim();
    if !is_name(name) || !is_version(version) {
        return Err(("is not a package with an exact version", PIN));
    }
    if marker.is_some_and(|marker| !is_marker(marker)) {
        return Err(("has a marker that cannot be read", "write the file anew"));
    }
    if hashes.is_empty() {
        return Err((
            "has no hash, so that any content would do",
            "write the file anew with hashes: uv pip compile --generate-hashes",
        ));
    }
    Ok(Requirement { name: canonical(name), version: version.into(), marker: marker.map(Into::into), hashes })
}

/// `sha256:hex` of the right length.
fn digest(text: &str) -> Option<String> {
    let (algorithm, hex) = text.split_once(':')?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return None,
    };
    (hex.len() == length && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn is_name(name: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && name.len() <= 200
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_version(version: &str) -> bool {
    let bytes = version.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_digit)
        && version.len() <= 100
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b".!+-_".contains(byte))
}

fn is_marker(marker: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" _.-<>=!~()'\"+*,".contains(&byte);
    !marker.is_empty() && marker.len() <= 2000 && marker.bytes().all(is_plain) && !marker.contains("--")
}

/// Whether a file that a package installs would stand in for a program of the system, or decide how Python starts. Paths are
/// those of RECORD: relative to site-packages.
pub fn is_of_the_system(file: &str, package: &str) -> bool {
    match file.strip_prefix("../../../") {
        Some(file) => file.strip_prefix("bin/").map_or(file == "pyvenv.cfg", |command| {
            let is_pip = command.starts_with("pip") && package != "pip";
            is_pip || command.starts_with("python") || SYSTEM.contains(&command)
        }),
        None => matches!(file, "sitecustomize.py" | "usercustomize.py"),
    }
}

/// The name as the package index compares it.
pub fn canonical(name: &str) -> String {
    let mut canonical = String::with_capacity(name.len());
    for character in name.chars() {
        let character = if matches!(character, '_' | '.') { '-' } else { character.to_ascii_lowercase() };
        if character != '-' || !canonical.ends_with('-') {
            canonical.push(character);
        }
    }
    canonical
}

fn normalised(requirements: &[Requirement]) -> String {
    let mut text = String::new();
    for Requirement { name, version, marker, hashes } in requirements {
        let _ = write!(text, "{name}=={version}");
        if let Some(marker) = marker {
            let _ = write!(text, " ; {marker}");
        }
        for hash in hashes {
            let _ = write!(text, " --hash={hash}");
        }
        text.push('\n');
    }
    text
}

/// Reads the standard lock file (PEP 751). Its addresses are forgotten: the package index is asked for the digests.
fn pylock(file: &str, text: &str) -> Result<Vec<Requirement>, Reason> {
    let table: Table =
        text.parse().map_err(|error| refused(file, format!("cannot be read: {error}"), "write it anew"))?;
    if table.get("lock-version").and_then(Value::as_str).is_none_or(|version| !version.starts_with("1.")) {
        return Err(refused(file, "has no lock-version 1", "write it anew"));
    }
    let packages = table.get("packages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut requirements = Vec::new();
    for package in packages {
        let text = |field: &str| package.get(field).and_then(Value::as_str);
        let name = text("name").unwrap_or_default();
        let refuse = |why: &str, what_to_do: &str| refused(format_args!("{file}: {name}"), why, what_to_do);
        if let Some(source) = ["vcs", "directory", "archive"].into_iter().find(|source| package.get(source).is_some()) {
            return Err(refuse(&format!("comes from a {source}"), "use a version of the package index"));
        }
        let (version, marker) = (text("version").unwrap_or_default(), text("marker"));
        if !is_name(name) || !is_version(version) || marker.is_some_and(|marker| !is_marker(marker)) {
            return Err(refuse("is not a package with an exact version", "write the file anew"));
        }
        let index = text("index").unwrap_or("https://pypi.org/simple");
        if index.trim_end_matches('/') != "https://pypi.org/simple" {
            return Err(refuse("comes from another index", "use a version of the public index"));
        }
        let wheels = package.get("wheels").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut hashes = Vec::new();
        for wheel in wheels {
            let known = wheel.get("hashes").and_then(Value::as_table).into_iter().flatten();
            hashes.extend(known.filter_map(|(name, hex)| digest(&format!("{name}:{}", hex.as_str()?))));
        }
        if hashes.is_empty() {
            return Err(refuse(
                "has no wheel with a digest, and building one would run its code",
                "use a version with wheels",
            ));
        }
        let name = canonical(name);
        requirements.push(Requirement { name, version: version.into(), marker: marker.map(Into::into), hashes });
    }
    Ok(requirements)
}

#[cfg(test)]
#[path = "pip_tests.rs"]
mod tests;
