//! An artifact: what it holds, who made it, what it was made from, and what vouches for it.

mod preview;
mod storage;
mod verification;

use std::collections::HashSet;

use maud::{Markup, html};
use shared::db::console::{ArtifactDetail, GENERATIONS, Near};
use shared::domain::ArtifactId;

use super::format;
use super::icon::icon;
use super::json::pretty;
use super::layout::{Base, Layout, Part, layout};
use super::lineage::lineage;
use super::parts::{crumbs, facts, fold, hash, head, many, pairs, section, time};
use super::source::visible;
use crate::archive::Listing;
use crate::content::Content;
use crate::signature::Signature;

pub use storage::RefusedStorage;

/// Digits of an id that name it in a line.
const SHORT: usize = 8;

/// An artifact, and what is known about its bytes.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactPage<'a> {
    pub base: Base,
    /// The token for forms.
    pub token: &'a str,
    pub detail: &'a ArtifactDetail,
    /// A restore or a deletion that was not done.
    pub refused: Option<RefusedStorage<'a>>,
    /// What it holds, or why it cannot be read.
    pub stored: Result<&'a Stored, &'a Unreadable>,
    /// Of the evidence or the attestation of a gate.
    pub signature: Option<&'a Signature>,
}

/// The bytes of an artifact.
#[derive(Debug, Clone)]
pub struct Stored {
    pub content: Content,
    /// Whether all bytes were read and have the recorded digest.
    pub is_verified: bool,
    /// How many of the first bytes were read, and how many of them `content` has.
    pub read_bytes: u64,
    pub shown_bytes: u64,
    /// Of an archive.
    pub files: Option<Listing>,
    /// A URL of the picture, for a limited time. None if it is too large.
    pub image_url: Option<String>,
}

/// Why the bytes of an artifact cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// The storage has no such object.
    Gone,
    /// The object is not the one that was recorded.
    Changed,
    /// The storage has it and does not hand it out, for this reason.
    Refused(String),
    /// The storage does not answer, or does not let this function read.
    Away,
    /// They are archived or deleted, as recorded.
    Stored,
}

/// `GET /ui/artifacts/{id}`.
pub fn artifact_page(page: &ArtifactPage<'_>) -> String {
    let detail = page.detail;
    let content = html! {
        (title(page))
        div.columns {
            div {
                @if let Some(refused) = &page.refused { (storage::refused(refused)) }
                (storage::notices(&page.detail.storage))
                (verification::notices(page))
                (verification::statement(page))
                @if let Ok(stored) = page.stored { (preview::preview(page, stored)) }
                (around(page))
                (metadata(page))
            }
            aside aria-label="Facts of the artifact" {
                (known(page))
                (storage::storage(page))
                (verification::verification(page))
            }
        }
    };
    let title = visible(&detail.name);
    layout(&Layout { part: Part::Runs, waiting: detail.waiting, ..Layout::new(page.base, &title) }, &content)
}

/// The page of the attempt that made the artifact.
fn step_href(page: &ArtifactPage<'_>) -> Option<String> {
    let detail = page.detail;
    let (run, ordinal) = (detail.run_id?, detail.ordinal?);
    let attempt = detail.attempt.map(|attempt| format!("?attempt={attempt}")).unwrap_or_default();
    Some(page.base.to(&format!("runs/{run}/steps/{ordinal}{attempt}")))
}

fn title(page: &ArtifactPage<'_>) -> Markup {
    let (base, detail) = (page.base, page.detail);
    let mut list = vec![
        html! { bdi { (visible(&detail.kind)) } ", " bdi { (visible(&detail.artifact.media_type)) } },
        html! { (format::size(detail.artifact.size_bytes)) },
        maker(page, "made by "),
    ];
    list.push(time(&detail.created_at));
    let (goal, step) =
        (visible(detail.goal.as_deref().unwrap_or_default()), visible(detail.step.as_deref().unwrap_or_default()));
    let mut above = vec![("Runs", base.to("runs"))];
    above.extend(detail.run_id.map(|run| (goal.as_str(), base.to(&format!("runs/{run}")))));
    above.extend(step_href(page).map(|href| (step.as_str(), href)));
    let actions = download(page);
    html! {
        (crumbs(&above, &visible(&detail.name)))
        (head(&html! { bdi { (visible(&detail.name)) } }, &facts(list), actions.as_ref()))
    }
}

