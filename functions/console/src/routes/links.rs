//! One-time links to gates. `GET` shows and never decides: scanners of mails follow every link. `POST` decides, for the
//! person whom the link is for.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use shared::auth::LinkToken;
use shared::db::console;
use shared::db::link::{LinkOpened, LinkProof, LinkState, NewLink, link_open};
use shared::domain::access::MAX_EMAIL_BYTES;
use shared::domain::fields::{Most, Names};
use shared::domain::{GateId, LinkId};
use shared::error::Error;
use shared::flow::link_gate::{DEFAULT_LINK_S, link_gate};
use shared::http::{BasePath, Form, Sender, id_param, link_url, sender};
use uuid::Uuid;

use super::gate::{Asked, Way, go_on, verb};
use super::{Visit, failure, show};
use crate::csrf;
use crate::page::{
    self, Base, DecisionPage, LINK_DAYS, LinkNote, LinkPage, MadeLink, Void, foreign_link_page, link_page,
};

const FIELDS: &[Names] = &[&["for"], &["days"], &["csrf"]];
const SECONDS_A_DAY: u32 = 86_400;

/// `GET /ui/links/{token}`: the gate, for the person of the link. Changes nothing.
pub async fn page(visit: Visit, Path(token): Path<String>, headers: HeaderMap) -> Response {
    let found = match Found::of(&visit, &token, false).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    match Asked::find(&visit, found.state.gate_id, None).await {
        Ok(asked) => asked.show(&headers, |page| DecisionPage { link: Some(found.note(&token)), ..page }),
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `POST /ui/links/{token}`: decides, and redirects to the run (303). Or shows the gate with the reason why not.
pub async fn decide(visit: Visit, Path(token): Path<String>, headers: HeaderMap, form: Form) -> Response {
    if LinkToken::parse(&token).is_none() {
        return unknown();
    }
    let public_url = visit.ctx.config.public_url.as_deref();
    let forged = csrf::check(&headers, public_url, form.text("csrf")).err();
    // What another site sent is not shown, and must not learn whether the link exists.
    if let Some(sentence) = forged.filter(|_| sender(&headers, public_url) != Sender::Own) {
        return failure(Base::RUN, &Error::Forbidden(sentence.to_owned()));
    }
    let found = match Found::of(&visit, &token, true).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let Some(decision) = verb(form.text("decision")) else {
        return failure(Base::RUN, &Error::invalid("decision", "must be approve, reject or waive"));
    };
    let way = Way { base: Base::RUN, link: Some((found.note(&token), &found.proof)) };
    let answer = go_on(&visit, &headers, found.state.gate_id, decision, &form, forged, &way).await;
    // Whoever was faster has used it up.
    if answer.status() == StatusCode::GONE {
        return Found::of(&visit, &token, true).await.map_or_else(|page| page, |_| answer);
    }
    answer
}

/// `POST /ui/gates/{id}/links`: the page with the new link, which no other page shows.
pub async fn make(
    visit: Visit,
    base_path: BasePath,
    Path(id): Path<String>,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let base = Base::GATE;
    let gate: GateId = match id_param("gate", &id) {
        Ok(gate) => gate,
        Err(error) => return failure(base, &error),
    };
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(base, &Error::Forbidden(sentence.to_owned()));
    }
    let made = async {
        let (person, days) = form.read(FIELDS, |fields| {
            fields.require(&["for"]);
            let days = fields.read("days", |days| {
                let days = days.as_str().and_then(|days| days.parse().ok()).filter(|days| LINK_DAYS.contains(days));
                days.ok_or_else(|| "must be one of the choices".to_owned())
            });
            Some((fields.filled("for", Most::Bytes(MAX_EMAIL_BYTES))?, days))
        })?;
        let token = LinkToken::generate(LinkId(Uuid::now_v7()))?;
        let new = NewLink {
            id: token.id,
            gate_id: gate,
            person: person.trim(),
            secret_sha256: token.hash().to_hex(),
            expires_in_s: days.map_or(DEFAULT_LINK_S, |days| days * SECONDS_A_DAY),
        };
        Ok((link_gate(&visit.session, &new).await?, token))
    };
    let (outcome, status) = match made.await {
        Ok(made) => (Ok(made), StatusCode::CREATED),
        Err(error @ Error::Invalid(_)) => (Err(format!("{error}.")), StatusCode::BAD_REQUEST),
        Err(error @ Error::Conflict(..)) => (Err(format!("{error}.")), StatusCode::CONFLICT),
        Err(error) => return failure(base, &error),
    };
    let url = |token| link_url(visit.ctx.config.public_url.as_deref(), &base_path, token);
    let shown = outcome.as_ref().map(|(link, token)| (url(token), link));
    let mut response = show(&headers, |token| {
        let outcome = match &shown {
            Ok((url, link)) => Ok(MadeLink { url, name: &link.name, expires_at: &link.expires_at }),
            Err(why) => Err((why.as_str(), form.text("for"))),
        };
        link_page(&LinkPage { base, token, gate, outcome })
    });
    *response.status_mut() = status;
    response
}

fn unknown() -> Response {
    failure(Base::RUN, &Error::NotFound("This link".to_owned()))
}

/// A link that its person can use.
struct Found {
    proof: LinkProof,
    state: LinkState,
}

impl Found {
    /// The link with this text, or the page which says why it cannot be used.
    async fn of(visit: &Visit, token: &str, decides: bool) -> Result<Self, Response> {
        let base = Base::RUN;
        let token = LinkToken::parse(token).ok_or_else(unknown)?;
        let proof = LinkProof::new(token.id, token.hash());
        let opened = match link_open(&visit.session, &proof, decides).await {
            Ok(opened) => opened,
            Err(error) => return Err(failure(base, &error)),
        };
        let (state, void): (_, fn(&LinkState) -> Void<'_>) = match opened {
            LinkOpened::Open(state) => return Ok(Self { proof, state }),
            LinkOpened::NotFound => return Err(unknown()),
            LinkOpened::Other => {
                // A read, so that the page names who is logged in.
                let known = visit.session.principal().await;
                let page = known.map(|_| (StatusCode::FORBIDDEN, Html(foreign_link_page(base))).into_response());
                return Err(page.unwrap_or_else(|error| failure(base, &error)));
            }
            LinkOpened::Used(state) => (state, |state| Void::Used(state.used_at.as_ref())),
            LinkOpened::Expired(state) => (state, |state| Void::Expired(&state.expires_at)),
            LinkOpened::Changed(state) => (state, |state| Void::Changed(&state.changed)),
        };
        Err(match console::gate_fetch(&visit.session, state.gate_id).await {
            Ok(Some(gate)) => (StatusCode::GONE, Html(page::void_link_page(base, &gate, void(&state)))).into_response(),
            Ok(None) => unknown(),
            Err(error) => failure(base, &error),
        })
    }

    fn note<'a>(&'a self, token: &'a str) -> LinkNote<'a> {
        LinkNote { token, name: &self.state.name, expires_at: &self.state.expires_at }
    }
}
