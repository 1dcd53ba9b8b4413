//! The policy: what it demands, its history, and the form for its next version.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::Value;
use shared::db::console;
use shared::db::policy::{self, NewPolicy, PolicySet};
use shared::domain::Policy;
use shared::error::Error;
use shared::flow::change_storage::check_policy;
use shared::http::{ACTOR, Form, Query, REASON, Sender, actor, reason, sender};

use super::{Visit, failure, not_recorded, redirect, show};
use crate::page::{Base, PolicyPage, TypedPolicy, Unrecorded, policy_page};
use crate::{csrf, plan_text, viewer};

/// `GET /ui/policy?after=`: the policy and its versions before the version `after`.
pub async fn page(visit: Visit, query: Query, headers: HeaderMap) -> Response {
    let after = match query.after::<u32>() {
        Ok(after) => after,
        Err(problem) => return failure(Base::TOP, &problem.into()),
    };
    show_page(&visit, &headers, after, None, StatusCode::OK).await
}

/// `POST /ui/policy`: sets the next version if the current one is still the one that the form was made for. Redirects to
/// the page (303), or shows the form with the reason why not.
pub async fn set(visit: Visit, headers: HeaderMap, form: Form) -> Response {
    let public_url = visit.ctx.config.public_url.as_deref();
    if let Err(sentence) = csrf::check(&headers, public_url, form.text("csrf")) {
        // What another site sent is not shown.
        if sender(&headers, public_url) != Sender::Own {
            return failure(Base::TOP, &Error::Forbidden(sentence.to_owned()));
        }
        let shown = show_page(&visit, &headers, None, Some(typed(&form, sentence)), StatusCode::FORBIDDEN).await;
        let is_shown = shown.status() == StatusCode::FORBIDDEN;
        return if is_shown { shown } else { failure(Base::TOP, &Error::Forbidden(sentence.to_owned())) };
    }
    let refused = match record(&visit, &form).await {
        Ok(PolicySet::Set { .. } | PolicySet::Unchanged { .. }) => return redirect("policy"),
        Ok(PolicySet::Conflict { version }) => (
            StatusCode::CONFLICT,
            format!("Somebody set version {version} meanwhile. Compare it with yours and send again."),
        ),
        Err(error @ Error::Invalid(_)) => (StatusCode::BAD_REQUEST, format!("{error}.")),
        Err(error @ Error::Unavailable { .. }) => return unavailable(&headers, &form, &error),
        Err(error) => return failure(Base::TOP, &error),
    };
    let (status, why) = refused;
    show_page(&visit, &headers, None, Some(typed(&form, &why)), status).await
}

fn typed<'a>(form: &'a Form, why: &'a str) -> TypedPolicy<'a> {
    TypedPolicy { document: form.text("document"), actor: form.text("actor"), reason: form.text("reason"), why }
}

/// The version with its document, if the database cannot say what became of it.
fn unavailable(headers: &HeaderMap, form: &Form, error: &Error) -> Response {
    let page = Unrecorded {
        base: Base::TOP,
        token: "",
        what: "new version",
        why: "",
        maybe_done: false,
        action: "policy",
        place: ("policy", "the policy"),
        actor: form.text("actor"),
        text: Some(("document", "Document", form.text("document"))),
        hidden: &[("version", form.text("version")), ("reason", form.text("reason"))],
    };
    not_recorded(headers, error, page)
}

async fn record(visit: &Visit, form: &Form) -> Result<PolicySet, Error> {
    let (document, actor, reason, version) =
        form.read(&[&["document"], &["version"], ACTOR, REASON, &["csrf"]], |fields| {
            fields.require(&["document", "version", "reason"]);
            if !viewer::is_known() {
                fields.require(&["actor"]);
            }
            let document = fields.read("document", |text| read(text.as_str().unwrap_or_default(), visit));
            let version = fields.read("version", |text| {
                let version = text.as_str().and_then(|text| text.parse::<u32>().ok());
                version.ok_or_else(|| "must be the number of a version".to_owned())
            });
            Some((document, actor(fields), reason(fields), version))
        })?;
    let (document, if_version) = (document.unwrap_or_default(), version);
    let reason = reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    if reason.is_none() {
        return Err(Error::invalid("reason", "is missing"));
    }
    policy::policy_set(&visit.session, &NewPolicy { document: &document, actor: &actor, reason, if_version }).await
}

/// A document in JSON or YAML that is a policy.
fn read(text: &str, visit: &Visit) -> Result<Value, String> {
    let document = plan_text::value(&text.replace("\r\n", "\n")).map_err(|problems| {
        problems.first().map(|problem| format!("line {}: {}", problem.line, problem.message)).unwrap_or_default()
    })?;
    match Policy::parse(&document, "") {
        Ok(policy) => match check_policy(&policy, visit.ctx.config.artifacts.can_archive(), "") {
            Ok(()) => Ok(document),
            Err(problem) => Err(Error::from(problem).to_string()),
        },
        Err(problems) => Err(Error::Invalid(problems).to_string()),
    }
}

async fn show_page(
    visit: &Visit,
    headers: &HeaderMap,
    after: Option<u32>,
    typed: Option<TypedPolicy<'_>>,
    status: StatusCode,
) -> Response {
    match console::policy_history(&visit.session, after).await {
        Ok(history) => {
            let mut response =
                show(headers, |token| policy_page(&PolicyPage { base: Base::TOP, token, history: &history, typed }));
            *response.status_mut() = status;
            response
        }
        Err(error) => failure(Base::TOP, &error),
    }
}
