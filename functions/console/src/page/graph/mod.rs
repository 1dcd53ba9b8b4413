//! The graph as a drawing: a box for each node, a curve for each edge. It serves the page of a run, the plan of a new
//! run, and the lineage of artifacts. [`levels`] shows a graph that is too large to draw.

mod levels;
mod text;

use maud::{Markup, html};

use super::icon::Look;
use super::source::visible;
use crate::graph::{Edge, Layout, Size, Wire, layout};
pub(super) use levels::{Cell, count, legend, levels};
use text::{cut, width};

const SIZE: Size = Size { width: 184, height: 46, column_gap: 44, row_gap: 14, margin: 8 };
/// Where the text of a box starts and ends.
const TEXT: (i32, i32) = (38, 174);
/// Widths of the two lines in characters.
const NAME_WIDTH: usize = 19;
const DETAIL_WIDTH: usize = 22;

/// A box of the graph.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// The page of what it shows. A plan that has not started has none.
    pub href: Option<String>,
    pub name: &'a str,
    /// The second line, for example the tool of a step.
    pub detail: &'a str,
    /// The symbol and its colour. Without a word the symbol says nothing.
    pub(super) look: Look,
    /// Short figures at the end of the second line, for example the duration.
    pub figures: String,
    pub kind: Kind,
    /// What the page is about.
    pub is_here: bool,
}

/// What a box and the edges that lead to it look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It took no time, for example a step of a plan or an artifact.
    Plain,
    /// It has begun.
    Done,
    /// It has begun, and it is on the critical path.
    Critical,
    /// It has not begun.
    Ahead,
}

/// A drawing of the nodes. `label` says what it shows. `None` for more than [`crate::graph::MAX_NODES`] nodes.
pub(super) fn graph(label: &str, nodes: &[Node<'_>], edges: &[Edge]) -> Option<Markup> {
    let laid = layout(nodes.len(), edges, SIZE)?;
    let Layout { width, height, .. } = laid;
    // The critical path is drawn above the other edges.
    let (critical, others): (Vec<_>, Vec<_>) = laid.wires.iter().partition(|wire| is_critical(nodes, wire));
    Some(html! {
        div.graph tabindex="0" role="region" aria-label=(label) {
            svg width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                g aria-hidden="true" {
                    @for wire in others.into_iter().chain(critical) {
                        path class={ "wire" (wire_class(nodes, wire)) } d=(wire.path()) {}
                    }
                }
                @for (node, at) in nodes.iter().zip(&laid.nodes) {
                    @match &node.href {
                        Some(href) => a class=(class(node)) href=(href) { (content(node, at.x, at.y)) },
                        None => g class=(class(node)) { (content(node, at.x, at.y)) },
                    }
                }
            }
        }
    })
}

