//! Times for people: how long something took, and how long ago it was.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use shared::domain::Timestamp;

/// The time of a timestamp. `None` if it is not RFC 3339.
pub fn time(timestamp: &Timestamp) -> Option<SystemTime> {
    parse(&timestamp.0)
}

/// The time of an RFC 3339 text.
pub fn parse(text: &str) -> Option<SystemTime> {
    DateTime::from_str(text, DateTimeFormat::DateTimeWithOffset).ok()?.try_into().ok()
}

/// From `start` to `end`, or until now. `None` if it has not started.
pub fn between(start: Option<&Timestamp>, end: Option<&Timestamp>, now: SystemTime) -> Option<Duration> {
    let end = end.map_or(Some(now), time)?;
    Some(end.duration_since(time(start?)?).unwrap_or_default())
}

/// `14 ms`, `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |first: u64, unit: &str, rest: u64, rest_unit: &str| match rest {
        0 => format!("{first} {unit}"),
        _ => format!("{first} {unit} {rest} {rest_unit}"),
    };
    match seconds {
        0 if duration.as_millis() < 100 => format!("{} ms", duration.as_millis()),
        0..10 => format!("{:.1} s", (duration.as_secs_f64() * 10.0).floor() / 10.0),
        10..60 => format!("{seconds} s"),
        60..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// `now`, `40 s ago`, `3 min ago`, `2 h ago`, `5 d ago`.
pub fn ago(timestamp: &Timestamp, now: SystemTime) -> String {
    let Some(time) = time(timestamp) else { return timestamp.0.clone() };
    let seconds = now.duration_since(time).unwrap_or_default().as_secs();
    match seconds {
        0..2 => "now".to_owned(),
        2..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// Whether a limit is in the past.
pub fn is_over(limit: Option<&Timestamp>, now: SystemTime) -> bool {
    limit.and_then(time).is_some_and(|limit| limit <= now)
}

/// The day in UTC: `2026-11-23`.
pub fn date(timestamp: &Timestamp) -> &str {
    timestamp.0.split_once('T').map_or(timestamp.0.as_str(), |(date, _)| date)
}

/// The time of day in UTC: `10:00:00.123`.
pub fn clock(timestamp: &Timestamp) -> &str {
    let time = timestamp.0.split_once('T').map_or(timestamp.0.as_str(), |(_, time)| time);
    time.get(..12).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_at_most_two_units() {
        for (millis, expected) in [
            (0, "0 ms"),
            (99, "99 ms"),
            (100, "0.1 s"),
            (449, "0.4 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (200_000, "3 min 20 s"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn ages_are_counted_from_timestamps_of_the_database() {
        let created = Timestamp("2026-11-23T10:00:00.500000+00:00".into());
        let now = |text| parse(text).unwrap();
        assert_eq!(ago(&created, now("2026-11-23T10:00:01Z")), "now");
        assert_eq!(ago(&created, now("2026-11-23T10:03:10+00:00")), "3 min ago");
        assert_eq!(ago(&created, now("2026-11-23T09:00:00Z")), "now", "the clocks differ");
        assert_eq!(ago(&created, now("2026-11-25T12:00:00Z")), "2 d ago");
        assert_eq!((date(&created), clock(&created)), ("2026-11-23", "10:00:00.500"));
        let end = Timestamp("2026-11-23T10:00:02.500000+00:00".into());
        let took = between(Some(&created), Some(&end), now("2027-01-01T00:00:00Z"));
        assert_eq!(took, Some(Duration::from_secs(2)));
        assert_eq!(between(None, None, SystemTime::now()), None);
    }
}
