//! Transitive reduction.

use super::{Edge, Levels};

/// The edges that go right, without those that a longer path implies. They are in the order of `levels.order` by
/// child, without duplicates.
pub fn reduced(edges: &[Edge], levels: &Levels) -> Vec<Edge> {
    let nodes = levels.of.len();
    let mut rank = vec![0; nodes];
    for (at, &node) in levels.order.iter().enumerate() {
        rank[node] = at;
    }
    let mut parents = vec![Vec::new(); nodes];
    for &(from, to) in edges.iter().filter(|&&edge| levels.goes_right(edge)) {
        parents[to].push(from);
    }
    let mut ancestors = BitRows::new(nodes);
    let mut kept = Vec::new();
    for &node in &levels.order {
        // The nearest parents come first. A parent that is an ancestor of one of them is implied.
        parents[node].sort_unstable_by_key(|&parent| std::cmp::Reverse(rank[parent]));
        parents[node].dedup();
        for &parent in &parents[node] {
            if !ancestors.contains(node, parent) {
                kept.push((parent, node));
                ancestors.insert_all(node, parent);
                ancestors.insert(node, parent);
            }
        }
    }
    kept
}

/// A set of nodes for each node.
struct BitRows {
    words: usize,
    bits: Vec<u64>,
}

impl BitRows {
    fn new(nodes: usize) -> Self {
        let words = nodes.div_ceil(64);
        Self { words, bits: vec![0; nodes * words] }
    }

    fn contains(&self, row: usize, node: usize) -> bool {
        self.bits[row * self.words + node / 64] >> (node % 64) & 1 == 1
    }

    fn insert(&mut self, row: usize, node: usize) {
        self.bits[row * self.words + node / 64] |= 1 << (node % 64);
    }

    fn insert_all(&mut self, row: usize, from: usize) {
        for word in 0..self.words {
            self.bits[row * self.words + word] |= self.bits[from * self.words + word];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::levels;
    use super::*;

    #[test]
    fn an_edge_beside_a_longer_path_is_left_out() {
        let edges = [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (0, 1), (3, 0)];
        assert_eq!(reduced(&edges, &levels(4, &edges)), [(0, 1), (1, 2), (2, 3)]);
    }

    #[test]
    fn ancestors_beyond_the_first_word_are_found() {
        let mut edges: Vec<Edge> = (1..150).map(|node| (node - 1, node)).collect();
        edges.extend([(0, 149), (63, 128), (64, 149)]);
        assert_eq!(reduced(&edges, &levels(150, &edges)).len(), 149);
    }
}
