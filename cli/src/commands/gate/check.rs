//! `nofx gate NAME...`: judges a checkout as the control plane would, without one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use nofx_gates::archive;
use nofx_gates::evidence::{Evidence, Finding, GivenBy, Severity, Verdict};
use nofx_gates::judge::{self, Archive, BaseInput, Judged, Request, Settings};
use nofx_gates::run::{Executor, RunnerSettings};
use nofx_gates::snapshot::Snapshot;
use nofx_local::report::printable;
use serde_json::json;
use shared::config::RunnerConfig;
use shared::domain::policy::GatePolicy;

use super::show;
use crate::client::source_tree::{SourceTree, copy_folder};

/// Exit codes, besides 2 for wrong usage.
const FAILED: u8 = 1;
const CANNOT_JUDGE: u8 = 3;

/// How long one gate may take if its definition allows it.
const LIMIT: Duration = Duration::from_hours(1);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Gates, such as typecheck, lint, unit or secrets
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Compare with this Git reference or folder; its definition of the gates counts
    #[arg(long, value_name = "REF|DIR")]
    base: Option<String>,
    /// Judge what is staged, against HEAD unless --base says otherwise
    #[arg(long)]
    staged: bool,
    /// The checkout [default: the repository around the current folder]
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
    let root = match &args.root {
        Some(root) => root.clone(),
        None => std::env::current_dir().context("cannot read the current folder")?,
    };
    let tree = SourceTree::around(&root)?;
    let place = tempfile::Builder::new().prefix("nofx-gate-").tempdir().context("cannot create a folder")?;
    let workspace = place.path().join("workspace");
    if args.staged {
        tree.copy_staged(&workspace)?;
    } else {
        tree.copy_worktree(&workspace)?;
    }
    let base_folder = place.path().join("base");
    let reference = args.base.as_deref().or(if args.staged { Some("HEAD") } else { None });
    if let Some(reference) = reference {
        let folder = PathBuf::from(reference);
        if folder.is_dir() {
            copy_folder(&folder, &base_folder)?;
        } else {
            tree.copy_commit(reference, &base_folder)?;
        }
    }
    let settings = Settings::new(place.path().join("judge"));
    let runner = Executor::new(runner_settings());
    let workspace = pack(&workspace, &settings).context("the checkout cannot be judged")?;
    let base = match reference {
        Some(_) => Some(pack(&base_folder, &settings).context("the base cannot be used")?),
        None => None,
    };
    let mut judged = Vec::new();
    for name in &args.names {
        let request = Request {
            gate: name.clone(),
            tenant: "local".to_owned(),
            attempt: None,
            timeout: LIMIT,
            workspace: workspace.clone(),
            base: base.clone().map(BaseInput::Archive),
            base_given_by: if base.is_some() { GivenBy::Caller } else { GivenBy::None },
            base_origin: None,
            policy: GatePolicy::default(),
            approvals: Vec::new(),
            risky: true,
        };
        let one = judge::judge(&request, &settings, &runner).await;
        if !args.json {
            print(&one, &tree, args.github);
        }
        judged.push(one);
    }
    if args.json {
        let gates: Vec<&Evidence> = judged.iter().map(|judged| &judged.evidence).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "gates": gates }))?);
    }
    Ok(exit_code(&judged))
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

fn pack(folder: &std::path::Path, settings: &Settings) -> Result<Archive> {
    let snapshot = Snapshot::take(folder).with_context(|| format!("cannot read {}", folder.display()))?;
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

fn print(judged: &Judged, tree: &SourceTree, github: bool) {
    let evidence = &judged.evidence;
    let style = show::Style::of_stdout();
    let verdict = match (evidence.verdict, &judged.lost) {
        (_, Some(_)) => style.paint("33", "cannot judge"),
        (Verdict::Passed, None) => style.paint("32", "passed"),
        (Verdict::Failed, None) => style.paint("31", "failed"),
        (Verdict::Blocked, None) => style.paint("33", "needs a person"),
    };
    let message = evidence.reason.message.lines().map(printable).collect::<Vec<_>>().join("\n  ");
    println!("{} {verdict}: {message}", style.paint("1", &printable(&evidence.gate)));
    let listed = &evidence.findings.list;
    for finding in &listed.listed {
        if github {
            println!("{}", annotation(finding));
        }
    }
    if evidence.verdict == Verdict::Passed {
        return;
    }
    if github && evidence.findings.list.total == 0 {
        println!("::error title={}::{}", evidence.gate, escaped(&evidence.reason.message));
    }
    for weakening in evidence.integrity.iter().flat_map(|integrity| &integrity.listed) {
        println!("  {}: {}", printable(&weakening.path), printable(&weakening.message));
        if let Some(difference) = &weakening.difference {
            println!("{}", show::indented(difference));
        }
    }
    let uncovered = uncovered(evidence);
    let findings = listed.listed.iter().filter_map(|finding| Some((finding.file.clone(), finding.line?)));
    for (file, line) in uncovered.into_iter().chain(findings).take(show::MAX_CONTEXTS) {
        show::source_context(tree.root(), &file, line, style);
    }
    if let Some(next) = next_step(evidence) {
        println!("  {next}");
    }
}

/// The uncovered and unmeasured lines.
fn uncovered(evidence: &Evidence) -> Vec<(String, u32)> {
    let files = evidence.coverage.as_ref().and_then(|coverage| coverage["files"].as_array());
    let mut found = Vec::new();
    for file in files.into_iter().flatten() {
        let path = file["path"].as_str().unwrap_or_default();
        let lines =
            ["uncovered_lines", "unmeasured_lines"].into_iter().filter_map(|key| file[key].as_array()).flatten();
        found.extend(lines.filter_map(|line| Some((path.to_owned(), u32::try_from(line.as_u64()?).ok()?))));
    }
    found.sort();
    found
}

fn next_step(evidence: &Evidence) -> Option<&'static str> {
    Some(match evidence.reason.code.as_str() {
        "below_threshold" => "Next: write tests that run these lines.",
        "checks_weakened" => "Next: undo this part, or have a person approve it in a run of the control plane.",
        "no_lockfile" => "Next: commit a lockfile.",
        "sandbox_too_weak" => "Next: run it on a host with user namespaces, or install bubblewrap.",
        _ => return None,
    })
}

/// A workflow command (GitHub Actions, "Workflow commands").
fn annotation(finding: &Finding) -> String {
    let kind = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let place = match finding.line {
        Some(line) => format!(" file={},line={line}", property(&finding.file)),
        None if finding.file.is_empty() => String::new(),
        None => format!(" file={}", property(&finding.file)),
    };
    format!("::{kind}{place}::{}", escaped(&finding.message))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}
