//! Proofs of runs: sealed by the sweeper, fetched over the API, and verified with public keys alone.

use std::fs;

use nofx::client::keyring::{Keyring, purpose_line};
use nofx::commands::verify_proof::{Options, Report, check};
use nofx_tests::lab::config;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::config::SigningConfig;
use shared::db::seal::Unsealed;
use shared::domain::{ArtifactRef, RunId};
use shared::flow::seal_runs::{Draft, Sealer, seal_runs};
use shared::signing::{PublicKey, Signer, create_private_key, private_key};
use shared::storage::ArtifactMeta;
use shared::view::KeyPurpose;

use crate::gates::Stack;
use crate::gateway::{Gateway, SHAPES, Shape};

/// Keys of seals in a folder.
pub struct Keys(tempfile::TempDir);

impl Keys {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// From now on the lab seals with the key of this name.
    pub fn use_in(&self, lab: &mut Lab, name: &str) -> PublicKey {
        let file = self.0.path().join(name);
        create_private_key(&file).expect("a key");
        let public = private_key(&file).expect("a key").public().clone();
        lab.ctx.config.seals =
            SigningConfig { key_file: Some(file), public_keys: Some(public.to_pem()), ..SigningConfig::none("SEAL") };
        public
    }

    /// Signs with the key of this name.
    pub fn signer(&self, name: &str) -> Signer {
        Signer::with_key(private_key(&self.0.path().join(name)).expect("a key"))
    }
}

/// What `nofx keys --pem --all` prints.
pub fn keyring(seals: &[&PublicKey], evidence: Option<&PublicKey>) -> Keyring {
    let decisions =
        private_key(&std::env::temp_dir().join("nofx-tests-decisions.pem")).expect("a key").public().clone();
    let of = |purpose: KeyPurpose, key: &PublicKey| format!("{}\n{}", purpose_line(purpose), key.to_pem());
    let mut text: String = seals.iter().map(|key| of(KeyPurpose::Seals, key)).collect();
    text.push_str(&of(KeyPurpose::Decisions, &decisions));
    text.extend(evidence.map(|key| of(KeyPurpose::Evidence, key)));
    Keyring::of(&text).expect("keys")
}

pub fn options(keys: Keyring) -> Options {
    Options { keys, repo: None, builders: Vec::new(), is_strict: false }
}

/// The bytes of the last proof of a run, whose row must have their digest.
pub async fn proof(lab: &Lab, run: RunId) -> Vec<u8> {
    let sql = "select to_jsonb(s) from nofx.seal s where run_id = $1 order by generation desc limit 1";
    let row: Value = lab.admin.query_one(sql, &[&run.0]).await.expect("a seal").get(0);
    let text = |name: &str| row[name].as_str().expect("a text").to_owned();
    let object = ArtifactRef {
        id: text("run_id").parse().expect("an id"),
        uri: text("uri"),
        hash: text("digest"),
        size_bytes: row["size_bytes"].as_u64().expect("a size"),
        media_type: String::new(),
    };
    lab.ctx.storage.get(&object, 64 << 20).await.expect("the proof has its digest")
}

pub fn assert_holds(report: &Report) {
    assert!(report.faults.is_empty(), "{:#?}", report.faults);
    assert!(report.passes, "{:#?}", report.missing);
}

pub const STRICT: &str = "[gates.check]\ncommand = \"check --strict\"\n";

