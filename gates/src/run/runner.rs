//! Runs a job: install the dependencies, then for each variant unpack the workspace, run the command in a sandbox and
//! collect its reports.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nofx_sandbox as sandbox;
use serde_json::Value;
use shared::domain::digest::sha256_hex;

use super::bundle::Bundle;
use super::collect::{Folders, collect, remove_old};
use super::spec::{
    CommandRun, CommandSpec, CompanionSpec, Exit, Found, InstallResult, Job, Limit, Output, ReportFile, ReportPath,
    Stopped, Variant, millis,
};
use crate::attempt::{Attempt, CancelOnDrop, passable_folder, private_folder};
use crate::blocking::spawn_blocking;
use crate::dependencies::{self, Attached, InstallError, InstallRequest, InstallSettings, Installed, Installer, Place};
use crate::finding::{ExamineError, InfraError, Reason};
use crate::process;
use crate::snapshot::Snapshot;
use crate::unpack::{Limits, WorkspaceError, unpack};

/// The variable that names the folder for reports.
const REPORTS_VARIABLE: &str = "NOFX_REPORTS";
/// How much of a command's output is kept as a file.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
const LAUNCHER_DIED: &str = "launcher_died";

/// Whether the process that ran this job must end now, because nobody knows whether something of the command still runs.
pub fn must_end(bundle: &Bundle) -> bool {
    bundle.result.stopped.as_ref().is_some_and(|stopped| stopped.code == LAUNCHER_DIED)
}

/// Time that is left for collecting and packing.
const RESERVE: Duration = Duration::from_secs(5);

/// A runner's settings.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// Holds attempts, kept installations and download caches, and nothing else.
    pub work_dir: PathBuf,
    /// PATH of every command: where toolchains are found.
    pub search_path: String,
    /// npm's user settings, for installing only. No command of a workspace can read them.
    pub npm_user_config: Option<PathBuf>,
    pub unpack: Limits,
    pub limits: sandbox::Limits,
    /// What to use of the host at most. Tests use it to force a weaker sandbox.
    pub at_most: Option<sandbox::Host>,
}

impl RunnerSettings {
    /// The defaults, with this work folder.
    pub fn new(work_dir: PathBuf) -> Self {
        Self {
            // Absolute, because commands run in other folders than this process.
            work_dir: std::path::absolute(&work_dir).unwrap_or(work_dir),
            search_path: "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin:/var/lang/bin:/opt/bin".to_owned(),
            npm_user_config: None,
            unpack: Limits::default(),
            limits: sandbox::Limits::default(),
            at_most: None,
        }
    }

    /// Where and how dependencies are installed.
    pub(crate) fn installs(&self) -> InstallSettings {
        let toolchain = sandbox::toolchain(OsStr::new(&self.search_path));
        InstallSettings {
            store: self.work_dir.join("installs"),
            caches: self.work_dir.join("caches"),
            search_path: toolchain.search_path.to_string_lossy().into_owned(),
            environment: toolchain
                .environment
                .into_iter()
                .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
                .collect(),
            npm_user_config: self.npm_user_config.clone(),
            pip_config: None,
            timeout: Duration::from_mins(5),
            max_installs: 8,
        }
    }

    /// Also searches the folders of this PATH that hold a toolchain, because version managers install them in unusual
    /// places. The rest of this PATH is ignored.
    pub fn add_toolchains_of(&mut self, search_path: &str) {
        const PROGRAMS: [&str; 5] = ["node", "python3", "cargo", "go", "git"];
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in std::env::split_paths(search_path).filter(|folder| folder.is_absolute()) {
            let is_new = !folders.contains(&folder);
            if is_new && PROGRAMS.iter().any(|program| folder.join(program).is_file()) {
                folders.push(folder);
            }
        }
        for folder in std::env::split_paths(&self.search_path) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        if let Some(joined) = std::env::join_paths(folders).ok().and_then(|joined| joined.into_string().ok()) {
            self.search_path = joined;
        }
    }
}

