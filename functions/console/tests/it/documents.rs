//! Pages of evidence and of decisions. All text in the documents may come from tested code.

use console::evidence::{Evidence, GateChange};
use console::page::{DecisionPage, Refusal, Refused, RunPage, StepPage};
use console::page::{decision_page, run_page, step_page};
use serde_json::{Value, json};
use shared::db::console::{Document, Gate};
use shared::domain::Problem;
use shared::domain::gate::Decision;
use shared::view::OnPass;

use crate::support::{HOSTILE, assert_inert, contents, decided, decision, detail, gate, get, run, run_id, step_detail};

/// A document with `text` wherever a gate could put it.
fn document(text: &str) -> Document {
    let id = run_id();
    let artifact = json!({"id": id, "uri": "s3://b/k", "hash": "h", "size_bytes": 1, "media_type": "application/json"});
    let listed = json!({"id": id, "step": text, "name": text, "type": "gate_evidence", "hash": text, "size_bytes": 1, "media_type": text});
    let document = json!({"artifact": artifact, "type": "gate_evidence", "run_id": id, "ordinal": 3, "attempt": 2,
                          "documents": [listed]});
    serde_json::from_value(document).unwrap()
}

fn change_gate(text: &str) -> Gate {
    let id = "0198c0de-0000-7000-8000-000000000004".parse().unwrap();
    Gate { gate_type: "manual:gate-change".into(), evidence_id: Some(id), on_pass: OnPass::Resume, ..gate(text) }
}

fn weakening(text: &str) -> Value {
    json!({"kind": text, "path": text, "line": 3, "message": text, "difference": format!("--- a\n-{text}\n+{text}\n {text}")})
}

fn evidence(text: &str) -> Evidence {
    let tree = json!({"sha1": text, "sha256": text});
    let document = json!({
        "schema": "nofx.gate_evidence.v2", "gate": text, "verdict": text, "reason": {"code": text, "message": text},
        "definition": {"source": text, "file": text, "digest": text, "command": [text], "thresholds": {text: 0.9}, "severity": "warning"},
        "subject": {"tree": tree, "archive": text}, "base": {"tree": tree, "given_by": "plan"},
        "locks": {text: text}, "toolchain": {text: text},
        "sandbox": {"level": text, "network": text, "namespaces": [text], "not_in_force": [text], "killed_at_end": 2},
        "install": {"how": text, "ecosystem": text, "ms": 1},
        "command": {"exit_code": 1, "output": {"bytes": 9, "head": text, "tail": text}},
        "reports": [{"format": text, "path": text, "outcome": text}],
        "findings": {"by_severity": {text: 1}, "total": 900, "listed": [
            {"severity": text, "file": text, "line": 1, "rule": text, "message": text},
            {"severity": "error", "file": "", "message": text}, {"severity": "warning", "file": text, "line": 70, "message": text}]},
        "tests": {"total": 2, "failed": 1, "failures": {"total": 1, "listed": [{"suite": text, "name": text, "file": text, "message": text}]}},
        "coverage": {"reason": text, "threshold": 0.9, "files": [{"path": text, "uncovered": 3, "uncovered_lines": [2, 80, 81], "unmeasured_lines": [3]}]},
        "context": [{"path": text, "first_line": 1, "lines": [text, text, text]}],
        "integrity": {"total": 9, "listed": [weakening(text)]},
        "approvals": [{"gate_id": text, "by": text, "at": text, "subject": text}],
        "not_proved": [{"code": text, "message": text}], "reused": {"run_id": text, "evidence": text}
    });
    Evidence::read(document.to_string().as_bytes()).unwrap()
}

fn change(text: &str) -> GateChange {
    let document = json!({"subject": {"tree": {"sha1": text}, "base": {"sha1": text}, "difference": text}, "weakenings": [weakening(text)]});
    GateChange::read(document.to_string().as_bytes()).unwrap()
}

