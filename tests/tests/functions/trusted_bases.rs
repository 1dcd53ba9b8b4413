//! `trusted_base: "git"`: a base defines gates only if `workspace:git` fetched it from the default branch of a repository that
//! the policy names. The author of the plan may push branches, upload archives and name any artifact of the tenant.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nofx_gates::evidence::{BaseOrigin, Evidence};
use nofx_tests::{Deliver, Script, plans};
use serde_json::{Value, json};
use shared::db::step::artifact_origin;
use shared::domain::base_origin::Relation;
use shared::domain::{ArtifactId, ArtifactRef, Outcome, RunId, StepError, TenantId};
use shared::storage::ArtifactMeta;
use shared::worker::Handler;

use crate::gates::Stack;
use crate::gateway::{Gateway, Shape};
use crate::uploads::{announce, send};

const HOST: &str = "https://git.test";
const SITE: &str = "https://git.test/acme/site";
const STRICT: &str = "[gates.check]\ncommand = \"check --strict\"\n";
const LAX: &str = "[gates.check]\ncommand = \"check --lax\"\n";

/// A stack with a repository at [`SITE`]. Its branch `main` has a second commit, which demands `--strict`. `feature` starts
/// there, `old` starts at the first commit, and an agent has pushed `evil` with other checks.
struct Site {
    stack: Stack,
    repository: PathBuf,
}

impl Site {
    async fn new() -> Self {
        let stack = Box::pin(Stack::mirroring(HOST)).await;
        stack.answer(0, "");
        let site = Self { repository: stack.folder.path().join("acme/site"), stack };
        fs::create_dir_all(&site.repository).unwrap();
        site.git(&["init", "--quiet", "--initial-branch=main", "--template="]);
        site.git(&["config", "uploadpack.allowFilter", "true"]);
        site.commit("nofx.toml", LAX);
        site.git(&["branch", "old"]);
        site.commit("nofx.toml", STRICT);
        for (branch, start, path, content) in
            [("feature", "main", "a.txt", "a\n"), ("old", "old", "a.txt", "a\n"), ("evil", "main", "nofx.toml", LAX)]
        {
            site.git(&["checkout", "--quiet", "-B", branch, start]);
            site.commit(path, content);
        }
        site.git(&["checkout", "--quiet", "main"]);
        site.trust(json!({ "trusted_base": "git", "repositories": [SITE] })).await;
        site
    }

    fn git(&self, arguments: &[&str]) -> String {
        let settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.hooksPath=/dev/null"];
        let done = Command::new("git").args(settings).args(arguments).current_dir(&self.repository).output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, path: &str, content: &str) {
        fs::write(self.repository.join(path), content).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", path]);
    }

