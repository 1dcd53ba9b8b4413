//! Presets for Cargo workspaces.

use super::gate::{CoverageRules, Ecosystem, Format, GateDefinition, ReportFile};
use super::presets::{Found, gate, join, project, text};
use crate::snapshot::Snapshot;

pub fn find(snapshot: &Snapshot) -> Option<Found> {
    let (folder, others) = project(snapshot, &["Cargo.toml"])?;
    let mut found = Found { explanation: others.into_iter().collect(), ..Found::default() };
    let common = ["--workspace", "--all-targets", "--locked", "--message-format=json"];
    let mut typecheck = gate("typecheck", &folder, &[&["cargo", "check"], &common[..]].concat());
    typecheck.reports = vec![ReportFile::stdout(Format::Cargo)];
    let lint_words = [&["cargo", "clippy"], &common[..], &["--", "-D", "warnings"]].concat();
    let mut lint = gate("lint", &folder, &lint_words);
    lint.reports = vec![ReportFile::stdout(Format::Cargo)];
    let unit = unit(snapshot, &folder, &mut found.explanation);
    found.gates = vec![typecheck, lint, unit];
    for gate in &mut found.gates {
        gate.dependencies = Ecosystem::Cargo;
        gate.environment.insert("CARGO_TERM_COLOR".to_owned(), "never".to_owned());
    }
    Some(found)
}

/// nextest writes JUnit only if a configuration names the file. The project's own has precedence over this one.
const NEXTEST_WITH_JUNIT: &str = "printf '[profile.default.junit]\\npath = \"%s\"\\n' \"$NOFX_REPORTS/junit.xml\" > \"$NOFX_REPORTS/nextest.toml\" \
    && exec cargo nextest run --workspace --locked --tool-config-file \"nofx:$NOFX_REPORTS/nextest.toml\"";

/// `cargo nextest` and `cargo llvm-cov` are used where the project itself uses them.
fn unit(snapshot: &Snapshot, folder: &str, explanation: &mut Vec<String>) -> GateDefinition {
    let junit = nextest_junit(snapshot, folder);
    let has_nextest = junit.is_some() || uses(snapshot, folder, "nextest");
    let has_coverage = uses(snapshot, folder, "llvm-cov");
    let mut words = vec!["cargo".to_owned()];
    if has_coverage {
        words.push("llvm-cov".to_owned());
    }
    match (&junit, has_nextest) {
        (Some((profile, _)), _) => words.extend(["nextest".into(), "--profile".into(), profile.clone()]),
        (None, true) => words.push("nextest".to_owned()),
        (None, false) if has_coverage => {}
        (None, false) => words.push("test".to_owned()),
    }
    if has_nextest && !has_coverage {
        words.insert(2, "run".to_owned());
    }
    words.extend(["--workspace".to_owned(), "--locked".to_owned()]);
    if has_coverage {
        words.extend(["--lcov".into(), "--output-path".into(), "$NOFX_REPORTS/lcov.info".into()]);
    }
    let mut unit = gate("unit", folder, &words.iter().map(String::as_str).collect::<Vec<_>>());
    if has_coverage {
        unit.reports.push(ReportFile::fresh(Format::Lcov, "lcov.info"));
        unit.coverage = Some(CoverageRules { threshold: None, file_floor: None, strict: false });
    } else {
        let sentence = "Nothing in the project names cargo llvm-cov, so the gate \"unit\" measures no coverage.";
        explanation.push(sentence.to_owned());
    }
    if let Some((profile, path)) = junit {
        let base = if has_coverage { "target/llvm-cov-target" } else { "target" };
        unit.reports.push(ReportFile::directory(Format::Junit, &format!("{base}/nextest/{profile}/{path}")));
    } else if !has_nextest {
        unit.reports.push(ReportFile::stdout(Format::CargoTest));
        // A setting of the project could replace the names of tests by dots.
        unit.environment.insert("CARGO_TERM_QUIET".to_owned(), "false".to_owned());
    } else if !has_coverage {
        unit.command = ["sh", "-c", NEXTEST_WITH_JUNIT].map(ToOwned::to_owned).to_vec();
        unit.reports.push(ReportFile::fresh(Format::Junit, "junit.xml"));
    } else {
        explanation.push(
            "No profile of nextest writes JUnit, so the gate \"unit\" counts no tests. Name the file in .config/nextest.toml.".to_owned(),
        );
    }
    unit
}

/// The profile of nextest that writes a JUnit report, and the report's name.
fn nextest_junit(snapshot: &Snapshot, folder: &str) -> Option<(String, String)> {
    let text = text(snapshot, &join(folder, ".config/nextest.toml"))?;
    let settings: toml::Table = toml::from_str(&text).ok()?;
    settings.get("profile")?.as_table()?.iter().find_map(|(name, profile)| {
        let path = profile.get("junit")?.get("path")?.as_str()?;
        let is_plain = !path.starts_with('/') && !path.contains("..");
        is_plain.then(|| (name.clone(), path.to_owned()))
    })
}

fn uses(snapshot: &Snapshot, folder: &str, word: &str) -> bool {
    let in_file = |path: &str| {
        text(snapshot, path)
            .is_some_and(|text| text.contains(&format!("cargo {word}")) || text.contains(&format!("cargo-{word}")))
    };
    let workflows = snapshot.files().keys().filter(|path| path.starts_with(".github/workflows/"));
    ["Makefile", "justfile", "README.md", "CONTRIBUTING.md", ".gitlab-ci.yml", ".config/nextest.toml"]
        .iter()
        .any(|name| in_file(name) || in_file(&join(folder, name)))
        || workflows.into_iter().any(|path| in_file(path))
        || (word == "nextest" && snapshot.files().contains_key(&join(folder, ".config/nextest.toml")))
}
