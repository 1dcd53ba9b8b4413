//! The items of each column: nodes, and the points where long edges pass.

use super::{Edge, Levels};

/// A node or a point of a chain. An edge between items spans one level.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub is_point: bool,
    pub left: Vec<usize>,
    pub right: Vec<usize>,
}

/// Items and where they are. Item `i` is node `i`, if there are that many nodes; points follow.
#[derive(Debug, Clone)]
pub(super) struct Chains {
    pub items: Vec<Item>,
    /// The items of each level, from top to bottom.
    pub columns: Vec<Vec<usize>>,
    /// For each node the node itself, and then its points, one a level.
    pub of: Vec<Vec<usize>>,
}

impl Chains {
    /// `edges` go right.
    pub(super) fn new(levels: &Levels, edges: &[Edge]) -> Self {
        let nodes = levels.of.len();
        let item = |is_point| Item { is_point, left: Vec::new(), right: Vec::new() };
        let mut chains = Self {
            items: vec![item(false); nodes],
            columns: vec![Vec::new(); levels.count()],
            of: (0..nodes).map(|node| vec![node]).collect(),
        };
        for (node, &level) in levels.of.iter().enumerate() {
            chains.columns[level].push(node);
        }
        let mut last = levels.of.clone();
        for &(from, to) in edges {
            last[from] = last[from].max(levels.of[to] - 1);
        }
        for (node, &last) in last.iter().enumerate() {
            for level in levels.of[node] + 1..=last {
                let (before, point) = (chains.of[node][level - levels.of[node] - 1], chains.items.len());
                chains.items.push(item(true));
                chains.columns[level].push(point);
                chains.connect(before, point);
                chains.of[node].push(point);
            }
        }
        for &(from, to) in edges {
            chains.connect(chains.of[from][levels.of[to] - 1 - levels.of[from]], to);
        }
        chains
    }

    fn connect(&mut self, left: usize, right: usize) {
        self.items[left].right.push(right);
        self.items[right].left.push(left);
    }
}
