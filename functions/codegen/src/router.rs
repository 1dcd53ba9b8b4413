//! Carries out a plan: the only code between a step and the models that retries.
//!
//! For every single request it asks for a permit, which reserves money and checks that the attempt still owns its step,
//! sends the request, and settles it. What follows a fault is decided in `decide`.

use std::time::Duration;

use serde::Serialize;
use shared::domain::model_call::{Because, BudgetScope};
use shared::domain::{Permit, Shortfall};
use shared::error::Error;
use shared::worker::ModelCalls;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::ask::{Answer, Prompt, Question, ask};
use crate::call::{Call, Refusal, Size};
use crate::config::CodegenConfig;
use crate::decide::{self, Decision, MIN_TRY_TIME, State};
use crate::exchange::{Patience, client};
use crate::fault::{Fault, FaultKind, Scope};
use crate::inputs::Request;
use crate::keys::{ApiKey, KEYS_TIMEOUT, StepKeys};
use crate::plan::{self, Attempt, ChosenBy, LeftOut, Plan};
use crate::progress::{Progress, record};
use crate::provider::Provider;
use crate::wire::{self, Addressee};

/// A model that gave no usable answer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelFailure {
    pub provider: Provider,
    pub model: String,
    pub kind: FaultKind,
    /// Safe to show.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Number of requests: 0 if it was not asked.
    pub tries: u32,
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// The budget that applies to a model without a price.
    #[serde(skip)]
    pub unpriced_in: Option<BudgetScope>,
    #[serde(skip)]
    pub(crate) scope: Scope,
    #[serde(skip)]
    pub(crate) position: usize,
    /// Empty if the model was left out.
    #[serde(skip)]
    pub(crate) deployment: String,
}

/// An answer, and which models failed before it.
#[derive(Debug)]
pub(crate) struct Routed {
    pub provider: Provider,
    pub model_requested: String,
    pub chosen_by: ChosenBy,
    pub answer: Answer,
    pub failures: Vec<ModelFailure>,
}

/// No model gave a usable answer.
pub(crate) struct RouteFailure {
    pub failures: Vec<ModelFailure>,
    /// The model that was about to be asked, unless all were.
    pub asked: Option<Box<Attempt>>,
    pub end: End,
}

/// Why no further model is asked.
pub(crate) enum End {
    /// All were asked, or the step has no time left.
    Exhausted,
    /// The attempt no longer owns its step.
    Lost,
    OverBudget(Shortfall),
    /// No permit could be had.
    Unavailable(Error),
}

/// What to ask, and within which limits.
pub(crate) struct Task<'a> {
    pub request: &'a Request,
    pub prompt: Prompt<'a>,
    pub plan: &'a Plan,
    /// Models that failed before the step waited for money.
    pub earlier: &'a [ModelFailure],
    pub calls: &'a ModelCalls,
    pub deadline: Instant,
}

pub(crate) struct Router {
    config: CodegenConfig,
    /// Built on first use, so that a cold start does not wait for it.
    client: OnceCell<reqwest::Client>,
}

/// The requests of one step to one model.
struct Course {
    /// Its key and deployment are replaced if the provider rejects the key and the secret has a new one.
    attempt: Attempt,
    because: Because,
    others_remain: bool,
    /// When the model's share of the step's time ends.
    deadline: Instant,
    tries: u32,
    is_providers_fault: bool,
}

/// How the requests to one model ended without an answer.
enum Miss {
    Failed(Fault),
    Unpriced(BudgetScope),
    End(End),
}

impl Router {
    pub(crate) fn new(config: CodegenConfig) -> Self {
        Self { config, client: OnceCell::new() }
    }

    pub(crate) fn config(&self) -> &CodegenConfig {
        &self.config
    }

