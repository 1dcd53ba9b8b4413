//! Whole steps: ask, store, report. A fake server stands in for S3.

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use codegen::{CodegenConfig, MAX_MATERIAL_BYTES, Provider};
use serde_json::{Value, json};
use sha2::Digest;
use shared::domain::repair::RepairTask;
use shared::domain::{ArtifactId, ArtifactRef, ClaimedStep, Outcome, Verdict};
use shared::storage::Storage;
use shared::worker::Handler;

use crate::support::{FakeProvider, Lab, Reply, codegen, config, openai, step};

fn storage(s3: &FakeProvider) -> Storage {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&s3.url)
        .force_path_style(true)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    Storage::new(aws_sdk_s3::Client::from_conf(config), "bucket")
}

async fn handle(lab: &Lab, s3: &FakeProvider, inputs: Value) -> Outcome {
    let step = step(inputs);
    lab.codegen.handle_with_models(&step, &storage(s3).for_step(&step), &lab.ledger.calls()).await
}

async fn codegen_that_writes(text: &str) -> (FakeProvider, Lab) {
    let fake = FakeProvider::start(vec![Reply::ok(&openai(text))]).await;
    let codegen = codegen(config(Some(&fake), None, None), &[Provider::OpenAi]);
    (fake, codegen)
}

#[tokio::test]
async fn the_outputs_refer_to_the_artifact_and_contain_only_a_small_text() {
    let s3 = FakeProvider::start(vec![Reply::ok(&json!({}))]).await;
    // The longest prompt.
    for (length, included) in [(128 * 1024, true), (128 * 1024 + 1, false)] {
        let (_, codegen) = codegen_that_writes(&"x".repeat(length)).await;
        let outcome = handle(&codegen, &s3, json!({ "prompt": "p", "name": "a.md" })).await;
        let Verdict::Succeeded(outputs) = outcome.verdict else { panic!("{outcome:?}") };
        let [artifact, _] = outcome.artifacts.as_slice() else { panic!("a text and its SBOM") };
        assert_eq!((&outputs["uri"], &outputs["sha256"]), (&json!(artifact.uri), &json!(artifact.hash)));
        assert_eq!((&outputs["provider"], &outputs["template"]), (&json!("openai"), &json!(false)));
        assert_eq!(outputs.contains_key("text"), included);
        assert_eq!((artifact.kind.as_str(), artifact.size_bytes), ("text", length as u64));
        let stored: Vec<_> = s3.requests().iter().rev().take(2).map(|request| request.path.clone()).collect();
        assert!(stored[1].ends_with("/a.md") && artifact.uri.ends_with("/a.md"), "{stored:?}");
        assert!(stored[0].ends_with("/a.md.cdx.json"), "{stored:?}");
    }
}

#[tokio::test]
async fn a_text_that_exceeds_the_outputs_limit_is_omitted() {
    let s3 = FakeProvider::start(vec![Reply::ok(&json!({}))]).await;
    // Each of these characters takes six bytes as JSON.
    for (length, included) in [(100, true), (200, false)] {
        let fake = FakeProvider::start(vec![Reply::ok(&openai(&"\u{1}".repeat(length)))]).await;
        let config = CodegenConfig { outputs_bytes: 1000 + 300, ..config(Some(&fake), None, None) };
        let outcome = handle(&codegen(config, &[Provider::OpenAi]), &s3, json!({ "prompt": "p" })).await;
        let Verdict::Succeeded(outputs) = outcome.verdict else { panic!("{outcome:?}") };
        assert_eq!(outputs.contains_key("text"), included, "{length}");
    }
}

#[tokio::test]
async fn a_set_of_files_is_listed_and_has_its_bill_of_materials() {
    let s3 = FakeProvider::start(vec![Reply::ok(&json!({}))]).await;
    let files: Vec<Value> = (0..150).map(|at| json!({ "path": format!("f{at}"), "content": "x" })).collect();
    let (_, codegen) = codegen_that_writes(&json!({ "files": files, "deleted": ["old"] }).to_string()).await;
    let outcome = handle(&codegen, &s3, json!({ "prompt": "p", "output": "files" })).await;
    let Verdict::Succeeded(outputs) = outcome.verdict else { panic!("{outcome:?}") };
    let [artifact, sbom] = outcome.artifacts.as_slice() else { panic!("a set and its SBOM") };
    assert_eq!((&outputs["artifact_id"], &outputs["files_count"]), (&json!(artifact.id), &json!(151)));
    let listed = outputs["files"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[0], outputs.get("text")), (100, &json!("f0"), None));
    assert_eq!((artifact.name.as_str(), artifact.media_type.as_str()), ("files.json", "application/json"));
    assert_eq!((sbom.name.as_str(), sbom.kind.as_str()), ("files.json.cdx.json", "sbom"));
    assert_eq!(sbom.media_type, "application/vnd.cyclonedx+json; version=1.6");
    assert_eq!((&sbom.made_from, &sbom.metadata["of"]), (&vec![artifact.id], &json!(artifact.id)));
    let document = &s3.requests()[1].body;
    assert_eq!(document["metadata"]["component"]["hashes"][0]["content"], json!(artifact.hash));
    assert_eq!(document["components"].as_array().unwrap().len(), 150);
}

