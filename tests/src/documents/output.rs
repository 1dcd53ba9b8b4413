//! Compares what a page says that a command prints with what it prints.

use std::sync::LazyLock;

use regex::Regex;

/// A line that stands for any number of lines.
const ANY_LINES: &str = "...";

/// What differs from one run to the next, and what it is replaced by.
static MASKS: LazyLock<[(Regex, &str); 6]> = LazyLock::new(|| {
    let mask = |pattern, name| (Regex::new(pattern).expect("a pattern"), name);
    [
        mask(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
        mask(r"\b[0-9a-f]{12,}\b", "<digest>"),
        mask(r"\b(\d{4}-\d\d-\d\dT)?\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?\b", "<time>"),
        mask(r"\b\d+(\.\d+)? ?(ms|s|min|h)\b", "<duration>"),
        mask(r"\b127\.0\.0\.1:\d+", "<address>"),
        mask(r"[ \t]+", " "),
    ]
});

/// Text with masks instead of ids, digests, times, durations and addresses, one space for each gap, and no empty lines at
/// its ends.
pub fn masked(text: &str) -> Vec<String> {
    let mut text = text.trim().to_owned();
    for (pattern, name) in MASKS.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The first difference, as a sentence. None if the page is right.
pub fn difference(page: &str, printed: &str) -> Option<String> {
    let (page, printed) = (masked(page), masked(printed));
    if matches(&page, &printed) {
        return None;
    }
    let at = page.iter().zip(&printed).take_while(|(one, other)| one == other).count();
    let line = |lines: &[String]| lines.get(at).map_or("no more lines".to_owned(), |line| format!("{line:?}"));
    Some(format!("line {} of the page's output is {}, printed was {}", at + 1, line(&page), line(&printed)))
}

fn matches(page: &[String], printed: &[String]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == ANY_LINES => (0..=printed.len()).any(|at| matches(rest, &printed[at..])),
        Some((first, rest)) => printed.first() == Some(first) && matches(rest, &printed[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_digests_times_durations_and_addresses_may_differ() {
        let page = "0193c0de-0000-7000-8000-000000000001 at 01:36:29.024, 12 ms\n\
                    http://127.0.0.1:3000/x  0123456789ab\n";
        let printed = "0193c0de-1111-7000-8000-000000000001 at 11:00:00.1, 3.5 s\n\
                       http://127.0.0.1:4711/x 0123456789abcdef\n\n";
        assert_eq!(difference(page, printed), None);
        assert_eq!(masked(page), ["<id> at <time>, <duration>", "http://<address>/x <digest>"]);
    }

    #[test]
    fn other_differences_are_found_with_their_line() {
        assert_eq!(difference("a\nb\n", "a\nb"), None);
        let wrong = difference("a\nb\n", "a\nc").expect("a difference");
        assert_eq!(wrong, "line 2 of the page's output is \"b\", printed was \"c\"");
        assert!(difference("a\n", "a\nb").is_some_and(|wrong| wrong.contains("line 2")));
        assert!(difference("a\nb\n", "a").is_some_and(|wrong| wrong.contains("no more lines")));
        assert!(difference("2 of 3 lines", "3 of 3 lines").is_some(), "counts are compared");
    }

    #[test]
    fn three_dots_stand_for_any_lines() {
        assert_eq!(difference("a\n...\nd\n", "a\nb\nc\nd"), None);
        assert_eq!(difference("a\n...\n", "a"), None);
        assert!(difference("a\n...\ne\n", "a\nb\nd").is_some());
        assert!(difference("...\nb\n", "a\nb\nc").is_some());
    }
}
