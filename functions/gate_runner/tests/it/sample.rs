//! Small workspaces, and a judge with a runner in this process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use nofx_gates::archive;
use nofx_gates::evidence::{Evidence, GivenBy, Verdict};
use nofx_gates::judge::{self, Approved, Archive, BaseInput, Judged, Request, Runner, Settings};
use nofx_gates::run::{Executor, RunnerSettings};
use nofx_gates::snapshot::Snapshot;
use nofx_sandbox::{Level, host, set_launcher};
use shared::domain::policy::GatePolicy;
use tempfile::TempDir;

/// The files of a workspace.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    pub fn new(files: &[(&str, &str)]) -> Self {
        files.iter().fold(Self::default(), |tree, (path, text)| tree.with(path, text))
    }

    /// A workspace with this `nofx.toml`.
    pub fn defined(definition: &str) -> Self {
        Self::new(&[("nofx.toml", definition)])
    }

    /// A workspace whose gate `check` is this line of shell.
    pub fn shell(line: &str) -> Self {
        Self::defined(&shell_gate("check", line, ""))
    }

    #[must_use]
    pub fn with(mut self, path: &str, text: &str) -> Self {
        self.0.insert(path.to_owned(), text.to_owned());
        self
    }

    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        assert!(self.0.remove(path).is_some(), "no file {path}");
        self
    }

    pub fn packed(&self) -> Archive {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in &self.0 {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let snapshot = Snapshot::take(folder.path()).unwrap();
        Archive::new(archive::pack(&archive::sources(&snapshot), nofx_gates::Limits::default()).unwrap())
    }
}

/// The definition of a gate with a line of shell. `more` are further keys.
pub fn shell_gate(name: &str, line: &str, more: &str) -> String {
    format!("[gates.{name}]\ncommand = '''{line}'''\nshell = true\n{more}\n")
}

/// Names the launcher of sandboxes.
pub fn prepare() {
    static LAUNCHER: Once = Once::new();
    LAUNCHER.call_once(|| set_launcher(PathBuf::from(env!("CARGO_BIN_EXE_gate_runner"))));
}

/// A folder that commands pass through, which run as another user.
pub fn work_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("nofx-judge-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A work folder with a runner.
pub struct Lab {
    folder: TempDir,
    pub runner: RunnerSettings,
}

impl Lab {
    pub fn new() -> Self {
        prepare();
        let folder = work_folder();
        let mut runner = RunnerSettings::new(folder.path().join("runner"));
        runner.add_toolchains_of(&std::env::var("PATH").unwrap());
        Self { folder, runner }
    }

    /// A runner that uses no more of the host than this level.
    pub fn at(level: Level) -> Self {
        let mut lab = Self::new();
        lab.runner.at_most = Some(host().at(level));
        lab
    }

    pub fn settings(&self) -> Settings {
        Settings::new(self.folder.path().join("judge"))
    }

    pub async fn judge(&self, request: &Request) -> Judged {
        self.judge_with(request, &Executor::new(self.runner.clone())).await
    }

    /// Judges, and checks that no attempt left a file.
    pub async fn judge_with<R: Runner>(&self, request: &Request, runner: &R) -> Judged {
        let judged = judge::judge(request, &self.settings(), runner).await;
        self.assert_deleted();
        judged
    }

    pub async fn evidence(&self, request: &Request) -> Evidence {
        let judged = self.judge(request).await;
        assert!(judged.lost.is_none(), "{:?}", judged.evidence.reason);
        judged.evidence
    }

    /// The verdict and the reason's code.
    pub async fn verdict(&self, request: &Request) -> (Verdict, String) {
        let evidence = self.evidence(request).await;
        (evidence.verdict, evidence.reason.code)
    }

    pub fn attempts(&self) -> Vec<PathBuf> {
        let folders = ["judge", "runner"].map(|name| self.folder.path().join(name).join("attempts"));
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    pub fn assert_deleted(&self) {
        assert_eq!(self.attempts(), Vec::<PathBuf>::new());
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A request for a gate of a workspace without a base.
pub fn request(gate: &str, head: &Tree) -> Request {
    Request {
        gate: gate.to_owned(),
        tenant: "t".to_owned(),
        attempt: None,
        timeout: Duration::from_mins(1),
        workspace: head.packed(),
        base: None,
        base_given_by: GivenBy::None,
        base_origin: None,
        policy: GatePolicy::default(),
        approvals: Vec::new(),
        risky: false,
    }
}

/// A request for a gate of a change.
pub fn change(gate: &str, base: &Tree, head: &Tree) -> Request {
    let base = Some(BaseInput::Archive(base.packed()));
    Request { base, base_given_by: GivenBy::Plan, ..request(gate, head) }
}

/// The same request after a person approved the question of a judgement.
pub fn approved(request: &Request, judged: &Judged) -> Request {
    let question = judged.question.as_ref().expect("a question");
    let approval = Approved {
        gate_id: "g".to_owned(),
        by: "ann".to_owned(),
        at: "2026-11-28T12:00:00Z".to_owned(),
        subject: question.subject.clone(),
        waived: false,
    };
    Request { approvals: vec![approval], ..request.clone() }
}

/// The codes of what the evidence does not prove.
pub fn doubts(evidence: &Evidence) -> Vec<&str> {
    evidence.not_proved.iter().map(|doubt| doubt.code.as_str()).collect()
}

/// The kinds of the weakenings in the evidence, with their paths.
pub fn weakenings(evidence: &Evidence) -> Vec<(&str, &str)> {
    let listed = evidence.integrity.iter().flat_map(|integrity| &integrity.listed);
    listed.map(|weakening| (weakening.kind.as_str(), weakening.path.as_str())).collect()
}

pub fn passed(code: &str) -> (Verdict, String) {
    (Verdict::Passed, code.to_owned())
}

pub fn failed(code: &str) -> (Verdict, String) {
    (Verdict::Failed, code.to_owned())
}
