//! Approvals: who may decide, how many people it takes, and that every rule holds in the database.

use std::sync::Arc;

use futures::future::join_all;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::auth::ApiToken;
use shared::db::Session;
use shared::db::gate::{self, GateDecided, GateDecision};
use shared::db::policy::{self, NewPolicy};
use shared::db::run::Control;
use shared::domain::gate::Decision;
use shared::domain::principal::{Caller, Kind, Login, Permission, Role, Via};
use shared::domain::{GateId, GateStatus, RunId, Timestamp, TokenId};
use shared::error::Error;
use shared::flow::check_plan::check_plan;
use shared::flow::control_run::control_run;
use shared::flow::create_run::{Request, create_run};
use shared::flow::decide_gate::decide_gate;
use shared::flow::sweep::sweep;
use shared::view::WhyNot;
use uuid::Uuid;

/// ann starts runs. The others decide.
pub(crate) const TEAM: [(&str, Role); 5] = [
    ("ann", Role::Operator),
    ("ben", Role::Approver),
    ("carol", Role::Approver),
    ("dan", Role::Admin),
    ("vic", Role::Viewer),
];

pub(crate) async fn team() -> Lab {
    let lab = Lab::new().await;
    lab.team(&TEAM).await;
    lab
}

pub(crate) async fn start_as(lab: &Lab, session: &Session, plan: &Value) -> RunId {
    let body = json!({ "plan": plan });
    let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
    create_run(&lab.ctx, session, &request).await.expect("the plan is accepted").id
}

/// A run that waits for its only step, which only asks.
pub(crate) async fn asking(lab: &Lab, who: &str, approval: Value) -> (RunId, GateId) {
    let inputs = if approval.is_null() { json!({}) } else { json!({ "approval": approval }) };
    let plan = json!({ "goal": "ask", "steps": [plans::step("ask", "manual:go", inputs)] });
    let run = start_as(lab, &lab.person(who), &plan).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    (run, gate_of(lab, run).await)
}

/// The pending gate of a run.
pub(crate) async fn gate_of(lab: &Lab, run: RunId) -> GateId {
    let sql = "select id from nofx.gate where run_id = $1 and status = 'pending'";
    GateId(lab.admin.query_one(sql, &[&run.0]).await.expect("one pending gate").get(0))
}

pub(crate) async fn decide_as(session: &Session, gate_id: GateId, decision: Decision) -> Result<GateDecided, Error> {
    let decision = GateDecision { gate_id, decision, actor: "somebody else", reason: Some("because"), seen: None };
    gate::gate_decide(session, &decision, Some(&json!({})), None).await
}

pub(crate) async fn decide(lab: &Lab, who: &str, gate: GateId, decision: Decision) -> String {
    word(decide_as(&lab.person(who), gate, decision).await)
}

pub(crate) async fn approve(lab: &Lab, who: &str, gate: GateId) -> String {
    decide(lab, who, gate, Decision::Approve).await
}

/// What became of a decision, in a word. Of an exclusion, why.
pub(crate) fn word(decided: Result<GateDecided, Error>) -> String {
    match decided {
        Ok(GateDecided::Decided { gate, .. }) => gate.status.to_string(),
        Ok(GateDecided::Recorded { .. }) => "recorded".into(),
        Ok(GateDecided::Unchanged { .. }) => "unchanged".into(),
        Ok(GateDecided::Excluded { why }) => serde_json::to_value(why).unwrap().as_str().unwrap().to_owned(),
        Ok(GateDecided::Changed { changed }) => format!("changed {}", changed.join(" ")),
        Ok(GateDecided::Link { why }) => format!("link {why:?}"),
        Ok(GateDecided::Conflict { .. }) => "conflict".into(),
        Ok(GateDecided::NotFound) => "not_found".into(),
        Err(Error::NotPermitted(permission)) => format!("no {permission}"),
        Err(error) => panic!("{error:?}"),
    }
}

fn count_of(number: usize) -> i64 {
    i64::try_from(number).unwrap()
}

/// What a reader sees, which must be what a decision of theirs would meet.
async fn may(lab: &Lab, who: &str, gate: GateId) -> Option<WhyNot> {
    let seen = gate::gate_fetch(&lab.person(who), gate).await.unwrap().expect("the gate");
    let may = seen.standing.may_decide.expect("an answer");
    assert_eq!(may.ok, may.why.is_none());
    may.why
}

