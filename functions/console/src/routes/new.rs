//! A new run: the form, a check of its plan, and its start.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use shared::db::{console, run};
use shared::domain::{ArtifactId, RunId};
use shared::error::{Code, Error};
use shared::flow::check_plan::check_plan;
use shared::flow::create_run::{Request, create_run};
use shared::flow::store_workspace::store_workspace;
use shared::http::{Query, Sender, actor_of, id_param, sender};
use shared::telemetry;
use uuid::Uuid;

use super::{Visit, failure, redirect, show};
use crate::page::{Base, NewRunPage, Outcome, Stored, Typed, new_run_page};
use crate::plan_text::{self, Located, MAX_TEXT_BYTES};
use crate::upload::Upload;
use crate::{csrf, examples, viewer};

const FIELDS: &[&str] = &["csrf", "key", "plan", "actor", "workspace", "base"];
const FILES: &[&str] = &["workspace_file", "base_file"];

/// The part of an idempotency key that keeps it apart from those of other clients.
const KEY_PREFIX: &str = "console-";

/// `GET /ui/new?example=&from=`: the form with an example, or with the plan of a run.
pub async fn page(visit: Visit, query: Query, headers: HeaderMap) -> Response {
    let read = async || {
        let from = query.get("from").map(|id| id_param::<RunId>("run", id)).transpose()?;
        let typed = match from {
            Some(from) => plan_of(&visit, from).await?,
            None => example(query.get("example"))?,
        };
        Ok(Form { visit: &visit, headers: &headers, base: Base::TOP, typed })
    };
    match read().await {
        Ok(form) => form.show(StatusCode::OK, Outcome::None).await,
        Err(error) => failure(Base::TOP, &error),
    }
}

/// `POST /ui/new/check`: shows the problems of the plan, or what it will do. Stores archives, and starts nothing.
pub async fn check(visit: Visit, headers: HeaderMap, body: Bytes) -> Response {
    let mut form = match Form::read(&visit, &headers, Base::RUN, body).await {
        Ok(form) => form,
        Err(refused) => return refused,
    };
    let body = match form.plan() {
        Ok(body) => body,
        Err(problems) => return form.show(StatusCode::BAD_REQUEST, Outcome::Problems(&problems)).await,
    };
    match check_plan(&visit.ctx, &visit.session, &body).await {
        Ok(plan) => {
            let has_base = has_base(&body);
            form.show(StatusCode::OK, Outcome::Checked { plan: &plan, has_base }).await
        }
        Err(error) => form.refuse(error).await,
    }
}

/// `POST /ui/new`: redirects to the new run (303), or shows the form with the reason why not.
pub async fn start(visit: Visit, headers: HeaderMap, body: Bytes) -> Response {
    let mut form = match Form::read(&visit, &headers, Base::TOP, body).await {
        Ok(form) => form,
        Err(refused) => return refused,
    };
    let body = match form.plan() {
        Ok(body) => body,
        Err(problems) => return form.show(StatusCode::BAD_REQUEST, Outcome::Problems(&problems)).await,
    };
    let actor = match actor_of(&form.typed.actor) {
        _ if viewer::is_known() => None,
        Ok(actor) => Some(actor),
        Err(rule) => return form.show(StatusCode::BAD_REQUEST, Outcome::WrongActor(&rule)).await,
    };
    // Part of the request: the same form with another name is another request.
    let mut body = body;
    if let Some(actor) = &actor {
        body["actor"] = json!(actor);
    }
    let key = format!("{KEY_PREFIX}{}", form.typed.key);
    let request = Request { body: &body, idempotency_key: Some(&key), traceparent: None, actor: actor.as_deref() };
    match create_run(&visit.ctx, &visit.session, &request).await {
        Ok(accepted) => redirect(&format!("runs/{}", accepted.id)),
        Err(error) => form.refuse(error).await,
    }
}

/// A form that was sent, or a new one.
struct Form<'a> {
    visit: &'a Visit,
    headers: &'a HeaderMap,
    base: Base,
    typed: Typed,
}

impl<'a> Form<'a> {
    /// Reads a form and stores its archives. The error is the answer to a form that is refused.
    async fn read(visit: &'a Visit, headers: &'a HeaderMap, base: Base, body: Bytes) -> Result<Self, Response> {
        let mut upload = Upload::read(headers, body, FIELDS, FILES).await.map_err(|error| failure(base, &error))?;
        let public_url = visit.ctx.config.public_url.as_deref();
        let refusal = csrf::check(headers, public_url, upload.text("csrf"));
        // What another site sent is not shown again.
        if let (Err(sentence), false) = (refusal, sender(headers, public_url) == Sender::Own) {
            return Err(failure(base, &Error::Forbidden(sentence.to_owned())));
        }
        let mut form = Self { visit, headers, base, typed: typed(&upload) };
        if let Err(sentence) = refusal {
            return Err(form
                .show(StatusCode::FORBIDDEN, Outcome::Refused { maybe_done: false, sentence, hint: "" })
                .await);
        }
        if form.typed.plan.len() > MAX_TEXT_BYTES {
            let message = format!("has more than {} KiB; start it with the command line", MAX_TEXT_BYTES >> 10);
            return Err(failure(base, &Error::invalid("plan", message)));
        }
        for (name, of_base) in [("workspace_file", false), ("base_file", true)] {
            let Some(file) = upload.take_file(name) else { continue };
            match store_workspace(&visit.ctx, &visit.session, &file.name, file.bytes).await {
                Ok(id) if of_base => form.typed.base = Some(Stored { id, name: Some(file.name) }),
                Ok(id) => form.typed.workspace = Some(Stored { id, name: Some(file.name) }),
                Err(error) => return Err(form.refuse(error).await),
            }
        }
        Ok(form)
    }

