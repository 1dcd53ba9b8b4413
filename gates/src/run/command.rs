//! One run of a command in the sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nofx_sandbox as sandbox;

use super::bundle::Bundle;
use super::collect::{Folders, collect, remove_old};
use super::convert::{add, exit_of, left, report_path_error, shown};
use super::settings::RunnerSettings;
use super::spec::{CommandRun, CommandSpec, CompanionSpec, Job, ReportFile, ReportPath, Variant, millis};
use crate::attempt::{Attempt, passable_folder, private_folder};
use crate::dependencies::{self, Attached, Installed};
use crate::finding::ExamineError;

/// The variable that names the folder for reports.
const REPORTS_VARIABLE: &str = "NOFX_REPORTS";
/// How much of a command's output is kept as a file.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// One run of the command in one variant.
pub struct Run<'a> {
    pub settings: &'a RunnerSettings,
    /// What commands may read of the system.
    pub tools: &'a sandbox::Toolchain,
    pub job: &'a Job,
    pub variant: &'a Variant,
    pub index: usize,
    pub workspace: PathBuf,
    pub attempt: &'a Attempt,
    pub project: Option<&'a Project>,
}

/// A project of the workspace with its dependencies.
pub struct Project {
    /// Relative to the workspace.
    pub folder: PathBuf,
    pub installed: Installed,
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
    /// Runs the command and collects its reports.
    pub async fn run(self, deadline: Instant, bundle: &mut Bundle) -> Result<(), ExamineError> {
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
        let finished = sandbox::run(&command).await?;
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

    fn private_folders(&self) -> Result<Private, ExamineError> {
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
        let settings = self.settings;
        let environment = self.environment(spec, private, attached);
        let filled = |text: &String| text.replace("$NOFX_REPORTS", &private.reports.to_string_lossy());
        let argv = spec.argv.iter().map(filled).collect();
        let mut command = sandbox::Command::new(argv, self.workspace.join(&spec.directory));
        command.companions = spec.companions.iter().map(|stub| self.companion(stub, &environment)).collect();
        command.environment = environment;
        command.timeout = timeout;
        command.read_only.clone_from(&self.tools.read_only);
        command.hidden.clone_from(&self.tools.hidden);
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
        let toolchain = self.tools;
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

    fn reports(&self, private: &Private, prefix: &str, bundle: &mut Bundle) -> Result<Vec<ReportFile>, ExamineError> {
        let collected = collect(&self.job.command.reports, self.folders(private), prefix, bundle);
        collected.map_err(|error| report_path_error(&error).into())
    }

    /// Deletes the workspace, because the next variant must not find anything of it. An error here is found by the
    /// deletion of the attempt.
    fn wipe(&self) {
        let _ = crate::attempt::remove(&self.workspace);
    }
}

fn read_log(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
