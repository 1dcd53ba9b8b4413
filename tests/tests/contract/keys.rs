//! An artifact store with its own keys. They sign every request, and the store accepts no others.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nofx_tests::Lab;
use nofx_tests::database::TestDatabase;
use nofx_tests::environment::s3_keys;
use nofx_tests::lab::config;
use sha2::{Digest, Sha256};
use shared::error::Error;

use crate::storage::{describe, found, store};
use crate::target::Target;

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn wrong_keys_can_neither_write_nor_read() {
    let lab = Target::OwnKeys.lab_with_bucket().await;
    let artifact = store(&lab, 1).put("a.txt", describe(), b"hello".to_vec()).await.unwrap();
    let (id, secret) = s3_keys();
    // The last pair has the keys of all other services of this lab.
    for (id, secret) in [(&*id, "another"), ("another", &*secret), ("test", "test")] {
        let mut other = lab.ctx.config.clone();
        other.artifacts.keys = Some((id.to_owned(), secret.to_owned()));
        let ctx = nofx_tests::lab::context(other).await;
        let written = ctx.storage.for_step(&crate::storage::step(&lab, 2)).put("b", describe(), b"x".to_vec()).await;
        assert!(matches!(written, Err(Error::Unavailable { .. })), "{written:?}");
        let read = ctx.storage.get(&found(&artifact), 5).await;
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
        let signed = ctx.storage.sign_download(&artifact.uri, MINUTE).await.expect("signing needs no server");
        assert_eq!(reqwest::get(&signed.url).await.unwrap().status(), 403);
    }
}

#[tokio::test]
async fn unsigned_and_wrongly_signed_requests_are_rejected() {
    let lab = Target::OwnKeys.lab_with_bucket().await;
    let artifact = store(&lab, 1).put("a.txt", describe(), b"hello".to_vec()).await.unwrap();
    let signed = lab.ctx.storage.sign_download(&artifact.uri, MINUTE).await.unwrap().url;
    let (unsigned, _) = signed.split_once('?').expect("a query");
    for url in [unsigned.to_owned(), signed.replace("a.txt", "b.txt"), signed.replace("Expires=60", "Expires=600")] {
        assert_ne!(url, signed);
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 403, "{url}");
    }
    assert_eq!(reqwest::get(&signed).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_upload_with_another_hash_than_the_signed_one_is_rejected() {
    let lab = Target::OwnKeys.lab_with_bucket().await;
    let digest = Sha256::digest(b"the very bytes");
    let signed = lab.ctx.storage.sign_upload("k", "text/plain", &digest, 14, MINUTE).await.unwrap();
    let other = Sha256::digest(b"the evil bytes");
    let (hash, other) = (STANDARD.encode(digest), STANDARD.encode(other));
    let in_query = |hash: &str| hash.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let url = signed.url.replace(&in_query(&hash), &in_query(&other));
    let mut request = reqwest::Client::new().put(&url).body("the evil bytes");
    for (name, value) in &signed.headers {
        request = request.header(name, value.replace(&hash, &other));
    }
    assert!(url != signed.url || signed.headers.values().any(|value| *value == hash), "the request contains the hash");
    assert_eq!(request.send().await.unwrap().status(), 403);
}

/// Some servers reject unknown headers, such as the checksums that newer SDKs add to every request.
#[tokio::test]
async fn a_write_has_no_checksum_header_but_its_hash() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(&stream).lines().map(Result::unwrap).skip(1);
        let names: BTreeSet<String> = lines
            .take_while(|line| !line.is_empty())
            .map(|line| line.split(':').next().unwrap_or_default().to_lowercase())
            .collect();
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        names
    });

    let database = TestDatabase::create().await;
    let mut config = config(&database.url);
    config.artifacts.endpoint_url = Some(url);
    config.artifacts.keys = Some(("id".into(), "secret".into()));
    let lab = Lab::on(database, config).await;
    store(&lab, 1).put("a.txt", describe(), b"hello".to_vec()).await.unwrap();
    let seen = server.join().unwrap();
    let special: Vec<&str> = seen
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("x-amz-") || name.contains("encoding"))
        .collect();
    assert_eq!(special, ["x-amz-checksum-sha256", "x-amz-content-sha256", "x-amz-date", "x-amz-user-agent"]);
}
