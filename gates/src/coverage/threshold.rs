//! The ratio of changed lines that must be covered, as an exact fraction: 9 of 10 reaches 0.90. Floating point does not
//! guarantee that.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A fraction between 0 and 1, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    numerator: u64,
    denominator: u64,
}

impl Threshold {
    /// Nine tenths of the changed lines.
    pub const DEFAULT: Self = Self { numerator: 9, denominator: 10 };

    /// For display.
    pub fn value(self) -> f64 {
        ratio(self.numerator, self.denominator)
    }

    /// Whether `covered` of `total` lines are enough. False if `total` is 0: the caller decides that case.
    pub fn reached(self, covered: u64, total: u64) -> bool {
        total > 0
            && u128::from(covered) * u128::from(self.denominator) >= u128::from(self.numerator) * u128::from(total)
    }

    /// As a number, for comparisons that need not be exact.
    pub fn ratio(self) -> f64 {
        ratio(self.numerator, self.denominator)
    }

    /// A decimal number such as `0.9`, `.9`, `1` or `9e-1`.
    fn parse(text: &str) -> Option<Self> {
        const MAX_DECIMALS: i32 = 18;
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => {
                (number, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= MAX_DECIMALS)?)
            }
            None => (text, 0),
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{decimals}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = digits.trim_start_matches('0');
        let places = i32::try_from(decimals.len()).ok()? - exponent;
        let digits = if digits.is_empty() { 0 } else { digits.parse::<u64>().ok()? };
        if digits == 0 {
            return Some(Self { numerator: 0, denominator: 1 });
        }
        let (numerator, denominator) = if places >= 0 {
            (digits, 10_u64.checked_pow(u32::try_from(places).ok()?)?)
        } else {
            (digits.checked_mul(10_u64.checked_pow(u32::try_from(-places).ok()?)?)?, 1)
        };
        (numerator <= denominator).then_some(Self { numerator, denominator })
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text.trim()).ok_or_else(|| {
            format!("the threshold {text:?} is not a decimal number from 0 to 1 with at most 18 decimals")
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.value())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display only; comparisons are exact")]
pub fn ratio(numerator: u64, denominator: u64) -> f64 {
    numerator as f64 / denominator as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_reaches_ninety_percent_exactly() {
        let threshold: Threshold = "0.90".parse().unwrap();
        assert!(threshold.reached(9, 10));
        assert!(!threshold.reached(899_999_999, 1_000_000_000));
        assert!(Threshold::DEFAULT.reached(9, 10));
    }

    #[test]
    fn zero_lines_reach_no_threshold() {
        assert!(!"0".parse::<Threshold>().unwrap().reached(0, 0));
    }

    #[test]
    fn a_threshold_outside_zero_to_one_is_rejected() {
        for text in [
            "1.01",
            "2",
            "-0.1",
            "NaN",
            "nan",
            "inf",
            "",
            ".",
            "e",
            "1e1",
            "1e999",
            "0.9.0",
            "90%",
            "0,9",
            "0x1",
            "1.0000000000000000001",
            "18446744073709551617",
        ] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
        for text in [
            "0",
            "1",
            "1.0",
            "0.875",
            ".5",
            "1.",
            "9e-1",
            "0.1e1",
            "1e-18",
            "0.1234567890",
            "0.9000000000000000",
            "00.5",
        ] {
            assert!(text.parse::<Threshold>().is_ok(), "{text}");
        }
    }
}
