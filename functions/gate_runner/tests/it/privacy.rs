//! What a command sees, and what of its output is kept.

use nofx_gates::judge::Judged;

use crate::sample::{Lab, Tree, request};

/// Shaped like a credential and belongs to nobody. Put together here, so that this file holds none.
fn canary() -> String {
    format!("ghp_{}", "Z9y8X7w6V5u4T3s2R1q0P9o8N7m6L5k4J3i2")
}

/// Everything of a judgement that is stored.
fn stored(judged: &Judged) -> String {
    let mut all = String::from_utf8(judged.evidence.encode().unwrap().bytes).unwrap();
    for attachment in &judged.attachments {
        all.push_str(&String::from_utf8_lossy(&attachment.bytes));
    }
    all
}

#[tokio::test]
async fn a_credential_that_a_command_prints_is_not_kept() {
    let half = canary();
    let (first, second) = half.split_at(10);
    // The definition holds no whole credential, so what is searched for can only come from the output.
    let line = format!("a={first}; b={second}; echo \"error: denied for $a$b\"; echo \"$a$b\" >&2; exit 1");
    let judged = Lab::new().judge(&request("check", &Tree::shell(&line))).await;
    assert!(judged.evidence.reason.message.contains("error: denied for"), "{}", judged.evidence.reason.message);
    let stored = stored(&judged);
    assert!(!stored.contains(&canary()), "{stored}");
    assert!(stored.contains("denied for"));
}

#[tokio::test]
async fn a_long_log_is_attached_without_its_credentials() {
    let half = canary();
    let (first, second) = half.split_at(10);
    let line = format!("a={first}; b={second}; seq 1 200000; echo \"$a$b\"; seq 1 200000; exit 1");
    let judged = Lab::new().judge(&request("check", &Tree::shell(&line))).await;
    assert!(judged.attachments.iter().any(|attachment| attachment.bytes.len() > 1_000_000), "the log is attached");
    assert!(!stored(&judged).contains(&canary()));
}

#[tokio::test]
async fn a_command_sees_no_variable_of_its_host_and_another_home() {
    let evidence = Lab::new().evidence(&request("check", &Tree::shell("env"))).await;
    let seen = evidence.command.unwrap().output.tail;
    let own = ["PATH", "HOME", "TMPDIR", "LANG", "CI", "NO_COLOR", "NOFX_REPORTS", "PWD", "OLDPWD", "SHLVL", "_"];
    let of_toolchains = ["RUSTUP_HOME", "CARGO_HOME", "GOROOT", "GOTOOLCHAIN", "RUSTUP_TOOLCHAIN", "PYENV_ROOT"];
    let names = seen.lines().filter_map(|line| line.split('=').next());
    for name in names {
        let is_known = own.contains(&name) || of_toolchains.contains(&name) || name.starts_with("npm_config_");
        assert!(is_known, "{name} was inherited");
    }
    let home = std::env::var("HOME").unwrap();
    assert!(seen.contains("HOME=") && !seen.lines().any(|line| line == format!("HOME={home}")), "{seen}");
}
