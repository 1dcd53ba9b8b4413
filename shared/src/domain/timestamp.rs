//! Timestamps, as the database writes them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A timestamp as RFC 3339 text with microseconds: `2026-11-23T10:00:00.123456+00:00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(extend("format" = "date-time")))]
#[serde(transparent)]
pub struct Timestamp(pub String);

impl Timestamp {
    /// The first second of the year 10000. Later ones have no text of this form.
    const END_S: i64 = 253_402_300_800;

    /// A number of seconds since 1970. None if it is before 1970 or after the year 9999.
    pub fn of_epoch_s(epoch_s: i64) -> Option<Self> {
        if !(0..Self::END_S).contains(&epoch_s) {
            return None;
        }
        let (year, month, day) = date_of(epoch_s / 86_400);
        let (hour, minute, second) = (epoch_s / 3_600 % 24, epoch_s / 60 % 60, epoch_s % 60);
        Some(Self(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")))
    }

    /// Milliseconds since 1970. None if the text is no timestamp, such as `infinity`.
    pub fn epoch_ms(&self) -> Option<i64> {
        let (date, rest) = self.0.split_once('T')?;
        let zone_at = rest.find(['+', '-', 'Z'])?;
        let (clock, zone) = rest.split_at(zone_at);
        let [year, month, day] = numbers(date, '-')?;
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let [hour, minute, second] = numbers(whole, ':')?;
        let is_valid = (0..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        let is_valid = is_valid && hour < 24 && minute < 60 && second <= 60;
        let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        is_valid.then_some((seconds - offset_s(zone)?) * 1_000 + milliseconds(fraction)?)
    }
}

/// Three numbers with a separator between them.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.splitn(3, separator).map(digits);
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn digits(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn milliseconds(fraction: &str) -> Option<i64> {
    let is_number = fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| fraction.bytes().chain(*b"000").take(3).fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0')))
}

/// `Z`, `+01:00` or `+01` in seconds.
fn offset_s(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':').unwrap_or((zone.get(1..)?, "0"));
    Some(sign * (digits(hours)? * 3_600 + digits(minutes)? * 60))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the leap day is the
/// last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year;
    days - 719_468
}

/// The date of a day since 1970-01-01: the inverse of [`days_since_1970`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch_ms(text: &str) -> Option<i64> {
        Timestamp(text.to_owned()).epoch_ms()
    }

    #[test]
    fn a_timestamp_is_a_number_of_milliseconds() {
        assert_eq!(epoch_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(epoch_ms("2026-11-28T14:32:10.123456+00:00"), Some(1_795_876_330_123));
        assert_eq!(epoch_ms("2026-11-28T15:32:10.1+01:00"), Some(1_795_876_330_100));
        assert_eq!(epoch_ms("2026-11-28T10:02:10-04:30"), Some(1_795_876_330_000));
        assert_eq!(epoch_ms("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(epoch_ms("1969-12-31T23:59:59.999Z"), Some(-1));
    }

    proptest! {
        #[test]
        fn a_number_of_seconds_is_read_back_from_its_text(seconds in 0..Timestamp::END_S) {
            let text = Timestamp::of_epoch_s(seconds).unwrap();
            prop_assert_eq!(text.epoch_ms(), Some(seconds * 1_000));
        }
    }

    #[test]
    fn seconds_outside_of_four_digit_years_have_no_text() {
        assert_eq!(Timestamp::of_epoch_s(0), Some(Timestamp("1970-01-01T00:00:00+00:00".into())));
        assert_eq!(Timestamp::of_epoch_s(951_782_399), Some(Timestamp("2000-02-28T23:59:59+00:00".into())));
        for seconds in [-1, Timestamp::END_S, i64::MAX, i64::MIN] {
            assert_eq!(Timestamp::of_epoch_s(seconds), None);
        }
    }

    #[test]
    fn other_text_is_no_number() {
        for text in ["", "infinity", "2026-11-28", "2026-11-28T10:00Z", "2026-13-01T00:00:00Z", "2026-11-28T1x:00:00Z"]
        {
            assert_eq!(epoch_ms(text), None, "{text}");
        }
    }
}