/// A run that failed at a gate, was retried, passed, and was released by a person. It has its two seals.
pub async fn released(stack: &mut Stack, keys: &Keys) -> (RunId, PublicKey) {
    let key = keys.use_in(&mut stack.lab, "seals.pem");
    let sealer = Sealer::new(&stack.lab.ctx);
    let write = |name: &str| {
        let files = json!({"nofx.toml": STRICT, "a.txt": name, "b/é\".txt": "b"});
        plans::step(name, "workspace:write", json!({ "files": files }))
    };
    let inputs =
        json!({ "workspace": "${{ steps.head.outputs.workspace }}", "base": "${{ steps.base.outputs.workspace }}" });
    let steps = json!([
        write("base"),
        write("head"),
        plans::step("gate", "gate:check", inputs),
        plans::step("text", "codegen", json!({"prompt": "say <hello> \"é\" 1e2"})),
        plans::step("release", "manual:release", json!({})),
    ]);
    stack.answer(1, "error: no\n");
    let run = stack.lab.submit(&json!({ "goal": "release it", "steps": steps })).await;
    stack.settle().await;
    assert_eq!(stack.lab.run_status(run).await, "failed");
    assert_eq!(seal_runs(&stack.lab.ctx, &sealer).await.unwrap(), 1);

    stack.answer(0, "fine\n");
    let retried = Gateway::api(&stack.lab, Shape::Http).post(&format!("/runs/{run}/retry"), &json!({})).await;
    assert_eq!(retried.status, 200, "{}", retried.body);
    stack.settle().await;
    assert_eq!(seal_runs(&stack.lab.ctx, &sealer).await.unwrap(), 0, "an open run is not sealed");
    let gates = stack.gates(run).await;
    let release = gates.iter().find(|gate| gate["gate_type"] == "manual:release").expect("a question");
    stack.decide(release, "approve").await;
    assert_eq!(stack.lab.run_status(run).await, "succeeded");
    assert_eq!(seal_runs(&stack.lab.ctx, &sealer).await.unwrap(), 1);
    (run, key)
}

#[tokio::test]
async fn a_released_run_is_proved_from_its_seal_to_the_tree_that_its_gate_judged() {
    let (mut stack, keys) = (Stack::new().await, Keys::new());
    let (run, key) = released(&mut stack, &keys).await;
    let bytes = proof(&stack.lab, run).await;
    let all = || keyring(&[&key], Some(&stack.key));
    let report = check(&bytes, &options(all()));
    assert_holds(&report);
    assert_eq!((report.run.as_str(), report.generation, report.status.as_str()), (&*run.to_string(), 2, "succeeded"));
    let what = |name: &str| report.checked.iter().find(|check| check.name == name).map(|check| check.what.as_str());
    assert_eq!(what("gates"), Some("1 passed by evidence, 1 by decisions of people"));
    assert_eq!(what("decisions"), Some("1 signed, of 1 people"));
    assert!(what("provenance").unwrap().starts_with("7 of 7"), "{:?}", what("provenance"));
    let doubts: Vec<&str> = report.not_proved.iter().map(|doubt| doubt.code.as_str()).collect();
    for code in ["no_checkout", "outputs_not_included", "files_not_included", "people_as_identified", "no_report"] {
        assert!(doubts.contains(&code), "{code} of {doubts:?}");
    }

    // The first generation failed. Its seal stays as it was.
    let first: String = stack
        .lab
        .admin
        .query_one("select uri from nofx.seal where run_id = $1 and generation = 1", &[&run.0])
        .await
        .unwrap()
        .get(0);
    assert!(first.contains("/proof/1-"));

    // A checkout with the same files, and one with others.
    let same = tempfile::tempdir().unwrap();
    fs::create_dir(same.path().join("b")).unwrap();
    for (name, text) in [("nofx.toml", STRICT), ("a.txt", "head"), ("b/é\".txt", "b")] {
        fs::write(same.path().join(name), text).unwrap();
    }
    let with_repo = |dir: &std::path::Path| Options { repo: Some(dir.to_owned()), ..options(all()) };
    let report = check(&bytes, &with_repo(same.path()));
    assert_holds(&report);
    assert!(report.checked.iter().any(|check| check.name == "repo"));
    fs::write(same.path().join("a.txt"), "other").unwrap();
    let report = check(&bytes, &with_repo(same.path()));
    assert!(!report.passes && report.faults.is_empty() && report.missing[0].contains("no gate judged the tree"));

    // Only builders that are allowed, and only keys that are trusted, each for what it signs.
    let allow =
        |builders: &[&str]| Options { builders: builders.iter().map(|&id| id.to_owned()).collect(), ..options(all()) };
    assert_holds(&check(&bytes, &allow(&["workspace", "gate", "codegen"])));
    let report = check(&bytes, &allow(&["workspace", "gate"]));
    assert!(report.faults[0].path.starts_with("content.provenance[") && report.faults[0].message.contains("codegen"));
    let other = keys.use_in(&mut stack.lab, "other.pem");
    let report = check(&bytes, &options(keyring(&[&other], Some(&stack.key))));
    assert_eq!(report.faults[0].path, "seal");
    let report = check(&bytes, &options(keyring(&[&key], Some(&key))));
    assert!(report.faults[0].path.starts_with("content.gates["), "{:?}", report.faults);
    stack.lab.assert_invariants().await;
}

