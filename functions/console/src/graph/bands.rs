//! Rows of a graph that is too large to draw.

/// Consecutive levels in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    pub first: usize,
    pub last: usize,
    /// Nodes of all its levels.
    pub nodes: usize,
    is_loud: bool,
}

/// Merges levels into at most `max` rows. `levels` has, for each level, its number of nodes and whether it is loud: a
/// loud level stays alone if that is possible. The two neighbours with the fewest nodes merge first.
pub fn bands(levels: &[(usize, bool)], max: usize) -> Vec<Band> {
    let band = |(level, &(nodes, is_loud))| Band { first: level, last: level, nodes, is_loud };
    let mut bands: Vec<Band> = levels.iter().enumerate().map(band).collect();
    while bands.len() > max.max(1) {
        let cost = |at: &usize| (bands[*at].is_loud || bands[at + 1].is_loud, bands[*at].nodes + bands[at + 1].nodes);
        let Some(at) = (0..bands.len() - 1).min_by_key(cost) else { break };
        let next = bands.remove(at + 1);
        let band = &mut bands[at];
        (band.last, band.nodes, band.is_loud) = (next.last, band.nodes + next.nodes, band.is_loud || next.is_loud);
    }
    bands
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_quiet_neighbours_merge_first() {
        let rows = |levels: &[(usize, bool)], max| -> Vec<(usize, usize, usize)> {
            bands(levels, max).iter().map(|band| (band.first, band.last, band.nodes)).collect()
        };
        let levels = [(1, true), (1, false), (9, false), (2, false), (2, false)];
        assert_eq!(rows(&levels, 5).len(), 5);
        assert_eq!(rows(&levels, 4), [(0, 0, 1), (1, 1, 1), (2, 2, 9), (3, 4, 4)]);
        assert_eq!(rows(&levels, 3), [(0, 0, 1), (1, 2, 10), (3, 4, 4)]);
        assert_eq!(rows(&levels, 2), [(0, 0, 1), (1, 4, 14)], "the loud level stays alone");
        assert_eq!(rows(&levels, 0), [(0, 4, 15)]);
        assert!(rows(&[], 3).is_empty());
    }

    proptest! {
        #[test]
        fn every_level_is_in_one_row(levels in prop::collection::vec((1_usize..400, any::<bool>()), 1..300), max in 1_usize..30) {
            let rows = bands(&levels, max);
            prop_assert_eq!(rows.len(), levels.len().min(max));
            let mut next = 0;
            for row in &rows {
                prop_assert_eq!(row.first, next);
                prop_assert_eq!(row.nodes, levels[row.first..=row.last].iter().map(|level| level.0).sum::<usize>());
                next = row.last + 1;
            }
            prop_assert_eq!(next, levels.len());
        }
    }
}
