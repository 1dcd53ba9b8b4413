//! A decision counts only while everybody who made it may still make it, and about nobody's own work.

use std::sync::Arc;

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::{Value, json};
use shared::auth::ApiToken;
use shared::db::Session;
use shared::db::gate::{self, GateCreated, GateDecided, GateDecision, GateRequest};
use shared::db::member::{self, MemberSet, NewMember};
use shared::db::run::Control;
use shared::db::token::{self, NewSession};
use shared::domain::gate::{Decision, GATE_CHANGE};
use shared::domain::outcome::{NewGateStatus, OnPass};
use shared::domain::principal::{Caller, Kind, Login, Permission, Role, Via};
use shared::domain::{GateId, NewGate, Outcome, RunId, Timestamp, TokenId};
use shared::flow::control_run::control_run;
use shared::flow::decide_gate::decide_gate;
use uuid::Uuid;

use crate::approvals::{approve, approved_step, asking, decide_as, events, gate_of, set_policy, start_as, team, word};
use crate::bound::{claim, retry_with, script, waiting};

async fn remove(lab: &Lab, who: &str) {
    member::member_remove(&lab.person("dan"), who, None).await.unwrap();
}

async fn add(lab: &Lab, who: &str, role: Role) -> MemberSet {
    let email = format!("{who}@acme.test");
    let new = NewMember { subject: who, role, name: who, email: Some(&email) };
    member::member_set(&lab.person("dan"), &new).await.unwrap()
}

#[tokio::test]
async fn who_made_a_file_that_a_plan_names_does_not_approve_what_becomes_of_it() {
    let lab = team().await;
    add(&lab, "eve", Role::Admin).await;
    // eve's run makes a file, and ann's plan names it, directly or by a run between them.
    let make = json!({ "goal": "make", "steps": [plans::step("build", "echo", json!({ "v": 1 }))] });
    let file_of = async |run: RunId| -> Uuid {
        let sql = "select id from nofx.artifact where run_id = $1 and name = 'site.tar'";
        lab.admin.query_one(sql, &[&run.0]).await.unwrap().get(0)
    };
    let first_run = start_as(&lab, &lab.person("eve"), &make).await;
    lab.settle(&script(), Deliver::Once).await;
    let first = file_of(first_run).await;
    let between = json!({ "goal": "pass on", "workspace": { "archive": first }, "steps": make["steps"] });
    let passed_on = start_as(&lab, &lab.person("dan"), &between).await;
    lab.settle(&script(), Deliver::Once).await;
    for file in [first, file_of(passed_on).await] {
        let ask = plans::step("ask", "manual:go", json!({}));
        let plan = json!({ "goal": "use", "workspace": { "archive": file }, "steps": [ask] });
        let run = start_as(&lab, &lab.person("ann"), &plan).await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
        let gate = gate_of(&lab, run).await;
        assert_eq!(approve(&lab, "eve", gate).await, "self");
        if file != first {
            assert_eq!(approve(&lab, "dan", gate).await, "self");
        }
        assert_eq!(approve(&lab, "ben", gate).await, "passed");
    }
}