/// A change that a random number chooses: one byte becomes another one.
fn changed(bytes: &[u8], range: std::ops::Range<usize>, random: &mut fastrand::Rng) -> (Vec<u8>, usize) {
    let mut changed = bytes.to_vec();
    let at = random.usize(range);
    // Often a byte that JSON or base64 gives a meaning.
    let new = if random.bool() { random.u8(..) } else { *random.choice(b"\"{}[],:0189aAzZ+/=-_ \n\\").unwrap() };
    changed[at] = if new == changed[at] { new ^ 1 } else { new };
    (changed, at)
}

#[tokio::test]
async fn a_thousand_random_changes_of_a_byte_are_all_noticed_and_named() {
    let (mut stack, keys) = (Stack::new().await, Keys::new());
    let (run, key) = released(&mut stack, &keys).await;
    let bytes = proof(&stack.lab, run).await;
    let options = options(keyring(&[&key], Some(&stack.key)));
    assert_holds(&check(&bytes, &options));
    let seal = bytes.windows(8).rposition(|window| window == b"\"seal\":{").expect("a seal");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..1_000 {
        // A fifth of them in the seal, which nothing but its signature covers.
        let range = if number % 5 == 0 { seal..bytes.len() } else { 0..bytes.len() };
        let (changed, at) = changed(&bytes, range, &mut random);
        let report = check(&changed, &options);
        let (old, new) = (char::from(bytes[at]), char::from(changed[at]));
        let place = format!("seed {seed}: byte {at} from {old:?} to {new:?}");
        assert!(!report.faults.is_empty() && !report.passes, "{place}");
        let fault = &report.faults[0];
        let is_named = fault.path.starts_with("content") || fault.path.starts_with("seal") || fault.path == "schema";
        // At the very ends of the file there is no path.
        assert!(is_named || at < 20 || at > seal - 40 || fault.message.contains("byte"), "{place}: {fault:?}");
    }
}

