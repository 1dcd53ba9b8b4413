//! Formats times, durations, sizes and numbers.

use shared::view::sentence::words;
pub(super) use words::{cut, thousands as number};

/// `2026-11-23T10:00:00.123+00:00` as `2026-11-23 10:00:00 UTC`. Other text is unchanged.
pub(super) fn plain_time(timestamp: &str) -> String {
    let Some((date, time)) = timestamp.split_once('T') else { return timestamp.to_owned() };
    let zone_at = time.find(['+', '-', 'Z']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let clock = clock.split('.').next().unwrap_or(clock);
    let zone = if matches!(zone, "Z" | "+00:00") { "UTC" } else { zone };
    format!("{date} {clock} {zone}").trim_end().to_owned()
}

/// The time of day of a timestamp, `10:00:00`. Other text is unchanged.
pub(super) fn clock(timestamp: &str) -> &str {
    timestamp.split_once('T').map_or(timestamp, |(_, time)| time.get(..8).unwrap_or(time))
}

/// A duration in its two largest units. It does not break.
pub(super) fn duration(ms: i64) -> String {
    words::duration(ms).replace(' ', "\u{a0}")
}

/// A duration in its largest unit, for little space. Seconds have tenths.
pub(super) fn short_duration(ms: i64) -> String {
    match ms {
        ..60_000 => duration(ms),
        60_000..3_600_000 => format!("{}\u{a0}min", ms / 60_000),
        3_600_000..86_400_000 => format!("{}\u{a0}h", ms / 3_600_000),
        _ => format!("{}\u{a0}d", ms / 86_400_000),
    }
}

/// A size in its largest unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// A share in per cent. Rounded down, so that 89.99 % never looks like 90 %.
pub(super) fn percent(share: f64) -> String {
    let percent = format!("{:.1}", (share * 1_000.0 + 1e-9).floor() / 10.0);
    format!("{}\u{a0}%", percent.strip_suffix(".0").unwrap_or(&percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_readable_units() {
        let durations = [0, -5, 999, 1_234, 61_000, 3_661_000, 90_000_000].map(duration);
        let expected = ["0 ms", "0 ms", "999 ms", "1.2 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"];
        assert_eq!(durations, expected.map(|text| text.replace(' ', "\u{a0}")), "they do not break");
        let short = [1_234, 119_000, 7_300_000, 180_000_000].map(short_duration);
        assert_eq!(short, ["1.2 s", "1 min", "2 h", "2 d"].map(|text| text.replace(' ', "\u{a0}")));
        assert_eq!([0, 1_023, 1_536, 5 << 20].map(size), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB"]);
    }

    #[test]
    fn a_timestamp_is_readable_without_a_script_and_other_text_is_unchanged() {
        assert_eq!(plain_time("2026-11-23T10:00:00.123456+00:00"), "2026-11-23 10:00:00 UTC");
        assert_eq!(plain_time("2026-11-23T10:00:00+01:00"), "2026-11-23 10:00:00 +01:00");
        assert_eq!(plain_time("2026-11-23T10:00:00Z"), "2026-11-23 10:00:00 UTC");
        assert_eq!(plain_time("infinity"), "infinity");
    }
}
