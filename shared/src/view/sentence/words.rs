//! Numbers and durations in words.

/// A duration in its two largest units: `3.2 s`, `1 h 12 min`.
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let (s, m, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    if ms < 1_000 {
        format!("{ms} ms")
    } else if s < 60 {
        format!("{s}.{} s", ms % 1_000 / 100)
    } else if m < 60 {
        format!("{m} min {} s", s % 60)
    } else if h < 24 {
        format!("{h} h {} min", m % 60)
    } else {
        format!("{d} d {} h", h % 24)
    }
}

/// A number with its noun: `1 step`, `1,000 steps`. The plural ends with an s.
pub fn many(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// The error of a step without the step's name before it, for a sentence that has the name already.
pub fn without_name<'a>(error: &'a str, name: &str) -> &'a str {
    error.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(error)
}

/// A number with a comma before each group of three digits.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text of at most `max` characters. The last one is an ellipsis if something is cut.
pub fn cut(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_readable() {
        let durations = [-5, 0, 999, 1_234, 61_000, 3_661_000, 90_000_000].map(duration);
        assert_eq!(durations, ["0 ms", "0 ms", "999 ms", "1.2 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 2_000].map(|count| many(count, "step")), ["0 steps", "1 step", "2,000 steps"]);
        assert_eq!([cut("grün", 4), cut("grüner", 4)], ["grün", "grü…"]);
    }
}