#[tokio::test]
async fn a_run_is_sealed_once_whatever_becomes_of_its_sweepers() {
    let (mut lab, keys) = (Lab::with_bucket().await, Keys::new());
    let key = keys.use_in(&mut lab, "seals.pem");
    // With the login of workers, as the sweeper.
    let ctx = &lab.worker_ctx().await;
    let sealer = Sealer::new(ctx);
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(lab.submit(&plans::wide(2)).await);
    }
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let count = async || -> i64 { lab.admin.query_one("select count(*) from nofx.seal", &[]).await.unwrap().get(0) };

    // Two sweepers have signed and stored the same run. The second one's file is not used.
    let run = Unsealed { tenant_id: lab.tenant.clone(), run_id: runs[0] };
    let draft =
        async || Draft::of(ctx, &sealer, &run).await.unwrap().expect("an ended run").store(ctx, &sealer).await.unwrap();
    let (first, second) = (draft().await, draft().await);
    assert!(first.record(ctx).await.unwrap());
    assert!(!second.record(ctx).await.unwrap());
    assert!(Draft::of(ctx, &sealer, &run).await.unwrap().is_none(), "it has its seal");
    assert_eq!(count().await, 1);

    // A sweeper is killed between the upload and the row. Until its time is over, nobody else takes the run.
    let taken = shared::db::seal::seals_take(&ctx.db, 1).await.unwrap();
    drop(Draft::of(ctx, &sealer, &taken[0]).await.unwrap().expect("an ended run").store(ctx, &sealer).await.unwrap());
    assert_eq!(count().await, 1);
    assert_eq!(seal_runs(ctx, &sealer).await.unwrap(), 3);
    lab.admin.execute("update nofx.run set seal_after = seal_after - interval '3 minutes'", &[]).await.unwrap();

    // Several sweepers at once.
    let results = futures::future::join_all((0..4).map(|_| seal_runs(ctx, &sealer))).await;
    assert_eq!(results.into_iter().map(Result::unwrap).sum::<u64>(), 1);
    assert_eq!(count().await, 5);
    for run in &runs {
        assert_holds(&check(&proof(&lab, *run).await, &options(keyring(&[&key], None))));
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_run_that_cannot_be_sealed_is_tried_again_later_and_keeps_no_other_waiting() {
    let (mut lab, keys) = (Lab::with_bucket().await, Keys::new());
    keys.use_in(&mut lab, "seals.pem");
    let run = lab.submit(&plans::wide(1)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let bucket = lab.ctx.config.artifacts.bucket.clone();
    let mut nowhere = lab.another_ctx().await;
    nowhere.storage =
        shared::storage::Storage::new(nofx_tests::lab::s3(&nofx_tests::lab::sdk().await), format!("{bucket}-gone"));
    assert!(seal_runs(&nowhere, &Sealer::new(&lab.ctx)).await.is_err());
    let waits =
        "select extract(epoch from seal_after - clock_timestamp())::float8, seal_tries from nofx.run where id = $1";
    let row = lab.admin.query_one(waits, &[&run.0]).await.unwrap();
    let (wait, tries): (f64, i32) = (row.get(0), row.get(1));
    assert!(wait > 60.0 && wait <= 120.0 && tries == 1, "{wait} {tries}");
    assert_eq!(seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap(), 0, "not before its time");
    let other = lab.submit(&plans::wide(1)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap(), 1);
    proof(&lab, other).await;
    lab.admin.execute("update nofx.run set seal_after = clock_timestamp() where id = $1", &[&run.0]).await.unwrap();
    assert_eq!(seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap(), 1);
    // Without a key nothing is taken.
    lab.ctx.config.seals = SigningConfig::none("SEAL");
    lab.submit(&plans::wide(1)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap(), 0);
}

#[tokio::test]
async fn after_a_rotation_proofs_of_both_keys_verify() {
    let (mut lab, keys) = (Lab::with_bucket().await, Keys::new());
    let mut sealed = Vec::new();
    for name in ["old.pem", "new.pem"] {
        let key = keys.use_in(&mut lab, name);
        let run = lab.submit(&plans::wide(1)).await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap();
        sealed.push((key, proof(&lab, run).await));
    }
    let [(old, first), (new, second)] = sealed.try_into().expect("two");
    for bytes in [&first, &second] {
        assert_holds(&check(bytes, &options(keyring(&[&new, &old], None))));
    }
    assert!(!check(&first, &options(keyring(&[&new], None))).passes);
    // GET /keys has both, the one that signs now first.
    let earlier = format!("{}{}", new.to_pem(), old.to_pem());
    let mut listing = config(&lab.database.url);
    listing.seals.public_keys = Some(earlier);
    lab.ctx.config = listing;
    let listed = Gateway::api(&lab, Shape::Http).get("/keys").await.body;
    let seals: Vec<&Value> =
        listed["keys"].as_array().unwrap().iter().filter(|key| key["purpose"] == "seals").collect();
    assert_eq!((seals.len(), &seals[0]["current"], &seals[0]["keyid"]), (2, &json!(true), &json!(new.keyid())));
}

#[tokio::test]
async fn a_proof_is_fetched_once_the_run_has_ended_and_is_sealed() {
    for shape in SHAPES {
        let (mut lab, keys) = (Lab::with_bucket().await, Keys::new());
        keys.use_in(&mut lab, "seals.pem");
        let api = Gateway::api(&lab, shape);
        let run = lab.submit(&plans::wide(1)).await;
        let path = format!("/runs/{run}/proof");
        let open = api.get(&path).await;
        assert_eq!((open.status, &open.body["code"]), (409, &json!("run_not_finished")));
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let unsealed = api.get(&path).await;
        assert_eq!((unsealed.status, &unsealed.body["code"]), (409, &json!("not_sealed")));
        assert_eq!(unsealed.header("retry-after"), Some("5"));
        seal_runs(&lab.ctx, &Sealer::new(&lab.ctx)).await.unwrap();
        let sealed = api.get(&path).await;
        assert_eq!(sealed.status, 302, "{}", sealed.body);
        let bytes = reqwest::get(sealed.header("location").expect("a URL")).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, proof(&lab, run).await);
        // Nobody else's.
        lab.admin.execute("update nofx.run set tenant_id = 'other' where id = $1", &[&run.0]).await.unwrap();
        assert_eq!(api.get(&path).await.status, 404);
        assert_eq!(api.get("/runs/00000000-0000-7000-8000-000000000000/proof").await.status, 404);
    }
}

#[tokio::test]
async fn every_artifact_that_a_step_took_is_in_the_lineage_and_drawings_show_it() {
    let lab = Lab::with_bucket().await;
    let put = |name: &'static str| {
        move |store: shared::storage::StepStore| async move {
            let meta = ArtifactMeta { kind: "workspace", media_type: "application/gzip", ..ArtifactMeta::default() };
            store.put(name, meta, name.as_bytes().to_vec()).await.expect("stored")
        }
    };
    // A handler that says nothing about what its artifact was made from.
    let script = Script::overriding(move |step, store| async move {
        let name = match step.tool.as_str() {
            "workspace:write" => "made",
            "gate:lint" => "told \"<b>\"",
            _ => return None,
        };
        let artifact = put(name)(store).await;
        let outcome = nofx_tests::script::succeeded(json!({ "id": artifact.id }));
        Some(shared::domain::Outcome { artifacts: vec![artifact], ..outcome })
    });
    let inputs = json!({"workspace": "${{ steps.head.outputs.id }}", "base": "${{ steps.base.outputs.id }}"});
    let files = json!({"files": {"a": "b"}});
    let steps = json!([
        plans::step("base", "workspace:write", files.clone()),
        plans::step("head", "workspace:write", files),
        plans::step("lint", "gate:lint", inputs),
    ]);
    let run = lab.submit(&json!({ "goal": "g", "steps": steps })).await;
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    let sql = "select builder, inputs_sha256 from nofx.artifact where run_id = $1 order by created_at, id";
    for row in lab.admin.query(sql, &[&run.0]).await.unwrap() {
        let (builder, inputs): (String, String) = (row.get(0), row.get(1));
        assert!(builder.contains('@') && inputs.len() == 64, "{builder} {inputs}");
    }
    let api = Gateway::api(&lab, Shape::Http);
    let path = format!("/runs/{run}/lineage");
    let lineage = api.get(&path).await.body;
    assert_eq!(lineage["edges"].as_array().map(Vec::len), Some(2), "{lineage:#}");
    let dot = api.get(&format!("{path}?format=dot")).await;
    assert!(dot.header("content-type").unwrap().starts_with("text/vnd.graphviz"));
    let text = dot.body.as_str().unwrap();
    assert!(text.contains("a2 [label=\"told \\\"<b>\\\"\\nlint\"];\n  a0 -> a2;\n  a1 -> a2;\n}"), "{text}");
    let mermaid = api.get(&format!("{path}?format=mermaid")).await;
    let text = mermaid.body.as_str().unwrap();
    assert!(text.contains("a2[\"told #34;#60;b#62;#34;<br>lint\"]") && text.ends_with("  a1 --> a2\n"), "{text}");
    assert_eq!(api.get(&format!("{path}?format=svg")).await.status, 400);
}
