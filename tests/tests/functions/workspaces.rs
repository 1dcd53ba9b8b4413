//! `workspace:write` and `workspace:git` with a real worker: workspaces flow from step to step by reference.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ::workspace::{Git, Workspaces};
use nofx_gates::snapshot::Snapshot;
use nofx_gates::{Limits, archive, unpack};
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::domain::{ArtifactId, Outcome, RunId};
use shared::storage::{ArtifactMeta, StepStore};
use shared::worker::{ClaimedStep, Handler};
use uuid::Uuid;

use crate::gateway::{Gateway, Shape};

/// Behaves like the deployed functions: `workspace:*` is the real one. A gate says what it would judge. `codegen` stores the
/// text of its prompt.
fn script(work: &Path) -> Script {
    let search_path = std::env::var("PATH").expect("a PATH");
    let workspaces = Workspaces::new(work.to_path_buf(), search_path.clone()).with_git(Git::of_files(search_path));
    let workspaces = Arc::new(workspaces);
    Script::overriding(move |step, store| {
        let workspaces = Arc::clone(&workspaces);
        async move {
            match step.tool.as_str() {
                "codegen" => Some(generate(&step, &store).await),
                tool if tool.starts_with("workspace:") => Some(workspaces.handle(&step, &store).await),
                tool if tool.starts_with("gate:") => {
                    let judged = step.workspace.expect("a workspace");
                    let base = judged.base.map(|base| base.id);
                    Some(succeeded(json!({ "archive": judged.archive.id, "hash": judged.archive.hash, "base": base })))
                }
                _ => None,
            }
        }
    })
}

async fn generate(step: &ClaimedStep, store: &StepStore) -> Outcome {
    let media_type = if step.inputs["markdown"] == true { "text/markdown; charset=utf-8" } else { "text/plain" };
    let describe = ArtifactMeta { kind: "code", media_type, ..ArtifactMeta::default() };
    let text = step.inputs["prompt"].as_str().expect("a prompt").to_owned();
    let artifact = store.put("code", describe, text.into_bytes()).await.expect("it is stored");
    let outputs = succeeded(json!({ "artifact_id": artifact.id }));
    Outcome { artifacts: vec![artifact], ..outputs }
}

/// A test's stack, and the folder in which its workspaces are made.
struct Stack {
    lab: Lab,
    work: tempfile::TempDir,
}

impl Stack {
    async fn new() -> Self {
        Self { lab: Lab::with_bucket().await, work: tempfile::tempdir().expect("a folder") }
    }

    /// Runs these steps one after the other. Returns the run and its steps by name.
    async fn run(&self, steps: Value) -> (RunId, Value) {
        let run = self.lab.submit(&json!({ "goal": "g", "steps": steps })).await;
        self.lab.settle(&script(self.work.path()), Deliver::Once).await;
        (run, self.steps(run).await)
    }

    /// The steps of a run by name, with their outputs and their errors' codes.
    async fn steps(&self, run: RunId) -> Value {
        let sql = "select jsonb_object_agg(name, jsonb_build_object('outputs', outputs, 'error', error ->> 'code'))
                     from nofx.step where run_id = $1";
        self.lab.admin.query_one(sql, &[&run.0]).await.expect("steps").get(0)
    }

    /// Runs one `workspace:write` that must fail. Returns its code and message.
    async fn refusal(&self, inputs: Value) -> (String, String) {
        let step = plans::step("write", "workspace:write", inputs);
        let plan = json!({ "goal": "g", "steps": [step] });
        let run = self.lab.submit(&plan).await;
        self.lab.settle(&script(self.work.path()), Deliver::Once).await;
        let sql = "select error ->> 'code', error ->> 'message' from nofx.step where run_id = $1 and status = 'failed'";
        let row = self.lab.admin.query_one(sql, &[&run.0]).await.expect("a failed step");
        (row.get(0), row.get(1))
    }

    async fn artifact(&self, id: &Value) -> Value {
        let sql = "select to_jsonb(a) from nofx.artifact a where id = $1::text::uuid";
        self.lab.admin.query_one(sql, &[&id.as_str().expect("an id")]).await.expect("an artifact").get(0)
    }

    /// The files of a stored workspace.
    async fn files(&self, id: &Value) -> tempfile::TempDir {
        let bytes = self.bytes(id).await;
        let folder = tempfile::tempdir().expect("a folder");
        unpack(&bytes, folder.path(), Limits::default(), &|| Ok(())).expect("a workspace");
        folder
    }

