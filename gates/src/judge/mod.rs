//! Judges one gate: reads the workspace and its base, has the command run elsewhere, and decides from what comes back.
//! It fails closed: whatever is missing, unreadable or in doubt is no pass.
//!
//! No code of the workspace runs in this process. A gate's way: `subject` unpacks both trees, `base` records them and says
//! whether the policy trusts the base, `effective` decides whose definition counts, and `weakening` asks a person if the
//! change weakens its own checks. `job` makes a job of the definition and of the `terms` of policy and plan, `runs` has a
//! runner do it, `conclude` reads what came back, with the `changes` whose coverage counts, and `tests_of_base` says
//! whether tests are gone. `reuse` repeats an earlier verdict instead. `built_in` has the gates that need no command of the
//! workspace. `case` is the evidence in progress, and `stop` why a gate ends without passing.

mod base;
mod built_in;
mod case;
mod changes;
mod conclude;
mod context;
mod effective;
mod engine;
mod job;
mod request;
mod reuse;
mod runs;
mod stop;
mod subject;
mod terms;
mod tests_of_base;
mod text;
mod weakening;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::case::{Case, now_ms};
use self::effective::no_such_gate;
use self::job::job;
use self::stop::Stop;
use self::subject::{Subject, prepare};
use self::terms::time_to_judge;
use self::text::shown;
use crate::attempt::{Attempt, CancelOnDrop};
use crate::blocking::spawn_blocking;
use crate::definition::{Definition, GateDefinition, Kind};
use crate::evidence::{self, DoubtCode, Verdict};
use crate::finding::{InfraError, Reason};
use crate::unpack::Limits;

pub use request::{
    Approved, Archive, BaseInput, Earlier, Judged, NewAttachment, Question, Request, Runner, RunnerLost,
};

/// A judge's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds only the folders of attempts.
    pub work_dir: PathBuf,
    pub unpack: Limits,
}

impl Settings {
    /// The defaults, with this work folder.
    pub fn new(work_dir: PathBuf) -> Self {
        Self { work_dir, unpack: Limits::default() }
    }
}

/// Judges a gate. There is always evidence, also if the runner is lost.
pub async fn judge<R: Runner>(request: &Request, settings: &Settings, runner: &R) -> Judged {
    let mut case = Case::new(request);
    // The future is large, and callers keep it in theirs.
    let ended = Box::pin(judge_in_folder(request, settings, runner, &mut case)).await;
    let (mut question, mut lost) = (None, None);
    let (verdict, reason) = match ended {
        Ok(reason) => (Verdict::Passed, reason),
        Err(Stop::Failed(reason)) => (Verdict::Failed, reason),
        Err(Stop::Ask(asked)) => {
            let reason = Reason::new("checks_weakened", asked.text.clone());
            question = Some(Question { text: shown(&asked.text), ..asked });
            (Verdict::Blocked, reason)
        }
        Err(Stop::Infra(error)) => {
            let reason = Reason::new(error.code, error.message.clone());
            lost = Some(InfraError { message: shown(&error.message), ..error });
            (Verdict::Failed, reason)
        }
    };
    let Case { mut evidence, attachments, reusable_by, repeated } = case;
    evidence.verdict = verdict;
    let own = || evidence::Reason { code: reason.code.to_owned(), message: shown(&reason.message) };
    evidence.reason = repeated.unwrap_or_else(own);
    evidence.finished_at_ms = now_ms();
    let reuse_key = reusable_by.and_then(|engine| reuse::reuse_key(&evidence, request, engine));
    Judged { evidence, attachments, question, reuse_key, lost }
}

async fn judge_in_folder<R: Runner>(
    request: &Request,
    settings: &Settings,
    runner: &R,
    case: &mut Case,
) -> Result<Reason, Stop> {
    let deadline = Instant::now() + time_to_judge(request.timeout, request.policy.max_timeout_s);
    let work_dir = settings.work_dir.clone();
    let attempt = spawn_blocking(move || Attempt::begin(&work_dir)).await.map_err(InfraError::task_failed)?;
    let attempt = Arc::new(attempt.map_err(InfraError::from)?);
    let cancel_on_drop = CancelOnDrop(Arc::clone(&attempt));
    let started = Instant::now();
    let prepared = prepare(request.workspace.clone(), request.base.clone(), settings.unpack, &attempt).await;
    case.took("unpack", started);
    let result = match prepared {
        Ok(subject) => {
            let work = Work { request, runner, subject: Arc::new(subject), deadline };
            work.judge(case).await
        }
        Err(error) => Err(error.into()),
    };
    drop(cancel_on_drop);
    // Deleting thousands of files blocks, so use another thread.
    let _ = spawn_blocking(move || drop(attempt)).await;
    result
}

/// One gate with its trees unpacked.
struct Work<'a, R> {
    request: &'a Request,
    runner: &'a R,
    subject: Arc<Subject>,
    deadline: Instant,
}

impl<R: Runner> Work<'_, R> {
    async fn judge(&self, case: &mut Case) -> Result<Reason, Stop> {
        self.record_subject(case);
        self.check_base(case)?;
        let started = Instant::now();
        let effective = self.definition(case).await?;
        case.took("compare", started);
        let gate =
            effective.definition.gate(&self.request.gate).map_err(|error| no_such_gate(&error, effective.source))?;
        self.record_definition(gate, &effective, case);
        self.check_terms(gate)?;
        let result = match gate.kind {
            // The lines that it finds hold credentials, so evidence must not repeat them.
            Kind::Secrets => return built_in::secrets(self, gate, case).await,
            Kind::Mutants => built_in::mutants(self, &effective.definition, gate, case).await,
            Kind::Audit => built_in::audit(self, &effective.definition, gate, case).await,
            Kind::Command => self.command(&effective.definition, gate, case).await,
        };
        self.show_sources(case).await;
        result
    }

    /// Adds the source around what was found. Without it the evidence is still whole.
    async fn show_sources(&self, case: &mut Case) {
        let (subject, evidence) = (Arc::clone(&self.subject), case.evidence.clone());
        let shown = spawn_blocking(move || context::excerpts(&evidence, &subject.head)).await;
        case.evidence.context = shown.unwrap_or_default();
    }

    async fn command(&self, definition: &Definition, gate: &GateDefinition, case: &mut Case) -> Result<Reason, Stop> {
        case.evidence.locks = self.subject.locks(&gate.directory).map_err(InfraError::from)?;
        let job = job(definition, gate, &self.terms(gate));
        if self.reuse(gate, &job, case).await {
            return Ok(Reason::new("reused", "the verdict is that of earlier evidence"));
        }
        let changes = if gate.measures_coverage() { Some(self.changes(definition, gate).await?) } else { None };
        let (run, bundle) = self.run_once(job, case).await?;
        let started = Instant::now();
        let observed = self.observe(gate, run.clone(), bundle, changes).await?;
        case.record(&run, &observed, gate.kind == Kind::Audit);
        case.took("judge", started);
        if observed.parsed.is_empty() && observed.coverage.is_none() {
            case.doubt(DoubtCode::NoReport);
        }
        let verdict = observed.verdict(&run, gate)?;
        self.compare_tests(definition, gate, &observed, case).await?;
        Ok(verdict)
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
