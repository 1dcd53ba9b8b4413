//! Lines of source and of differences. Lines wrap, so that no page scrolls sideways.

use std::collections::BTreeMap;

use maud::{Markup, html};
pub(super) use shared::domain::hidden::visible;

use super::icon::icon;

/// A line of source and what is said about it.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// No test ran it.
    pub never_ran: bool,
    /// No report measured it.
    pub unmeasured: bool,
    /// The class and the text of each remark.
    pub remarks: Vec<(&'static str, String)>,
}

/// Consecutive lines with their marks, by number.
pub(super) fn lines(first: u32, lines: &[String], marks: &BTreeMap<u32, Mark>) -> Markup {
    let unmarked = Mark::default();
    html! {
        @for (number, text) in (first..).zip(lines) {
            @let mark = marks.get(&number).unwrap_or(&unmarked);
            @let (class, sign, words) = sign(mark);
            div class={ "line " (class) } {
                span.n { (number) }
                (signed(class, sign, words))
                code { (visible(text)) }
            }
            @for (class, remark) in &mark.remarks { (remark_of(class, remark)) }
        }
    }
}

/// What is said about a line, or about a whole file.
pub(super) fn remark_of(tone: &str, remark: &str) -> Markup {
    let symbol = if tone == "quiet" { "doc" } else { "bad" };
    html! { p class={ "remark " (tone) } { (icon(symbol, "")) span { bdi { (visible(remark)) } } } }
}

/// A sign for the eye, and words for screen readers.
fn signed(class: &str, sign: &str, words: &str) -> Markup {
    html! {
        span class={ "sign " (class) } {
            @if !sign.is_empty() { span aria-hidden="true" { (sign) } span.hidden-text { (words) } }
        }
    }
}

/// The colour, the sign and the words for a line.
fn sign(mark: &Mark) -> (&'static str, &'static str, &'static str) {
    match mark {
        Mark { never_ran: true, .. } => ("bad", "−", "never ran: "),
        Mark { unmeasured: true, .. } => ("warn", "?", "not measured: "),
        Mark { remarks, .. } if !remarks.is_empty() => (worst(remarks), "!", "found here: "),
        _ => ("", "", ""),
    }
}

/// The colour of the gravest remark.
fn worst(remarks: &[(&'static str, String)]) -> &'static str {
    let has = |tone: &str| remarks.iter().any(|(of, _)| *of == tone);
    ["bad", "warn"].into_iter().find(|tone| has(tone)).unwrap_or("")
}

/// The lines of a unified diff. Returns how many of them fit into `room`.
pub(super) fn difference(text: &str, room: usize) -> (Markup, usize) {
    let all: Vec<&str> = text.lines().collect();
    let shown = all.len().min(room);
    let markup = html! {
        div.code.slight {
            @for line in all.iter().take(shown) {
                @let (class, sign, words, rest) = changed(line);
                div class={ "line " (class) } {
                    span.n {}
                    (signed(class, sign, words))
                    code { (visible(rest)) }
                }
            }
        }
        @if shown < all.len() { p.note { (all.len() - shown) " more lines are only in the document." } }
    };
    (markup, shown)
}

fn changed(line: &str) -> (&'static str, &'static str, &'static str, &str) {
    if line.starts_with("--- ") || line.starts_with("+++ ") || line.starts_with("@@") {
        return ("gap", "", "", line);
    }
    if let Some(rest) = line.strip_prefix('+') {
        ("good", "+", "added: ", rest)
    } else if let Some(rest) = line.strip_prefix('-') {
        ("bad", "−", "removed: ", rest)
    } else {
        ("", "", "", line.strip_prefix(' ').unwrap_or(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_colour_of_its_gravest_remark() {
        let remarks = vec![("quiet", "a".to_owned()), ("warn", "<b>".to_owned())];
        let marks = BTreeMap::from([
            (7, Mark { remarks, ..Mark::default() }),
            (8, Mark { never_ran: true, ..Mark::default() }),
        ]);
        let markup = lines(7, &["x".to_owned(), "y".to_owned(), "z".to_owned()], &marks).into_string();
        for part in [
            "<div class=\"line warn\"><span class=\"n\">7</span><span class=\"sign warn\">",
            "<p class=\"remark warn\">",
            "<bdi>&lt;b&gt;</bdi>",
            "<div class=\"line bad\"><span class=\"n\">8</span>",
            "<span class=\"hidden-text\">never ran: </span>",
            "<div class=\"line \"><span class=\"n\">9</span><span class=\"sign \"></span><code>z</code></div>",
        ] {
            assert!(markup.contains(part), "{part}: {markup}");
        }
    }

    #[test]
    fn a_difference_has_signs_and_a_limit() {
        let text = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old <b>\n+new\n same\n";
        let (markup, shown) = difference(text, 5);
        let markup = markup.into_string();
        assert_eq!(shown, 5);
        assert!(markup.contains("line bad") && markup.contains("<code>old &lt;b&gt;</code>"), "{markup}");
        assert!(markup.contains("line good") && markup.contains("1 more lines"), "{markup}");
    }
}