    async fn bytes(&self, id: &Value) -> Vec<u8> {
        let row = self.artifact(id).await;
        let artifact = shared::domain::ArtifactRef {
            id: row["id"].as_str().expect("an id").parse::<ArtifactId>().expect("an id"),
            uri: row["uri"].as_str().expect("a URI").to_owned(),
            hash: row["hash"].as_str().expect("a hash").to_owned(),
            size_bytes: row["size_bytes"].as_u64().expect("a size"),
            media_type: String::new(),
        };
        self.lab.ctx.storage.get(&artifact, 64 << 20).await.expect("its bytes")
    }
}

#[tokio::test]
async fn a_workspace_flows_from_codegen_to_a_gate_and_lineage_shows_it() {
    let stack = Stack::new().await;
    let patch = "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1 +1 @@\n-export {};\n+export const a = 1;\n";
    let (run, steps) = stack
        .run(json!([
            plans::step("first", "workspace:write", json!({"files": {"src/a.ts": "export {};\n", "old": "x"}})),
            plans::step("gen", "codegen", json!({"prompt": "export const b = 2;\n"})),
            plans::step("fix", "codegen", json!({"prompt": patch})),
            plans::step(
                "second",
                "workspace:write",
                json!({
                    "workspace": "${{ steps.first.outputs.workspace }}",
                    "patch": {"artifact": "${{ steps.fix.outputs.artifact_id }}"},
                    "files": [
                        {"path": "src/b.ts", "artifact": "${{ steps.gen.outputs.artifact_id }}"},
                        {"path": "run.sh", "base64": "IyEK", "executable": true},
                    ],
                    "delete": ["old"],
                })
            ),
            plans::step(
                "lint",
                "gate:lint",
                json!({
                    "workspace": "${{ steps.second.outputs.workspace }}", "base": "${{ steps.second.outputs.base }}",
                })
            ),
        ]))
        .await;
    assert_eq!(stack.lab.run_status(run).await, "succeeded", "{steps:#}");
    let (first, second) = (&steps["first"]["outputs"], &steps["second"]["outputs"]);
    assert_eq!(
        (&second["base"], &second["files"], &second["changed_count"]),
        (&first["workspace"], &json!(3), &json!(4))
    );
    assert_eq!(second["changed"], json!(["old", "run.sh", "src/a.ts", "src/b.ts"]));
    assert_eq!(first.get("base"), None);

    let judged = &steps["lint"]["outputs"];
    assert_eq!((&judged["archive"], &judged["base"]), (&second["workspace"], &first["workspace"]));

    let files = stack.files(&second["workspace"]).await;
    assert_eq!(fs::read_to_string(files.path().join("src/a.ts")).unwrap(), "export const a = 1;\n");
    let digest = Snapshot::take(files.path()).unwrap().digest();
    assert_eq!(second["tree"], json!(digest));
    let row = stack.artifact(&second["workspace"]).await;
    assert_eq!((&row["type"], &row["media_type"]), (&json!("workspace"), &json!("application/gzip")));
    assert_eq!((&row["metadata"]["tree"], &row["metadata"]["base"]), (&second["tree"], &first["workspace"]));
    assert_eq!((&row["hash"], &row["size_bytes"]), (&second["sha256"], &second["size_bytes"]));

    let lineage = Gateway::api(&stack.lab, Shape::Http).get(&format!("/runs/{run}/lineage")).await.body;
    let edges = lineage["edges"].as_array().unwrap();
    let made_from: Vec<&Value> =
        edges.iter().filter(|edge| edge["to"] == second["workspace"]).map(|edge| &edge["from"]).collect();
    for source in
        [&first["workspace"], &steps["gen"]["outputs"]["artifact_id"], &steps["fix"]["outputs"]["artifact_id"]]
    {
        assert!(made_from.contains(&source), "{lineage:#}");
    }
    assert_eq!(made_from.len(), 3);
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn the_same_tree_made_in_two_ways_has_the_same_digest_and_bytes() {
    let stack = Stack::new().await;
    let write = |name: &str, inputs: Value| plans::step(name, "workspace:write", inputs);
    let patch = "diff --git a/x b/src/b\nsimilarity index 100%\nrename from x\nrename to src/b\n";
    let (_, steps) = stack
        .run(json!([
            write("one", json!({"files": {"src/b": "2\n", "a": {"content": "1\n", "executable": true}}})),
            write("start", json!({"files": {"x": "2\n", "junk/y": "", "a": "0\n"}})),
            write(
                "other",
                json!({
                    "workspace": "${{ steps.start.outputs.workspace }}",
                    "patch": patch,
                    "files": [{"path": "./a", "base64": "MQo=", "executable": true}],
                    "delete": ["junk/"],
                })
            ),
            write("same", json!({"workspace": "${{ steps.other.outputs.workspace }}", "files": {"src/b": "2\n"}})),
        ]))
        .await;
    let [one, other, same] = ["one", "other", "same"].map(|name| &steps[name]["outputs"]);
    assert!(one["tree"] == other["tree"] && other["tree"] == same["tree"], "{steps:#}");
    let bytes = stack.bytes(&one["workspace"]).await;
    assert!(bytes == stack.bytes(&other["workspace"]).await && one["sha256"] == same["sha256"]);
    assert_eq!((&same["changed"], &same["changed_count"]), (&json!([]), &json!(0)));
    // What `nofx run` packs from a directory with these files.
    let folder = stack.files(&one["workspace"]).await;
    fs::create_dir(folder.path().join(".git")).unwrap();
    assert!(nofx::client::workspace::pack(folder.path(), None).unwrap() == bytes);
    let snapshot = Snapshot::take(folder.path()).unwrap();
    assert!(archive::pack(&archive::sources(&snapshot), Limits::default()).unwrap() == bytes);
}

#[tokio::test]
async fn inputs_that_do_not_fit_are_refused_with_their_places() {
    let stack = Stack::new().await;
    let unknown = Uuid::new_v4();
    for (inputs, code, expected) in [
        (json!({}), "invalid_inputs", "inputs: asks for no change"),
        (json!({"file": {}}), "invalid_inputs", "inputs.file: is not a known field"),
        (json!({"files": {"../x": "x"}}), "invalid_inputs", "leaves the workspace"),
        (json!({"files": {"/etc/x": "x"}}), "invalid_inputs", "leaves the workspace"),
        (json!({"files": {".git/hooks/x": "x"}}), "invalid_inputs", "is in .git"),
        (json!({"files": {".GIT/config": "x"}}), "invalid_inputs", "which is .git on some"),
        (json!({"files": {"a/node_modules/x": "x"}}), "invalid_inputs", "is in node_modules"),
        (json!({"files": {"a\nb": "x"}}), "invalid_inputs", "control character"),
        (json!({"files": {"a\u{202e}b": "x"}}), "invalid_inputs", "cannot be shown"),
        (json!({"files": {"a\\b": "x"}}), "invalid_inputs", "leaves the workspace"),
        (json!({"files": {"": "x"}}), "invalid_inputs", "names no file"),
        (json!({"files": {"x".repeat(256): "x"}}), "invalid_inputs", "256 bytes"),
        (json!({"files": {"d/".repeat(65): "x"}}), "invalid_inputs", "65 levels"),
        (json!({"files": {"a": "x", "A": "y"}}), "invalid_inputs", "differ only in case"),
        (
            json!({"files": {"a": "x", "a/b": "y"}}),
            "invalid_inputs",
            "inputs.files.a/b: a/b goes through a, which is a file",
        ),
        (json!({"files": {"a": {}}}), "invalid_inputs", "exactly one of content, base64 and artifact"),
        (json!({"files": {"a": {"content": "x", "base64": ""}}}), "invalid_inputs", "exactly one of"),
        (json!({"files": {"a": {"base64": "x"}}}), "invalid_inputs", "inputs.files.a.base64: must be bytes"),
        (json!({"files": {"a": 1}}), "invalid_inputs", "inputs.files.a: must be an object"),
        (json!({"files": "a"}), "invalid_inputs", "inputs.files: must be a list"),
        (json!({"files": {"a.ts": "```ts\nx\n```\n"}}), "invalid_inputs", "starts with a Markdown fence"),
        (json!({"files": {"a": {"artifact": "main"}}}), "invalid_inputs", "inputs.files.a.artifact: must be the id"),
        (
            json!({"files": [{"path": "a", "artifact": unknown}]}),
            "invalid_inputs",
            "inputs.files[0].artifact: no artifact has the id",
        ),
        (json!({"patch": {"artifact": unknown}}), "invalid_inputs", "inputs.patch.artifact: no artifact"),
        (json!({"workspace": unknown, "delete": ["a"]}), "no_workspace", "inputs.workspace: no artifact has the id"),
        (json!({"workspace": "main", "delete": ["a"]}), "invalid_inputs", "inputs.workspace: must be the id"),
        (
            json!({"workspace": [1], "delete": ["a"]}),
            "invalid_inputs",
            "inputs.workspace: must be the id of an archive",
        ),
        (json!({"delete": ["a"]}), "invalid_inputs", "inputs.delete[0]: a does not exist"),
        (json!({"delete": ["../a"]}), "invalid_inputs", "inputs.delete[0]: the path"),
        (json!({"patch": "```diff\n--- a/a\n```\n"}), "invalid_inputs", "inputs.patch: starts with a Markdown fence"),
        (json!({"patch": "Sure!\n--- a/a\n"}), "invalid_inputs", "inputs.patch: line 1: \"Sure!\""),
        (
            json!({"patch": "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-x\n+y\n"}),
            "invalid_inputs",
            "inputs.patch: line 1: a does not exist",
        ),
        (
            json!({"patch": "--- /dev/null\n+++ b/../../x\n@@ -0,0 +1 @@\n+y\n"}),
            "invalid_inputs",
            "leaves the workspace",
        ),
        (json!({"patch": "diff --git a/l b/l\nnew file mode 120000\n"}), "invalid_inputs", "changes a link"),
        (json!({"patch": 1}), "invalid_inputs", "inputs.patch: must be a unified diff"),
    ] {
        let (found, message) = stack.refusal(inputs.clone()).await;
        assert!(found == code && message.contains(expected), "{inputs}: {found}: {message}");
    }
    // Nothing is left on the disk.
    let left: Vec<_> = fs::read_dir(stack.work.path().join("attempts")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn markdown_is_unpacked_only_where_the_artifact_says_so() {
    let stack = Stack::new().await;
    let text = "Here:\n```ts\nexport {};\n```\n";
    let (_, steps) = stack
        .run(json!([
            plans::step("gen", "codegen", json!({"prompt": text, "markdown": true})),
            plans::step(
                "write",
                "workspace:write",
                json!({"files": {
                    "a.ts": {"artifact": "${{ steps.gen.outputs.artifact_id }}"},
                    "a.md": {"artifact": "${{ steps.gen.outputs.artifact_id }}"},
                }})
            ),
        ]))
        .await;
    let files = stack.files(&steps["write"]["outputs"]["workspace"]).await;
    assert_eq!(fs::read_to_string(files.path().join("a.ts")).unwrap(), "export {};\n");
    assert_eq!(fs::read_to_string(files.path().join("a.md")).unwrap(), text);
    let (_, steps) = stack
        .run(json!([
            plans::step("gen", "codegen", json!({"prompt": "```\na\n```\n```\nb\n```\n", "markdown": true})),
            plans::step(
                "write",
                "workspace:write",
                json!({"files": {
                    "a.ts": {"artifact": "${{ steps.gen.outputs.artifact_id }}"},
                }})
            ),
        ]))
        .await;
    assert_eq!(steps["write"]["error"], "invalid_inputs");
}

#[tokio::test]
async fn a_gate_takes_a_base_beside_the_plans_workspace() {
    let stack = Stack::new().await;
    let (_, made) = stack
        .run(json!([
            plans::step("one", "workspace:write", json!({"files": {"a": "1"}})),
            plans::step("two", "workspace:write", json!({"files": {"a": "2"}})),
        ]))
        .await;
    let [one, two] = ["one", "two"].map(|name| made[name]["outputs"]["workspace"].clone());
    let judged = async |workspace: Value, inputs: Value| {
        let steps = json!([plans::step("lint", "gate:lint", inputs)]);
        let mut plan = json!({ "goal": "g", "steps": steps });
        if !workspace.is_null() {
            plan["workspace"] = workspace;
        }
        let run = stack.lab.submit(&plan).await;
        stack.lab.settle(&script(stack.work.path()), Deliver::Once).await;
        let step = stack.steps(run).await["lint"].take();
        (step["outputs"]["archive"].clone(), step["outputs"]["base"].clone(), step["error"].clone())
    };
    let null = Value::Null;
    let of = |archive: &Value, base: &Value| (archive.clone(), base.clone(), Value::Null);
    assert_eq!(judged(json!({"archive": one}), json!({})).await, of(&one, &null));
    assert_eq!(judged(json!({"archive": one}), json!({"base": two})).await, of(&one, &two));
    assert_eq!(judged(json!({"archive": one, "base": one}), json!({"base": two})).await, of(&one, &two));
    assert_eq!(judged(json!({"archive": one, "base": one}), json!({"workspace": two})).await, of(&two, &null));
    assert_eq!(
        judged(json!({"archive": one}), json!({"workspace": {"archive": two, "base": one}})).await,
        of(&two, &one)
    );
    let failed = judged(null.clone(), json!({"base": two})).await;
    assert_eq!(failed.2, "no_workspace");
    assert_eq!(judged(json!({"archive": one}), json!({"base": "main"})).await.2, "invalid_inputs");
    assert_eq!(judged(json!({"archive": one}), json!({"base": Uuid::new_v4()})).await.2, "no_workspace");
}

#[tokio::test]
async fn plan_check_accepts_references_as_workspace_and_base() {
    let stack = Stack::new().await;
    let api = Gateway::api(&stack.lab, Shape::Http);
    let plan = |reference: &str| {
        json!({"plan": {"goal": "g", "steps": [
            plans::step("w", "workspace:write", json!({"files": {"a": "1"}})),
            plans::step("lint", "gate:lint", json!({"workspace": reference, "base": "${{ steps.w.outputs.base }}"})),
        ]}})
    };
    assert_eq!(api.post("/plans/check", &plan("${{ steps.w.outputs.workspace }}")).await.status, 200);
    let wrong = api.post("/plans/check", &plan("${{ steps.x.outputs.workspace }}")).await;
    let problem = wrong.body["errors"][0].to_string();
    assert!(
        wrong.status == 400 && problem.contains("plan.steps[1].inputs") && problem.contains("\\\"x\\\""),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn a_commit_of_an_allowed_repository_flows_to_a_gate() {
    let stack = Stack::new().await;
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
        let done = Command::new("git").args(settings).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    for content in ["1\n", "2\n"] {
        fs::write(folder.path().join("a"), content).unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "m"]);
    }
    let repository = format!("file://{}", folder.path().display());
    let (_, steps) = stack
        .run(json!([
            plans::step("get", "workspace:git", json!({"repository": repository, "ref": "main"})),
            plans::step(
                "lint",
                "gate:lint",
                json!({
                    "workspace": "${{ steps.get.outputs.workspace }}", "base": "${{ steps.get.outputs.base }}",
                })
            ),
        ]))
        .await;
    let got = &steps["get"]["outputs"];
    assert_eq!(
        (&got["commit"], &got["base_commit"]),
        (&json!(git(&["rev-parse", "HEAD"])), &json!(git(&["rev-parse", "HEAD^"])))
    );
    assert_eq!(
        (&got["tree"]["sha1"], &got["base_is"]),
        (&json!(git(&["rev-parse", "HEAD^{tree}"])), &json!("first_parent"))
    );
    assert_eq!(
        (&steps["lint"]["outputs"]["archive"], &steps["lint"]["outputs"]["base"]),
        (&got["workspace"], &got["base"])
    );
    stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn only_repositories_of_the_policy_are_fetched() {
    let stack = Stack::new().await;
    let search_path = std::env::var("PATH").unwrap();
    let workspaces = Arc::new(Workspaces::new(stack.work.path().to_path_buf(), search_path));
    let deployed = Script::new(move |step, store| {
        let workspaces = Arc::clone(&workspaces);
        async move { workspaces.handle(&step, &store).await }
    });
    // No server listens on port 1, so the attempt ends at once.
    let allowed = "https://127.0.0.1:1/acme";
    let body = json!({"document": {"gates": {"repositories": [allowed]}}});
    let api = Gateway::api(&stack.lab, Shape::Http);
    for (with_policy, url, code) in [
        (false, "https://127.0.0.1:1/acme/x", "repository_denied"),
        (true, "https://127.0.0.1:1/acme/x", "repository_unavailable"),
        (true, "https://127.0.0.1:1/acme-evil/x", "repository_denied"),
        (true, "https://127.0.0.1:1/acme/../x", "repository_denied"),
        (true, "https://user@127.0.0.1:1/acme/x", "repository_denied"),
        (true, "file:///work", "repository_denied"),
        (true, "ext::sh -c id", "repository_denied"),
        (true, "--upload-pack=id", "repository_denied"),
    ] {
        if with_policy {
            assert_eq!(api.send("PUT", "/policy", &[], Some(body.to_string())).await.status, 200);
        }
        let mut step = plans::step("get", "workspace:git", json!({"repository": url, "ref": "main"}));
        step["retry"] = json!({"max_attempts": 1});
        let run = stack.lab.submit(&json!({ "goal": "g", "steps": [step] })).await;
        stack.lab.settle(&deployed, Deliver::Once).await;
        assert_eq!(stack.steps(run).await["get"]["error"], code, "{url}");
    }
}
