//! The artifacts of a run.

use maud::{Markup, html};
use shared::db::console::{Artifact, Run};
use shared::domain::artifact_storage::StorageState;

use crate::page::format;
use crate::page::icon::icon;
use crate::page::layout::Base;
use crate::page::parts::section;
use crate::page::source::visible;

/// What the run stored, newest first.
pub(super) fn artifacts(base: Base, run: &Run) -> Markup {
    let body = html! {
        @if run.artifacts.is_empty() { p.note { "None yet." } }
        @else { ul.files { @for artifact in &run.artifacts { (artifact_item(base, artifact)) } } }
        @if run.artifacts_total > run.artifacts.len() {
            p.note { "The newest " (run.artifacts.len()) " of " (run.artifacts_total) " are shown." }
        }
    };
    let aside = html! {
        p.note {
            (run.artifacts_total) " · " a href=(base.to(&format!("runs/{}/lineage", run.id))) { "lineage and proof" }
        }
    };
    section("artifacts", "Artifacts", &aside, &body)
}

/// An artifact: its name leads to its page.
pub(in crate::page) fn artifact_item(base: Base, artifact: &Artifact) -> Markup {
    let download = format!("{}?id={}", base.to("artifacts/signed"), artifact.id);
    let name = visible(&artifact.name);
    html! {
        li data-row {
            (icon("doc", "quiet"))
            a href=(base.to(&format!("artifacts/{}", artifact.id))) { bdi { (name) } }
            span.note title={ (visible(&artifact.media_type)) ", sha256 " (visible(&artifact.hash)) } {
                (visible(&artifact.kind)) @if let Some(step) = &artifact.step { ", by " bdi { (visible(step)) } }
                @if let Some(state) = artifact.storage { ", " (state.as_str()) }
            }
            span.note.number {
                (format::size(artifact.size_bytes))
                @if artifact.storage.is_none_or(StorageState::is_readable) {
                    " " a href=(download) aria-label={ "Download " (name) } { "download" }
                }
            }
        }
    }
}
