//! The vertical centres of the items.

use super::chains::Chains;

const SWEEPS: usize = 6;
/// From this sweep on, an item looks at both sides.
const FIRST_OF_BOTH: usize = 4;
/// Points weigh more than nodes, so that long edges stay straight.
const POINT_WEIGHT: f64 = 3.0;

/// The centre of each item. Items of a column keep their order, and `height(item) / 2 + gap + height(other) / 2`
/// between the centres of neighbours.
pub(super) fn centres(chains: &Chains, height: impl Fn(usize) -> f64, gap: f64) -> Vec<f64> {
    let mut centre = vec![0.0; chains.items.len()];
    let offsets: Vec<_> = chains.columns.iter().map(|column| offsets(column, &height, gap)).collect();
    for (column, offsets) in chains.columns.iter().zip(&offsets) {
        for (&item, offset) in column.iter().zip(offsets) {
            centre[item] = *offset;
        }
    }
    for sweep in 0..SWEEPS {
        let goes_right = sweep.is_multiple_of(2);
        for step in 0..chains.columns.len() {
            let at = if goes_right { step } else { chains.columns.len() - 1 - step };
            let column = &chains.columns[at];
            let wishes: Vec<f64> = column.iter().map(|&item| wish(chains, item, &centre, sweep)).collect();
            for (&item, found) in column.iter().zip(spread(chains, column, &offsets[at], &wishes)) {
                centre[item] = found;
            }
        }
    }
    centre
}

/// How far below the first centre each centre is at least.
fn offsets(column: &[usize], height: impl Fn(usize) -> f64, gap: f64) -> Vec<f64> {
    let mut offset = 0.0;
    let next = |at: usize, &item: &usize| {
        if let Some(before) = at.checked_sub(1) {
            offset += f64::midpoint(height(column[before]), height(item)) + gap;
        }
        offset
    };
    let mut next = next;
    column.iter().enumerate().map(|(at, item)| next(at, item)).collect()
}

/// The mean of the neighbours' centres.
fn wish(chains: &Chains, item: usize, centre: &[f64], sweep: usize) -> f64 {
    let (left, right) = (&chains.items[item].left, &chains.items[item].right);
    let near = match sweep {
        FIRST_OF_BOTH.. => left.iter().chain(right),
        _ if sweep.is_multiple_of(2) => left.iter().chain(&[]),
        _ => right.iter().chain(&[]),
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for &other in near {
        sum += centre[other];
        count += 1.0;
    }
    if count > 0.0 { sum / count } else { centre[item] }
}

/// Items at the mean of their wishes.
struct Block {
    weight: f64,
    mean: f64,
    count: usize,
}

/// The nearest centres to the wishes that keep order and distance: an isotonic regression by pooling adjacent
/// violators. It is exact and takes linear time.
fn spread(chains: &Chains, column: &[usize], offsets: &[f64], wishes: &[f64]) -> Vec<f64> {
    let mut blocks: Vec<Block> = Vec::new();
    for ((&item, offset), wish) in column.iter().zip(offsets).zip(wishes) {
        let weight = if chains.items[item].is_point { POINT_WEIGHT } else { 1.0 };
        let mut block = Block { weight, mean: wish - offset, count: 1 };
        while let Some(above) = blocks.pop_if(|above| above.mean >= block.mean) {
            let weight = above.weight + block.weight;
            let mean = (above.weight * above.mean + block.weight * block.mean) / weight;
            block = Block { weight, mean, count: above.count + block.count };
        }
        blocks.push(block);
    }
    let means = blocks.iter().flat_map(|block| std::iter::repeat_n(block.mean, block.count));
    means.zip(offsets).map(|(mean, offset)| mean + offset).collect()
}