    /// Asks one model after another until one gives a usable answer.
    pub(crate) async fn route(&self, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Result<Routed, RouteFailure> {
        let left_out = task.plan.left_out.iter().map(ModelFailure::of_left_out);
        let mut failures: Vec<_> = task.earlier.iter().cloned().chain(left_out).collect();
        for (index, attempt) in task.plan.attempts.iter().enumerate() {
            let attempt = self.with_current_key(attempt.clone(), keys);
            if let Some(failure) = ruled_out(&failures, &attempt) {
                failures.push(failure);
                continue;
            }
            let others_remain = index + 1 < task.plan.attempts.len();
            let mut course = Course {
                because: because(&failures, &attempt),
                deadline: Instant::now() + decide::share(left(task.deadline), others_remain),
                attempt,
                others_remain,
                tries: 0,
                is_providers_fault: false,
            };
            let failure = match self.ask_model(&mut course, task, keys).await {
                Ok(answer) => {
                    let Attempt { position, provider, model, chosen_by, .. } = course.attempt;
                    failures.retain(|failure| failure.position < position);
                    failures.sort_by_key(|failure| failure.position);
                    return Ok(Routed { provider, model_requested: model, chosen_by, answer, failures });
                }
                Err(Miss::End(end)) => {
                    failures.sort_by_key(|failure| failure.position);
                    return Err(RouteFailure { failures, asked: Some(Box::new(course.attempt)), end });
                }
                Err(Miss::Unpriced(scope)) => ModelFailure {
                    unpriced_in: Some(scope),
                    ..course.failure(Fault::new(
                        FaultKind::Unpriced,
                        "a budget applies, and no price of the model is known",
                    ))
                },
                Err(Miss::Failed(fault)) => course.failure(fault),
            };
            tracing::warn!(provider = %failure.provider, model = failure.model, kind = ?failure.kind,
                status = failure.status, reason = failure.reason, tries = failure.tries, "no usable answer from the model");
            failures.push(failure);
        }
        failures.sort_by_key(|failure| failure.position);
        Err(RouteFailure { failures, asked: None, end: End::Exhausted })
    }

    /// Asks one model until it answers or no retry makes sense.
    async fn ask_model(&self, course: &mut Course, task: &Task<'_>, keys: &mut StepKeys<'_>) -> Result<Answer, Miss> {
        loop {
            let limit = self.config.request_timeout.min(left(course.deadline));
            if limit < MIN_TRY_TIME {
                return Err(Miss::Failed(no_time()));
            }
            let sent_at = std::time::Instant::now();
            let (call, fault) = match self.send(course, task, limit).await? {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let new_key = match fault.kind {
                FaultKind::Auth => course.newer_key(keys, sent_at).await,
                _ => None,
            };
            let decision = decide::after(&fault, &self.state(course, task, new_key.is_some()), fastrand::f64());
            call.fail(&fault, decide::cooldown(&fault, decision, course.is_providers_fault)).await;
            // After `Stop`, the models that follow report that the step had no time left.
            let Decision::Retry { delay } = decision else { return Err(Miss::Failed(fault)) };
            if new_key.is_some() {
                course.attempt = self.with_current_key(course.attempt.clone(), keys);
            }
            tracing::info!(provider = %course.attempt.provider, model = course.attempt.model, reason = fault.reason,
                tries = course.tries, delay_ms = delay.as_secs_f64() * 1e3, "retrying");
            course.because = Because::Retry { kind: fault.kind.as_str().to_owned(), reason: fault.reason };
            tokio::time::sleep(delay).await;
        }
    }

    /// Sends one request and settles it, if it succeeds. The caller settles a failed one, once it knows what follows.
    async fn send<'c>(
        &self,
        course: &mut Course,
        task: &'c Task<'_>,
        limit: Duration,
    ) -> Result<Result<Answer, (Call<'c>, Fault)>, Miss> {
        let client = self.client.get_or_try_init(|| async { client(&self.config) }).await.map_err(Miss::Failed)?;
        let Attempt { provider, model, key, .. } = &course.attempt;
        let key = key.as_ref();
        let to = Addressee { provider: *provider, model, key };
        let request = wire::write(&self.config, to, task.prompt, &task.request.parameters).map_err(Miss::Failed)?;
        let max_output_tokens = task.request.parameters.max_output_tokens.unwrap_or(self.config.max_output_tokens);
        let size = Size { body_bytes: request.body.len(), max_output_tokens };
        let call = Call::start(task.calls, &course.attempt, size, limit, course.because.clone()).await;
        let call = call.map_err(Miss::of_refusal)?;
        // The permit took some of the time.
        let limit = limit.min(left(course.deadline));
        if limit < MIN_TRY_TIME {
            call.fail(&no_time(), None).await;
            return Err(Miss::Failed(no_time()));
        }
        course.tries += 1;
        let (api, prompt) = (self.config.api(*provider), task.prompt);
        let question = Question { api, model, key, request: task.request, prompt };
        let (progress, reports) = Progress::new(key.and_then(ApiKey::secret));
        let answer = tokio::select! {
            answer = ask(client, request, question, self.patience(course.others_remain, limit), &progress) => answer,
            never = record(task.calls, call.id(), reports) => match never {},
            () = task.calls.lost() => {
                call.fail(&Fault::stopped(), None).await;
                return Err(Miss::End(End::Lost));
            }
        };
        match answer {
            Ok(answer) => {
                call.succeed(&answer).await;
                Ok(Ok(answer))
            }
            Err(fault) => {
                let (took, longest) = (call.elapsed(), self.config.request_timeout);
                course.is_providers_fault |= decide::is_providers_fault(&fault, took, limit, longest);
                Ok(Err((call, fault)))
            }
        }
    }

    /// A provider that hangs is seen early if another one can be asked instead. The last one may take its time to begin, and to think
    /// while it keeps the connection open.
    fn patience(&self, others_remain: bool, limit: Duration) -> Patience {
        let idle = if self.config.stream { self.config.idle_timeout.min(limit) } else { limit };
        let first = if others_remain { idle } else { limit };
        Patience { whole: limit, first, idle, hears_comments: !others_remain, report: self.config.progress_period }
    }

    fn state(&self, course: &Course, task: &Task<'_>, has_new_key: bool) -> State {
        State {
            tries: course.tries,
            max_tries: if course.attempt.is_cooling { 1 } else { self.config.tries_per_model },
            backoff: self.config.backoff,
            share_left: left(course.deadline),
            step_left: left(task.deadline),
            has_new_key,
        }
    }

    /// The secret may have been read again since the plan was made.
    fn with_current_key(&self, mut attempt: Attempt, keys: &StepKeys<'_>) -> Attempt {
        let key = keys.current().get(attempt.provider);
        if key.is_some() && key != attempt.key.as_ref() {
            attempt.deployment = plan::deployment(&self.config, attempt.provider, key);
            attempt.key = key.cloned();
        }
        attempt
    }
}

impl Course {
    fn failure(&self, fault: Fault) -> ModelFailure {
        let Attempt { position, provider, model, deployment, .. } = self.attempt.clone();
        let Fault { kind, scope, reason, status, retry_after, .. } = fault;
        let tries = self.tries;
        ModelFailure {
            provider,
            model,
            kind,
            reason,
            status,
            tries,
            retry_after,
            unpriced_in: None,
            scope,
            position,
            deployment,
        }
    }