#[tokio::test]
async fn tokens_are_settled_even_if_the_text_could_not_be_stored() {
    let s3 = FakeProvider::start(vec![Reply::json(503, &json!({}))]).await;
    let (_, codegen) = codegen_that_writes("x").await;
    let outcome = handle(&codegen, &s3, json!({ "prompt": "p" })).await;
    assert!(matches!(outcome.verdict, Verdict::Failed { retryable: true, .. }));
    assert_eq!(codegen.ledger.ends()[0].usage.unwrap().output_tokens, Some(30));
    assert!(outcome.artifacts.is_empty());
}

/// A step that hands on an artifact with these bytes. The server answers every read with them.
async fn handle_artifact(lab: &Lab, bytes: &[u8], size_bytes: u64) -> Outcome {
    let reply = Reply::ok(&json!({})).with_header("content-type", "text/plain").body(bytes, 1);
    let s3 = FakeProvider::start(vec![reply]).await;
    let id = ArtifactId(uuid::Uuid::from_u128(7));
    let hash = shared::domain::digest::hex(&sha2::Sha256::digest(bytes));
    let uri = "s3://bucket/tenants/local/x".to_owned();
    let artifact = ArtifactRef { id, uri, hash, size_bytes, media_type: "text/plain; charset=utf-8".to_owned() };
    let mut step = step(json!({ "prompt": "Summarise it.", "artifacts": [id] }));
    step.artifacts.insert(id, artifact);
    lab.codegen.handle_with_models(&step, &storage(&s3).for_step(&step), &lab.ledger.calls()).await
}

#[tokio::test]
async fn a_long_text_of_another_step_is_handed_on_as_an_artifact() {
    let (fake, lab) = codegen_that_writes("a summary").await;
    let text = "line\n".repeat(60_000);
    let outcome = handle_artifact(&lab, text.as_bytes(), text.len() as u64).await;
    assert!(matches!(outcome.verdict, Verdict::Succeeded(_)), "{outcome:?}");
    let sent = fake.requests()[0].body["input"][0]["content"].as_str().unwrap().to_owned();
    assert!(sent.starts_with("Summarise it.\nMaterial 1: an artifact of type text/plain.") && sent.contains(&text));
    let [made, _] = outcome.artifacts.as_slice() else { panic!("a text and its SBOM") };
    assert_eq!(made.made_from, [ArtifactId(uuid::Uuid::from_u128(7))]);
    assert_eq!(made.metadata["materials"][0]["sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_repair_hands_on_the_earlier_answer_and_what_the_gate_found() {
    let (fake, lab) = codegen_that_writes("mended").await;
    let evidence =
        json!({ "schema": "s", "reason": { "message": "line 7 is not covered" }, "subject": { "tree": "t" } });
    let bytes = evidence.to_string().into_bytes();
    let s3 = FakeProvider::start(vec![Reply::ok(&evidence).body(bytes.clone(), 1)]).await;
    let stored = |id: u128| ArtifactRef {
        id: ArtifactId(uuid::Uuid::from_u128(id)),
        uri: format!("s3://bucket/tenants/local/{id}"),
        hash: shared::domain::digest::hex(&sha2::Sha256::digest(&bytes)),
        size_bytes: bytes.len() as u64,
        media_type: "application/json".to_owned(),
    };
    let task = RepairTask {
        round: 2,
        max_attempts: 3,
        gate: "unit".to_owned(),
        code: "gate_failed".to_owned(),
        message: "90 % of {{gate}} are covered".to_owned(),
        evidence: Some(stored(8)),
        previous: vec![stored(7)],
    };
    let step = ClaimedStep {
        repair: Some(task),
        ..step(json!({ "prompt": "Write a test.", "name": "a.ts", "kind": "codegen" }))
    };
    let outcome = lab.codegen.handle_with_models(&step, &storage(&s3).for_step(&step), &lab.ledger.calls()).await;
    assert!(matches!(outcome.verdict, Verdict::Succeeded(_)), "{outcome:?}");
    let sent = fake.requests()[0].body["input"][0]["content"].as_str().unwrap().to_owned();
    assert!(
        sent.starts_with("Write a test.\nAn earlier answer failed the gate unit: 90 % of {{gate}} are covered\n"),
        "{sent}"
    );
    let (earlier, found) = sent.split_once("Material 2: what the gate found.").expect("both materials");
    assert!(earlier.contains("Material 1: your earlier answer.") && earlier.contains("\"tree\""));
    assert!(found.contains("line 7 is not covered") && !found.contains("\"tree\""), "only what says what is wrong");
    let [made, _] = outcome.artifacts.as_slice() else { panic!("a text and its SBOM") };
    assert_eq!(made.made_from.len(), 2, "the lineage has both");
    assert_eq!(made.metadata["repair"], json!({ "round": 2, "gate": "unit", "code": "gate_failed" }));
    assert!(made.metadata["prompt_templates"].to_string().contains("\"repair\""));
}

#[tokio::test]
async fn an_artifact_that_is_no_text_or_too_large_is_refused_before_any_request() {
    for (bytes, size_bytes, reason) in
        [(&b"\xff\xfe"[..], 2, "is not UTF-8 text"), (b"x", MAX_MATERIAL_BYTES + 1, "may have at most 524288 bytes")]
    {
        let (fake, lab) = codegen_that_writes("x").await;
        let outcome = handle_artifact(&lab, bytes, size_bytes).await;
        let Verdict::Failed { error, retryable: false, .. } = outcome.verdict else { panic!("a failure") };
        assert!(error.message.contains(reason), "{}", error.message);
        assert_eq!((error.code.as_str(), fake.calls()), ("invalid_inputs", 0));
    }
}
