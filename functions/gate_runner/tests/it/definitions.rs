//! What counts is the base's definition. A change that weakens it asks a person.

use nofx_gates::evidence::{Source, Verdict};
use nofx_gates::judge::{Archive, BaseInput, Request};

use crate::sample::{Lab, Tree, approved, change, doubts, failed, passed, request, shell_gate, weakenings};

fn project() -> Tree {
    Tree::shell("grep -q good src/a.js").with("src/a.js", "good();\n")
}

/// Asserts that the change blocks on a question about this path, and that its approval lets it pass.
async fn asks(gate: &str, base: &Tree, head: &Tree, kind: &str, path: &str) {
    let lab = Lab::new();
    let request = change(gate, base, head);
    let judged = lab.judge(&request).await;
    let evidence = &judged.evidence;
    assert_eq!((evidence.verdict, evidence.reason.code.as_str()), (Verdict::Blocked, "checks_weakened"), "{path}");
    assert!(weakenings(evidence).contains(&(kind, path)), "{:?}", weakenings(evidence));
    assert_eq!(evidence.command, None, "nothing runs before a person decides");
    let shown = judged.attachments.iter().find(|attachment| attachment.name == "gate-change.json").unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.bytes).unwrap();
    assert_eq!(shown["subject"], serde_json::Value::Object(judged.question.clone().unwrap().subject));
    assert!(shown["weakenings"].as_array().unwrap().iter().any(|one| one["path"] == path), "{shown}");
    let evidence = lab.evidence(&approved(&request, &judged)).await;
    assert_eq!(evidence.verdict, Verdict::Passed, "{}", evidence.reason.message);
    assert_eq!(evidence.definition.as_ref().unwrap().source, Source::Approved);
    assert_eq!(evidence.approvals[0].by, "ann");
    assert!(doubts(&evidence).contains(&"definition_approved"));
}

#[tokio::test]
async fn without_a_base_the_change_defines_its_gate_and_the_evidence_says_so() {
    let evidence = Lab::new().evidence(&request("check", &project())).await;
    assert_eq!(evidence.definition.as_ref().unwrap().source, Source::Candidate);
    assert!(doubts(&evidence).contains(&"definition_candidate"));
    assert!(evidence.integrity.is_none());
}

#[tokio::test]
async fn an_honest_change_is_judged_by_the_definition_of_the_base() {
    let evidence = Lab::new().evidence(&change("check", &project(), &project().with("src/b.js", "more();\n"))).await;
    assert_eq!((evidence.verdict, evidence.definition.as_ref().unwrap().source), (Verdict::Passed, Source::Base));
    assert!(weakenings(&evidence).is_empty() && !doubts(&evidence).contains(&"definition_candidate"));
    let bad = Lab::new().verdict(&change("check", &project(), &project().with("src/a.js", "bad();\n"))).await;
    assert_eq!(bad, failed("command_failed"));
}

#[tokio::test]
async fn a_gate_whose_command_the_change_replaces_asks() {
    let head = project().with("nofx.toml", &shell_gate("check", "true", "")).with("src/a.js", "bad();\n");
    asks("check", &project(), &head, "definition_changed", "nofx.toml").await;
}

#[tokio::test]
async fn a_gate_that_the_change_turns_into_a_warning_asks() {
    let head = project().with("nofx.toml", &shell_gate("check", "grep -q good src/a.js", "severity = \"warning\""));
    asks("check", &project(), &head, "definition_changed", "nofx.toml").await;
}

#[tokio::test]
async fn a_gate_that_only_the_change_has_is_no_command() {
    let head = project()
        .with("nofx.toml", &(shell_gate("check", "grep -q good src/a.js", "") + &shell_gate("new", "true", "")));
    assert_eq!(Lab::new().verdict(&change("new", &project(), &head)).await, failed("no_command"));
}

