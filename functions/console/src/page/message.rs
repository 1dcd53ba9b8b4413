//! Pages with one message, for example an error.

use maud::html;

use super::icon::icon;
use super::layout::{Base, Layout, layout};

/// What happened, and what the user can do.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub title: &'a str,
    pub sentence: &'a str,
    pub hint: Option<&'a str>,
}

/// Renders the page.
pub fn message(base: Base, message: &Message<'_>) -> String {
    let content = html! {
        div.message {
            (icon("bad", "bad"))
            h1 { (message.title) }
            p.lead role="alert" { (message.sentence) }
            @if let Some(hint) = message.hint { p { (hint) } }
            p { a.button href=(base.to("runs")) { "All runs" } }
        }
    };
    layout(&Layout::new(base, message.title), &content)
}
