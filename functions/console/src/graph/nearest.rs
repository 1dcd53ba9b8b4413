//! The part of a graph around a node.

use std::collections::VecDeque;

use super::Edge;

/// At most `max` nodes: `here`, its parents and children, their neighbours, and so on. Without `here`, or if it is not
/// a node, the first ones. They are in the order of the graph.
pub fn nearest(nodes: usize, edges: &[Edge], here: Option<usize>, max: usize) -> Vec<usize> {
    let Some(here) = here.filter(|here| *here < nodes && nodes > max) else { return (0..nodes.min(max)).collect() };
    let mut neighbours = vec![Vec::new(); nodes];
    for &(from, to) in edges.iter().filter(|&&(from, to)| from < nodes && to < nodes) {
        neighbours[from].push(to);
        neighbours[to].push(from);
    }
    let mut is_found = vec![false; nodes];
    is_found[here] = true;
    let (mut found, mut queue) = (Vec::new(), VecDeque::from([here]));
    while let Some(node) = queue.pop_front().filter(|_| found.len() < max) {
        found.push(node);
        for &other in &neighbours[node] {
            if !is_found[other] {
                is_found[other] = true;
                queue.push_back(other);
            }
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_nodes_stay() {
        let chain: Vec<Edge> = (1..10).map(|node| (node - 1, node)).collect();
        assert_eq!(nearest(10, &chain, Some(6), 3), [5, 6, 7]);
        assert_eq!(nearest(10, &chain, Some(6), 10), (0..10).collect::<Vec<_>>());
        assert_eq!(nearest(10, &chain, None, 2), [0, 1]);
        assert_eq!(nearest(10, &[(0, 1), (1, 0), (4, 99)], Some(4), 5), [4], "only what is connected");
        assert_eq!(nearest(10, &chain, Some(6), 0), [0_usize; 0]);
        assert_eq!(nearest(10, &chain, Some(99), 1), [0]);
    }
}
