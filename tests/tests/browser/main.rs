//! The console in a real browser. The tests are in `tests/browser`; this starts the gallery for them.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nofx_tests::browser;
use nofx_tests::gallery::Gallery;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_the_console_works_in_a_browser() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let gallery = Arc::new(Box::pin(Gallery::open(listener)).await);
    assert_eq!(gallery.uncovered(), [""; 0], "every page of the console is in the gallery");
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("gallery.json");
    fs::write(&list, gallery.list().to_string()).expect("the list is written");
    let working = tokio::spawn({
        let gallery = Arc::clone(&gallery);
        async move { gallery.work().await }
    });
    browser::run(
        &["checks.test.mjs", "pages.test.mjs", "keys.test.mjs"],
        &[("NOFX_TEST_GALLERY", &list.to_string_lossy())],
    )
    .await;
    working.abort();
}
