//! The frame of every page: header, navigation, keyboard help.

use maud::{DOCTYPE, Markup, html};
use shared::domain::principal::Principal;
use shared::domain::{Kind, Role};

use super::icon::{icon, symbols};
use super::parts::{menu, pairs};
use super::source::visible;
use crate::assets::{CSS, ICON, JS};
use crate::viewer;

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

    /// `/ui/runs/{id}/steps/{ordinal}`
    pub const STEP: Self = Self(3);

    /// A link to something below `/ui/`.
    pub fn to(self, path: &str) -> String {
        format!("{}{path}", "../".repeat(self.0))
    }
}

/// What a page sets in the layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    pub base: Base,
    pub title: &'a str,
    /// The part of the site that the page belongs to.
    pub part: Part,
    /// Pending gates of the tenant. The navigation shows no number for 0.
    pub waiting: u64,
    /// Reload interval for browsers without scripts.
    pub refresh_s: Option<u32>,
}

impl<'a> Layout<'a> {
    /// A page that belongs to no part and does not reload.
    pub fn new(base: Base, title: &'a str) -> Self {
        Self { base, title, part: Part::Other, waiting: 0, refresh_s: None }
    }
}

/// The largest number of pending gates that pages name.
pub(super) const WAITING_SHOWN: u64 = 99;

/// A part of the site, in the order of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Runs,
    Inbox,
    Policy,
    Rules,
    Health,
    Usage,
    Members,
    Tokens,
    Audit,
    /// The login page. It has no navigation.
    Login,
    /// No part, for example an error.
    Other,
}

/// Part, path and words of each link. The path is also what the keyboard calls it.
const PARTS: [(Part, &str, &str); 6] = [
    (Part::Runs, "runs", "Runs"),
    (Part::Inbox, "inbox", "Inbox"),
    (Part::Policy, "policy", "Policy"),
    (Part::Rules, "rules", "Write rules"),
    (Part::Usage, "usage", "Usage"),
    (Part::Health, "health", "Health"),
];

/// The same for parts that only admins can read.
const ADMIN_PARTS: [(Part, &str, &str); 3] =
    [(Part::Members, "members", "Members"), (Part::Tokens, "tokens", "Tokens"), (Part::Audit, "audit", "Audit")];

pub(super) fn layout(layout: &Layout<'_>, content: &Markup) -> String {
    let base = layout.base;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (visible(layout.title)) " – NOFX" }
                link rel="stylesheet" href=(base.to(&CSS.path()));
                link rel="icon" type="image/svg+xml" href=(base.to(&ICON.path()));
                script src=(base.to(&JS.path())) defer {}
                @if let Some(seconds) = layout.refresh_s {
                    noscript { meta http-equiv="refresh" content=(seconds); }
                }
            }
            body {
                (symbols())
                a.skip href="#main" { "Skip to the content" }
                (header(layout))
                main #main { (content) }
                (help())
            }
        }
    };
    page.into_string()
}

fn header(layout: &Layout<'_>) -> Markup {
    let base = layout.base;
    if layout.part == Part::Login {
        return html! { header.site { span.brand { (icon("run", "")) "NOFX" } } };
    }
    let viewer = viewer::principal();
    let is_admin = viewer.as_ref().is_some_and(|(who, _)| who.role == Role::Admin && who.kind != Kind::Agent);
    let admin_parts = if is_admin { &ADMIN_PARTS[..] } else { &[] };
    html! {
        header.site {
            a.brand href=(base.to("runs")) { (icon("run", "")) "NOFX" }
            nav aria-label="Site" {
                @for &(part, path, words) in PARTS.iter().chain(admin_parts) {
                    a href=(base.to(path)) data-go=(path) aria-current=[(part == layout.part).then_some("page")] {
                        (words)
                        @if part == Part::Inbox { (waiting(layout.waiting)) }
                    }
                }
            }
            div.end {
                button.slight.no-script-hidden type="button" data-help aria-label="Keyboard shortcuts" {
                    kbd aria-hidden="true" { "?" }
                }
                @if let Some((who, form_token)) = &viewer { (account(base, who, form_token.as_deref())) }
                a.button.primary href=(base.to("new")) data-go="new" { (icon("plus", "")) "New run" }
            }
        }
    }
}

/// Who has logged in, and how to log out.
fn account(base: Base, who: &Principal, form_token: Option<&str>) -> Markup {
    let panel = html! {
        (pairs([
            ("Role", html! { (who.role) }),
            ("Tenant", html! { bdi { (visible(&who.tenant.0)) } }),
            ("Id", html! { code { bdi { (visible(&who.subject)) } } }),
        ]))
        @if let Some(token) = form_token {
            form method="post" action=(base.to("logout")) {
                input type="hidden" name="csrf" value=(token);
                button type="submit" { "Log out" }
            }
        }
    };
    menu("account", &html! { span.hidden-text { "Logged in as " } bdi { (visible(&who.name)) } }, None, false, &panel)
}

fn waiting(gates: u64) -> Markup {
    html! {
        @if gates > 0 {
            " "
            span.count.due {
                @if gates > WAITING_SHOWN { (WAITING_SHOWN) "+" } @else { (gates) }
                span.hidden-text { @if gates == 1 { " gate waits" } @else { " gates wait" } }
            }
        }
    }
}

/// Keys and what they do. The script has the same.
const KEYS: [(&[&str], &str); 13] = [
    (&["j", "k"], "next, previous row"),
    (&["Enter"], "open the row"),
    (&["/"], "search"),
    (&["u"], "up: the page that this one belongs to"),
    (&["r"], "the page's first action, such as review or retry; never a decision"),
    (&["f"], "first problem: the failed step, the first finding"),
    (&["n"], "new run"),
    (&["g", "r"], "runs"),
    (&["g", "i"], "inbox"),
    (&["g", "p"], "policy"),
    (&["g", "w"], "write rules"),
    (&["g", "h"], "health"),
    (&["?"], "this help"),
];

fn help() -> Markup {
    html! {
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keyboard" }
            dl.keys {
                @for (keys, what) in KEYS {
                    dt { @for key in keys { kbd { (key) } " " } }
                    dd { (what) }
                }
            }
            form method="dialog" { p { button autofocus { "Close" } } }
        }
    }
}