#[tokio::test]
async fn who_left_and_came_back_decides_anew() {
    let lab = team().await;
    let (run, gate) = asking(&lab, "ann", json!({ "required": 2 })).await;
    assert_eq!(approve(&lab, "ben", gate).await, "recorded");
    remove(&lab, "ben").await;
    assert!(matches!(add(&lab, "ben", Role::Approver).await, MemberSet::Created { .. }));
    let seen = gate::gate_fetch(&lab.person("ben"), gate).await.unwrap().unwrap().standing;
    assert_eq!((seen.approved, seen.may_decide.unwrap().ok), (Some(0), true));
    assert_eq!(approve(&lab, "carol", gate).await, "recorded");
    assert_eq!(approve(&lab, "ben", gate).await, "passed");
    assert_eq!(lab.run_status(run).await, "succeeded");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_decision_that_would_not_count_today_is_not_kept_by_a_retry() {
    let lab = team().await;
    for change in ["left", "stricter"] {
        set_policy(&lab, json!({})).await;
        let (run, step) = waiting(&lab, 1).await;
        decide(&lab, "ben", gate_of(&lab, run).await).await;
        lab.settle(&script(), Deliver::Once).await;
        assert_eq!(lab.run_status(run).await, "failed");
        // Who approved may retry: that makes nobody an author of the bytes that they approved.
        control_run(&lab.ctx, &lab.person("ben"), run, Control::Retry, "ben").await.unwrap();
        lab.settle(&script(), Deliver::Once).await;
        assert_eq!((events(&lab, run, "gate.kept").await.len(), lab.step_status(step).await.as_str()), (1, "failed"));
        match change {
            "left" => remove(&lab, "ben").await,
            _ => set_policy(&lab, json!({ "minimum": 2 })).await,
        }
        retry_with(&lab, run).await;
        let voided = events(&lab, run, "gate.voided").await;
        assert_eq!((voided.len(), &voided[0]["changed"]), (1, &json!(["approvals"])), "{change}");
        assert_eq!(lab.step_status(step).await, "blocked");
        add(&lab, "ben", Role::Approver).await;
    }
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_waiver_of_somebody_who_is_no_admin_any_more_is_not_kept() {
    let lab = team().await;
    add(&lab, "eve", Role::Admin).await;
    let (run, step) = waiting(&lab, 1).await;
    let gate_id = gate_of(&lab, run).await;
    let waive = GateDecision { gate_id, decision: Decision::Waive, actor: "eve", reason: Some("so"), seen: None };
    decide_gate(&lab.ctx, &lab.person("eve"), &waive).await.unwrap();
    lab.settle(&script(), Deliver::Once).await;
    add(&lab, "eve", Role::Approver).await;
    retry_with(&lab, run).await;
    assert_eq!((events(&lab, run, "gate.voided").await.len(), lab.step_status(step).await.as_str()), (1, "blocked"));
}

#[tokio::test]
async fn an_approval_of_ones_own_work_is_not_kept_once_the_policy_forbids_it() {
    let lab = team().await;
    add(&lab, "ann", Role::Approver).await;
    set_policy(&lab, json!({ "self": "allowed" })).await;
    let (run, step) = waiting(&lab, 1).await;
    decide(&lab, "ann", gate_of(&lab, run).await).await;
    assert_eq!(events(&lab, run, "gate.passed").await[0]["is_self"], true);
    lab.settle(&script(), Deliver::Once).await;
    retry_with(&lab, run).await;
    assert_eq!((events(&lab, run, "gate.kept").await.len(), lab.step_status(step).await.as_str()), (1, "failed"));
    set_policy(&lab, json!({})).await;
    retry_with(&lab, run).await;
    assert_eq!((events(&lab, run, "gate.voided").await.len(), lab.step_status(step).await.as_str()), (1, "blocked"));
}

#[tokio::test]
async fn a_gate_before_a_step_is_asked_again_if_its_approval_would_not_count_today() {
    let lab = team().await;
    let fails = Script::overriding(|_, _| async move { Some(nofx_tests::script::broken()) });
    let plan = json!({ "goal": "g", "steps": [plans::step("x", "echo", json!({}))] });
    let run = start_as(&lab, &lab.person("ann"), &plan).await;
    let request = GateRequest {
        id: GateId(Uuid::now_v7()),
        run_id: run,
        step_id: Some(lab.step(run, "x").await),
        gate_type: "review".into(),
        evidence_uri: None,
        reason: None,
        expires_after_s: Some(86_400),
    };
    gate::gate_create(&lab.person("ann"), &request).await.unwrap();
    decide(&lab, "ben", request.id).await;
    lab.settle(&fails, Deliver::Once).await;
    control_run(&lab.ctx, &lab.person("ann"), run, Control::Retry, "ann").await.unwrap();
    lab.settle(&fails, Deliver::Once).await;
    assert_eq!(lab.run_status(run).await, "failed", "what still counts is not asked again");
    set_policy(&lab, json!({ "minimum": 2, "max_expires_after_s": 60 })).await;
    control_run(&lab.ctx, &lab.person("ann"), run, Control::Retry, "ann").await.unwrap();
    let again = gate_of(&lab, run).await;
    let waits = "select extract(epoch from expires_at - created_at)::integer::text from nofx.gate where id = $1";
    assert_eq!(lab.text(waits, again.0).await, "60");
    assert_eq!(
        (approve(&lab, "ben", again).await, approve(&lab, "carol", again).await),
        ("recorded".into(), "passed".into())
    );
}

#[tokio::test]
async fn a_run_has_a_bounded_number_of_gates_of_clients() {
    let lab = team().await;
    let plan = json!({ "goal": "g", "steps": [plans::step("x", "echo", json!({}))] });
    let run = start_as(&lab, &lab.person("ann"), &plan).await;
    let create = async || {
        let request = GateRequest {
            id: GateId(Uuid::now_v7()),
            run_id: run,
            step_id: None,
            gate_type: "review".into(),
            evidence_uri: None,
            reason: None,
            expires_after_s: None,
        };
        gate::gate_create(&lab.person("ann"), &request).await.unwrap()
    };
    assert_eq!(create().await, GateCreated::Created);
    let copies = "insert into nofx.gate
                  select (jsonb_populate_record(g, jsonb_build_object('id', gen_random_uuid()))).*
                    from nofx.gate g cross join generate_series(1, $2) where g.run_id = $1";
    lab.admin.execute(copies, &[&run.0, &998]).await.unwrap();
    assert_eq!(create().await, GateCreated::Created, "the last one");
    assert_eq!(create().await, GateCreated::Full { maximum: 1000 });
}

async fn decide(lab: &Lab, who: &str, gate_id: GateId) {
    let decision = GateDecision { gate_id, decision: Decision::Approve, actor: who, reason: None, seen: None };
    decide_gate(&lab.ctx, &lab.person(who), &decision).await.unwrap();
}

#[tokio::test]
async fn a_write_goes_by_the_rule_that_people_approved() {
    let lab = team().await;
    let (run, step) = waiting(&lab, 1).await;
    decide(&lab, "ben", gate_of(&lab, run).await).await;
    assert!(claim(&lab, run, step).await);
    let look = async || -> Value {
        let call = json!({ "tenant_id": "acme", "step_id": step, "schema": "public", "table": "t" });
        lab.admin.query_one("select nofx.db_write_look($1)", &[&call]).await.unwrap().get(0)
    };
    assert_eq!(look().await["is_rule_approved"], true);
    lab.admin.batch_execute("update nofx.db_write_rule set allowed_ops = '{insert,delete}'").await.unwrap();
    assert_eq!(look().await["is_rule_approved"], false);
}

#[tokio::test]
async fn a_rule_counts_also_if_the_plan_does_not_say_yet_which_table() {
    let lab = team().await;
    let rules =
        "insert into nofx.db_write_rule (tenant_id, table_name, allowed_ops) values ('acme', 'public.t', '{insert}')";
    lab.admin.batch_execute(rules).await.unwrap();
    let table = plans::step("table", "echo", json!({ "v": "public.t" }));
    let inputs = json!({ "table": "${{ steps.table.outputs.v }}", "op": "insert", "values": [{ "v": 1 }] });
    let mut write = plans::step("write", "db_write", inputs);
    write["approval"] = json!({});
    let run = start_as(&lab, &lab.person("ann"), &json!({ "goal": "g", "steps": [table, write] })).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    decide(&lab, "ben", gate_of(&lab, run).await).await;
    lab.admin.batch_execute("update nofx.db_write_rule set allowed_ops = '{insert,delete}'").await.unwrap();
    let step = lab.step(run, "write").await;
    assert!(!claim(&lab, run, step).await);
    assert_eq!(events(&lab, run, "gate.voided").await[0]["changed"], json!(["rule"]));
}

/// A new session of somebody who has logged in.
async fn session_of(lab: &Lab, caller: Caller) -> Session {
    let login = Session::new(lab.ctx.db.clone(), Arc::new(caller.clone()), Permission::SessionsCreate);
    let made = ApiToken::generate(Kind::Person, TokenId(Uuid::now_v7()), lab.tenant.clone()).unwrap();
    let new = NewSession { id: made.id, name: "s", secret_sha256: made.hash().to_hex(), expires_in_s: 3600 };
    token::session_create(&login, &new).await.unwrap();
    let caller = Caller { via: Via::Token { id: made.id, kind: Kind::Person, hash: made.hash() }, ..caller };
    Session::new(lab.ctx.db.clone(), Arc::new(caller), Permission::RunsRead)
}

#[tokio::test]
async fn a_new_session_does_not_make_an_old_login_younger() {
    let lab = team().await;
    let (_, gate) = asking(&lab, "ann", json!(null)).await;
    set_policy(&lab, json!({ "max_session_age_s": 60 })).await;
    let session_of_login = async |at: Timestamp| {
        let via = Via::Jwt(Login { email: None, aal: None, at: Some(at) });
        session_of(&lab, Caller { via, ..lab.caller("ben") }).await
    };
    let old = session_of_login(Timestamp("2026-01-01T00:00:00Z".into())).await;
    assert_eq!(word(decide_as(&old, gate, Decision::Approve).await), "session");
    // When its person logged in, the issuer did not say.
    let caller = Caller { via: Via::Jwt(Login::default()), ..lab.caller("ben") };
    assert_eq!(word(decide_as(&session_of(&lab, caller).await, gate, Decision::Approve).await), "session");
    let Via::Jwt(Login { at: Some(now), .. }) = lab.caller("ben").via else { panic!("a login") };
    assert_eq!(word(decide_as(&session_of_login(now).await, gate, Decision::Approve).await), "passed");
}

#[tokio::test]
async fn what_nobody_signed_decides_nothing() {
    let lab = team().await;
    let (run, gate_id) = asking(&lab, "ann", json!(null)).await;
    let decision = GateDecision { gate_id, decision: Decision::Approve, actor: "ben", reason: None, seen: None };
    // The person could decide by now, but when the gate was read they could not, so nothing was signed.
    let GateDecided::Changed { changed } = gate::gate_decide(&lab.person("ben"), &decision, None, None).await.unwrap()
    else {
        panic!("decided");
    };
    assert_eq!(changed, ["may_decide"]);
    assert_eq!(lab.run_status(run).await, "blocked");
    assert!(gate::gate_fetch(&lab.person("ben"), gate_id).await.unwrap().unwrap().standing.approvals.is_empty());
}

#[tokio::test]
async fn no_two_members_look_the_same() {
    let lab = team().await;
    let dan = lab.person("dan");
    let set = async |subject: &str, name: &str, email: Option<&str>| {
        member::member_set(&dan, &NewMember { subject, role: Role::Viewer, name, email }).await.unwrap()
    };
    let sneaky = set("carol@acme.test", "Eve", None).await;
    assert_eq!(sneaky, MemberSet::NameTaken, "a subject that is somebody's address");
    for (name, email, result) in [
        ("BEN", None, MemberSet::NameTaken),
        ("ben@acme.test", None, MemberSet::NameTaken),
        ("Eve", Some("Ben@acme.test"), MemberSet::EmailTaken),
    ] {
        assert_eq!(set("eve", name, email).await, result, "{name}");
    }
    assert!(matches!(set("eve", "eve", Some("eve@acme.test")).await, MemberSet::Created { .. }));
    // One's own name, and that of somebody who left.
    assert!(matches!(set("vic", "vic@acme.test", Some("vic@acme.test")).await, MemberSet::Replaced { .. }));
    remove(&lab, "ben").await;
    assert!(matches!(set("eve", "ben", Some("eve@acme.test")).await, MemberSet::Replaced { .. }));
}

#[tokio::test]
async fn a_gate_about_changed_checks_follows_the_policy_alone() {
    let lab = team().await;
    set_policy(&lab, json!({ "self": "allowed" })).await;
    let asked = Script::overriding(|step, _| async move {
        let asks = NewGate {
            id: GateId(Uuid::now_v7()),
            gate_type: GATE_CHANGE.into(),
            status: NewGateStatus::Pending,
            subject: None,
            evidence_uri: None,
            on_pass: OnPass::Resume,
            expires_after_s: None,
            reason: Some("the change deletes a test".into()),
        };
        (step.name == "deploy").then(|| Outcome::blocked(asks))
    });
    let run = approved_step(&lab, json!({ "people": ["ben"] })).await;
    decide(&lab, "ben", gate_of(&lab, run).await).await;
    lab.settle(&asked, Deliver::Once).await;
    let gate = gate_of(&lab, run).await;
    assert_eq!(
        approve(&lab, "carol", gate).await,
        "passed",
        "the plan's people do not decide whether checks may change"
    );
}
