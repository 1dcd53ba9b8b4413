//! Lockfiles: where packages come from, and whether they are the ones of the base. New and newer packages of a registry are
//! no reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::meaning;
use super::Reasons;
use super::dependency::{is_tool, takes_command, version};

const REGISTRIES: [&str; 2] = ["https://registry.npmjs.org/", "https://registry.yarnpkg.com/"];

/// Hosts of public indexes.
const INDEXES: [&str; 5] =
    ["registry.npmjs.org", "registry.yarnpkg.com", "files.pythonhosted.org", "pypi.org", "test-files.pythonhosted.org"];

pub fn npm(path: &str, base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let packages = |text: &str| meaning::json(text)?.get("packages")?.as_object().cloned();
    let Some(new) = packages(head) else { return vec!["it has no list of packages".to_owned()] };
    if base.is_none() && path.ends_with("npm-shrinkwrap.json") {
        // npm prefers it to package-lock.json.
        return vec!["it is new".to_owned()];
    }
    let old = base.and_then(packages).unwrap_or_default();
    let of_registry =
        old.iter().filter(|(_, package)| package.get("resolved").is_some() && package.get("link").is_none());
    let known = Known {
        hosts: old.values().filter_map(host).collect(),
        names: of_registry.filter_map(|(place, _)| name_at(place)).map(ToOwned::to_owned).collect(),
    };
    let mut reasons: Reasons = new
        .iter()
        .filter(|(place, package)| !place.is_empty() && old.get(*place) != Some(*package))
        .filter_map(|(place, package)| npm_reason(place, old.get(place), package, &known))
        .collect();
    let is_gone =
        |place: &&String| place.strip_prefix("node_modules/").is_some_and(is_tool) && !new.contains_key(*place);
    // Tools come and go with other tools. Only those that the project itself names are missed.
    let named = |place: &&String| {
        let name = place.trim_start_matches("node_modules/");
        ["devDependencies", "dependencies"]
            .iter()
            .any(|key| new.get("").and_then(|root| root.get(key)?.get(name)).is_some())
    };
    reasons.extend(old.keys().filter(is_gone).filter(named).map(|place| format!("{place} is gone")));
    reasons
}

fn host(package: &Value) -> Option<String> {
    let resolved = package.get("resolved")?.as_str()?.strip_prefix("https://")?;
    Some(format!("https://{}/", resolved.split('/').next()?))
}

/// The registries of the base, and the packages that it had from there.
struct Known {
    hosts: BTreeSet<String>,
    names: BTreeSet<String>,
}

/// The name of the package at a place. `None` for a package of the workspace itself.
fn name_at(place: &str) -> Option<&str> {
    place.rsplit_once("node_modules/").map(|(_, name)| name)
}

fn npm_reason(place: &str, old: Option<&Value>, package: &Value, known: &Known) -> Option<String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let Some(name) = name_at(place) else {
        // A package of the workspace itself.
        return place.contains("..").then(|| format!("{place} is outside of the workspace"));
    };
    let resolved = text(package, "resolved");
    if package.get("link").is_some() {
        let target = resolved.unwrap_or_default();
        let outside = target.contains("..") || target.contains(':') || target.starts_with('/');
        let is_other = is_tool(name) || known.names.contains(name);
        return (outside || is_other).then(|| format!("{name} is a link to {target:?}"));
    }
    if package.get("inBundle").is_some() {
        return is_tool(name).then(|| format!("{name} is bundled in another package"));
    }
    let Some(resolved) = resolved else { return Some(format!("{name} does not say where it comes from")) };
    let mut hosts = REGISTRIES.iter().map(ToString::to_string).chain(known.hosts.iter().cloned());
    if !hosts.any(|host| resolved.starts_with(&host)) {
        return Some(format!("{name} comes from {resolved:?}"));
    }
    let integrity = text(package, "integrity");
    if integrity.is_none() {
        return Some(format!("{name} has no integrity"));
    }
    let is_alias = text(package, "name").is_some_and(|real| real != name) || !resolved.contains(&format!("/{name}/-/"));
    if is_alias && is_tool(name) {
        return Some(format!("{name} is another package: {resolved}"));
    }
    let real = text(package, "name").unwrap_or_else(|| name.to_owned());
    if let Some(Value::Object(commands)) = package.get("bin")
        && let Some(command) = commands.keys().find(|command| takes_command(&real, command))
    {
        return Some(format!("{name} installs the command {command:?} of another package"));
    }
    let old = old?;
    let same_version = text(old, "version") == text(package, "version");
    let algorithm = |value: &Option<String>| {
        value.as_deref().and_then(|text| text.split_once('-').map(|(name, _)| name.to_owned()))
    };
    let before = text(old, "integrity");
    if same_version && before.is_some() && algorithm(&before) == algorithm(&integrity) && before != integrity {
        return Some(format!("{name} has the same version and other bytes"));
    }
    let back =
        text(old, "version").as_deref().and_then(version).zip(text(package, "version").as_deref().and_then(version));
    let is_direct = place.matches("node_modules/").count() == 1;
    (is_direct && is_tool(name) && back.is_some_and(|(one, other)| other < one))
        .then(|| format!("the tool {name} goes back to an older version"))
}

