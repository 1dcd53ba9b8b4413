//! The graph of a plan before it runs: a drawing, or the map of a large plan.

use std::collections::HashMap;

use maud::{Markup, html};
use shared::domain::StepStatus;
use shared::view::{CheckedStep, PlanChecked};

use crate::graph::Edge;
use crate::page::graph::{Cell, Kind, Node, graph as draw, levels};
use crate::page::icon::{Look, look};
use crate::page::parts::{many, section};

pub(super) fn graph(plan: &PlanChecked) -> Markup {
    let nodes: Vec<_> = plan.steps.iter().map(node).collect();
    if let Some(drawing) = draw("Graph of the steps", &nodes, &edges(plan)) {
        return section("graph", "Graph", &html! { p.note { "before it runs" } }, &drawing);
    }
    let cells: Vec<_> = plan.steps.iter().map(cell).collect();
    let note = html! { p.note { (many(cells.len() as u64, "step", "steps")) ", before they run" } };
    section("graph", "Steps by level", &note, &levels(&cells, |_| None))
}

fn edges(plan: &PlanChecked) -> Vec<Edge> {
    let index: HashMap<&str, usize> =
        plan.steps.iter().enumerate().map(|(at, step)| (step.name.as_str(), at)).collect();
    let of_step = |(at, step): (usize, &CheckedStep)| {
        let parents = step.depends_on.iter().filter_map(|parent| index.get(parent.as_str()));
        parents.map(|&parent| (parent, at)).collect::<Vec<Edge>>()
    };
    plan.steps.iter().enumerate().flat_map(of_step).collect()
}

/// A step without a state. Its symbol says what it will ask for.
fn node(step: &CheckedStep) -> Node<'_> {
    let symbol = match step.handler.as_str() {
        "manual" => "decide",
        "codegen" => "model",
        "db_write" => "table",
        _ => look(StepStatus::Pending).symbol,
    };
    Node {
        href: None,
        name: &step.name,
        detail: &step.tool,
        look: Look { symbol, tone: "quiet", word: "" },
        figures: String::new(),
        kind: Kind::Plain,
        is_here: false,
    }
}

fn cell(step: &CheckedStep) -> Cell<'_> {
    Cell {
        level: step.level,
        href: None,
        name: &step.name,
        tool: &step.tool,
        status: StepStatus::Pending,
        duration_ms: None,
    }
}
