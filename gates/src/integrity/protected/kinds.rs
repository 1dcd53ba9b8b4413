//! Which files are protected by their names, and how they are compared.

use crate::definition::{Definition, Globs};
use std::sync::LazyLock;

/// How two versions of a file are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Package,
    NpmLock,
    /// yarn.lock, pnpm-lock.yaml, uv.lock, poetry.lock: only sources of packages that are no registry.
    TextLock,
    CargoLock,
    Requirements,
    TsConfig,
    Json,
    Toml,
    /// YAML and files of patterns: lines without comments.
    Lines,
    /// setup.cfg and tox.ini: only the sections of tools.
    Ini,
    /// JavaScript and TypeScript: tokens.
    Script,
    Python,
    Conftest,
    Pyproject,
    CargoManifest,
    GoMod,
    GoSum,
    Bytes,
}

/// Patterns of names, in any folder unless they have a slash. The first match decides.
const TABLE: [(Form, &[&str]); 18] = [
    (Form::Package, &["package.json"]),
    (Form::NpmLock, &["package-lock.json", "npm-shrinkwrap.json"]),
    (
        Form::TextLock,
        &["yarn.lock", "pnpm-lock.yaml", "bun.lock", "uv.lock", "poetry.lock", "pylock.toml", "Pipfile.lock"],
    ),
    (Form::CargoLock, &["Cargo.lock"]),
    (Form::Requirements, &["requirements*.{txt,in,lock}", "**/requirements/*.{txt,in,lock}", "constraints*.txt"]),
    (Form::TsConfig, &["{ts,js}config*.json", "{ts,js}config.*.json"]),
    (
        Form::Json,
        &[
            ".eslintrc",
            ".eslintrc.json",
            ".babelrc",
            ".babelrc.json",
            ".swcrc",
            ".mocharc.{json,jsonc}",
            ".c8rc",
            ".c8rc.json",
            ".nycrc",
            ".nycrc.json",
            "jest.config.json",
            "biome.{json,jsonc}",
            ".oxlintrc.json",
            "pyrightconfig.json",
            "turbo.json",
            "deno.{json,jsonc}",
            "bunfig.json",
            "cypress.json",
            ".golangci.json",
            "stryker.conf.json",
            "stryker.config.json",
        ],
    ),
    (
        Form::Toml,
        &[
            "ruff.toml",
            ".ruff.toml",
            "clippy.toml",
            ".clippy.toml",
            "**/.cargo/config.toml",
            "**/.cargo/config",
            "rust-toolchain.toml",
            "**/.config/nextest.toml",
            "bunfig.toml",
            ".golangci.toml",
            "tarpaulin.toml",
            ".tarpaulin.toml",
            "mutants.toml",
            "Pipfile",
        ],
    ),
    (
        Form::Lines,
        &[
            ".eslintrc.{yml,yaml}",
            ".eslintignore",
            ".mocharc.{yml,yaml}",
            ".nycrc.{yml,yaml}",
            ".npmrc",
            ".yarnrc",
            ".yarnrc.yml",
            "pnpm-workspace.yaml",
            ".golangci.{yml,yaml}",
            "mypy.ini",
            ".mypy.ini",
            "pytest.ini",
            ".pytest.ini",
            ".coveragerc",
            ".flake8",
            ".pylintrc",
            "pylintrc",
            "rust-toolchain",
            "go.work",
            "*.pth",
            ".taprc",
            "codecov.yml",
            ".codecov.yml",
            ".testcaferc.json",
            "pytest.toml",
            ".pytest.toml",
            ".coveragerc.toml",
            // Metadata of distributions: pytest loads the plugins that they name.
            "**/*.{dist-info,egg-info}/**",
        ],
    ),
    (Form::Ini, &["setup.cfg", "tox.ini"]),
    (
        Form::Script,
        &[
            "eslint.config.{js,mjs,cjs,ts,mts,cts}",
            ".eslintrc.{js,cjs,mjs}",
            "vite.config.*",
            "vitest.config.*",
            "vitest.workspace.*",
            "vitest.setup.*",
            "jest.config.{js,mjs,cjs,ts,mts,cts}",
            "jest.setup.*",
            "setupTests.*",
            "babel.config.*",
            ".babelrc.{js,cjs}",
            ".mocharc.{js,cjs}",
            "nyc.config.{js,cjs}",
            "ava.config.*",
            "playwright.config.*",
            "cypress.config.*",
            "karma.conf.*",
            ".pnpmfile.{cjs,js}",
            "stryker.conf.{js,mjs,cjs}",
            "stryker.config.{js,mjs,cjs}",
            "postcss.config.*",
            ".postcssrc*",
            "**/__mocks__/{vitest,expect,chai,assert,mocha,jest,sinon,supertest}.*",
            "**/__mocks__/@{jest,vitest,testing-library}/**",
        ],
    ),
    // Modules with the name of a tool are loaded instead of it.
    (
        Form::Python,
        &[
            "sitecustomize.py",
            "usercustomize.py",
            "/{pytest,_pytest,coverage,mypy,pyright,ruff,unittest,pluggy}.py",
            "/src/{pytest,_pytest,coverage,mypy,pyright,ruff,unittest,pluggy}.py",
            "/{pytest,_pytest,coverage,mypy,pyright,ruff,unittest,pluggy}/**/*.py",
            "noxfile.py",
        ],
    ),
    (Form::Conftest, &["conftest.py"]),
    (Form::Pyproject, &["pyproject.toml"]),
    (Form::CargoManifest, &["Cargo.toml"]),
    (Form::GoMod, &["go.mod"]),
    (Form::GoSum, &["go.sum"]),
    // Python runs compiled files instead of the sources beside them.
    (Form::Bytes, &["build.rs", "**/node_modules/**", "*.pyc", "*.pyo"]),
];

