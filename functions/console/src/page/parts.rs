//! Elements that several pages use: where a page is, its facts, sections, names and values, forms.

use maud::{Markup, Render, html};
use shared::domain::{Problem, Timestamp};

use super::format;
use super::icon::icon;
use super::source::visible;
use crate::viewer;

/// The pages above this one, with their links, and this one.
pub(super) fn crumbs(above: &[(&str, String)], here: &str) -> Markup {
    html! {
        nav.crumbs aria-label="Where this is" {
            @for (index, (words, href)) in above.iter().enumerate() {
                a href=(href) data-go=[(index + 1 == above.len()).then_some("up")] { bdi { (words) } }
            }
            span { bdi { (here) } }
        }
    }
}

/// A page's title, its facts and its actions.
pub(super) fn head(title: &Markup, facts: &Markup, actions: Option<&Markup>) -> Markup {
    html! {
        div.head data-region="head" {
            div { h1 { (title) } (facts) }
            @if let Some(actions) = actions { div.actions { (actions) } }
        }
    }
}

/// Short facts in one line.
pub(super) fn facts(facts: impl IntoIterator<Item = Markup>) -> Markup {
    html! { p.facts { @for fact in facts { span { (fact) } } } }
}

/// A part of a page with a heading. `aside` stands beside it. A live page replaces the section as a whole.
pub(super) fn section(id: &str, title: impl Render, aside: &Markup, body: &Markup) -> Markup {
    html! {
        section.section aria-labelledby=(id) data-region=(id) {
            div.title { h2 id=(id) { (title) } (aside) }
            (body)
        }
    }
}

/// The name that somebody gave. It may read like a part of the sentence around it, so it looks different.
pub(super) fn person(name: &str) -> Markup {
    html! { b { bdi { (visible(name)) } } }
}

/// Names and values.
pub(super) fn pairs(pairs: impl IntoIterator<Item = (&'static str, Markup)>) -> Markup {
    html! { dl.pairs { @for (name, value) in pairs { dt { (name) } dd { (value) } } } }
}

/// A digest or an id, with a button that copies it.
pub(super) fn hash(value: &str, what: &str) -> Markup {
    html! {
        code.hash { (value) } " "
        button.copy.no-script-hidden type="button" data-copy=(value) aria-label={ "Copy the " (what) } { "copy" }
    }
}

/// A message on a page. `role` is `alert` for what a user must see at once, else `status` or `note`.
pub(super) fn notice(tone: &str, symbol: &str, role: &str, body: &Markup) -> Markup {
    html! { div.notice.(tone) role=(role) { (icon(symbol, "")) div { (body) } } }
}

/// A button that opens a panel below itself, also without a script. `go` is what the keyboard calls it.
pub(super) fn menu(id: &str, label: &Markup, go: Option<&str>, is_open: bool, panel: &Markup) -> Markup {
    html! {
        details.menu id=(id) open[is_open] {
            summary.button id={ (id) "-button" } data-go=[go] { (label) }
            div.panel { (panel) }
        }
    }
}

/// A part that opens on demand.
pub(super) fn fold(title: impl Render, note: impl Render, is_open: bool, body: &Markup) -> Markup {
    html! { details.fold open[is_open] { summary { (title) span.note { (note) } } (body) } }
}

/// Nothing is here yet, and what to do about it.
pub(super) fn blank(title: &str, body: &Markup) -> Markup {
    html! { div.blank { h1 { (title) } (body) } }
}

/// The field for the name of the person who acts. `value` is what was typed, `wrong` the problem with it. Nothing if their
/// session says it.
pub(super) fn actor_field(id: &str, value: &str, wrong: Option<&str>) -> Markup {
    if viewer::is_known() {
        return html! {};
    }
    let problem = format!("{id}-wrong");
    html! {
        div.field {
            label for=(id) { "Your name" }
            input id=(id) name="actor" required maxlength="200" autocomplete="name" value=(value)
                aria-invalid=[wrong.map(|_| "true")] aria-describedby=[wrong.map(|_| &problem)];
            (wrong_field(&problem, wrong))
        }
    }
}

/// The problem with a field.
pub(super) fn wrong_field(id: &str, wrong: Option<&str>) -> Markup {
    html! { @if let Some(wrong) = wrong { p.wrong id=(id) { (icon("bad", "")) bdi { (wrong) } } } }
}

/// The sentence beside a field that has this problem.
pub(super) fn said(problem: &Problem) -> String {
    match problem.message.strip_prefix("must ") {
        Some(rest) => format!("It must {rest}."),
        None => problem.message.clone(),
    }
}

/// A text as a sentence: it begins with a capital letter and ends with a full stop.
pub(super) fn as_sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

/// A timestamp. The script replaces it by a relative time in the user's language.
pub(super) fn time(timestamp: &Timestamp) -> Markup {
    html! { time datetime=(timestamp) { (format::plain_time(&timestamp.0)) } }
}

/// The time since a moment, as in "has waited 3 min 12 s", which the script lets grow. Without a script it reads "has
/// waited since 2026-11-23 10:00:00 UTC". The markup stays the same while nothing happens, so no region is replaced.
pub(super) fn elapsed(since: &Timestamp) -> Markup {
    html! { time datetime=(since) data-as="elapsed" { "since " (format::plain_time(&since.0)) } }
}

/// A moment in the future. Without a script it reads as a date, else as "in 23 hours".
pub(super) fn left(until: &Timestamp) -> Markup {
    html! { time datetime=(until) data-as="left" { (format::plain_time(&until.0)) } }
}

/// The time of day of a moment, in UTC.
pub(super) fn clock(timestamp: &Timestamp) -> Markup {
    html! { time datetime=(timestamp) data-as="clock" { (format::clock(&timestamp.0)) } }
}

/// `1 step`, `1,000 steps`.
pub(super) fn many(count: u64, one: &str, more: &str) -> String {
    let noun = if count == 1 { one } else { more };
    format!("{} {noun}", format::number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_nouns_agree() {
        let steps = |count| many(count, "step", "steps");
        assert_eq!([0, 1, 2, 1_000].map(steps), ["0 steps", "1 step", "2 steps", "1,000 steps"]);
    }

    #[test]
    fn the_last_page_above_is_where_up_goes() {
        let markup = crumbs(&[("Runs", "../runs".into()), ("<b>", "../runs/1".into())], "unit").into_string();
        assert!(markup.contains(r#"<a href="../runs/1" data-go="up"><bdi>&lt;b&gt;</bdi></a>"#), "{markup}");
        assert_eq!(markup.matches("data-go").count(), 1);
    }

    #[test]
    fn a_wrong_field_keeps_its_text_and_names_its_problem() {
        let markup = actor_field("a", "x\"", Some("must not be empty")).into_string();
        assert!(markup.contains("value=\"x&quot;\" aria-invalid=\"true\" aria-describedby=\"a-wrong\""), "{markup}");
        assert!(markup.contains("id=\"a-wrong\""));
    }
}
