//! `nofx gate` as a program in checkouts of every kind. The gate `secrets` needs no tools.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};

use serde_json::Value;
use tempfile::TempDir;

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let config = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"];
    let done = Command::new("git").args(config).args(arguments).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A repository with two projects.
fn repository() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "--quiet", "-b", "main"]);
    write(folder.path(), "README.md", "two projects\n");
    write(folder.path(), "web/src/a.ts", "export const a = 1;\n");
    write(folder.path(), "api/a.py", "a = 1\n");
    write(folder.path(), "api/nofx.toml", "[gates.hello]\ncommand = \"true\"\n");
    commit(folder.path());
    folder
}

fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "-m", "change"]);
}

fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.current_dir(folder).arg("gate").args(arguments.split(' '));
    command
}

fn nofx(folder: &Path, arguments: &str) -> Output {
    command(folder, arguments).output().unwrap()
}

/// The exit status, and the evidence of the only gate.
fn evidence(folder: &Path, arguments: &str) -> (Option<i32>, Value) {
    let output = nofx(folder, &format!("{arguments} --json"));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut document: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments}: {text} {output:?}"));
    let gates = document["gates"].as_array_mut().unwrap();
    assert_eq!(gates.len(), 1, "{arguments}");
    (output.status.code(), gates.remove(0))
}

fn reason(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let (status, evidence) = evidence(folder, arguments);
    (status, evidence["reason"]["code"].as_str().unwrap().to_owned())
}

fn key() -> String {
    ["AKIA", "S2WGYHO6IOWGUBAJ"].concat()
}

#[test]
fn what_cannot_be_packed_or_compared_cannot_be_judged_and_has_evidence() {
    let outside = repository();
    symlink("/etc/passwd", outside.path().join("out")).unwrap();
    let name = repository();
    fs::write(name.path().join(std::ffi::OsStr::from_bytes(b"\xff.ts")), "").unwrap();
    let fifo = repository();
    fs::remove_file(fifo.path().join("README.md")).unwrap();
    assert!(Command::new("mkfifo").arg(fifo.path().join("README.md")).status().unwrap().success());
    let (plain, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(plain.path(), "a.ts", "a();\n");
    let usual = repository();
    for (folder, arguments, status, code) in [
        (&outside, "secrets", 3, "archive_refused"),
        (&empty, "secrets", 3, "archive_refused"),
        (&name, "secrets", 3, "checkout_unusable"),
        (&fifo, "secrets", 3, "checkout_unusable"),
        (&plain, "secrets --staged", 3, "checkout_unusable"),
        (&plain, "secrets --base main", 3, "base_unusable"),
        (&usual, "secrets --base gone", 3, "base_unusable"),
        (&usual, "secrets --root gone", 2, "usage"),
        (&usual, "secrets --base main", 0, "empty_diff"),
        (&plain, "secrets", 0, "no_secrets"),
    ] {
        assert_eq!(reason(folder.path(), arguments), (Some(status), code.to_owned()), "{arguments}");
    }
    let (_, unjudged) = evidence(outside.path(), "secrets");
    let (_, judged) = evidence(usual.path(), "secrets");
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&unjudged), keys(&judged));
    assert_eq!((&unjudged["verdict"], &unjudged["subject"]), (&"failed".into(), &Value::Null));
    let message = unjudged["reason"]["message"].as_str().unwrap();
    assert!(message.contains("out is a link") && message.contains(".gitignore"), "{message}");
    let shown = nofx(outside.path(), "secrets lint --github");
    assert_eq!(shown.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&shown.stdout).lines().count(), 2, "an annotation for each gate");
}

