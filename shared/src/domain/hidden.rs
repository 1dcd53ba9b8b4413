//! Characters that hide text or change its direction. Texts that people read before they decide have none of them, and
//! pages show those of any other text by their number.

use std::fmt::Write;

/// How many lines a text may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    One,
    Many,
}

/// The characters of a text, each with whether it is hidden: a control character, ignorable by default in Unicode, of the
/// category Cf, or blank without being a space. Line feed and tab are not hidden, nor is what joins two characters that
/// readers see, such as the parts of an emoji.
pub fn characters(text: &str) -> impl Iterator<Item = (char, bool)> {
    let (mut rest, mut before) = (text.chars().peekable(), None);
    std::iter::from_fn(move || {
        let character = rest.next()?;
        let is_joined = joins(before, character, rest.peek().copied());
        before = Some(character);
        Some((character, !is_joined && is_hidden(character)))
    })
}

/// Whether a character is hidden, if it joins no others.
pub fn is_hidden(character: char) -> bool {
    let code = u32::from(character);
    (character.is_control() && !matches!(character, '\n' | '\t'))
        || matches!(code, 0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890 | 0x891 | 0x8E2 | 0x115F | 0x1160
            | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164
            | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// Whether a character only says how its neighbours are drawn: it makes one emoji of them, or joins letters of a script that
/// needs it, such as Arabic or Devanagari.
fn joins(before: Option<char>, character: char, after: Option<char>) -> bool {
    let (Some(before), after) = (before, after.unwrap_or(' ')) else { return false };
    let are_letters = is_joining_letter(before) && is_joining_letter(after);
    match character {
        '\u{200c}' => are_letters,
        '\u{200d}' => are_letters || ((is_pictograph(before) || before == '\u{fe0f}') && is_pictograph(after)),
        '\u{fe0e}' | '\u{fe0f}' => {
            is_pictograph(before) || (matches!(before, '0'..='9' | '#' | '*') && after == '\u{20e3}')
        }
        _ => false,
    }
}

fn is_pictograph(character: char) -> bool {
    let is_symbol = matches!(u32::from(character), 0xA9 | 0xAE | 0x203C | 0x2049 | 0x2122 | 0x2139 | 0x2190..=0x2BFF | 0x3030
        | 0x303D | 0x3297 | 0x3299 | 0x1F000..=0x1FAFF);
    is_symbol && !is_hidden(character)
}

/// A letter or a mark of the scripts from Arabic to Sinhala.
fn is_joining_letter(character: char) -> bool {
    matches!(character, '\u{620}'..='\u{dff}') && !is_hidden(character)
}

/// So many hidden characters of one kind in a row are shown as one with their number.
const REPEATED: usize = 4;

/// The text with each hidden character as its number, such as `⟨U+202E⟩`, or `⟨U+202E ×95⟩` for many of them.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = characters(text).peekable();
    while let Some((character, is_hidden)) = rest.next() {
        if !is_hidden {
            shown.push(character);
            continue;
        }
        let mut count = 1;
        while rest.next_if_eq(&(character, true)).is_some() {
            count += 1;
        }
        let code = u32::from(character);
        // Writing to a string cannot fail.
        let _ = if count < REPEATED {
            (0..count).try_for_each(|_| write!(shown, "⟨U+{code:04X}⟩"))
        } else {
            write!(shown, "⟨U+{code:04X} ×{count}⟩")
        };
    }
    shown
}

/// Refuses a text with a hidden character. The error names it and its place. A line feed or tab is accepted if the text may
/// have many lines, and so is a carriage return right before a line feed.
pub fn check(text: &str, lines: Lines) -> Result<(), String> {
    let mut rest = characters(text).zip(1..).peekable();
    while let Some(((character, is_hidden), place)) = rest.next() {
        let ends_line = character == '\r' && rest.peek().is_some_and(|((next, _), _)| *next == '\n');
        let is_refused = match lines {
            Lines::One => is_hidden || character.is_control(),
            Lines::Many => is_hidden && !ends_line,
        };
        if is_refused {
            let number = u32::from(character);
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
        assert_eq!(visible(&"\u{202e}".repeat(3)), "⟨U+202E⟩".repeat(3));
        let long = format!("a{}{}b\u{202e}", "\u{202e}".repeat(95), "\u{200b}".repeat(4));
        assert_eq!(visible(&long), "a⟨U+202E ×95⟩⟨U+200B ×4⟩b⟨U+202E⟩");
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
    fn what_joins_two_characters_hides_nothing() {
        for text in [
            "🧪 👩\u{200d}🔬 done",
            "❤\u{fe0f} ✔\u{fe0f}",
            "3\u{fe0f}\u{20e3}",
            "👁\u{fe0f}\u{200d}🗨\u{fe0f}",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
        ] {
            assert_eq!((check(text, Lines::One), visible(text).as_str()), (Ok(()), text), "{text:?}");
        }
        for text in [
            "pay\u{200d}3",
            "3\u{fe0f}0",
            "❤\u{fe0f}\u{fe0f}",
            "a\u{200c}b",
            "\u{200d}🔬",
            "👩\u{200d}",
            "\u{2800}\u{fe0f}",
            "❤\u{e0100}",
        ] {
            assert!(check(text, Lines::One).is_err(), "{text:?}");
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
