//! How a change weakens its checks, as a person has to see it.

use maud::{Markup, html};

use super::source::{difference, visible};
use crate::evidence::Weakening;

/// The limits of a page, in weakenings and in lines of all differences.
const SHOWN: usize = 200;
const LINES: usize = 3_000;

/// Renders the first weakenings of `total`.
pub(super) fn weakenings(listed: &[Weakening], total: u64) -> Markup {
    let mut room = LINES;
    let mut shown = Vec::new();
    for weakening in listed.iter().take(SHOWN) {
        if room == 0 {
            break;
        }
        let diff = weakening.difference.as_deref().filter(|text| !text.is_empty()).map(|text| {
            let (markup, count) = difference(text, room);
            room -= count;
            markup
        });
        shown.push((weakening, diff));
    }
    html! {
        @for (weakening, diff) in &shown { (one(weakening, diff.as_ref())) }
        @if total > shown.len() as u64 {
            div.notice.warn role="note" {
                p { strong { (total - shown.len() as u64) " more changes are not on this page." } " Read the whole document before you decide." }
            }
        }
    }
}

fn one(weakening: &Weakening, diff: Option<&Markup>) -> Markup {
    html! {
        figure.file {
            figcaption {
                strong { (title(&weakening.kind)) }
                " " code { bdi { (visible(&weakening.path)) } @if let Some(line) = weakening.line { ":" (line) } }
            }
            p.lead { bdi { (visible(&weakening.message)) } }
            @if let Some(diff) = diff { (diff) }
        }
    }
}

fn title(kind: &str) -> String {
    let known = match kind {
        "definition_changed" => "A gate checks less",
        "protected_changed" => "Protected file changed",
        "test_deleted" => "Test deleted",
        "test_skipped" => "Test skipped",
        "test_focused" => "Only some tests run",
        "test_inverted" => "Test passes when its code fails",
        "assertions_removed" => "Assertions removed",
        "check_replaced" => "Check replaced",
        "ignore_comment_added" => "Finding or line ignored",
        "hidden_characters" => "Hidden characters",
        "unreadable" => "Cannot be compared",
        other => return visible(other),
    };
    known.to_owned()
}
