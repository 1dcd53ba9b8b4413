//! Presets for Go modules.

use super::gate::{Ecosystem, Format, ReportFile};
use super::presets::{Found, gate, join, project};
use crate::snapshot::Snapshot;

/// `go build` succeeds without any package, `go vet` and `go test` do not.
const BUILD: &str = "packages=$(go list ./...) || exit 1; if [ -z \"$packages\" ]; then echo 'error: the module has no packages' >&2; exit 1; fi; \
                     exec go build ./...";

pub fn find(snapshot: &Snapshot) -> Option<Found> {
    let (folder, others) = project(snapshot, &["go.mod"])?;
    let mut found = Found { explanation: others.into_iter().collect(), ..Found::default() };
    let typecheck = gate("typecheck", &folder, &["sh", "-c", BUILD]);
    let golangci = [".golangci.yml", ".golangci.yaml", ".golangci.toml", ".golangci.json"];
    let mut lint = if golangci.iter().any(|name| snapshot.files().contains_key(&join(&folder, name))) {
        gate("lint", &folder, &["golangci-lint", "run", "--output.sarif.path=$NOFX_REPORTS/golangci.sarif", "./..."])
    } else {
        gate("lint", &folder, &["go", "vet", "./..."])
    };
    if lint.command.first().is_some_and(|program| program == "golangci-lint") {
        lint.reports = vec![ReportFile::fresh(Format::Sarif, "golangci.sarif")];
    }
    let command = ["go", "test", "-json", "-count=1", "-coverprofile=$NOFX_REPORTS/cover.out", "./..."];
    let mut unit = gate("unit", &folder, &command);
    unit.reports = vec![ReportFile::stdout(Format::GoTest)];
    found.explanation.push(
        "Go writes coverage in its own format, so the gate \"unit\" does not measure changed lines. Let nofx.toml convert it to lcov or cobertura.".to_owned(),
    );
    found.gates = vec![typecheck, lint, unit];
    for gate in &mut found.gates {
        gate.dependencies = Ecosystem::Go;
    }
    Some(found)
}
