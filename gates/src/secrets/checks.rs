//! Checks of what a shape alone cannot tell: checksums, JSON web tokens, URLs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Crc;

use super::shapes::{Check, Match};
use super::value::{entropy, is_placeholder, is_reference, is_wordlike};

/// Whether the match is a secret that counts. `Some(note)` if so; the note is for people.
pub fn confirm(line: &[u8], found: &Match) -> Option<&'static str> {
    let secret = line.get(found.start..found.end)?;
    match found.shape.check {
        Check::Url => return is_url_secret(secret).then_some(""),
        Check::Jwt => return is_jwt_secret(secret).then_some(""),
        Check::Shape | Check::Random | Check::Crc32 | Check::AzureKey => {}
    }
    // The part after the prefix, so that `sk_test_` is no placeholder.
    let body = secret.iter().rposition(|byte| b"_-.:/".contains(byte)).map_or(secret, |at| &secret[at + 1..]);
    let body = if body.len() * 2 < secret.len() { secret } else { body };
    if is_placeholder(body) || entropy(body) < 2.5 {
        return None;
    }
    match found.shape.check {
        Check::Random if entropy(secret) < 3.0 || is_reference(secret) || is_wordlike(secret) => None,
        Check::Crc32 => Some(if has_checksum(secret) {
            "; its checksum is right, so it is a real one"
        } else {
            "; its checksum is wrong, so it may be made up"
        }),
        _ => Some(""),
    }
}

/// `ghp_` and `npm_` tokens end with the CRC-32 of their 30 random characters, as six digits of base 62.
pub fn has_checksum(token: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some((random, digits)) =
        token.get(4..).filter(|rest| rest.len() == 36).and_then(|rest| rest.split_at_checked(30))
    else {
        return false;
    };
    let mut crc = Crc::new();
    crc.update(random);
    let mut rest = crc.sum();
    let mut expected = [b'0'; 6];
    for digit in expected.iter_mut().rev() {
        *digit = DIGITS.get((rest % 62) as usize).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits == expected
}

/// Passwords that everybody uses for a server on the own machine.
const LOCAL_PASSWORDS: &[&str] = &[
    "postgres",
    "password",
    "passwd",
    "pass",
    "secret",
    "root",
    "admin",
    "guest",
    "test",
    "testing",
    "user",
    "mysql",
    "mongo",
    "redis",
    "changeme",
    "example",
    "dev",
    "local",
    "minio",
    "minioadmin",
    "rabbitmq",
    "app",
    "pwd",
    "pw",
    "foo",
    "bar",
    "x",
    "supabase",
    "prisma",
    "db",
    "docker",
    "token",
    "hunter2",
    "s3cr3t",
    "secretpassword",
    "mysecretpassword",
];

fn is_url_secret(url: &[u8]) -> bool {
    let Ok(url) = std::str::from_utf8(url) else { return true };
    let Some((_, rest)) = url.split_once("://") else { return false };
    let Some((user_info, host)) = rest.rsplit_once('@') else { return false };
    let Some((user, password)) = user_info.split_once(':') else { return false };
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    // `{name}` and `:name` are holes of templates and routes.
    let has_hole = password.contains(['{', '}', '<']) || password.starts_with(['$', '%', ':', '*']);
    if password.is_empty() || has_hole {
        return false;
    }
    if is_placeholder(password.as_bytes()) || is_name(password) || password == "..." {
        return false;
    }
    let lower = password.to_lowercase();
    let is_known = LOCAL_PASSWORDS.contains(&lower.as_str()) || lower == user.to_lowercase();
    let host = host.trim_start_matches('[').to_lowercase();
    let reserved =
        [".example", ".example.com", ".example.org", ".test", ".invalid", ".local", ".localhost", ".internal"];
    let is_local = !host.contains('.')
        || host.starts_with("127.")
        || host.starts_with("0.0.0.0")
        || ["example.com", "example.org", "example.net"].contains(&host.as_str())
        || reserved.iter().any(|end| host.ends_with(end));
    if is_local {
        !is_known && password.len() >= 12 && entropy(password.as_bytes()) >= 3.2
    } else {
        !matches!(lower.as_str(), "password" | "pass" | "pwd" | "passwd" | "secret")
    }
}

/// Not the example of jwt.io, and not Supabase's `anon` key, which is made to be public.
fn is_jwt_secret(token: &[u8]) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(header), Some(payload)) = (parts.next(), parts.next()) else { return false };
    let json = |part: &[u8]| serde_json::from_slice::<serde_json::Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let (Some(header), Some(payload)) = (json(header), json(payload)) else { return false };
    if header.get("alg").is_none() && header.get("enc").is_none() {
        return false;
    }
    let is = |name: &str, value: &str| payload.get(name).and_then(serde_json::Value::as_str) == Some(value);
    let is_example = is("sub", "1234567890") || is("name", "John Doe");
    let is_public = is("role", "anon");
    // The keys that every local Supabase has.
    let is_local = is("iss", "supabase-demo");
    !(is_example || is_public || is_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_npms_published_dummy_is_right_and_a_changed_one_is_not() {
        let token = ["npm", "_qkJaB6MffYVzZXWqmcoF49yr", "UxP3wf0LsakP"].concat();
        assert!(has_checksum(token.as_bytes()));
        assert!(!has_checksum(token.replace("0LsakP", "0LsakQ").as_bytes()));
        assert!(!has_checksum(b"npm_"));
    }

    #[test]
    fn a_url_with_a_password_is_a_secret_unless_it_is_a_hole_or_a_local_default() {
        let url = |user_info: &str, host: &str| format!("postgres://{user_info}@{host}");
        for (user_info, host) in [
            ("app:Tr0ub4dor", "db.acme.io"),
            ("app:hunter2", "10.0.0.5"),
            (":s3cr3tQ9x", "cache.acme.io"),
            ("a:kX92mPqLw84Zt", "localhost"),
        ] {
            assert!(is_url_secret(url(user_info, host).as_bytes()), "{user_info} {host}");
        }
        for (user_info, host) in [
            ("postgres:postgres", "localhost"),
            ("app:app", "db"),
            ("user:password", "db.acme.io"),
            ("user:${PASSWORD}", "db.acme.io"),
            ("user:{password}", "db.acme.io"),
            ("USER:PASSWORD", "HOST"),
            ("user:<password>", "db.acme.io"),
            ("u:p4ssw0rd", "db.example.com"),
            ("user:your_password", "db.acme.io"),
        ] {
            assert!(!is_url_secret(url(user_info, host).as_bytes()), "{user_info} {host}");
        }
    }

    #[test]
    fn public_and_example_tokens_are_not_secrets() {
        let token = |payload: &str| {
            let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
            format!("{}.{}.c2lnbmF0dXJlc2lnbmF0dXJl", encode(r#"{"alg":"HS256"}"#), encode(payload))
        };
        assert!(is_jwt_secret(token(r#"{"role":"service_role","iss":"supabase"}"#).as_bytes()));
        assert!(is_jwt_secret(token(r#"{"sub":"8f1","exp":1}"#).as_bytes()));
        assert!(!is_jwt_secret(token(r#"{"role":"anon","iss":"supabase"}"#).as_bytes()));
        assert!(!is_jwt_secret(token(r#"{"sub":"1234567890","name":"John Doe"}"#).as_bytes()));
        assert!(!is_jwt_secret(b"eyJub3QganNvbg.eyJub3QganNvbg.c2lnbmF0dXJlc2lnbmF0dXJl"));
    }
}
