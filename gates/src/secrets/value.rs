//! What a value looks like: random, or a word, a placeholder, a reference, an id.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::shapes::compile;

/// Bits of entropy of a character of the text, by Shannon.
pub fn entropy(text: &[u8]) -> f64 {
    if text.is_empty() {
        return 0.0;
    }
    let mut counts = [0u32; 256];
    for byte in text {
        counts[usize::from(*byte)] += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "a line is far shorter than 2^52 bytes")]
    let total = text.len() as f64;
    let share = |count: &u32| f64::from(*count) / total;
    counts.iter().filter(|count| **count > 0).map(share).map(|share| -share * share.log2()).sum()
}

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i)example|sample|dummy|placeholder|change[-_]?(?:me|this|it)|replace|redacted|your[-_ ]?\w|insert|fill[-_]?in|xxxx|\*\*\*|\.\.\.\.|____|----|<[^>]*>|todo|fixme|foobar|not[-_]?(?:a[-_]?)?(?:real|secret)|lorem|fake|mock|aaaaaa|000000|123456789|abcdefgh|super-secret-jwt-token",
    )
});

/// Words that people write where a secret will be.
pub fn is_placeholder(value: &[u8]) -> bool {
    PLACEHOLDER.is_match(value)
}

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i)^\$[a-z_{(]|^%[a-z_]+%$|^&[a-z]|^![a-z]+\s|\$\{|\$\(|\{\{|\}\}|<%|#\{|%\(|\w\(|\w\[|^process\.|^import\.meta|^os\.|^env[.:]|environ|getenv|secrets\.|^vars?\.|^config\.|^self\.|^this\.|^vault:|^arn:|^ref\+|^op://|^keychain:|^file:|^ssm:|^enc:|^AQICAH|^projects/|^data:|^https?://|^\.{0,2}/|\\\(",
    )
});

/// The value names a secret that is somewhere else, or computes it.
pub fn is_reference(value: &[u8]) -> bool {
    REFERENCE.is_match(value)
}

static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i)^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-hjkmnp-tv-z]{26}|\d[\d._:-]*|v?\d+\.\d+[\w.+-]*|\d{4}-\d\d-\d\d.*|[\w.+-]+@[\w-]+\.[\w.]+|(?:sha\d*|md5)[-:].*)$",
    )
});

/// A UUID, ULID, number, version, date, e-mail address or digest.
pub fn is_identifier(value: &[u8]) -> bool {
    IDENTIFIER.is_match(value)
}

pub fn is_hex(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_hexdigit)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    Other,
}

fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' => Class::Lower,
        b'A'..=b'Z' => Class::Upper,
        b'0'..=b'9' => Class::Digit,
        _ => Class::Other,
    }
}

/// How many of lower case, upper case, digits and other characters the value has.
pub fn classes(value: &[u8]) -> usize {
    [Class::Lower, Class::Upper, Class::Digit, Class::Other]
        .into_iter()
        .filter(|wanted| value.iter().any(|byte| class(*byte) == *wanted))
        .count()
}

/// How often the class of a character differs from the one before, of all pairs. Random base 62 has 0.6, `camelCaseNames`
/// have less than 0.3: a word starts with at most one capital.
pub fn changes(value: &[u8]) -> f64 {
    let differ = value.windows(2).filter(|pair| class(pair[0]) != class(pair[1])).count();
    let pairs = u32::try_from(value.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if pairs == 0 { 0.0 } else { f64::from(u32::try_from(differ).unwrap_or(u32::MAX)) / f64::from(pairs) }
}

/// Words, joined or not: `reset-password`, `auth.token.invalid`, `MY_SECRET_NAME`, `accessTokenKey2`.
pub fn is_wordlike(value: &[u8]) -> bool {
    let value = value.strip_suffix(b"?").unwrap_or(value);
    let letters = value.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let is_name = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_./: ,#".contains(byte));
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let mut parts = value.split(|byte| !byte.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    is_name && letters > 0 && digits * 8 <= value.len() && parts.all(is_word)
}

/// A word has vowels, no digits but at its end, and at most one change to capitals in four characters.
fn is_word(part: &[u8]) -> bool {
    let stem = part.trim_ascii_end();
    let end = stem.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    let stem = stem.get(..end).unwrap_or(stem);
    let vowels = stem.iter().filter(|byte| b"aeiouyAEIOUY".contains(byte)).count();
    stem.iter().all(u8::is_ascii_alphabetic) && (stem.len() < 4 || (vowels * 6 >= stem.len() && changes(stem) < 0.34))
}