/// Lockfiles that are read line by line: added lines that name another source than a registry.
pub fn text(path: &str, base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let old: BTreeSet<&str> = base.unwrap_or_default().lines().map(str::trim).collect();
    let mut known: BTreeSet<String> = old.iter().flat_map(|line| hosts(&line.to_ascii_lowercase())).collect();
    known.extend(INDEXES.map(|host| format!("https://{host}")));
    let added = head.lines().map(str::trim).filter(|line| !old.contains(line));
    let mut reasons: Reasons = added
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            let word = |word: &str| line.contains(word);
            let foreign_url = hosts(&line).iter().any(|host| {
                !known.contains(host) && ["resolved", "tarball", "url", "registry"].iter().any(|key| word(key))
            });
            foreign_url
                || word("git+")
                || word("git = ")
                || word("file:")
                || word("directory = ")
                || word("path = ")
                || (word("link:") && !word("link:.") && !word("link:packages"))
        })
        .map(|line| format!("a package comes from no registry: {line}"))
        .collect();
    if path.rsplit('.').next().is_some_and(|extension| matches!(extension, "lock" | "toml")) {
        reasons.extend(downgrades(base.unwrap_or_default(), head));
    }
    reasons
}

/// The schemes and hosts of the URLs in a line.
fn hosts(line: &str) -> Vec<String> {
    let end = |rest: &str, from: usize| {
        rest.get(from..).and_then(|host| host.find(['/', '"', '\'', ' ', '}'])).map_or(rest.len(), |at| at + from)
    };
    ["http://", "https://"]
        .iter()
        .flat_map(|scheme| {
            line.match_indices(scheme).filter_map(|(at, _)| line.get(at..)).map(|rest| (rest, scheme.len()))
        })
        .filter_map(|(rest, from)| rest.get(..end(rest, from)).map(ToOwned::to_owned))
        .collect()
}

/// Tools in uv.lock and poetry.lock that go back to an older version.
fn downgrades(base: &str, head: &str) -> Reasons {
    let versions = |text: &str| {
        let mut found = BTreeMap::new();
        let mut name = String::new();
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("name = ") {
                value.trim_matches('"').clone_into(&mut name);
            } else if let Some(value) = line.strip_prefix("version = ") {
                found.insert(name.clone(), version(value));
            }
        }
        found
    };
    let (old, new) = (versions(base), versions(head));
    let back = |name: &&String| {
        is_tool(name) && matches!((old.get(*name), new.get(*name)), (Some(Some(one)), Some(Some(other))) if other < one)
    };
    old.keys().filter(back).map(|name| format!("the tool {name} goes back to an older version")).collect()
}

/// requirements.txt: options, sources that are no index, lost hashes, older tools.
pub fn requirements(base: Option<&str>, head: Option<&str>) -> Reasons {
    let Some(head) = head else { return vec!["it is deleted".to_owned()] };
    let old = entries(base.unwrap_or_default());
    let mut reasons = Vec::new();
    for (name, entry) in entries(head) {
        let before = old.get(&name);
        if before == Some(&entry) {
            continue;
        }
        if name.starts_with('-')
            || entry.contains("://")
            || entry.contains(" @ ")
            || name.starts_with(['.', '/'])
            || name.contains('/')
        {
            let is_include = name.starts_with("-r") || name.starts_with("-c");
            // An included file is protected itself.
            let stays = is_include && !name.contains("..") && !name.contains(':');
            if !stays {
                reasons.push(format!("{entry:?} is new"));
            }
            continue;
        }
        let Some(before) = before else { continue };
        if before.contains("--hash") && !entry.contains("--hash") {
            reasons.push(format!("{name} has lost its hash"));
        }
        let pin = |entry: &str| entry.split_once("==").and_then(|(_, rest)| version(rest));
        match (pin(before), pin(&entry)) {
            (Some(one), Some(other)) if is_tool(&name) && other < one => {
                reasons.push(format!("the tool {name} goes back to an older version"));
            }
            (Some(one), Some(other)) if one == other && before.contains("--hash") => {
                let hashes = |entry: &str| {
                    entry.split("--hash=").skip(1).map(|hash| hash.trim().to_owned()).collect::<BTreeSet<_>>()
                };
                if hashes(before).is_disjoint(&hashes(&entry)) {
                    reasons.push(format!("{name} has the same version and other bytes"));
                }
            }
            _ => {}
        }
    }
    let gone = old.keys().filter(|name| is_tool(name) && !entries(head).contains_key(*name));
    reasons.extend(gone.map(|name| format!("the tool {name} is gone")));
    reasons
}

/// Requirements by name, with their continuation lines.
fn entries(text: &str) -> BTreeMap<String, String> {
    let joined = text.replace("\\\n", " ").replace("\\\r\n", " ");
    let mut found = BTreeMap::new();
    for line in joined.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/');
        let end = line.find(|letter: char| !is_name(letter)).unwrap_or(line.len());
        let name = line.get(..end).unwrap_or_default();
        let name = if line.starts_with('-') { line.to_owned() } else { name.to_ascii_lowercase().replace('_', "-") };
        let entry = line.split_whitespace().collect::<Vec<_>>().join(" ");
        found.insert(name, entry);
    }
    found
}
