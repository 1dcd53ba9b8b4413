//! Pause, resume, cancel and retry of a run.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use shared::db::console::{Focus, Selection};
use shared::db::run::Control;
use shared::domain::RunId;
use shared::error::Error;
use shared::flow::control_run::control_run;
use shared::http::{self, ACTOR, Form, Sender, id_param, sender};

use super::{Visit, failure, not_recorded, redirect, run, show};
use crate::page::{Base, RefusedControl, RunPage, Unrecorded, run_page};
use crate::{csrf, viewer};

/// `POST /ui/runs/{id}/pause`.
pub async fn pause(visit: Visit, path: Path<String>, headers: HeaderMap, form: Form) -> Response {
    control(visit, path, &headers, &form, Control::Pause).await
}

/// `POST /ui/runs/{id}/resume`.
pub async fn resume(visit: Visit, path: Path<String>, headers: HeaderMap, form: Form) -> Response {
    control(visit, path, &headers, &form, Control::Resume).await
}

/// `POST /ui/runs/{id}/cancel`.
pub async fn cancel(visit: Visit, path: Path<String>, headers: HeaderMap, form: Form) -> Response {
    control(visit, path, &headers, &form, Control::Cancel).await
}

/// `POST /ui/runs/{id}/retry`.
pub async fn retry(visit: Visit, path: Path<String>, headers: HeaderMap, form: Form) -> Response {
    control(visit, path, &headers, &form, Control::Retry).await
}

/// Redirects to the run (303), or shows it with the reason why nothing was done.
async fn control(visit: Visit, Path(id): Path<String>, headers: &HeaderMap, form: &Form, control: Control) -> Response {
    let id: RunId = match id_param("run", &id) {
        Ok(id) => id,
        Err(error) => return failure(Base::GATE, &error),
    };
    let public_url = visit.ctx.config.public_url.as_deref();
    let refused = |why, wrong_actor| RefusedControl { control, actor: form.text("actor"), why, wrong_actor };
    // Check this first: a forged form must not learn whether the run exists, and what another site sent is not shown.
    if let Err(sentence) = csrf::check(headers, public_url, form.text("csrf")) {
        if sender(headers, public_url) != Sender::Own {
            return failure(Base::GATE, &Error::Forbidden(sentence.to_owned()));
        }
        return show_run(&visit, headers, id, StatusCode::FORBIDDEN, refused(sentence, None)).await;
    }
    let actor = form.read(&[ACTOR, &["csrf"]], |fields| {
        if fields.value("actor").is_none() && !viewer::is_known() {
            fields.problem("actor", "A name is needed.");
        }
        Some(http::actor(fields))
    });
    let done = match actor {
        Ok(actor) => control_run(&visit.ctx, &visit.session, id, control, &actor).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(_) => redirect(&Base::GATE.to(&format!("runs/{id}"))),
        Err(Error::Invalid(problems)) => {
            let refused = refused("The form has a problem.", problems.first());
            show_run(&visit, headers, id, StatusCode::BAD_REQUEST, refused).await
        }
        Err(Error::Conflict(_, detail)) => {
            show_run(&visit, headers, id, StatusCode::CONFLICT, refused(&detail, None)).await
        }
        Err(error @ Error::Unavailable { .. }) => unavailable(headers, id, control, form, &error),
        Err(error) => failure(Base::GATE, &error),
    }
}

/// The request with its actor, if the database cannot say what became of it.
fn unavailable(headers: &HeaderMap, id: RunId, control: Control, form: &Form, error: &Error) -> Response {
    let (verb, what) = match control {
        Control::Pause => ("pause", "pause"),
        Control::Resume => ("resume", "resumption"),
        Control::Cancel => ("cancel", "cancellation"),
        Control::Retry => ("retry", "retry"),
    };
    let place = format!("runs/{id}");
    let page = Unrecorded {
        base: Base::GATE,
        token: "",
        what,
        why: "",
        maybe_done: false,
        action: &format!("{place}/{verb}"),
        place: (&place, "the run"),
        actor: form.text("actor"),
        text: None,
        hidden: &[],
    };
    not_recorded(headers, error, page)
}

async fn show_run(
    visit: &Visit,
    headers: &HeaderMap,
    id: RunId,
    status: StatusCode,
    refused: RefusedControl<'_>,
) -> Response {
    match run::find(visit, id, Focus::default(), &Selection::default()).await {
        Ok(run) => {
            let mut response = show(headers, |token| {
                let page = RunPage::new(&run, token);
                run_page(&RunPage { base: Base::GATE, refused: Some(refused), ..page })
            });
            *response.status_mut() = status;
            response
        }
        Err(error) => failure(Base::GATE, &error),
    }
}