/// Runs jobs, one after the other or concurrently.
#[derive(Debug)]
pub struct Executor {
    settings: RunnerSettings,
    installer: Installer,
    /// What commands may read of the system.
    toolchain: sandbox::Toolchain,
}

/// Why a job stops before its end.
#[derive(Debug)]
enum Stop {
    /// The workspace is at fault.
    Refused(Reason),
    Infra(InfraError),
}

impl From<ExamineError> for Stop {
    fn from(error: ExamineError) -> Self {
        match error {
            ExamineError::GateFailed(reason) => Self::Refused(reason),
            ExamineError::Infra(error) => Self::Infra(error),
        }
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Infra(error.into())
    }
}

impl Executor {
    pub fn new(settings: RunnerSettings) -> Self {
        let installer = Installer::new(settings.installs());
        let toolchain = sandbox::toolchain(OsStr::new(&settings.search_path));
        Self { settings, installer, toolchain }
    }

    /// Runs a job. Whatever happens is in the bundle.
    pub async fn execute(&self, job: &Job, archive: Arc<Vec<u8>>) -> Bundle {
        let mut bundle = Bundle::default();
        env!("CARGO_PKG_VERSION").clone_into(&mut bundle.result.runner);
        if let Err(stop) = self.run(job, archive, &mut bundle).await {
            let (code, message, retryable) = match stop {
                Stop::Refused(reason) => (reason.code, reason.message, false),
                Stop::Infra(error) => (error.code, error.message, true),
            };
            bundle.result.stopped = Some(Stopped { code: code.to_owned(), message, retryable });
        }
        bundle
    }

    async fn run(&self, job: &Job, archive: Arc<Vec<u8>>, bundle: &mut Bundle) -> Result<(), Stop> {
        if job.is_probe() {
            return self.probe(job, bundle).await;
        }
        let deadline = Instant::now() + Duration::from_millis(job.timeout_ms).saturating_sub(RESERVE);
        // The first look at the host builds a sandbox, which takes tens of milliseconds. Meanwhile the disk is busy.
        spawn_blocking(sandbox::host);
        let work_dir = self.settings.work_dir.clone();
        let attempt = spawn_blocking(move || Attempt::begin(&work_dir)).await.map_err(infra)??;
        let attempt = Arc::new(attempt);
        let cancel_on_drop = CancelOnDrop(Arc::clone(&attempt));
        let result = self.run_variants(job, &archive, &attempt, deadline, bundle).await;
        drop(cancel_on_drop);
        // Deleting thousands of files blocks, so use another thread.
        let _ = spawn_blocking(move || drop(attempt)).await;
        result
    }

    /// Says what the job would run with.
    async fn probe(&self, job: &Job, bundle: &mut Bundle) -> Result<(), Stop> {
        spawn_blocking(sandbox::host).await.map_err(infra)?;
        self.host().level().name().clone_into(&mut bundle.result.sandbox);
        if let Some(toolchain) = self.toolchain(job).await? {
            bundle.result.toolchain.extend(toolchain.versions.clone());
        }
        Ok(())
    }

    async fn toolchain(&self, job: &Job) -> Result<Option<&dependencies::Toolchain>, Stop> {
        let Some(ecosystem) = job.ecosystem else { return Ok(None) };
        self.installer.toolchain(ecosystem).await.map(Some).map_err(stop_of)
    }

    /// What the sandbox may use of the host.
    fn host(&self) -> &sandbox::Host {
        self.settings.at_most.as_ref().unwrap_or_else(|| sandbox::host())
    }

    async fn run_variants(
        &self,
        job: &Job,
        archive: &Arc<Vec<u8>>,
        attempt: &Arc<Attempt>,
        deadline: Instant,
        bundle: &mut Bundle,
    ) -> Result<(), Stop> {
        let mut project = None;
        for (index, variant) in job.variants.iter().enumerate() {
            let started = Instant::now();
            let workspace = attempt.variant(index);
            let unpacked = self.unpack(archive, &workspace, &variant.edits, attempt);
            // The programs say their versions at the same time. An error is one of the installation.
            let (unpacked, _) = tokio::join!(unpacked, self.toolchain(job));
            unpacked?;
            add(&mut bundle.result.timings_ms, "unpack", started.elapsed());
            if job.audit {
                return self.audit(job, &workspace, attempt, deadline, bundle).await;
            }
            if index == 0 {
                project = self.install(job, &workspace, attempt, deadline, bundle).await?;
            }
            let run = Run { executor: self, job, variant, index, workspace, attempt, project: project.as_ref() };
            run.command(deadline, bundle).await?;
        }
        Ok(())
    }

