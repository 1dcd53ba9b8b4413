//! Routes that show what gates stored. A document is read by its row, which belongs to the tenant and has its digest.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Response};
use shared::context::Ctx;
use shared::db::console::{self, Document};
use shared::domain::{ArtifactId, GateId};
use shared::error::Error;
use shared::http::id_param;

use crate::evidence::{Evidence, GateChange};
use crate::page::{self, Base, DecisionPage, EVIDENCE, EvidencePage};
use crate::routes::{failure, show};

/// Larger documents can only be downloaded.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// `GET /ui/evidence/{id}`.
pub async fn evidence(State(ctx): State<Ctx>, Path(id): Path<String>) -> Response {
    let read = async || {
        let id: ArtifactId = id_param("evidence", &id)?;
        let document = find(&ctx, id).await?;
        if document.kind != EVIDENCE {
            return Err(Error::NotFound(format!("evidence {id}")));
        }
        let evidence = Evidence::read(&bytes(&ctx, &document).await?).map_err(unreadable)?;
        Ok((document, evidence))
    };
    match read().await {
        Ok((document, evidence)) => {
            let page = EvidencePage { base: Base::RUN, document: &document, evidence: &evidence };
            Html(page::evidence_page(&page)).into_response()
        }
        Err(error) => failure(Base::RUN, &error),
    }
}

/// `GET /ui/gates/{id}`.
pub async fn gate(State(ctx): State<Ctx>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let read = async || {
        let id: GateId = id_param("gate", &id)?;
        let gate = console::gate_fetch(&ctx.db, &ctx.config.tenant, id).await?;
        let gate = gate.ok_or_else(|| Error::NotFound(format!("gate {id}")))?;
        let Some(artifact) = gate.evidence_id.filter(|_| gate.is_about_change()) else { return Ok((gate, None)) };
        let document = find(&ctx, artifact).await?;
        let change = GateChange::read(&bytes(&ctx, &document).await?).map_err(unreadable)?;
        Ok((gate, Some((document, change))))
    };
    match read().await {
        Ok((gate, change)) => show(&headers, |token| {
            let change = change.as_ref().map(|(document, change)| (document, change));
            page::decision_page(&DecisionPage { base: Base::RUN, gate: &gate, change, token })
        }),
        Err(error) => failure(Base::RUN, &error),
    }
}

async fn find(ctx: &Ctx, id: ArtifactId) -> Result<Document, Error> {
    let document = console::document_fetch(&ctx.db, &ctx.config.tenant, id).await?;
    document.ok_or_else(|| Error::NotFound(format!("document {id}")))
}

async fn bytes(ctx: &Ctx, document: &Document) -> Result<Vec<u8>, Error> {
    ctx.storage.get(&document.artifact, MAX_BYTES).await
}

fn unreadable(why: String) -> Error {
    Error::invalid("document", why)
}
