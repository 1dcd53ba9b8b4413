//! Submits a YAML plan as `nofx run` does.

use std::path::Path;

use nofx::client::api::Api;
use nofx::client::submission::{self, Submission};
use nofx_tests::script::Script;
use nofx_tests::{Deliver, Lab};
use serde_json::json;
use shared::http::with_layers;
use tokio::net::TcpListener;

#[tokio::test]
async fn the_example_in_yaml_runs_to_its_approval() {
    let lab = Lab::new().await;
    let api = serve(&lab).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/release.yaml");
    let submission = Submission { file: &file, workspace: None, overlay: None, base: None, actor: None };
    let id = submission::create(&api, &submission).await.expect("the example is accepted").id;

    lab.settle(&Script::deployed(), Deliver::Once).await;

    assert_eq!(lab.run_status(id).await, "blocked");
    let steps = lab.snapshot(id).await["steps"].take();
    let notes = json!({"text": "Dear customers,\nthis is new:\n", "items": ["prices in euro"]});
    assert_eq!(steps["notes"]["outputs"], notes);
    assert_eq!(steps["approve"]["status"], "blocked");
    lab.assert_invariants().await;
}

/// The API over HTTP, for as long as the test runs.
pub async fn serve(lab: &Lab) -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = with_layers(api::router(lab.ctx.clone()).expect("a router"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Api::at(&url)
}
