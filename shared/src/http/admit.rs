//! Checks before every route: the path is readable, the query string and body are what the route takes, and no page of
//! another site sent the request. A route declares what it takes, and its handler gets nothing else.

use axum::body::{self, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::body::Body;
use super::origin::{Sender, sender};
use super::problem::problem;
use super::query::{Form, Query};
use crate::error::{Code, Error};

/// Largest body. API Gateway allows 10 MB, and a plan has at most 1 MiB.
pub const MAX_BODY_BYTES: usize = 2 << 20;
/// Largest form without files. It has a name, a reason, and at most a policy.
const MAX_FORM_BYTES: usize = 64 << 10;
/// Largest form with files. API Gateway sends it to Lambda in base64, and Lambda takes 6 MB in all.
pub const MAX_UPLOAD_BYTES: usize = 4 << 20;

/// What a route takes.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// Known parameters of the query string.
    pub query: &'static [&'static str],
    pub body: BodyKind,
}

/// What the body contains.
#[derive(Debug, Clone, Copy)]
pub enum BodyKind {
    /// The body is ignored.
    Nothing,
    /// One JSON object, or nothing.
    Json,
    /// A form of a page, with these fields.
    Form(&'static [&'static str]),
    /// A form of a page with files (RFC 7578). The route reads it.
    Upload,
}

/// Why a request is refused before it reaches its route.
enum Refusal {
    TooLarge(usize),
    /// The content type that the body should have.
    WrongType(&'static str),
    Wrong(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::TooLarge(most) => problem(Code::TooLarge, &format!("the body has more than {most} bytes"), &[]),
            Self::WrongType(wanted) => {
                let detail = format!("the body needs the header content-type: {wanted}");
                problem(Code::UnsupportedMediaType, &detail, &[])
            }
            Self::Wrong(error) => error.into_response(),
        }
    }
}

/// Passes a request to its route, or refuses it.
pub(super) async fn admit(State(takes): State<Takes>, request: Request, next: Next) -> Response {
    match admitted(takes, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn admitted(takes: Takes, mut request: Request) -> Result<Request, Refusal> {
    readable_path(request.uri().path())?;
    let query = Query::read(request.uri().query().unwrap_or_default(), takes.query)?;
    request.extensions_mut().insert(query);
    let most = match takes.body {
        BodyKind::Nothing => return Ok(request),
        BodyKind::Json => MAX_BODY_BYTES,
        BodyKind::Form(_) => MAX_FORM_BYTES,
        BodyKind::Upload => MAX_UPLOAD_BYTES,
    };
    let (mut parts, body) = request.into_parts();
    // Do not trust `Content-Length`.
    let bytes = body::to_bytes(body, most).await.map_err(|_| Refusal::TooLarge(most))?;
    if !bytes.is_empty() {
        right_type(takes.body, &parts.headers)?;
    }
    match takes.body {
        BodyKind::Form(fields) => drop(parts.extensions.insert(form(&bytes, fields)?)),
        BodyKind::Json => drop(parts.extensions.insert(Body::parse(&bytes)?)),
        BodyKind::Nothing | BodyKind::Upload => {}
    }
    Ok(Request::from_parts(parts, bytes.into()))
}

/// Refuses writes that a page of another site made a browser send. Reads change nothing, and browsers hide their
/// answers from that page.
pub(super) async fn from_our_site(State(public_url): State<Option<String>>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !reads && sender(request.headers(), public_url.as_deref()) == Sender::Foreign {
        let detail = "the request came from a page of another site; nothing was changed";
        return problem(Code::ForbiddenOrigin, detail, &[]);
    }
    next.run(request).await
}

fn readable_path(path: &str) -> Result<(), Error> {
    match percent_decode_str(path).decode_utf8() {
        Err(_) => Err(Error::invalid("", "the path is not percent-encoded UTF-8")),
        // No name contains NUL, and Postgres cannot store it.
        Ok(path) if path.contains('\0') => Err(Error::NotFound("this path".into())),
        Ok(_) => Ok(()),
    }
}

fn form(bytes: &Bytes, fields: &[&str]) -> Result<Form, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("", "the form is not UTF-8"))?;
    Form::parse(text, fields)
}

fn right_type(kind: BodyKind, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let essence = match (types.next().map(|value| value.to_str()), types.next()) {
        (Some(Ok(one)), None) => one.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
        _ => String::new(),
    };
    let (is_right, wanted) = match kind {
        BodyKind::Form(_) => (essence == "application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        BodyKind::Upload => (essence == "multipart/form-data", "multipart/form-data"),
        BodyKind::Nothing | BodyKind::Json => {
            let is_json =
                essence.strip_prefix("application/").is_some_and(|sub| sub == "json" || sub.ends_with("+json"));
            (is_json, "application/json")
        }
    };
    if is_right { Ok(()) } else { Err(Refusal::WrongType(wanted)) }
}
