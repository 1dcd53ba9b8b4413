//! API tokens of agents and services, and sessions of people, for admins.

use maud::{Markup, html};
use shared::domain::access::MAX_TOKEN_NAME;
use shared::domain::{Role, Timestamp};
use shared::view::Token;

use super::layout::{Base, Layout, Part, layout};
use super::members::role_field;
use super::parts::{facts, hash, head, left, menu, notice, person, section, time};
use super::source::visible;

/// A page of tokens or of sessions.
#[derive(Debug)]
pub struct TokensPage<'a> {
    pub base: Base,
    /// The token for forms.
    pub token: &'a str,
    pub waiting: u64,
    pub tokens: &'a [Token],
    pub sessions: bool,
    /// `after` of the next page.
    pub next: Option<String>,
    /// The token that was just created. No other page shows it.
    pub made: Option<MadeToken<'a>>,
    /// Why nothing was changed.
    pub why: Option<&'a str>,
}

/// A new token with its secret.
#[derive(Clone, Copy)]
pub struct MadeToken<'a> {
    pub name: &'a str,
    pub secret: &'a str,
    pub expires_at: &'a Timestamp,
}

impl std::fmt::Debug for MadeToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Days that a token may last, in the form.
pub(crate) const DAYS: [u32; 5] = [1, 7, 30, 90, 365];
const DEFAULT_DAYS: u32 = 90;

/// `GET /ui/tokens`.
pub fn tokens_page(page: &TokensPage<'_>) -> String {
    let base = page.base;
    let tab = |path: &str, words: &str, is_here: bool| {
        html! { a href=(base.to(path)) aria-current=[is_here.then_some("page")] { (words) } }
    };
    let about = if page.sessions { "Sessions of people who logged in" } else { "Credentials of agents and services" };
    let content = html! {
        @if let Some(why) = page.why {
            (notice("bad", "bad", "alert", &html! { p { b { "Nothing was changed. " } bdi { (visible(why)) } } }))
        }
        @if let Some(made) = &page.made { (shown_once(made)) }
        (head(&html! { "Tokens" }, &facts([html! { (about) }]), None))
        nav.filters.chips aria-label="Tokens" {
            (tab("tokens", "Agents and services", !page.sessions))
            (tab("tokens?sessions=true", "Sessions of people", page.sessions))
        }
        @if page.tokens.is_empty() { p { "There are no tokens." } } @else { (table(page)) }
        @if let Some(next) = &page.next {
            nav.pages aria-label="Pages" {
                a href={ (base.to("tokens")) "?sessions=" (page.sessions) "&after=" (next) } rel="next" { "Further tokens" }
            }
        }
        @if !page.sessions { (section("create", "Create a token", &html! {}, &form(page))) }
    };
    layout(&Layout { part: Part::Tokens, waiting: page.waiting, ..Layout::new(base, "Tokens") }, &content)
}

fn shown_once(made: &MadeToken<'_>) -> Markup {
    notice(
        "good",
        "good",
        "status",
        &html! {
            p { b { "The token of " bdi { (visible(made.name)) } ". " } "Copy it now: it is not shown again. It expires " (left(made.expires_at)) "." }
            p { (hash(made.secret, "token")) }
        },
    )
}

fn table(page: &TokensPage<'_>) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Name", "Role", "Owner", "Created", "Last used", "State"] {
                        th role="columnheader" scope="col" { (heading) }
                    }
                    th role="columnheader" scope="col" { span.hidden-text { "Actions" } }
                }
            }
            tbody role="rowgroup" {
                @for token in page.tokens {
                    tr role="row" {
                        td role="cell" { (person(&token.name)) }
                        td role="cell" data-label="Role" {
                            span {
                                @match token.role { Some(role) => { (role) }, None => { "of the member" } }
                                @if let Some(scopes) = &token.scopes {
                                    span.note { ": " (scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ")) }
                                }
                            }
                        }
                        td role="cell" data-label="Owner" { bdi { (visible(&token.owner)) } }
                        td role="cell" data-label="Created" { span { (time(&token.created_at)) } }
                        td role="cell" data-label="Last used" {
                            span { @match &token.last_used_at { Some(at) => { (time(at)) }, None => { "never" } } }
                        }
                        td role="cell" data-label="State" { span { (state(token)) } }
                        td role="cell" { @if token.live { (revoke(page, token)) } }
                    }
                }
            }
        }
    }
}

fn state(token: &Token) -> Markup {
    html! {
        @match &token.revoked_at {
            Some(at) => { "revoked " (time(at)) " by " (person(token.revoked_by.as_deref().unwrap_or_default())) },
            None if token.live => { "expires " (left(&token.expires_at)) },
            None => { "expired " (time(&token.expires_at)) },
        }
    }
}

fn revoke(page: &TokensPage<'_>, token: &Token) -> Markup {
    let panel = html! {
        form.form method="post" action=(page.base.to(&format!("tokens/{}/revoke", token.id))) {
            input type="hidden" name="csrf" value=(page.token);
            p { "The next request with it is refused. This cannot be undone." }
            div.actions { button.primary type="submit" { "Revoke" } }
        }
    };
    let label = html! { "Revoke…" span.hidden-text { " " bdi { (visible(&token.name)) } } };
    menu(&format!("menu-revoke-{}", token.id), &label, None, false, &panel)
}

fn form(page: &TokensPage<'_>) -> Markup {
    html! {
        form.form method="post" action=(page.base.to("tokens")) {
            input type="hidden" name="csrf" value=(page.token);
            div.field {
                label for="kind" { "Kind " span.note { "an agent can never decide gates, or change the policy, rules, members or tokens" } }
                select #kind name="kind" {
                    option value="agent" { "agent" }
                    option value="service" { "service" }
                }
            }
            div.field {
                label for="token-name" { "Name " span.note { "letters, digits, dots, underscores and dashes" } }
                input #token-name name="name" required maxlength=(MAX_TOKEN_NAME) autocomplete="off" spellcheck="false";
            }
            (role_field("token-role", Role::Operator))
            div.field {
                label for="token-owner" { "Owner " span.note { "the e-mail address or subject of the member who uses it; you, if empty" } }
                input #token-owner name="owner" autocomplete="off" spellcheck="false";
            }
            div.field {
                label for="days" { "Expires" }
                select #days name="days" {
                    @for days in DAYS {
                        option value=(days) selected[days == DEFAULT_DAYS] { "after " (days) @if days == 1 { " day" } @else { " days" } }
                    }
                }
            }
            div.actions { button.primary type="submit" { "Create the token" } }
        }
    }
}
