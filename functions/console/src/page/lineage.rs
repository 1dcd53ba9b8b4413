//! What artifacts were made from, and what was made from them.

use std::collections::HashMap;

use maud::{Markup, html};
use shared::db::seal::SealState;
use shared::domain::ArtifactId;
use shared::domain::artifact_storage::StorageState;
use shared::view::{Lineage, LineageEdge, LineageNode};

use super::graph::{Kind, Node, graph};
use super::icon::{Look, icon};
use super::layout::{Base, Layout, Part, layout};
use super::parts::{many, section};
use super::source::visible;
use crate::graph::{Edge, nearest};

/// Symbol and tone of an artifact. The state of its bytes is written out.
const ARTIFACT: Look = Look { symbol: "doc", tone: "quiet", word: "" };

/// Artifacts that are drawn. More of them side by side would move what is below them out of sight.
const DRAWN: usize = 20;
/// Artifacts that the page of a run lists.
const LISTED: usize = 200;

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

/// The lineage of a run, and whether the run can be proved.
#[derive(Debug, Clone, Copy)]
pub struct LineagePage<'a> {
    pub base: Base,
    pub lineage: &'a Lineage,
    pub seal: &'a SealState,
    /// Pending gates of the tenant.
    pub waiting: u64,
}

/// `GET /ui/runs/{id}/lineage`.
pub fn lineage_page(page: &LineagePage<'_>) -> String {
    let LineagePage { base, lineage: drawn, seal, waiting } = *page;
    let run = drawn.run_id;
    let content = html! {
        div.head {
            div {
                h1 { "Lineage and proof" }
                p.facts {
                    span { a href=(base.to(&format!("runs/{run}"))) { "the run" } }
                    span { b { (many(drawn.nodes.len() as u64, "artifact", "artifacts")) } }
                }
            }
        }
        (section("lineage", "Lineage", &html! { p.note { "made from what is on its left" } }, &html! {
            @if drawn.nodes.is_empty() { p.note { "The run has made no artifacts." } }
            @else {
                (lineage(base, &drawn.nodes, &drawn.edges, None))
                (made_from(base, drawn))
            }
        }))
        (section("proof", "Proof", &html! { p.note { "generation " (seal.generation) } }, &proof(base, page)))
    };
    layout(&Layout { part: Part::Runs, waiting, ..Layout::new(base, "Lineage and proof") }, &content)
}

/// What each artifact was made from, in words.
fn made_from(base: Base, drawn: &Lineage) -> Markup {
    let names: HashMap<ArtifactId, &str> = drawn.nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
    let parents = |node: &LineageNode| -> Vec<&str> {
        let edges = drawn.edges.iter().filter(|edge| edge.to == node.id);
        edges.filter_map(|edge| names.get(&edge.from).copied()).collect()
    };
    html! {
        ul.files {
            @for node in drawn.nodes.iter().take(LISTED) {
                li data-row {
                    (icon(look(node).symbol, "quiet"))
                    a href=(base.to(&format!("artifacts/{}", node.id))) { bdi { (visible(&node.name)) } }
                    span.note {
                        @let parents = parents(node);
                        @if let Some(words) = node.storage_words() { (visible(&words)) ", " }
                        @if parents.is_empty() { (visible(node.made_by())) }
                        @else {
                            (visible(node.made_by())) ", from "
                            @for (at, name) in parents.iter().enumerate() { @if at > 0 { ", " } bdi { (visible(name)) } }
                        }
                    }
                }
            }
        }
        @if drawn.nodes.len() > LISTED { p.note { "The first " (LISTED) " are listed. " code { "nofx lineage " (drawn.run_id) } " lists all." } }
        @if drawn.truncated { p.note { "There is more than this page reads." } }
    }
}

fn proof(base: Base, page: &LineagePage<'_>) -> Markup {
    let run = page.lineage.run_id;
    html! {
        @if page.seal.uri.is_some() {
            p.prose {
                "Everything that the run left is sealed: one signed file that anybody can verify with public keys. "
                a href=(base.to(&format!("runs/{run}/proof"))) { "Download the proof" } "."
            }
            p.prose { code { "nofx keys --pem --all > keys.pem" } }
            p.prose { code { "nofx verify proof.json --key keys.pem" } }
        } @else if page.seal.has_ended {
            p.prose { "The run has ended. It is sealed within a minute; reload this page then." }
        } @else {
            p.prose { "The run has not ended. It is sealed once it has." }
        }
    }
}

fn node(base: Base, node: &LineageNode, here: Option<ArtifactId>) -> Node<'_> {
    Node {
        href: Some(base.to(&format!("artifacts/{}", node.id))),
        name: &node.name,
        detail: node.step.as_deref().unwrap_or("uploaded"),
        look: look(node),
        figures: unreadable(node).map_or_else(String::new, |state| state.as_str().to_owned()),
        kind: Kind::Plain,
        is_here: here == Some(node.id),
    }
}

/// The state of bytes that cannot be read.
fn unreadable(node: &LineageNode) -> Option<StorageState> {
    node.storage.as_ref().map(|storage| storage.state).filter(|state| !state.is_readable())
}

fn look(node: &LineageNode) -> Look {
    let is_gone = unreadable(node).is_some_and(StorageState::is_gone);
    Look { symbol: if is_gone { "cancelled" } else { "doc" }, ..ARTIFACT }
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
            storage: None,
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
