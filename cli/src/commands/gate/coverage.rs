//! `nofx gate coverage`: judges the coverage of changed lines, without a stack and without network.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nofx_gates::coverage::{
    Base, ChangeSet, CoverageError, Format, Judgement, Options, Report, SourceRules, Threshold, Tree, Verdict, Wanted,
    diff_paths, judge, read_folder, read_report,
};
use nofx_local::report::print_error;

use super::coverage_report::{json, text};
use super::show::Style;

/// The exit status of a threshold that is not a number from 0 to 1, and of other wrong usage.
const USAGE: u8 = 2;
const CANNOT_JUDGE: u8 = 3;
const FOR_A_REFERENCE: &str = "; for a Git reference use git diff --merge-base REF and --diff -";
const MAX_REPORT_BYTES: u64 = 512 * 1024 * 1024;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit status:
  0  pass
  1  fail
  2  wrong usage
  3  the coverage cannot be judged")]
pub struct Args {
    /// Coverage report that the tests wrote; may be repeated, and hits add up
    #[arg(long = "report", value_name = "FILE", required = true)]
    reports: Vec<PathBuf>,
    /// Unified diff from the base to the folder; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "base")]
    diff: Option<PathBuf>,
    /// Folder with the base; without a base and a diff every line counts as changed
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// The folder with the sources
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Part of the changed lines that must be covered, from 0 to 1
    #[arg(long, value_name = "RATIO", default_value = "0.9", allow_hyphen_values = true)]
    threshold: String,
    /// Part of the changed lines of each file that must be covered, from 0 to 1
    #[arg(long, value_name = "RATIO", allow_hyphen_values = true)]
    file_floor: Option<String>,
    /// Also require every arm of a branch to run
    #[arg(long)]
    strict: bool,
    /// Format of the reports: istanbul, lcov or cobertura; detected by default
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Glob of the sources, relative to the root; may be repeated, and replaces the known extensions
    #[arg(long = "source", value_name = "GLOB")]
    sources: Vec<String>,
    /// Glob of files that need no coverage; may be repeated
    #[arg(long = "ignore", value_name = "GLOB")]
    ignores: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `nofx gate coverage`.
pub fn run(args: &Args) -> ExitCode {
    match judged(args) {
        Ok((judgement, head)) => {
            let code = match judgement.verdict {
                Verdict::Passed => 0,
                Verdict::Failed => 1,
                Verdict::CannotJudge => CANNOT_JUDGE,
            };
            show(args, &judgement, &head, code)
        }
        Err(Stopped::Usage { code, message }) => {
            if args.json {
                let judgement = Judgement::unjudged(CoverageError::new(code, message), Threshold::DEFAULT);
                return show(args, &judgement, &Tree::new(), USAGE);
            }
            print_error(&anyhow::Error::msg(message));
            ExitCode::from(USAGE)
        }
        Err(Stopped::CannotJudge(error, threshold)) => {
            show(args, &Judgement::unjudged(error, threshold), &Tree::new(), CANNOT_JUDGE)
        }
    }
}

enum Stopped {
    Usage { code: &'static str, message: String },
    CannotJudge(CoverageError, Threshold),
}

fn show(args: &Args, judgement: &Judgement, head: &Tree, code: u8) -> ExitCode {
    let stdout = io::stdout();
    let written = if args.json {
        let mut out = io::BufWriter::new(stdout.lock());
        json(&mut out, judgement).and_then(|()| out.flush())
    } else {
        let read = |path: &str| source_text(path, head, &args.root);
        stdout.lock().write_all(text(judgement, Style::of_stdout(), read).as_bytes())
    };
    // Whoever reads the output may have gone. The exit status stays true.
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(CANNOT_JUDGE.max(code)),
        _ => ExitCode::from(code),
    }
}

fn source_text(path: &str, head: &Tree, root: &Path) -> Option<Vec<u8>> {
    match head.get(path) {
        Some(nofx_gates::coverage::Content::Text(text)) => Some(text.clone()),
        Some(_) => None,
        None => fs::read(root.join(path)).ok(),
    }
}

fn judged(args: &Args) -> Result<(Judgement, Tree), Stopped> {
    let threshold = ratio("--threshold", &args.threshold)?;
    let file_floor = args.file_floor.as_deref().map(|floor| ratio("--file-floor", floor)).transpose()?;
    let folder = |what: &str, path: &Path, next: &str| {
        let message = format!("{what} {} is not a folder{next}", path.display());
        path.is_dir().then_some(()).ok_or(Stopped::Usage { code: "usage", message })
    };
    folder("--root", &args.root, "")?;
    args.base.as_deref().map(|base| folder("--base", base, FOR_A_REFERENCE)).transpose()?;
    // Globs are checked before anything is read.
    rules(args, &[])?;
    let cannot = |error: CoverageError| Stopped::CannotJudge(error, threshold);
    let (reports, formats) = read_reports(args).map_err(cannot)?;
    let rules = rules(args, &formats)?;
    let options = Options { threshold, file_floor, strict_arms: args.strict, roots: roots(&args.root) };
    let (changes, head) = changes(args, &rules).map_err(cannot)?;
    Ok((judge(&changes, &reports, &options), head))
}

fn ratio(option: &str, text: &str) -> Result<Threshold, Stopped> {
    let invalid = |error| CoverageError::new("threshold_invalid", format!("{option}: {error}"));
    text.parse().map_err(|error: String| Stopped::CannotJudge(invalid(error), Threshold::DEFAULT))
}

/// Istanbul measures JavaScript alone. The other formats are those of every language.
fn rules(args: &Args, formats: &[Format]) -> Result<SourceRules, Stopped> {
    let every_language = formats.iter().any(|format| *format != Format::Istanbul);
    let rules = if every_language { SourceRules::of_every_language() } else { SourceRules::default() };
    let rules = rules.with_sources(&args.sources).and_then(|rules| rules.with_ignores(&args.ignores));
    rules.map_err(|message| Stopped::Usage { code: "usage", message })
}

fn read_reports(args: &Args) -> Result<(Vec<Report>, Vec<Format>), CoverageError> {
    let mut reports = Vec::new();
    let mut formats = Vec::new();
    for path in &args.reports {
        let named =
            |error: CoverageError| CoverageError::new(error.code, format!("{}: {}", path.display(), error.message));
        let bytes = read_bounded(path).map_err(named)?;
        let (report, format) = read_report(&bytes, args.format).map_err(named)?;
        reports.push(report);
        formats.push(format);
    }
    Ok((reports, formats))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, CoverageError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            CoverageError::new("report_missing", "there is no such file; run the tests with coverage first")
        }
        _ => CoverageError::new("report_unparsable", format!("it cannot be read: {error}")),
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_REPORT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_REPORT_BYTES {
        return Err(CoverageError::new("report_unparsable", format!("it has more than {MAX_REPORT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The root as the tests may have seen it.
fn roots(root: &Path) -> Vec<String> {
    let absolute = std::path::absolute(root).ok();
    let real = fs::canonicalize(root).ok();
    let paths: BTreeSet<PathBuf> = absolute.into_iter().chain(real).collect();
    paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

fn changes(args: &Args, rules: &SourceRules) -> Result<(ChangeSet, Tree), CoverageError> {
    let unreadable =
        |error: io::Error| CoverageError::new("workspace_unreadable", format!("the folder cannot be read: {error}"));
    if let Some(path) = &args.diff {
        let diff = read_diff(path)?;
        let named = diff_paths(&diff)?;
        let head = read_folder(&args.root, |path| if named.contains(path) { Wanted::Text } else { Wanted::Nothing });
        let head = head.map_err(unreadable)?;
        return Ok((ChangeSet::between(Base::Diff(&diff), &head, rules)?, head));
    }
    let wanted = |others| move |path: &str| if rules.may_be_source(path) { Wanted::Text } else { others };
    let Some(base) = &args.base else {
        let head = read_folder(&args.root, wanted(Wanted::Nothing)).map_err(unreadable)?;
        return Ok((ChangeSet::between(Base::None, &head, rules)?, head));
    };
    let base = read_folder(base, wanted(Wanted::Hash)).map_err(unreadable)?;
    let head = read_folder(&args.root, wanted(Wanted::Hash)).map_err(unreadable)?;
    Ok((ChangeSet::between(Base::Tree(&base), &head, rules)?, head))
}

fn read_diff(path: &Path) -> Result<Vec<u8>, CoverageError> {
    let read = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    read.map_err(|error| {
        CoverageError::new("diff_unparsable", format!("the diff {} cannot be read: {error}", path.display()))
    })
}
