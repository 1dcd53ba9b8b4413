//! The graph of a plan's steps. Time is linear in steps and edges. [`Ancestors`] takes one bit of memory per pair of
//! steps.

/// Positions in topological order, parents first. The error is a cycle from parent to child, whose first and last
/// positions are equal.
pub(super) fn sorted(parents: &[&[usize]]) -> Result<Vec<usize>, Vec<usize>> {
    let mut open: Vec<usize> = parents.iter().map(|parents| parents.len()).collect();
    let mut children = vec![Vec::new(); parents.len()];
    for (child, parents) in parents.iter().enumerate() {
        for &parent in *parents {
            children[parent].push(child);
        }
    }
    let mut order: Vec<usize> = (0..parents.len()).filter(|&step| open[step] == 0).collect();
    let mut next = 0;
    while let Some(&step) = order.get(next) {
        next += 1;
        for &child in &children[step] {
            open[child] -= 1;
            if open[child] == 0 {
                order.push(child);
            }
        }
    }
    if order.len() == parents.len() { Ok(order) } else { Err(cycle(parents, &open)) }
}

/// Finds a cycle. Every open step has an open parent, so walking up from any of them ends in a cycle.
fn cycle(parents: &[&[usize]], open: &[usize]) -> Vec<usize> {
    let mut seen_at = vec![None; parents.len()];
    let mut walk = Vec::new();
    let mut here = open.iter().position(|&count| count > 0);
    while let Some(step) = here {
        walk.push(step);
        if let Some(start) = seen_at[step] {
            return walk[start..].iter().rev().copied().collect();
        }
        seen_at[step] = Some(walk.len() - 1);
        here = parents[step].iter().copied().find(|&parent| open[parent] > 0);
    }
    walk
}

/// Length in edges of the longest path to each step. `order` is the result of [`sorted`].
pub(super) fn levels(parents: &[&[usize]], order: &[usize]) -> Vec<usize> {
    let mut levels = vec![0; parents.len()];
    for &step in order {
        levels[step] = parents[step].iter().map(|&parent| levels[parent] + 1).max().unwrap_or(0);
    }
    levels
}

/// All steps upstream of each step.
pub(super) struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    /// `order` is the result of [`sorted`].
    pub fn of(parents: &[&[usize]], order: &[usize]) -> Self {
        let words = parents.len().div_ceil(64);
        let mut bits = vec![0; words * parents.len()];
        for &step in order {
            for &parent in parents[step] {
                for word in 0..words {
                    bits[step * words + word] |= bits[parent * words + word];
                }
                bits[step * words + parent / 64] |= 1 << (parent % 64);
            }
        }
        Self { words, bits }
    }

    pub fn contains(&self, step: usize, ancestor: usize) -> bool {
        self.bits[step * self.words + ancestor / 64] & (1 << (ancestor % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_all_steps_upstream_and_no_others() {
        // 0 -> 1 -> 3 -> 70 and 2 -> 3. The other steps have no edges.
        let mut parents = vec![&[][..]; 71];
        (parents[1], parents[3], parents[70]) = (&[0], &[1, 2], &[3]);
        let ancestors = Ancestors::of(&parents, &sorted(&parents).unwrap());
        let of = |step| (0..71).filter(|&other| ancestors.contains(step, other)).collect::<Vec<_>>();
        assert_eq!((of(70), of(3), of(0), of(69)), (vec![0, 1, 2, 3], vec![0, 1, 2], vec![], vec![]));
    }

    #[test]
    fn a_level_is_the_length_of_the_longest_path() {
        let parents: [&[usize]; 5] = [&[4], &[], &[0, 1], &[], &[3]];
        assert_eq!(levels(&parents, &sorted(&parents).unwrap()), [2, 0, 3, 0, 1]);
    }

    #[test]
    fn a_cycle_is_reported_from_parent_to_child() {
        let parents: [&[usize]; 5] = [&[], &[0, 3], &[1], &[2], &[3]];
        let cycle = sorted(&parents).unwrap_err();
        assert_eq!(cycle.first(), cycle.last());
        assert_eq!(cycle.len(), 4);
        for pair in cycle.windows(2) {
            assert!(parents[pair[1]].contains(&pair[0]), "{cycle:?}");
        }
    }
}
