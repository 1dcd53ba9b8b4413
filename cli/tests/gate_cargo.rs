//! `nofx gate` as a program on a Cargo project with its real tools, without nextest and with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const MANIFEST: &str = "[package]\nname = \"cart\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
const LOCK: &str = "version = 4\n\n[[package]]\nname = \"cart\"\nversion = \"0.1.0\"\n";
const CODE: &str = "/// Adds prices.\n///\n/// ```\n/// assert_eq!(cart::total(&[2]), 2);\n/// ```\npub fn total(prices: &[u32]) -> u32 {\n    prices.iter().sum()\n}\n";
const TESTS: &str = "#[test]\nfn adds() {\n    assert_eq!(cart::total(&[1, 2]), 3);\n}\n\n#[test]\n#[should_panic]\nfn overflows() {\n    cart::total(&[u32::MAX, 1]);\n}\n";

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn project() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [("Cargo.toml", MANIFEST), ("Cargo.lock", LOCK), ("src/lib.rs", CODE), ("tests/cart.rs", TESTS)]
    {
        write(folder.path(), path, text);
    }
    folder
}

/// The evidence of the gate `unit`.
fn unit(folder: &Path, arguments: &[&str]) -> Value {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gate-runner");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.current_dir(folder).args(["gate", "unit", "--json"]).args(arguments).env("GATE_RUNNER_WORK_DIR", kept);
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    document["gates"][0].clone()
}

fn code(evidence: &Value) -> String {
    format!("{} {}", evidence["verdict"].as_str().unwrap(), evidence["reason"]["code"].as_str().unwrap())
}

#[test]
fn an_honest_project_passes_and_a_defect_is_shown_at_its_line() {
    let folder = project();
    let passed = unit(folder.path(), &[]);
    assert_eq!(code(&passed), "passed tests_passed", "{}", passed["reason"]);
    assert!(passed["reason"]["message"].as_str().unwrap().contains("3 of 3 tests passed"), "{}", passed["reason"]);

    write(folder.path(), "src/lib.rs", &CODE.replace("sum()", "product()"));
    let failed = unit(folder.path(), &[]);
    assert_eq!(code(&failed), "failed tests_failed", "{}", failed["reason"]);
    let finding = &failed["findings"]["listed"][0];
    assert_eq!((&finding["file"], &finding["line"]), (&"tests/cart.rs".into(), &3.into()), "{finding}");

    write(folder.path(), "src/lib.rs", &CODE.replace("u32 {", "u8 {"));
    assert_eq!(unit(folder.path(), &[])["verdict"], "failed");
}

#[test]
fn a_project_without_tests_fails_and_a_lost_test_needs_a_person() {
    let (base, head) = (project(), project());
    let against_base = ["--base", base.path().to_str().unwrap()];
    // A honest change: tests and documentation tests move to other lines.
    write(head.path(), "src/lib.rs", &format!("//! A cart.\n\n{CODE}"));
    write(
        head.path(),
        "tests/cart.rs",
        &format!("{TESTS}\n#[test]\nfn adds_nothing() {{\n    assert_eq!(cart::total(&[]), 0);\n}}\n"),
    );
    let passed = unit(head.path(), &against_base);
    assert_eq!(code(&passed), "passed tests_passed", "{}", passed["reason"]);

    write(head.path(), "tests/cart.rs", &TESTS.replacen("#[test]", "#[test]\n#[ignore]", 1));
    assert_eq!(code(&unit(head.path(), &against_base)), "blocked checks_weakened");
    // A documentation test goes with its function, and not alone.
    write(head.path(), "tests/cart.rs", &format!("// Sums.\n{}", TESTS.replace("cart::total", "cart::sum")));
    write(head.path(), "src/lib.rs", &CODE.replace("total", "sum"));
    let passed = unit(head.path(), &against_base);
    assert_eq!(code(&passed), "passed tests_passed", "{}", passed["reason"]);
    write(head.path(), "tests/cart.rs", &format!("// Sums.\n{TESTS}"));
    write(head.path(), "src/lib.rs", &CODE.replace("```\n", "\n"));
    let blocked = unit(head.path(), &against_base);
    assert_eq!(code(&blocked), "blocked checks_weakened", "{}", blocked["reason"]);
    write(head.path(), "src/lib.rs", CODE);

    // The harness leaves it out, whatever the source says.
    write(head.path(), "tests/cart.rs", &TESTS.replacen("#[test]", "#[cfg(feature = \"slow\")]\n#[test]", 1));
    assert_eq!(code(&unit(head.path(), &against_base)), "blocked checks_weakened");
    std::fs::remove_dir_all(head.path().join("tests")).unwrap();
    write(head.path(), "src/lib.rs", &CODE.replace("///", "//"));
    assert_eq!(code(&unit(head.path(), &[])), "failed no_tests");
}

#[test]
fn a_test_that_prints_forged_lines_or_ends_its_process_does_not_pass() {
    let folder = project();
    let printing = |text: &str| {
        format!(
            "#[test]\nfn prints() {{\n    use std::io::Write;\n    std::io::stdout().write_all(b\"{text}\").unwrap();\n    std::process::exit(0);\n}}\n"
        )
    };
    for text in ["", "\\ntest a ... ok\\n"] {
        write(folder.path(), "tests/cart.rs", &printing(text));
        let failed = unit(folder.path(), &[]);
        assert_eq!(code(&failed), "failed report_unparsable", "{}", failed["reason"]);
    }
    write(folder.path(), "tests/cart.rs", &printing("\\ntest a ... ok\\n").replace("    std::process::exit(0);\n", ""));
    let failed = unit(folder.path(), &[]);
    assert_eq!(code(&failed), "failed report_unparsable", "{}", failed["reason"]);
    // What a test merely prints does no harm.
    write(
        folder.path(),
        "tests/cart.rs",
        &printing("a line\\nand half of one").replace("    std::process::exit(0);\n", ""),
    );
    let passed = unit(folder.path(), &[]);
    assert_eq!(code(&passed), "passed tests_passed", "{}", passed["reason"]);
}

#[test]
fn a_project_that_uses_nextest_has_a_report_of_it() {
    if !Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: there is no cargo-nextest");
        return;
    }
    let folder = project();
    write(folder.path(), "README.md", "Test with `cargo nextest run`.\n");
    let passed = unit(folder.path(), &[]);
    assert_eq!(code(&passed), "passed tests_passed", "{}", passed["reason"]);
    assert_eq!((&passed["reports"][0]["format"], &passed["tests"]["total"]), (&"junit".into(), &2.into()), "{passed}");
    std::fs::remove_dir_all(folder.path().join("tests")).unwrap();
    assert_eq!(unit(folder.path(), &[])["verdict"], "failed");
}
