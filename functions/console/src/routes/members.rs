//! The people of the tenant.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::future;
use shared::db::console;
use shared::db::member::{self, MemberGone, MemberSet, NewMember};
use shared::domain::access::{self, MemberRequest};
use shared::domain::fields::Names;
use shared::error::Error;
use shared::http::{DEFAULT_LIMIT, Form, Query};

use super::{Visit, failure, redirect, show};
use crate::csrf;
use crate::page::{Base, MembersPage, members_page};

const FIELDS: &[Names] = &[&["subject"], &["role"], &["name"], &["email"], &["csrf"]];
const LAST_ADMIN: &str = "The tenant would have no admin left. Make somebody else an admin first.";

/// `GET /ui/members?after=`.
pub async fn page(visit: Visit, query: Query, headers: HeaderMap) -> Response {
    show_page(&visit, &headers, Base::TOP, query.get("after"), None, StatusCode::OK).await
}

/// `POST /ui/members`: redirects to the page (303), or shows it with the reason why nothing was changed.
pub async fn set(visit: Visit, headers: HeaderMap, form: Form) -> Response {
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(Base::TOP, &Error::Forbidden(sentence.to_owned()));
    }
    let why = match store(&visit, &form).await {
        Ok(MemberSet::LastAdmin) => LAST_ADMIN.to_owned(),
        Ok(MemberSet::RoleAbove) => "The role is higher than your own.".to_owned(),
        Ok(MemberSet::NameTaken) => "Another member has this name.".to_owned(),
        Ok(MemberSet::EmailTaken) => "Another member has this e-mail address.".to_owned(),
        Ok(_) => return redirect("members"),
        Err(error @ Error::Invalid(_)) => format!("{error}."),
        Err(error) => return failure(Base::TOP, &error),
    };
    show_page(&visit, &headers, Base::TOP, None, Some(&why), StatusCode::BAD_REQUEST).await
}

/// `POST /ui/members/remove`: the same.
pub async fn remove(visit: Visit, headers: HeaderMap, form: Form) -> Response {
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(Base::RUN, &Error::Forbidden(sentence.to_owned()));
    }
    let tokens_to = Some(form.text("tokens_to").trim()).filter(|heir| !heir.is_empty());
    let why = match member::member_remove(&visit.session, form.text("subject"), tokens_to).await {
        Ok(MemberGone::Removed(_)) => return redirect(&Base::RUN.to("members")),
        Ok(MemberGone::NotFound) => "This person is not a member any more.",
        Ok(MemberGone::LastAdmin) => LAST_ADMIN,
        Ok(MemberGone::HeirNotFound) => "There is no other member with this id, who could own the tokens.",
        Err(error) => return failure(Base::RUN, &error),
    };
    show_page(&visit, &headers, Base::RUN, None, Some(why), StatusCode::BAD_REQUEST).await
}

async fn store(visit: &Visit, form: &Form) -> Result<MemberSet, Error> {
    let subject = form.text("subject").trim();
    access::subject(subject).map_err(|message| Error::invalid("id", message))?;
    let request = form.read(FIELDS, |fields| MemberRequest::read(fields, subject))?;
    let new = NewMember { subject, role: request.role, name: &request.name, email: request.email.as_deref() };
    member::member_set(&visit.session, &new).await
}

async fn show_page(
    visit: &Visit,
    headers: &HeaderMap,
    base: Base,
    after: Option<&str>,
    why: Option<&str>,
    status: StatusCode,
) -> Response {
    let listed = member::member_list(&visit.session, after, DEFAULT_LIMIT);
    let (listed, waiting) = match future::try_join(listed, console::waiting(&visit.session)).await {
        Ok(read) => read,
        Err(error) => return failure(base, &error),
    };
    let next = listed.next(|member| member.subject.clone());
    let mut response = show(headers, |token| {
        let (members, next) = (&listed.items, next.as_deref());
        members_page(&MembersPage { base, token, waiting, members, next, why })
    });
    *response.status_mut() = status;
    response
}
