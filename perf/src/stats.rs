//! Percentiles, rounding, and the output line.

use std::time::Duration;

use serde_json::{Value, json};

/// Durations of one operation.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The nearest-rank percentile in milliseconds, or 0 without values.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Extend<Duration> for Times {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, times: T) {
        self.0.extend(times);
    }
}

/// The median. The upper one of two middle values, or 0 without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Rounds to about three significant digits.
pub fn rounded(value: f64) -> Value {
    let places = match value.abs() {
        large if large >= 1_000.0 => 1.0,
        medium if medium >= 10.0 => 10.0,
        small if small >= 0.1 => 1_000.0,
        _ => 1_000_000.0,
    };
    json!((value * places).round() / places)
}

/// A count as a float. Counts here are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// Prints the line of a benchmark.
pub fn print(line: &Value) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut times = Times::default();
        times.extend((1..=10).rev().map(Duration::from_millis));
        assert!((times.percentile_ms(50) - 5.0).abs() < 1e-9);
        assert!((times.percentile_ms(99) - 10.0).abs() < 1e-9);
        assert!((Times::default().percentile_ms(50)).abs() < 1e-9);
    }
}
