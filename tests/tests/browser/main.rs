//! The console in a real browser. The tests are in `tests/browser`; this starts the gallery for them.

use std::net::Ipv4Addr;

use nofx_tests::browser;
use nofx_tests::gallery::Gallery;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_the_console_works_in_a_browser() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let gallery = Box::pin(Gallery::open(listener)).await;
    assert_eq!(gallery.uncovered(), [""; 0], "every page of the console is in the gallery");
    browser::run_on(&gallery, &["checks.test.mjs", "pages.test.mjs", "keys.test.mjs"]).await;
}