fn pages(text: &str) -> [String; 6] {
    let (document, evidence, change) = (document(text), evidence(text), change(text));
    let step = step_detail(text, "failed");
    let (asked, ended) = (detail(&change_gate(text), text), detail(&decided(text, "waived"), text));
    let contents = contents(text);
    let shown = |detail, change, refused| {
        decision_page(&DecisionPage { change, contents: &contents, token: text, refused, ..decision(detail) })
    };
    let problems = [Problem { path: text.into(), message: text.into() }];
    let refused = |why| Some(Refused { why, decision: Decision::Reject, actor: text, reason: text });
    [
        step_page(&StepPage { attempt: Some(3), evidence: Some(Ok(&evidence)), ..StepPage::new(&step, "t") }),
        shown(&asked, Some(Ok((&document, &change))), None),
        shown(&asked, None, refused(Refusal::Problems(&problems))),
        shown(&ended, None, None),
        shown(&ended, None, refused(Refusal::Conflict(text))),
        shown(&asked, Some(Err(text)), None),
    ]
}

#[test]
fn hostile_text_in_documents_is_escaped() {
    for text in HOSTILE {
        for page in pages(text) {
            assert_inert(&page, text);
        }
    }
}

#[test]
fn text_cannot_change_its_own_direction_or_hide() {
    for page in pages("a\u{202e}b\u{1b}[31m") {
        let evidence = page.split("<h1>").nth(1).unwrap();
        assert!(evidence.contains("⟨U+202E⟩"), "{evidence}");
    }
    let shown = &pages("a\u{202e}b")[1];
    let difference =
        shown.split("id=\"difference\"").nth(1).and_then(|rest| rest.split("Your decision").next()).unwrap();
    assert!(!difference.split("<figure").nth(1).unwrap().contains('\u{202e}'));
}

#[test]
fn evidence_shows_its_lines_with_what_is_said_about_them() {
    let page = &pages("src/a.ts")[0];
    for words in
        ["never ran: ", "not measured: ", "Never ran: lines 80–81", "first 3 of 900 findings", "8 more changes"]
    {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_person_sees_the_difference_before_the_form() {
    let page = &pages("x")[1];
    let (difference, form) = (page.find("class=\"line bad\"").unwrap(), page.find("<form class=\"form\"").unwrap());
    assert!(difference < form && page.contains("formaction=\"../gates/"));
    let mut run = run("x", "blocked");
    run.gates = vec![change_gate("x")];
    let page = run_page(&RunPage::new(&run, "t"));
    assert!(page.contains("Review and decide") && !page.contains("action=\"../gates/"), "only where it is shown");
}

#[test]
fn a_difference_that_cannot_be_shown_leaves_only_the_rejection() {
    let page = &pages("the artifact has changed")[5];
    for words in
        ["The difference cannot be shown: </strong><bdi>the artifact has changed</bdi>.", "You can reject the gate."]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(page.contains("/reject\"") && page.contains("id=\"o-reject\""), "{page}");
    for verb in ["approve", "waive"] {
        assert!(!page.contains(&format!("formaction=\"../gates/{}/{verb}\"", change_gate("x").id)), "{verb}: {page}");
        assert!(!page.contains(&format!("id=\"o-{verb}\"")), "{verb}: {page}");
    }
}

#[test]
fn a_gate_whose_time_is_over_has_no_form() {
    let late = Gate { is_over: true, ..gate("x") };
    let page = decision_page(&decision(&detail(&late, "x")));
    assert!(page.contains("Nobody decided in time: ") && page.contains("The next sweep ends it"), "{page}");
    assert!(!page.contains("method=\"post\"") && !page.contains("To the decision"), "{page}");
}

#[test]
fn a_long_difference_says_that_it_is_cut() {
    let long = "+x\n".repeat(10_000);
    let weakenings = vec![json!({"path": "a", "difference": long}), json!({"path": "b", "difference": "+y"})];
    let change = GateChange::read(json!({"weakenings": weakenings}).to_string().as_bytes()).unwrap();
    let (document, gate) = (document("x"), change_gate("x"));
    let detail = detail(&gate, "x");
    let page = decision_page(&DecisionPage { change: Some(Ok((&document, &change))), ..decision(&detail) });
    assert!(
        page.contains("7000 more lines are only in the document") && page.contains("1 more changes"),
        "{}",
        page.len()
    );
    assert!(page.len() < 1 << 20);
}

#[tokio::test]
async fn documents_need_a_database_and_a_valid_id() {
    for kind in ["artifacts", "gates"] {
        assert_eq!(get(&format!("/ui/{kind}/{}", run_id())).await.status, 503);
        assert_eq!(get(&format!("/ui/{kind}/nonsense")).await.status, 404);
    }
}
