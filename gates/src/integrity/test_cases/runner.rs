//! Which files the runners of the base read.

use serde_json::Value;

use super::super::lex::{self, Language, Token, TokenKind};
use super::super::meaning;
use crate::definition::{Definition, Globs};
use crate::snapshot::Snapshot;

/// The patterns of the base. A test file that they do not match any more does not run.
pub struct Patterns {
    script: Vec<(String, Globs)>,
    script_default: Globs,
    python: Globs,
    /// `testpaths` of pytest. Empty: the whole workspace.
    python_roots: Vec<String>,
}

const VITEST: [&str; 1] = ["**/*.{test,spec}.{ts,tsx,mts,cts,js,jsx,mjs,cjs}"];
const JEST: [&str; 3] = [
    "**/__tests__/**/*.{ts,tsx,js,jsx,mjs,cjs}",
    "**/*.{test,spec}.{ts,tsx,mts,cts,js,jsx,mjs,cjs}",
    "**/{test,spec}.{ts,tsx,js,jsx}",
];

pub fn patterns(base: &Snapshot, definition: &Definition) -> Patterns {
    let mut script = Vec::new();
    let mut uses = (false, false);
    for path in base.files().keys() {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_vite = name.starts_with("vitest.config.") || name.starts_with("vite.config.");
        let is_jest = name.starts_with("jest.config.");
        let is_package = name == "package.json";
        if !is_vite && !is_jest && !is_package {
            continue;
        }
        let Some(text) = base.read(path).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            continue;
        };
        if is_package {
            let package = meaning::json(&text).unwrap_or_default();
            let depends = |name: &str| {
                ["dependencies", "devDependencies"]
                    .iter()
                    .any(|key| package.get(key).and_then(|map| map.get(name)).is_some())
            };
            uses = (uses.0 || depends("vitest"), uses.1 || depends("jest"));
            let globs: Vec<String> = strings(package.get("jest").and_then(|jest| jest.get("testMatch")));
            add(&mut script, folder, &globs);
        } else {
            let tokens = lex::code(Language::Script, &text);
            let globs = if is_vite {
                list_after(&tokens, Some("test"), "include")
            } else {
                list_after(&tokens, None, "testMatch")
            };
            add(&mut script, folder, &globs);
        }
    }
    let script_default = match uses {
        // A file that defines its tests, or no known runner: the definition decides.
        _ if definition.source == crate::definition::Source::File => definition.tests.clone(),
        (true, false) => Globs::lenient(&VITEST),
        (false, true) => Globs::lenient(&JEST),
        _ => definition.tests.clone(),
    };
    Patterns { script, script_default, python: python(base), python_roots: python_roots(base) }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).cloned().unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
}

/// Adds the patterns of a configuration in a folder, relative to the root.
fn add(script: &mut Vec<(String, Globs)>, folder: &str, globs: &[String]) {
    if globs.is_empty() {
        return;
    }
    let rooted: Vec<String> = globs
        .iter()
        .map(|glob| plain(glob.trim_start_matches("<rootDir>/").trim_start_matches("./")))
        .map(|glob| if folder.is_empty() { format!("/{glob}") } else { format!("/{folder}/{glob}") })
        .collect();
    script.push((folder.to_owned(), Globs::lenient(&rooted)));
}

/// Extended patterns (`?(c|m)[jt]s?(x)`) as alternatives.
fn plain(glob: &str) -> String {
    let mut text = glob.to_owned();
    for (from, to) in [
        ("?(c|m)", "{c,m,}"),
        ("?(m|c)", "{c,m,}"),
        ("?(x)", "{x,}"),
        ("[jt]s", "{j,t}s"),
        ("?(*.)+(spec|test)", "{*.,}{spec,test}"),
        ("+(spec|test)", "{spec,test}"),
        ("(spec|test)", "{spec,test}"),
        ("(test|spec)", "{test,spec}"),
        ("@{", "{"),
    ] {
        text = text.replace(from, to);
    }
    text
}