    async fn unpack(
        &self,
        archive: &Arc<Vec<u8>>,
        to: &Path,
        edits: &BTreeMap<String, String>,
        attempt: &Arc<Attempt>,
    ) -> Result<(), Stop> {
        let (archive, to, attempt, limits) =
            (Arc::clone(archive), to.to_path_buf(), Arc::clone(attempt), self.settings.unpack);
        let edits = edits.clone();
        let unpacked = spawn_blocking(move || -> Result<(), Stop> {
            private_folder(&to)?;
            unpack(&archive, &to, limits, &|| attempt.check_cancelled()).map_err(|error| match error {
                WorkspaceError::Archive(message) => Stop::from(Reason::new("archive_refused", message)),
                WorkspaceError::Workspace(reason) => reason.into(),
                WorkspaceError::Io(error) => error.into(),
            })?;
            for (path, text) in edits {
                fs::write(to.join(path), text)?;
            }
            Ok(())
        });
        unpacked.await.map_err(infra)?
    }

    /// Installs the dependencies of the workspace, before any of its code runs.
    async fn install(
        &self,
        job: &Job,
        workspace: &Path,
        attempt: &Arc<Attempt>,
        deadline: Instant,
        bundle: &mut Bundle,
    ) -> Result<Option<Project>, Stop> {
        let Some(ecosystem) = job.ecosystem else { return Ok(None) };
        let started = Instant::now();
        let toolchain = self.installer.toolchain(ecosystem).await.map_err(stop_of)?;
        bundle.result.toolchain.extend(toolchain.versions.clone());
        // A repository with several projects may have none at its root.
        let mut planned = None;
        for folder in [PathBuf::new(), PathBuf::from(&job.command.directory)] {
            let snapshot = Snapshot::take(&workspace.join(&folder))?;
            if let Some(plan) = dependencies::plan(&snapshot, ecosystem, self.installer.registries())? {
                planned = Some((plan, folder));
                break;
            }
        }
        let Some((plan, folder)) = planned else { return Ok(None) };
        // Tested code can write to whatever its own uid can, unless the sandbox forbids it.
        let place =
            if protects_files(self.host()) { Place::Store } else { Place::Folder(attempt.temporary().join("install")) };
        let request =
            InstallRequest { tenant: job.tenant.clone(), tag: attempt.id.clone(), timeout: left(deadline), place };
        let installed = self.installer.install(&plan, request).await.map_err(stop_of)?;
        bundle.result.install = Some(InstallResult {
            ecosystem,
            how: if installed.stored { "stored" } else { "fresh" }.to_owned(),
            ms: millis(installed.took),
        });
        add(&mut bundle.result.timings_ms, "install", started.elapsed());
        Ok(Some(Project { folder, installed }))
    }
}

