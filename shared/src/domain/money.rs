//! Amounts of money in micro-dollars (1 USD is 1,000,000). No amount is ever a floating-point number.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Micro-dollars in a dollar.
pub const USD: i64 = 1_000_000;

/// Decimals of a dollar that an amount can have.
const DECIMALS: i32 = 6;

/// An amount in micro-dollars. It displays as dollars, with two to six decimals: `$1.50`, `$0.000123`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(inline))]
#[serde(transparent)]
pub struct MicroUsd(pub i64);

impl MicroUsd {
    pub const ZERO: Self = Self(0);

    /// Reads dollars exactly, from a string such as `"1.50"` or a JSON number. `None` if it is negative, no decimal number,
    /// or has more than six decimals. The number of a JSON text counts as it is written, not as its double.
    pub fn of_dollars(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if !text.contains(['e', 'E']) => parse(text).map(Self),
            // Serde writes the shortest decimal that reads as the same double, which is the one that was posted:
            // bodies with numbers that a double cannot hold are refused.
            Value::Number(number) => parse(&number.to_string()).map(Self),
            _ => None,
        }
    }

    /// The amount as a decimal number of dollars, without a currency sign.
    pub fn dollars(self) -> String {
        let (sign, amount) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let fraction = format!("{:06}", amount % USD.unsigned_abs());
        let kept = fraction.trim_end_matches('0').len().max(2);
        format!("{sign}{}.{}", amount / USD.unsigned_abs(), &fraction[..kept])
    }
}

/// A decimal number, times a million. `None` if that is no whole number from 0 to `i64::MAX`.
fn parse(text: &str) -> Option<i64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.len() <= 30 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || exponent.unsigned_abs() > 30 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let shift = DECIMALS + exponent - i32::try_from(fraction.len()).ok()?;
    if shift >= 0 {
        let factor = 10i64.checked_pow(shift.unsigned_abs())?;
        digits.parse::<i64>().ok()?.checked_mul(factor)
    } else {
        let zeros = usize::try_from(shift.unsigned_abs()).ok()?;
        // Fewer than one micro-dollar is left over.
        let kept = digits.strip_suffix("0".repeat(zeros).as_str())?;
        kept.parse().ok()
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = self.dollars();
        match dollars.strip_prefix('-') {
            Some(amount) => f.pad(&format!("-${amount}")),
            None => f.pad(&format!("${dollars}")),
        }
    }
}

impl Add for MicroUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for MicroUsd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn dollars_are_read_exactly_from_strings_and_numbers() {
        for (value, micros) in [
            (json!("0"), 0),
            (json!("1"), 1_000_000),
            (json!("0.000001"), 1),
            (json!("12.50"), 12_500_000),
            (json!("12.5000000"), 12_500_000),
            (json!(0.1), 100_000),
            (json!(1e-6), 1),
            (json!(2.675), 2_675_000),
            (json!(1_000_000), 1_000_000_000_000),
            (json!(1e6), 1_000_000_000_000),
            (json!(0.29), 290_000),
        ] {
            assert_eq!(MicroUsd::of_dollars(&value), Some(MicroUsd(micros)), "{value}");
        }
        for wrong in [
            json!("-1"),
            json!(-1),
            json!("0.0000001"),
            json!(1e-7),
            json!("1e3"),
            json!("1."),
            json!(".5"),
            json!("1,5"),
            json!(" 1"),
            json!("$1"),
            json!(""),
            json!("+1"),
            json!(null),
            json!(true),
            json!([1]),
            json!(1e300),
            json!("99999999999999999999999999"),
        ] {
            assert_eq!(MicroUsd::of_dollars(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_display_as_dollars() {
        for (micros, text) in
            [(0, "$0.00"), (1, "$0.000001"), (1_500_000, "$1.50"), (-20_000, "-$0.02"), (123_400, "$0.1234")]
        {
            assert_eq!(MicroUsd(micros).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_reads_back_the_same(micros in 0..i64::MAX) {
            let text = MicroUsd(micros).dollars();
            prop_assert_eq!(MicroUsd::of_dollars(&json!(text)), Some(MicroUsd(micros)));
        }
    }
}
