//! What a run is, and what happens next.

use maud::{Markup, html};
use shared::db::console::Run;

use crate::page::format;
use crate::page::icon::{look, state};
use crate::page::parts::time;

pub(super) fn summary(run: &Run) -> Markup {
    html! {
        section data-region="summary" {
            p.facts {
                (state(look(run.status)))
                span { "created " (time(&run.created_at)) }
                @if let Some(at) = &run.started_at { span { "started " (time(at)) } }
                @if let Some(at) = &run.finished_at { span { "ended " (time(at)) } }
                @if let Some(ms) = run.duration_ms { span { "took " (format::duration(ms)) } }
                @if let (true, Some(at)) = (run.is_open(), &run.deadline_at) { span { "times out " (time(at)) } }
                @if run.generation > 1 { span { "generation " (run.generation) } }
            }
            @if let Some(failure) = &run.failure { p.error { bdi { (failure) } } }
            p.note { "Run " code { (run.id) } ", plan " code { (run.plan_digest) } }
        }
    }
}
