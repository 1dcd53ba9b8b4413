//! Limits on the size of an answer, which bound the memory of a request.

use std::io::Write;

use codegen::{CodegenConfig, Provider};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::support::{FakeProvider, Reply, anthropic, codegen, config, generate, openai, openai_error, topic};

const MB: usize = 1 << 20;
const MAX_BYTES: usize = 8 * MB;
const TWO: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..times {
        encoder.write_all(bytes).unwrap();
    }
    encoder.finish().unwrap()
}

/// OpenAI sends this reply, which is unusable. Returns the reason, the number of requests, and the bytes sent.
async fn failure_of(reply: Reply) -> (String, usize, usize) {
    let first = FakeProvider::start(vec![reply]).await;
    let second = FakeProvider::start(vec![Reply::ok(&anthropic("from the second"))]).await;
    let made = generate(&codegen(config(Some(&first), Some(&second), None), &TWO), topic()).await;
    assert_eq!(made.provider, "anthropic");
    let reason = made.metadata["attempts"][0]["reason"].as_str().unwrap().to_owned();
    (reason, first.calls(), first.sent())
}

#[tokio::test]
async fn an_endless_answer_is_abandoned_and_the_next_provider_answers() {
    let chunk = vec![b'x'; 64 * 1024];
    let endless = Reply::ok(&json!({})).body(chunk, usize::MAX);
    let (reason, calls, sent) = failure_of(endless).await;
    assert_eq!((reason.as_str(), calls), ("the answer is longer than 8388608 bytes", 1));
    // Socket buffers on both sides add to the limit.
    assert!(sent < 32 * MB, "{sent} bytes were read");
}

#[tokio::test]
async fn an_endless_error_body_is_ignored_and_the_status_counts() {
    for (status, calls, expected) in [(500, 3, "500"), (401, 1, "401"), (400, 1, "400")] {
        let endless = openai_error(status, "x").body(vec![b' '; 64 * 1024], usize::MAX);
        let (reason, requests, sent) = failure_of(endless).await;
        assert_eq!((reason.as_str(), requests), (expected, calls));
        assert!(sent < calls * 16 * MB, "{sent} bytes were read");
    }
}

#[tokio::test]
async fn a_compression_bomb_is_abandoned() {
    let bomb = gzip(&vec![b' '; MB], 100);
    assert!(bomb.len() < MB, "the compressed size is small");
    for status in [200, 500] {
        let reply = Reply::json(status, &json!({})).with_header("content-encoding", "gzip").body(bomb.clone(), 1);
        let (reason, ..) = failure_of(reply).await;
        assert!(reason == "the answer is longer than 8388608 bytes" || reason == "500", "{reason}");
    }
}

#[tokio::test]
async fn compressed_bytes_that_decompress_to_nothing_are_counted() {
    // The header, then endless empty blocks.
    let blocks = [&gzip(b"", 0)[..10], &[0, 0, 0, 0xff, 0xff].repeat(MAX_BYTES / 5)].concat();
    let reply = Reply::ok(&json!({})).with_header("content-encoding", "gzip").body(blocks, 1);
    assert_eq!(failure_of(reply).await.0, "the answer is longer than 8388608 bytes");
}

#[tokio::test]
async fn a_small_answer_with_too_many_values_is_rejected() {
    let many = format!(r#"{{"output":[{}{{}}]}}"#, r#"{"":0},"#.repeat(100_000));
    assert_eq!(failure_of(Reply::ok(&json!({})).body(many, 1)).await.0, "the answer has more than 20000 values");
}

#[tokio::test]
async fn gzip_is_read_and_other_encodings_are_rejected() {
    let body = gzip(openai("compressed").to_string().as_bytes(), 1);
    let fake =
        FakeProvider::start(vec![Reply::ok(&json!({})).with_header("content-encoding", "gzip").body(body, 1)]).await;
    let plain = CodegenConfig { stream: false, ..config(Some(&fake), None, None) };
    let codegen = codegen(plain, &[Provider::OpenAi]);
    assert_eq!(generate(&codegen, topic()).await.text, "compressed");
    assert_eq!(fake.requests()[0].headers["accept-encoding"], "gzip");
    let (reason, ..) = failure_of(Reply::ok(&openai("x")).with_header("content-encoding", "br")).await;
    assert_eq!(reason, "the answer has an encoding that was not requested");
}
