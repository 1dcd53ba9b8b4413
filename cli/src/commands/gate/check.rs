//! `nofx gate NAME...`: judges a checkout as the control plane would, without one.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nofx_gates::archive;
use nofx_gates::evidence::{Evidence, GivenBy, Reason, Verdict};
use nofx_gates::judge::{self, Archive, BaseInput, Judged, Request, Settings};
use nofx_gates::run::{Executor, RunnerSettings};
use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Attempt, WorkspaceError};
use nofx_local::process::signals::Signals;
use nofx_local::report::{hint, hinted, print_error};
use serde_json::json;
use shared::config::RunnerConfig;
use shared::domain::policy::GatePolicy;

use super::show;
use crate::client::source_tree::{Base, SourceTree};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CANNOT_JUDGE: u8 = 3;

/// How long one gate may take if its definition allows it.
const LIMIT: Duration = Duration::from_hours(1);

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit status:
  0  every gate passes
  1  a gate fails, or needs a person
  2  wrong usage
  3  a gate cannot be judged")]
pub struct Args {
    /// Gates, such as typecheck, lint, unit or secrets
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Compare with the commit at which HEAD left this Git reference, or with a folder; the base's definition of the
    /// gates counts
    #[arg(long, value_name = "REF|DIR")]
    base: Option<String>,
    /// Judge what is staged, against HEAD unless --base says otherwise
    #[arg(long)]
    staged: bool,
    /// Judge this folder as a project of its own: its files, its nofx.toml, paths from there [default: the whole
    /// repository around the current folder]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Print the evidence as JSON
    #[arg(long)]
    json: bool,
    /// Print annotations for GitHub Actions
    #[arg(long, conflicts_with = "json")]
    github: bool,
}

/// Judges each gate. Returns 0 if all passed, 1 if one failed, 3 if one has no verdict.
pub async fn run(args: &Args) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let judged = tokio::select! {
        judged = judge_all(args) => judged,
        // What was started ends, and the copies of the checkout are deleted.
        signal = signals.next() => return Ok(ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(CANNOT_JUDGE))),
    };
    match judged {
        Ok(judged) => {
            if args.json {
                print_json(judged.iter().map(|judged| &judged.evidence))?;
            }
            Ok(exit_code(&judged))
        }
        Err(unusable) => {
            unusable.print(args)?;
            Ok(ExitCode::from(unusable.status))
        }
    }
}

/// There is nothing to judge, or nothing to compare it with.
struct Unusable {
    code: &'static str,
    status: u8,
    error: anyhow::Error,
}

impl Unusable {
    fn usage(error: anyhow::Error) -> Self {
        Self { code: "usage", status: USAGE, error }
    }

