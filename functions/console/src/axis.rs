//! A time axis for the waterfall of attempts: moments in, places in per cent of the width out.
//!
//! A stretch of time in which nothing ran is broken if it is long, so that a weekend of waiting hides nothing.

/// Where the axis ends. The rest is for the last label.
const WIDTH: f64 = 98.0;
/// A stretch without work is broken if it is longer than this part of all work, and then it takes [`BROKEN`].
const LONG: i64 = 4;
const BROKEN: i64 = 8;
/// Labels are at least this far apart, in per cent.
const LABEL: f64 = 9.0;
/// Labels that the whole axis aims at.
const LABELS: i64 = 5;

/// A time axis. Moments are in milliseconds.
#[derive(Debug, Clone)]
pub struct Axis {
    from: i64,
    pieces: Vec<Piece>,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: i64,
    until: i64,
    is_broken: bool,
    x: f64,
    width: f64,
}

/// A label of the axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    pub x: f64,
    /// Milliseconds since the start of the axis.
    pub ms: i64,
}

impl Axis {
    /// The axis from `from` to `until`. `busy` has the stretches in which something ran.
    pub fn new(busy: impl IntoIterator<Item = (i64, i64)>, from: i64, until: i64) -> Self {
        let busy = merged(busy, from, until);
        let work = busy.iter().map(|(start, end)| end - start).sum::<i64>().max(1);
        let mut pieces = Vec::new();
        let mut weights = Vec::new();
        let mut at = from;
        for (start, end) in busy.into_iter().chain([(until, until)]) {
            for (from, until, is_idle) in [(at, start, true), (start, end, false)] {
                if until > from {
                    let is_broken = is_idle && until - from > work / LONG;
                    pieces.push(Piece { from, until, is_broken, x: 0.0, width: 0.0 });
                    weights.push(if is_broken { (work / BROKEN).max(1) } else { until - from });
                }
            }
            at = at.max(end);
        }
        let total = weights.iter().sum::<i64>().max(1);
        let mut x = 0.0;
        for (piece, weight) in pieces.iter_mut().zip(weights) {
            piece.x = x;
            piece.width = WIDTH * ratio(weight, total);
            x += piece.width;
        }
        Self { from, pieces }
    }

    /// The place of a moment.
    pub fn place(&self, moment: i64) -> f64 {
        let at = self.pieces.partition_point(|piece| piece.until < moment);
        let Some(piece) = self.pieces.get(at).or(self.pieces.last()) else { return 0.0 };
        let part = ratio(moment - piece.from, piece.until - piece.from);
        piece.x + piece.width * part.clamp(0.0, 1.0)
    }

    /// Labels at round times since the start, none of them within a break.
    pub fn ticks(&self) -> Vec<Tick> {
        let unbroken = || self.pieces.iter().filter(|piece| !piece.is_broken);
        let step = round_step(unbroken().map(|piece| piece.until - piece.from).sum::<i64>() / LABELS);
        let mut ticks: Vec<Tick> = Vec::new();
        for piece in unbroken() {
            let (first, last) = (piece.from - self.from, piece.until - self.from);
            let mut ms = first.div_euclid(step) * step;
            while ms <= last {
                let x = self.place(self.from + ms);
                if ms >= first && ticks.last().is_none_or(|tick| x - tick.x > LABEL) {
                    ticks.push(Tick { x, ms });
                }
                ms += step;
            }
        }
        ticks
    }

    /// The middle of each break.
    pub fn breaks(&self) -> impl Iterator<Item = f64> {
        self.pieces.iter().filter(|piece| piece.is_broken).map(|piece| piece.x + piece.width / 2.0)
    }
}

/// The stretches in order, within the axis, without overlaps.
fn merged(busy: impl IntoIterator<Item = (i64, i64)>, from: i64, until: i64) -> Vec<(i64, i64)> {
    let within = |(start, end): (i64, i64)| (start.clamp(from, until.max(from)), end.clamp(from, until.max(from)));
    let mut busy: Vec<_> = busy.into_iter().map(within).filter(|(start, end)| start < end).collect();
    busy.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::new();
    for (start, end) in busy {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// The smallest round time that is at least `wish`.
fn round_step(wish: i64) -> i64 {
    const ROUND: [i64; 16] = [
        100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
        3_600_000, 7_200_000,
    ];
    const DAY: i64 = 86_400_000;
    let round = ROUND.into_iter().chain([DAY / 4, DAY / 2]).find(|step| *step >= wish);
    round.unwrap_or_else(|| wish.div_euclid(DAY) * DAY + DAY)
}

/// Milliseconds of a run are small enough for exact numbers.
#[allow(clippy::cast_precision_loss)]
fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_without_idle_time_is_to_scale() {
        let axis = Axis::new([(0, 4_000), (3_000, 10_000)], 0, 10_000);
        let places = [0, 5_000, 10_000].map(|moment| axis.place(moment).to_string());
        assert_eq!(places, ["0", "49", "98"]);
        assert_eq!(
            axis.ticks().iter().map(|tick| tick.ms).collect::<Vec<_>>(),
            [0, 2_000, 4_000, 6_000, 8_000, 10_000]
        );
        assert_eq!(axis.breaks().count(), 0);
    }

    #[test]
    fn a_weekend_of_waiting_takes_an_eighth_of_the_work() {
        let weekend = 2 * 86_400_000;
        let axis = Axis::new([(0, 8_000), (weekend, weekend + 8_000)], 0, weekend + 8_000);
        let places = [8_000, weekend].map(|moment| axis.place(moment));
        assert_eq!(places.map(|x| format!("{x:.1}")), ["43.6", "54.4"]);
        assert_eq!(axis.breaks().map(|x| format!("{x:.1}")).collect::<Vec<_>>(), ["49.0"]);
        assert!(axis.ticks().iter().all(|tick| tick.ms <= 8_000 || tick.ms >= weekend), "{:?}", axis.ticks());
    }

    #[test]
    fn a_run_that_did_nothing_has_an_axis() {
        assert_eq!(Axis::new([], 0, 0).place(5).to_string(), "0");
        assert_eq!(Axis::new([], 0, -3).ticks(), []);
        assert_eq!(Axis::new([], 0, 60_000).breaks().count(), 1);
    }

    proptest! {
        #[test]
        fn later_moments_are_further_right_and_labels_are_few(
            busy in prop::collection::vec((0_i64..3_000_000_000, 0_i64..100_000), 0..40),
            moments in prop::collection::vec(0_i64..3_000_000_000, 2..20),
        ) {
            let axis = Axis::new(busy.into_iter().map(|(start, length)| (start, start + length)), 0, 3_000_000_000);
            let mut moments = moments;
            moments.sort_unstable();
            let places: Vec<f64> = moments.iter().map(|&moment| axis.place(moment)).collect();
            prop_assert!(places.is_sorted() && places.iter().all(|x| (0.0..=98.01).contains(x)), "{places:?}");
            let ticks = axis.ticks();
            prop_assert!(ticks.len() <= 11 && ticks.windows(2).all(|pair| pair[1].x - pair[0].x > LABEL), "{ticks:?}");
        }
    }
}
