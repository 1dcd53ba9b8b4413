//! One gate: what it runs, what it reads afterwards, and what it allows.

use std::collections::BTreeMap;

use nofx_sandbox::Level;
use serde::Serialize;

use super::globs::Globs;
use crate::{dependencies, report};

/// The folder for reports, where it stands in an argument, a report's path or a variable's value. The parent makes a
/// fresh folder for each run, replaces this text by its path, and passes the path in the variable `NOFX_REPORTS` too.
pub const REPORTS: &str = "$NOFX_REPORTS";

/// The time limit of a gate that names none, in seconds.
pub const DEFAULT_TIMEOUT_S: u32 = 600;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateDefinition {
    pub name: String,
    pub kind: Kind,
    pub origin: Origin,
    /// Program and arguments, started without a shell. Empty for a built-in gate. [`REPORTS`] is replaced in each argument.
    pub command: Vec<String>,
    /// Where the command runs: relative to the root, with slashes; empty for the root.
    pub directory: String,
    pub reports: Vec<ReportFile>,
    pub coverage: Option<CoverageRules>,
    pub timeout_s: u32,
    /// The command asks for network. The tenant's policy decides.
    pub network: bool,
    pub severity: Severity,
    /// Files that can change this gate's verdict, besides those that are always protected.
    pub protected: Globs,
    /// The weakest sandbox that may run the command.
    pub sandbox: Option<Level>,
    /// Names of the commands of [`Definition::stubs`](super::Definition::stubs) that run beside the command.
    pub stubs: Vec<String>,
    /// Variables of the command, besides the fixed ones. [`REPORTS`] is replaced in each value.
    pub environment: BTreeMap<String, String>,
    /// Which dependencies the parent installs before the command runs.
    pub dependencies: Ecosystem,
    /// Of the gate `mutants`.
    pub mutants: Option<MutantRules>,
    /// Globs of the gate `secrets`: files that it does not read.
    pub allow: Globs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Command,
    Secrets,
    Audit,
    Mutants,
}

/// Who defined the gate. A file may change single fields of a preset. The origin is then `file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    File,
    Preset,
    BuiltIn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A finding fails the gate.
    Error,
    /// Findings are listed, and the gate passes.
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ecosystem {
    None,
    Npm,
    Pip,
    Cargo,
    Go,
}

/// A report that the command writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportFile {
    pub format: Format,
    #[serde(flatten)]
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", content = "path", rename_all = "snake_case")]
pub enum Place {
    Stdout,
    /// Below the fresh folder for reports.
    Fresh(String),
    /// Relative to the gate's directory. The parent removes it before the run.
    Directory(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Istanbul,
    Lcov,
    Cobertura,
    Junit,
    Sarif,
    Eslint,
    Ruff,
    Tsc,
    Cargo,
    Mypy,
    Pyright,
    GoTest,
    CargoTest,
    NpmAudit,
    PipAudit,
    CargoAudit,
}

impl Format {
    pub const ALL: [(&str, Self); 16] = [
        ("istanbul", Self::Istanbul),
        ("lcov", Self::Lcov),
        ("cobertura", Self::Cobertura),
        ("junit", Self::Junit),
        ("sarif", Self::Sarif),
        ("eslint", Self::Eslint),
        ("ruff", Self::Ruff),
        ("tsc", Self::Tsc),
        ("cargo", Self::Cargo),
        ("mypy", Self::Mypy),
        ("pyright", Self::Pyright),
        ("go_test", Self::GoTest),
        ("cargo_test", Self::CargoTest),
        ("npm_audit", Self::NpmAudit),
        ("pip_audit", Self::PipAudit),
        ("cargo_audit", Self::CargoAudit),
    ];

    /// The report says which lines ran.
    pub fn is_coverage(self) -> bool {
        matches!(self, Self::Istanbul | Self::Lcov | Self::Cobertura)
    }

    /// How to read it. `None` for coverage.
    pub fn report(self) -> Option<report::Format> {
        Some(match self {
            Self::Istanbul | Self::Lcov | Self::Cobertura => return None,
            Self::Junit => report::Format::Junit,
            Self::Sarif => report::Format::Sarif,
            Self::Eslint => report::Format::Eslint,
            Self::Ruff => report::Format::Ruff,
            Self::Tsc => report::Format::Tsc,
            Self::Cargo => report::Format::Cargo,
            Self::Mypy => report::Format::Mypy,
            Self::Pyright => report::Format::Pyright,
            Self::GoTest => report::Format::GoTest,
            Self::CargoTest => report::Format::CargoTest,
            Self::NpmAudit => report::Format::NpmAudit,
            Self::PipAudit => report::Format::PipAudit,
            Self::CargoAudit => report::Format::CargoAudit,
        })
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CoverageRules {
    /// The ratio of changed lines that must have run, from 0 to 1. `None`: the deployment's default, 0.90.
    pub threshold: Option<f64>,
    /// The same for each file alone.
    pub file_floor: Option<f64>,
    /// Every arm of a branch counts.
    pub strict: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MutantRules {
    /// How many mutants to try at most.
    pub limit: u32,
    /// The gate whose command must fail on a mutant.
    pub tests: String,
}

/// A command beside the one of a gate, such as a stubbed service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stub {
    pub command: Vec<String>,
    pub directory: String,
    /// The variable that gives both commands the free port.
    pub port: String,
    pub health: Health,
    pub start_timeout_s: u32,
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The port accepts a connection.
    Tcp,
    /// A GET of this path answers 2xx.
    Http(String),
}

impl Ecosystem {
    /// The package manager whose dependencies must be installed.
    pub fn installed(self) -> Option<dependencies::Ecosystem> {
        match self {
            Self::None => None,
            Self::Npm => Some(dependencies::Ecosystem::Npm),
            Self::Pip => Some(dependencies::Ecosystem::Pip),
            Self::Cargo => Some(dependencies::Ecosystem::Cargo),
            Self::Go => Some(dependencies::Ecosystem::Go),
        }
    }
}

impl GateDefinition {
    /// A gate without a command.
    pub fn new(name: &str, kind: Kind, origin: Origin) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            origin,
            command: Vec::new(),
            directory: String::new(),
            reports: Vec::new(),
            coverage: None,
            timeout_s: DEFAULT_TIMEOUT_S,
            network: false,
            severity: Severity::Error,
            protected: Globs::default(),
            sandbox: None,
            stubs: Vec::new(),
            environment: BTreeMap::new(),
            dependencies: Ecosystem::None,
            mutants: None,
            allow: Globs::default(),
        }
    }

    /// The gate may run only in a run with `risky: true`.
    pub fn needs_risky(&self) -> bool {
        self.name == "e2e_smoke"
    }

    /// A gate that judges the coverage of changed lines has a report for it.
    pub fn measures_coverage(&self) -> bool {
        self.reports.iter().any(|report| report.format.is_coverage())
    }
}

impl ReportFile {
    pub fn fresh(format: Format, path: &str) -> Self {
        Self { format, place: Place::Fresh(path.to_owned()) }
    }

    pub fn stdout(format: Format) -> Self {
        Self { format, place: Place::Stdout }
    }

    pub fn directory(format: Format, path: &str) -> Self {
        Self { format, place: Place::Directory(path.to_owned()) }
    }
}
