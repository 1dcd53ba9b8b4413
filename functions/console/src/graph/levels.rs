//! Longest-path levels.

use super::Edge;

/// The columns of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// The level of each node. Level 0 has no parents, and no level is empty.
    pub of: Vec<usize>,
    /// All nodes, each after its parents.
    pub order: Vec<usize>,
}

impl Levels {
    /// How many levels there are.
    pub fn count(&self) -> usize {
        self.of.iter().max().map_or(0, |last| last + 1)
    }

    /// Whether the edge is between two known nodes and goes right. All edges of an acyclic graph do.
    pub fn goes_right(&self, (from, to): Edge) -> bool {
        matches!((self.of.get(from), self.of.get(to)), (Some(from), Some(to)) if from < to)
    }
}

/// The longest path to each node (Kahn's algorithm).
///
/// A plan has no cycle. If there is one, its first node starts as if it had no more parents, and the edges back to it
/// do not go right.
pub fn levels(nodes: usize, edges: &[Edge]) -> Levels {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    let mut open = vec![0_usize; nodes];
    for &(from, to) in edges.iter().filter(|&&(from, to)| from < nodes && to < nodes && from != to) {
        children[from].push(to);
        open[to] += 1;
    }
    // So the order of the edges does not matter.
    for list in &mut children {
        list.sort_unstable();
    }
    let mut levels = Levels { of: vec![0; nodes], order: (0..nodes).filter(|&node| open[node] == 0).collect() };
    let mut is_listed: Vec<bool> = open.iter().map(|&parents| parents == 0).collect();
    let (mut at, mut first_open) = (0, 0);
    loop {
        while let Some(&node) = levels.order.get(at) {
            at += 1;
            for &child in &children[node] {
                if is_listed[child] {
                    continue;
                }
                levels.of[child] = levels.of[child].max(levels.of[node] + 1);
                open[child] -= 1;
                if open[child] == 0 {
                    is_listed[child] = true;
                    levels.order.push(child);
                }
            }
        }
        // Only nodes of a cycle, and nodes below one, are left.
        let Some(node) = (first_open..nodes).find(|&node| !is_listed[node]) else { return levels };
        first_open = node;
        is_listed[node] = true;
        levels.order.push(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_longest_path() {
        let found = levels(5, &[(0, 1), (1, 2), (0, 2), (2, 4), (3, 4)]);
        assert_eq!(found.of, [0, 1, 2, 0, 3]);
        assert_eq!((found.count(), levels(0, &[]).count()), (4, 0));
    }

    #[test]
    fn a_cycle_has_levels_and_one_edge_that_goes_back() {
        let edges = [(0, 1), (1, 2), (2, 1), (2, 3), (3, 3), (7, 0)];
        let found = levels(4, &edges);
        assert_eq!(found.of, [0, 1, 2, 3]);
        assert_eq!(edges.map(|edge| found.goes_right(edge)), [true, true, false, true, false, false]);
    }
}
