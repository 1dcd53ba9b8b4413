//! What artifacts were made from, and what was made from them.

use std::collections::HashMap;

use maud::{Markup, html};
use shared::domain::ArtifactId;
use shared::view::{LineageEdge, LineageNode};

use super::graph::{Kind, Node, graph};
use super::icon::Look;
use super::layout::Base;
use super::parts::many;
use crate::graph::{Edge, nearest};

/// An artifact has no state.
const ARTIFACT: Look = Look { symbol: "doc", tone: "quiet", word: "" };

/// Artifacts that are drawn. More of them side by side would move what is below them out of sight.
const DRAWN: usize = 20;

/// The graph of artifacts, each a link to its page, with the step that made it. `here` is the artifact that the page is
/// about. Of a large lineage it shows what is closest to `here`.
pub fn lineage(base: Base, nodes: &[LineageNode], edges: &[LineageEdge], here: Option<ArtifactId>) -> Markup {
    let index: HashMap<ArtifactId, usize> = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
    let known = |edge: &LineageEdge| Some((*index.get(&edge.from)?, *index.get(&edge.to)?));
    let all: Vec<Edge> = edges.iter().filter_map(known).collect();
    let here_at = here.and_then(|id| index.get(&id).copied());
    let shown = nearest(nodes.len(), &all, here_at, DRAWN);
    let position = |at: usize| shown.binary_search(&at).ok();
    let edges: Vec<Edge> = all.iter().filter_map(|&(from, to)| Some((position(from)?, position(to)?))).collect();
    let boxes: Vec<Node<'_>> = shown.iter().map(|&at| node(base, &nodes[at], here)).collect();
    html! {
        @if let Some(drawing) = graph("Lineage of the artifact", &boxes, &edges) { (drawing) }
        @if shown.len() < nodes.len() {
            p.note { "The closest " (shown.len()) " of " (many(nodes.len() as u64, "artifact", "artifacts")) "." }
        }
    }
}

fn node(base: Base, node: &LineageNode, here: Option<ArtifactId>) -> Node<'_> {
    Node {
        href: Some(base.to(&format!("artifacts/{}", node.id))),
        name: &node.name,
        detail: node.step.as_deref().unwrap_or("uploaded"),
        look: ARTIFACT,
        figures: String::new(),
        kind: Kind::Plain,
        is_here: here == Some(node.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn artifact(number: u128, name: &str, step: Option<&str>) -> LineageNode {
        LineageNode {
            id: ArtifactId(Uuid::from_u128(number)),
            run_id: None,
            step_id: None,
            step: step.map(str::to_owned),
            attempt: None,
            name: name.into(),
            kind: "text".into(),
            hash: String::new(),
        }
    }

    fn made(from: u128, to: u128) -> LineageEdge {
        let id = |number| ArtifactId(Uuid::from_u128(number));
        LineageEdge { from: id(from), to: id(to) }
    }

    #[test]
    fn artifacts_are_links_with_the_step_that_made_them() {
        let nodes = [artifact(1, "base.tar.gz", None), artifact(2, "<b>notes</b>", Some("write"))];
        let page = lineage(Base(1), &nodes, &[made(1, 2), made(9, 2)], Some(nodes[1].id)).into_string();
        let (first, second) = (nodes[0].id, nodes[1].id);
        for words in [
            format!("<a class=\"node\" href=\"../artifacts/{first}\"><title>base.tar.gz, uploaded</title>"),
            format!(
                "<a class=\"node here\" href=\"../artifacts/{second}\"><title>&lt;b&gt;notes&lt;/b&gt;, write</title>"
            ),
            "<path class=\"wire\" d=\"M192 31H236\"></path>".into(),
        ] {
            assert!(page.contains(&words), "{words} in {page}");
        }
        assert!(!page.contains("<b>") && !page.contains("closest"));
    }

    #[test]
    fn a_large_lineage_shows_what_is_closest() {
        let nodes: Vec<_> = (0..200).map(|number| artifact(number, &format!("a{number}"), None)).collect();
        let edges: Vec<_> = (1..200).map(|number| made(number - 1, number)).collect();
        let page = lineage(Base(1), &nodes, &edges, Some(nodes[199].id)).into_string();
        assert_eq!(page.matches("class=\"node").count(), DRAWN);
        assert!(page.contains("<title>a199, ") && page.contains("<title>a180, ") && !page.contains("<title>a179, "));
        assert!(page.contains("The closest 20 of 200 artifacts."));
    }
}
