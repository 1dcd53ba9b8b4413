//! The graph of a run: a drawing, or the map of a large run.

use maud::{Markup, html};
use shared::db::console::Step;
use shared::domain::StepStatus;

use super::work::Work;
use crate::page::format;
use crate::page::graph::{Cell, Node, graph as draw, legend, levels};
use crate::page::icon::look;
use crate::page::parts::{many, section};

pub(super) fn graph(work: &Work<'_>) -> Markup {
    if let Some(drawing) = draw("Graph of the steps", &nodes(work), &work.edges) {
        return section("graph", "Graph", &aside(work), &drawing);
    }
    let cells = cells(work);
    let map = levels(&cells, |range| Some(work.page(&format!("?level={range}#steps"))));
    section("graph", "Steps by level", &legend(&cells), &map)
}

fn nodes<'a>(work: &Work<'a>) -> Vec<Node<'a>> {
    let node = |(at, step): (usize, &'a Step)| Node {
        href: Some(work.href(at)),
        name: &step.name,
        detail: &step.tool,
        look: look(step.status),
        figures: figures(work, at),
        kind: work.kind(at),
        is_here: false,
    };
    work.steps.iter().enumerate().map(node).collect()
}

/// How long a step took, and in how many attempts.
fn figures(work: &Work<'_>, at: usize) -> String {
    let step = &work.steps[at];
    let time = match step.status {
        // This text stays the same while the step waits, so the part is not replaced each time.
        StepStatus::Blocked => "waits".into(),
        _ => work.took(at).map(format::short_duration).unwrap_or_default(),
    };
    if step.attempt > 1 { format!("{time} ×{}", step.attempt) } else { time }
}

fn aside(work: &Work<'_>) -> Markup {
    let (Some(&first), Some(&last)) = (work.path.first(), work.path.last()) else { return html! {} };
    let length = |(start, end): (i64, i64)| format!(", {}", format::duration(end - start));
    let length = work.steps[first].started_ms.zip(work.steps[last].finished_ms).map(length);
    html! {
        p.legend {
            span { svg.key viewBox="0 0 24 8" aria-hidden="true" { path d="M0 4h24" {} } "critical path" }
        }
        p.note { (many(work.path.len() as u64, "step", "steps")) " on the critical path" (length.unwrap_or_default()) }
    }
}

fn cells<'a>(work: &Work<'a>) -> Vec<Cell<'a>> {
    let cell = |(at, step): (usize, &'a Step)| Cell {
        level: work.levels.of[at],
        href: Some(work.href(at)),
        name: &step.name,
        tool: &step.tool,
        status: step.status,
        duration_ms: work.took(at).filter(|_| step.status != StepStatus::Blocked),
    };
    work.steps.iter().enumerate().map(cell).collect()
}
