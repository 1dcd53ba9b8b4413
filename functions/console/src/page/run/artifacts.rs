//! The artifacts of a run.

use maud::{Markup, html};
use shared::db::console::{Artifact, Run};

use crate::page::format;
use crate::page::layout::Base;

pub(super) fn artifacts(base: Base, run: &Run) -> Markup {
    html! {
        section data-region="artifacts" aria-labelledby="artifacts" {
            h2 #artifacts { "Artifacts" }
            @if run.artifacts.is_empty() { p.empty { "None yet." } }
            ul.plain { @for artifact in &run.artifacts { (artifact_item(base, artifact)) } }
            @if run.artifacts_total > run.artifacts.len() {
                p.note { "The newest " (run.artifacts.len()) " of " (run.artifacts_total) " are shown." }
            }
        }
    }
}

pub(in crate::page) fn artifact_item(base: Base, artifact: &Artifact) -> Markup {
    html! {
        li {
            a href={ (base.to("artifacts/signed")) "?id=" (artifact.id) } { bdi { (artifact.name) } }
            @if artifact.kind == crate::page::EVIDENCE { " (" a href={ (base.to("evidence/")) (artifact.id) } { "show" } ")" }
            span.note {
                " " (artifact.kind) ", " (artifact.media_type) ", " (format::size(artifact.size_bytes))
                @if let Some(step) = &artifact.step { ", of step " bdi { (step) } }
            }
            div.note { "sha256 " code { (artifact.hash) } }
        }
    }
}
