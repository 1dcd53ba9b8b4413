//! Whether a dependency of the change can replace or weaken a tool.

use serde_json::Value;

/// Packages that check, run or measure, by exact name or by prefix (`*` at the end).
const TOOLS: [&str; 62] = [
    "typescript",
    "vue-tsc",
    "tsx",
    "ts-node",
    "ts-jest",
    "babel-jest",
    "eslint",
    "@eslint/*",
    "eslint-*",
    "typescript-eslint",
    "@typescript-eslint/*",
    "vitest",
    "@vitest/*",
    "vite",
    "vite-node",
    "jest",
    "@jest/*",
    "jest-*",
    "expect",
    "mocha",
    "chai",
    "c8",
    "nyc",
    "istanbul*",
    "@istanbuljs/*",
    "v8-to-istanbul",
    "@biomejs/*",
    "oxlint",
    "ava",
    "tap",
    "tape",
    "jasmine",
    "jasmine-core",
    "playwright",
    "@playwright/*",
    "cypress",
    "@stryker-mutator/*",
    "prettier",
    "npm-run-all",
    "npm-run-all2",
    "turbo",
    "nx",
    "concurrently",
    "cross-env",
    "mypy",
    "pyright",
    "ruff",
    "pytest",
    "pytest-*",
    "coverage",
    "pluggy",
    "flake8",
    "flake8-*",
    "pylint",
    "bandit",
    "tox",
    "nox",
    "hypothesis",
    "pip-audit",
    "uv",
    "basedpyright",
    "black",
];

/// The commands that gates start.
const COMMANDS: [&str; 26] = [
    "tsc",
    "vue-tsc",
    "eslint",
    "vitest",
    "vite",
    "jest",
    "mocha",
    "_mocha",
    "c8",
    "nyc",
    "biome",
    "oxlint",
    "ava",
    "tap",
    "tape",
    "playwright",
    "prettier",
    "node",
    "npm",
    "npx",
    "sh",
    "run-s",
    "run-p",
    "npm-run-all",
    "tsx",
    "ts-node",
];

pub fn is_tool(name: &str) -> bool {
    TOOLS.iter().any(|tool| tool.strip_suffix('*').map_or(name == *tool, |prefix| name.starts_with(prefix)))
}

/// The package that a command belongs to is another one.
pub fn takes_command(package: &str, command: &str) -> bool {
    let owner = match command {
        "tsc" => "typescript",
        "_mocha" => "mocha",
        "biome" => "@biomejs/biome",
        "run-s" | "run-p" => "npm-run-all",
        "npx" => "npm",
        other => other,
    };
    COMMANDS.contains(&command)
        && package != owner
        && !(owner == "npm-run-all" && package == "npm-run-all2")
        && !(owner == "jest" && package == "jest-cli")
        && !(owner == "playwright" && package == "@playwright/test")
        && !(owner == "tap" && package == "@tapjs/run")
}

/// Why the new specification of a dependency of package.json counts. `None`: it comes from the registry and does not lower a
/// tool.
pub fn reason(name: &str, old: Option<&Value>, new: Option<&Value>) -> Option<String> {
    let (old, new) = (old.and_then(Value::as_str), new.and_then(|value| value.as_str().or(Some(""))));
    if old == new {
        return None;
    }
    let Some(new) = new else {
        return is_tool(name).then(|| format!("the tool {name} is no dependency any more"));
    };
    if !is_registry(new) {
        return Some(format!("{name} comes from {new:?} instead of the registry"));
    }
    if !is_tool(name) {
        return None;
    }
    match (old.and_then(version), version(new)) {
        (_, None) if old.is_some() => Some(format!("the version of the tool {name} is {new:?}")),
        (Some(one), Some(other)) if other < one => Some(format!("the tool {name} goes back to {new}")),
        _ => None,
    }
}

/// A version or a range of versions, a tag, or a package of the workspace itself.
fn is_registry(specification: &str) -> bool {
    let text = specification.trim();
    if text.starts_with("workspace:") {
        return true;
    }
    if let Some(alias) = text.strip_prefix("catalog:") {
        return !alias.contains('/');
    }
    !text.contains([':', '/', '\\'])
}

/// The first version in a specification.
pub fn version(text: &str) -> Option<(u64, u64, u64)> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    let mut parts = text.get(start..)?.split(['.', ' ', '-', '+', ',', ';', '|']).map(|part| part.parse::<u64>().ok());
    Some((parts.next()??, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_upgrade_from_the_registry_has_no_reason() {
        let counts = |name: &str, old: Value, new: Value| {
            reason(name, Some(&old).filter(|v| !v.is_null()), Some(&new).filter(|v| !v.is_null())).is_some()
        };
        for (name, old, new) in [
            ("zod", json!(null), json!("^3.1.0")),
            ("zod", json!("3"), json!(null)),
            ("eslint", json!("^9.1.0"), json!("^9.2.0")),
            ("react", json!("^19"), json!("^18")),
            ("@a/b", json!(null), json!("workspace:*")),
            ("vitest", json!(null), json!("3.2.4")),
        ] {
            assert!(!counts(name, old.clone(), new.clone()), "{name} {old} {new}");
        }
        for (name, old, new) in [
            ("typescript", json!("5"), json!("file:fake")),
            ("typescript", json!("5.4.0"), json!("npm:evil@1")),
            ("eslint", json!("9.1.0"), json!("8.0.0")),
            ("eslint-plugin-x", json!("1"), json!(null)),
            ("zod", json!("3"), json!("github:evil/zod")),
            ("vitest", json!("3"), json!("*")),
            ("zod", json!(null), json!("evil/zod")),
        ] {
            assert!(counts(name, old.clone(), new.clone()), "{name} {old} {new}");
        }
    }
}
