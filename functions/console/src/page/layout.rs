//! The frame of every page, and the small pieces that several of them show.

use std::fmt::Display;

use maud::{DOCTYPE, Markup, html};
use shared::domain::Timestamp;

use super::words;
use crate::assets::{CSS, JS};

/// Where a page stands below `/ui/`: the number of folders between. Links go up by as many and never name what is
/// above.
#[derive(Debug, Clone, Copy)]
pub struct Base(pub usize);

impl Base {
    /// `/ui/runs`, `/ui/`
    pub const TOP: Self = Self(0);
    /// `/ui/runs/{id}`
    pub const RUN: Self = Self(1);
    /// `/ui/gates/{id}/{verb}`
    pub const GATE: Self = Self(2);

    /// A link to something below `/ui/`.
    pub fn to(self, path: &str) -> String {
        format!("{}{path}", "../".repeat(self.0))
    }
}

/// What a page tells the frame.
pub(super) struct Frame<'a> {
    pub base: Base,
    pub title: &'a str,
    /// Seconds after which a reader without scripts gets the page again.
    pub refresh_s: Option<u32>,
}

pub(super) fn frame(frame: &Frame<'_>, content: &Markup) -> String {
    let base = frame.base;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (frame.title) " – NOFX" }
                link rel="stylesheet" href=(base.to(&CSS.path()));
                script src=(base.to(&JS.path())) defer {}
                @if let Some(seconds) = frame.refresh_s {
                    noscript { meta http-equiv="refresh" content=(seconds); }
                }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.site { a.brand href=(base.to("runs")) { "NOFX" } nav { a href=(base.to("runs")) { "Runs" } } }
                main #main { (content) }
            }
        }
    };
    page.into_string()
}

/// A state as a coloured word.
pub(super) fn badge(status: impl Display + Copy) -> Markup {
    html! { span class={ "badge " (words::tone(status)) } { (status) } }
}

/// A moment: the timestamp as it is; the script turns it into words of the reader's language.
pub(super) fn moment(timestamp: &Timestamp) -> Markup {
    html! { time datetime=(timestamp) { (words::plain_time(&timestamp.0)) } }
}
