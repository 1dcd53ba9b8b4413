//! A gate that is judged by its command alone.

use std::time::{Duration, Instant};

use nofx_gates::evidence::{Source, Verdict};
use nofx_gates::judge::{self, Archive};
use nofx_gates::run::Executor;
use shared::domain::digest::sha256_hex;

use crate::sample::{Lab, Tree, failed, passed, request, shell_gate};

#[tokio::test]
async fn a_passing_command_passes_with_evidence() {
    let evidence = Lab::new().evidence(&request("check", &Tree::shell("echo fine"))).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Passed, "command_succeeded"));
    let command = evidence.command.unwrap();
    assert_eq!((command.exit_code, command.output.tail.as_str()), (Some(0), "fine\n"));
    assert_eq!(command.output.sha256, sha256_hex(b"fine\n"));
    let definition = evidence.definition.unwrap();
    assert_eq!(definition.command, ["sh", "-c", "echo fine"]);
    assert_eq!((definition.source, definition.file.as_str()), (Source::Candidate, "nofx.toml"));
    assert!(evidence.coverage.is_none() && evidence.tests.is_none());
    for phase in ["unpack", "compare", "runner", "judge"] {
        assert!(evidence.timings_ms.contains_key(phase), "{phase}");
    }
}

#[tokio::test]
async fn evidence_belongs_to_the_tree_and_the_archive() {
    let (tree, lab) = (Tree::shell("true"), Lab::new());
    let subject = lab.evidence(&request("check", &tree)).await.subject.unwrap();
    assert_eq!(subject.archive.unwrap(), tree.packed().sha256);
    let other = lab.evidence(&request("check", &tree.with("src/a.js", "f();\n"))).await.subject.unwrap();
    assert_ne!(subject.tree, other.tree);
}

#[tokio::test]
async fn a_failing_command_fails_with_its_error_lines() {
    let line = "echo \"$PWD/src/a.ts\"; echo '  2:3  error  Unexpected any'; exit 2";
    let evidence = Lab::new().evidence(&request("check", &Tree::shell(line))).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "command_failed"));
    let message = evidence.reason.message;
    assert!(message.ends_with("exited with code 2:\nsrc/a.ts\n  2:3  error  Unexpected any"), "{message}");
    assert_eq!(evidence.command.unwrap().exit_code, Some(2));
}

#[tokio::test]
async fn a_gate_that_nobody_defined_fails() {
    let lab = Lab::new();
    assert_eq!(lab.verdict(&request("lint", &Tree::shell("true"))).await, failed("no_command"));
    assert_eq!(lab.verdict(&request("lint", &Tree::new(&[("a.txt", "a")]))).await, failed("no_command"));
}

#[tokio::test]
async fn an_invalid_definition_fails_with_its_line() {
    let evidence = Lab::new().evidence(&request("check", &Tree::defined("[gates.check]\ncomand = \"true\"\n"))).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "definition_invalid"));
    assert!(evidence.reason.message.contains("comand"), "{}", evidence.reason.message);
}

#[tokio::test]
async fn a_program_that_does_not_exist_fails_the_gate() {
    let tree = Tree::defined("[gates.check]\ncommand = \"no-such-program\"\n");
    assert_eq!(Lab::new().verdict(&request("check", &tree)).await, failed("command_not_started"));
}

#[tokio::test]
async fn an_invalid_archive_fails_the_gate_with_evidence() {
    let mut request = request("check", &Tree::shell("true"));
    request.workspace = Archive::new(b"junk".to_vec());
    assert_eq!(Lab::new().verdict(&request).await, failed("archive_refused"));
}

#[tokio::test]
async fn a_command_that_never_ends_is_killed() {
    let tree = Tree::defined(&shell_gate("check", "sleep 60 & sleep 60", "timeout_s = 1"));
    let started = Instant::now();
    let evidence = Lab::new().evidence(&request("check", &tree)).await;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Failed, "timed_out"));
    let command = evidence.command.unwrap();
    assert_eq!((command.timed_out, command.exit_code), (true, None));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_killed_before_its_reports_are_read() {
    // The process leaves the group and the session, and would write the report later.
    let line = "setsid sh -c 'sleep 1; echo late > \"$NOFX_REPORTS/late.xml\"' >/dev/null 2>&1 & exit 0";
    let tree = Tree::defined(&shell_gate(
        "check",
        line,
        r#"reports = [{ format = "junit", path = "$NOFX_REPORTS/late.xml" }]"#,
    ));
    let evidence = Lab::new().evidence(&request("check", &tree)).await;
    assert_eq!(evidence.reason.code, "report_missing");
    assert!(evidence.sandbox["killed_at_end"].as_u64().unwrap() > 0, "{}", evidence.sandbox);
}

#[tokio::test]
async fn dropping_the_call_deletes_the_folders() {
    let lab = Lab::new();
    let request = request("check", &Tree::shell("touch began; sleep 60"));
    let began =
        || lab.attempts().iter().any(|attempt| attempt.join("variant-0/began").exists() || find(attempt, "began"));
    let (settings, executor) = (lab.settings(), Executor::new(lab.runner.clone()));
    tokio::select! {
        _ = judge::judge(&request, &settings, &executor) => panic!("the gate ended by itself"),
        () = until(began) => {}
    }
    until(|| lab.attempts().is_empty()).await;
}

#[tokio::test]
async fn a_workspace_that_locks_its_folders_is_still_deleted() {
    let tree = Tree::shell("mkdir -p a/b && touch a/b/c && chmod 000 a");
    assert_eq!(Lab::new().verdict(&request("check", &tree)).await, passed("command_succeeded"));
}

/// Waits for a condition, without a limit of its own: the test's runner has one.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn find(folder: &std::path::Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name() == name || (entry.path().is_dir() && find(&entry.path(), name)))
}
