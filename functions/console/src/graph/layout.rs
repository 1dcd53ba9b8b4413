//! Positions of nodes and routes of edges.

use std::fmt::Write as _;

use super::chains::Chains;
use super::{Edge, heights, levels, order, reduced};

/// A larger graph is not laid out: nobody can read it, and the chains of long edges grow with its square.
pub const MAX_NODES: usize = 60;

/// Height of a point of a chain.
const POINT_HEIGHT: i32 = 2;

/// Sizes in units of the drawing.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub width: i32,
    pub height: i32,
    pub column_gap: i32,
    pub row_gap: i32,
    pub margin: i32,
}

/// Where a node or a part of an edge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

/// An edge that is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub from: usize,
    pub to: usize,
    /// Where it leaves a column and where it enters the next one, in turn.
    pub points: Vec<Point>,
}

/// A drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The upper left corner of each node.
    pub nodes: Vec<Point>,
    pub wires: Vec<Wire>,
    pub width: i32,
    pub height: i32,
}

impl Wire {
    /// The `d` of an SVG path: curves in the gaps, straight lines through the columns.
    pub fn path(&self) -> String {
        let mut path = String::new();
        let mut before: Option<Point> = None;
        for (at, point) in self.points.iter().enumerate() {
            let Point { x, y } = *point;
            // Writing to a string cannot fail.
            let _ = match before {
                None => write!(path, "M{x} {y}"),
                Some(last) if last.y == y => write!(path, "H{x}"),
                Some(_) if at % 2 == 0 => write!(path, "L{x} {y}"),
                Some(last) => {
                    let middle = i32::midpoint(last.x, x);
                    write!(path, "C{middle} {} {middle} {y} {x} {y}", last.y)
                }
            };
            before = Some(*point);
        }
        path
    }
}

