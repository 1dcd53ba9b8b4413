//! `mutants`: the tests must notice changes of the lines that they run.

use nofx_gates::evidence::Verdict;

use crate::sample::{Lab, Tree, change, failed, request};

const SOURCE: &str = "def is_large(number):\n    return number > 10\n";

/// Tests that run the assertions, and report both lines of the source as run.
fn project(assertions: &str) -> Tree {
    let definition = "sources = [\"src/*.py\"]\n\
        [gates.unit]\ncommand = [\"python3\", \"-B\", \"test_sizes.py\"]\n\
        reports = [{ format = \"lcov\", path = \"$NOFX_REPORTS/lcov.info\" }]\n\
        [gates.mutants]\nkind = \"mutants\"\nmutants = { limit = 4, tests = \"unit\" }\n";
    let tests = format!(
        "import os, sys\nsys.path.insert(0, \"src\")\nfrom sizes import is_large\n{assertions}\n\
         with open(os.environ[\"NOFX_REPORTS\"] + \"/lcov.info\", \"w\") as report:\n    \
         report.write(\"SF:src/sizes.py\\nDA:1,1\\nDA:2,1\\nend_of_record\\n\")\n"
    );
    Tree::defined(definition).with("src/sizes.py", SOURCE).with("test_sizes.py", &tests)
}

const THOROUGH: &str = "assert is_large(11) is True\nassert is_large(10) is False\nassert is_large(9) is False";

#[tokio::test]
async fn tests_that_notice_every_mutant_pass() {
    let evidence = Lab::new().evidence(&request("mutants", &project(THOROUGH))).await;
    assert_eq!(evidence.verdict, Verdict::Passed, "{}", evidence.reason.message);
    assert_eq!(evidence.findings.list.total, 0);
}

#[tokio::test]
async fn tests_that_run_a_line_and_notice_nothing_fail() {
    let lab = Lab::new();
    let forgetful = project("is_large(11)");
    assert_eq!(lab.evidence(&request("unit", &forgetful)).await.verdict, Verdict::Passed, "coverage alone is content");
    let evidence = lab.evidence(&request("mutants", &forgetful)).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "mutants_survived"));
    let survivor = &evidence.findings.list.listed[0];
    assert_eq!((survivor.file.as_str(), survivor.line), ("src/sizes.py", Some(2)));
}

#[tokio::test]
async fn nothing_to_mutate_is_no_pass() {
    let base = project(THOROUGH);
    let request = change("mutants", &base, &base.clone().with("README.md", "Hello.\n"));
    assert_eq!(Lab::new().verdict(&request).await, failed("nothing_to_mutate"));
}

#[tokio::test]
async fn tests_that_fail_by_themselves_prove_nothing() {
    let request = request("mutants", &project("assert is_large(1) is True"));
    assert_eq!(Lab::new().verdict(&request).await, failed("tests_failed"));
}

#[tokio::test]
async fn tests_without_coverage_cannot_have_mutants() {
    let definition = "[gates.unit]\ncommand = \"true\"\n";
    let request = request("mutants", &Tree::defined(definition).with("src/sizes.py", SOURCE));
    assert_eq!(Lab::new().verdict(&request).await, failed("no_command"));
}