#[test]
fn a_root_is_a_project_of_its_own() {
    let folder = repository();
    let tree = |arguments: &str| evidence(folder.path(), arguments).1["subject"]["tree"]["sha1"].clone();
    assert_eq!(tree("secrets"), git(folder.path(), &["rev-parse", "HEAD^{tree}"]));
    assert_eq!(tree("secrets --root api"), git(folder.path(), &["rev-parse", "HEAD:api"]));
    assert_eq!(tree("secrets --root api --staged"), git(folder.path(), &["rev-parse", "HEAD:api"]));
    // Without it the whole repository counts, wherever the command starts.
    let ignored = folder.path().join("ignored");
    write(&ignored, "a.py", "a = 1\n");
    write(folder.path(), ".git/info/exclude", "ignored\n");
    for below in [folder.path().join("api"), ignored] {
        let (_, from_below) = evidence(&below, "secrets");
        assert_eq!(from_below["subject"]["tree"]["sha1"], tree("secrets"));
    }
    assert_eq!(evidence(folder.path(), "secrets --root ignored").0, Some(0));

    write(folder.path(), "api/b.py", &format!("key = \"{}\"\n", key()));
    let (status, found) = evidence(folder.path(), "secrets --root api --base main");
    assert_eq!((status, &found["findings"]["listed"][0]["file"]), (Some(1), &"b.py".into()));
    assert_eq!(found["base"]["tree"]["sha1"], git(folder.path(), &["rev-parse", "HEAD:api"]));
    assert_eq!(reason(folder.path(), "secrets --root web --base main"), (Some(0), "empty_diff".to_owned()));
    // Only api has this gate.
    let missing = evidence(folder.path(), "hello --base main").1;
    assert_eq!(missing["reason"]["code"], "no_command");
    // Otherwise people look for the mistake in their change, which may have the gate.
    let message = missing["reason"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the base defines no gate \"hello\"") && message.contains("of the base first"),
        "{message}"
    );
    assert_eq!(evidence(folder.path(), "hello --root api --base main").1["definition"]["file"], "nofx.toml");
    write(folder.path(), "new/a.py", "a = 1\n");
    assert_eq!(reason(folder.path(), "secrets --root new --base main").1, "base_unusable");
}

#[test]
fn a_base_is_where_the_change_left_it() {
    let folder = repository();
    git(folder.path(), &["checkout", "--quiet", "-b", "change"]);
    write(folder.path(), "web/src/b.ts", "export const b = 1;\n");
    commit(folder.path());
    git(folder.path(), &["checkout", "--quiet", "main"]);
    // What others did since is not part of the change.
    write(folder.path(), "web/tests/a.test.ts", "it(\"works\", () => { expect(1).toBe(1); });\n");
    commit(folder.path());
    git(folder.path(), &["checkout", "--quiet", "change"]);
    let (status, found) = evidence(folder.path(), "secrets --base main");
    assert_eq!((status, &found["reason"]["code"]), (Some(0), &"no_secrets".into()));
    assert_eq!(found["base"]["tree"]["sha1"], git(folder.path(), &["rev-parse", "main~1^{tree}"]));
    fs::create_dir(folder.path().join("main")).unwrap();
    assert_eq!(reason(folder.path(), "secrets --base main"), (Some(2), "usage".to_owned()));
    assert_eq!(reason(folder.path(), "secrets --base refs/heads/main").0, Some(0));
}

#[test]
fn a_hook_judges_what_is_committed() {
    let folder = repository();
    let hook = folder.path().join(".git/hooks/pre-commit");
    write(
        folder.path(),
        ".git/hooks/pre-commit",
        &format!("#!/bin/sh\nexec {} gate secrets --staged --root web >&2\n", env!("CARGO_BIN_EXE_nofx")),
    );
    fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    let worktree = folder.path().join("linked");
    git(folder.path(), &["worktree", "add", "--quiet", "-b", "linked", "linked"]);
    for checkout in [folder.path(), &worktree] {
        let try_commit = |arguments: &[&str]| {
            let config = ["-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "--quiet", "-m", "x"];
            let done = Command::new("git").args(config).args(arguments).current_dir(checkout).output().unwrap();
            (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
        };
        // A secret that is not part of the commit does not matter, also if it is staged.
        write(checkout, "web/secret.ts", &format!("const key = \"{}\";\n", key()));
        git(checkout, &["add", "web/secret.ts"]);
        write(checkout, "web/src/a.ts", "export const a = 2;\n");
        let (committed, said) = try_commit(&["web/src/a.ts"]);
        assert!(committed, "{said}");
        let (committed, said) = try_commit(&["--all"]);
        assert!(!committed && said.contains("secret.ts:1: "), "{said}");
        git(checkout, &["rm", "--quiet", "-f", "web/secret.ts"]);
    }
}

#[test]
fn the_first_commit_of_a_repository_has_no_base() {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "--quiet"]);
    write(folder.path(), "a.ts", "a();\n");
    git(folder.path(), &["add", "a.ts"]);
    assert_eq!(reason(folder.path(), "secrets --staged"), (Some(0), "no_secrets".to_owned()));
}

