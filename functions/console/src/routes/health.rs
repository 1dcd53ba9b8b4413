//! The health of the engine, and the redrive of dead letters.

use std::time::Instant;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::future;
use shared::db::console::{self, Health};
use shared::error::Error;
use shared::flow::queues;
use shared::http::{self, ACTOR, Form, Query};
use shared::telemetry;
use shared::view::QueueDepth;
use uuid::Uuid;

use super::{Visit, failure, redirect, show};
use crate::page::{Base, HealthPage, Letters, health_page};
use crate::{csrf, viewer};

/// What a page shows.
struct Read {
    health: Health,
    database_ms: u64,
    /// Without SQS the page still shows what the database knows.
    queues: Option<Vec<QueueDepth>>,
    letters: Vec<Letters>,
}

/// `GET /ui/health`. `redriven` is the id of the redrive that the reader has just made.
pub async fn page(visit: Visit, query: Query, headers: HeaderMap) -> Response {
    let redriven = query.get("redriven").and_then(|id| id.parse().ok());
    match read(&visit).await {
        Ok(found) => show_page(&headers, Base::TOP, &found, redriven, None),
        Err(error) => failure(Base::TOP, &error),
    }
}

/// `POST /ui/health/{handler}/redrive`: redirects to the page (303), or shows it with the reason why not.
pub async fn redrive(visit: Visit, Path(handler): Path<String>, headers: HeaderMap, form: Form) -> Response {
    let base = Base::GATE;
    // Names of handlers are no secret.
    if let Err(error) = queues::handler_named(&visit.ctx, &handler) {
        return failure(base, &error);
    }
    if let Err(sentence) = csrf::check(&headers, visit.ctx.config.public_url.as_deref(), form.text("csrf")) {
        return failure(base, &Error::Forbidden(format!("{sentence} Load its page again first.")));
    }
    let actor = form.read(&[ACTOR, &["csrf"]], |fields| {
        if !viewer::is_known() {
            fields.require(&["actor"]);
        }
        Some(http::actor(fields))
    });
    let id = Uuid::now_v7();
    let moved = match actor {
        Ok(actor) => queues::redrive(&visit.ctx, &visit.session, id, &handler, &actor).await,
        Err(error) => Err(error),
    };
    match moved {
        Ok(_) => redirect(&base.to(&format!("health?redriven={id}"))),
        Err(error @ Error::Invalid(_)) => match read(&visit).await {
            Ok(found) => {
                let mut response = show_page(&headers, base, &found, None, Some(&error.to_string()));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
            Err(error) => failure(base, &error),
        },
        Err(error) => failure(base, &error),
    }
}

async fn read(visit: &Visit) -> Result<Read, Error> {
    let start = Instant::now();
    let health = console::health_fetch(&visit.session).await?;
    let database_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let queues = match queues::queue_list(&visit.ctx, &visit.session).await {
        Ok(list) => Some(list.queues),
        // Of another tenant than the deployment's own.
        Err(error @ Error::NotFound(_)) => return Err(error),
        Err(error) => {
            telemetry::report(&error, "read the queues");
            None
        }
    };
    let full = queues.iter().flatten().filter(|queue| queue.dead_letters > 0);
    let letters = future::join_all(full.map(|queue| letters_of(visit, queue))).await.into_iter().flatten().collect();
    Ok(Read { health, database_ms, queues, letters })
}

async fn letters_of(visit: &Visit, queue: &QueueDepth) -> Option<Letters> {
    match queues::dead_letters(&visit.ctx, &visit.session, &queue.handler).await {
        Ok(messages) => Some(Letters { handler: queue.handler.clone(), total: queue.dead_letters, messages }),
        Err(error) => {
            telemetry::report(&error, "read dead letters");
            None
        }
    }
}

fn show_page(headers: &HeaderMap, base: Base, found: &Read, redriven: Option<Uuid>, refused: Option<&str>) -> Response {
    let Read { health, database_ms, queues, letters } = found;
    show(headers, |token| {
        let (database_ms, queues) = (*database_ms, queues.as_deref());
        health_page(&HealthPage { base, token, health, database_ms, queues, letters, redriven, refused })
    })
}
