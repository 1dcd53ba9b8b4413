//! Several files and patches of a model, from its answer over `workspace:write` to a gate, and back as a repair.

use std::fs;

use nofx_gates::{Limits, unpack};
use nofx_tests::models::Model;
use nofx_tests::{Deliver, Script, plans};
use serde_json::{Value, json};
use shared::domain::{ArtifactRef, Outcome, RunId};
use shared::flow::seal_runs::{Sealer, seal_runs};
use shared::storage::ArtifactMeta;
use shared::worker::Handler;

use crate::gates::Stack;
use crate::proofs::{Keys, STRICT, assert_holds, keyring, options, proof};

const BASE: &str = "export {};\n";

fn set(files: &[(&str, &str)], deleted: &[&str]) -> String {
    let files: Vec<_> = files.iter().map(|(path, content)| json!({ "path": path, "content": content })).collect();
    json!({ "files": files, "deleted": deleted }).to_string()
}

/// The deployed functions with this model. The gate passes what is repaired.
fn script(stack: &Stack, model: &Model) -> Script {
    let (model, others) = (model.clone(), stack.script.clone());
    let (passes, bundle) = (stack.folder.path().join("passes"), stack.folder.path().join("bundle"));
    Script::new(move |step, store| {
        let (model, others, passes, bundle) = (model.clone(), others.clone(), passes.clone(), bundle.clone());
        async move {
            if step.tool != "codegen" {
                return others.handle(&step, &store).await;
            }
            if step.repair.is_some() {
                fs::copy(passes, bundle).expect("the runner's next answer");
            }
            model.codegen.handle(&step, &store).await
        }
    })
}

/// What every plan starts with, and a write of what the model made.
fn steps(output: &str, write: Value) -> Value {
    let mut inputs = json!({ "workspace": "${{ steps.base.outputs.workspace }}", "from": "${{ steps.generate.outputs.artifact_id }}" });
    inputs.as_object_mut().expect("an object").extend(write.as_object().expect("an object").clone());
    let files = json!({ "nofx.toml": STRICT, "src/a.ts": BASE, "old.ts": BASE });
    json!([
        plans::step("base", "workspace:write", json!({ "files": files })),
        plans::step("generate", "codegen", json!({ "prompt": "Write it.", "output": output })),
        plans::step("write", "workspace:write", inputs),
    ])
}

/// The steps of a run by name, with their outputs and errors.
async fn found(stack: &Stack, run: RunId) -> Value {
    let sql = "select jsonb_object_agg(name, jsonb_build_object('outputs', outputs, 'error', error)) from nofx.step where run_id = $1";
    stack.lab.admin.query_one(sql, &[&run.0]).await.expect("steps").get(0)
}

async fn submit(stack: &Stack, model: &Model, steps: Value) -> (RunId, Value) {
    let run = stack.lab.submit(&json!({ "goal": "g", "steps": steps })).await;
    stack.lab.settle(&script(stack, model), Deliver::Once).await;
    (run, found(stack, run).await)
}

