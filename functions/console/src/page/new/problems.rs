//! The problems of a plan, each beside its line.

use maud::{Markup, html};
use shared::domain::bounds::shortened;

use crate::page::icon::icon;
use crate::page::parts::{many, section};
use crate::page::source::visible;
use crate::plan_text::Located;

/// Problems that are listed.
const LISTED: usize = 50;
/// Lines that are shown before and after one with a problem.
const AROUND: usize = 2;
/// Length of a shown line. A whole plan in JSON may be one line.
const LINE_BYTES: usize = 400;
const MESSAGE_BYTES: usize = 600;

pub(super) fn problems(text: &str, problems: &[Located]) -> Markup {
    let lines: Vec<&str> = text.lines().collect();
    let listed = &problems[..problems.len().min(LISTED)];
    // They are in the order of their lines.
    let by_line = listed.chunk_by(|one, other| one.line == other.line);
    let body = html! {
        @for of_line in by_line { (figure(&lines, of_line)) }
        @if problems.len() > LISTED { p.note { (LISTED) " of " (problems.len()) " problems are listed." } }
    };
    section("problems", many(problems.len() as u64, "problem", "problems"), &html! {}, &body)
}

/// A line with its problems, and the lines around it.
fn figure(lines: &[&str], problems: &[Located]) -> Markup {
    let line = problems.first().map_or(1, |problem| problem.line);
    let (first, last) = (line.saturating_sub(AROUND).max(1), (line + AROUND).min(lines.len()));
    let path = problems.first().map_or("", |problem| problem.path.as_str());
    html! {
        figure.file {
            figcaption {
                span { "line " (line) }
                @if !path.is_empty() { code.note { bdi { (visible(&shortened(path, LINE_BYTES))) } } }
            }
            div.code {
                @for number in first..=last.max(line) {
                    (row(number, lines.get(number - 1).copied().unwrap_or_default(), number == line))
                    @if number == line { @for problem in problems { (remark(problem)) } }
                }
            }
        }
    }
}

fn row(number: usize, text: &str, is_wrong: bool) -> Markup {
    let tone = if is_wrong { "bad" } else { "" };
    html! {
        div class={ "line " (tone) } {
            span.n { (number) }
            span class={ "sign " (tone) } {
                @if is_wrong { span aria-hidden="true" { "!" } span.hidden-text { "problem: " } }
            }
            code { (visible(&shortened(text, LINE_BYTES))) }
        }
    }
}

fn remark(problem: &Located) -> Markup {
    let Located { line, path, message } = problem;
    let name = path.rsplit('.').next().unwrap_or(path);
    html! {
        p.remark.bad {
            (icon("bad", ""))
            span {
                @if !name.is_empty() { code { bdi { (visible(&shortened(name, MESSAGE_BYTES))) } } " " }
                bdi { (visible(&shortened(message, MESSAGE_BYTES))) }
                " "
                button.copy.no-script-hidden type="button" data-line=(line) { "go to line " (line) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize, path: &str, message: &str) -> Located {
        Located { line, path: path.into(), message: message.into() }
    }

    #[test]
    fn problems_of_one_line_share_its_figure() {
        let text = "a\nb\nc\nd\ne\nf\n";
        let found = [problem(3, "plan.x", "one"), problem(3, "plan.y", "two"), problem(6, "plan", "three")];
        let markup = problems(text, &found).into_string();
        assert_eq!(markup.matches("<figure").count(), 2);
        assert_eq!(markup.matches("class=\"line bad\"").count(), 2);
        let numbers: Vec<_> = markup.split("class=\"n\">").skip(1).map(|rest| rest.split('<').next()).collect();
        assert_eq!(numbers, ["1", "2", "3", "4", "5", "4", "5", "6"].map(Some));
    }

    #[test]
    fn a_thousand_problems_and_endless_lines_stay_small() {
        let text = format!("{}\n", "<".repeat(100_000)).repeat(3);
        let found: Vec<_> =
            (0..1_000).map(|index| problem(index + 1, &"k".repeat(9_000), &"m".repeat(9_000))).collect();
        let markup = problems(&text, &found).into_string();
        assert!(markup.contains("50 of 1000 problems are listed"));
        assert!(markup.len() < 200_000, "{}", markup.len());
    }

    #[test]
    fn a_problem_at_the_end_of_an_empty_text_has_a_line() {
        let markup = problems("", &[problem(1, "plan", "is missing")]).into_string();
        assert!(markup.contains("class=\"line bad\"") && markup.contains("is missing"), "{markup}");
    }
}
