//! The people of the tenant, for admins.

use maud::{Markup, html};
use shared::domain::Role;
use shared::domain::access::{MAX_EMAIL_BYTES, MAX_NAME_CHARS, MAX_SUBJECT_BYTES};
use shared::view::Member;

use super::layout::{Base, Layout, Part, layout};
use super::parts::{facts, head, menu, notice, person, section, time};
use super::source::visible;

/// A page of members.
#[derive(Debug, Clone, Copy)]
pub struct MembersPage<'a> {
    pub base: Base,
    /// The token for forms.
    pub token: &'a str,
    pub waiting: u64,
    pub members: &'a [Member],
    /// `after` of the next page.
    pub next: Option<&'a str>,
    /// Why nothing was changed.
    pub why: Option<&'a str>,
}

/// What each role may do in addition to the roles before it.
pub(super) const ROLES: [(Role, &str); 4] = [
    (Role::Viewer, "reads runs, rules and the policy"),
    (Role::Operator, "starts and controls runs"),
    (Role::Approver, "decides gates"),
    (Role::Admin, "changes policy, rules, members and tokens"),
];

/// `GET /ui/members`.
pub fn members_page(page: &MembersPage<'_>) -> String {
    let content = html! {
        @if let Some(why) = page.why {
            (notice("bad", "bad", "alert", &html! { p { b { "Nothing was changed. " } bdi { (visible(why)) } } }))
        }
        (head(&html! { "Members" }, &facts([html! { "A change of a role applies to the next request" }]), None))
        (table(page))
        @if let Some(next) = page.next {
            nav.pages aria-label="Pages" {
                a href={ (page.base.to("members")) "?after=" (shared::http::encoded(next)) } rel="next" { "Further members" }
            }
        }
        (section("set", "Add or change a member", &html! {}, &form(page)))
    };
    layout(&Layout { part: Part::Members, waiting: page.waiting, ..Layout::new(page.base, "Members") }, &content)
}

fn table(page: &MembersPage<'_>) -> Markup {
    html! {
        table.table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for heading in ["Name", "Role", "E-mail", "Id at the issuer", "Since"] {
                        th role="columnheader" scope="col" { (heading) }
                    }
                    th role="columnheader" scope="col" { span.hidden-text { "Actions" } }
                }
            }
            tbody role="rowgroup" {
                @for (at, member) in page.members.iter().enumerate() {
                    tr role="row" {
                        td role="cell" { (person(&member.name)) }
                        td role="cell" data-label="Role" { (member.role) }
                        td role="cell" data-label="E-mail" { bdi { (visible(member.email.as_deref().unwrap_or_default())) } }
                        td role="cell" data-label="Id at the issuer" { code { bdi { (visible(&member.subject)) } } }
                        td role="cell" data-label="Since" { span { (time(&member.created_at)) } }
                        td role="cell" { (remove(page, at, member)) }
                    }
                }
            }
        }
    }
}

fn remove(page: &MembersPage<'_>, at: usize, member: &Member) -> Markup {
    let heir = format!("heir-{at}");
    let panel = html! {
        form.form method="post" action=(page.base.to("members/remove")) {
            input type="hidden" name="csrf" value=(page.token);
            input type="hidden" name="subject" value=(member.subject);
            p { "This ends the sessions of " (person(&member.name)) " and revokes the tokens that they own." }
            div.field {
                label for=(heir) { "Keep the tokens " span.note { "the id of the member who owns them from now on" } }
                input id=(heir) name="tokens_to" maxlength=(MAX_SUBJECT_BYTES) autocomplete="off";
            }
            div.actions { button.primary type="submit" { "Remove" } }
        }
    };
    let label = html! { "Remove…" span.hidden-text { " " bdi { (visible(&member.name)) } } };
    menu(&format!("menu-remove-{at}"), &label, None, false, &panel)
}

fn form(page: &MembersPage<'_>) -> Markup {
    html! {
        form.form method="post" action=(page.base.to("members")) {
            input type="hidden" name="csrf" value=(page.token);
            div.field {
                label for="subject" { "Id at the issuer " span.note { "the sub of their login; the login page shows it to people who are not members" } }
                input #subject name="subject" required maxlength=(MAX_SUBJECT_BYTES) autocomplete="off" spellcheck="false";
            }
            (role_field("member-role", Role::Viewer))
            div.field {
                label for="member-name" { "Name " span.note { "what others see; the e-mail address if empty" } }
                input #member-name name="name" maxlength=(MAX_NAME_CHARS) autocomplete="off";
            }
            div.field {
                label for="member-email" { "E-mail address" }
                input #member-email name="email" type="email" maxlength=(MAX_EMAIL_BYTES) autocomplete="off";
            }
            div.actions { button.primary type="submit" { "Set the member" } }
        }
    }
}

/// The choice of a role.
pub(super) fn role_field(id: &str, chosen: Role) -> Markup {
    html! {
        div.field {
            label for=(id) { "Role " span.note { "each role includes the ones before it" } }
            select id=(id) name="role" {
                @for (role, may) in ROLES { option value=(role) selected[role == chosen] { (role) ": " (may) } }
            }
        }
    }
}
