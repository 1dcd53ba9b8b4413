//! Members of the tenant: list, set, remove. `docs/security.md` explains them.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use shared::db::Session;
use shared::db::member::{self, MemberGone, MemberSet, NewMember};
use shared::domain::access::{self, MEMBER_FIELDS, MemberRequest, REMOVAL_FIELDS};
use shared::error::{Code, Error};
use shared::http::{Body, Query, page_of, shown};
use shared::view::{MemberPage, MemberRemoved};

/// `GET /members?after=&limit=` -> `{members, next}`, ordered by subject.
pub async fn list(session: Session, query: Query) -> Result<Response, Error> {
    let (after, limit) = (query.after::<String>()?, query.limit()?);
    let page = member::member_list(&session, after.as_deref(), limit).await?;
    let next = page.next(|member| member.subject.clone());
    Ok(page_of(MemberPage { members: page.items, next: next.clone() }, next, &query))
}

/// `PUT /members/{subject} {role, name, email}` -> 201 with the member, or 200 if they were one.
pub async fn set(session: Session, Path(subject): Path<String>, body: Body) -> Result<Response, Error> {
    access::subject(&subject).map_err(|message| Error::invalid("subject", message))?;
    let request = body.read(MEMBER_FIELDS, |fields| MemberRequest::read(fields, &subject))?;
    let new = NewMember { subject: &subject, role: request.role, name: &request.name, email: request.email.as_deref() };
    match member::member_set(&session, &new).await? {
        MemberSet::Created { member } => Ok((StatusCode::CREATED, Json(member)).into_response()),
        MemberSet::Replaced { member } | MemberSet::Unchanged { member } => Ok(Json(member).into_response()),
        MemberSet::LastAdmin => Err(last_admin()),
        MemberSet::RoleAbove => Err(Error::invalid("role", "is higher than your own")),
        MemberSet::NameTaken => Err(Error::invalid("name", "is that of another member")),
        MemberSet::EmailTaken => Err(Error::invalid("email", "is that of another member")),
    }
}

/// `DELETE /members/{subject} {tokens_to}` -> how many sessions and tokens ended.
pub async fn remove(session: Session, Path(subject): Path<String>, body: Body) -> Result<Json<MemberRemoved>, Error> {
    let tokens_to = body.read_if_any(REMOVAL_FIELDS, |fields| {
        Some(fields.read("tokens_to", |value| access::subject(value.as_str().unwrap_or_default()).map(str::to_owned)))
    })?;
    match member::member_remove(&session, &subject, tokens_to.as_deref()).await? {
        MemberGone::Removed(removed) => Ok(Json(removed)),
        MemberGone::NotFound => Err(no_member(&subject)),
        MemberGone::LastAdmin => Err(last_admin()),
        MemberGone::HeirNotFound => Err(Error::invalid("tokens_to", "must be the sub of another member")),
    }
}

fn no_member(subject: &str) -> Error {
    Error::NotFound(format!("the member {}", shown(subject, 80)))
}

fn last_admin() -> Error {
    Error::Conflict(Code::LastAdmin, "the tenant would have no admin left; make somebody else an admin first".into())
}
