//! Pages that say one thing: what was not found, refused, or is away.

use maud::html;

use super::layout::{Base, Frame, frame};

/// What happened, and what the reader can do.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub title: &'a str,
    pub sentence: &'a str,
    pub hint: Option<&'a str>,
}

/// The page.
pub fn message(base: Base, message: &Message<'_>) -> String {
    let content = html! {
        h1 { (message.title) }
        p.sentence role="alert" { (message.sentence) }
        @if let Some(hint) = message.hint { p { (hint) } }
        p { a href=(base.to("runs")) { "All runs" } }
    };
    frame(&Frame { base, title: message.title, refresh_s: None }, &content)
}
