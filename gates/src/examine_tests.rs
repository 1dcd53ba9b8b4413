use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use shared::domain::outcome::NewGateStatus;

use super::*;
use crate::workspace::StoredArchive;

/// A workspace with these scripts, no dependencies, and a work folder. Scripts are plain shell and node.
struct Sample {
    folder: tempfile::TempDir,
    work: tempfile::TempDir,
    config: GateConfig,
}

impl Sample {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let (folder, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scripts: serde_json::Map<String, serde_json::Value> =
            scripts.iter().map(|(name, text)| ((*name).to_string(), json!(text))).collect();
        let mut config = GateConfig::new(work.path().to_path_buf()).with_node_from(&std::env::var("PATH").unwrap());
        config.default_workspace = Some(folder.path().to_path_buf());
        let sample = Self { folder, work, config };
        sample.write("package.json", &json!({"scripts": scripts}).to_string());
        sample
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn examine(&self, gate: GateKind) -> Evidence {
        self.examine_archives(gate, None, Duration::from_mins(1)).await
    }

    async fn examine_archives(&self, gate: GateKind, archives: Option<Archives>, timeout: Duration) -> Evidence {
        Examiner::new(self.config.clone()).examine(request(gate, archives, timeout)).await.unwrap()
    }

    /// Asserts that no attempt left a file.
    fn assert_deleted(&self) {
        let leftover: Vec<_> =
            fs::read_dir(self.work.path().join("attempts")).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(leftover.is_empty(), "{leftover:?}");
    }
}

fn request(gate: GateKind, archives: Option<Archives>, timeout: Duration) -> Request {
    Request {
        gate,
        tool: format!("gate:{}", gate.name()),
        tenant: "t".into(),
        run_id: "r".into(),
        step_id: "s".into(),
        attempt: 1,
        timeout,
        archives,
    }
}

/// A command that writes an Istanbul report for `src/a.js` with these hits of its lines.
fn report_script(hits: &[u64]) -> String {
    let place = |line: usize, column: u64| json!({"line": line + 1, "column": column});
    let map: serde_json::Map<_, _> =
        (0..hits.len()).map(|at| (at.to_string(), json!({"start": place(at, 0), "end": place(at, 9)}))).collect();
    let counts: serde_json::Map<_, _> =
        hits.iter().enumerate().map(|(at, hits)| (at.to_string(), json!(hits))).collect();
    let report = json!({"statementMap": map, "s": counts, "branchMap": {}, "b": {}}).to_string();
    format!(
        "const f=require('fs');f.mkdirSync('coverage');f.writeFileSync('coverage/coverage-final.json',JSON.stringify({{[process.cwd()+'/src/a.js']:{report}}}))"
    )
}

fn unit_sample(hits: &[u64]) -> Sample {
    let sample = Sample::new(&[("coverage", "node make-report.cjs")]);
    // A file that starts with a dot is not a source, so the script itself needs no coverage.
    sample.write("package.json", &json!({"scripts": {"coverage": "node .report.cjs"}}).to_string());
    sample.write(".report.cjs", &report_script(hits));
    sample.write("src/a.js", &"f();\n".repeat(hits.len()));
    sample
}

#[tokio::test]
async fn a_passing_command_passes_with_evidence() {
    let sample = Sample::new(&[("lint", "echo fine")]);
    let evidence = sample.examine(GateKind::Lint).await;
    assert_eq!((evidence.verdict, evidence.reason.code), (GateVerdict::Passed, "command_succeeded"));
    assert_eq!((evidence.exit_code, evidence.output_tail.as_str()), (Some(0), "fine\n"));
    assert_eq!(evidence.command.unwrap(), ["npm", "run", "--silent", "lint"]);
    assert_eq!(evidence.script.unwrap(), "echo fine");
    assert_eq!(evidence.digests.output.unwrap(), sha256_hex(b"fine\n"));
    assert_eq!(evidence.digests.workspace_kind, Some("tree"));
    assert!(evidence.toolchain.node.starts_with('v'));
    assert!(evidence.coverage.is_none());
    sample.assert_deleted();
}

#[tokio::test]
async fn a_failing_command_fails_with_its_error_lines() {
    let sample = Sample::new(&[("lint", "echo \"$PWD/src/a.ts\"; echo '  2:3  error  Unexpected any'; exit 2")]);
    let evidence = sample.examine(GateKind::Lint).await;
    assert_eq!(
        (evidence.verdict, evidence.reason.code, evidence.exit_code),
        (GateVerdict::Failed, "command_failed", Some(2))
    );
    assert_eq!(
        evidence.reason.message,
        "lint: `npm run lint` exited with code 2:\nsrc/a.ts\n  2:3  error  Unexpected any"
    );
    sample.assert_deleted();
}

#[tokio::test]
async fn a_gate_without_a_workspace_package_or_script_fails() {
    let mut sample = Sample::new(&[("lint", "true")]);
    assert_eq!(sample.examine(GateKind::Typecheck).await.reason.code, "no_command");
    fs::remove_file(sample.folder.path().join("package.json")).unwrap();
    assert_eq!(sample.examine(GateKind::Lint).await.reason.code, "no_command");
    sample.config.default_workspace = None;
    assert_eq!(sample.examine(GateKind::Lint).await.reason.code, "no_workspace");
    sample.config.default_workspace = Some("/nonexistent/workspace".into());
    assert_eq!(sample.examine(GateKind::Lint).await.reason.code, "no_workspace");
}

#[tokio::test]
async fn a_command_sees_no_secret_and_another_home() {
    let sample = Sample::new(&[("lint", "env")]);
    let seen = sample.examine(GateKind::Lint).await.output_tail;
    assert!(seen.contains("CI=1") && seen.contains("HOME="));
    let names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
    let known = [
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "CI",
        "NO_COLOR",
        "NOFX_GATE_ATTEMPT",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "NODE",
        "COLOR",
        "EDITOR",
        "INIT_CWD",
    ];
    for name in names {
        assert!(known.contains(&name) || name.starts_with("npm_"), "{name} was inherited");
    }
    let home = std::env::var("HOME").unwrap();
    assert!(!seen.lines().any(|line| line == format!("HOME={home}")));
}

#[tokio::test]
async fn a_command_that_never_ends_is_killed_and_its_folder_deleted() {
    let sample = Sample::new(&[("lint", "sleep 60 & sleep 60")]);
    let started = Instant::now();
    let evidence = sample.examine_archives(GateKind::Lint, None, Duration::from_secs(4)).await;
    assert_eq!((evidence.reason.code, evidence.timed_out, evidence.exit_code), ("timed_out", true, None));
    assert!(started.elapsed() < Duration::from_secs(20));
    sample.assert_deleted();
}

#[tokio::test]
async fn dropping_the_call_deletes_the_folder() {
    let sample = Sample::new(&[("lint", "touch began; sleep 60")]);
    let attempts = sample.work.path().join("attempts");
    let began = || {
        fs::read_dir(&attempts)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().join("workspace/began").exists())
    };
    let examiner = Examiner::new(sample.config.clone());
    tokio::select! {
        _ = examiner.examine(request(GateKind::Lint, None, Duration::from_mins(1))) => panic!("the gate ended by itself"),
        () = async { while !began() { tokio::time::sleep(Duration::from_millis(20)).await } } => {}
    }
    sample.assert_deleted();
}

