//! What the tenant's policy demands, whatever a plan or a workspace says.

use nofx_gates::evidence::{GivenBy, Verdict};
use nofx_gates::judge::Request;
use nofx_sandbox::{Level, host};
use shared::domain::policy::{GatePolicy, Network, OnWeakening, Sandbox, TrustedBase};

use shared::domain::base_origin::{BaseOrigin, Relation, Standing};

use crate::sample::{Lab, Tree, change, doubts, failed, passed, request, shell_gate};

const REPOSITORY: &str = "https://git.test/acme/site";

fn under(policy: GatePolicy, request: Request) -> Request {
    Request { policy, ..request }
}

#[tokio::test]
async fn a_policy_may_refuse_weakened_checks_without_a_question() {
    let policy = GatePolicy { on_weakening: OnWeakening::Fail, ..GatePolicy::default() };
    let request = under(policy, change("check", &Tree::shell("false"), &Tree::shell("true")));
    let judged = Lab::new().judge(&request).await;
    assert_eq!(judged.question, None);
    assert_eq!((judged.evidence.verdict, judged.evidence.reason.code.as_str()), (Verdict::Failed, "checks_weakened"));
    assert!(judged.evidence.reason.message.contains("nofx.toml"), "{}", judged.evidence.reason.message);
}

#[tokio::test]
async fn a_policy_may_require_a_base() {
    let policy = GatePolicy { require_base: true, ..GatePolicy::default() };
    let tree = Tree::shell("true");
    let lab = Lab::new();
    assert_eq!(lab.verdict(&under(policy.clone(), request("check", &tree))).await, failed("base_required"));
    assert_eq!(lab.verdict(&under(policy, change("check", &tree, &tree))).await, passed("command_succeeded"));
}

#[tokio::test]
async fn a_policy_may_list_the_bases_that_it_trusts() {
    let lab = Lab::new();
    let (base, head) = (Tree::shell("true"), Tree::shell("true").with("a.js", "f();\n"));
    let tree = lab.evidence(&change("check", &base, &head)).await.base.tree.unwrap();
    let trusting = |digest: &str| {
        let trusted_base = TrustedBase::Listed(vec![digest.to_owned()]);
        under(GatePolicy { trusted_base, ..GatePolicy::default() }, change("check", &base, &head))
    };
    for digest in [&tree.sha1, &tree.sha256, &base.packed().sha256] {
        assert_eq!(lab.verdict(&trusting(digest)).await, passed("command_succeeded"), "{digest}");
    }
    // The change itself is not a base that the policy trusts.
    assert_eq!(lab.verdict(&trusting(&head.packed().sha256)).await, failed("base_not_trusted"));
}

#[tokio::test]
async fn a_policy_may_trust_only_bases_that_git_fetched() {
    let tree = Tree::shell("true");
    let repositories = vec![REPOSITORY.to_owned()];
    let policy = GatePolicy { trusted_base: TrustedBase::Git, repositories, ..GatePolicy::default() };
    let mut request = under(policy, change("check", &tree, &tree));
    let lab = Lab::new();
    for given_by in [GivenBy::Plan, GivenBy::Step, GivenBy::Caller] {
        request.base_given_by = given_by;
        assert_eq!(lab.verdict(&request).await, failed("base_not_trusted"), "{given_by:?}");
    }
    request.base_origin = Some(origin(Relation::Other));
    assert_eq!(lab.verdict(&request).await, failed("base_not_trusted"));
    request.base_origin = Some(origin(Relation::Tip));
    let evidence = lab.evidence(&request).await;
    assert_eq!((evidence.verdict, evidence.base.origin.unwrap().commit), (Verdict::Passed, "c".repeat(40)));
    request.base_origin = None;
    request.base_given_by = GivenBy::Policy;
    assert_eq!(lab.verdict(&request).await, passed("command_succeeded"));
}