/// A drawing of the graph, from left to right. Ties follow the order of the nodes. `None` for more than [`MAX_NODES`]
/// nodes. Edges of a cycle that would go left are left out.
pub fn layout(nodes: usize, edges: &[Edge], size: Size) -> Option<Layout> {
    if nodes > MAX_NODES {
        return None;
    }
    if nodes == 0 {
        return Some(Layout { nodes: Vec::new(), wires: Vec::new(), width: 0, height: 0 });
    }
    let levels = levels(nodes, edges);
    let edges = reduced(edges, &levels);
    let mut chains = Chains::new(&levels, &edges);
    order::sort(&mut chains);
    let height = |item| f64::from(if item < nodes { size.height } else { POINT_HEIGHT });
    let centre = heights::centres(&chains, height, f64::from(size.row_gap));

    let uppermost = centre.iter().enumerate().map(|(item, y)| y - height(item) / 2.0).fold(f64::INFINITY, f64::min);
    let lowest = centre.iter().enumerate().map(|(item, y)| y + height(item) / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let (top, bottom) = (uppermost - f64::from(size.margin), lowest + f64::from(size.margin));
    let y_of = |item: usize| round(centre[item] - top);
    let x_of = |level: usize| size.margin + i32::try_from(level).unwrap_or(i32::MAX) * (size.width + size.column_gap);
    let middle = size.height / 2;
    let spots: Vec<Point> = (0..nodes).map(|node| Point { x: x_of(levels.of[node]), y: y_of(node) - middle }).collect();
    let wire = |&(from, to): &Edge| {
        let mut points = vec![Point { x: spots[from].x + size.width, y: spots[from].y + middle }];
        for level in levels.of[from] + 1..levels.of[to] {
            let y = y_of(chains.of[from][level - levels.of[from]]);
            points.extend([Point { x: x_of(level), y }, Point { x: x_of(level) + size.width, y }]);
        }
        points.push(Point { x: spots[to].x, y: spots[to].y + middle });
        Wire { from, to, points }
    };
    let wires = edges.iter().map(wire).collect();
    let width = x_of(levels.count()) - size.column_gap + size.margin;
    Some(Layout { nodes: spots, wires, width, height: round((bottom - top).ceil()) })
}

/// Coordinates of at most [`MAX_NODES`] rows fit.
#[allow(clippy::cast_possible_truncation)]
fn round(value: f64) -> i32 {
    value.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: Size = Size { width: 184, height: 46, column_gap: 44, row_gap: 14, margin: 8 };

    fn layout_of(nodes: usize, edges: &[Edge]) -> Layout {
        layout(nodes, edges, SIZE).expect("a small graph")
    }

    #[test]
    fn a_chain_is_one_line() {
        let found = layout_of(3, &[(0, 1), (1, 2), (0, 2)]);
        assert_eq!(found.nodes, [(8, 8), (236, 8), (464, 8)].map(|(x, y)| Point { x, y }));
        assert_eq!(found.wires.iter().map(Wire::path).collect::<Vec<_>>(), ["M192 31H236", "M420 31H464"]);
        assert_eq!((found.width, found.height), (656, 62));
    }

    #[test]
    fn a_long_edge_passes_a_node_in_a_line_of_its_own() {
        // 0 -> 1 -> 2 -> 4, and 3 -> 4 with 3 at the start.
        let found = layout_of(5, &[(0, 1), (1, 2), (2, 4), (3, 4)]);
        let long = found.wires.iter().find(|wire| wire.from == 3).expect("the edge");
        assert_eq!(long.points.len(), 6);
        let path = long.path();
        assert!(path.starts_with("M192 ") && path.contains('H') && path.contains('C'), "{path}");
    }

    #[test]
    fn nothing_and_too_much_are_not_drawn() {
        assert_eq!(layout_of(0, &[]), Layout { nodes: vec![], wires: vec![], width: 0, height: 0 });
        assert_eq!(layout(MAX_NODES + 1, &[], SIZE), None);
        assert_eq!(layout_of(1, &[(0, 0), (0, 9)]).wires, []);
    }

    /// Up to 60 nodes with edges in any direction, so also with cycles.
    fn graphs() -> impl Strategy<Value = (usize, Vec<Edge>)> {
        (1..=MAX_NODES).prop_flat_map(|nodes| (Just(nodes), prop::collection::vec((0..nodes, 0..nodes), 0..3 * nodes)))
    }

    /// The same without cycles.
    fn plans() -> impl Strategy<Value = (usize, Vec<Edge>)> {
        graphs().prop_map(|(nodes, edges)| {
            let forward = |(a, b): Edge| (a != b).then_some((a.min(b), a.max(b)));
            (nodes, edges.into_iter().filter_map(forward).collect())
        })
    }

    proptest! {
        #[test]
        fn boxes_do_not_overlap_and_no_edge_passes_through_one((nodes, edges) in graphs()) {
            let found = layout_of(nodes, &edges);
            for (at, a) in found.nodes.iter().enumerate() {
                prop_assert!(a.x >= SIZE.margin && a.x + SIZE.width + SIZE.margin <= found.width);
                prop_assert!(a.y >= SIZE.margin - 1 && a.y + SIZE.height + SIZE.margin <= found.height + 1);
                for b in &found.nodes[at + 1..] {
                    prop_assert!(a.x != b.x || (a.y - b.y).abs() > SIZE.height, "{a:?} {b:?}");
                }
                let passes = |point: &Point| point.x == a.x && point.y >= a.y && point.y <= a.y + SIZE.height;
                for wire in &found.wires {
                    let inner = &wire.points[1..wire.points.len() - 1];
                    prop_assert!(!inner.iter().any(passes), "{wire:?} {a:?}");
                }
            }
        }

        #[test]
        fn every_edge_goes_right((nodes, edges) in graphs()) {
            let found = layout_of(nodes, &edges);
            for wire in &found.wires {
                prop_assert!(edges.contains(&(wire.from, wire.to)));
                prop_assert!(wire.points.windows(2).all(|pair| pair[0].x < pair[1].x), "{wire:?}");
                prop_assert_eq!(wire.points[0].x, found.nodes[wire.from].x + SIZE.width);
                prop_assert_eq!(wire.points.last().map(|point| point.x), Some(found.nodes[wire.to].x));
            }
        }

        #[test]
        fn the_drawing_connects_what_the_plan_connects((nodes, edges) in plans()) {
            let drawn: Vec<Edge> = layout_of(nodes, &edges).wires.iter().map(|wire| (wire.from, wire.to)).collect();
            prop_assert_eq!(reach(nodes, &drawn), reach(nodes, &edges));
            for at in 0..drawn.len() {
                let others: Vec<Edge> = drawn[..at].iter().chain(&drawn[at + 1..]).copied().collect();
                prop_assert_ne!(reach(nodes, &others), reach(nodes, &edges), "an edge too many: {:?}", drawn[at]);
            }
        }

        #[test]
        fn the_same_graph_has_the_same_drawing((nodes, edges) in graphs()) {
            prop_assert_eq!(layout_of(nodes, &edges), layout_of(nodes, &edges.clone()));
        }

        #[test]
        fn the_order_of_the_edges_does_not_matter((nodes, edges) in plans()) {
            let mut reversed = edges.clone();
            reversed.reverse();
            prop_assert_eq!(layout_of(nodes, &edges), layout_of(nodes, &reversed));
        }
    }

    /// Which nodes reach which, by following edges.
    fn reach(nodes: usize, edges: &[Edge]) -> Vec<bool> {
        let mut reach = vec![false; nodes * nodes];
        for &(from, to) in edges {
            reach[from * nodes + to] = true;
        }
        for over in 0..nodes {
            for from in (0..nodes).filter(|from| from != &over) {
                if reach[from * nodes + over] {
                    for to in 0..nodes {
                        reach[from * nodes + to] |= reach[over * nodes + to];
                    }
                }
            }
        }
        reach
    }
}
