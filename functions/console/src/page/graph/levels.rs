//! The map of a large graph: a row for each level, a cell for each step. Failed and waiting steps have their names.

use std::collections::BTreeSet;

use maud::{Markup, html};
use shared::domain::StepStatus;

use crate::graph::bands;
use crate::page::format;
use crate::page::icon::{look, mark};
use crate::page::parts::many;
use crate::page::source::visible;

/// Rows of the map.
const MAX_ROWS: usize = 24;
/// Cells in one drawing. A row breaks between drawings.
const GROUP: usize = 10;
/// Steps that a row names.
const MAX_NAMED: usize = 5;
/// A row with fewer steps than this names those that run.
const FEW: usize = 4;
/// A row with fewer tools than this names them.
const FEW_TOOLS: usize = 3;

/// A step in the map.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    pub level: usize,
    pub href: Option<String>,
    pub name: &'a str,
    pub tool: &'a str,
    pub status: StepStatus,
    /// How long it took until now, if it has begun.
    pub duration_ms: Option<i64>,
}

impl Cell<'_> {
    fn is_loud(&self) -> bool {
        matches!(self.status, StepStatus::Failed | StepStatus::Blocked)
    }
}

/// The map. `href` gives the address of a list with the steps of a range of levels, such as `3` or `3-7`.
pub(in crate::page) fn levels(cells: &[Cell<'_>], href: impl Fn(&str) -> Option<String>) -> Markup {
    let count = cells.iter().map(|cell| cell.level + 1).max().unwrap_or(0);
    let mut rows: Vec<Vec<&Cell<'_>>> = vec![Vec::new(); count];
    for cell in cells {
        rows[cell.level].push(cell);
    }
    let sizes: Vec<_> = rows.iter().map(|row| (row.len(), row.iter().any(|cell| cell.is_loud()))).collect();
    html! {
        div.levels {
            @for band in bands(&sizes, MAX_ROWS) {
                (row(band.first, band.last, &rows[band.first..=band.last].concat(), &href))
            }
        }
    }
}

fn row(first: usize, last: usize, cells: &[&Cell<'_>], href: impl Fn(&str) -> Option<String>) -> Markup {
    let (name, range) = if first == last {
        (format!("Level {first}"), first.to_string())
    } else {
        (format!("Levels {first}–{last}"), format!("{first}-{last}"))
    };
    let words: Vec<_> = count(cells.iter().map(|cell| cell.status))
        .map(|(status, count)| format!("{} {}", format::number(count), look(status).word))
        .collect();
    let is_named = |cell: &&&Cell<'_>| cell.is_loud() || cell.status == StepStatus::Running && cells.len() < FEW;
    let named: Vec<_> = cells.iter().filter(is_named).collect();
    let title = html! { (name) " " span.note { (format::number(cells.len() as u64)) " × " (tools(cells)) } };
    html! {
        div.level {
            @match href(&range) {
                Some(href) => a.name href=(href) { (title) },
                None => span.name { (title) },
            }
            div.body {
                div.cells role="img" aria-label=(words.join(", ")) {
                    @for group in cells.chunks(GROUP) { (drawing(group)) }
                }
                @if !named.is_empty() {
                    div.loud {
                        @for cell in named.iter().take(MAX_NAMED) { (link(cell, true)) }
                        @if named.len() > MAX_NAMED { span.note { "and " (named.len() - MAX_NAMED) " more" } }
                    }
                }
            }
            span.slow {
                @if let Some((cell, ms)) = slowest(cells) {
                    "slowest " (link(cell, false)) " " (format::duration(ms))
                }
            }
        }
    }
}

fn link(cell: &Cell<'_>, has_mark: bool) -> Markup {
    let name = visible(cell.name);
    let content = html! { @if has_mark { (mark(look(cell.status))) } bdi { (name) } };
    let class = if has_mark { "state plain" } else { "plain" };
    html! {
        @match &cell.href {
            Some(href) => a class=(class) href=(href) title=(name) { (content) },
            None => span class=(class) { (content) },
        }
    }
}

fn tools(cells: &[&Cell<'_>]) -> String {
    let tools: BTreeSet<&str> = cells.iter().map(|cell| cell.tool).collect();
    if tools.len() < FEW_TOOLS {
        return tools.into_iter().collect::<Vec<_>>().join(", ");
    }
    many(tools.len() as u64, "tool", "tools")
}

fn slowest<'a>(cells: &[&'a Cell<'a>]) -> Option<(&'a Cell<'a>, i64)> {
    // The first of equals.
    cells.iter().rev().filter_map(|cell| Some((*cell, cell.duration_ms?))).max_by_key(|(_, ms)| *ms)
}

/// The states, in the order of the legend.
const STATES: [StepStatus; 8] = [
    StepStatus::Succeeded,
    StepStatus::Failed,
    StepStatus::Blocked,
    StepStatus::Running,
    StepStatus::Ready,
    StepStatus::Pending,
    StepStatus::Skipped,
    StepStatus::Cancelled,
];

/// How many steps have each state, without states that no step has.
pub(in crate::page) fn count(of: impl Iterator<Item = StepStatus>) -> impl Iterator<Item = (StepStatus, u64)> {
    let mut counted = STATES.map(|status| (status, 0));
    for status in of {
        for (_, count) in counted.iter_mut().filter(|(counted, _)| *counted == status) {
            *count += 1;
        }
    }
    counted.into_iter().filter(|(_, count)| *count > 0)
}

/// The class of a cell, and its path from the upper left corner of its square. Each state has a shape of its own.
fn shape(status: StepStatus) -> (&'static str, &'static str) {
    const SQUARE: &str = "h9v9h-9z";
    match status {
        StepStatus::Succeeded => ("f-good", SQUARE),
        StepStatus::Failed => {
            ("f-bad", "m0 2 2-2 2.5 2.5 2.5-2.5 2 2-2.5 2.5 2.5 2.5-2 2-2.5-2.5-2.5 2.5-2-2 2.5-2.5z")
        }
        StepStatus::Blocked => ("f-warn", "m4.5-1 5.5 5.5-5.5 5.5-5.5-5.5z"),
        StepStatus::Running => ("f-busy", "m4.5 0a4.5 4.5 0 1 1-.1 0z"),
        StepStatus::Ready => ("f-soft", "m3 3h3v3h-3z"),
        StepStatus::Pending => ("none", SQUARE),
        StepStatus::Skipped => ("f-quiet", "m1 3.5h7v2h-7z"),
        StepStatus::Cancelled => ("f-quiet", "m0 7.5 7.5-7.5 1.5 1.5-7.5 7.5z"),
    }
}

/// Some cells in a line. Cells of one state are one path.
fn drawing(cells: &[&Cell<'_>]) -> Markup {
    let width = cells.len() * 11 + 1;
    let path = |status| {
        let (class, shape) = shape(status);
        let at = cells.iter().enumerate().filter(|(_, cell)| cell.status == status);
        let paths: Vec<String> = at.map(|(at, _)| format!("M{} 1{shape}", at * 11 + 1)).collect();
        (class, paths.concat())
    };
    html! {
        svg width=(width) height="11" viewBox={ "0 0 " (width) " 11" } aria-hidden="true" {
            @for (class, path) in STATES.map(path).iter().filter(|(_, path)| !path.is_empty()) {
                path class=(class) d=(path) {}
            }
        }
    }
}

/// What the cells mean, with the number of steps in each state.
pub(in crate::page) fn legend(cells: &[Cell<'_>]) -> Markup {
    html! {
        p.legend {
            @for (status, count) in count(cells.iter().map(|cell| cell.status)) {
                @let (class, shape) = shape(status);
                span {
                    svg width="11" height="11" viewBox="0 0 11 11" aria-hidden="true" {
                        path class=(class) d={ "M1 1" (shape) } {}
                    }
                    (format::number(count)) " " (look(status).word)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(level: usize, name: &str, status: StepStatus) -> Cell<'_> {
        let href = Some(format!("../runs/1/steps/{level}"));
        Cell { level, href, name, tool: "echo", status, duration_ms: None }
    }

    fn shown(cells: &[Cell<'_>]) -> String {
        levels(cells, |range| Some(format!("?level={range}#steps"))).into_string()
    }

    #[test]
    fn a_level_is_a_row_with_a_cell_for_each_step() {
        let mut cells: Vec<_> = (0..12).map(|_| cell(0, "a", StepStatus::Succeeded)).collect();
        cells[11].status = StepStatus::Skipped;
        cells[3].duration_ms = Some(1_500);
        let page = shown(&cells);
        assert!(
            page.contains(r#"<a class="name" href="?level=0#steps">Level 0 <span class="note">12 × echo</span></a>"#)
        );
        assert!(page.contains(r#"<div class="cells" role="img" aria-label="11 succeeded, 1 skipped">"#), "{page}");
        assert_eq!(page.matches("h9v9h-9z").count(), 11);
        assert!(page.contains(r#"<path class="f-good" d="M1 1h9v9h-9z"></path><path class="f-quiet" d="M12 1m1 3.5"#));
        assert!(
            page.contains("slowest <a class=\"plain\" href=\"../runs/1/steps/0\" title=\"a\"><bdi>a</bdi></a> 1.5")
        );
    }

    #[test]
    fn failed_and_waiting_steps_are_named() {
        let mut cells: Vec<_> = (0..20).map(|_| cell(0, "quiet", StepStatus::Running)).collect();
        cells.extend((0..7).map(|_| cell(0, "loud", StepStatus::Failed)));
        cells.push(cell(1, "asks", StepStatus::Blocked));
        cells.push(cell(2, "runs", StepStatus::Running));
        let page = shown(&cells);
        assert_eq!(page.matches("<bdi>loud</bdi>").count(), MAX_NAMED);
        assert!(page.contains("and 2 more") && !page.contains("<bdi>quiet</bdi>"));
        assert!(page.contains("<bdi>asks</bdi>") && page.contains("<bdi>runs</bdi>"));
    }

    #[test]
    fn a_deep_graph_has_at_most_24_rows_that_link_to_their_levels() {
        let cells: Vec<_> = (0..500).map(|level| cell(level, "a", StepStatus::Pending)).collect();
        let page = shown(&cells);
        assert_eq!(page.matches("class=\"level\"").count(), MAX_ROWS);
        assert!(page.contains("Levels 0–") && page.contains("href=\"?level=0-"));
    }

    #[test]
    fn hostile_names_stay_text() {
        let name = "</bdi><script>alert(1)</script>\" onload=\"x";
        let page = shown(&[cell(0, name, StepStatus::Failed)]);
        assert!(!page.contains("<script") && !page.contains("\" onload") && page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn states_differ_without_colours_and_the_legend_counts_them() {
        let shapes: BTreeSet<_> = STATES.map(|status| shape(status).1).into_iter().collect();
        assert_eq!(shapes.len(), STATES.len() - 1, "only the square of a pending step is the same, but hollow");
        assert_ne!(shape(StepStatus::Pending).0, shape(StepStatus::Succeeded).0);
        let legend = legend(&[cell(0, "a", StepStatus::Failed), cell(0, "b", StepStatus::Failed)]).into_string();
        assert!(legend.contains("2 failed") && !legend.contains("succeeded"), "{legend}");
    }
}
