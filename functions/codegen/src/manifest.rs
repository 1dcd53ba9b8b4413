//! The dependencies that a manifest declares: `package.json`, `Cargo.toml`, `pyproject.toml` and `requirements*.txt`.
//!
//! They are given as declared. A version counts only if the manifest allows no other one.

use serde_json::Value;
use toml::Table;

/// A declared dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// As its ecosystem writes it.
    pub name: String,
    /// The table or list that declares it, such as `devDependencies`.
    pub section: String,
    pub scope: Scope,
    /// The version as the manifest writes it. `None` if it names none.
    pub declared: Option<String>,
    /// The only version that the manifest allows.
    pub pinned: Option<String>,
    /// The type of its package URL. `None` if it is not from the ecosystem's registry.
    pub registry: Option<&'static str>,
}

/// As `CycloneDX` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Required,
    Optional,
    /// For development, tests or builds.
    Excluded,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::Excluded => "excluded",
        }
    }
}

impl Dependency {
    /// The package URL. `None` if it is not from a registry.
    pub fn purl(&self) -> Option<String> {
        let kind = self.registry?;
        // The empty part of a name would be another package's.
        if self.name.split('/').any(str::is_empty) {
            return None;
        }
        let name: Vec<String> = self.name.split('/').map(percent).collect();
        let version = self.pinned.as_deref().map(|version| format!("@{}", percent(version))).unwrap_or_default();
        Some(format!("pkg:{kind}/{}{version}", name.join("/")))
    }
}

/// The dependencies of a manifest. Empty if the file is none, or cannot be read.
pub(crate) fn read(path: &str, text: &str) -> Vec<Dependency> {
    match path.rsplit('/').next().unwrap_or_default() {
        "package.json" => serde_json::from_str(text).map(|manifest| npm(&manifest)).unwrap_or_default(),
        "Cargo.toml" => text.parse().map(|manifest| cargo(&manifest)).unwrap_or_default(),
        "pyproject.toml" => text.parse().map(|manifest| pyproject(&manifest)).unwrap_or_default(),
        name if name.starts_with("requirements") && name.to_ascii_lowercase().ends_with(".txt") => requirements(text),
        _ => Vec::new(),
    }
}

fn npm(manifest: &Value) -> Vec<Dependency> {
    let mut found = Vec::new();
    for (section, scope) in [
        ("dependencies", Scope::Required),
        ("optionalDependencies", Scope::Optional),
        ("peerDependencies", Scope::Optional),
        ("devDependencies", Scope::Excluded),
    ] {
        for (name, declared) in manifest.get(section).and_then(Value::as_object).into_iter().flatten() {
            let Some(declared) = declared.as_str().map(str::trim) else { continue };
            // `git+https://..`, `file:..`, `workspace:*`, `npm:other@1`, `owner/repository`.
            let is_version = !declared.contains([':', '/']) && is_npm_name(name);
            let exact = declared.trim_start_matches(['=', 'v']);
            found.push(Dependency {
                name: name.clone(),
                section: section.to_owned(),
                scope,
                declared: Some(declared.to_owned()).filter(|declared| !declared.is_empty()),
                pinned: (is_version && is_semver(exact)).then(|| exact.to_owned()),
                registry: is_version.then_some("npm"),
            });
        }
    }
    found
}

/// `name` or `@scope/name`, with the characters that npm's registry has.
fn is_npm_name(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._~-!*'()".contains(c));
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| is_part(scope) && is_part(name)),
        None => is_part(name),
    }
}

fn cargo(manifest: &Table) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut add = |prefix: &str, manifest: &Table| {
        for (section, scope) in [
            ("dependencies", Scope::Required),
            ("build-dependencies", Scope::Excluded),
            ("dev-dependencies", Scope::Excluded),
        ] {
            let entries = manifest.get(section).and_then(toml::Value::as_table);
            found.extend(
                entries
                    .into_iter()
                    .flatten()
                    .map(|(name, entry)| crate_of(name, entry, format!("{prefix}{section}"), scope)),
            );
        }
    };
    add("", manifest);
    for (target, manifest) in manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten() {
        if let Some(manifest) = manifest.as_table() {
            add(&format!("target.{target}."), manifest);
        }
    }
    if let Some(workspace) = manifest.get("workspace").and_then(toml::Value::as_table) {
        add("workspace.", workspace);
    }
    found
}

fn crate_of(name: &str, entry: &toml::Value, section: String, scope: Scope) -> Dependency {
    let text = |key: &str| entry.get(key).and_then(toml::Value::as_str);
    let declared = entry.as_str().or_else(|| text("version")).map(str::trim);
    let is_elsewhere = ["path", "git", "registry", "workspace"].iter().any(|key| entry.get(key).is_some());
    let name = text("package").unwrap_or(name);
    let is_crate = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    let is_optional = scope == Scope::Required && entry.get("optional").and_then(toml::Value::as_bool) == Some(true);
    let exact =
        declared.and_then(|declared| declared.strip_prefix('=')).map(str::trim).filter(|exact| is_semver(exact));
    Dependency {
        name: name.to_owned(),
        section,
        scope: if is_optional { Scope::Optional } else { scope },
        declared: declared.map(str::to_owned),
        pinned: exact.filter(|_| !is_elsewhere).map(str::to_owned),
        registry: (!is_elsewhere && is_crate).then_some("cargo"),
    }
}

