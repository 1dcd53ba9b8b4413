//! The order of the items in each column.

use std::cmp::Ordering;

use super::chains::{Chains, Item};

const MAX_SWEEPS: usize = 8;
/// The search stops after this many sweeps without fewer crossings.
const MAX_IDLE: usize = 2;

/// Sorts the items of each column by the mean position of their neighbours, in sweeps to the right and to the left.
/// Ties keep their order. The columns get the order with the fewest crossings that was seen.
pub(super) fn sort(chains: &mut Chains) {
    let mut place = vec![0; chains.items.len()];
    let mut columns = chains.columns.clone();
    for column in &columns {
        number(column, &mut place);
    }
    let mut fewest = crossings(&columns, &chains.items, &place);
    let mut idle = 0;
    for sweep in 0..MAX_SWEEPS {
        if fewest == 0 || idle == MAX_IDLE {
            return;
        }
        let goes_right = sweep.is_multiple_of(2);
        for at in 1..columns.len() {
            let column = if goes_right {
                &mut columns[at]
            } else {
                let at = columns.len() - 1 - at;
                &mut columns[at]
            };
            sort_column(column, &chains.items, &place, goes_right);
            number(column, &mut place);
        }
        let found = crossings(&columns, &chains.items, &place);
        if found < fewest {
            (fewest, idle) = (found, 0);
            chains.columns.clone_from(&columns);
        } else {
            idle += 1;
        }
    }
}

fn number(column: &[usize], place: &mut [usize]) {
    for (at, &item) in column.iter().enumerate() {
        place[item] = at;
    }
}

fn sort_column(column: &mut [usize], items: &[Item], place: &[usize], goes_right: bool) {
    // The mean as a sum and a count: comparing fractions is exact.
    let mean = |&item: &usize| {
        let near = if goes_right { &items[item].left } else { &items[item].right };
        let sum: usize = near.iter().map(|&other| place[other]).sum();
        if near.is_empty() { (place[item], 1) } else { (sum, near.len()) }
    };
    let compare = |a: (usize, usize), b: (usize, usize)| -> Ordering { (a.0 * b.1).cmp(&(b.0 * a.1)) };
    // The sort is stable, and `column` is in the order of `place`.
    column.sort_by(|a, b| compare(mean(a), mean(b)));
}

/// Pairs of edges that cross, counted with a Fenwick tree.
fn crossings(columns: &[Vec<usize>], items: &[Item], place: &[usize]) -> usize {
    let mut total = 0;
    for pair in columns.windows(2) {
        let mut tree = vec![0; pair[1].len() + 1];
        let mut seen = 0;
        for &item in &pair[0] {
            let ends = || items[item].right.iter().map(|&other| place[other]);
            for end in ends() {
                let mut up_to = 0;
                let mut at = end + 1;
                while at > 0 {
                    up_to += tree[at];
                    at &= at - 1;
                }
                total += seen - up_to;
            }
            for end in ends() {
                let mut at = end + 1;
                while at < tree.len() {
                    tree[at] += 1;
                    at += at & at.wrapping_neg();
                }
                seen += 1;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::{Edge, levels};
    use super::*;
    use proptest::prelude::*;

    fn chains(nodes: usize, edges: &[Edge]) -> Chains {
        Chains::new(&levels(nodes, edges), edges)
    }

    fn count(chains: &Chains) -> usize {
        let mut place = vec![0; chains.items.len()];
        for column in &chains.columns {
            number(column, &mut place);
        }
        crossings(&chains.columns, &chains.items, &place)
    }

    /// The definition: two edges cross if their ends are in opposite order.
    fn count_pairs(chains: &Chains) -> usize {
        let at = |item: usize| chains.columns.iter().find_map(|column| column.iter().position(|&other| other == item));
        chains
            .columns
            .iter()
            .map(|column| {
                let edges: Vec<_> = column
                    .iter()
                    .flat_map(|&left| chains.items[left].right.iter().map(move |&right| (left, right)))
                    .map(|(left, right)| (at(left), at(right)))
                    .collect();
                let pairs =
                    edges.iter().enumerate().flat_map(|(index, a)| edges[index + 1..].iter().map(move |b| (a, b)));
                pairs.filter(|(a, b)| a.0 < b.0 && a.1 > b.1 || a.0 > b.0 && a.1 < b.1).count()
            })
            .sum()
    }

    #[test]
    fn two_parallel_edges_get_uncrossed() {
        let mut crossed = chains(4, &[(0, 3), (1, 2)]);
        assert_eq!(count(&crossed), 1);
        sort(&mut crossed);
        assert_eq!((count(&crossed), &crossed.columns[1]), (0, &vec![3, 2]));
    }

    proptest! {
        #[test]
        fn sorting_keeps_the_items_and_never_adds_crossings(edges in prop::collection::vec((0_usize..20, 0_usize..20), 0..60)) {
            let edges: Vec<Edge> = edges.into_iter().filter(|(from, to)| from < to).collect();
            let before = chains(20, &edges);
            let mut after = before.clone();
            sort(&mut after);
            prop_assert_eq!(count(&before), count_pairs(&before));
            prop_assert!(count(&after) <= count(&before));
            for (old, new) in before.columns.iter().zip(&after.columns) {
                let mut new = new.clone();
                new.sort_unstable();
                let mut old = old.clone();
                old.sort_unstable();
                prop_assert_eq!(old, new);
            }
        }
    }
}
