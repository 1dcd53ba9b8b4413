//! The critical path.

use super::Edge;

/// The nodes that decided how long everything took: the one that ended last, of its parents the one that ended last,
/// and so on. The earliest comes first. A node without an end has not begun, and ends only compare with each other.
pub fn critical(ends: &[Option<i64>], edges: &[Edge]) -> Vec<usize> {
    let mut parents = vec![Vec::new(); ends.len()];
    for &(from, to) in edges.iter().filter(|&&(from, to)| from < ends.len() && to < ends.len()) {
        parents[to].push(from);
    }
    // The first of those that ended at the same time.
    let last = |nodes: &[usize]| {
        nodes.iter().rev().copied().filter(|&node| ends[node].is_some()).max_by_key(|&node| ends[node])
    };
    let mut path: Vec<usize> = Vec::new();
    let mut is_on_path = vec![false; ends.len()];
    let mut next = last(&(0..ends.len()).collect::<Vec<_>>());
    while let Some(node) = next.filter(|&node| !is_on_path[node]) {
        is_on_path[node] = true;
        path.push(node);
        next = last(&parents[node]);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIAMOND: [Edge; 4] = [(0, 1), (0, 2), (1, 3), (2, 3)];

    #[test]
    fn the_path_goes_over_the_parent_that_ended_last() {
        assert_eq!(critical(&[Some(5), Some(9), Some(30), Some(40)], &DIAMOND), [0, 2, 3]);
        assert_eq!(critical(&[Some(5), Some(30), Some(30), Some(40)], &DIAMOND), [0, 1, 3], "the first of equals");
    }

    #[test]
    fn nodes_that_have_not_begun_are_not_on_the_path() {
        assert_eq!(critical(&[Some(5), Some(9), None, None], &DIAMOND), [0, 1]);
        assert!(critical(&[None; 4], &DIAMOND).is_empty() && critical(&[], &[]).is_empty());
    }

    #[test]
    fn a_cycle_ends_the_path() {
        assert_eq!(critical(&[Some(1), Some(2)], &[(0, 1), (1, 0), (5, 1), (1, 5)]), [0, 1]);
    }
}