impl Executor {
    /// Asks for known vulnerabilities. The report is what the auditor prints.
    async fn audit(
        &self,
        job: &Job,
        workspace: &Path,
        attempt: &Arc<Attempt>,
        deadline: Instant,
        bundle: &mut Bundle,
    ) -> Result<(), Stop> {
        let started = Instant::now();
        let nothing = || Reason::new("nothing_checked", "the workspace has no locked dependencies to audit");
        let ecosystem = job.ecosystem.ok_or_else(nothing)?;
        let toolchain = self.installer.toolchain(ecosystem).await.map_err(stop_of)?;
        bundle.result.toolchain.extend(toolchain.versions.clone());
        let snapshot = Snapshot::take(workspace)?;
        let plan = dependencies::plan(&snapshot, ecosystem, self.installer.registries())?.ok_or_else(nothing)?;
        let folder = attempt.temporary().join("audit");
        let request = InstallRequest {
            tenant: job.tenant.clone(),
            tag: attempt.id.clone(),
            timeout: left(deadline),
            place: Place::Folder(folder.clone()),
        };
        let audited = self.installer.audit(&plan, &folder, &request).await.map_err(stop_of)?;
        let entry = bundle.add("audit/stdout".to_owned(), audited.report);
        bundle.result.runs.push(CommandRun {
            variant: String::new(),
            root: workspace.to_string_lossy().into_owned(),
            exit: match audited.exit {
                process::Exit::Code(code) => Exit::Code(code),
                process::Exit::Signal(signal) => Exit::Signal(signal),
                process::Exit::TimedOut => Exit::TimedOut,
            },
            ms: millis(started.elapsed()),
            output: Output {
                bytes: audited.errors.len() as u64,
                sha256: sha256_hex(audited.errors.as_bytes()),
                head: None,
                tail: audited.errors,
                entry: None,
            },
            reports: vec![ReportFile { report: 0, path: "stdout".to_owned(), found: Found::File { entry } }],
            sandbox: Value::Null,
        });
        Ok(())
    }
}

/// One run of the command in one variant.
struct Run<'a> {
    executor: &'a Executor,
    job: &'a Job,
    variant: &'a Variant,
    index: usize,
    workspace: PathBuf,
    attempt: &'a Arc<Attempt>,
    project: Option<&'a Project>,
}

/// A project of the workspace with its dependencies.
struct Project {
    /// Relative to the workspace.
    folder: PathBuf,
    installed: Installed,
}

/// The folders of one run besides the workspace. All are new.
struct Private {
    home: PathBuf,
    temporary: PathBuf,
    reports: PathBuf,
    /// Outside of what the command can write.
    log: PathBuf,
    stdout: PathBuf,
    /// Written before the command starts.
    started: PathBuf,
}