#[tokio::test]
async fn a_deleted_definition_asks() {
    let base = project().with("package.json", r#"{"scripts": {"check": "true"}}"#);
    let request = change("check", &base, &base.clone().without("nofx.toml"));
    let judged = Lab::new().judge(&request).await;
    assert_eq!(judged.evidence.verdict, Verdict::Blocked);
}

#[tokio::test]
async fn a_weaker_script_of_package_json_asks() {
    let package = |lint: &str| format!(r#"{{"name": "a", "scripts": {{"lint": "{lint}"}}}}"#);
    let base = Tree::new(&[
        ("package.json", &package("node check.cjs --strict")),
        ("check.cjs", "process.exit(process.argv.includes('--strict') ? 1 : 0);\n"),
    ]);
    asks(
        "lint",
        &base,
        &base.clone().with("package.json", &package("node check.cjs")),
        "protected_changed",
        "package.json",
    )
    .await;
}

#[tokio::test]
async fn a_loosened_compiler_asks() {
    let options = |strict: bool| format!(r#"{{"compilerOptions": {{"strict": {strict}}}}}"#);
    let base = project().with("tsconfig.json", &options(true));
    let head = base.clone().with("tsconfig.json", &options(false));
    asks("check", &base, &head, "protected_changed", "tsconfig.json").await;
}

#[tokio::test]
async fn loosened_rules_of_a_linter_ask() {
    let rules = |level: &str| format!("export default [{{ rules: {{ \"no-eval\": \"{level}\" }} }}];\n");
    let base = project().with("eslint.config.js", &rules("error"));
    let head = base.clone().with("eslint.config.js", &rules("off"));
    asks("check", &base, &head, "protected_changed", "eslint.config.js").await;
}

#[tokio::test]
async fn a_comment_that_silences_a_linter_asks() {
    let head = project().with("src/a.js", "good();\n// eslint-disable-next-line no-eval\neval(x);\n");
    asks("check", &project(), &head, "ignore_comment_added", "src/a.js").await;
}

#[tokio::test]
async fn a_file_that_the_definition_protects_asks() {
    let definition = format!("protected = [\"rules/**\"]\n{}", shell_gate("check", "grep -q good src/a.js", ""));
    let base = project().with("nofx.toml", &definition).with("rules/a.txt", "strict\n");
    let head = base.clone().with("rules/a.txt", "lax\n");
    asks("check", &base, &head, "protected_changed", "rules/a.txt").await;
}

#[tokio::test]
async fn an_approval_counts_for_its_tree_and_its_base_alone() {
    let lab = Lab::new();
    let weaker = project().with("nofx.toml", &shell_gate("check", "true", ""));
    let request = change("check", &project(), &weaker);
    let judged = lab.judge(&request).await;
    let approved = approved(&request, &judged);
    assert_eq!(lab.verdict(&approved).await, passed("command_succeeded"));
    // One more byte in a file that has nothing to do with the question.
    let other = Request { workspace: weaker.clone().with("src/a.js", "good(); \n").packed(), ..approved.clone() };
    assert_eq!(lab.verdict(&other).await.0, Verdict::Blocked);
    let base = Some(BaseInput::Archive(project().with("src/b.js", "b();\n").packed()));
    assert_eq!(lab.verdict(&Request { base, ..approved }).await.0, Verdict::Blocked);
}

#[tokio::test]
async fn every_gate_of_a_change_asks_the_same_question() {
    let both = |line: &str| shell_gate("one", line, "") + &shell_gate("two", "true", "");
    let (base, head) = (Tree::defined(&both("false")), Tree::defined(&both("true")));
    let lab = Lab::new();
    let one = lab.judge(&change("one", &base, &head)).await.question.unwrap();
    assert_eq!(lab.judge(&change("two", &base, &head)).await.question.unwrap(), one);
}

#[tokio::test]
async fn a_base_that_is_given_as_a_diff_is_made_from_the_workspace() {
    let lab = Lab::new();
    let head = project().with("nofx.toml", &shell_gate("check", "true", ""));
    let old = project();
    let diff = |text: &str| Request {
        base: Some(BaseInput::Diff(Archive::new(text.as_bytes().to_vec()))),
        ..change("check", &old, &head)
    };
    let honest = "--- a/nofx.toml\n+++ b/nofx.toml\n@@ -2 +2 @@\n-command = '''grep -q good src/a.js'''\n+command = '''true'''\n";
    assert_eq!(lab.verdict(&diff(honest)).await.0, Verdict::Blocked);
    let wrong = honest.replace("+command = '''true'''", "+command = '''other'''");
    assert_eq!(lab.verdict(&diff(&wrong)).await, failed("diff_mismatch"));
    let partial = "--- a/src/a.js\n+++ b/src/a.js\n@@ -1 +1 @@\n-bad();\n+good();\n";
    let evidence = lab.evidence(&diff(partial)).await;
    assert_eq!((evidence.verdict, evidence.definition.unwrap().source), (Verdict::Passed, Source::Base));
}
