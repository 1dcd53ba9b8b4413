//! `nofx gate` as a program on a Go module with Go's own tools. On a machine without Go there is nothing to test.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const CODE: &str = "package cart\n\n// Total adds prices.\nfunc Total(prices ...int) int {\n\tsum := 0\n\tfor _, price := range prices {\n\t\tsum += price\n\t}\n\treturn sum\n}\n";
const TEST: &str = "package cart\n\nimport \"testing\"\n\nfunc TestTotal(t *testing.T) {\n\tif got := Total(1, 2); got != 3 {\n\t\tt.Errorf(\"got %d\", got)\n\t}\n}\n";

fn write(folder: &Path, path: &str, text: &str) {
    std::fs::write(folder.join(path), text).unwrap();
}

/// A module without dependencies. `None` if this machine has no Go.
fn module() -> Option<TempDir> {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("not tested: there is no go");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "go.mod", "module example.com/cart\n\ngo 1.19\n");
    write(folder.path(), "cart.go", CODE);
    write(folder.path(), "cart_test.go", TEST);
    Some(folder)
}

/// The evidence of each gate.
fn gates(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gate-runner");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.current_dir(folder).arg("gate").args(arguments).arg("--json").env("GATE_RUNNER_WORK_DIR", kept);
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    document["gates"].as_array().unwrap().clone()
}

fn codes(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let code = |gate: &Value| format!("{} {}", text(&gate["verdict"]), text(&gate["reason"]["code"]));
    gates(folder, arguments).iter().map(code).collect()
}

#[test]
fn an_honest_module_passes_and_a_defect_fails_each_gate() {
    let Some(folder) = module() else { return };
    let all = ["typecheck", "lint", "unit", "secrets"];
    let passed = ["passed command_succeeded", "passed command_succeeded", "passed tests_passed", "passed no_secrets"];
    assert_eq!(codes(folder.path(), &all), passed);

    let doubts = gates(folder.path(), &["unit"]).remove(0)["not_proved"].to_string();
    assert!(doubts.contains("preset_limits") && doubts.contains("does not measure changed lines"), "{doubts}");

    write(folder.path(), "cart.go", &CODE.replace("sum += price", "sum -= price"));
    let failed = gates(folder.path(), &["unit"]).remove(0);
    assert_eq!(failed["reason"]["code"], "tests_failed");
    let finding = &failed["findings"]["listed"][0];
    assert_eq!((&finding["file"], &finding["line"]), (&"cart_test.go".into(), &7.into()));
    assert!(finding["message"].as_str().unwrap().contains("got -3"), "{finding}");

    let vetted = CODE
        .replace("package cart\n", "package cart\n\nimport \"fmt\"\n")
        .replace("return sum", "fmt.Printf(\"%s\", sum)\n\treturn sum");
    write(folder.path(), "cart.go", &vetted);
    let failed = gates(folder.path(), &["lint", "typecheck"]);
    let message = failed[0]["reason"]["message"].as_str().unwrap();
    assert!(failed[0]["verdict"] == "failed" && message.contains("cart.go:11"), "{message}");
    assert_eq!(failed[1]["verdict"], "passed");

    write(folder.path(), "cart.go", &CODE.replace("return sum", "return \"sum\""));
    for gate in gates(folder.path(), &all[..3]) {
        assert_eq!(gate["verdict"], "failed", "{gate}");
    }
}

#[test]
fn a_module_without_tests_fails_and_a_lost_test_needs_a_person() {
    let (Some(base), Some(head)) = (module(), module()) else { return };
    let base = base.path().to_str().unwrap();
    write(head.path(), "cart_test.go", &TEST.replace("if got", "t.Skip(\"later\")\n\tif got"));
    assert_eq!(codes(head.path(), &["unit", "--base", base]), ["blocked checks_weakened"]);
    std::fs::remove_file(head.path().join("cart_test.go")).unwrap();
    assert_eq!(codes(head.path(), &["unit", "--base", base]), ["blocked checks_weakened"]);
    assert_eq!(codes(head.path(), &["unit"]), ["failed no_tests"]);
    let more = TEST.replace("TestTotal", "TestNothing").replace("1, 2", "").replace("!= 3", "!= 0");
    write(head.path(), "cart_test.go", TEST);
    write(head.path(), "more_test.go", &more);
    assert_eq!(codes(head.path(), &["unit", "--base", base]), ["passed tests_passed"]);
}