fn is_critical(nodes: &[Node<'_>], wire: &Wire) -> bool {
    [wire.from, wire.to].iter().all(|&at| nodes[at].kind == Kind::Critical)
}

fn wire_class(nodes: &[Node<'_>], wire: &Wire) -> &'static str {
    match nodes[wire.to].kind {
        _ if is_critical(nodes, wire) => " critical",
        Kind::Plain => "",
        Kind::Ahead => " ahead",
        Kind::Done | Kind::Critical => " done",
    }
}

fn class(node: &Node<'_>) -> String {
    let mut class = "node".to_owned();
    let tone = node.look.tone;
    let kind = match node.kind {
        Kind::Critical => "critical",
        Kind::Ahead => "ahead",
        Kind::Plain | Kind::Done => "",
    };
    for name in
        [if matches!(tone, "bad" | "warn" | "busy") { tone } else { "" }, kind, if node.is_here { "here" } else { "" }]
    {
        if !name.is_empty() {
            class.push(' ');
            class.push_str(name);
        }
    }
    class
}

/// The box at `x`, `y`. Its title has the whole name: it is what a screen reader says, and what a pointer shows.
fn content(node: &Node<'_>, x: i32, y: i32) -> Markup {
    let Look { symbol, tone, word } = node.look;
    let (name, detail) = (visible(node.name), visible(node.detail));
    let title = [name.as_str(), &detail, word, &node.figures].into_iter().filter(|part| !part.is_empty());
    let short = cut(&detail, DETAIL_WIDTH.saturating_sub(width(&node.figures) + 1));
    html! {
        title { (title.collect::<Vec<_>>().join(", ")) }
        rect.box x=(x) y=(y) width=(SIZE.width) height=(SIZE.height) rx="8" {}
        use class={ "icon " (tone) } href={ "#i-" (symbol) } x=(x + 12) y=(y + 15) width="16" height="16" {}
        text x=(x + TEXT.0) y=(y + 20) { (cut(&name, NAME_WIDTH)) " " }
        text.sub x=(x + TEXT.0) y=(y + 36) { (short) " " }
        @if !node.figures.is_empty() { text.sub.end x=(x + TEXT.1) y=(y + 36) { (node.figures) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::icon::look;

    const HOSTILE: &str = "</title><script>alert(1)</script>\"' onload=x &amp;";

    fn node<'a>(name: &'a str, status: &str, kind: Kind) -> Node<'a> {
        let href = Some(format!("../runs/1/steps/{name}"));
        Node { href, name, detail: "gate:unit", look: look(status), figures: "1.5 s".into(), kind, is_here: false }
    }

    fn drawn(nodes: &[Node<'_>], edges: &[Edge]) -> String {
        graph("Graph of the steps", nodes, edges).expect("a small graph").into_string()
    }

    #[test]
    fn each_step_is_a_link_that_says_what_it_is() {
        let page = drawn(&[node("a", "succeeded", Kind::Critical), node("b", "failed", Kind::Critical)], &[(0, 1)]);
        for words in [
            r#"<a class="node critical" href="../runs/1/steps/a"><title>a, gate:unit, succeeded, 1.5 s</title>"#,
            r#"<a class="node bad critical" href="../runs/1/steps/b"><title>b, gate:unit, failed, 1.5 s</title>"#,
            r#"<path class="wire critical" d="M192 31H236"></path>"#,
            "<text x=\"46\" y=\"28\">a </text>",
        ] {
            assert!(page.contains(words), "{words} in {page}");
        }
        assert!(page.contains("role=\"region\" aria-label=\"Graph of the steps\"><svg width=\"428\" height=\"62\""));
    }

    #[test]
    fn edges_to_what_has_not_begun_are_dashed_and_the_critical_path_is_on_top() {
        let nodes = [
            node("a", "succeeded", Kind::Critical),
            node("b", "running", Kind::Critical),
            node("c", "succeeded", Kind::Done),
            node("d", "pending", Kind::Ahead),
        ];
        let page = drawn(&nodes, &[(0, 1), (0, 2), (1, 3)]);
        let wires: Vec<&str> = page.split("<path class=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
        assert_eq!(wires, ["wire done", "wire ahead", "wire critical"]);
        assert!(page.contains("class=\"node ahead\"") && page.contains("class=\"node busy critical\""));
    }

    #[test]
    fn a_plan_has_no_links_and_plain_edges() {
        let plan = |name| Node { href: None, kind: Kind::Plain, ..node(name, "pending", Kind::Plain) };
        let here = Node { is_here: true, ..plan("b") };
        let page = drawn(&[plan("a"), here], &[(0, 1)]);
        assert!(
            page.contains("<g class=\"node\">") && page.contains("<g class=\"node here\">") && !page.contains("<a ")
        );
        assert!(page.contains("<path class=\"wire\" "));
    }

    #[test]
    fn hostile_and_long_names_stay_text_and_inside_their_box() {
        let long = "x".repeat(200);
        let page = drawn(&[node(HOSTILE, "ready", Kind::Ahead), node(&long, "ready", Kind::Ahead)], &[(0, 1)]);
        assert!(!page.contains("<script") && !page.contains("\" onload"), "{page}");
        assert!(page.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains(&format!("<title>{long}, gate:unit")), "the whole name is in the title");
        let shown = page.split("<text x=\"274\" y=\"28\">").nth(1).and_then(|part| part.split(" </text>").next());
        assert_eq!(shown, Some(format!("{}…", "x".repeat(18)).as_str()));
        assert!(!page.contains(" style="));
    }

    #[test]
    fn a_large_graph_is_not_drawn() {
        let nodes = vec![node("a", "ready", Kind::Ahead); 61];
        assert!(graph("g", &nodes, &[]).is_none());
    }
}
