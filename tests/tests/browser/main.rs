//! The console in a real browser. The tests are in `tests/browser`; this starts the gallery for them.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nofx_local::checkout::Checkout;
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::browser::Browser;
use nofx_tests::gallery::Gallery;
use tokio::net::TcpListener;
use tokio::process::Command;

/// Runs these files with Node's test runner. Panics with what it printed if a test fails or none runs.
async fn run(files: &[&str], variables: &[(&str, &str)]) {
    let checkout = Checkout::at(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let place = Throwaway::make(&checkout, "browser").await.expect("a folder");
    let browser = Browser::ready(&checkout, &place.pid_file).await.unwrap_or_else(|error| panic!("{error:?}"));
    let mut node = Command::new("node");
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"])
        .args(files)
        .current_dir(checkout.browser_tests());
    node.env("NOFX_TEST_BROWSER_DIR", &browser.dir).envs(variables.iter().copied()).kill_on_drop(true);
    node.env("NOFX_TEST_CHROMIUM", browser.program().expect("a browser"));
    let output = node.output().await.expect("Node runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    println!("{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "tests in the browser failed; they are listed above");
    assert!(!printed.contains("ℹ pass 0"), "no test ran");
    place.end(true);
}

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
    run(&["checks.test.mjs", "pages.test.mjs", "keys.test.mjs"], &[("NOFX_TEST_GALLERY", &list.to_string_lossy())])
        .await;
    working.abort();
}
