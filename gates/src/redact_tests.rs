//! No secret survives, however the stream is cut.

use proptest::prelude::*;
use shared::auth::ApiToken;
use shared::domain::{Kind, TenantId, TokenId};

use super::*;

fn redacted(values: &[&str], text: &str) -> String {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    String::from_utf8(Redactor::redact(&values, text.as_bytes())).unwrap()
}

fn token() -> String {
    ["gh", "p_", "Zx81kQmT0vRb7LpW3nYc", "F5sHd2JgA9uE6XiO"].concat()
}

#[test]
fn shapes_and_values_are_replaced_by_their_rule() {
    let text = format!("a {} b\nc s3cretvalue s3cretvalue d\n", token());
    assert_eq!(
        redacted(&["s3cretvalue"], &text),
        "a [redacted:github-token] b\nc [redacted:value] [redacted:value] d\n"
    );
    assert_eq!(redacted(&[], "nothing here: 1 2 3\r\n\r\nend"), "nothing here: 1 2 3\r\n\r\nend");
}

#[test]
fn an_api_token_of_ours_leaves_nothing_of_its_secret() {
    for kind in Kind::ALL {
        for tenant in ["a", &"t".repeat(64)] {
            let id = TokenId(uuid::Uuid::from_u128(7));
            let token = ApiToken::generate(*kind, id, TenantId(tenant.into())).unwrap().expose();
            let cut = &token[..token.len() - 20];
            for text in [&token, cut] {
                assert_eq!(redacted(&[], &format!("NOFX_TOKEN={text}\n")), "NOFX_TOKEN=[redacted:nofx-token]\n");
                assert_eq!(redacted(&[], &format!("{{\"t\":\"{text}\"}}")), "{\"t\":\"[redacted:nofx-token]\"}");
            }
        }
    }
}

#[test]
fn values_in_json_urls_and_base64_are_found() {
    let value = "pa\"ss w/rd+é";
    for form in [r#"pa\"ss w/rd+é"#, "pa%22ss%20w%2Frd%2B%C3%A9", &STANDARD_NO_PAD.encode(value)] {
        assert_eq!(redacted(&[value], &format!("x={form};")), "x=[redacted:value];", "{form}");
    }
}

#[test]
fn one_value_inside_another_or_overlapping_it_is_taken_out_with_it() {
    assert_eq!(redacted(&["abcdef", "cdefgh"], "xabcdefghx"), "x[redacted:value]x");
    assert_eq!(redacted(&["bcde", "abcdefgh"], "abcdefgh bcde"), "[redacted:value] [redacted:value]");
}

#[test]
fn the_lines_of_a_private_key_are_taken_out_and_the_rest_is_not() {
    let body = "MIIEowIBAAKCAQEAtestkeytestkeytestkeytestkeytestkeytestkeytestkey";
    let begin = ["-----BEGIN RSA PRIV", "ATE KEY-----"].concat();
    let end = ["-----END RSA PRIV", "ATE KEY-----"].concat();
    let text = format!("before\n{begin}\n{body}\n  {body}\nQUJDRA==\n{end}\nafterwards-everything-is-shown\n");
    assert_eq!(
        redacted(&[], &text),
        format!(
            "before\n{begin}\n[redacted:private-key]\n  [redacted:private-key]\n[redacted:private-key]\n{end}\nafterwards-everything-is-shown\n"
        )
    );
    let in_json = format!("{{\"key\": \"{begin}\\n{body}\\n{end}\\n\"}}");
    assert!(!redacted(&[], &in_json).contains("MIIE"));
}

#[test]
fn a_value_with_several_lines_is_taken_out_line_by_line() {
    assert_eq!(
        redacted(&["first-line\nsecond-line"], "a first-line\nsecond-line b\n"),
        "a [redacted:value]\n[redacted:value] b\n"
    );
}

#[test]
fn a_secret_longer_than_a_kept_line_leaves_nothing() {
    let secret = format!("sk-ant-{}-{}", "api03", "aB3_".repeat(100_000));
    let text = format!("x {secret} end\n");
    for step in [1_000, 70_000, 1_000_000] {
        let mut redactor = Redactor::new(&[]);
        let mut out: Vec<u8> = text.as_bytes().chunks(step).flat_map(|chunk| redactor.push(chunk)).collect();
        out.extend(redactor.finish().0);
        let out = String::from_utf8(out).unwrap();
        assert!(
            !out.contains("aB3_aB3_") && out.starts_with("x [redacted:") && out.ends_with(" end\n"),
            "{step}: {} bytes",
            out.len()
        );
    }
}

#[test]
fn memory_stays_small_in_a_line_without_end() {
    let mut redactor = Redactor::new(&[]);
    for _ in 0..200 {
        redactor.push(&vec![b'x'; 50_000]);
        assert!(redactor.pending.len() <= 4 * MAX_LINE_BYTES);
    }
}

/// The text, cut at the borders.
fn in_chunks(values: &[String], text: &[u8], borders: &[usize]) -> Vec<u8> {
    let mut redactor = Redactor::new(values);
    let mut out = Vec::new();
    let mut at = 0;
    let mut borders: Vec<usize> = borders.iter().map(|border| border % (text.len() + 1)).collect();
    borders.sort_unstable();
    for border in borders {
        out.extend(redactor.push(&text[at..border]));
        at = border;
    }
    out.extend(redactor.push(&text[at..]));
    out.extend(redactor.finish().0);
    out
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_value_survives_however_the_stream_is_cut(
        values in prop::collection::vec("[A-Z0-9+/_-]{6,40}", 1..5),
        noise in prop::collection::vec("[a-z \n\t\"=:]{0,60}", 1..12),
        borders in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let pieces = noise.iter().enumerate().map(|(at, noise)| [noise.as_str(), &values[at % values.len()]].concat());
        let text = pieces.collect::<Vec<_>>().concat();
        let out = in_chunks(&values, text.as_bytes(), &borders);
        for value in &values {
            prop_assert!(!contains(&out, value.as_bytes()));
        }
        // However it is cut, the text is the same, and so is the number of lines.
        prop_assert_eq!(&out, &Redactor::redact(&values, text.as_bytes()));
        prop_assert_eq!(String::from_utf8_lossy(&out).matches('\n').count(), text.matches('\n').count());
    }

    #[test]
    fn no_value_survives_in_lines_that_are_too_long_to_keep(
        value in "[A-Z0-9]{12,40}",
        places in prop::collection::vec(0usize..200_000, 1..6),
        borders in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let mut text = vec![b' '; 200_000];
        for place in places {
            text.splice(place..place, value.bytes());
        }
        let token = token();
        text.splice(65_500..65_500, token.bytes());
        let out = in_chunks(std::slice::from_ref(&value), &text, &borders);
        prop_assert!(!contains(&out, value.as_bytes()));
        prop_assert!(!contains(&out, &token.as_bytes()[..20]) || contains(token.as_bytes(), value.as_bytes()));
    }
}