    /// The body of the request, with the stored archives in the plan.
    fn plan(&self) -> Result<Value, Vec<Located>> {
        let mut body = plan_text::read(&self.typed.plan)?;
        for (role, stored) in [("archive", &self.typed.workspace), ("base", &self.typed.base)] {
            let Some(stored) = stored else { continue };
            let workspace = &mut body["plan"]["workspace"];
            // Anything else is a problem of the plan.
            if workspace.is_object() || workspace.is_null() {
                workspace[role] = json!(stored.id);
            }
        }
        Ok(body)
    }

    /// The form with the reason why nothing was started.
    async fn refuse(&mut self, error: Error) -> Response {
        let sentence = error.to_string();
        let (status, hint) = match &error {
            Error::Invalid(problems) if problems.iter().any(|problem| problem.path.starts_with("plan")) => {
                let located = plan_text::locate(&self.typed.plan, problems);
                return self.show(StatusCode::BAD_REQUEST, Outcome::Problems(&located)).await;
            }
            Error::Invalid(_) => (StatusCode::BAD_REQUEST, ""),
            Error::Conflict(..) => {
                // This form has started a run, and its text has changed since.
                self.typed.key = new_key();
                (StatusCode::CONFLICT, "Send the form again to start another run.")
            }
            // Its key makes it safe to send again.
            Error::Unavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "Send the form again in a minute: it starts one run at most.")
            }
            _ => return failure(self.base, &error),
        };
        if status.is_server_error() {
            telemetry::report(&error, "start a run");
        }
        let maybe_done = error.code() == Code::OutcomeUnknown;
        self.show(status, Outcome::Refused { maybe_done, sentence: &sentence, hint }).await
    }

    async fn show(&self, status: StatusCode, outcome: Outcome<'_>) -> Response {
        // The form matters more than the number in the navigation.
        let waiting = console::waiting(&self.visit.session).await.unwrap_or_default();
        let mut response = show(self.headers, |token| {
            new_run_page(&NewRunPage { base: self.base, waiting, token, typed: &self.typed, outcome })
        });
        *response.status_mut() = status;
        response
    }
}

fn typed(upload: &Upload) -> Typed {
    let stored = |name| {
        let id = upload.text(name).parse::<ArtifactId>().ok();
        id.map(|id| Stored { id, name: None })
    };
    let is_key = |text: &&str| text.parse::<Uuid>().is_ok();
    Typed {
        plan: upload.text("plan").to_owned(),
        actor: upload.text("actor").to_owned(),
        key: Some(upload.text("key")).filter(is_key).map_or_else(new_key, str::to_owned),
        workspace: stored("workspace"),
        base: stored("base"),
        example: None,
        from: None,
    }
}

fn new_key() -> String {
    Uuid::new_v4().to_string()
}

fn example(name: Option<&str>) -> Result<Typed, Error> {
    let example = match name {
        None => examples::EXAMPLES.first(),
        Some(name) => Some(examples::find(name).ok_or_else(|| Error::NotFound("this example".into()))?),
    };
    let (plan, name) = example.map(|example| (example.text.to_owned(), example.name)).unzip();
    Ok(Typed { plan: plan.unwrap_or_default(), key: new_key(), example: name, ..Typed::default() })
}

/// The plan of a run as text.
async fn plan_of(visit: &Visit, id: RunId) -> Result<Typed, Error> {
    let plan = run::run_plan(&visit.session, id).await?;
    let plan = plan.ok_or_else(|| Error::NotFound(format!("run {id}")))?;
    let plan: Value = serde_json::from_str(plan.get()).map_err(|error| Error::internal("read a plan", error))?;
    let text = plan_text::write(&plan);
    if text.len() > MAX_TEXT_BYTES {
        let most = MAX_TEXT_BYTES >> 10;
        return Err(Error::invalid(format!("the plan of run {id}"), format!("has more than {most} KiB as text")));
    }
    Ok(Typed { plan: text, key: new_key(), from: Some(id), ..Typed::default() })
}

/// Whether the plan, or a gate of it, names a base.
fn has_base(body: &Value) -> bool {
    let steps = body["plan"]["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let of_step = |step: &Value| {
        step["tool"].as_str().is_some_and(|tool| tool.starts_with("gate:")) && !step["inputs"]["base"].is_null()
    };
    !body["plan"]["workspace"]["base"].is_null() || steps.iter().any(of_step)
}
