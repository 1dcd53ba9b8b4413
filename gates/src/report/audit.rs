//! Auditors of dependencies: `npm audit --json`, `pip-audit -f json` and `cargo audit --json`.
//!
//! An audit that could not ask its database, or that saw no dependency, is no audit.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::text::UniqueMap;
use super::{Finding, Format, Parsed, ReportError, Severity, text};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NpmReport {
    audit_report_version: u32,
    vulnerabilities: UniqueMap<NpmPackage>,
    metadata: NpmMetadata,
}

#[derive(Deserialize)]
struct NpmPackage {
    name: String,
    severity: String,
    via: Vec<NpmVia>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NpmVia {
    /// Another package that is vulnerable.
    Package(String),
    Advisory {
        title: Option<String>,
        url: Option<String>,
        severity: Option<String>,
        range: Option<String>,
    },
}

#[derive(Deserialize)]
struct NpmMetadata {
    dependencies: NpmDependencies,
    vulnerabilities: NpmTotals,
}

#[derive(Deserialize)]
struct NpmDependencies {
    total: u64,
}

#[derive(Deserialize)]
struct NpmTotals {
    total: u64,
}

#[derive(Deserialize)]
struct NpmFailure {
    message: Option<String>,
    error: Option<NpmError>,
}

#[derive(Deserialize)]
struct NpmError {
    code: Option<String>,
    summary: Option<String>,
}

pub fn read_npm(text: &str) -> Result<Parsed, ReportError> {
    let text = without_lines_of_npm(text);
    let report: NpmReport = match text::json(Format::NpmAudit, text) {
        Ok(report) => report,
        Err(error) => return npm_failure(text).ok_or(error),
    };
    if report.audit_report_version != 2 {
        let why = format_args!("it has version {}; npm 7 and newer write version 2", report.audit_report_version);
        return Err(ReportError::unparsable(Format::NpmAudit, why));
    }
    if report.metadata.vulnerabilities.total > report.vulnerabilities.0.len() as u64 {
        return Err(ReportError::unparsable(Format::NpmAudit, "it counts more vulnerable packages than it lists"));
    }
    let mut parsed = Parsed::new(Format::NpmAudit);
    let mut seen = BTreeSet::new();
    for package in report.vulnerabilities.0.values() {
        for via in &package.via {
            match via {
                NpmVia::Advisory { title, url, severity, range } => {
                    let title = title.as_deref().unwrap_or("vulnerable");
                    if !seen.insert((package.name.as_str(), title, url.as_deref())) {
                        continue;
                    }
                    let severity = severity.as_deref().unwrap_or(&package.severity);
                    let message =
                        format!("{} {}: {title} ({severity})", package.name, range.as_deref().unwrap_or_default());
                    let rule = url.as_deref().and_then(|url| url.rsplit('/').next());
                    parsed.add(dependency(
                        "package-lock.json",
                        npm_severity(severity),
                        "npm audit",
                        &message,
                        rule,
                        url.as_deref(),
                    ));
                }
                NpmVia::Package(other) => {
                    let message = format!("{} depends on the vulnerable {other}", package.name);
                    parsed.add(dependency(
                        "package-lock.json",
                        npm_severity(&package.severity),
                        "npm audit",
                        &message,
                        None,
                        None,
                    ));
                }
            }
        }
        if package.via.is_empty() {
            let message = format!("{} is vulnerable", package.name);
            parsed.add(dependency(
                "package-lock.json",
                npm_severity(&package.severity),
                "npm audit",
                &message,
                None,
                None,
            ));
        }
    }
    parsed.checked = Some(report.metadata.dependencies.total);
    Ok(parsed)
}

/// npm prints warnings before and after the report if both go to the same place.
fn without_lines_of_npm(text: &str) -> &str {
    let Some(start) = text.lines().position(|line| !line.starts_with("npm ") && !line.trim().is_empty()) else {
        return text;
    };
    let from: usize = text.split_inclusive('\n').take(start).map(str::len).sum();
    let rest = text.get(from..).unwrap_or(text);
    match rest.find("\nnpm ") {
        Some(end) => rest.get(..end).unwrap_or(rest),
        None => rest,
    }
}

fn npm_failure(text: &str) -> Option<Parsed> {
    let failure: NpmFailure = serde_json::from_str(text).ok()?;
    let error = failure.error.as_ref();
    let why = failure
        .message
        .or_else(|| error?.summary.clone())
        .or_else(|| error?.code.clone())
        .filter(|why| !why.trim().is_empty())?;
    let mut parsed = Parsed::new(Format::NpmAudit);
    parsed.tool_failure = Some(format!("npm audit failed: {}", text::clean(&why, 300)));
    Some(parsed)
}

fn npm_severity(name: &str) -> Severity {
    match name {
        "info" | "low" => Severity::Note,
        "moderate" => Severity::Warning,
        // high, critical, and what a later version adds.
        _ => Severity::Error,
    }
}

fn dependency(
    file: &str,
    severity: Severity,
    tool: &str,
    message: &str,
    rule: Option<&str>,
    url: Option<&str>,
) -> Finding {
    Finding::new(severity, tool, message).at(file.to_owned(), None, None).rule(rule).url(url)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PipReport {
    Object {
        dependencies: Vec<PipDependency>,
    },
    /// Before version 2.
    List(Vec<PipDependency>),
}

#[derive(Deserialize)]
struct PipDependency {
    name: String,
    version: Option<String>,
    vulns: Option<Vec<PipVulnerability>>,
    skip_reason: Option<String>,
}

#[derive(Deserialize)]
struct PipVulnerability {
    id: String,
    #[serde(default)]
    fix_versions: Vec<String>,
    description: Option<String>,
}

pub fn read_pip(text: &str) -> Result<Parsed, ReportError> {
    // "No known vulnerabilities found" goes to standard error, which may precede the report.
    let start = text.lines().take_while(|line| !line.starts_with(['{', '['])).map(|line| line.len() + 1).sum::<usize>();
    let report: PipReport =
        text::json(Format::PipAudit, text.get(start..).filter(|rest| !rest.is_empty()).unwrap_or(text))?;
    let (PipReport::Object { dependencies } | PipReport::List(dependencies)) = report;
    let mut parsed = Parsed::new(Format::PipAudit);
    let mut checked = 0;
    for package in &dependencies {
        let version = package.version.as_deref().unwrap_or("?");
        let Some(vulnerabilities) = &package.vulns else {
            let why = package.skip_reason.as_deref().unwrap_or("no reason given");
            let message = format!("{} was not audited: {why}", package.name);
            parsed.add(dependency("", Severity::Warning, "pip-audit", &message, None, None));
            continue;
        };
        checked += 1;
        for vulnerability in vulnerabilities {
            let mended = match vulnerability.fix_versions.as_slice() {
                [] => "no version mends it".to_owned(),
                versions => format!("mended in {}", versions.join(", ")),
            };
            let about = vulnerability.description.as_deref().unwrap_or_default();
            let message = format!("{} {version}: {} ({mended}) {about}", package.name, vulnerability.id);
            let url = format!("https://osv.dev/vulnerability/{}", vulnerability.id);
            parsed.add(dependency("", Severity::Error, "pip-audit", &message, Some(&vulnerability.id), Some(&url)));
        }
    }
    parsed.checked = Some(checked);
    Ok(parsed)
}

#[derive(Deserialize)]
struct CargoReport {
    database: CargoDatabase,
    lockfile: CargoLockfile,
    vulnerabilities: CargoVulnerabilities,
    #[serde(default)]
    warnings: Option<UniqueMap<Vec<CargoWarning>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CargoDatabase {
    advisory_count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CargoLockfile {
    dependency_count: u64,
}

#[derive(Deserialize)]
struct CargoVulnerabilities {
    count: u64,
    list: Vec<CargoVulnerability>,
}

#[derive(Deserialize)]
struct CargoVulnerability {
    advisory: CargoAdvisory,
    package: CargoPackage,
}

#[derive(Deserialize)]
struct CargoWarning {
    package: CargoPackage,
    /// Absent for a version that was yanked.
    advisory: Option<CargoAdvisory>,
}

#[derive(Deserialize)]
struct CargoAdvisory {
    id: String,
    title: String,
    url: Option<String>,
}

#[derive(Deserialize)]
struct CargoPackage {
    name: String,
    version: String,
}

pub fn read_cargo(text: &str) -> Result<Parsed, ReportError> {
    let report: CargoReport = text::json(Format::CargoAudit, text)?;
    if report.vulnerabilities.count > report.vulnerabilities.list.len() as u64 {
        return Err(ReportError::unparsable(Format::CargoAudit, "it counts more vulnerabilities than it lists"));
    }
    let mut parsed = Parsed::new(Format::CargoAudit);
    let advisory = |severity: Severity, kind: &str, package: &CargoPackage, advisory: Option<&CargoAdvisory>| {
        let title = advisory.map_or(kind, |advisory| advisory.title.as_str());
        let id = advisory.map_or(kind, |advisory| advisory.id.as_str());
        let message = format!("{} {}: {title} ({kind})", package.name, package.version);
        let of_rustsec = format!("https://rustsec.org/advisories/{id}.html");
        let url = advisory.map(|advisory| advisory.url.as_deref().unwrap_or(&of_rustsec));
        dependency("Cargo.lock", severity, "cargo audit", &message, Some(id), url)
    };
    for found in &report.vulnerabilities.list {
        parsed.add(advisory(Severity::Error, "vulnerability", &found.package, Some(&found.advisory)));
    }
    for (kind, warnings) in report.warnings.iter().flat_map(|warnings| &warnings.0) {
        for warning in warnings {
            parsed.add(advisory(Severity::Warning, kind, &warning.package, warning.advisory.as_ref()));
        }
    }
    if report.database.advisory_count == 0 {
        parsed.tool_failure = Some("cargo audit has an empty database of advisories".to_owned());
    }
    parsed.checked = Some(report.lockfile.dependency_count);
    Ok(parsed)
}
