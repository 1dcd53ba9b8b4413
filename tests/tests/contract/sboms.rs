//! Bills of materials of real runs validate with cyclonedx-python-lib.

use nofx_tests::models::Model;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::ArtifactRef;
use shared::domain::digest::sha256_hex;
use shared::worker::Handler;

use crate::oracle;

/// Runs a step with this answer of the model. Returns what it stored: the row of its result, and the bytes of its SBOM.
async fn stored(lab: &Lab, inputs: &Value, answer: &str) -> (Value, Vec<u8>) {
    let model = Model::answering([answer.to_owned()]).await;
    let run = lab.submit(&json!({ "goal": "g", "steps": [plans::step("write", "codegen", inputs.clone())] })).await;
    let script = Script::new(move |step, store| {
        let model = model.clone();
        async move { model.codegen.handle(&step, &store).await }
    });
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let sql = "select to_jsonb(a) from nofx.artifact a where a.run_id = $1 order by (a.type = 'sbom')";
    let rows: Vec<Value> = lab.admin.query(sql, &[&run.0]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let [result, sbom] = rows.try_into().expect("a result and its SBOM");
    let object = ArtifactRef {
        id: sbom["id"].as_str().unwrap().parse().unwrap(),
        uri: sbom["uri"].as_str().unwrap().to_owned(),
        hash: sbom["hash"].as_str().unwrap().to_owned(),
        size_bytes: sbom["size_bytes"].as_u64().unwrap(),
        media_type: String::new(),
    };
    (result, lab.ctx.storage.get(&object, 1 << 20).await.expect("the SBOM"))
}

async fn read(sbom: &[u8]) -> Value {
    serde_json::from_str(&oracle::accepted("sbom.py", &[], sbom).await).expect("JSON")
}

#[tokio::test]
async fn cyclonedx_accepts_the_sbom_of_every_output() {
    let lab = Lab::with_bucket().await;
    let package = r#"{"dependencies":{"@a/b":"1.2.3","c":"^1"},"devDependencies":{"d":"git+https://h/d"}}"#;
    let set = json!({ "files": [
        { "path": "web/package.json", "content": package },
        { "path": "src/é \"x\".rs", "content": "fn main() {}\n" },
        { "path": "Cargo.toml", "content": "[dependencies]\nserde = \"=1.0.0\"\n" },
    ], "deleted": ["old"] });
    let (result, sbom) = stored(&lab, &json!({ "prompt": "p", "output": "files" }), &set.to_string()).await;
    let said = read(&sbom).await;
    assert_eq!((&said["name"], &said["sha256"]), (&json!("files.json"), &json!([result["hash"]])));
    assert_eq!(said["tools"], json!([format!("nofx/codegen@{}", env!("CARGO_PKG_VERSION"))]));
    let sha256 = |text: &str| json!([sha256_hex(text.as_bytes())]);
    assert_eq!(said["files"]["web/package.json"], sha256(package));
    assert_eq!(said["files"]["src/é \"x\".rs"], sha256("fn main() {}\n"));
    assert_eq!(
        said["libraries"],
        json!([
            ["b", "1.2.3", "pkg:npm/%40a/b@1.2.3", "required"],
            ["c", null, "pkg:npm/c", "required"],
            ["d", null, null, "excluded"],
            ["serde", "1.0.0", "pkg:cargo/serde@1.0.0", "required"],
        ])
    );
    assert_eq!(
        said["dependencies"]["artifact"],
        json!(["file:Cargo.toml", "file:src/é \"x\".rs", "file:web/package.json"])
    );
    assert_eq!(said["dependencies"]["file:Cargo.toml"], json!(["library:Cargo.toml:0"]));

    let patch =
        "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-x\n+y\n--- /dev/null\n+++ b/requirements.txt\n@@ -0,0 +1 @@\n+a==1.0\n";
    let answer = json!({ "patch": patch }).to_string();
    let (result, sbom) = stored(&lab, &json!({ "prompt": "p", "output": "patch" }), &answer).await;
    let said = read(&sbom).await;
    assert_eq!((&said["sha256"], sha256(patch)), (&json!([result["hash"]]), json!([result["hash"]])));
    assert_eq!(said["files"], json!({ "a": [], "requirements.txt": sha256("a==1.0\n") }));
    assert_eq!(said["libraries"], json!([["a", "1.0", "pkg:pypi/a@1.0", "required"]]));

    let (result, sbom) = stored(&lab, &json!({ "prompt": "p", "name": "package.json" }), package).await;
    let said = read(&sbom).await;
    assert_eq!((&said["name"], &said["sha256"]), (&json!("package.json"), &json!([result["hash"]])));
    assert_eq!(said["libraries"].as_array().map(Vec::len), Some(3));

    let (_, sbom) = stored(&lab, &json!({ "topic": "t" }), "# A\n").await;
    assert_eq!(read(&sbom).await["files"], json!({}));
    lab.assert_invariants().await;

    // The oracle notices what CycloneDX does not allow.
    let document: Value = serde_json::from_slice(&sbom).unwrap();
    for (pointer, value) in [
        ("/specVersion", json!("1.7")),
        ("/metadata/component/type", json!("text")),
        ("/metadata/component/hashes/0/content", json!("0")),
        ("/components", json!({})),
        ("/version", json!("1")),
    ] {
        let mut changed = document.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let refused = oracle::run("sbom.py", &[], changed.to_string().as_bytes()).await;
        assert!(!refused.status.success(), "{pointer}");
    }
}