    fn new(code: &'static str) -> impl Fn(anyhow::Error) -> Self {
        move |error| {
            let is_refused =
                |cause: &(dyn Error + 'static)| matches!(cause.downcast_ref(), Some(WorkspaceError::Archive(_)));
            if !error.chain().any(is_refused) {
                return Self { code, status: CANNOT_JUDGE, error };
            }
            // A server refuses the same archive.
            let error = hinted(format!("{error:#}"), "remove it, or let Git ignore it (.gitignore)");
            Self { code: "archive_refused", status: CANNOT_JUDGE, error }
        }
    }

    /// Every gate has evidence, also this one.
    fn print(&self, args: &Args) -> Result<()> {
        let next = hint(&self.error).map(|hint| format!("; {hint}")).unwrap_or_default();
        let reason = Reason { code: self.code.to_owned(), message: format!("{:#}{next}", self.error) };
        if args.json {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().try_into()?;
            let evidence = |name: &String| {
                let mut evidence = Evidence::new(name, reason.clone(), now);
                env!("CARGO_PKG_VERSION").clone_into(&mut evidence.runner.version);
                evidence
            };
            return print_json(&args.names.iter().map(evidence).collect::<Vec<_>>());
        }
        if args.github {
            let problems = args.names.iter().map(|name| show::problem(name, &reason.message));
            print(&problems.collect::<String>())?;
        }
        print_error(&self.error);
        Ok(())
    }
}

/// What to judge, packed as for a server.
struct Packed {
    workspace: Archive,
    base: Option<Archive>,
}

async fn judge_all(args: &Args) -> Result<Vec<Judged>, Unusable> {
    let runner = runner_settings();
    let settings = Settings::new(runner.work_dir.clone());
    // The copies are private, and the next attempt deletes them if this process is killed.
    let attempt = Attempt::begin(&settings.work_dir).context("cannot create a folder");
    let packed = pack_both(args, &attempt.map_err(Unusable::new("work_folder_unavailable"))?, &settings)?;
    let runner = Executor::new(runner);
    let style = show::Style::of_stdout();
    let mut judged = Vec::new();
    for name in &args.names {
        let request = Request {
            gate: name.clone(),
            tenant: "local".to_owned(),
            attempt: None,
            timeout: LIMIT,
            workspace: packed.workspace.clone(),
            base: packed.base.clone().map(BaseInput::Archive),
            base_given_by: if packed.base.is_some() { GivenBy::Caller } else { GivenBy::None },
            base_origin: None,
            policy: GatePolicy::default(),
            approvals: Vec::new(),
            risky: true,
        };
        let one = judge::judge(&request, &settings, &runner).await;
        let shown = match args {
            Args { json: true, .. } => String::new(),
            Args { github: true, .. } => show::github(&one, style),
            _ => show::text(&one, style),
        };
        print(&shown).map_err(Unusable::new("output_failed"))?;
        judged.push(one);
    }
    Ok(judged)
}

fn pack_both(args: &Args, attempt: &Attempt, settings: &Settings) -> Result<Packed, Unusable> {
    let tree = match &args.root {
        Some(root) if !root.is_dir() => {
            return Err(Unusable::usage(anyhow::anyhow!("--root {} is not a folder", root.display())));
        }
        Some(root) => SourceTree::of(root),
        None => SourceTree::around(Path::new(".")),
    };
    let unreadable = Unusable::new("checkout_unusable");
    let tree = tree.map_err(&unreadable)?;
    let reference = match &args.base {
        // The first commit of a repository has no base.
        None => (args.staged && tree.has_commit("HEAD")).then_some("HEAD"),
        Some(base) => Some(base.as_str()),
    };
    let base =
        reference.map(|reference| Ok((reference, tree.base(reference)?))).transpose().map_err(Unusable::usage)?;
    let copy = attempt.workspace();
    let copied = if args.staged { tree.copy_staged(&copy) } else { tree.copy_worktree(&copy) };
    let packed = copied.and_then(|()| pack(&copy, settings));
    let named = packed.with_context(|| format!("{} cannot be judged", tree.root().display()));
    let workspace = named.map_err(&unreadable)?;
    let Some((reference, base)) = base else { return Ok(Packed { workspace, base: None }) };
    let copy = attempt.base();
    let copied = match base {
        Base::Folder(folder) => SourceTree::of(&folder).and_then(|tree| tree.copy_worktree(&copy)),
        Base::Reference => tree.copy_base(reference, &copy),
    };
    let packed = copied.and_then(|()| pack(&copy, settings));
    let base = packed.with_context(|| format!("the base {reference} cannot be used"));
    Ok(Packed { workspace, base: Some(base.map_err(Unusable::new("base_unusable"))?) })
}

fn print_json<'a>(gates: impl IntoIterator<Item = &'a Evidence>) -> Result<()> {
    let gates: Vec<&Evidence> = gates.into_iter().collect();
    print(&format!("{}\n", serde_json::to_string_pretty(&json!({ "gates": gates }))?))
}

/// Whoever reads the output may have gone. The exit status stays true.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the result"),
        _ => Ok(()),
    }
}

/// Installed dependencies and downloads are kept in the work folder of the runner.
fn runner_settings() -> RunnerSettings {
    let config = RunnerConfig::from_env();
    let mut settings = RunnerSettings::new(config.work_dir);
    settings.npm_user_config = config.npm_user_config;
    if let Some(path) = &config.search_path {
        settings.add_toolchains_of(path);
    }
    settings
}

fn pack(folder: &Path, settings: &Settings) -> Result<Archive> {
    let snapshot = Snapshot::take(folder)?;
    Ok(Archive::new(archive::pack(&archive::sources(&snapshot), settings.unpack)?))
}

fn exit_code(judged: &[Judged]) -> ExitCode {
    if judged.iter().any(|judged| judged.lost.is_some()) {
        return ExitCode::from(CANNOT_JUDGE);
    }
    if judged.iter().all(|judged| judged.evidence.verdict == Verdict::Passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}