fn pyproject(manifest: &Table) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut add = |section: String, scope: Scope, list: &toml::Value| {
        let texts = list.as_array().into_iter().flatten().filter_map(toml::Value::as_str);
        found.extend(texts.filter_map(|text| requirement(text, &section, scope)));
    };
    let project = manifest.get("project").and_then(toml::Value::as_table);
    if let Some(list) = project.and_then(|project| project.get("dependencies")) {
        add("project.dependencies".to_owned(), Scope::Required, list);
    }
    let extras = project.and_then(|project| project.get("optional-dependencies"));
    for (name, list) in extras.and_then(toml::Value::as_table).into_iter().flatten() {
        add(format!("project.optional-dependencies.{name}"), Scope::Optional, list);
    }
    for (name, list) in manifest.get("dependency-groups").and_then(toml::Value::as_table).into_iter().flatten() {
        add(format!("dependency-groups.{name}"), Scope::Excluded, list);
    }
    found
}

fn requirements(text: &str) -> Vec<Dependency> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    // Options, comments and hashes.
    let lines = joined.lines().map(|line| before(before(line, "#"), "--").trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(['-', '#']));
    lines.filter_map(|line| requirement(line, "requirements", Scope::Required)).collect()
}

/// What is before a mark that is at the start of the line or follows white space.
fn before<'a>(line: &'a str, mark: &str) -> &'a str {
    let starts = |at: usize| line.get(..at).is_some_and(|rest| rest.is_empty() || rest.ends_with(char::is_whitespace));
    let found = line.match_indices(mark).map(|(at, _)| at).find(|at| starts(*at));
    found.and_then(|at| line.get(..at)).unwrap_or(line)
}

/// A requirement as PEP 508 has it. `None` if it starts with no name, such as a path or URL, or names a file of a package.
fn requirement(text: &str, section: &str, scope: Scope) -> Option<Dependency> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let is_outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let lower = name.to_ascii_lowercase();
    if !is_outer(name.chars().next()) || !is_outer(name.chars().last()) || FILES.iter().any(|end| lower.ends_with(end))
    {
        return None;
    }
    rest = rest.trim_start();
    if let Some(extras) = rest.strip_prefix('[') {
        rest = extras.split_once(']')?.1.trim_start();
    }
    if !rest.is_empty() && !rest.starts_with(['(', ';', '@', '<', '>', '=', '!', '~']) {
        return None;
    }
    let is_elsewhere = rest.starts_with('@');
    let declared =
        rest.split(';').next().unwrap_or_default().trim().trim_start_matches('(').trim_end_matches(')').trim();
    let exact = declared.strip_prefix("===").or_else(|| declared.strip_prefix("==")).map(str::trim);
    let is_version = |text: &&str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || ".!+-_".contains(c))
    };
    Some(Dependency {
        name: canonical(name),
        section: section.to_owned(),
        scope,
        declared: Some(declared.to_owned()).filter(|declared| !declared.is_empty()),
        pinned: exact.filter(is_version).map(str::to_owned),
        registry: (!is_elsewhere).then_some("pypi"),
    })
}