    /// The key that replaces one that the provider rejected in a request at `sent_at`.
    async fn newer_key(&self, keys: &mut StepKeys<'_>, sent_at: std::time::Instant) -> Option<ApiKey> {
        let rejected = self.attempt.key.as_ref()?;
        let deadline = self.deadline.min(Instant::now() + KEYS_TIMEOUT);
        timeout_at(deadline, keys.refresh(self.attempt.provider, rejected, sent_at)).await.ok().flatten()
    }
}

impl Miss {
    fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Refused(Permit::OverBudget(shortfall)) => Self::End(End::OverBudget(shortfall)),
            Refusal::Refused(Permit::Unpriced { scope }) => Self::Unpriced(scope),
            // A start never refuses what it grants.
            Refusal::Refused(Permit::Lost | Permit::Granted) => Self::End(End::Lost),
            Refusal::Unknown(error) => Self::End(End::Unavailable(error)),
        }
    }
}

impl ModelFailure {
    fn of_left_out(left_out: &LeftOut) -> Self {
        let LeftOut { position, provider, model, kind, reason, retry_after } = left_out.clone();
        let deployment = String::new();
        Self {
            provider,
            model,
            kind,
            reason,
            status: None,
            tries: 0,
            retry_after,
            unpriced_in: None,
            scope: Scope::Model,
            position,
            deployment,
        }
    }
}

/// Another model of a deployment that refuses the key, or has no credit, is not asked. The reason names the one that was.
fn ruled_out(failures: &[ModelFailure], attempt: &Attempt) -> Option<ModelFailure> {
    let is_same = |failure: &&ModelFailure| {
        failure.deployment == attempt.deployment && failure.scope == Scope::Key && failure.tries > 0
    };
    let earlier = failures.iter().find(is_same)?;
    let reason = format!("not asked after {}: {}", earlier.model, earlier.reason);
    let Attempt { position, model, .. } = attempt.clone();
    Some(ModelFailure { model, reason, status: None, tries: 0, position, ..earlier.clone() })
}

/// Why a model is asked: the best one, or the last one before it that could have been asked and failed.
fn because(failures: &[ModelFailure], attempt: &Attempt) -> Because {
    let never = [FaultKind::NoKey, FaultKind::NotAllowed, FaultKind::Unsupported];
    let earlier = |failure: &&ModelFailure| failure.position < attempt.position && !never.contains(&failure.kind);
    match failures.iter().filter(earlier).max_by_key(|failure| failure.position) {
        None => Because::First,
        Some(failure) => Because::Fallback {
            provider: failure.provider.as_str().to_owned(),
            model: failure.model.clone(),
            kind: failure.kind.as_str().to_owned(),
            reason: failure.reason.clone(),
        },
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn no_time() -> Fault {
    Fault::new(FaultKind::Transient, "the step had no time left")
}
