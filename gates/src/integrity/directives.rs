//! Comments that tell a tool to ignore something, such as `eslint-disable`, by language.

/// Where a tool looks for its directive in a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// At the start, after the marks of the comment.
    Start,
    /// At the start of a block comment only.
    BlockStart,
    /// Anywhere.
    Anywhere,
}

use Where::{Anywhere, BlockStart, Start};

/// A space in a pattern stands for any white space, or none.
pub type Directive = (&'static str, Where);

pub const SCRIPT: [Directive; 31] = [
    ("eslint-disable-line", Start),
    ("eslint-disable-next-line", Start),
    ("eslint-disable", BlockStart),
    ("@ts-ignore", Start),
    ("@ts-nocheck", Start),
    ("@ts-expect-error", Start),
    ("istanbul ignore", Start),
    ("c8 ignore", Start),
    ("v8 ignore", Start),
    ("node:coverage ignore", Start),
    ("node:coverage disable", Start),
    ("deno-coverage-ignore", Start),
    ("biome-ignore", Start),
    ("biome-ignore-all", Start),
    ("biome-ignore-start", Start),
    ("rome-ignore", Start),
    ("oxlint-disable", BlockStart),
    ("oxlint-disable-line", Start),
    ("oxlint-disable-next-line", Start),
    ("deno-lint-ignore", Start),
    ("deno-lint-ignore-file", Start),
    ("tslint:disable", Start),
    ("tslint:disable-line", Start),
    ("tslint:disable-next-line", Start),
    ("standard-disable", Start),
    ("jshint ignore", Start),
    ("jshint -W", Start),
    ("$FlowFixMe", Start),
    ("$FlowIgnore", Start),
    ("@flow strict-local off", Start),
    ("Stryker disable", Start),
];

pub const PYTHON: [Directive; 18] = [
    ("noqa", Start),
    ("flake8: noqa", Start),
    ("ruff: noqa", Start),
    ("ruff: ignore", Start),
    ("type: ignore", Start),
    ("mypy: ignore-errors", Start),
    ("mypy: disable-error-code", Start),
    ("mypy: allow-", Start),
    ("mypy: no-", Start),
    ("pyright: ignore", Start),
    ("pyright: basic", Start),
    ("pyright: report", Start),
    ("pragma: no cover", Start),
    ("pragma no cover", Start),
    ("pragma: no branch", Start),
    ("pylint: disable", Start),
    ("pylint: skip-file", Start),
    ("pyre-ignore", Start),
];

pub const GO: [Directive; 5] = [
    ("nolint", Start),
    ("lint:ignore", Start),
    ("lint:file-ignore", Start),
    ("go:build ignore", Start),
    ("+build ignore", Start),
];

/// Of scanners that read any language.
pub const ANY: [Directive; 12] = [
    ("nosemgrep", Anywhere),
    ("nosec", Start),
    ("nosonar", Anywhere),
    ("gitleaks:allow", Anywhere),
    ("nofx:allow-secret", Anywhere),
    ("pragma: allowlist secret", Anywhere),
    ("ggignore", Start),
    ("trufflehog:ignore", Anywhere),
    ("lcov_excl", Anywhere),
    ("gcovr_excl", Anywhere),
    ("codeql[", Start),
    ("lgtm[", Start),
];
