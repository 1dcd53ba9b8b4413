//! Log in and out.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use shared::auth::{ApiToken, password_login};
use shared::context::Ctx;
use shared::db::Session;
use shared::db::token::{self, NewSession, TokenMade};
use shared::domain::access::{DEFAULT_SESSION_S, MAX_EMAIL_BYTES};
use shared::domain::{Kind, Permission, TokenId};
use shared::error::Error;
use shared::http::{Form, LoginRequest, Query, encoded, new_session_cookie, no_session_cookie};
use shared::telemetry;
use uuid::Uuid;

use super::{Visit, base_of, failure, redirect, show};
use crate::attempts::Attempts;
use crate::page::{self, Base, LoginPage, Message, login_page};
use crate::{csrf, viewer};

/// The page after a login, if the request names no other.
const HOME: &str = "runs";
const MAX_NEXT_BYTES: usize = 2_000;
const WRONG: &str = "The e-mail address or the password is wrong.";

static FAILED: LazyLock<Mutex<Attempts>> = LazyLock::new(Mutex::default);

/// `GET /ui/login?next=`: the form. `next` is a page below `/ui/`.
pub async fn form(State(ctx): State<Ctx>, query: Query, headers: HeaderMap) -> Response {
    if !viewer::log_in(&ctx) {
        return redirect(HOME);
    }
    let next = query.get("next").unwrap_or_default();
    show_form(&ctx, &headers, &Asked { next, email: "", why: None }, StatusCode::OK)
}

/// `POST /ui/login`: starts a session of 12 hours, and redirects (303) to the page that was wanted.
pub async fn log_in(State(ctx): State<Ctx>, request: LoginRequest, headers: HeaderMap, form: Form) -> Response {
    let (email, password) = (form.text("email").trim(), form.text("password"));
    let refuse = |status, why: &str| {
        show_form(&ctx, &headers, &Asked { next: form.text("next"), email, why: Some(why) }, status)
    };
    if let Err(sentence) = csrf::check_login(&headers, ctx.config.public_url.as_deref(), form.text("csrf")) {
        return refuse(StatusCode::FORBIDDEN, sentence);
    }
    let Some(login) = ctx.config.auth.login.as_ref().filter(|_| viewer::log_in(&ctx)) else {
        return failure(Base::TOP, &Error::NotFound("This page".into()));
    };
    if email.len() > MAX_EMAIL_BYTES {
        return refuse(StatusCode::UNAUTHORIZED, WRONG);
    }
    let (address, person) = (format!("{:?}", request.ip()), email.to_lowercase());
    if !failed(|attempts| attempts.allow(&address, &person, Instant::now())) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "There were too many attempts. Try again in a minute.");
    }
    let jwt = match password_login(login, email, password).await {
        Ok(Some(jwt)) => jwt,
        Ok(None) => {
            failed(|attempts| attempts.fail(&address, &person, Instant::now()));
            return refuse(StatusCode::UNAUTHORIZED, WRONG);
        }
        Err(error) => {
            telemetry::report(&error, "log somebody in");
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "Logins are not possible now. Try again in a minute.");
        }
    };
    let Ok(person) = request.person(&jwt, Permission::SessionsCreate).await else {
        return refuse(StatusCode::UNAUTHORIZED, "The issuer returned a token that is not valid here.");
    };
    match start(&person).await {
        Ok(session) => {
            let mut response = redirect(safe_next(form.text("next")).unwrap_or(HOME));
            if let Some(cookie) = new_session_cookie(&headers, &session.expose(), DEFAULT_SESSION_S) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(Error::NotPermitted(_)) => {
            let why = format!("You are not a member. An admin can make you one: your id is {}.", person.subject());
            refuse(StatusCode::FORBIDDEN, &why)
        }
        Err(error) => failure(Base::TOP, &error),
    }
}

/// `POST /ui/logout`: ends the session, and redirects (303) to the form.
pub async fn log_out(visit: Visit, headers: HeaderMap, form: Form) -> Response {
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(Base::TOP, &Error::Forbidden(sentence.to_owned()));
    }
    if let Err(error) = token::session_end(&visit.session).await {
        return failure(Base::TOP, &error);
    }
    let mut response = redirect("login");
    if let Some(cookie) = no_session_cookie(&headers) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Redirects to the login page, which leads back to this page.
