//! An artifact: what it holds, who made it, what it was made from, and what vouches for it.

mod preview;
mod verification;

use maud::{Markup, html};
use shared::db::console::ArtifactDetail;
use shared::domain::ArtifactId;

use super::format;
use super::icon::icon;
use super::json::pretty;
use super::layout::{Base, Layout, Part, layout};
use super::lineage::lineage;
use super::parts::{crumbs, facts, fold, hash, head, many, pairs, section, time};
use super::source::visible;
use crate::content::Content;
use crate::signature::Signature;

/// Digits of an id that name it in a line.
const SHORT: usize = 8;

/// An artifact, and what is known about its bytes.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactPage<'a> {
    pub base: Base,
    pub detail: &'a ArtifactDetail,
    /// What it holds, or why it cannot be read.
    pub stored: Result<&'a Stored, &'a str>,
    /// Of the evidence or the attestation of a gate.
    pub signature: Option<&'a Signature>,
}

/// The bytes of an artifact.
#[derive(Debug, Clone)]
pub struct Stored {
    pub content: Content,
    /// Whether all bytes were read and have the recorded digest.
    pub is_verified: bool,
    /// How many of the first bytes `content` has.
    pub shown_bytes: u64,
    /// A URL of the picture, for a limited time. None if it is too large.
    pub image_url: Option<String>,
}

/// `GET /ui/artifacts/{id}`.
pub fn artifact_page(page: &ArtifactPage<'_>) -> String {
    let detail = page.detail;
    let content = html! {
        (title(page))
        div.columns {
            div {
                (verification::notices(page))
                (section("preview", "Preview", &html! {}, &preview::preview(page)))
                (verification::statement(page))
                (around(page))
                (metadata(page))
            }
            aside aria-label="Facts of the artifact" {
                (known(page))
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
    let download = format!("{}?id={}", base.to("artifacts/signed"), detail.artifact.id);
    let actions = html! { a.button.primary href=(download) data-go="primary" { (icon("down", "")) "Download" } };
    html! {
        (crumbs(&above, &visible(&detail.name)))
        (head(&html! { bdi { (visible(&detail.name)) } }, &facts(list), Some(&actions)))
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

/// Links to the artifacts at the other end of edges of this one.
fn beside(page: &ArtifactPage<'_>, ends: fn(&shared::view::LineageEdge) -> (ArtifactId, ArtifactId)) -> Markup {
    const NAMED: usize = 10;
    let detail = page.detail;
    let ids: Vec<ArtifactId> =
        detail.edges.iter().map(ends).filter(|(here, _)| *here == detail.artifact.id).map(|(_, other)| other).collect();
    let nodes: Vec<_> = detail.nodes.iter().filter(|node| ids.contains(&node.id)).collect();
    html! {
        @if nodes.is_empty() { span.note { "nothing" } }
        @for (index, node) in nodes.iter().take(NAMED).enumerate() {
            @if index > 0 { br; }
            a href=(page.base.to(&format!("artifacts/{}", node.id))) { bdi { (visible(&node.name)) } }
        }
        @if nodes.len() > NAMED { br; span.note { "and " (nodes.len() - NAMED) " more" } }
    }
}

/// The lineage around the artifact.
fn around(page: &ArtifactPage<'_>) -> Markup {
    let detail = page.detail;
    let body = html! {
        @if detail.nodes.len() > 1 { (lineage(page.base, &detail.nodes, &detail.edges, Some(detail.artifact.id))) }
        @else { p.note { "It was made from no other artifact, and none was made from it." } }
        @if detail.truncated { p.note { "There are more artifacts around it. The API has the whole lineage of a run." } }
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