impl Run<'_> {
    async fn command(self, deadline: Instant, bundle: &mut Bundle) -> Result<(), Stop> {
        let spec = &self.job.command;
        let private = self.private_folders()?;
        let folders = self.folders(&private);
        remove_old(&spec.reports, folders).map_err(|error| report_path_error(&error))?;
        // npm takes options of node, a shell and more from it. Not all can be pinned: npm ignores empty variables.
        let npm_settings = ReportPath::Workspace("**/.npmrc".to_owned());
        remove_old(&[npm_settings], folders).map_err(|error| report_path_error(&error))?;
        let started = Instant::now();
        let attached = match self.project {
            Some(project) => dependencies::attach(&project.installed, &self.workspace.join(&project.folder))?,
            None => Attached::default(),
        };
        add(&mut bundle.result.timings_ms, "attach", started.elapsed());
        let timeout = Duration::from_millis(spec.timeout_ms).min(left(deadline));
        let command = self.sandboxed(spec, &private, &attached, timeout);
        let started = Instant::now();
        let finished = sandbox::run(&command).await.map_err(|error| sandbox_error(&error))?;
        add(&mut bundle.result.timings_ms, "run", finished.duration);
        add(&mut bundle.result.timings_ms, "sandbox", started.elapsed().saturating_sub(finished.duration));
        let prefix = format!("runs/{}", self.index);
        let reports = self.reports(&private, &prefix, bundle)?;
        let entry = read_log(&private.log)?.map(|log| bundle.add(format!("{prefix}/log"), log));
        bundle.result.runs.push(CommandRun {
            variant: self.variant.name.clone(),
            root: self.workspace.to_string_lossy().into_owned(),
            exit: exit_of(finished.exit)?,
            ms: millis(finished.duration),
            output: shown(finished.output, &self.workspace, entry),
            reports,
            sandbox: serde_json::to_value(&finished.report).unwrap_or_default(),
        });
        let started = Instant::now();
        self.wipe();
        add(&mut bundle.result.timings_ms, "delete", started.elapsed());
        Ok(())
    }

    fn private_folders(&self) -> Result<Private, Stop> {
        let root = self.attempt.temporary().join(format!("run-{}", self.index));
        let own = self.attempt.temporary().join(format!("own-{}", self.index));
        passable_folder(&root)?;
        for folder in ["home", "tmp", "reports"].map(|name| root.join(name)).iter().chain([&own]) {
            private_folder(folder)?;
        }
        fs::write(own.join("started"), "")?;
        Ok(Private {
            started: own.join("started"),
            home: root.join("home"),
            temporary: root.join("tmp"),
            reports: root.join("reports"),
            log: own.join("log"),
            stdout: own.join("stdout"),
        })
    }

    fn sandboxed(
        &self,
        spec: &CommandSpec,
        private: &Private,
        attached: &Attached,
        timeout: Duration,
    ) -> sandbox::Command {
        let settings = &self.executor.settings;
        let environment = self.environment(spec, private, attached);
        let filled = |text: &String| text.replace("$NOFX_REPORTS", &private.reports.to_string_lossy());
        let argv = spec.argv.iter().map(filled).collect();
        let mut command = sandbox::Command::new(argv, self.workspace.join(&spec.directory));
        command.companions = spec.companions.iter().map(|stub| self.companion(stub, &environment)).collect();
        command.environment = environment;
        command.timeout = timeout;
        command.read_only.clone_from(&self.executor.toolchain.read_only);
        command.hidden.clone_from(&self.executor.toolchain.hidden);
        command.read_only.extend(attached.read_only.iter().cloned());
        command.writable =
            vec![self.workspace.clone(), private.home.clone(), private.temporary.clone(), private.reports.clone()];
        command.network = if spec.network { sandbox::Network::Open } else { sandbox::Network::None };
        command.limits = settings.limits.clone();
        command.output.file_bytes = MAX_LOG_BYTES;
        command.log = Some(private.log.clone());
        if spec.reports.contains(&ReportPath::Stdout) {
            command.stdout = Some(private.stdout.clone());
            command.output.file_bytes = MAX_LOG_BYTES * 4;
        }
        command.minimum = spec.minimum_sandbox;
        command.at_most.clone_from(&settings.at_most);
        command
    }

    /// The complete environment. It has no credentials, no endpoints and no user settings.
    fn environment(&self, spec: &CommandSpec, private: &Private, attached: &Attached) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let toolchain = &self.executor.toolchain;
        let mut folders: Vec<String> = attached.path.iter().map(|path| text(path)).collect();
        folders.push(toolchain.search_path.to_string_lossy().into_owned());
        let path = folders.join(":");
        let mut environment: BTreeMap<String, String> = [
            ("PATH", path),
            ("HOME", text(&private.home)),
            ("TMPDIR", text(&private.temporary)),
            ("LANG", "C.UTF-8".into()),
            ("CI", "1".into()),
            ("NO_COLOR", "1".into()),
            (REPORTS_VARIABLE, text(&private.reports)),
            ("npm_config_cache", text(&private.home.join("npm"))),
            ("npm_config_update_notifier", "false".into()),
            ("npm_config_logs_max", "0".into()),
            // A `.npmrc` of the workspace cannot change how scripts start.
            ("npm_config_script_shell", "/bin/sh".into()),
            ("npm_config_git", "/bin/false".into()),
            ("npm_config_ignore_scripts", "false".into()),
            ("npm_config_userconfig", "/dev/null".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let own = toolchain.environment.iter();
        environment.extend(own.map(|(name, value)| (name.clone(), value.to_string_lossy().into_owned())));
        environment.extend(attached.environment.iter().cloned());
        let filled = |text: &String| text.replace("$NOFX_REPORTS", &private.reports.to_string_lossy());
        environment.extend(spec.environment.iter().map(|(name, value)| (name.clone(), filled(value))));
        environment.into_iter().collect()
    }

    fn companion(&self, stub: &CompanionSpec, environment: &[(String, String)]) -> sandbox::Companion {
        let own = stub.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        sandbox::Companion {
            name: stub.name.clone(),
            argv: stub.argv.clone(),
            current_dir: self.workspace.join(&stub.directory),
            environment: environment.iter().cloned().chain(own).collect(),
            port_variable: stub.port_variable.clone(),
            health: match &stub.health_path {
                Some(path) => sandbox::Health::Http { path: path.clone() },
                None => sandbox::Health::Tcp,
            },
            start_timeout: Duration::from_millis(stub.start_timeout_ms),
        }
    }

    fn folders<'a>(&'a self, private: &'a Private) -> Folders<'a> {
        let Private { reports, stdout, started, .. } = private;
        Folders { fresh: reports, workspace: &self.workspace, stdout, started }
    }

    fn reports(&self, private: &Private, prefix: &str, bundle: &mut Bundle) -> Result<Vec<ReportFile>, Stop> {
        let collected = collect(&self.job.command.reports, self.folders(private), prefix, bundle);
        collected.map_err(|error| report_path_error(&error).into())
    }

    /// Deletes the workspace, because the next variant must not find anything of it. An error here is found by the
    /// deletion of the attempt.
    fn wipe(&self) {
        let _ = crate::attempt::remove(&self.workspace);
    }
}

