//! The graph of a plan: as text, for Mermaid and for Graphviz.

use std::fmt::Write;

use clap::ValueEnum;
use nofx_local::report::printable;
use shared::domain::plan::{Plan, PlanStep};

use crate::output::color::{DIM, paint};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Drawing {
    /// A tree: each step is below the last of the steps that it waits for
    #[default]
    Text,
    /// For Markdown on GitHub and GitLab
    Mermaid,
    /// For Graphviz: nofx plan graph FILE --format dot | dot -Tsvg
    Dot,
}

pub fn draw(plan: &Plan, drawing: Drawing) -> String {
    match drawing {
        Drawing::Text => Tree::of(plan).text(),
        Drawing::Mermaid => mermaid(plan),
        Drawing::Dot => dot(plan),
    }
}

/// Whether a person decides at this step.
fn is_manual(step: &PlanStep) -> bool {
    step.handler == "manual"
}

struct Tree<'a> {
    plan: &'a Plan,
    children: Vec<Vec<usize>>,
    /// Parents that are not drawn yet.
    missing: Vec<usize>,
    text: String,
}

impl<'a> Tree<'a> {
    fn of(plan: &'a Plan) -> Self {
        let mut children = vec![Vec::new(); plan.steps.len()];
        for (child, step) in plan.steps.iter().enumerate() {
            for &parent in &step.parents {
                children[parent].push(child);
            }
        }
        let missing = plan.steps.iter().map(|step| step.parents.len()).collect();
        Self { plan, children, missing, text: String::new() }
    }

    fn text(mut self) -> String {
        let roots: Vec<usize> = (0..self.plan.steps.len()).filter(|&at| self.missing[at] == 0).collect();
        for root in roots {
            self.chain(root, None, "", "");
        }
        self.text
    }

    /// Draws a step, the chain of steps below it, and the branches at its end.
    fn chain(&mut self, first: usize, parent: Option<usize>, branch: &str, indent: &str) {
        self.line(branch, first, parent);
        let mut last = first;
        loop {
            let below = self.complete(last);
            match below.as_slice() {
                [] => return,
                [next] => {
                    self.line(&format!("{indent}↓ "), *next, Some(last));
                    last = *next;
                }
                [inner @ .., end] => {
                    for &step in inner {
                        self.chain(step, Some(last), &format!("{indent}├─ "), &format!("{indent}│  "));
                    }
                    return self.chain(*end, Some(last), &format!("{indent}└─ "), &format!("{indent}   "));
                }
            }
        }
    }

    /// The children whose last missing parent is this step.
    fn complete(&mut self, step: usize) -> Vec<usize> {
        let children = self.children[step].clone();
        for &child in &children {
            self.missing[child] -= 1;
        }
        children.into_iter().filter(|&child| self.missing[child] == 0).collect()
    }

    fn line(&mut self, branch: &str, at: usize, parent: Option<usize>) {
        let step = &self.plan.steps[at];
        let others = step.parents.iter().filter(|other| Some(**other) != parent);
        let others: Vec<String> = others.map(|&other| printable(&self.plan.steps[other].name)).collect();
        let also = if others.is_empty() { String::new() } else { format!("  also after {}", others.join(", ")) };
        let rest = paint(DIM, format_args!("{}{also}", printable(&step.tool)));
        let _ = writeln!(self.text, "{}{}  {rest}", paint(DIM, branch), printable(&step.name));
    }
}

fn mermaid(plan: &Plan) -> String {
    let mut text = "flowchart TD\n".to_owned();
    // Mermaid has entity codes instead of escapes.
    let quoted = |text: &str| printable(text).replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;");
    for (at, step) in plan.steps.iter().enumerate() {
        let (open, close) = if is_manual(step) { ("{{", "}}") } else { ("[", "]") };
        let _ = writeln!(text, "  s{at}{open}\"{}<br>{}\"{close}", quoted(&step.name), quoted(&step.tool));
    }
    for (child, step) in plan.steps.iter().enumerate() {
        for parent in &step.parents {
            let _ = writeln!(text, "  s{parent} --> s{child}");
        }
    }
    text
}

fn dot(plan: &Plan) -> String {
    let mut text = "digraph plan {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n".to_owned();
    let quoted = |text: &str| printable(text).replace('\\', "\\\\").replace('"', "\\\"");
    for (at, step) in plan.steps.iter().enumerate() {
        let shape = if is_manual(step) { ", shape=hexagon" } else { "" };
        let _ = writeln!(text, "  s{at} [label=\"{}\\n{}\"{shape}];", quoted(&step.name), quoted(&step.tool));
    }
    for (child, step) in plan.steps.iter().enumerate() {
        for parent in &step.parents {
            let _ = writeln!(text, "  s{parent} -> s{child};");
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::domain::plan::{Limits, parse};

    use super::*;

    fn plan() -> Plan {
        let step =
            |name: &str, tool: &str, parents: &[&str]| json!({"name": name, "tool": tool, "depends_on": parents});
        let plan = json!({"goal": "g", "steps": [
            step("build", "echo", &[]), step("lint", "echo", &["build"]), step("unit \"a\"", "echo", &["build"]),
            step("deploy", "manual:deploy", &["lint", "unit \"a\""]), step("tell", "echo", &["deploy"]),
            step("alone", "echo", &[]),
        ]});
        parse(&plan, &Limits::default()).unwrap()
    }

    #[test]
    fn the_tree_draws_every_step_once_after_all_of_its_parents() {
        let expected = "\
build  echo
├─ lint  echo
└─ unit \"a\"  echo
   ↓ deploy  manual:deploy  also after lint
   ↓ tell  echo
alone  echo
";
        assert_eq!(anstream::adapter::strip_str(&draw(&plan(), Drawing::Text)).to_string(), expected);
    }

    #[test]
    fn mermaid_and_dot_have_every_step_and_dependency() {
        let text = draw(&plan(), Drawing::Mermaid);
        assert!(text.starts_with("flowchart TD\n  s0[\"build<br>echo\"]\n"), "{text}");
        assert!(text.contains("  s2[\"unit #quot;a#quot;<br>echo\"]\n  s3{{\"deploy<br>manual:deploy\"}}\n"), "{text}");
        assert!(text.ends_with("  s0 --> s1\n  s0 --> s2\n  s1 --> s3\n  s2 --> s3\n  s3 --> s4\n"), "{text}");
        let text = draw(&plan(), Drawing::Dot);
        assert!(text.contains("  s2 [label=\"unit \\\"a\\\"\\necho\"];\n"), "{text}");
        assert!(text.contains("  s3 [label=\"deploy\\nmanual:deploy\", shape=hexagon];\n"), "{text}");
        assert!(text.ends_with("  s3 -> s4;\n}\n"), "{text}");
    }
}
