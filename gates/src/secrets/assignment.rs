//! Secrets without a shape: what is assigned to a telling name, and random strings.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::kind::FileKind;
use super::shapes::compile;
use super::value::{changes, classes, entropy, is_hex, is_identifier, is_placeholder, is_reference, is_wordlike};

/// The name and the value of an assignment, quoted or not.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"(?ix)(?P<name>[\w.-]{0,60}(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|auth[_-]?key|private[_-]?key|encryption[_-]?key|signing[_-]?key|master[_-]?key|account[_-]?key|credential|client[_-]?key|webhook[_-]?key|salt|pepper)s?[\w.-]{0,40})
        ["'`\]\)]{0,2}(?:\s?:\s?(?:&?'?[\w<>]{1,20}\s?)=|\s{0,20}(?:===?|!==?|:=|=>|=|:|,))\s{0,20}
        (?:[bruf]{0,2}"(?P<double>[^"]{6,300})"|[bruf]{0,2}'(?P<single>[^']{6,300})'|`(?P<tick>[^`]{6,300})`|(?P<bare>[^\s"'`,;\#&]{8,300}))"#,
    )
});

/// `tokenizer`, `password_field`, `secretName`, `max_tokens`, `token_url` name something else.
static OTHER_NAME: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?ix)(?:password|passwd|pwd|secret|token|key|credential|salt|passphrase)s?[_.-]?(?:s?name|field|input|label|hint|id|ids|type|kind|url|uri|path|file|dir|folder|len|length|size|count|limit|min|max|regex|pattern|policy|rule|rules|error|errors|message|msg|text|title|placeholder|prefix|suffix|format|algorithm|alg|expir\w*|ttl|age|provider|store|manager|service|class|factory|ref|refs|arn|version|reset|confirm\w*|strength|hash|hashed|digest|header|param|params|endpoint|scheme|schema|mode|column|selector|event|action|status|state|source|template|page|route|view|form|icon|color|class)\b
        |tokeni[sz]|tokenize|public[_-]?key|max[_-]?tokens?|csrf|xsrf|cancel[_-]?token|continuation|page[_-]?token|next[_-]?token|primary[_-]?key|foreign[_-]?key|sort[_-]?key|cache[_-]?key|site[_-]?key|publishable|anon[_-]?key|(?:^|[^a-z])(?:output|input|last\w*|spdx\w*|license)[_-]?(?:token|key)s?$|lastSignificantToken|spdx|license",
    )
});

/// The secrets that the line assigns.
pub fn assigned(line: &[u8], kind: FileKind) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // The tokens of badges in documents are public.
    if kind == FileKind::Test && line.windows(6).any(|part| part == b"badge.") {
        return found;
    }
    for captures in ASSIGNMENT.captures_iter(line).take(100) {
        let Some(name) = captures.name("name") else { continue };
        let quoted = ["double", "single", "tick"].into_iter().find_map(|group| captures.name(group));
        let bare = captures.name("bare");
        let Some(value) = quoted.or(bare) else { continue };
        // In code, a value without quotes is a variable or a call. After a comma, too: it is the next argument.
        let before = line.get(name.end()..value.start()).unwrap_or_default();
        if quoted.is_none() && (kind == FileKind::Code || before.contains(&b',')) {
            continue;
        }
        if !OTHER_NAME.is_match(name.as_bytes()) && is_secret_value(name.as_bytes(), value.as_bytes(), kind) {
            found.push((value.start(), value.end()));
        }
    }
    found
}

fn is_secret_value(name: &[u8], value: &[u8], kind: FileKind) -> bool {
    // Prose, also of other languages.
    if value.iter().any(|byte| byte.is_ascii_whitespace() || !byte.is_ascii())
        || is_placeholder(value)
        || is_reference(value)
        || is_identifier(value)
        || is_wordlike(value)
        || !value.iter().any(u8::is_ascii_alphanumeric)
        // Code between two strings, and escapes.
        || value.iter().any(|byte| b"\\{}".contains(byte))
    {
        return false;
    }
    // Code in a value without quotes, such as `user.password&&x`.
    if value.windows(2).any(|pair| matches!(pair, b"=>" | b"&&" | b"||" | b"==" | b"::" | b"->" | b"()")) {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    let is_password = [&b"pass"[..], b"pwd"].iter().any(|word| lower.windows(word.len()).any(|part| part == *word));
    let random = entropy(value);
    if kind == FileKind::Test {
        // Made-up values are short and pronounceable.
        return value.len() >= 24 && classes(value) >= 2 && random >= 3.8 && (is_hex(value) || changes(value) >= 0.3);
    }
    if is_password {
        let has_digit_or_sign = value.iter().any(|byte| !byte.is_ascii_alphabetic() && !b"-_./:".contains(byte));
        return value.len() >= 8 && has_digit_or_sign && classes(value) >= 2 && random >= 2.7;
    }
    if is_hex(value) {
        return value.len() >= 24 && random >= 3.0 && classes(value) >= 2;
    }
    value.len() >= 12 && classes(value) >= 2 && random >= 3.3 && (changes(value) >= 0.2 || classes(value) >= 4)
}

/// A quoted string, or the value of an assignment, of the alphabet of base 64.
static RANDOM: LazyLock<Regex> =
    LazyLock::new(|| compile(r#"(?:["'`]|[=:]\s?)([A-Za-z0-9+/_=-]{32,128})(?:["'`]|[\s,;]|$)"#));

/// What else random strings are: digests, public keys, pictures, ids.
static NO_SECRET: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"(?i)integrity|sha-?\d|md5|checksum|digest|hash|etag|fingerprint|thumbprint|data:|base64|nonce|cursor|commit|revision|public|certificate|ssh-|ecdsa|sourcemapping|sitekey|recaptcha|<path|\bd="m|font|alphabet|charset|charCodes|cid\b|uuid|guid|signature|snapshot|vector|tracking|analytics|pixel|verification|https?://|ipfs|\bQm[1-9A-Za-z]{44}|\bpk_(?:test|live)_|address|wallet|[\x22'](?:bc1|[13])[1-9A-Za-z]{25,38}[\x22']|arn:|job_?id|upload_?id|_id\b|pubkey|\bimport\b|\brequire\b|resolved|blob|\bid["']?\s?[:=]"#,
    )
});

/// Random strings that nothing in their line explains.
pub fn random(line: &[u8], kind: FileKind) -> Vec<(usize, usize)> {
    if kind == FileKind::Test || NO_SECRET.is_match(line) {
        return Vec::new();
    }
    let is_random = |value: &[u8]| {
        // `eyJ` is the start of JSON in base 64: a cursor, or a part of a token that its own rule finds.
        !is_hex(value)
            && !value.starts_with(b"eyJ")
            // More separators than chance gives are between words.
            && value.iter().filter(|byte| b"_-".contains(byte)).count() * 8 <= value.len()
            && [b'a'..=b'z', b'A'..=b'Z', b'0'..=b'9'].iter().all(|class| value.iter().any(|byte| class.contains(byte)))
            && entropy(value) >= 4.25
            && changes(value) >= 0.4
            && !is_placeholder(value)
            && !is_wordlike(value)
    };
    let values = RANDOM.captures_iter(line).take(100).filter_map(|captures| captures.get(1));
    values.filter(|value| is_random(value.as_bytes())).map(|value| (value.start(), value.end())).collect()
}
