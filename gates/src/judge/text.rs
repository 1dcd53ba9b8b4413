//! Text that comes from the workspace or its command, as evidence may show it.

use crate::redact::Redactor;

/// A reason as it is stored and shown everywhere: without secrets, and with visible control characters. Postgres stores no
/// NUL, and a terminal would obey the others.
pub fn shown(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for letter in redacted(message).chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if letter.is_control() || is_direction(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Text of the command, without secrets.
pub fn redacted(text: &str) -> String {
    String::from_utf8_lossy(&Redactor::redact(&[], text.as_bytes())).into_owned()
}

/// Reorders the text around it.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
