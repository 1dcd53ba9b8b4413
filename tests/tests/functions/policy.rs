//! Sets and reads the policy through the API and with `nofx policy`. Every change is a version and an event.

use std::fs;

use clap::Parser;
use nofx::commands::policy::{Command, run};
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Map, Value, json};
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::{GateId, NewGate, Outcome};
use shared::storage::ArtifactMeta;

use crate::gateway::{Answer, Gateway, SHAPES, Shape};
use crate::submit::serve;

async fn put(api: &Gateway, if_match: Option<&str>, body: &Value) -> Answer {
    let headers: Vec<_> = if_match.map(|tag| ("If-Match", tag)).into_iter().collect();
    api.send("PUT", "/policy", &headers, Some(body.to_string())).await
}

#[tokio::test]
async fn a_policy_is_set_and_read_and_each_version_is_kept_with_its_author() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let none = api.get("/policy").await.body;
        assert_eq!((&none["version"], &none["document"], &none["changed_by"]), (&json!(0), &json!({}), &Value::Null));
        assert_eq!(none["effective"]["gates"]["on_weakening"], "ask");

        let first = json!({"gates": {"on_weakening": "fail", "trusted_base": ["a".repeat(40)], "network": null}});
        let set = put(&api, None, &json!({"document": first, "actor": "ann", "reason": "a start"})).await;
        assert_eq!((set.status, &set.body["version"], &set.body["changed_by"]), (200, &json!(1), &json!("ann")));
        let kept = json!({"gates": {"on_weakening": "fail", "trusted_base": ["a".repeat(40)]}});
        assert_eq!(set.body["document"], kept, "null is the same as no field");
        assert_eq!(set.body["effective"]["gates"]["require_base"], json!(false));
        assert_eq!(set.body, api.get("/policy").await.body);

        let again = put(&api, None, &json!({"document": kept, "actor": "bob"})).await.body;
        assert_eq!((&again["version"], &again["changed_by"]), (&json!(1), &json!("ann")), "nothing has changed");
        assert_eq!(put(&api, None, &json!({"document": {}})).await.body["version"], 2);

        let page = api.get("/policy/history?limit=1").await;
        assert_eq!((&page.body["versions"][0]["version"], &page.body["next"]), (&json!(2), &json!(2)));
        assert!(page.header("link").is_some_and(|link| link.starts_with("<?after=2&limit=1>")));
        let page = api.get("/policy/history?after=2").await.body;
        let [oldest] = page["versions"].as_array().unwrap().as_slice() else { panic!("{page}") };
        assert_eq!((&oldest["document"], &oldest["reason"], &page["next"]), (&kept, &json!("a start"), &Value::Null));

        let sql =
            "select jsonb_agg(jsonb_build_array(type, subject, actor, payload) order by id) from nofx.tenant_event";
        let events: Value = lab.admin.query_one(sql, &[]).await.unwrap().get(0);
        let expected = json!([
            ["policy.set", "policy", "ann", {"version": 1, "document": kept, "reason": "a start"}],
            ["policy.set", "policy", "anonymous", {"version": 2, "document": {}}],
        ]);
        assert_eq!(events, expected);
        lab.assert_invariants().await;
    }
}

#[tokio::test]
async fn a_policy_is_replaced_only_if_it_is_the_one_that_the_client_has_seen() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let api = Gateway::api(&lab, shape);
        let body = |seconds: u32| json!({"document": {"gates": {"max_timeout_s": seconds}}});
        let tag = async || api.get("/policy").await.header("etag").expect("a tag").to_owned();
        let before = tag().await;
        assert_eq!(put(&api, Some(&before), &body(1)).await.status, 200, "the first version");
        let seen = tag().await;
        let cached = api.send("GET", "/policy", &[("If-None-Match", &seen)], None).await;
        assert_eq!(cached.status, 304);
        for old in [before.as_str(), "\"x\"", "nonsense"] {
            let refused = put(&api, Some(old), &body(2)).await;
            assert_eq!((refused.status, &refused.body["code"]), (412, &json!("policy_changed")), "{old}");
        }
        assert_eq!(api.get("/policy").await.body["version"], 1);
        assert_eq!(put(&api, Some(&seen), &body(2)).await.body["version"], 2);
        assert_eq!(put(&api, Some("*"), &body(3)).await.body["version"], 3);
        assert_ne!(tag().await, seen);
    }
}

#[tokio::test]
async fn an_invalid_policy_is_refused_with_the_paths_of_its_problems() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let document = json!({"gates": {"network": "always", "repositories": ["http://x"], "treshold": 1}, "gate": {}});
    let refused = put(&api, None, &json!({"document": document, "actor": ""})).await;
    let paths: Vec<_> = refused.body["errors"].as_array().unwrap().iter().map(|error| &error["path"]).collect();
    let gates = ["document.gates.treshold", "document.gates.network", "document.gates.repositories[0]"];
    assert_eq!(paths, [&["document.gate"][..], &gates, &["actor"]].concat());
    for bad in [json!({}), json!({"document": null}), json!({"document": []}), json!({"document": {}, "gates": {}})] {
        assert_eq!(put(&api, None, &bad).await.status, 400, "{bad}");
    }
    assert_eq!(api.get("/policy").await.body["version"], 0);
    assert_eq!(api.get("/policy/history").await.body, json!({"versions": [], "next": null}));
    assert_eq!(api.get("/policy/history?after=x").await.status, 400);
}

