//! `secrets`: no changed line holds a credential. It needs no definition and no command.

use nofx_gates::evidence::Verdict;

use crate::sample::{Lab, Tree, change, doubts, failed, request};

/// Shaped like a credential and belongs to nobody. Put together here, so that this file holds none.
fn token() -> String {
    format!("ghp_{}", "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8")
}

fn with_token() -> Tree {
    Tree::new(&[("src/a.js", &format!("f();\nconst token = \"{}\";\n", token()))])
}

#[tokio::test]
async fn a_credential_in_a_new_line_fails_and_is_not_repeated() {
    let base = Tree::new(&[("src/a.js", "f();\n")]);
    let evidence = Lab::new().evidence(&change("secrets", &base, &with_token())).await;
    assert_eq!(evidence.verdict, Verdict::Failed);
    let finding = &evidence.findings.list.listed[0];
    assert_eq!((finding.file.as_str(), finding.line), ("src/a.js", Some(2)));
    let encoded = String::from_utf8(evidence.encode().unwrap().bytes).unwrap();
    assert!(!encoded.contains(&token()), "{encoded}");
}

#[tokio::test]
async fn a_credential_of_the_base_is_not_the_fault_of_the_change() {
    let lab = Lab::new();
    let head = with_token().with("src/b.js", "g();\n");
    assert_eq!(lab.verdict(&change("secrets", &with_token(), &head)).await.0, Verdict::Passed);
    // Without a base, every line is new.
    assert_eq!(lab.verdict(&request("secrets", &head)).await.0, Verdict::Failed);
}

#[tokio::test]
async fn files_that_may_hold_secrets_are_named_as_a_doubt() {
    let definition = "[gates.secrets]\nallow = [\"fixtures/**\"]\n";
    let tree = |path: &str| Tree::defined(definition).with(path, &format!("const token = \"{}\";\n", token()));
    let lab = Lab::new();
    let allowed = lab.evidence(&request("secrets", &tree("fixtures/a.js"))).await;
    assert_eq!(allowed.verdict, Verdict::Passed);
    assert!(doubts(&allowed).contains(&"secrets_allowed"));
    assert_eq!(lab.verdict(&request("secrets", &tree("src/a.js"))).await.0, Verdict::Failed);
}

#[tokio::test]
async fn a_change_may_not_allow_its_own_secrets() {
    let base = Tree::defined("[gates.check]\ncommand = \"true\"\n");
    let head = with_token().with("nofx.toml", "[gates.check]\ncommand = \"true\"\n[gates.secrets]\nallow = [\"**\"]\n");
    assert_ne!(Lab::new().verdict(&change("secrets", &base, &head)).await.0, Verdict::Passed);
    let policy = failed("checks_weakened");
    let mut request = change("secrets", &base, &head);
    request.policy.on_weakening = shared::domain::policy::OnWeakening::Fail;
    assert_eq!(Lab::new().verdict(&request).await, policy);
}