pub(crate) async fn set_policy(lab: &Lab, approvals: Value) {
    let document = json!({ "approvals": approvals });
    let new = NewPolicy { document: &document, actor: "dan", reason: None, if_version: None };
    policy::policy_set(&lab.person("dan"), &new).await.unwrap();
}

pub(crate) async fn events(lab: &Lab, run: RunId, kind: &str) -> Vec<Value> {
    let sql = "select payload from nofx.event where run_id = $1 and type = $2 order by seq";
    lab.admin.query(sql, &[&run.0, &kind]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_concurrent_decisions_exactly_the_quorum_counts_and_each_person_once() {
    let lab = Lab::new().await;
    let approvers: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let mut people: Vec<(&str, Role)> = approvers.iter().map(|name| (name.as_str(), Role::Approver)).collect();
    people.extend([("starter", Role::Approver), ("gone", Role::Approver), ("operator", Role::Operator)]);
    lab.team(&people).await;
    for required in [1_usize, 2, 5] {
        let (run, gate) = asking(&lab, "starter", json!({ "required": required })).await;
        let sql = "update nofx.membership set removed_at = now() where subject = 'gone'";
        lab.admin.batch_execute(sql).await.unwrap();
        let names = ["starter", "gone", "operator"].into_iter().chain(approvers.iter().map(String::as_str));
        let deciders: Vec<&str> = names.cycle().take(50).collect();
        let answers = join_all(deciders.iter().map(|who| {
            let session = lab.person(who);
            async move { word(decide_as(&session, gate, Decision::Approve).await) }
        }))
        .await;
        let count = |word: &str| answers.iter().filter(|answer| *answer == word).count();
        assert_eq!((count("passed"), count("recorded")), (1, required - 1), "{answers:?}");
        for (who, answer) in deciders.iter().zip(&answers) {
            let expected: &[&str] = match *who {
                "starter" => &["self", "conflict"],
                "gone" | "operator" => &["no gates.decide"],
                _ => &["passed", "recorded", "unchanged", "conflict"],
            };
            assert!(expected.contains(&answer.as_str()), "{who}: {answer}");
        }
        let sql = "select count(*), count(distinct subject), count(*) filter (where decides),
                          bool_and(subject not in ('starter', 'gone', 'operator')) from nofx.approval where gate_id = $1";
        let row = lab.admin.query_one(sql, &[&gate.0]).await.unwrap();
        assert_eq!(
            (row.get(0), row.get(1), row.get(2), row.get(3)),
            (count_of(required), count_of(required), 1_i64, true)
        );
        assert_eq!(lab.run_status(run).await, "succeeded");
        assert_eq!(events(&lab, run, "gate.approved").await.len(), required - 1);
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn nobody_approves_their_own_work() {
    let lab = Lab::new().await;
    let mut people = TEAM.to_vec();
    people.extend([
        ("starter", Role::Approver),
        ("retrier", Role::Admin),
        ("uploader", Role::Approver),
        ("owner", Role::Admin),
    ]);
    lab.team(&people).await;
    // Uploaded by one, started with the token of another, retried by a third.
    let upload = Uuid::new_v4();
    let call = json!({ "caller": lab.caller("uploader"), "id": upload, "name": "w.tar", "type": "workspace", "uri": "s3://b/w",
                       "hash": "0".repeat(64), "size_bytes": 1, "media_type": "application/x-tar" });
    lab.admin.query_one("select nofx.artifact_upload($1)", &[&call]).await.unwrap();
    let ask = plans::step("ask", "manual:go", json!({ "about": [{ "file": upload }] }));
    let run = start_as(&lab, &agent(&lab, "owner").await, &json!({ "goal": "g", "steps": [ask] })).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(decide(&lab, "ben", gate_of(&lab, run).await, Decision::Reject).await, "failed");
    retry(&lab, "retrier", run).await;
    let gate = gate_of(&lab, run).await;
    for who in ["uploader", "owner", "retrier"] {
        assert_eq!(may(&lab, who, gate).await, Some(WhyNot::OwnWork), "{who}");
        for decision in [Decision::Approve, Decision::Reject] {
            assert_eq!(decide(&lab, who, gate, decision).await, "self", "{who} {decision:?}");
        }
    }
    for who in ["owner", "retrier"] {
        assert_eq!(decide(&lab, who, gate, Decision::Waive).await, "self", "a waiver is no way around: {who}");
    }
    // The policy may let owners approve what their agents did, and everybody their own work. It counts for gates that
    // are created from then on.
    set_policy(&lab, json!({ "owners": "allowed" })).await;
    assert_eq!(may(&lab, "owner", gate).await, Some(WhyNot::OwnWork));
    assert_eq!(decide(&lab, "ben", gate, Decision::Reject).await, "failed");
    retry(&lab, "retrier", run).await;
    let gate = gate_of(&lab, run).await;
    assert_eq!((may(&lab, "owner", gate).await, may(&lab, "retrier", gate).await), (None, Some(WhyNot::OwnWork)));
    set_policy(&lab, json!({ "self": "allowed" })).await;
    assert_eq!(decide(&lab, "ben", gate, Decision::Reject).await, "failed");
    retry(&lab, "retrier", run).await;
    assert_eq!(approve(&lab, "retrier", gate_of(&lab, run).await).await, "passed");

    // A plan can keep it out even so.
    let (_, strict) = asking(&lab, "starter", json!({ "self": false })).await;
    assert_eq!(approve(&lab, "starter", strict).await, "self");
}

/// The session of an agent of this owner.
async fn agent(lab: &Lab, owner: &str) -> Session {
    let token = ApiToken::generate(Kind::Agent, TokenId(Uuid::new_v4()), lab.tenant.clone()).unwrap();
    let sql = "insert into nofx.api_token (id, tenant_id, kind, subject, owner, name, role, secret_sha256, expires_at)
               values ($1, $2, 'agent', 'agent:x', $3, 'x', 'operator', $4, clock_timestamp() + interval '1 hour')";
    let hash = token.hash().as_bytes().to_vec();
    lab.admin.execute(sql, &[&token.id.0, &lab.tenant.0, &owner, &hash]).await.unwrap();
    let via = Via::Token { id: token.id, kind: Kind::Agent, hash: token.hash() };
    let caller = Caller { subject: token.id.to_string(), via, ..lab.caller("agent:x") };
    Session::new(lab.ctx.db.clone(), Arc::new(caller), Permission::RunsRead)
}

pub(crate) async fn retry(lab: &Lab, who: &str, run: RunId) {
    control_run(&lab.ctx, &lab.person(who), run, Control::Retry, who).await.unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
}

#[tokio::test]
async fn a_policy_that_becomes_stricter_binds_the_gates_that_wait() {
    let lab = team().await;
    let (run, gate) = asking(&lab, "ann", json!(null)).await;
    set_policy(&lab, json!({ "minimum": 2, "roles": ["admin"], "waive": "nobody" })).await;
    assert_eq!(approve(&lab, "ben", gate).await, "not_named");
    assert_eq!(decide(&lab, "dan", gate, Decision::Waive).await, "waive");
    assert_eq!(approve(&lab, "dan", gate).await, "recorded");
    assert_eq!(
        (approve(&lab, "dan", gate).await.as_str(), may(&lab, "dan", gate).await),
        ("unchanged", Some(WhyNot::Done))
    );
    // A looser policy does not loosen what the gate has once demanded of a decision.
    set_policy(&lab, json!({})).await;
    assert_eq!(approve(&lab, "ben", gate).await, "not_named");
    assert_eq!(lab.run_status(run).await, "blocked");
    // An approval counts only while its person may still decide.
    let (run, gate) = asking(&lab, "ann", json!({ "required": 2 })).await;
    assert_eq!(approve(&lab, "ben", gate).await, "recorded");
    lab.admin.batch_execute("update nofx.membership set removed_at = now() where subject = 'ben'").await.unwrap();
    let seen = gate::gate_fetch(&lab.person("vic"), gate).await.unwrap().unwrap().standing;
    assert_eq!((seen.required, seen.approved, seen.eligible, seen.approvals.len()), (Some(2), Some(0), Some(2), 1));
    assert_eq!(approve(&lab, "carol", gate).await, "recorded");
    assert_eq!(approve(&lab, "dan", gate).await, "passed");
    assert_eq!(lab.run_status(run).await, "succeeded");
}

#[tokio::test]
async fn lists_name_who_decides_and_a_rejection_is_a_veto() {
    let lab = team().await;
    let (_, gate) = asking(&lab, "ann", json!({ "people": ["CAROL@acme.test", "dan"], "required": 2 })).await;
    let ways = [
        ("ann", Some(WhyNot::Role)),
        ("vic", Some(WhyNot::Role)),
        ("ben", Some(WhyNot::NotNamed)),
        ("carol", None),
        ("dan", None),
    ];
    for (who, why) in ways {
        assert_eq!(may(&lab, who, gate).await, why, "{who}");
    }
    assert_eq!(approve(&lab, "ben", gate).await, "not_named");
    assert_eq!(approve(&lab, "carol", gate).await, "recorded");
    // Whoever has approved may still change their mind.
    assert_eq!(decide(&lab, "carol", gate, Decision::Reject).await, "failed");
    assert_eq!(
        (approve(&lab, "dan", gate).await, may(&lab, "dan", gate).await),
        ("conflict".into(), Some(WhyNot::Decided))
    );

    let (_, gate) = asking(&lab, "ann", json!({ "roles": ["admin"] })).await;
    assert_eq!(
        (approve(&lab, "ben", gate).await, approve(&lab, "dan", gate).await),
        ("not_named".into(), "passed".into())
    );
    // Who is not in the lists may waive as an admin, with a reason.
    let (_, gate) = asking(&lab, "ann", json!({ "people": ["carol"] })).await;
    assert_eq!(decide(&lab, "ben", gate, Decision::Waive).await, "no gates.waive");
    for reason in [None, Some(" \n")] {
        let decision = GateDecision { gate_id: gate, decision: Decision::Waive, actor: "dan", reason, seen: None };
        gate::gate_decide(&lab.person("dan"), &decision, Some(&json!({})), None).await.expect_err("no reason");
    }
    assert_eq!(decide(&lab, "dan", gate, Decision::Waive).await, "waived");
}

#[tokio::test]
async fn an_old_session_decides_nothing_if_the_policy_says_so() {
    let lab = team().await;
    let (_, gate) = asking(&lab, "ann", json!(null)).await;
    set_policy(&lab, json!({ "max_session_age_s": 60 })).await;
    let ago = |at: &str| {
        let mut caller = lab.caller("ben");
        caller.via = Via::Jwt(Login { email: None, aal: None, at: Some(Timestamp(at.into())) });
        Session::new(lab.ctx.db.clone(), Arc::new(caller), Permission::RunsRead)
    };
    for old in [
        ago("2026-01-01T00:00:00Z"),
        Session::new(
            lab.ctx.db.clone(),
            Arc::new(Caller { via: Via::Jwt(Login::default()), ..lab.caller("ben") }),
            Permission::RunsRead,
        ),
    ] {
        assert_eq!(word(decide_as(&old, gate, Decision::Approve).await), "session");
    }
    assert_eq!(approve(&lab, "ben", gate).await, "passed");
}

#[tokio::test]
async fn the_one_person_of_a_local_tenant_approves_and_the_record_says_so() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::approval(600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let gate = gate_of(&lab, run).await;
    assert_eq!(word(decide_as(&lab.session(), gate, Decision::Approve).await), "passed");
    let seen = gate::gate_fetch(&lab.session(), gate).await.unwrap().unwrap();
    assert!(seen.standing.approvals[0].is_self);
    assert_eq!(events(&lab, run, "gate.passed").await[0]["is_self"], true);
}

/// A run of two steps. The second needs an approval before it starts.
pub(crate) async fn approved_step(lab: &Lab, approval: Value) -> RunId {
    let mut deploy = plans::step("deploy", "echo", json!({ "from": "${{ steps.build.outputs.v }}" }));
    deploy["approval"] = approval;
    let steps = [plans::step("build", "echo", json!({ "v": 1 })), deploy];
    let run = start_as(lab, &lab.person("ann"), &json!({ "goal": "deploy", "steps": steps })).await;
    lab.settle(&Script::deployed(), Deliver::Thrice).await;
    run
}

#[tokio::test]
async fn a_step_with_an_approval_starts_after_it_and_not_before() {
    let lab = team().await;
    let approval = json!({ "required": 2, "reason": "Deploys", "expires_after_s": 600, "remind_after_s": 60 });
    let run = approved_step(&lab, approval).await;
    let deploy = lab.step(run, "deploy").await;
    assert_eq!((lab.run_status(run).await, lab.step_status(deploy).await), ("blocked".into(), "blocked".into()));
    let gate = gate_of(&lab, run).await;
    let seen = gate::gate_fetch(&lab.person("vic"), gate).await.unwrap().unwrap();
    assert_eq!((seen.gate_type.as_str(), seen.reason.as_deref()), ("approval:echo", Some("Deploys")));
    assert_eq!(approve(&lab, "ben", gate).await, "recorded");
    assert_eq!(lab.step_status(deploy).await, "blocked");
    let started = "select count(*) from nofx.attempt where step_id = $1";
    assert_eq!(lab.admin.query_one(started, &[&deploy.0]).await.unwrap().get::<_, i64>(0), 0);
    let decision =
        GateDecision { gate_id: gate, decision: Decision::Approve, actor: "carol", reason: None, seen: None };
    let decided = decide_gate(&lab.ctx, &lab.person("carol"), &decision).await.unwrap();
    assert_eq!((decided.status, decided.approved_by.as_deref()), (GateStatus::Passed, Some("ben, carol")));
    lab.settle(&Script::deployed(), Deliver::Thrice).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn an_asked_gate_reminds_once_expires_and_is_asked_again_by_a_retry() {
    let lab = team().await;
    set_policy(&lab, json!({ "max_expires_after_s": 300 })).await;
    let run = approved_step(&lab, json!({ "remind_after_s": 60 })).await;
    let gate = gate_of(&lab, run).await;
    let longest = "select extract(epoch from expires_at - created_at)::integer from nofx.gate where id = $1";
    assert_eq!(
        lab.admin.query_one(longest, &[&gate.0]).await.unwrap().get::<_, i32>(0),
        300,
        "the policy's longest time"
    );
    let due = "update nofx.gate set remind_at = now() - interval '1 second' where id = $1 and reminded_at is null";
    lab.admin.execute(due, &[&gate.0]).await.unwrap();
    for _ in 0..2 {
        sweep(&lab.ctx).await.unwrap();
    }
    assert_eq!(events(&lab, run, "gate.reminder").await.len(), 1);
    lab.admin
        .execute("update nofx.gate set expires_at = now() - interval '1 second' where id = $1", &[&gate.0])
        .await
        .unwrap();
    assert_eq!(
        (approve(&lab, "ben", gate).await, may(&lab, "ben", gate).await),
        ("conflict".into(), Some(WhyNot::Expired))
    );
    sweep(&lab.ctx).await.unwrap();
    assert_eq!(lab.run_status(run).await, "failed");
    retry(&lab, "ann", run).await;
    let again = gate_of(&lab, run).await;
    assert_ne!(again, gate);
    decide_gate(
        &lab.ctx,
        &lab.person("ben"),
        &GateDecision { gate_id: again, decision: Decision::Approve, actor: "ben", reason: None, seen: None },
    )
    .await
    .unwrap();
    lab.settle(&Script::deployed(), Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_plan_that_names_fewer_people_than_the_policy_demands_is_refused() {
    let lab = team().await;
    set_policy(&lab, json!({ "minimum": 3 })).await;
    let mut deploy = plans::step("deploy", "echo", json!({}));
    deploy["approval"] = json!({ "people": ["ben", "carol"] });
    let ask = plans::step("ask", "manual:go", json!({ "approval": { "people": ["ben"] } }));
    let body = json!({ "plan": { "goal": "g", "steps": [deploy, ask] } });
    let request = Request { body: &body, idempotency_key: None, traceparent: None, actor: None };
    let problems = |error: Error| match error {
        Error::Invalid(problems) => problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let paths = ["plan.steps[0].approval.people", "plan.steps[1].inputs.approval.people"];
    assert_eq!(problems(create_run(&lab.ctx, &lab.person("ann"), &request).await.unwrap_err()), paths);
    assert_eq!(problems(check_plan(&lab.ctx, &lab.person("ann"), &body).await.unwrap_err()), paths);
    set_policy(&lab, json!({ "minimum": 2, "self": "allowed" })).await;
    let body = json!({ "plan": { "goal": "g", "steps": [body["plan"]["steps"][0]] } });
    let checked = check_plan(&lab.ctx, &lab.person("ann"), &body).await.unwrap();
    let rule = checked.steps[0].approval.clone().expect("a rule");
    assert_eq!((rule.required, rule.by_self, rule.people.map(|people| people.len())), (2, true, Some(2)));
}