#[tokio::test]
async fn a_command_cannot_change_the_default_workspace() {
    let sample = Sample::new(&[("lint", "echo evil > package.json")]);
    sample.examine(GateKind::Lint).await;
    assert!(fs::read_to_string(sample.folder.path().join("package.json")).unwrap().contains("scripts"));
}

#[tokio::test]
async fn dependencies_without_a_lockfile_are_not_installed() {
    let sample = Sample::new(&[]);
    sample.write("package.json", r#"{"scripts": {"lint": "true"}, "devDependencies": {"a": "1.0.0"}}"#);
    assert_eq!(sample.examine(GateKind::Lint).await.reason.code, "no_lockfile");
}

#[tokio::test]
async fn a_lockfile_that_does_not_match_its_package_fails_the_gate() {
    let sample = Sample::new(&[]);
    sample.write("package.json", r#"{"scripts": {"lint": "true"}, "dependencies": {"a": "1.0.0"}}"#);
    sample.write("package-lock.json", "not json");
    let evidence = sample.examine(GateKind::Lint).await;
    assert_eq!(evidence.reason.code, "install_failed");
    assert!(evidence.exit_code.is_some_and(|code| code != 0));
}

#[tokio::test]
async fn a_gate_without_node_reports_the_missing_toolchain() {
    let mut sample = Sample::new(&[("lint", "true")]);
    sample.config.search_path = "/nonexistent".into();
    assert_eq!(sample.examine(GateKind::Lint).await.reason.code, "toolchain_missing");
}

#[tokio::test]
async fn covered_lines_pass_the_unit_gate() {
    let evidence = unit_sample(&[1, 1]).examine(GateKind::Unit).await;
    assert_eq!(
        (evidence.verdict, evidence.reason.code),
        (GateVerdict::Passed, "threshold_met"),
        "{}",
        evidence.reason.message
    );
    assert_eq!(evidence.coverage.unwrap().ratio, Some(1.0));
    assert!(evidence.digests.coverage_reports.contains_key("coverage/coverage-final.json"));
}

#[tokio::test]
async fn passing_tests_with_uncovered_lines_fail_the_unit_gate() {
    let evidence = unit_sample(&[1, 0]).examine(GateKind::Unit).await;
    assert_eq!(
        (evidence.verdict, evidence.reason.code, evidence.exit_code),
        (GateVerdict::Failed, "below_threshold", Some(0))
    );
    assert!(evidence.reason.message.contains("src/a.js lines 2 never ran"), "{}", evidence.reason.message);
}

#[tokio::test]
async fn with_a_base_only_changed_lines_are_judged() {
    let mut sample = unit_sample(&[0, 1]);
    let base = tempfile::tempdir().unwrap();
    for path in ["package.json", ".report.cjs"] {
        fs::copy(sample.folder.path().join(path), base.path().join(path)).unwrap();
    }
    fs::create_dir(base.path().join("src")).unwrap();
    fs::write(base.path().join("src/a.js"), "f();\n").unwrap();
    sample.config.default_base = Some(base.path().to_path_buf());
    let coverage = sample.examine(GateKind::Unit).await.coverage.unwrap();
    // One of the two equal lines is new.
    assert_eq!(coverage.covered + coverage.uncovered, 1);
}

#[tokio::test]
async fn a_report_that_came_with_the_workspace_is_ignored() {
    let sample = unit_sample(&[1]);
    sample.write("coverage/coverage-final.json", r#"{"src/a.js": {"statementMap": {}, "s": {}}}"#);
    sample.write("package.json", r#"{"scripts": {"coverage": "true"}}"#);
    let evidence = sample.examine(GateKind::Unit).await;
    assert_eq!((evidence.verdict, evidence.reason.code), (GateVerdict::Failed, "report_missing"));
}

#[tokio::test]
async fn a_report_written_before_the_tests_started_is_stale() {
    let sample = unit_sample(&[1]);
    sample.write(
        "package.json",
        r#"{"scripts": {"coverage": "node .report.cjs && touch -d 2001-01-01 coverage/coverage-final.json"}}"#,
    );
    assert_eq!(sample.examine(GateKind::Unit).await.reason.code, "report_stale");
}

#[tokio::test]
async fn tests_that_rewrite_their_sources_do_not_hide_changed_lines() {
    let sample = unit_sample(&[0, 0]);
    sample.write("package.json", r#"{"scripts": {"coverage": "node .report.cjs && echo '// nothing' > src/a.js"}}"#);
    assert_eq!(sample.examine(GateKind::Unit).await.reason.code, "below_threshold");
}

#[tokio::test]
async fn failing_tests_fail_even_when_every_line_is_covered() {
    let sample = unit_sample(&[1]);
    sample.write("package.json", r#"{"scripts": {"coverage": "node .report.cjs && exit 1"}}"#);
    let evidence = sample.examine(GateKind::Unit).await;
    assert_eq!((evidence.verdict, evidence.reason.code), (GateVerdict::Failed, "command_failed"));
}

fn archive(files: &[(&str, &str)]) -> StoredArchive {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    StoredArchive::new(builder.into_inner().unwrap().finish().unwrap())
}

#[tokio::test]
async fn an_archive_is_judged_against_its_base_or_its_diff() {
    let sample = Sample::new(&[]);
    let (package, report) = (r#"{"scripts": {"coverage": "node .report.cjs"}}"#, report_script(&[0, 1]));
    let workspace = archive(&[("package.json", package), (".report.cjs", &report), ("src/a.js", "f();\ng();\n")]);
    let base = archive(&[("package.json", package), (".report.cjs", &report), ("src/a.js", "f();\n")]);
    let diff = StoredArchive::new(b"--- a/src/a.js\n+++ b/src/a.js\n@@ -1 +1,2 @@\n f();\n+g();\n".to_vec());
    let mut archives = Archives { workspace, base: None, diff: None };
    let long = Duration::from_mins(1);
    assert_eq!(
        sample.examine_archives(GateKind::Unit, Some(archives.clone()), long).await.reason.code,
        "below_threshold"
    );
    archives.base = Some(base);
    let evidence = sample.examine_archives(GateKind::Unit, Some(archives.clone()), long).await;
    assert_eq!(
        (evidence.reason.code, evidence.digests.base_kind),
        ("threshold_met", Some("archive")),
        "{:?}",
        evidence.reason
    );
    archives.diff = Some(diff);
    let evidence = sample.examine_archives(GateKind::Unit, Some(archives.clone()), long).await;
    assert_eq!(
        (evidence.reason.code, evidence.digests.base_kind),
        ("threshold_met", Some("diff")),
        "{:?}",
        evidence.reason
    );
    archives.diff = Some(StoredArchive::new(b"not a diff".to_vec()));
    assert_eq!(sample.examine_archives(GateKind::Unit, Some(archives), long).await.reason.code, "diff_unparsable");
}

#[tokio::test]
async fn an_invalid_archive_fails_the_gate_with_evidence() {
    let sample = Sample::new(&[]);
    let archives = Archives { workspace: StoredArchive::new(b"junk".to_vec()), base: None, diff: None };
    let evidence = sample.examine_archives(GateKind::Lint, Some(archives), Duration::from_mins(1)).await;
    assert_eq!((evidence.verdict, evidence.reason.code), (GateVerdict::Failed, "archive_refused"));
    sample.assert_deleted();
}

#[tokio::test]
async fn an_unusable_work_folder_is_an_infrastructure_error() {
    let mut sample = Sample::new(&[("lint", "true")]);
    sample.write("a-file", "");
    sample.config.work_dir = sample.folder.path().join("a-file");
    let error = Examiner::new(sample.config.clone())
        .examine(request(GateKind::Lint, None, Duration::from_secs(9)))
        .await
        .unwrap_err();
    assert_eq!(error.code, "work_folder_unavailable");
}

#[tokio::test]
async fn a_workspace_that_locks_its_folders_is_still_deleted() {
    let sample = Sample::new(&[("lint", "mkdir -p a/b && chmod 000 a")]);
    sample.examine(GateKind::Lint).await;
    sample.assert_deleted();
    assert!(fs::metadata(sample.work.path()).unwrap().permissions().mode() & 0o100 != 0);
    // The status in the gate's row.
    assert_eq!(serde_json::to_value(NewGateStatus::Passed).unwrap(), "passed");
}