async fn artifacts(stack: &Stack, run: RunId, step: &str) -> Vec<Value> {
    let sql = "select to_jsonb(a) from nofx.artifact a join nofx.step s on s.id = a.step_id
                where a.run_id = $1 and s.name = $2 order by a.id";
    stack.lab.admin.query(sql, &[&run.0, &step]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn parents(stack: &Stack, of: &Value) -> Vec<Value> {
    let sql = "select to_jsonb(parent_id) from nofx.artifact_edge where child_id = $1::text::uuid order by parent_id";
    let rows = stack.lab.admin.query(sql, &[&of.as_str().expect("an id")]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn bytes(stack: &Stack, artifact: &Value) -> Vec<u8> {
    let artifact = ArtifactRef {
        id: artifact["id"].as_str().expect("an id").parse().expect("an id"),
        uri: artifact["uri"].as_str().expect("a URI").to_owned(),
        hash: artifact["hash"].as_str().expect("a hash").to_owned(),
        size_bytes: artifact["size_bytes"].as_u64().expect("a size"),
        media_type: String::new(),
    };
    stack.lab.ctx.storage.get(&artifact, 64 << 20).await.expect("its bytes")
}

/// The files of the workspace that `write` made last.
async fn written(stack: &Stack, run: RunId) -> tempfile::TempDir {
    let made = artifacts(stack, run, "write").await;
    let folder = tempfile::tempdir().expect("a folder");
    let archive = bytes(stack, made.last().expect("a workspace")).await;
    unpack(&archive, folder.path(), Limits::default(), &|| Ok(())).expect("a workspace");
    folder
}

#[tokio::test]
async fn files_of_a_model_are_written_judged_repaired_and_proved() {
    let (mut stack, keys) = (Stack::new().await, Keys::new());
    let key = keys.use_in(&mut stack.lab, "seals.pem");
    stack.answer(0, "fine\n");
    fs::copy(stack.folder.path().join("bundle"), stack.folder.path().join("passes")).unwrap();
    stack.answer(1, "error: a.ts exports nothing\n");
    let mended = [("src/a.ts", "export const a = 1;\n"), ("src/new/b.ts", "export const b = 2;\n")];
    let model = Model::answering([set(&[("src/a.ts", "")], &[]), set(&mended, &["old.ts"])]).await;
    let mut steps = steps("files", json!({}));
    steps[1]["repair"] = json!({ "gate": "gate", "max_attempts": 2 });
    let inputs =
        json!({ "workspace": "${{ steps.write.outputs.workspace }}", "base": "${{ steps.write.outputs.base }}" });
    steps.as_array_mut().unwrap().push(plans::step("gate", "gate:check", inputs));
    let (run, steps) = submit(&stack, &model, steps).await;
    assert_eq!(stack.lab.run_status(run).await, "succeeded", "{steps:#}");

    let folder = written(&stack, run).await;
    let text = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    assert_eq!((text("src/a.ts"), text("src/new/b.ts")), (mended[0].1.to_owned(), mended[1].1.to_owned()));
    assert!(!folder.path().join("old.ts").exists());
    let generated = &steps["generate"]["outputs"];
    assert_eq!(
        (&generated["files"], &generated["files_count"]),
        (&json!(["src/a.ts", "src/new/b.ts", "old.ts"]), &json!(3))
    );
    let write = &steps["write"]["outputs"];
    assert_eq!(write["changed"], json!(["old.ts", "src/a.ts", "src/new/b.ts"]));

    // The second request has the earlier answer and what the gate found, and no bill of materials.
    let asked = model.asked();
    assert!(
        asked.len() == 2
            && asked[1].contains("your earlier answer")
            && asked[1].contains(r#"{"files":[{"path":"src/a.ts","content":""}]"#)
    );
    assert!(asked[1].contains("what the gate found") && !asked[1].contains("CycloneDX"), "{}", asked[1]);

    // The lineage goes from the set to the workspace, and to the bill of materials.
    let [.., set, sbom] = artifacts(&stack, run, "generate").await.try_into().map(|all: [Value; 4]| all).unwrap();
    assert_eq!((&set["id"], &sbom["type"]), (&generated["artifact_id"], &json!("sbom")));
    assert!(parents(&stack, &write["workspace"]).await.contains(&set["id"]));
    assert_eq!(parents(&stack, &sbom["id"]).await, [set["id"].clone()]);
    let document: Value = serde_json::from_slice(&bytes(&stack, &sbom).await).unwrap();
    assert_eq!(document["metadata"]["component"]["hashes"][0]["content"], set["hash"]);
    stack.lab.assert_invariants().await;

    // The proof covers all of it.
    assert_eq!(seal_runs(&stack.lab.ctx, &Sealer::new(&stack.lab.ctx)).await.unwrap(), 1);
    let proof = proof(&stack.lab, run).await;
    assert_holds(&nofx::commands::verify_proof::check(&proof, &options(keyring(&[&key], Some(&stack.key)))));
    let content: Value = serde_json::from_slice::<Value>(&proof).unwrap()["content"].take();
    let included = content["documents"].as_array().unwrap().iter().find(|document| document["artifact"] == sbom["id"]);
    assert!(included.unwrap()["text"].as_str().unwrap().contains("CycloneDX"));
}

#[tokio::test]
async fn a_patch_of_a_model_is_applied_before_the_plans_own_files_and_deletions() {
    let stack = Stack::new().await;
    let patch = "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1 +1 @@\n-export {};\n+export const a = 1;\n--- /dev/null\n+++ b/note.md\n@@ -0,0 +1 @@\n+x\n";
    let model = Model::answering([json!({ "patch": patch }).to_string()]).await;
    let write = json!({ "files": { "pinned.ts": BASE, "note.md": "of the plan\n" }, "delete": ["old.ts"] });
    let (run, steps) = submit(&stack, &model, steps("patch", write)).await;
    assert_eq!(stack.lab.run_status(run).await, "succeeded", "{steps:#}");
    assert_eq!(steps["generate"]["outputs"]["files"], json!(["src/a.ts", "note.md"]));
    let folder = written(&stack, run).await;
    let text = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    assert_eq!((text("src/a.ts").as_str(), text("note.md").as_str()), ("export const a = 1;\n", "of the plan\n"));
    assert!(folder.path().join("pinned.ts").exists() && !folder.path().join("old.ts").exists());
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn what_does_not_fit_the_workspace_is_refused_by_file_and_hunk() {
    let stack = Stack::new().await;
    let patch = |from: &str| format!("--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1 +1 @@\n-{from}\n+canary\n");
    for (output, answer, expected) in [
        (
            "patch",
            json!({ "patch": patch("canary") }).to_string(),
            vec!["line 1: src/a.ts: hunk at line 3: line 1 of the file is not what the patch expects"],
        ),
        (
            "patch",
            json!({ "patch": patch("export {};").replace("src/a.ts", "src/none.ts") }).to_string(),
            vec!["line 1: src/none.ts does not exist; make the patch from this workspace"],
        ),
        (
            "files",
            set(&[("src", "canary"), ("old.ts/x", "canary")], &["missing.ts"]),
            vec![
                "deleted[0]: missing.ts does not exist, so it cannot be deleted; check its name",
                "files[0]: src is a folder; delete it in a step before, or name a file in it",
                "files[1]: old.ts/x goes through old.ts, which is a file",
            ],
        ),
        (
            "files",
            set(&[("b.ts", "canary")], &["src"]),
            vec!["deleted[0]: src is a folder, and only files can be deleted"],
        ),
        (
            "files",
            set(&[("SRC/a.ts", "canary")], &[]),
            vec!["src/a.ts and SRC have names that differ only in case, or in how letters are composed"],
        ),
        (
            "patch",
            json!({ "patch": "--- /dev/null\n+++ b/OLD.ts\n@@ -0,0 +1 @@\n+canary\n" }).to_string(),
            vec!["old.ts and OLD.ts have names that differ only in case"],
        ),
    ] {
        let model = Model::answering([answer]).await;
        let (run, steps) = submit(&stack, &model, steps(output, json!({}))).await;
        assert_eq!(stack.lab.run_status(run).await, "failed");
        let error = &steps["write"]["error"];
        assert_eq!(error["code"], "changes_refused", "{error:#}");
        let problems = error["details"]["problems"].as_array().unwrap();
        for (found, expected) in problems.iter().zip(&expected) {
            assert!(found.as_str().unwrap().starts_with(expected), "{found}");
        }
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        assert!(!error.to_string().contains("canary"), "the error repeats the answer: {error}");
        assert!(artifacts(&stack, run, "write").await.is_empty());
    }
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn what_does_not_fit_the_workspace_is_repaired_if_the_step_repairs() {
    let stack = Stack::new().await;
    stack.answer(0, "fine\n");
    fs::copy(stack.folder.path().join("bundle"), stack.folder.path().join("passes")).unwrap();
    let patch = |from: &str| {
        let patch = format!("--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1 +1 @@\n-{from}\n+export const a = 1;\n");
        json!({ "patch": patch }).to_string()
    };
    let model = Model::answering([patch("import x;"), patch("export {};")]).await;
    let mut steps = steps("patch", json!({}));
    steps[1]["repair"] = json!({ "gate": "gate", "max_attempts": 2 });
    let inputs =
        json!({ "workspace": "${{ steps.write.outputs.workspace }}", "base": "${{ steps.write.outputs.base }}" });
    steps.as_array_mut().unwrap().push(plans::step("gate", "gate:check", inputs));
    let (run, steps) = submit(&stack, &model, steps).await;
    assert_eq!(stack.lab.run_status(run).await, "succeeded", "{steps:#}");
    let asked = model.asked();
    let why = "An earlier answer failed the gate write: What inputs.from says does not fit the workspace. line 1: src/a.ts: hunk at line 3";
    assert!(asked.len() == 2 && asked[1].contains(why) && asked[1].contains("-import x;"), "{asked:?}");
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn only_a_set_or_a_patch_can_be_taken() {
    let stack = Stack::new().await;
    for (media_type, text, expected) in [
        ("text/markdown; charset=utf-8", "# A", "inputs.from: has the type text/markdown, and must be a set of files"),
        ("application/json", "[]", "inputs.from: is no set of files (line 1, column"),
        (
            "application/json",
            r#"{"files":[{"path":"../x","content":""}]}"#,
            "inputs.from: files[0].path: the path \"../x\" leaves the workspace",
        ),
        ("text/x-diff; charset=utf-8", "canary", "inputs.from: line 1: it is no unified diff"),
    ] {
        let others = stack.script.clone();
        let script = Script::new(move |step, store| {
            let others = others.clone();
            async move {
                if step.tool != "codegen" {
                    return others.handle(&step, &store).await;
                }
                let describe = ArtifactMeta { kind: "text", media_type, ..ArtifactMeta::default() };
                let artifact = store.put("x", describe, text.as_bytes().to_vec()).await.expect("stored");
                let outputs = json!({ "artifact_id": artifact.id }).as_object().expect("an object").clone();
                Outcome { artifacts: vec![artifact], ..Outcome::succeeded(outputs) }
            }
        });
        let run = stack.lab.submit(&json!({ "goal": "g", "steps": steps("files", json!({})) })).await;
        stack.lab.settle(&script, Deliver::Once).await;
        let error = found(&stack, run).await["write"]["error"].clone();
        assert_eq!(error["code"], "invalid_inputs");
        assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
    }
}