static COMPILED: LazyLock<Vec<(Form, Globs)>> =
    LazyLock::new(|| TABLE.iter().map(|(form, patterns)| (*form, Globs::lenient(patterns))).collect());

const FORMATTERS: [(Form, &[&str]); 3] = [
    (Form::Lines, &[".prettierrc", ".prettierrc.{yml,yaml,toml}", ".prettierignore"]),
    (Form::Script, &["prettier.config.*", ".prettierrc.{js,cjs,mjs,ts}"]),
    (Form::Json, &[".prettierrc.json"]),
];

pub fn form(path: &str, definition: &Definition) -> Option<Form> {
    if let Some((form, _)) = COMPILED.iter().find(|(_, globs)| globs.matches(path)) {
        return Some(*form);
    }
    let runs = |word: &str| definition.gates.values().any(|gate| gate.command.iter().any(|part| part.contains(word)));
    if path.contains("prettier") && runs("prettier") {
        return FORMATTERS.iter().find(|(_, patterns)| Globs::lenient(patterns).matches(path)).map(|(form, _)| *form);
    }
    // Walkers of folders leave out what it names.
    if path.rsplit('/').next() == Some(".ignore") && ["ruff", "biome", "oxlint"].iter().any(|tool| runs(tool)) {
        return Some(Form::Lines);
    }
    let is_rustfmt = matches!(path.rsplit('/').next(), Some("rustfmt.toml" | ".rustfmt.toml"));
    (is_rustfmt && runs("fmt")).then_some(Form::Toml)
}

/// For a file that is protected because something names it.
pub fn form_by_language(path: &str) -> Form {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("ts" | "mts" | "cts" | "tsx" | "js" | "mjs" | "cjs" | "jsx") => Form::Script,
        Some("json" | "jsonc") => Form::Json,
        Some("toml") => Form::Toml,
        Some("py") => Form::Python,
        Some("yml" | "yaml" | "ini" | "cfg") => Form::Lines,
        _ => Form::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_a_glob() {
        for (form, patterns) in TABLE.iter().chain(&FORMATTERS) {
            assert!(Globs::new(patterns).is_ok(), "{form:?}: {:?}", Globs::new(patterns).err());
        }
    }
}
