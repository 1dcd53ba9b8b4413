//! Characters that hide text or change its direction. Texts that people read before they decide have none of them, and
//! pages show those of any other text by their number.

use std::fmt::Write;

/// How many lines a text may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    One,
    Many,
}

/// Whether a reader cannot see this character: it is a control character, ignorable by default in Unicode, of the category
/// Cf, or blank without being a space. Line feed and tab are not hidden.
pub fn is_hidden(character: char) -> bool {
    let code = u32::from(character);
    (character.is_control() && !matches!(character, '\n' | '\t'))
        || matches!(code, 0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890 | 0x891 | 0x8E2 | 0x115F | 0x1160
            | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164
            | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// The text with each hidden character as its number, such as `⟨U+202E⟩`.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Refuses a text with a hidden character. The error names it and its place. A line feed or tab is accepted if the text may
/// have many lines, and so is a carriage return right before a line feed.
pub fn check(text: &str, lines: Lines) -> Result<(), String> {
    let mut rest = text.chars().enumerate().peekable();
    while let Some((at, character)) = rest.next() {
        let is_line = match lines {
            Lines::One => false,
            Lines::Many => {
                matches!(character, '\n' | '\t')
                    || (character == '\r' && rest.peek().is_some_and(|(_, next)| *next == '\n'))
            }
        };
        if !is_line && (is_hidden(character) || character.is_control()) {
            let (number, place) = (u32::from(character), at + 1);
            return Err(format!(
                "contains U+{number:04X} as its character {place}, which readers cannot see; remove it"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_hide_text_are_shown() {
        assert_eq!(visible("a\u{202e}b\u{200b}\u{1b}[2J\tü"), "a⟨U+202E⟩b⟨U+200B⟩⟨U+001B⟩[2J\tü");
        assert_eq!(visible("\u{34f}\u{180f}\u{2800}\u{1d173}"), "⟨U+034F⟩⟨U+180F⟩⟨U+2800⟩⟨U+1D173⟩");
    }

    #[test]
    fn a_text_with_a_hidden_character_is_refused_with_its_place() {
        for hidden in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{1b}', '\u{7f}', '\u{2028}', '\u{e0041}'] {
            for lines in [Lines::One, Lines::Many] {
                let message = check(&format!("ü{hidden}x"), lines).unwrap_err();
                let number = format!("U+{:04X} as its character 2,", u32::from(hidden));
                assert!(message.contains(&number), "{message}");
            }
        }
    }

    #[test]
    fn only_a_text_of_many_lines_has_line_ends_and_tabs() {
        for text in ["a\nb", "a\tb", "a\r\nb"] {
            assert_eq!(check(text, Lines::Many), Ok(()), "{text:?}");
            assert!(check(text, Lines::One).is_err(), "{text:?}");
        }
        // A terminal returns to the start of the line and writes over it.
        for text in ["a\rb", "a\r"] {
            assert!(check(text, Lines::Many).is_err(), "{text:?}");
        }
        assert_eq!(check("Zahlung über 3 €: 送金 ✓", Lines::One), Ok(()));
    }
}