pub fn to_login(uri: &Uri) -> Response {
    let place = uri.path_and_query().map_or("", |place| place.as_str());
    match place.split_once("/ui/") {
        Some((_, below)) => redirect(&base_of(uri).to(&format!("login?next={}", encoded(below)))),
        None => redirect("ui/login"),
    }
}

/// The answer to a form that was sent after the session had ended.
pub fn session_ended(uri: &Uri) -> Response {
    let message = Message {
        title: "Not logged in",
        sentence: "Your session has ended. Nothing was changed.",
        hint: Some("Log in in another tab. Then go back and send the form again: what you typed is still there."),
    };
    (StatusCode::UNAUTHORIZED, Html(page::message(base_of(uri), &message))).into_response()
}

async fn start(person: &Session) -> Result<ApiToken, Error> {
    let session = ApiToken::generate(Kind::Person, TokenId(Uuid::now_v7()), person.tenant().clone())?;
    let (secret_sha256, expires_in_s) = (session.hash().to_hex(), DEFAULT_SESSION_S);
    let new = NewSession { id: session.id, name: "console", secret_sha256, expires_in_s };
    match token::session_create(person, &new).await? {
        TokenMade::Created { .. } => Ok(session),
        other => Err(Error::internal("start a session", format!("{other:?}"))),
    }
}

fn failed<T>(use_it: impl FnOnce(&mut Attempts) -> T) -> T {
    use_it(&mut FAILED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What was typed, and why nobody is logged in.
struct Asked<'a> {
    next: &'a str,
    email: &'a str,
    why: Option<&'a str>,
}

fn show_form(ctx: &Ctx, headers: &HeaderMap, asked: &Asked<'_>, status: StatusCode) -> Response {
    let token = csrf::login_token(headers);
    let page = LoginPage {
        token: &token.value,
        next: safe_next(asked.next).unwrap_or_default(),
        email: asked.email,
        why: asked.why,
        has_passwords: ctx.config.auth.login.is_some(),
    };
    let mut response = show(headers, |_| login_page(&page));
    if let Some(cookie) = token.set_cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    *response.status_mut() = status;
    response
}

/// The text, if it can only be a path below `/ui/`, relative to it: no other host, no `..`, no script.
fn safe_next(text: &str) -> Option<&str> {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&byte);
    let is_below = |segment: &str| {
        let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
        !segment.is_empty() && decoded != "." && decoded != ".."
    };
    let first = path.split('/').next().unwrap_or_default();
    let is_safe = text.len() <= MAX_NEXT_BYTES
        && text.bytes().all(is_plain)
        && path.split('/').all(is_below)
        && !first.contains(':')
        && !matches!(first, "login" | "logout");
    is_safe.then_some(text)
}

#[cfg(test)]
mod tests {
    use shared::auth::LinkToken;
    use shared::domain::LinkId;

    use super::*;

    #[test]
    fn only_a_page_of_ours_comes_after_a_login() {
        let link = LinkToken::generate(LinkId(Uuid::nil())).unwrap();
        let link = format!("links/{}", link.expose());
        let filtered = "runs/0190?kind=gates,models&step=a%20b";
        for safe in ["runs", filtered, "gates/1?from=inbox", "rules/public.a", "inbox#x", &link] {
            assert_eq!(safe_next(safe), Some(safe));
        }
        for unsafe_place in [
            "",
            "/runs",
            "//evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "https://evil.test",
            "https:evil.test",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "../runs",
            "runs/../../x",
            "..",
            ".",
            "%2e%2e/x",
            "runs/%2E%2e/x",
            ".%2e/x",
            "runs//x",
            "runs/",
            "?next=x",
            "#",
            "login",
            "login?next=login",
            "logout",
            "runs\nx",
            "runs\tx",
            " runs",
            "runs x",
            "ru\u{e4}ns",
            "<script>",
        ] {
            assert_eq!(safe_next(unsafe_place), None, "{unsafe_place}");
        }
        assert_eq!(safe_next(&"a".repeat(2_001)), None);
    }

    #[test]
    fn a_page_that_needs_a_login_is_where_it_leads() {
        let to = |uri: &str| {
            let response = to_login(&uri.parse().unwrap());
            response.headers()[header::LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(to("/ui/runs"), "login?next=runs");
        assert_eq!(to("/ui/runs/1/steps/2?attempt=1"), "../../../login?next=runs%2F1%2Fsteps%2F2%3Fattempt%3D1");
        assert_eq!(to("/ui"), "ui/login");
    }
}
