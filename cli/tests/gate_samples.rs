//! `nofx gate` as a program on the sample projects, with their real tools. It installs them from the registries that this
//! machine uses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nofx_gates::snapshot::Snapshot;
use serde_json::Value;
use tempfile::TempDir;

const FAST: [&str; 4] = ["typecheck", "lint", "unit", "secrets"];

/// A copy of a sample project.
fn sample(name: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    let folder = tempfile::tempdir().unwrap();
    for path in Snapshot::take(&from).unwrap().files().keys() {
        write(folder.path(), path, &std::fs::read_to_string(from.join(path)).unwrap());
    }
    folder
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Runs gates, with installations that later runs of the tests use again.
fn nofx(folder: &Path, arguments: &[&str]) -> Output {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gate-runner");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.current_dir(folder).arg("gate").args(arguments).env("GATE_RUNNER_WORK_DIR", kept).output().unwrap()
}

/// The exit status, and the verdict and reason of each gate.
fn verdicts(folder: &Path, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = nofx(folder, &[arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text} {output:?}"));
    let gates = document["gates"].as_array().unwrap().iter();
    let shown = |gate: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!("{} {} {}", text(&gate["gate"]), text(&gate["verdict"]), text(&gate["reason"]["code"]))
    };
    (output.status.code(), gates.map(shown).collect())
}

#[test]
fn the_typescript_sample_passes_its_gates() {
    let folder = sample("workspace");
    let expected = [
        "typecheck passed report_clean",
        "lint passed report_clean",
        "unit passed threshold_met",
        "secrets passed no_secrets",
    ];
    assert_eq!(verdicts(folder.path(), &FAST), (Some(0), expected.map(str::to_owned).to_vec()));
}

#[test]
fn the_python_sample_passes_its_gates() {
    let folder = sample("python");
    let expected = [
        "typecheck passed report_clean",
        "lint passed report_clean",
        "unit passed threshold_met",
        "secrets passed no_secrets",
    ];
    assert_eq!(verdicts(folder.path(), &FAST), (Some(0), expected.map(str::to_owned).to_vec()));
}

/// The presets take it, so its dependencies count too.
#[test]
fn the_only_project_of_a_repository_may_be_below_its_root() {
    let (folder, project) = (tempfile::tempdir().unwrap(), sample("workspace"));
    for path in Snapshot::take(project.path()).unwrap().files().keys() {
        write(folder.path(), &format!("web/{path}"), &std::fs::read_to_string(project.path().join(path)).unwrap());
    }
    write(folder.path(), "README.md", "one project\n");
    let expected = ["lint passed report_clean", "unit passed threshold_met"];
    assert_eq!(verdicts(folder.path(), &["lint", "unit"]), (Some(0), expected.map(str::to_owned).to_vec()));
    assert_eq!(verdicts(folder.path(), &["lint", "--root", "web"]), (Some(0), vec![expected[0].to_owned()]));
}

#[test]
fn a_branch_that_no_test_runs_fails_the_unit_gate_against_the_base() {
    let (base, head) = (sample("workspace"), sample("workspace"));
    let source = "export function sign(value: number): string {\n  if (value < 0) {\n    return \"-\";\n  }\n  return \"\";\n}\n";
    let test = "import { expect, it } from \"vitest\";\n\nimport { sign } from \"../src/sign.js\";\n\n\
                it(\"has no sign\", () => {\n  expect(sign(1)).toBe(\"\");\n});\n";
    write(head.path(), "src/sign.ts", source);
    write(head.path(), "test/sign.test.ts", test);
    let base = base.path().to_str().unwrap();
    let output = nofx(head.path(), &["unit", "--base", base]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for part in ["unit failed", "src/sign.ts", "    return \"-\";"] {
        assert!(shown.contains(part), "{shown}");
    }
    write(head.path(), "test/sign.test.ts", &test.replace("});", "  expect(sign(-1)).toBe(\"-\");\n});"));
    assert_eq!(
        verdicts(head.path(), &["unit", "--base", base]),
        (Some(0), vec!["unit passed threshold_met".to_owned()])
    );
}

#[test]
fn a_change_of_the_checks_needs_a_person() {
    let (base, head) = (sample("python"), sample("python"));
    let project = std::fs::read_to_string(head.path().join("pyproject.toml")).unwrap();
    write(head.path(), "pyproject.toml", &project.replace("strict = true", "strict = false"));
    let base = base.path().to_str().unwrap();
    let expected = vec!["typecheck blocked checks_weakened".to_owned()];
    assert_eq!(verdicts(head.path(), &["typecheck", "--base", base]), (Some(1), expected));
}

#[test]
fn the_tests_of_the_python_sample_notice_mutants_and_weaker_tests_do_not() {
    let folder = sample("python");
    // A few mutants, so that the test is quick.
    write(folder.path(), "nofx.toml", "[gates.mutants]\nkind = \"mutants\"\nmutants = { limit = 6 }\n");
    assert_eq!(verdicts(folder.path(), &["mutants"]).1, ["mutants passed mutants_killed"]);
    for path in ["tests/test_stock.py", "tests/test_reorder.py"] {
        let text = std::fs::read_to_string(folder.path().join(path)).unwrap();
        write(folder.path(), path, &text.replace("    assert ", "    "));
    }
    assert_eq!(
        verdicts(folder.path(), &["unit", "mutants"]).1,
        ["unit passed threshold_met", "mutants failed mutants_survived"]
    );
}
