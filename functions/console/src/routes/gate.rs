//! A gate, and decisions about it.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::future;
use shared::db::console::{self, Document, Exhibit, Gate, GateDetail};
use shared::db::gate::GateDecision;
use shared::db::link::LinkProof;
use shared::domain::gate::Decision;
use shared::domain::{GateId, RunId};
use shared::error::{Code, Error};
use shared::flow::decide_gate::decide_gate_with;
use shared::http::{self, ACTOR, Form, Query, REASON, Sender, id_param, sender};
use shared::telemetry;

use super::{Visit, acting, document, failure, not_recorded, number, redirect, show};
use crate::evidence::GateChange;
use crate::page::{self, Base, Content, DecisionPage, LinkNote, Refusal, Refused, Unrecorded};
use crate::{csrf, viewer};

/// Documents that a page shows, and the largest one. Others are linked.
const DOCUMENTS: usize = 4;
const DOCUMENT_BYTES: u64 = 32 * 1024;
/// Where a reader who goes through the inbox comes from.
const INBOX: &str = "inbox";

/// A gate, the difference that it asks about, and the documents before it.
pub(super) struct Asked {
    detail: GateDetail,
    /// Or why it cannot be read.
    change: Option<Result<(Document, GateChange), String>>,
    contents: Vec<Content>,
}

impl Asked {
    pub async fn find(visit: &Visit, id: GateId, before: Option<GateId>) -> Result<Self, Error> {
        let detail = console::decision_fetch(&visit.session, id, before).await?;
        let detail = detail.ok_or_else(|| Error::NotFound(format!("gate {id}")))?;
        let change = difference(visit, &detail.gate).await?;
        let exhibits = detail.documents.iter().take(DOCUMENTS);
        let contents = future::join_all(exhibits.map(|exhibit| content(visit, exhibit))).await;
        Ok(Self { detail, change, contents })
    }

    /// The page at the gate's own address, as `change` changes it.
    pub fn show<'a>(
        &'a self,
        headers: &HeaderMap,
        change: impl FnOnce(DecisionPage<'a>) -> DecisionPage<'a>,
    ) -> Response {
        let difference = self.change.as_ref().map(|read| match read {
            Ok((document, change)) => Ok((document, change)),
            Err(why) => Err(why.as_str()),
        });
        let page = change(DecisionPage {
            base: Base::RUN,
            detail: &self.detail,
            change: difference,
            contents: &self.contents,
            token: "",
            from_inbox: false,
            rows: None,
            refused: None,
            link: None,
        });
        show(headers, |token| page::decision_page(&DecisionPage { token, ..page }))
    }
}

/// The first row to show, and the step that writes it.
fn rows(query: &Query) -> Result<Option<(usize, &str)>, Error> {
    let first = number(query, "rows")?.and_then(|first| usize::try_from(first).ok());
    Ok(first.zip(query.get("write")))
}

/// The difference that a gate asks about, if it asks about one. What cannot be read must not hide the gate.
async fn difference(visit: &Visit, gate: &Gate) -> Result<Option<Result<(Document, GateChange), String>>, Error> {
    let Some(artifact) = gate.evidence_id.filter(|_| gate.is_about_change()) else { return Ok(None) };
    let document = document::find(visit, artifact).await?;
    let change = match document::bytes(visit, &document).await {
        Ok(bytes) => GateChange::read(&bytes),
        Err(error) => {
            telemetry::report(&error, "read the difference of a gate");
            Err(error.to_string())
        }
    };
    Ok(Some(change.map(|change| (document, change))))
}

/// Refuses to let a gate pass if nobody can see what it asks about.
async fn check_readable(visit: &Visit, id: GateId) -> Result<(), Error> {
    let gate = console::gate_fetch(&visit.session, id).await?;
    let Some(gate) = gate.filter(Gate::is_open) else { return Ok(()) };
    match difference(visit, &gate).await? {
        Some(Err(why)) => {
            Err(Error::invalid("difference", format!("cannot be shown: {why}. Only a rejection is possible.")))
        }
        Some(Ok(_)) | None => Ok(()),
    }
}

