//! Names, versions and sources of npm packages, and the packages whose commands decide a verdict.

/// Packages that check code, with their commands. Nothing else may provide one of these commands or stand in the
/// package's place: an alias `"typescript": "npm:other"` or a folder of that name would decide what "it compiles" means.
const TOOLS: [(&str, &[&str]); 42] = [
    ("@biomejs/biome", &["biome"]),
    ("@playwright/test", &["playwright"]),
    ("@stryker-mutator/core", &["stryker"]),
    ("@typescript/native-preview", &["tsgo"]),
    ("ava", &["ava"]),
    ("c8", &["c8"]),
    ("concurrently", &["concurrently", "conc"]),
    ("cross-env", &["cross-env", "cross-env-shell"]),
    ("cypress", &["cypress"]),
    ("eslint", &["eslint"]),
    ("jasmine", &["jasmine"]),
    ("jest", &["jest"]),
    ("jest-cli", &["jest"]),
    ("karma", &["karma"]),
    ("lerna", &["lerna"]),
    ("mocha", &["mocha", "_mocha"]),
    ("node", &["node"]),
    ("npm", &["npm", "npx"]),
    ("npm-run-all", &["npm-run-all", "run-s", "run-p"]),
    ("npm-run-all2", &["npm-run-all", "npm-run-all2", "run-s", "run-p"]),
    ("nx", &["nx"]),
    ("nyc", &["nyc"]),
    ("oxlint", &["oxlint"]),
    ("playwright", &["playwright"]),
    ("playwright-core", &["playwright-core"]),
    ("prettier", &["prettier"]),
    ("standard", &["standard"]),
    ("stylelint", &["stylelint"]),
    ("svelte-check", &["svelte-check"]),
    ("tap", &["tap"]),
    ("ts-jest", &["ts-jest"]),
    ("ts-node", &["ts-node", "ts-node-esm", "ts-script"]),
    ("tsc-files", &["tsc-files"]),
    ("tslint", &["tslint"]),
    ("tsx", &["tsx"]),
    ("turbo", &["turbo"]),
    ("typescript", &["tsc", "tsserver"]),
    ("typescript-eslint", &[]),
    ("vitest", &["vitest"]),
    ("vue-tsc", &["vue-tsc"]),
    ("wireit", &["wireit"]),
    ("xo", &["xo"]),
];

/// Scopes whose packages are parts of the tools.
const TOOL_SCOPES: [&str; 6] = ["@biomejs/", "@eslint/", "@istanbuljs/", "@jest/", "@typescript-eslint/", "@vitest/"];

/// Programs of the system. The commands of packages come before them in PATH.
pub const SYSTEM: [&str; 28] = [
    "bash", "cat", "chmod", "cp", "dash", "echo", "env", "exit", "false", "find", "git", "grep", "ln", "ls", "mkdir",
    "mv", "perl", "python", "python3", "rm", "sed", "sh", "sudo", "test", "timeout", "true", "xargs", "zsh",
];

pub fn is_tool(name: &str) -> bool {
    TOOLS.iter().any(|(tool, _)| *tool == name) || TOOL_SCOPES.iter().any(|scope| name.starts_with(scope))
}

/// Whether a verdict needs this package itself. A lock file may not make it optional.
pub fn has_checks(name: &str) -> bool {
    TOOLS.iter().any(|(tool, _)| *tool == name)
}

/// Whose a command is, if the package may not provide it.
pub fn owner_of_command(command: &str, package: &str) -> Option<&'static str> {
    if SYSTEM.contains(&command) {
        return Some("the system");
    }
    let mut owners = TOOLS.iter().filter(|(_, commands)| commands.contains(&command)).map(|(owner, _)| *owner);
    let first = owners.clone().next()?;
    if owners.any(|owner| owner == package) { None } else { Some(first) }
}

/// Whether npm accepts this name for a package of a registry.
pub fn is_package_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~!'()*".contains(&byte))
    };
    let parts = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| is_part(scope) && is_part(name)),
        None => is_part(name),
    };
    name.len() <= 214 && parts && !["node_modules", "favicon.ico"].contains(&name)
}

/// A complete version, like `1.2.3-beta.4+build`.
pub fn is_version(version: &str) -> bool {
    let (core, rest) = version.split_at(version.find(['-', '+']).unwrap_or(version.len()));
    let is_number = |part: &str| !part.is_empty() && part.len() <= 16 && part.bytes().all(|byte| byte.is_ascii_digit());
    version.len() <= 256
        && core.split('.').count() == 3
        && core.split('.').all(is_number)
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(&byte))
}

