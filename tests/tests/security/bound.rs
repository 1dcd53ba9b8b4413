//! Decisions are about exact bytes: a claim starts nothing else, whatever happens at the same time.

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, header};
use futures::future::{BoxFuture, FutureExt, join_all};
use nofx_gates::attestation::Envelope;
use nofx_tests::database::TestDatabase;
use nofx_tests::lab::config;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::config::{AuthConfig, AuthMode, SigningConfig};
use shared::db::gate::GateDecision;
use shared::db::run::Control;
use shared::db::step::{self, ClaimItem};
use shared::domain::gate::Decision;
use shared::domain::principal::{Kind, Role};
use shared::domain::{ArtifactId, GateId, NewArtifact, RunId, StepId};
use shared::error::Error;
use shared::flow::attest_decision::PREDICATE_TYPE;
use shared::flow::control_run::control_run;
use shared::flow::decide_gate::decide_gate;
use shared::flow::sweep::sweep;
use shared::http::with_layers;
use shared::signing::{PublicKey, private_key};
use tower::ServiceExt;
use uuid::Uuid;

use crate::approvals::{approve, decide_as, events, gate_of, start_as, team, word};

/// A step that leaves a file, and a write that needs an approval. The plan has a workspace.
pub(crate) async fn waiting(lab: &Lab, required: u32) -> (RunId, StepId) {
    let upload = Uuid::new_v4();
    let sql = "insert into nofx.artifact (id, tenant_id, name, type, uri, hash, size_bytes, media_type)
               values ($1, 'acme', 'w', 'workspace', 's3://b/w', repeat('a', 64), 1, 'application/x-tar')";
    lab.admin.execute(sql, &[&upload]).await.unwrap();
    let rule =
        "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops) values ('acme', 'public.t', '{insert}')
                on conflict do nothing";
    lab.admin.batch_execute(rule).await.unwrap();
    let inputs = json!({ "table": "public.t", "op": "insert", "values": [{ "v": "${{ steps.build.outputs.v }}" }] });
    let mut write = plans::step("write", "db_write", inputs);
    write["approval"] = json!({ "required": required });
    let steps = [plans::step("first", "echo", json!({})), plans::step("build", "echo", json!({ "v": 1 })), write];
    let plan = json!({ "goal": "write", "workspace": { "archive": upload }, "steps": steps });
    let run = start_as(lab, &lab.person("ann"), &plan).await;
    lab.settle(&script(), Deliver::Once).await;
    (run, lab.step(run, "write").await)
}

/// `build` leaves a file, and `write` fails.
pub(crate) fn script() -> Script {
    Script::overriding(|step, _| async move {
        let mut outcome = match step.name.as_str() {
            "build" => nofx_tests::script::succeeded(json!({ "v": 1 })),
            "write" => return Some(shared::domain::Outcome::failed(shared::domain::StepError::new("no", "no table"))),
            _ => return None,
        };
        outcome.artifacts.push(NewArtifact {
            id: ArtifactId(Uuid::new_v4()),
            name: "site.tar".into(),
            kind: "text".into(),
            uri: format!("s3://b/{}", step.run_id),
            hash: "b".repeat(64),
            size_bytes: 1,
            media_type: "text/plain".into(),
            metadata: json!({}),
            made_from: vec![],
        });
        Some(outcome)
    })
}

/// Claims a step as a worker does. Whether it starts.
pub(crate) async fn claim(lab: &Lab, run: RunId, step: StepId) -> bool {
    let item = ClaimItem {
        tenant_id: lab.tenant.clone(),
        run_id: run,
        step_id: step,
        lease_s: 60,
        refs_bytes: 1 << 20,
        terms: false,
    };
    !step::steps_claim(&lab.ctx.db, &[item]).await.unwrap().claimed.is_empty()
}