/// A commit of the only repository that the policy of the test names.
fn origin(is: Relation) -> BaseOrigin {
    let standing = Standing { branch: "main".to_owned(), tip: "c".repeat(40), is, why: None };
    BaseOrigin {
        repository: REPOSITORY.to_owned(),
        commit: "c".repeat(40),
        standing: Some(standing),
        run_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
        step_id: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
        age_s: 0,
        has_workspace: false,
    }
}

#[tokio::test]
async fn a_gate_gets_the_network_only_if_it_asks_and_the_policy_allows_it() {
    let asks = Tree::defined(&shell_gate("check", "true", "network = true"));
    let lab = Lab::new();
    let denied = lab.evidence(&request("check", &asks)).await;
    assert_eq!((denied.verdict, denied.reason.code.as_str()), (Verdict::Failed, "network_denied"));
    assert_eq!(denied.command, None);
    let policy = GatePolicy { network: Network::WhenAsked, ..GatePolicy::default() };
    let open = lab.evidence(&under(policy.clone(), request("check", &asks))).await;
    assert_eq!((open.verdict, &open.sandbox["network"]), (Verdict::Passed, &"open".into()));
    assert!(doubts(&open).contains(&"network_open"));
    let closed = lab.evidence(&under(policy, request("check", &Tree::shell("true")))).await;
    assert_ne!(closed.sandbox["network"], "open");
}

#[tokio::test]
async fn a_gate_that_runs_the_command_of_another_gate_is_bound_by_the_same_terms() {
    let mutants = |tests: &str| format!("[gates.mutants]\nkind = \"mutants\"\nmutants = {{ tests = \"{tests}\" }}\n");
    let reports = "reports = [{ format = \"lcov\", path = \"$NOFX_REPORTS/lcov.info\" }]";
    let lab = Lab::new();
    let asks = shell_gate("unit", "true", &format!("network = true\n{reports}")) + &mutants("unit");
    assert_eq!(lab.verdict(&request("mutants", &Tree::defined(&asks))).await, failed("network_denied"));
    let risky = shell_gate("e2e_smoke", "true", reports) + &mutants("e2e_smoke");
    assert_eq!(lab.verdict(&request("mutants", &Tree::defined(&risky))).await, failed("risky_required"));
}

#[tokio::test]
async fn a_policy_may_demand_a_stronger_sandbox_than_the_host_has() {
    let policy = GatePolicy { minimum_sandbox: Sandbox::Namespaces, ..GatePolicy::default() };
    let request = under(policy, request("check", &Tree::shell("true")));
    assert_eq!(Lab::at(Level::Limits).verdict(&request).await, failed("sandbox_too_weak"));
    let expected =
        if host().level() == Level::Namespaces { passed("command_succeeded") } else { failed("sandbox_too_weak") };
    assert_eq!(Lab::new().verdict(&request).await, expected);
}

#[tokio::test]
async fn a_policy_may_raise_a_threshold_but_not_lower_it() {
    let definition = |threshold: f64| {
        let line = r"printf 'SF:src/a.js\nDA:1,1\nDA:2,0\nend_of_record\n' > $NOFX_REPORTS/lcov.info";
        let more = format!(
            "reports = [{{ format = \"lcov\", path = \"$NOFX_REPORTS/lcov.info\" }}]\ncoverage = {{ threshold = {threshold} }}"
        );
        Tree::defined(&shell_gate("unit", line, &more)).with("src/a.js", "f();\ng();\n")
    };
    let lab = Lab::new();
    assert_eq!(lab.verdict(&request("unit", &definition(0.5))).await, passed("threshold_met"));
    let policy = |least| GatePolicy { minimum_threshold: Some(least), ..GatePolicy::default() };
    assert_eq!(lab.verdict(&under(policy(0.6), request("unit", &definition(0.5)))).await, failed("below_threshold"));
    assert_eq!(lab.verdict(&under(policy(0.1), request("unit", &definition(0.9)))).await, failed("below_threshold"));
}