/// The ends of the names of files that pip installs.
const FILES: [&str; 7] = [".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".egg"];

/// The name as PyPI compares it (PEP 503).
fn canonical(name: &str) -> String {
    let parts: Vec<_> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_ascii_lowercase()
}

/// `1.2.3`, with a pre-release and build if it has them.
fn is_semver(text: &str) -> bool {
    let (core, rest) = text.find(['-', '+']).map_or((text, ""), |at| text.split_at(at));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && rest.len() != 1
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-+.".contains(c))
}

/// Percent-encodes all but the characters that a package URL leaves as they are.
fn percent(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    let encoded =
        text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `section name declared purl` of each.
    fn of(path: &str, text: &str) -> Vec<String> {
        let shown = |found: &Dependency| {
            let declared = found.declared.clone().unwrap_or_else(|| "?".to_owned());
            let purl = found.purl().unwrap_or_else(|| "-".to_owned());
            format!("{} {} {} {declared} {purl}", found.section, found.scope.as_str(), found.name)
        };
        read(path, text).iter().map(shown).collect()
    }

    #[test]
    fn npm_packages_have_a_version_only_if_it_is_the_only_one() {
        let text = r#"{"name":"x","dependencies":{"@a/b":"1.2.3","c":"^1.2.3","d":"1.2","e":"git+https://h/e","f":"1.x.0","g":"1.0.0-rc.1+b"},
            "devDependencies":{"h":"=2.0.0","i":"workspace:*","j":1},"peerDependencies":{"k":"latest"}}"#;
        assert_eq!(
            of("web/package.json", text),
            [
                "dependencies required @a/b 1.2.3 pkg:npm/%40a/b@1.2.3",
                "dependencies required c ^1.2.3 pkg:npm/c",
                "dependencies required d 1.2 pkg:npm/d",
                "dependencies required e git+https://h/e -",
                "dependencies required f 1.x.0 pkg:npm/f",
                "dependencies required g 1.0.0-rc.1+b pkg:npm/g@1.0.0-rc.1%2Bb",
                "peerDependencies optional k latest pkg:npm/k",
                "devDependencies excluded h =2.0.0 pkg:npm/h@2.0.0",
                "devDependencies excluded i workspace:* -",
            ]
        );
    }

    #[test]
    fn what_no_registry_can_have_gets_no_package_url() {
        let names = ["", "/", "@a/", "@/b", "@a", "a/b", "@a/b/c", "a b", "é", "x@y", "..%2F", "https://h/x"];
        let entries: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), "1.0.0".into())).collect();
        let text = serde_json::json!({ "dependencies": entries }).to_string();
        assert_eq!(read("package.json", &text).len(), names.len());
        for found in read("package.json", &text) {
            assert_eq!(found.purl(), None, "{found:?}");
        }
        for found in read("Cargo.toml", "[dependencies]\n\"\" = \"=1.0.0\"\n\"a/b\" = \"=1.0.0\"\n\"é\" = \"1\"\n") {
            assert_eq!(found.purl(), None, "{found:?}");
        }
    }

    #[test]
    fn crates_of_every_table_are_found() {
        let text = "[dependencies]\na = \"1.2.3\"\nb = { version = \"=1.2.3\", optional = true }\nc = { path = \"../c\", version = \"=1.0.0\" }\n\
            d = { workspace = true }\ne = { package = \"real\", version = \"1\" }\n[dev-dependencies]\nf = \"=2.0\"\n\
            [target.'cfg(unix)'.dependencies]\ng = \"*\"\n[workspace.dependencies]\nh = \"= 3.0.0\"\n";
        assert_eq!(
            of("Cargo.toml", text),
            [
                "dependencies required a 1.2.3 pkg:cargo/a",
                "dependencies optional b =1.2.3 pkg:cargo/b@1.2.3",
                "dependencies required c =1.0.0 -",
                "dependencies required d ? -",
                "dependencies required real 1 pkg:cargo/real",
                "dev-dependencies excluded f =2.0 pkg:cargo/f",
                "target.cfg(unix).dependencies required g * pkg:cargo/g",
                "workspace.dependencies required h = 3.0.0 pkg:cargo/h@3.0.0",
            ]
        );
    }

    #[test]
    fn python_requirements_are_read_from_both_files() {
        let text = "# a comment\n-r other.txt\nFlask_Login[x,y] == 1.0.2 ; python_version < '3'  # why\nnumpy>=1,<2\nplain\nweb @ https://h/w.whl\n\
            ./local\nhttps://h/x.whl\nstar==1.*\nhashed==2.0 \\\n  --hash=sha256:00\ngit+https://me:x@github.com/o/r.git@v1#egg=r\n\
            foo-1.0-py3-none-any.whl\nbar-1.0.tar.gz\ntab==1.0\t# why\n\t# only this\ntwo words\nopen-\nfile:x\nc[d]e\n";
        assert_eq!(
            of("requirements-dev.txt", text),
            [
                "requirements required flask-login == 1.0.2 pkg:pypi/flask-login@1.0.2",
                "requirements required numpy >=1,<2 pkg:pypi/numpy",
                "requirements required plain ? pkg:pypi/plain",
                "requirements required web @ https://h/w.whl -",
                "requirements required star ==1.* pkg:pypi/star",
                "requirements required hashed ==2.0 pkg:pypi/hashed@2.0",
                "requirements required tab ==1.0 pkg:pypi/tab@1.0",
            ]
        );
        let text = "[project]\ndependencies = [\"a==1.0\", \"b (>=2)\"]\n[project.optional-dependencies]\nx = [\"c\"]\n\
            [dependency-groups]\ndev = [\"d==1!2.0\", {include-group = \"x\"}]\n";
        assert_eq!(
            of("pyproject.toml", text),
            [
                "project.dependencies required a ==1.0 pkg:pypi/a@1.0",
                "project.dependencies required b >=2 pkg:pypi/b",
                "project.optional-dependencies.x optional c ? pkg:pypi/c",
                "dependency-groups.dev excluded d ==1!2.0 pkg:pypi/d@1%212.0",
            ]
        );
    }

    #[test]
    fn other_files_and_broken_ones_declare_nothing() {
        for (path, text) in [
            ("package.json", "{"),
            ("package.json", "[]"),
            ("package.json", "{\"dependencies\":[\"a\"]}"),
            ("Cargo.toml", "["),
            ("Cargo.toml", "dependencies = 1"),
            ("pyproject.toml", "project = []"),
            ("notes.txt", "a==1"),
            ("package.json.md", "{\"dependencies\":{\"a\":\"1.0.0\"}}"),
        ] {
            assert_eq!(read(path, text), [], "{path} {text}");
        }
    }
}