#[test]
fn a_change_writes_no_workflow_commands_and_its_secrets_are_not_shown() {
    let folder = repository();
    write(folder.path(), "eslint.config.js", "/*\n::add-matcher::x\n*/\nexport default [{ rules: { eqeqeq: 2 } }];\n");
    commit(folder.path());
    write(folder.path(), "eslint.config.js", "/*\n::add-matcher::x\n*/\nexport default [{ rules: { eqeqeq: 0 } }];\n");
    let output = nofx(folder.path(), "secrets --base main --github");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let token = lines[0].strip_prefix("::stop-commands::").unwrap();
    let end = lines.iter().position(|line| *line == format!("::{token}::")).unwrap();
    let quoted = lines.iter().position(|line| line.trim_start().starts_with("::add-matcher::")).unwrap();
    assert!(quoted < end && lines[end + 1].starts_with("::error title=secrets::"), "{text}");

    git(folder.path(), &["checkout", "--quiet", "--", "."]);
    write(folder.path(), "web/src/b.ts", &format!("const key = \"{}\";\n", key()));
    for arguments in ["secrets --base main", "secrets --base main --github", "secrets --base main --json"] {
        let output = nofx(folder.path(), arguments);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code() == Some(1) && shown.contains("web/src/b.ts"), "{shown}");
        assert!(!shown.contains(&key()), "{shown}");
    }
}

#[test]
fn a_reader_that_leaves_does_not_change_the_exit_status() {
    let folder = repository();
    let mut child = command(folder.path(), "secrets --json").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A gate that runs until it is killed, with the folders that it may use.
struct Running {
    _checkout: TempDir,
    work: TempDir,
    child: Child,
}

impl Running {
    fn start() -> Self {
        let (checkout, work) = (repository(), tempfile::tempdir().unwrap());
        write(checkout.path(), "nofx.toml", "[gates.long]\ncommand = \"touch started && sleep 600\"\nshell = true\n");
        fs::create_dir(work.path().join("temporary")).unwrap();
        let child = command_in(work.path(), checkout.path(), "long").spawn().unwrap();
        let mut running = Self { _checkout: checkout, work, child };
        while !has(&running.runner(), "started") {
            assert!(running.child.try_wait().unwrap().is_none(), "it has ended");
            std::thread::yield_now();
        }
        running
    }

    fn runner(&self) -> PathBuf {
        self.work.path().join("runner")
    }

    fn temporary(&self) -> PathBuf {
        self.work.path().join("temporary")
    }

    fn end(&mut self, signal: &str) -> ExitStatus {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap()
    }
}

/// A command that keeps its files below `work`.
fn command_in(work: &Path, checkout: &Path, arguments: &str) -> Command {
    let mut command = command(checkout, arguments);
    command.env("GATE_RUNNER_WORK_DIR", work.join("runner")).env("TMPDIR", work.join("temporary"));
    command
}

#[test]
fn a_signal_ends_what_was_started_and_leaves_nothing() {
    let mut running = Running::start();
    assert_eq!(running.end("-TERM").code(), Some(128 + 15));
    assert_eq!(fs::read_dir(running.temporary()).unwrap().count(), 0);
    assert!(!has(&running.runner(), "started"));
}

#[test]
fn other_users_read_no_copy_of_the_checkout_and_the_next_gate_deletes_those_of_a_killed_one() {
    let mut running = Running::start();
    let copies = [running.runner(), running.temporary()].map(|folder| readable_by_others(&folder, "nofx.toml"));
    assert_eq!(copies, [false, false]);
    running.end("-KILL");
    let done = command_in(running.work.path(), repository().path(), "secrets").output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(fs::read_dir(running.temporary()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(running.runner().join("attempts")).unwrap().count(), 0);
}

/// Whether a user without a right of its own could get to a file with this name below a folder, if it knew the path.
fn readable_by_others(folder: &Path, name: &str) -> bool {
    let mode = |path: &Path| fs::symlink_metadata(path).map_or(0, |found| found.permissions().mode());
    mode(folder) & 0o001 != 0
        && fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let is_it = entry.file_name() == name && mode(&entry.path()) & 0o004 != 0;
            is_it || mode(&entry.path()) & 0o040_000 != 0 && readable_by_others(&entry.path(), name)
        })
}

/// Whether a file with this name is somewhere below a folder.
fn has(folder: &Path, name: &str) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        entry.file_name() == name || entry.file_type().is_ok_and(|kind| kind.is_dir()) && has(&entry.path(), name)
    })
}

#[test]
fn a_name_in_the_checkout_is_no_command_for_github() {
    let folder = repository();
    let nested = folder.path().join("sub\n::error::pwned");
    fs::create_dir(&nested).unwrap();
    git(&nested, &["init", "--quiet"]);
    write(&nested, "a", "a");
    commit(&nested);
    let output = nofx(folder.path(), "secrets --github");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(text.contains("pwned") && !text.lines().any(|line| line.starts_with("::error")), "{text}");
}
