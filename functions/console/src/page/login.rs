//! The form with which people log in.

use maud::html;

use super::layout::{Base, Layout, Part, layout};
use super::parts::notice;
use super::source::visible;

/// The form, and why the last login failed.
#[derive(Debug, Clone, Copy)]
pub struct LoginPage<'a> {
    /// The token for the form.
    pub token: &'a str,
    /// The page after the login, below `/ui/`.
    pub next: &'a str,
    pub email: &'a str,
    pub why: Option<&'a str>,
    /// Whether people log in with passwords here.
    pub has_passwords: bool,
}

/// `GET /ui/login`.
pub fn login_page(page: &LoginPage<'_>) -> String {
    let base = Base::TOP;
    let content = html! {
        div.login {
            h1 { "Log in" }
            @if let Some(why) = page.why {
                (notice("bad", "bad", "alert", &html! { p #why { bdi { (visible(why)) } } }))
            }
            @if page.has_passwords {
                form.form method="post" action=(base.to("login")) {
                    input type="hidden" name="csrf" value=(page.token);
                    input type="hidden" name="next" value=(page.next);
                    div.field {
                        label for="email" { "E-mail address" }
                        input #email name="email" type="email" required maxlength="320" autocomplete="username" value=(page.email)
                            autofocus[page.email.is_empty()] aria-describedby=[page.why.map(|_| "why")];
                    }
                    div.field {
                        label for="password" { "Password" }
                        input #password name="password" type="password" required maxlength="1000" autocomplete="current-password"
                            autofocus[!page.email.is_empty()] aria-describedby=[page.why.map(|_| "why")];
                    }
                    div.actions { button.primary type="submit" { "Log in" } }
                }
            } @else {
                p.prose {
                    "This server has no login with a password. Use the command line with an API token: " code { "nofx login --token -" } "."
                }
            }
        }
    };
    layout(&Layout { part: Part::Login, ..Layout::new(base, "Log in") }, &content)
}
