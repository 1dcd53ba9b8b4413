//! The artifacts of a run.

use maud::{Markup, html};
use shared::db::console::{Artifact, Run};

use crate::page::format;
use crate::page::icon::icon;
use crate::page::layout::Base;
use crate::page::parts::section;

/// What the run stored, newest first.
pub(super) fn artifacts(base: Base, run: &Run) -> Markup {
    let body = html! {
        @if run.artifacts.is_empty() { p.note { "None yet." } }
        @else { ul.files { @for artifact in &run.artifacts { (artifact_item(base, artifact)) } } }
        @if run.artifacts_total > run.artifacts.len() {
            p.note { "The newest " (run.artifacts.len()) " of " (run.artifacts_total) " are shown." }
        }
    };
    section("artifacts", "Artifacts", &html! { p.note { (run.artifacts_total) } }, &body)
}

/// An artifact: evidence leads to its page, everything else is downloaded.
pub(in crate::page) fn artifact_item(base: Base, artifact: &Artifact) -> Markup {
    let download = format!("{}?id={}", base.to("artifacts/signed"), artifact.id);
    html! {
        li data-row {
            (icon("doc", "quiet"))
            @if artifact.kind == crate::page::EVIDENCE {
                a href={ (base.to("evidence/")) (artifact.id) } { bdi { (artifact.name) } }
            } @else {
                a href=(download) { bdi { (artifact.name) } }
            }
            span.note title={ (artifact.media_type) ", sha256 " (artifact.hash) } {
                (artifact.kind) @if let Some(step) = &artifact.step { ", by " bdi { (step) } }
            }
            span.note.number { (format::size(artifact.size_bytes)) " " a href=(download) { "download" } }
        }
    }
}