/// None of what cannot be had. What was changed is not the page's first action.
fn download(page: &ArtifactPage<'_>) -> Option<Markup> {
    let href = format!("{}?id={}", page.base.to("artifacts/signed"), page.detail.artifact.id);
    match page.stored {
        Ok(_) | Err(Unreadable::Away) => {
            Some(html! { a.button.primary href=(href) data-go="primary" { (icon("down", "")) "Download" } })
        }
        Err(Unreadable::Changed) => {
            Some(html! { a.button href=(href) { (icon("down", "")) "Download what is there" } })
        }
        Err(Unreadable::Gone | Unreadable::Refused(_) | Unreadable::Stored) => None,
    }
}

fn maker(page: &ArtifactPage<'_>, words: &str) -> Markup {
    let detail = page.detail;
    html! {
        @match (&detail.step, step_href(page)) {
            (Some(step), Some(href)) => {
                (words) a href=(href) { bdi { (visible(step)) } }
                @if let Some(attempt) = detail.attempt { ", attempt " (attempt) }
            }
            _ => "uploaded",
        }
    }
}

fn known(page: &ArtifactPage<'_>) -> Markup {
    let (base, detail) = (page.base, page.detail);
    let artifact = &detail.artifact;
    let (parents, children) = (beside(page, |edge| (edge.to, edge.from)), beside(page, |edge| (edge.from, edge.to)));
    let mut list = vec![
        ("sha256", hash(&artifact.hash, "sha256")),
        ("Size", html! { (many(artifact.size_bytes, "byte", "bytes")) }),
        ("Type", html! { bdi { (visible(&detail.kind)) } div.note { bdi { (visible(&artifact.media_type)) } } }),
        ("Made by", maker(page, "")),
        ("Made from", parents),
        ("Used by", children),
    ];
    if let Some(run) = detail.run_id {
        let short = run.to_string();
        let href = base.to(&format!("runs/{run}"));
        list.push(("Run", html! { a href=(href) { code { (short.get(..SHORT).unwrap_or(&short)) } } }));
    }
    list.push(("Id", hash(&artifact.id.to_string(), "id")));
    section("facts", "Facts", &html! {}, &pairs(list))
}

/// Links to the artifacts at the other end of edges of this one, and to the steps that made them.
fn beside(page: &ArtifactPage<'_>, ends: fn(&shared::view::LineageEdge) -> (ArtifactId, ArtifactId)) -> Markup {
    const NAMED: usize = 10;
    let detail = page.detail;
    let ids: HashSet<ArtifactId> =
        detail.edges.iter().map(ends).filter(|(here, _)| *here == detail.artifact.id).map(|(_, other)| other).collect();
    let near: Vec<&Near> = detail.nodes.iter().filter(|near| ids.contains(&near.node.id)).collect();
    html! {
        @if near.is_empty() { span.note { "nothing" } }
        @for (index, near) in near.iter().take(NAMED).enumerate() {
            @if index > 0 { br; }
            a href=(page.base.to(&format!("artifacts/{}", near.node.id))) { bdi { (visible(&near.node.name)) } }
            @if let (Some(run), Some(ordinal), Some(step)) = (near.node.run_id, near.ordinal, &near.node.step) {
                span.note { " by " a href=(page.base.to(&format!("runs/{run}/steps/{ordinal}"))) { bdi { (visible(step)) } } }
            }
        }
        @if near.len() > NAMED { br; span.note { "and " (near.len() - NAMED) " more" } }
    }
}

/// The lineage around the artifact.
fn around(page: &ArtifactPage<'_>) -> Markup {
    let detail = page.detail;
    if detail.nodes.len() < 2 {
        let body = html! { p.note { "It was made from no other artifact, and none was made from it." } };
        return section("lineage", "Lineage", &html! {}, &body);
    }
    let nodes: Vec<_> = detail.nodes.iter().map(|near| near.node.clone()).collect();
    let body = html! {
        (lineage(page.base, &nodes, &detail.edges, Some(detail.artifact.id)))
        p.note {
            "It reaches " (GENERATIONS) " generations back and " (GENERATIONS) " forward."
            @if detail.truncated { " These have more artifacts, or more links between them, than this page reads." }
            " The API has the whole lineage of a run."
        }
    };
    section("lineage", "Lineage", &html! { p.note { "made from what is on its left" } }, &body)
}

/// What the step that made it said about it.
fn metadata(page: &ArtifactPage<'_>) -> Markup {
    let metadata = &page.detail.metadata;
    if metadata.text == "{}" {
        return html! {};
    }
    let shown = pretty(&metadata.text);
    let is_cut = shown.is_cut || (metadata.text.len() as u64) < metadata.bytes;
    let body = html! {
        pre.output tabindex="0" role="region" aria-label="Metadata" { (shown.markup) }
        @if is_cut { p.note { "This is the beginning of " (format::size(metadata.bytes)) ". The API has all of it." } }
    };
    html! { section.section { (fold("Metadata", "what the step said about it", false, &body)) } }
}
