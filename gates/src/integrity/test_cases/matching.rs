//! Which test of the change is which test of the base.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::collect::Case;

/// For each test of the base the test of the change that it has become.
pub fn pair(old: &[Case], new: &[Case]) -> Vec<Option<usize>> {
    let mut matched: Vec<Option<usize>> = vec![None; old.len()];
    let mut free: BTreeSet<usize> = (0..new.len()).collect();
    // From the most to the least certain.
    let keys: [fn(&Case) -> String; 4] = [
        |case| format!("{}\0{}", case.path, case.name),
        |case| format!("{}\0{}", case.path, case.leaf),
        |case| case.name.clone(),
        |case| case.leaf.clone(),
    ];
    for key in keys {
        let mut by_key: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
        for at in &free {
            if let Some(case) = new.get(*at) {
                by_key.entry(key(case)).or_default().push_back(*at);
            }
        }
        for (case, partner) in old.iter().zip(&mut matched).filter(|(_, partner)| partner.is_none()) {
            let Some(chosen) = by_key.get_mut(&key(case)).and_then(VecDeque::pop_front) else { continue };
            free.remove(&chosen);
            *partner = Some(chosen);
        }
    }
    by_similarity(old, new, &mut matched);
    matched
}

/// A test without a partner may have been renamed, merged, split or parametrised. Its new form does at least 0.6 of what it
/// did, asserts as much, and demands the failures that it demanded.
fn by_similarity(old: &[Case], new: &[Case], matched: &mut [Option<usize>]) {
    /// After these the other tests have no partner, so that a person sees them.
    const MAX_COMPARISONS: usize = 1_000_000;
    let most = MAX_COMPARISONS / new.len().max(1);
    let taken: BTreeMap<usize, &Case> =
        old.iter().zip(matched.iter()).filter_map(|(case, partner)| Some(((*partner)?, case))).collect();
    let mut capacity: Vec<usize> =
        new.iter().enumerate().map(|(at, case)| spare(taken.get(&at).copied(), case)).collect();
    for (case, partner) in old.iter().zip(matched.iter_mut()).filter(|(_, partner)| partner.is_none()).take(most) {
        *partner = successor(case, new, &mut capacity);
    }
}

/// How many assertions a test of the change can take over. A kept one only has those that it has won.
fn spare(before: Option<&Case>, case: &Case) -> usize {
    match before {
        None => case.weight(),
        // A table that has grown, or that a test has become.
        Some(before) if case.parametrised && (!before.parametrised || case.size > before.size) => usize::MAX,
        Some(before) => case.assertions.saturating_sub(before.assertions),
    }
}

fn successor(case: &Case, new: &[Case], capacity: &mut [usize]) -> Option<usize> {
    const MAX_CANDIDATES: usize = 500;
    let mut ranked: Vec<(usize, usize)> = new
        .iter()
        .enumerate()
        .filter(|(at, _)| capacity.get(*at).is_some_and(|left| *left > 0))
        .map(|(at, other)| (common_names(case, other), at))
        .filter(|(common, _)| *common > 0)
        .collect();
    ranked.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    ranked.truncate(MAX_CANDIDATES);
    let mut covered: BTreeSet<usize> = BTreeSet::new();
    let mut parts: Vec<usize> = Vec::new();
    let mut refusals: BTreeSet<&str> = BTreeSet::new();
    let mut total = 0_usize;
    for (common, at) in ranked {
        let Some(other) = new.get(at) else { continue };
        // One parametrised test replaces any number of tests that use the same functions.
        let unlimited = other.parametrised && !case.names.is_empty() && common * 10 >= case.names.len() * 6;
        let lines = if unlimited { (0..case.lines.len()).collect() } else { common_lines(case, other) };
        if lines.is_subset(&covered) && !case.lines.is_empty() {
            continue;
        }
        covered.extend(lines);
        parts.push(at);
        refusals.extend(other.refusals.iter().map(String::as_str));
        total = total.saturating_add(if unlimited { usize::MAX / 4 } else { capacity.get(at).copied().unwrap_or(0) });
        let enough_lines = covered.len() * 10 >= case.lines.len() * 6;
        let demands = case.refusals.is_empty() || !refusals.is_empty();
        if enough_lines && demands && total >= case.assertions {
            let mut owed = case.weight();
            for part in &parts {
                let parametrised = new.get(*part).is_some_and(|other| other.parametrised);
                if let Some(left) = capacity.get_mut(*part).filter(|_| !parametrised) {
                    let used = owed.min(*left);
                    *left -= used;
                    owed -= used;
                }
            }
            return parts.first().copied();
        }
    }
    None
}

fn common_names(one: &Case, other: &Case) -> usize {
    one.names.iter().filter(|name| other.names.binary_search(name).is_ok()).count()
}

/// The lines of a test that another one has too, but for a name or a value.
fn common_lines(case: &Case, other: &Case) -> BTreeSet<usize> {
    case.lines
        .iter()
        .enumerate()
        .filter(|(_, line)| other.lines.iter().any(|candidate| is_alike(line, candidate)))
        .map(|(at, _)| at)
        .collect()
}

/// At least 0.7 of the words of both lines are the same.
fn is_alike(one: &[String], other: &[String]) -> bool {
    let mut rest: Vec<&String> = other.iter().collect();
    let common = one
        .iter()
        .filter(|word| rest.iter().position(|candidate| candidate == word).map(|at| rest.swap_remove(at)).is_some())
        .count();
    20 * common >= 7 * (one.len() + other.len())
}
