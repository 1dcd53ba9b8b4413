//! The page after a form that was sent during an outage: what is known about it, and all that was typed.

use maud::html;

use super::icon::icon;
use super::layout::{Base, Layout, layout};
use super::parts::{actor_field, as_sentence};
use super::source::visible;

/// A form whose change is not recorded, or perhaps not.
#[derive(Debug, Clone, Copy)]
pub struct Unrecorded<'a> {
    pub base: Base,
    /// The token for forms.
    pub token: &'a str,
    /// "rejection".
    pub what: &'a str,
    /// What is unavailable.
    pub why: &'a str,
    /// The change may have been recorded nevertheless.
    pub maybe_done: bool,
    /// Where the form is sent again, below `/ui/`.
    pub action: &'a str,
    /// Where the reader sees whether it counted: its address below `/ui/`, and its name.
    pub place: (&'a str, &'a str),
    pub actor: &'a str,
    /// Name, label and text of a long field.
    pub text: Option<(&'a str, &'a str, &'a str)>,
    /// Names and values of the other fields.
    pub hidden: &'a [(&'a str, &'a str)],
}

/// Renders the page. It needs no database.
pub fn unrecorded(page: &Unrecorded<'_>) -> String {
    let Unrecorded { base, what, why, maybe_done, place: (address, name), .. } = *page;
    let title = if maybe_done {
        format!("It is not known whether the {what} counted")
    } else {
        format!("The {what} did not count")
    };
    let content = html! {
        div.message {
            (icon("bad", "bad"))
            h1 { (title) }
            p.lead role="alert" {
                bdi { (visible(&as_sentence(why))) } " "
                @if maybe_done { "Look at " (name) " before you send it again." } @else { "Nothing was changed." }
            }
            p { a.button.primary[maybe_done] href=(base.to(address)) { "Look at " (name) } }
            form.form method="post" action=(base.to(page.action)) aria-label={ "The " (what) } {
                p { "What you typed is kept here:" }
                input type="hidden" name="csrf" value=(page.token);
                @for (name, value) in page.hidden { input type="hidden" name=(name) value=(value); }
                (actor_field("actor", page.actor, None))
                @if let Some((name, label, text)) = page.text {
                    div.field { label for=(name) { (label) } textarea id=(name) name=(name) rows="6" { "\n" (text) } }
                }
                div.actions { button.primary[!maybe_done] type="submit" { "Send the " (what) " again" } }
            }
        }
    };
    layout(&Layout::new(base, &title), &content)
}
