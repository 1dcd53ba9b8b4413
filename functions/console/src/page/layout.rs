//! The layout of every page, and elements that several pages use.

use std::fmt::Display;

use maud::{DOCTYPE, Markup, html};
use shared::domain::Timestamp;

use super::format;
use crate::assets::{CSS, JS};

/// The depth of a page below `/ui/`. Links go up that many levels and never name a level above `/ui/`.
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

/// What a page sets in the layout.
pub(super) struct Layout<'a> {
    pub base: Base,
    pub title: &'a str,
    /// Reload interval for browsers without scripts.
    pub refresh_s: Option<u32>,
}

pub(super) fn layout(layout: &Layout<'_>, content: &Markup) -> String {
    let base = layout.base;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (layout.title) " – NOFX" }
                link rel="stylesheet" href=(base.to(&CSS.path()));
                script src=(base.to(&JS.path())) defer {}
                @if let Some(seconds) = layout.refresh_s {
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

/// A state as a coloured label.
pub(super) fn badge(status: impl Display + Copy) -> Markup {
    html! { span class={ "badge " (format::tone(status)) } { (status) } }
}

/// A timestamp. The script replaces it by a relative time in the user's language.
pub(super) fn time(timestamp: &Timestamp) -> Markup {
    html! { time datetime=(timestamp) { (format::plain_time(&timestamp.0)) } }
}
