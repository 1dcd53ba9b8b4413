//! SVG does not shorten text, so this estimates its width.

/// The text in at most `max` characters of usual width, with an ellipsis if something is missing.
pub(super) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut tenths = 10; // of the ellipsis
    let fits = |c: &char| {
        tenths += tenths_of(*c);
        tenths <= max * 10
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    shown.truncate(shown.trim_end().len());
    shown.push('…');
    shown
}

/// The width of a text in characters of usual width, rounded up.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(tenths_of).sum::<usize>().div_ceil(10)
}

/// The width of a character in tenths of a usual one. It is not exact: the reader's system chooses the font.
fn tenths_of(c: char) -> usize {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '\u{a0}' => 5,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '/' | '-' => 7,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 16,
        'A'..='Z' => 13,
        ' '..='~' | '…' => 10,
        // Latin, Greek, Cyrillic.
        '\u{a1}'..='\u{52f}' => 12,
        // Scripts with wide characters, symbols, emoji.
        _ => 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_stays_and_long_text_ends_with_an_ellipsis() {
        assert_eq!(cut("typecheck", 10), "typecheck");
        assert_eq!(cut("abcdefghkn", 10), "abcdefghkn");
        assert_eq!(cut("abcdeghknop", 10), "abcdeghkn…");
        assert_eq!(cut("abcd efghknop", 6), "abcd…", "no space before the ellipsis");
        assert_eq!(cut("anything", 0), "…");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn wide_characters_take_more_room() {
        assert_eq!(cut("日本語の名前です", 8), "日本語…");
        assert_eq!(cut("WWWWWWWWWWWW", 10), "WWWWW…");
        assert_eq!(cut(&"i".repeat(30), 15), "i".repeat(30));
        assert!(width(&cut(&"語".repeat(200), 19)) <= 19);
    }
}