#[tokio::test]
async fn a_policy_belongs_to_its_tenant_and_one_that_cannot_be_read_is_shown() {
    let lab = Lab::new().await;
    let api = Gateway::api(&lab, Shape::Http);
    let sql = "insert into nofx.policy (tenant_id, version, document, changed_by)
               values ('other', 1, '{}', 'eve'), ('acme', 1, '{\"gates\": {\"later\": 1}}', 'sql')";
    lab.admin.batch_execute(sql).await.unwrap();
    let policy = api.get("/policy").await.body;
    assert_eq!((&policy["effective"], &policy["document"]), (&Value::Null, &json!({"gates": {"later": 1}})));
    let history = api.get("/policy/history").await.body;
    assert_eq!(
        history["versions"].as_array().unwrap().iter().map(|one| &one["changed_by"]).collect::<Vec<_>>(),
        ["sql"]
    );
}

#[derive(Parser)]
struct Nofx {
    #[command(subcommand)]
    command: Command,
}

#[tokio::test]
async fn the_command_sets_a_file_and_only_the_version_that_it_names() {
    let lab = Lab::new().await;
    let api = serve(&lab).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    fs::write(&file, "gates:\n  require_base: true\n").unwrap();
    let nofx = async |words: &[&str]| {
        let command = Nofx::try_parse_from(["nofx"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"));
        run(&api, &command.command).await.map_err(|error| format!("{error:#}"))
    };
    let path = file.to_str().unwrap();
    let stored = "select version || ' ' || changed_by || ' ' || coalesce(reason, '-') || ' ' || document::text
                    from nofx.policy order by version desc limit 1";
    let stored = async || lab.admin.query_one(stored, &[]).await.unwrap().get::<_, String>(0);
    nofx(&["set", path, "--if-version", "0", "--as", "ann", "--reason", "so"]).await.unwrap();
    assert_eq!(stored().await, r#"1 ann so {"gates": {"require_base": true}}"#);
    fs::write(&file, "gates: {require_base: false}").unwrap();
    let refused = nofx(&["set", path, "--if-version", "0"]).await.unwrap_err();
    assert!(refused.contains("at version 1, not 0"), "{refused}");
    nofx(&["set", path, "--if-version", "1", "--as", "bob"]).await.unwrap();
    assert_eq!(stored().await, r#"2 bob - {"gates": {"require_base": false}}"#);
    for words in [&["get"][..], &["get", "--effective"], &["history"]] {
        nofx(words).await.unwrap();
    }
    fs::write(&file, "gates: {require_base: 1}").unwrap();
    let refused = nofx(&["set", path]).await.unwrap_err();
    assert!(refused.contains("policy.yaml:1: gates.require_base: must be true or false"), "{refused}");
    fs::write(&file, "[]").unwrap();
    assert!(nofx(&["set", path]).await.unwrap_err().contains("contains no policy"));
    assert!(stored().await.starts_with("2 bob"));
}

#[tokio::test]
async fn an_approver_can_open_the_evidence_of_a_pending_gate_and_sees_what_it_is_about() {
    let lab = Lab::with_bucket().await;
    let (api, approvals) = (Gateway::api(&lab, Shape::Http), Gateway::approvals(&lab, Shape::Http));
    let console = Gateway::console(&lab, Shape::Http);
    let run = lab.submit(&json!({"goal": "g", "steps": [plans::step("unit", "gate:unit", json!({}))]})).await;
    let script = Script::new(|step, store| async move {
        if !step.decisions.is_empty() {
            return succeeded(json!({}));
        }
        let meta = ArtifactMeta { kind: "gate_evidence", media_type: "application/json", ..ArtifactMeta::default() };
        let evidence = store.put("gate-unit.json", meta, b"{}".to_vec()).await.expect("stored");
        let gate = NewGate {
            id: GateId(uuid::Uuid::now_v7()),
            gate_type: "manual:gate-change".into(),
            status: NewGateStatus::Pending,
            subject: Some(Map::from_iter([("tree".to_owned(), json!("abc"))])),
            evidence_uri: Some(evidence.uri.clone()),
            on_pass: OnPass::Resume,
            expires_after_s: None,
            reason: Some("a test is gone".into()),
        };
        Outcome { artifacts: vec![evidence], ..Outcome::blocked(gate) }
    });
    lab.settle(&script, Deliver::Once).await;

    let listed = approvals.get("/gates").await.body;
    let gate = listed.as_array().or_else(|| listed["gates"].as_array()).unwrap()[0].clone();
    assert_eq!((&gate["status"], &gate["subject"]), (&json!("pending"), &json!({"tree": "abc"})));
    let mut alone = approvals.get(&format!("/gates/{}", gate["id"].as_str().unwrap())).await.body;
    assert!(alone.as_object_mut().unwrap().remove("covers").is_some_and(|covers| covers["step"] == "unit"));
    assert_eq!(gate, alone);
    assert_eq!(gate, api.get(&format!("/runs/{run}/gates")).await.body[0]);
    let evidence = gate["evidence_id"].as_str().expect("the id of the evidence").to_owned();
    assert_eq!(api.get(&format!("/artifacts/{evidence}/download")).await.status, 302);
    let page = console.get(&format!("/ui/runs/{run}")).await.body.to_string();
    assert!(page.contains(&format!("artifacts/signed?id={evidence}")), "the console links it");

    let decided =
        approvals.post(&format!("/gates/{}/approve", gate["id"].as_str().unwrap()), &json!({"actor": "ann"})).await;
    assert_eq!((&decided.body["subject"], &decided.body["evidence_id"]), (&json!({"tree": "abc"}), &json!(evidence)));
    lab.settle(&script, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
}