/// Paths in the workspace are shown relative to it.
fn shown(output: sandbox::Output, workspace: &Path, entry: Option<String>) -> Output {
    let folder = format!("{}/", workspace.display());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&folder, "");
    let (head, tail) = match output.omitted_bytes() {
        0 => (None, text(&[output.head, output.tail].concat())),
        _ => (Some(text(&output.head)), text(&output.tail)),
    };
    Output { bytes: output.bytes, sha256: output.sha256, head, tail, entry }
}

fn read_log(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether tested code can be kept from writing to files that its own uid owns.
fn protects_files(host: &sandbox::Host) -> bool {
    host.own_uid || host.level() > sandbox::Level::Limits
}

fn exit_of(exit: sandbox::Exit) -> Result<Exit, Stop> {
    Ok(match exit {
        sandbox::Exit::Code(code) => Exit::Code(code),
        sandbox::Exit::Signal(signal) => Exit::Signal(signal),
        sandbox::Exit::TimedOut => Exit::TimedOut,
        sandbox::Exit::OverLimit(sandbox::Limit::Memory) => Exit::OverLimit(Limit::Memory),
        sandbox::Exit::OverLimit(sandbox::Limit::Disk) => Exit::OverLimit(Limit::Disk),
        sandbox::Exit::CompanionFailed { name, message } => {
            return Err(Reason::new("stub_failed", format!("the stub {name} did not start: {message}")).into());
        }
        sandbox::Exit::NotStarted { message } => {
            return Err(Reason::new("command_not_started", format!("the command cannot start: {message}")).into());
        }
    })
}

fn sandbox_error(error: &sandbox::SandboxError) -> Stop {
    use sandbox::SandboxError as Error;
    match error {
        Error::TooWeak { .. } => Reason::new("sandbox_too_weak", error.to_string()).into(),
        Error::Invalid(_) => Reason::new("command_not_started", error.to_string()).into(),
        // Something of the command may still run. The process must end: see `must_end`.
        Error::LauncherDied(_) | Error::Unkillable(_) => Stop::Infra(InfraError::new(LAUNCHER_DIED, error.to_string())),
        _ => Stop::Infra(InfraError::new("sandbox_failed", error.to_string())),
    }
}

fn report_path_error(error: &std::io::Error) -> Reason {
    Reason::new("report_unreadable", format!("the reports cannot be collected: {error}"))
}

fn stop_of(error: InstallError) -> Stop {
    match error {
        InstallError::Refused(reason, _) => Stop::Refused(reason),
        InstallError::Infra(error) => Stop::Infra(error),
    }
}

fn infra(error: tokio::task::JoinError) -> Stop {
    Stop::Infra(InfraError::task_failed(error))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn add(timings: &mut BTreeMap<String, u64>, phase: &str, took: Duration) {
    *timings.entry(phase.to_owned()).or_default() += millis(took);
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