/// Why a dependency's source is not "this version of a package of the registry". `None` if it is.
pub fn source_problem(source: &str) -> Option<&'static str> {
    let source = source.trim();
    let range = match source.strip_prefix("npm:") {
        None => source,
        Some(alias) => {
            let at = alias.get(1..).and_then(|rest| rest.rfind('@')).map_or(alias.len(), |at| at + 1);
            let (name, range) = alias.split_at(at);
            if !is_package_name(name) {
                return Some("is an alias of something that is not a package");
            }
            range.trim_start_matches('@')
        }
    };
    let lower = range.to_lowercase();
    let (_, extension) = lower.rsplit_once('.').unwrap_or_default();
    if lower.starts_with("git") && lower.contains(':') || lower.contains("git@") || extension == "git" {
        return Some("comes from git");
    }
    if lower.contains("://") {
        return Some("comes from a URL");
    }
    if lower.starts_with("file:") || lower.starts_with("link:") || lower.starts_with("portal:") {
        return Some("comes from a folder or file");
    }
    if lower.contains(':') {
        return Some("uses a protocol that npm installs do not support here");
    }
    let is_file = ["tgz", "tar"].contains(&extension) || lower.ends_with(".tar.gz");
    if is_file || lower.starts_with('.') || lower.starts_with('~') && lower.contains('/') || lower.starts_with('/') {
        return Some("comes from a folder or file");
    }
    if lower.contains('/') {
        return Some("comes from GitHub, not from the registry");
    }
    let is_range = |byte: u8| byte.is_ascii_alphanumeric() || b".*+~^<>=|-_ ".contains(&byte);
    (range.len() > 1024 || !range.bytes().all(is_range)).then_some("is not a version range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_of_the_registry_are_sources() {
        for source in [
            "1.2.3",
            "^1.0.0 || >=2 <3",
            "*",
            "",
            "latest",
            "1.x",
            "npm:a@^1",
            "npm:@a/b@1.0.0",
            "npm:a",
            "~1.2",
            "next-13",
        ] {
            assert_eq!(source_problem(source), None, "{source}");
        }
        for (source, why) in [
            ("git+ssh://git@host/a.git", "git"),
            ("git@github.com:a/b.git", "git"),
            ("github:a/b", "git"),
            ("a/b", "GitHub"),
            ("a/b#semver:1", "protocol"),
            ("https://host/a.tgz", "URL"),
            ("file:../a", "folder"),
            ("link:a", "folder"),
            ("../a", "folder"),
            ("./a.tgz", "folder"),
            ("a.tgz", "folder"),
            ("A.TAR.GZ", "folder"),
            ("/a", "folder"),
            ("~/a", "folder"),
            ("workspace:*", "protocol"),
            ("catalog:", "protocol"),
            ("npm:../a@1", "alias"),
            ("npm:a@file:b", "folder"),
            ("npm:a@git://x/y", "git"),
            ("1.0\n2", "range"),
            ("$(x)", "range"),
            ("%2e%2e", "range"),
        ] {
            assert!(
                source_problem(source).is_some_and(|found| found.contains(why)),
                "{source}: {:?}",
                source_problem(source)
            );
        }
    }

    #[test]
    fn names_and_versions_are_those_of_the_registry() {
        for name in ["a", "@a/b", "JSONStream", "a.b-c_d", "@types/node"] {
            assert!(is_package_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".bin",
            "a/b",
            "@a",
            "@/b",
            "@a/",
            "@a/b/c",
            "@../b",
            "node_modules",
            "a b",
            "a%2fb",
            "a\0",
            "é",
        ] {
            assert!(!is_package_name(name), "{name}");
        }
        for version in ["1.2.3", "0.0.0-a.1", "1.0.0+b"] {
            assert!(is_version(version), "{version}");
        }
        for version in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.3/../../x", "v1.2.3", "1.2.3 "] {
            assert!(!is_version(version), "{version}");
        }
    }

    #[test]
    fn a_command_of_a_tool_belongs_to_it_alone() {
        assert_eq!(owner_of_command("tsc", "typescript"), None);
        assert_eq!(owner_of_command("tsc", "left-pad"), Some("typescript"));
        assert_eq!(owner_of_command("jest", "jest-cli"), None);
        assert_eq!(owner_of_command("sh", "shelljs"), Some("the system"));
        assert_eq!(owner_of_command("semver", "semver"), None);
        assert!(is_tool("@vitest/runner") && is_tool("eslint") && !is_tool("rollup"));
    }
}
