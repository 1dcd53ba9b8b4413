//! The job of a gate, from its definition.

use std::collections::BTreeMap;
use std::time::Duration;

use super::terms::Terms;
use crate::definition::{Definition, GateDefinition, Health, Kind, Place, REPORTS, ReportFile};
use crate::run::{CommandSpec, CompanionSpec, Job, ReportPath, Variant, millis};

/// The job that runs a gate's command once.
pub fn job(definition: &Definition, gate: &GateDefinition, terms: &Terms) -> Job {
    let own = Duration::from_secs(gate.timeout_s.into()).min(terms.timeout);
    Job {
        tenant: terms.tenant.clone(),
        command: CommandSpec {
            argv: gate.command.clone(),
            directory: gate.directory.clone(),
            environment: gate.environment.clone(),
            companions: gate.stubs.iter().filter_map(|name| companion(definition, name)).collect(),
            reports: gate.reports.iter().map(|report| path(gate, report)).collect(),
            network: terms.network,
            minimum_sandbox: terms.minimum_sandbox,
            timeout_ms: millis(own),
        },
        ecosystem: gate.dependencies.installed(),
        audit: gate.kind == Kind::Audit,
        variants: vec![Variant { name: String::new(), edits: BTreeMap::new() }],
        timeout_ms: millis(terms.timeout),
    }
}

/// Where a report is. The runner writes standard output into a file of its own.
fn path(gate: &GateDefinition, report: &ReportFile) -> ReportPath {
    match &report.place {
        Place::Stdout => ReportPath::Stdout,
        Place::Fresh(path) => ReportPath::Fresh(path.clone()),
        Place::Directory(path) if gate.directory.is_empty() => ReportPath::Workspace(path.clone()),
        Place::Directory(path) => ReportPath::Workspace(format!("{}/{path}", gate.directory)),
    }
}

fn companion(definition: &Definition, name: &str) -> Option<CompanionSpec> {
    let stub = definition.stubs.get(name)?;
    Some(CompanionSpec {
        name: name.to_owned(),
        argv: stub.command.clone(),
        directory: stub.directory.clone(),
        environment: stub.environment.clone(),
        port_variable: stub.port.clone(),
        health_path: match &stub.health {
            Health::Tcp => None,
            Health::Http(path) => Some(path.clone()),
        },
        start_timeout_ms: u64::from(stub.start_timeout_s) * 1_000,
    })
}

/// How a report's place is shown.
pub fn shown_place(report: &ReportFile) -> String {
    match &report.place {
        Place::Stdout => "stdout".to_owned(),
        Place::Fresh(path) => format!("{REPORTS}/{path}"),
        Place::Directory(path) => path.clone(),
    }
}
