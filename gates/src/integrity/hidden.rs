//! Characters that make a change look like another one.

use super::change::Changes;
use super::finding::{Weakening, WeakeningKind};
use super::lex::{self, TokenKind};

/// Added lines of code with invisible or reordering characters, or with words that mix ASCII letters and their doubles.
pub fn find(changes: &Changes) -> Vec<Weakening> {
    let mut findings = Vec::new();
    for change in &changes.files {
        let (Some(language), Some(text)) = (lex::language(&change.path), change.head.text()) else { continue };
        if text.is_ascii() && !text.contains(['\r', '\u{8}', '\u{1b}']) {
            continue;
        }
        let added = change.added_lines();
        for (line, content) in (1_u32..).zip(text.lines()).filter(|(line, _)| added.contains(line)) {
            let content = if line == 1 { content.trim_start_matches('\u{feff}') } else { content };
            let content = content.trim_end_matches('\r');
            if let Some(letter) = content.chars().find(|letter| is_invisible(*letter)) {
                let message = format!("The line has the invisible character U+{:04X}.", u32::from(letter));
                findings.push(Weakening::new(WeakeningKind::HiddenCharacters, &change.path, Some(line), message));
            }
        }
        for token in lex::code(language, text) {
            if token.kind == TokenKind::Word && added.contains(&token.line) && is_double(token.text) {
                let message =
                    format!("The name {:?} has letters that look like ASCII letters and are none.", token.text);
                findings.push(Weakening::new(WeakeningKind::HiddenCharacters, &change.path, Some(token.line), message));
            }
        }
    }
    findings
}

/// Bidirectional controls, characters of no width, line ends that only some languages and terminals know, and controls that
/// erase what a terminal shows. U+200D joins emoji, so it is none of them.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\r' | '\u{8}' | '\u{1b}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{3164}' | '\u{ffa0}' | '\u{115f}' | '\u{1160}')
}

fn is_double(word: &str) -> bool {
    let compatible = |letter: char| matches!(letter, '\u{ff21}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}' | '\u{212a}' | '\u{212b}' | '\u{2100}'..='\u{214f}');
    let other_script = |letter: char| matches!(letter, '\u{370}'..='\u{52f}');
    let has_ascii = word.chars().any(|letter| letter.is_ascii_alphabetic());
    word.chars().any(compatible) || (has_ascii && word.chars().any(other_script))
        // A name of one script that reads as an ASCII word.
        || (!has_ascii && !word.is_empty() && word.chars().all(|letter| "асеорхуіјѕԁԛԝһ".contains(letter)))
}

#[cfg(test)]
mod tests {
    use super::is_double;

    #[test]
    fn doubles_are_told_from_names_of_other_languages() {
        for word in ["größe", "naïve", "число", "変数", "Ωmega", "été"] {
            assert_eq!(is_double(word), word == "Ωmega", "{word}");
        }
        for word in ["еxpect", "ｉt", "𝐢t", "ѕсоре", "exреct"] {
            assert!(is_double(word), "{word}");
        }
    }
}
