//! The same promises at every level of isolation that the host offers.

use nofx_gates::evidence::Verdict;
use nofx_sandbox::{Level, host};

use crate::sample::{Lab, Tree, doubts, failed, passed, request, shell_gate};

/// The levels of this host, strongest first.
pub fn levels() -> Vec<Level> {
    Lab::new();
    [Level::Namespaces, Level::Landlock, Level::Limits].into_iter().filter(|level| host().level() >= *level).collect()
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Namespaces => "namespaces",
        Level::Landlock => "landlock",
        Level::Limits => "limits",
    }
}

#[tokio::test]
async fn the_evidence_says_what_was_in_force() {
    for level in levels() {
        let evidence = Lab::at(level).evidence(&request("check", &Tree::shell("true"))).await;
        assert_eq!((evidence.verdict, &evidence.sandbox["level"]), (Verdict::Passed, &name(level).into()));
        let doubt = match level {
            Level::Namespaces => None,
            Level::Landlock => Some("sandbox_landlock"),
            Level::Limits => Some("sandbox_weak"),
        };
        let found = doubts(&evidence).into_iter().find(|code| code.starts_with("sandbox_"));
        assert_eq!(found, doubt, "{level:?}");
    }
}

#[tokio::test]
async fn a_gate_refuses_a_weaker_host_than_it_demands() {
    let tree = Tree::defined(&shell_gate("check", "true", "sandbox = \"landlock\""));
    for level in levels() {
        let expected = if level >= Level::Landlock { passed("command_succeeded") } else { failed("sandbox_too_weak") };
        assert_eq!(Lab::at(level).verdict(&request("check", &tree)).await, expected, "{level:?}");
    }
}

#[tokio::test]
async fn reports_work_at_every_level() {
    let report = r#"<testsuite name="s"><testcase name="a"/></testsuite>"#;
    let more = r#"reports = [{ format = "junit", path = "$NOFX_REPORTS/junit.xml" }]"#;
    let tree = Tree::defined(&shell_gate("unit", "cp a.xml $NOFX_REPORTS/junit.xml", more)).with("a.xml", report);
    for level in levels() {
        assert_eq!(Lab::at(level).verdict(&request("unit", &tree)).await, passed("tests_passed"), "{level:?}");
    }
}

#[tokio::test]
async fn nothing_survives_the_gate_at_any_level() {
    for level in levels() {
        let tree = Tree::shell("(env -i setsid sleep 300 &) ; exit 0");
        let evidence = Lab::at(level).evidence(&request("check", &tree)).await;
        assert_eq!(evidence.verdict, Verdict::Passed, "{level:?}: {}", evidence.reason.message);
        assert!(evidence.sandbox["killed_at_end"].as_u64().unwrap() > 0, "{level:?}");
    }
}