    async fn trust(&self, gates: Value) {
        let body = json!({ "document": { "gates": gates } }).to_string();
        let answer = Gateway::api(&self.stack.lab, Shape::Http).send("PUT", "/policy", &[], Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Runs these steps and the gate with these inputs.
    async fn judge(&self, steps: &[Value], gate: Value) -> RunId {
        let steps: Vec<Value> = steps.iter().cloned().chain([plans::step("gate", "gate:check", gate)]).collect();
        let run = self.stack.lab.submit(&json!({ "goal": "g", "steps": steps })).await;
        self.stack.settle().await;
        run
    }

    /// The evidence of a gate that must have passed.
    async fn passed(&self, run: RunId) -> Evidence {
        let step = self.stack.step(run).await;
        assert_eq!(step["status"], "succeeded", "{step:#}");
        self.stack.evidence(run).await.1
    }

    /// The reason why the base of a gate was refused.
    async fn refused(&self, run: RunId) -> String {
        let step = self.stack.step(run).await;
        assert_eq!(step["error"]["code"], "base_not_trusted", "{step:#}");
        step["error"]["message"].as_str().unwrap().to_owned()
    }

    /// The id of an output of a step of a run.
    async fn output(&self, run: RunId, step: &str, name: &str) -> Value {
        let sql = "select outputs -> $3 from nofx.step where run_id = $1 and name = $2";
        self.stack.lab.admin.query_one(sql, &[&run.0, &step, &name]).await.unwrap().get(0)
    }

    async fn artifact(&self, id: &Value) -> ArtifactRef {
        let sql = "select jsonb_build_object('id', id, 'uri', uri, 'hash', hash, 'size_bytes', size_bytes,
                                             'media_type', media_type) from nofx.artifact where id = $1::text::uuid";
        let row: Value = self.stack.lab.admin.query_one(sql, &[&id.as_str().unwrap()]).await.unwrap().get(0);
        serde_json::from_value(row).unwrap()
    }
}

/// A step `workspace:git`.
fn fetch(name: &str, reference: &str, base: Option<&str>) -> Value {
    plans::step(name, "workspace:git", json!({ "repository": SITE, "ref": reference, "base": base }))
}

/// A gate's inputs: outputs of steps.
fn of(workspace: &str, base: &str) -> Value {
    let output = |name: &str| format!("${{{{ steps.{} }}}}", name.replacen('.', ".outputs.", 1));
    json!({ "workspace": output(workspace), "base": output(base) })
}

#[tokio::test]
async fn a_base_of_the_default_branch_is_trusted_and_evidence_names_its_commit() {
    let site = Site::new().await;
    let main = site.git(&["rev-parse", "main"]);
    // A branch against the commit where it left.
    let run = site.judge(&[fetch("get", "feature", None)], of("get.workspace", "get.base")).await;
    let evidence = site.passed(run).await;
    let BaseOrigin { repository, commit, branch, tip, relation, run_id, step_id } = evidence.base.origin.unwrap();
    assert_eq!((repository.as_str(), &commit, branch.as_deref()), (SITE, &main, Some("main")));
    assert_eq!((tip.as_ref(), relation.as_deref()), (Some(&main), Some("tip")));
    assert_eq!(run_id, run.to_string());
    assert_eq!(step_id, site.stack.lab.step(run, "get").await.to_string());

    // What an agent writes on top of the branch, against its newest commit.
    let write = json!({ "workspace": "${{ steps.get.outputs.workspace }}", "files": { "b.txt": "b\n" } });
    let steps = [fetch("get", "main", None), plans::step("write", "workspace:write", write)];
    let run = site.judge(&steps, of("write.workspace", "get.workspace")).await;
    assert_eq!(site.passed(run).await.base.origin.unwrap().commit, main);
    let run = site.judge(&steps, of("write.workspace", "write.base")).await;
    site.passed(run).await;

    // The branch moves on: another file, the same checks.
    site.commit("later.txt", "x\n");
    let run = site.judge(&[fetch("get", "feature", None)], of("get.workspace", "get.base")).await;
    let origin = site.passed(run).await.base.origin.unwrap();
    assert_eq!((origin.commit, origin.relation.as_deref()), (main.clone(), Some("merge_base")));
    // A plan may write anything on top of the branch, also what `main` has already.
    let write = json!({ "workspace": "${{ steps.get.outputs.workspace }}", "files": { "b.txt": "b\n" } });
    let steps = [fetch("get", "feature", None), plans::step("write", "workspace:write", write)];
    let run = site.judge(&steps, of("write.workspace", "get.base")).await;
    assert!(site.refused(run).await.contains("counts only for the workspace that the same step fetched"));

    // A commit of the branch against its parent, as after a merge.
    let run = site.judge(&[fetch("get", "main", None)], of("get.workspace", "get.base")).await;
    let origin = site.passed(run).await.base.origin.unwrap();
    assert_eq!((origin.commit, origin.relation.as_deref()), (main, Some("parent")));
    site.stack.lab.assert_invariants().await;
}

#[tokio::test]
async fn a_base_that_the_plan_chooses_is_refused_with_what_to_do() {
    let site = Site::new().await;
    for (reference, base, why) in [
        // A branch with loosened checks, as the base.
        ("feature", Some("evil"), "is neither the newest commit of main nor where the change left main"),
        ("evil", Some("evil"), "run workspace:git without `base`"),
        // The first commit, before the checks were strict.
        ("feature", Some("main~"), "neither the newest commit of main"),
        // A branch that starts there.
        ("old", None, "its checks are other ones now, in nofx.toml; merge main into the change"),
    ] {
        let base = base.map(|base| site.git(&["rev-parse", base]));
        let run = site.judge(&[fetch("get", reference, base.as_deref())], of("get.workspace", "get.base")).await;
        let message = site.refused(run).await;
        assert!(message.contains(why), "{reference} {base:?}: {message}");
        assert_eq!(site.stack.evidence(run).await.1.base.origin.unwrap().repository, SITE);
    }
    // Another branch's newest commit, and the parent of a commit for another workspace than that commit's.
    let steps = [fetch("one", "evil", None), fetch("two", "main", None), fetch("three", "feature", None)];
    let run = site.judge(&steps, of("three.workspace", "one.workspace")).await;
    assert!(site.refused(run).await.contains("neither the newest commit of main"));
    let run = site.judge(&steps, of("three.workspace", "two.base")).await;
    assert!(site.refused(run).await.contains("counts only for the workspace that the same step fetched"));
    // What would pass with the base of the plan is judged by the base of the branch.
    let run = site.judge(&[fetch("get", "evil", None)], of("get.workspace", "get.base")).await;
    assert_eq!(site.stack.step(run).await["status"], "blocked", "a person decides about loosened checks");
}

#[tokio::test]
async fn only_a_repository_that_the_policy_names_vouches_for_its_branch() {
    let site = Site::new().await;
    let judge = async || site.judge(&[fetch("get", "feature", None)], of("get.workspace", "get.base")).await;
    let round_trips = || site.stack.lab.ctx.db.round_trips();
    site.trust(json!({ "trusted_base": "git", "repositories": ["https://git.test/acme"] })).await;
    let message = site.refused(judge().await).await;
    assert!(message.contains("names with their whole URL, and https://git.test/acme/site is not one"), "{message}");
    site.trust(json!({ "trusted_base": "git", "repositories": ["https://git.test/acme", format!("{SITE}.git")] }))
        .await;
    let before = round_trips();
    let run = judge().await;
    let asking = round_trips() - before;
    site.passed(run).await;
    // Nobody asks where a base comes from unless the policy does.
    site.trust(json!({ "repositories": ["https://git.test/acme"] })).await;
    let before = round_trips();
    let run = judge().await;
    assert_eq!(round_trips() - before, asking - 1);
    assert_eq!(site.passed(run).await.base.origin, None);
}

#[tokio::test]
async fn the_same_bytes_from_elsewhere_are_refused() {
    let site = Site::new().await;
    let lab = &site.stack.lab;
    let run = site.judge(&[fetch("get", "feature", None)], of("get.workspace", "get.base")).await;
    let trusted = site.artifact(&site.output(run, "get", "base").await).await;
    let workspace = site.output(run, "get", "workspace").await;
    let bytes = lab.ctx.storage.get(&trusted, 1 << 20).await.unwrap();

    let upload = announce(lab, &bytes).await;
    assert!(send(&upload, bytes.clone()).await);
    let run = site.judge(&[], json!({ "workspace": workspace, "base": upload["id"] })).await;
    let message = site.refused(run).await;
    assert!(message.contains("this is none; add such a step, and give its output `base` to the gate"), "{message}");

    // workspace:write makes the same archive.
    let write = plans::step("write", "workspace:write", json!({ "files": { "nofx.toml": STRICT } }));
    let gate = json!({ "workspace": workspace, "base": "${{ steps.write.outputs.workspace }}" });
    let run = site.judge(&[write], gate).await;
    assert_eq!(site.artifact(&site.output(run, "write", "workspace").await).await.hash, trusted.hash);
    site.refused(run).await;

    // Another handler writes what workspace:git would record, into its artifact and its outputs.
    let recorded: Value = {
        let sql = "select metadata from nofx.artifact where id = $1";
        lab.admin.query_one(sql, &[&trusted.id.0]).await.unwrap().get(0)
    };
    let inner = site.stack.script.clone();
    let forging = Script::new(move |step, store| {
        let (bytes, metadata, inner) = (bytes.clone(), recorded.clone(), inner.clone());
        async move {
            if step.tool != "codegen" {
                return inner.handle(&step, &store).await;
            }
            let media_type = "application/gzip";
            let meta =
                ArtifactMeta { kind: "workspace", media_type, metadata: metadata.clone(), made_from: Vec::new() };
            let artifact = store.put("base.tar.gz", meta, bytes).await.unwrap();
            let outputs = json!({ "base": artifact.id, "standing": metadata["standing"], "tool": "workspace:git" });
            Outcome { artifacts: vec![artifact], ..nofx_tests::script::succeeded(outputs) }
        }
    });
    let steps = json!([
        plans::step("forge", "codegen", json!({ "prompt": "x" })),
        plans::step("gate", "gate:check", json!({ "workspace": workspace, "base": "${{ steps.forge.outputs.base }}" })),
    ]);
    let run = lab.submit(&json!({ "goal": "g", "steps": steps })).await;
    lab.settle(&forging, Deliver::Once).await;
    site.refused(run).await;

    // A diff that leads to the workspace is no base of a repository.
    let diff = b"--- /dev/null\n+++ b/a.txt\n@@ -0,0 +1 @@\n+a\n".to_vec();
    let upload = announce(lab, &diff).await;
    assert!(send(&upload, diff).await);
    let run = site.judge(&[], json!({ "workspace": { "archive": workspace, "diff": upload["id"] } })).await;
    site.refused(run).await;
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_retried_step_and_an_artifact_of_an_earlier_run_are_trusted_for_some_days() {
    let site = Site::new().await;
    let lab = &site.stack.lab;
    let (inner, failed) = (site.stack.script.clone(), Arc::new(AtomicBool::new(false)));
    let flaky = Script::new(move |step, store| {
        let (inner, failed) = (inner.clone(), Arc::clone(&failed));
        async move {
            let outcome = inner.handle(&step, &store).await;
            if step.tool == "workspace:git" && !failed.swap(true, Ordering::Relaxed) {
                // The answer of the first attempt is lost, after it has stored its archives.
                let error = Outcome::retryable(StepError::new("storage_unavailable", "lost"));
                return Outcome { artifacts: outcome.artifacts, ..error };
            }
            outcome
        }
    });
    let steps =
        json!([fetch("get", "feature", None), plans::step("gate", "gate:check", of("get.workspace", "get.base"))]);
    let first = lab.submit(&json!({ "goal": "g", "steps": steps })).await;
    lab.settle(&flaky, Deliver::Once).await;
    site.passed(first).await;
    let sql = "select attempt from nofx.step where run_id = $1 and name = 'get'";
    assert_eq!(lab.admin.query_one(sql, &[&first.0]).await.unwrap().get::<_, i32>(0), 2);
    // The archive of the attempt that did not succeed does not count, whatever it holds.
    let sql = "select id::text from nofx.artifact where run_id = $1 and attempt = 1 and name = 'base.tar.gz'";
    let lost: String = lab.admin.query_one(sql, &[&first.0]).await.unwrap().get(0);
    let [workspace, base] = [site.output(first, "get", "workspace").await, site.output(first, "get", "base").await];
    let run = site.judge(&[], json!({ "workspace": workspace, "base": lost })).await;
    site.refused(run).await;

    // Another run names the artifacts, in its gate or in its plan.
    let run = site.judge(&[], json!({ "workspace": workspace, "base": base })).await;
    assert_eq!(site.passed(run).await.base.origin.unwrap().run_id, first.to_string());
    let gate = plans::step("gate", "gate:check", json!({}));
    let plan = json!({ "goal": "g", "workspace": { "archive": workspace, "base": base }, "steps": [gate] });
    let run = lab.submit(&plan).await;
    site.stack.settle().await;
    site.passed(run).await;

    let sql = "update nofx.artifact set created_at = created_at - interval '8 days' where run_id = $1";
    lab.admin.execute(sql, &[&first.0]).await.unwrap();
    let run = site.judge(&[], json!({ "workspace": workspace, "base": base })).await;
    assert!(site.refused(run).await.contains("more than 7 days ago; run workspace:git again"));
}

#[tokio::test]
async fn the_database_knows_only_bases_of_the_tenant_with_their_bytes() {
    let site = Site::new().await;
    let lab = &site.stack.lab;
    let run = site.judge(&[fetch("get", "main", None)], of("get.workspace", "get.base")).await;
    let base = site.artifact(&site.output(run, "get", "base").await).await;
    let workspace = site.artifact(&site.output(run, "get", "workspace").await).await;
    // With the role of the workers.
    let db = lab.worker_ctx().await.db;
    let origin = async |tenant: &str, artifact: &ArtifactRef, workspace: ArtifactId| {
        artifact_origin(&db, &TenantId(tenant.into()), artifact, workspace).await.unwrap()
    };
    let known = origin("acme", &base, workspace.id).await.unwrap();
    assert_eq!((known.standing.unwrap().is, known.has_workspace), (Relation::Parent, true));
    let own = origin("acme", &workspace, base.id).await.unwrap();
    assert_eq!((own.standing.unwrap().is, own.commit), (Relation::Tip, site.git(&["rev-parse", "main"])));
    let evidence = site.stack.evidence(run).await.0["id"].as_str().unwrap().parse().unwrap();
    assert!(!origin("acme", &base, evidence).await.unwrap().has_workspace, "not a workspace");
    assert_eq!(origin("other", &base, workspace.id).await, None, "another tenant");
    let swapped = ArtifactRef { hash: workspace.hash.clone(), ..base.clone() };
    assert_eq!(origin("acme", &swapped, workspace.id).await, None, "other bytes");
    let unknown = ArtifactRef { id: ArtifactId(uuid::Uuid::new_v4()), ..base.clone() };
    assert_eq!(origin("acme", &unknown, workspace.id).await, None);

    // A gate of another tenant does not get as far.
    let sql = "update nofx.artifact set tenant_id = 'other' where id = $1";
    lab.admin.execute(sql, &[&base.id.0]).await.unwrap();
    for tenant in ["acme", "other"] {
        assert_eq!(origin(tenant, &base, workspace.id).await, None, "the step is not the artifact's tenant's");
    }
    let run = site.judge(&[], json!({ "workspace": workspace.id, "base": base.id })).await;
    assert_eq!(site.stack.step(run).await["error"]["code"], "no_workspace");
    // A step that did not succeed vouches for nothing.
    let sql = "update nofx.step set status = 'failed', outputs = null, error = '{}' where id = (select step_id from nofx.artifact where id = $1)";
    assert!(origin("acme", &workspace, base.id).await.is_some());
    lab.admin.execute(sql, &[&workspace.id.0]).await.unwrap();
    assert_eq!(origin("acme", &workspace, base.id).await, None);
}
