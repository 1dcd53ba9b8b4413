//! Tests of `tests/browser` in the pinned Chromium.

use std::fs;

use nofx_local::checkout::Checkout;
use nofx_local::throwaway::Throwaway;
use nofx_local::tools::browser::Browser;
use tokio::process::Command;

use crate::gallery::Gallery;

/// Runs these files on the pages of a gallery.
pub async fn run_on(gallery: &Gallery, files: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("gallery.json");
    fs::write(&list, gallery.list().to_string()).expect("the list is written");
    let list = list.to_string_lossy();
    let variables = [("NOFX_TEST_GALLERY", &*list)];
    // Workers go on with what the tests start.
    tokio::select! {
        () = run(files, &variables) => {}
        () = gallery.work() => {}
    }
}

/// Runs these files with Node's test runner. Panics with what it printed if a test fails or none runs.
pub async fn run(files: &[&str], variables: &[(&str, &str)]) {
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