/// The strings of the list after `key`, within the object after `outer`.
fn list_after(tokens: &[Token<'_>], outer: Option<&str>, key: &str) -> Vec<String> {
    let is_key = |at: usize, name: &str| {
        tokens.get(at).is_some_and(|token| token.unquoted() == name)
            && tokens.get(at + 1).is_some_and(|token| token.is_mark(':'))
    };
    let mut range = 0..tokens.len();
    if let Some(outer) = outer {
        let Some(start) =
            range.clone().find(|at| is_key(*at, outer) && tokens.get(at + 2).is_some_and(|token| token.is_mark('{')))
        else {
            return Vec::new();
        };
        range = start + 3..super::super::ignores::closing(tokens, start + 2);
    }
    let mut depth = 0_i32;
    for at in range {
        let Some(token) = tokens.get(at) else { break };
        match token.text {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if (depth == 0 || outer.is_none())
            && is_key(at, key)
            && tokens.get(at + 2).is_some_and(|token| token.is_mark('['))
        {
            let end = super::super::ignores::closing(tokens, at + 2);
            let items = tokens.get(at + 3..end).unwrap_or_default();
            return items
                .iter()
                .filter(|token| token.kind == TokenKind::Text)
                .map(|token| token.unquoted().to_owned())
                .collect();
        }
    }
    Vec::new()
}

/// `python_files` of pytest.
fn python(base: &Snapshot) -> Globs {
    let read = |path: &str| base.read(path).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
    let mut patterns: Vec<String> = Vec::new();
    if let Some(value) = read("pyproject.toml").as_deref().and_then(meaning::toml) {
        let files =
            value.get("tool").and_then(|tool| tool.get("pytest")?.get("ini_options")?.get("python_files")).cloned();
        patterns.extend(strings(files.as_ref()));
        patterns.extend(
            files
                .as_ref()
                .and_then(Value::as_str)
                .into_iter()
                .flat_map(|text| text.split_whitespace().map(ToOwned::to_owned)),
        );
    }
    for path in ["pytest.ini", "setup.cfg", "tox.ini"] {
        let text = read(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("python_files")?.trim_start().strip_prefix('='));
        patterns.extend(line.into_iter().flat_map(|names| names.split_whitespace().map(ToOwned::to_owned)));
    }
    if patterns.is_empty() {
        patterns = vec!["test_*.py".to_owned(), "*_test.py".to_owned(), "tests.py".to_owned()];
    }
    Globs::lenient(&patterns)
}

fn python_roots(base: &Snapshot) -> Vec<String> {
    let text = base.read("pyproject.toml").ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
    let value = text.as_deref().and_then(meaning::toml);
    let roots = value.as_ref().and_then(|value| value.get("tool")?.get("pytest")?.get("ini_options")?.get("testpaths"));
    let roots = strings(roots);
    // A pattern is not followed.
    if roots.iter().any(|root| root.contains('*')) { Vec::new() } else { roots }
}

/// A file of Go for another system than the one of gates.
fn is_for_another_system(path: &str) -> bool {
    const OTHERS: [&str; 18] = [
        "windows",
        "darwin",
        "freebsd",
        "netbsd",
        "openbsd",
        "solaris",
        "plan9",
        "js",
        "wasip1",
        "android",
        "ios",
        "aix",
        "dragonfly",
        "illumos",
        "wasm",
        "386",
        "arm",
        "mips",
    ];
    let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches("_test.go");
    stem.rsplit('_').next().is_some_and(|word| stem.contains('_') && OTHERS.contains(&word))
}

impl Patterns {
    /// The runner of the base reads tests from this file.
    pub fn collects(&self, path: &str, language: Language) -> bool {
        match language {
            Language::Script => {
                let inside = |folder: &str| {
                    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
                };
                let nearest =
                    self.script.iter().filter(|(folder, _)| inside(folder)).max_by_key(|(folder, _)| folder.len());
                match nearest {
                    Some((longest, _)) => {
                        self.script.iter().any(|(folder, globs)| folder == longest && globs.matches(path))
                    }
                    None => self.script_default.matches(path),
                }
            }
            Language::Python => {
                let is_below = |root: &String| {
                    path.strip_prefix(root.trim_end_matches('/'))
                        .is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
                };
                let rooted = self.python_roots.is_empty() || self.python_roots.iter().any(is_below);
                // Folders that pytest does not enter.
                let entered = !path
                    .split('/')
                    .any(|part| part.starts_with('.') || matches!(part, "build" | "dist" | "venv" | "node_modules"));
                rooted && entered && self.python.matches(path)
            }
            Language::Rust => true,
            Language::Go => {
                !is_for_another_system(path)
                    && path.ends_with("_test.go")
                    && !path.rsplit('/').next().is_some_and(|name| name.starts_with(['_', '.']))
            }
        }
    }
}