#[tokio::test]
async fn each_digest_that_changes_between_decision_and_claim_voids_the_decision_and_is_named() {
    let lab = team().await;
    let changes = [
        ("update nofx.run set plan_digest = repeat('c', 64) where id = $1", "plan"),
        (
            "update nofx.run set workspace = jsonb_set(workspace, '{archive,hash}', to_jsonb(repeat('c', 64))) where id = $1",
            "workspace.archive",
        ),
        ("update nofx.step set inputs = inputs || '{\"more\": 1}' where run_id = $1 and name = 'write'", "inputs"),
        ("update nofx.step set outputs = '{\"v\": 2}' where run_id = $1 and name = 'build'", "upstream.build.outputs"),
        ("update nofx.step set outputs = '{\"x\": 2}' where run_id = $1 and name = 'first'", "upstream.first.outputs"),
        (
            "update nofx.artifact set hash = repeat('c', 64) where run_id = $1 and name = 'site.tar'",
            "upstream.build.artifacts.site.tar",
        ),
        ("update nofx.db_write_rule set allowed_ops = '{insert,delete}' where $1 = $1", "rule"),
    ];
    for (change, path) in changes {
        let (run, step) = waiting(&lab, 1).await;
        let gate = gate_of(&lab, run).await;
        assert_eq!(approve(&lab, "ben", gate).await, "passed");
        let rows = lab.admin.execute(&change.replace("$1 = $1", "$1::uuid is not null"), &[&run.0]).await.unwrap();
        assert_eq!(rows, 1, "{path}");
        assert!(!claim(&lab, run, step).await, "{path}");
        let voided = events(&lab, run, "gate.voided").await;
        assert_eq!((voided.len(), &voided[0]["changed"]), (1, &json!([path])));
        assert_eq!(voided[0]["gate_id"], json!(gate));
        let again = gate_of(&lab, run).await;
        assert_eq!(
            (approve(&lab, "ben", again).await.as_str(), claim(&lab, run, step).await),
            ("passed", true),
            "{path}"
        );
        lab.admin.batch_execute("update nofx.db_write_rule set allowed_ops = '{insert}'").await.unwrap();
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_identical_retry_keeps_the_decision_and_asks_nobody() {
    let lab = team().await;
    let (run, step) = waiting(&lab, 1).await;
    decide_gate(&lab.ctx, &lab.person("ben"), &decision(gate_of(&lab, run).await, None)).await.unwrap();
    lab.settle(&script(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "failed");
    for generation in 2..4 {
        retry_with(&lab, run).await;
        assert_eq!(events(&lab, run, "gate.kept").await.len(), generation - 1);
        assert_eq!((lab.step_status(step).await, lab.run_status(run).await), ("failed".into(), "failed".into()));
    }
    let gates = "select count(*)::text from nofx.gate where run_id = $1";
    assert_eq!(lab.text(gates, run.0).await, "1");
    lab.admin
        .execute("update nofx.step set outputs = '{\"v\": 9}' where run_id = $1 and name = 'build'", &[&run.0])
        .await
        .unwrap();
    retry_with(&lab, run).await;
    assert_eq!((lab.step_status(step).await, events(&lab, run, "gate.voided").await.len()), ("blocked".into(), 1));
    lab.assert_invariants().await;
}

fn decision(gate_id: GateId, seen: Option<&str>) -> GateDecision<'_> {
    GateDecision { gate_id, decision: Decision::Approve, actor: "ben", reason: None, seen }
}

pub(crate) async fn retry_with(lab: &Lab, run: RunId) {
    control_run(&lab.ctx, &lab.person("ann"), run, Control::Retry, "ann").await.unwrap();
    lab.settle(&script(), Deliver::Once).await;
}

#[tokio::test]
async fn a_decision_counts_only_for_what_its_person_saw() {
    let lab = team().await;
    let (run, step) = waiting(&lab, 2).await;
    let gate = gate_of(&lab, run).await;
    let refused = decide_gate(&lab.ctx, &lab.person("ben"), &decision(gate, Some(&"0".repeat(64)))).await.unwrap_err();
    assert!(matches!(&refused, Error::GateChanged(paths) if *paths == ["digest"]), "{refused:?}");
    assert_eq!(approve(&lab, "ben", gate).await, "recorded");
    // What waits has changed. The first approval was about something else, and counts no more.
    lab.admin.batch_execute("update nofx.db_write_rule set allowed_ops = '{insert,delete}'").await.unwrap();
    assert_eq!(approve(&lab, "carol", gate).await, "changed rule");
    assert_eq!(events(&lab, run, "gate.voided").await[0]["changed"], json!(["rule"]));
    assert_eq!(approve(&lab, "carol", gate).await, "recorded");
    assert!(!claim(&lab, run, step).await);
    assert_eq!(approve(&lab, "ben", gate).await, "passed", "who approved before may approve the change");
    assert!(claim(&lab, run, step).await);
}

#[tokio::test]
async fn each_decision_is_signed_by_its_own_key_and_names_what_it_is_about() {
    let lab = team().await;
    let (run, _) = waiting(&lab, 2).await;
    let gate_id = gate_of(&lab, run).await;
    for who in ["ben", "carol"] {
        let decided = GateDecision { actor: "mallory", reason: Some("read"), ..decision(gate_id, None) };
        decide_gate(&lab.ctx, &lab.person(who), &decided).await.unwrap();
    }
    let gate = shared::db::gate::gate_fetch(&lab.person("vic"), gate_id).await.unwrap().unwrap();
    let key = private_key(lab.ctx.config.decisions.key_file.as_ref().unwrap()).unwrap().public().clone();
    let mut people = Vec::new();
    for envelope in &gate.attestations {
        let verify = |keys: &[PublicKey]| Envelope::read(envelope.to_string().as_bytes()).unwrap().verify(keys, 1);
        let statement = verify(std::slice::from_ref(&key)).unwrap().statement().unwrap();
        assert!(verify(&[shared::signing::PrivateKey::generate().unwrap().public().clone()]).is_err());
        assert_eq!(statement.predicate_type, PREDICATE_TYPE);
        let named: BTreeSet<&str> = statement.subject.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(named, BTreeSet::from(["decision", "build/site.tar", "workspace archive"]));
        assert_eq!(statement.predicate["digest"], json!(gate.digest));
        assert_eq!(Some(&statement.predicate["covers"]), gate.covers.as_ref());
        assert_eq!(
            statement.predicate["actor"], statement.predicate["person"]["name"],
            "a name that somebody types counts nowhere"
        );
        people.push(statement.predicate["person"]["subject"].as_str().unwrap().to_owned());
    }
    assert_eq!(people, ["ben", "carol"]);
}

#[tokio::test]
async fn a_decision_that_cannot_be_signed_is_none() {
    let mut lab = team().await;
    let (run, _) = waiting(&lab, 1).await;
    let gate = gate_of(&lab, run).await;
    lab.ctx.config.decisions = SigningConfig::none(SigningConfig::DECISIONS);
    let ctx = lab.another_ctx().await;
    let refused = decide_gate(&ctx, &lab.person("ben"), &decision(gate, None)).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "signing_unavailable");
    // Who may not decide hears that, and not about keys.
    let excluded = decide_gate(&ctx, &lab.person("ann"), &decision(gate, None)).await.unwrap_err();
    assert_eq!(excluded.code().as_str(), "forbidden");
    assert_eq!(gate_of(&lab, run).await, gate);
}

const CSRF: &str = "0123456789abcdef0123456789abcdef";

/// Sends a request with a token. Returns the status and the body.
async fn send(router: axum::Router, path: &str, token: &str, media_type: &str, body: String) -> (u16, String) {
    let request = Request::post(path)
        .header(header::HOST, "api.example")
        .header(header::ORIGIN, "https://api.example")
        .header(header::COOKIE, format!("nofx-csrf={CSRF}"))
        .header(header::CONTENT_TYPE, media_type)
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    let answer = with_layers(router).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn every_path_refuses_the_same_decision_with_the_same_words() {
    let database = TestDatabase::create().await;
    let auth = Arc::new(AuthConfig { mode: Some(AuthMode::On), ..AuthConfig::default() });
    let config = shared::config::Config { auth, ..config(&database.url) };
    let lab = Box::pin(Lab::on(database, config)).await;
    lab.team(&[]).await;
    let token = lab.token(Kind::Person, Role::Admin).await;
    let starter = "person:admin";
    let plan = json!({ "goal": "ask", "steps": [plans::step("ask", "manual:go", json!({}))] });
    let run = start_as(&lab, &lab.person(starter), &plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gate = gate_of(&lab, run).await;
    let mut words = BTreeSet::new();
    for verb in ["approve", "reject", "waive"] {
        let (api, json) = (approvals::router(lab.ctx.clone()).unwrap(), "application/json");
        let (status, body) =
            send(api, &format!("/gates/{gate}/{verb}"), &token, json, r#"{"reason":"so"}"#.into()).await;
        let body: Value = serde_json::from_str(&body).expect(&body);
        assert_eq!((status, &body["code"]), (403, &json!("self_approval")), "{verb}: {body}");
        let said = body["detail"].as_str().unwrap().to_owned();
        let (console, form) = (console::router(lab.ctx.clone()).unwrap(), "application/x-www-form-urlencoded");
        let fields = format!("actor=ann&reason=so&csrf={CSRF}");
        let (status, page) = send(console, &format!("/ui/gates/{gate}/{verb}"), &token, form, fields).await;
        assert!(status == 403 && page.contains(&said), "{verb}: {status} {page}");
        assert!(!page.contains("id=\"do-"), "the page offers nothing that is refused: {page}");
        words.insert(said);
    }
    assert_eq!(words.len(), 1, "{words:?}");
    for verb in [Decision::Approve, Decision::Reject, Decision::Waive] {
        assert_eq!(word(decide_as(&lab.person(starter), gate, verb).await), "self");
    }
    let kept: i64 = lab.admin.query_one("select count(*) from nofx.approval", &[]).await.unwrap().get(0);
    assert_eq!(kept, 0);
}

/// Rounds of the race. Round `n` has the seed `n`. `RACE_ROUNDS` overrides the number.
const ROUNDS: u64 = 60;

/// Records each start of a step without a decision about exactly what it starts with.
const WATCH: &str = "
    create table public.unapproved (step_id uuid, attempt integer);
    create function public.watch() returns trigger language plpgsql security definer as $$
    begin
        insert into public.unapproved
        select s.id, new.attempt from nofx.step s
         where s.id = new.step_id and s.approval is not null
           and not exists (select from nofx.gate g
                            where g.step_id = s.id and g.status in ('passed', 'waived') and g.voided_at is null
                              and g.bound_digest = nofx.binding_digest(nofx.step_binding(s.id, null, null)));
        return null;
    end $$;
    create trigger watch after insert on nofx.attempt for each row execute function public.watch();";

/// What may happen at the same time. Each takes the run's lock, as every writer does.
fn event(lab: &Lab, run: RunId, step: StepId, gate: GateId, what: u64) -> BoxFuture<'_, ()> {
    let who = lab.person(["ben", "carol"][usize::try_from(what / 8 % 2).unwrap()]);
    async move {
        match what % 8 {
            0..=2 => drop(decide_as(&who, gate, Decision::Approve).await.unwrap()),
            3 | 4 => drop(claim(lab, run, step).await),
            5 => {
                let change = "with locked as materialized (select id from nofx.run where id = $1 for no key update)
                              update nofx.step s set outputs = jsonb_build_object('v', random())
                                from locked l where s.run_id = l.id and s.name = 'build' and s.status = 'succeeded'";
                lab.admin.execute(change, &[&run.0]).await.unwrap();
            }
            6 => {
                let over = "update nofx.gate set expires_at = now() - interval '1 second'
                             where run_id = $1 and status = 'pending'";
                lab.admin.execute(over, &[&run.0]).await.unwrap();
                sweep(&lab.ctx).await.unwrap();
            }
            _ => {
                // Either may be too early or too late.
                let _ = control_run(&lab.ctx, &who, run, Control::Cancel, "ben").await;
                let _ = control_run(&lab.ctx, &lab.person("ann"), run, Control::Retry, "ann").await;
            }
        }
    }
    .boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_races_nothing_starts_that_was_not_approved_as_it_is() {
    let lab = team().await;
    lab.admin.batch_execute(WATCH).await.unwrap();
    let mut started = 0;
    let rounds = env::var("RACE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("RACE_ROUNDS is a number"));
    for seed in 0..rounds {
        let (run, step) = waiting(&lab, 1 + u32::try_from(seed % 2).unwrap()).await;
        let gate = gate_of(&lab, run).await;
        // A linear congruential generator: the same seed, the same events.
        let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let events = (0..10).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            event(&lab, run, step, gate, state >> 33)
        });
        join_all(events.collect::<Vec<_>>()).await;
        // Whoever is asked approves in the end, and what is approved starts.
        let sql = "select id from nofx.gate where run_id = $1 and status = 'pending'";
        if let Some(row) = lab.admin.query_opt(sql, &[&run.0]).await.unwrap() {
            for who in ["ben", "carol", "ben", "carol"] {
                let _ = decide_as(&lab.person(who), GateId(row.get(0)), Decision::Approve).await.unwrap();
            }
        }
        claim(&lab, run, step).await;
        let bad: i64 = lab.admin.query_one("select count(*) from public.unapproved", &[]).await.unwrap().get(0);
        assert_eq!(bad, 0, "seed {seed}");
        let sql = "select count(*) from nofx.attempt where step_id = $1";
        started += lab.admin.query_one(sql, &[&step.0]).await.unwrap().get::<_, i64>(0);
        lab.sent().await;
    }
    assert!(started > 10, "the race tests nothing: {started} starts");
    lab.assert_invariants().await;
}