/// What a document holds, if a page can show it. A document that cannot be read must not hide the gate.
async fn content(visit: &Visit, exhibit: &Exhibit) -> Content {
    let artifact = &exhibit.artifact;
    let media_type = artifact.media_type.split(';').next().unwrap_or_default().trim();
    let is_text = media_type.starts_with("text/")
        || matches!(media_type, "application/json" | "application/yaml" | "application/toml")
        || media_type.ends_with("+json");
    if !is_text || artifact.size_bytes > DOCUMENT_BYTES {
        return Content::Other;
    }
    match visit.ctx.storage.get(artifact, DOCUMENT_BYTES).await {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) if media_type == "text/markdown" => Content::Markdown(text),
            Ok(text) => Content::Text(text),
            Err(_) => Content::Other,
        },
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// `GET /ui/gates/{id}`. `from=inbox`: a decision leads to the next gate of the inbox. `decided`: the gate that was decided
/// before. `rows` and `write`: show the rows of this step's write from this one on.
pub async fn page(visit: Visit, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Response {
    let before = query.get("decided").and_then(|id| id.parse().ok());
    let from_inbox = query.get("from") == Some(INBOX);
    let read = async || {
        let rows = rows(&query)?;
        Ok((Asked::find(&visit, id_param("gate", &id)?, before).await?, rows))
    };
    match read().await {
        Ok((asked, rows)) => asked.show(&headers, |page| DecisionPage { from_inbox, rows, ..page }),
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `POST /ui/gates/{id}/{approve|reject|waive}`: redirects to the run or to the next gate of the inbox (303), or shows the
/// gate with the reason why not.
pub async fn decide(
    visit: Visit,
    Path((id, decision)): Path<(String, String)>,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let (decision, gate_id) = match (verb(&decision), id_param::<GateId>("gate", &id)) {
        (Some(decision), Ok(id)) => (decision, id),
        (None, _) => return failure(Base::GATE, &Error::NotFound("This page".into())),
        (_, Err(error)) => return failure(Base::GATE, &error),
    };
    // Check this first: a forged form must not learn whether the gate exists.
    let public_url = visit.ctx.config.public_url.as_deref();
    let forged = csrf::check(&headers, public_url, form.text("csrf")).err();
    // What another site sent is not shown.
    if let Some(sentence) = forged.filter(|_| sender(&headers, public_url) != Sender::Own) {
        return failure(Base::GATE, &Error::Forbidden(sentence.to_owned()));
    }
    go_on(&visit, &headers, gate_id, decision, &form, forged, &Way { base: Base::GATE, link: None }).await
}

/// How a decision reaches us: the depth of its address, and the link that it comes with.
pub(super) struct Way<'a> {
    pub base: Base,
    pub link: Option<(LinkNote<'a>, &'a LinkProof)>,
}

/// Decides, unless the form is `forged`: not of a page of this session.
pub(super) async fn go_on(
    visit: &Visit,
    headers: &HeaderMap,
    gate_id: GateId,
    decision: Decision,
    form: &Form,
    forged: Option<&str>,
    way: &Way<'_>,
) -> Response {
    if let Some(sentence) = forged {
        return refused(visit, headers, gate_id, decision, form, &Error::Forbidden(sentence.to_owned()), way).await;
    }
    match record(visit, gate_id, decision, form, way.link.map(|(_, proof)| proof)).await {
        Ok(run_id) => redirect(&way.base.to(&next(visit, gate_id, run_id, form).await)),
        // Its own page says what became of a link.
        Err(error @ Error::Conflict(Code::LinkUsed, _)) => failure(way.base, &error),
        Err(error @ (Error::Conflict(..) | Error::Invalid(_) | Error::Excluded(..) | Error::GateChanged(_))) => {
            refused(visit, headers, gate_id, decision, form, &error, way).await
        }
        Err(error @ (Error::Unavailable { .. } | Error::SigningUnavailable { .. })) => {
            unavailable(headers, gate_id, decision, form, &error, way)
        }
        Err(error) => failure(way.base, &error),
    }
}

/// Records the decision. Returns the id of the gate's run.
async fn record(
    visit: &Visit,
    gate_id: GateId,
    decision: Decision,
    form: &Form,
    link: Option<&LinkProof>,
) -> Result<RunId, Error> {
    let (actor, reason) = form.read(&[ACTOR, REASON, &["csrf"], &["digest"], &["from"], &["decision"]], |fields| {
        if fields.value("actor").is_none() && !viewer::is_known() {
            fields.problem("actor", "A decision needs a name.");
        }
        let (actor, reason) = (http::actor(fields), http::reason_of(fields, decision));
        Some((actor, reason))
    })?;
    let reason = reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    if decision != Decision::Reject {
        check_readable(visit, gate_id).await?;
    }
    let seen = Some(form.text("digest")).filter(|digest| !digest.is_empty());
    let decision = GateDecision { gate_id, decision, actor: &actor, reason, seen };
    let gate = decide_gate_with(&visit.ctx, &visit.session, &decision, link).await?;
    Ok(gate.run_id)
}

/// Where the reader goes on: with the next gate of the inbox, if they came from there and one waits, else with the run.
async fn next(visit: &Visit, decided: GateId, run: RunId, form: &Form) -> String {
    let next = match form.text("from") {
        INBOX => console::inbox_next(&visit.session, decided).await.ok().flatten(),
        _ => None,
    };
    match next {
        Some(gate) => format!("gates/{gate}?from={INBOX}&decided={decided}"),
        None => format!("runs/{run}?decided={decided}"),
    }
}

/// The gate as it is now, with the error on top and what was typed in the form.
async fn refused(
    visit: &Visit,
    headers: &HeaderMap,
    gate_id: GateId,
    decision: Decision,
    form: &Form,
    error: &Error,
    way: &Way<'_>,
) -> Response {
    let asked = match Asked::find(visit, gate_id, None).await {
        Ok(asked) => asked,
        // The form had no right token, so the answer is the same whether the gate exists or not.
        Err(_) if matches!(error, Error::Forbidden(_)) => return failure(way.base, error),
        Err(error) => return failure(way.base, &error),
    };
    let sentence = error.to_string();
    let (status, why) = match error {
        Error::Invalid(problems) => (StatusCode::BAD_REQUEST, Refusal::Problems(problems)),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, Refusal::Form(&sentence)),
        Error::Excluded(..) => (StatusCode::FORBIDDEN, Refusal::Excluded(&sentence)),
        Error::GateChanged(changed) => (StatusCode::CONFLICT, Refusal::Changed(changed)),
        _ => (StatusCode::CONFLICT, Refusal::Conflict(&sentence)),
    };
    let actor = acting(form);
    let typed = Refused { why, decision, actor: &actor, reason: form.text("reason") };
    let from_inbox = form.text("from") == INBOX;
    let link = way.link.map(|(note, _)| note);
    let mut response =
        asked.show(headers, |page| DecisionPage { base: way.base, from_inbox, refused: Some(typed), link, ..page });
    *response.status_mut() = status;
    response
}

/// The decision with its reason, if the database cannot say what became of it.
fn unavailable(
    headers: &HeaderMap,
    gate: GateId,
    decision: Decision,
    form: &Form,
    error: &Error,
    way: &Way<'_>,
) -> Response {
    let (verb, what) = match decision {
        Decision::Approve => ("approve", "approval"),
        Decision::Reject => ("reject", "rejection"),
        Decision::Waive => ("waive", "waiver"),
    };
    let place = format!("gates/{gate}");
    let action = way.link.map_or_else(|| format!("{place}/{verb}"), |(note, _)| format!("links/{}", note.token));
    let extra = if way.link.is_some() { ("decision", verb) } else { ("from", form.text("from")) };
    let hidden = [extra, ("digest", form.text("digest"))];
    let page = Unrecorded {
        base: way.base,
        token: "",
        what,
        why: "",
        maybe_done: false,
        action: &action,
        place: (&place, "the gate"),
        actor: form.text("actor"),
        text: Some(("reason", "Reason", form.text("reason"))),
        hidden: &hidden,
    };
    not_recorded(headers, error, page)
}

pub(super) fn verb(text: &str) -> Option<Decision> {
    match text {
        "approve" => Some(Decision::Approve),
        "reject" => Some(Decision::Reject),
        "waive" => Some(Decision::Waive),
        _ => None,
    }
}
