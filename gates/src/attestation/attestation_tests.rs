use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::signing::{PrivateKey, PublicKey, Signer};

use super::*;
use crate::evidence::{
    Approval, Attempt, Base, Definition, Evidence, ExpectedReport, Finding, Findings, GivenBy, Listed, Reason,
    Severity, Source, Subject, TestFailure, Tests, Verdict, Weakening,
};
use crate::snapshot::TreeDigest;

fn tree(digit: &str) -> TreeDigest {
    TreeDigest { sha1: digit.repeat(40), sha256: digit.repeat(64) }
}

/// The evidence of a gate that passed without any reservation.
fn passed() -> Evidence {
    let reason = Reason { code: "passed".into(), message: "the command succeeded".into() };
    Evidence {
        verdict: Verdict::Passed,
        definition: Some(Definition {
            source: Source::Base,
            file: "nofx.toml".into(),
            digest: "d".repeat(64),
            command: vec!["npm".into(), "test".into()],
            reports: vec![ExpectedReport { format: "junit".into(), path: "junit.xml".into() }],
            thresholds: [("coverage".to_owned(), json!(0.9))].into(),
            severity: Severity::Error,
        }),
        subject: Some(Subject { tree: tree("1"), archive: Some("a".repeat(64)) }),
        base: Base { tree: Some(tree("2")), archive: Some("b".repeat(64)), given_by: GivenBy::Plan, origin: None },
        locks: [("package-lock.json".to_owned(), "c".repeat(64))].into(),
        integrity: Some(Listed::default()),
        ..Evidence::new("unit", reason, 1)
    }
}

fn signer() -> (Signer, PublicKey) {
    let key = PrivateKey::generate().unwrap();
    let public = key.public().clone();
    (Signer::with_key(key), public)
}

/// A signed envelope about [`passed`], and its key.
async fn envelope() -> (Envelope, PublicKey) {
    let (signer, public) = signer();
    let evidence = passed();
    let sha256 = evidence.encode().unwrap().sha256;
    let payload = statement(&evidence, &sha256).unwrap().payload().unwrap();
    (sign(payload, &signer).await.unwrap(), public)
}

fn document(envelope: &Envelope) -> Value {
    serde_json::from_slice(&envelope.to_json().unwrap()).unwrap()
}

fn accepts(bytes: &[u8], keys: &[PublicKey], threshold: usize) -> bool {
    Envelope::read(bytes).is_ok_and(|envelope| envelope.verify(keys, threshold).is_ok())
}

#[tokio::test]
async fn a_verified_envelope_names_the_code_the_result_and_the_evidence() {
    let (envelope, public) = envelope().await;
    let read = Envelope::read(&envelope.to_json().unwrap()).unwrap();
    assert_eq!(read, envelope);
    let verified = read.verify(std::slice::from_ref(&public), 1).unwrap();
    assert_eq!(verified.keyids.iter().collect::<Vec<_>>(), [public.keyid()]);
    let statement = verified.statement().unwrap();
    assert!(statement.names_tree(&tree("1")) && statement.names_archive(&"a".repeat(64)));
    assert!(!statement.names_tree(&tree("2")) && !statement.names_archive(&"b".repeat(64)), "the base is no subject");
    assert!(!statement.names_tree(&TreeDigest { sha1: "1".repeat(40), sha256: "3".repeat(64) }), "sha1 is not enough");
    let result = statement.test_result().unwrap();
    assert_eq!(
        (result.result, result.passed_tests.as_slice()),
        (TestVerdict::Passed, ["gate:unit".to_owned()].as_slice())
    );
    assert_eq!(result.evidence_sha256(), Some(passed().encode().unwrap().sha256.as_str()));
    let names: Vec<_> = result.configuration.iter().map(|descriptor| descriptor.name.as_str()).collect();
    assert_eq!(names, ["nofx.toml", "base", "base tree", "base tree (sha256)", "package-lock.json", "evidence"]);
}

#[tokio::test]
async fn a_change_of_any_byte_is_noticed() {
    let (envelope, public) = envelope().await;
    let keys = [public];
    let text = envelope.to_json().unwrap();
    assert!(accepts(&text, &keys, 1));
    // Of the text: every character, replaced by its neighbour in ASCII and by three others.
    // Only the name of the optional field `keyid` may change: without an id, every key is tried.
    let name = text.windows(7).position(|window| window == b"\"keyid\"").unwrap();
    for index in (0..text.len()).filter(|index| !(name + 1..name + 6).contains(index)) {
        for other in [text[index] ^ 1, b'A', b'=', b' '] {
            let mut changed = text.clone();
            changed[index] = other;
            assert!(
                changed == text || !accepts(&changed, &keys, 1),
                "character {index} changed to {:?}",
                other as char
            );
        }
    }
    // Of the decoded values: every bit.
    let intact = document(&envelope);
    for pointer in ["/payload", "/signatures/0/sig"] {
        let bytes = STANDARD.decode(intact.pointer(pointer).unwrap().as_str().unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut changed = intact.clone();
            *changed.pointer_mut(pointer).unwrap() = STANDARD.encode(bytes).into();
            assert!(!accepts(&serde_json::to_vec(&changed).unwrap(), &keys, 1), "bit {bit} of {pointer}");
        }
    }
}

#[tokio::test]
async fn base64_of_our_envelopes_has_no_bits_that_a_lenient_decoder_ignores() {
    for _ in 0..20 {
        let document = document(&envelope().await.0);
        for pointer in ["/payload", "/signatures/0/sig"] {
            assert!(!document.pointer(pointer).unwrap().as_str().unwrap().contains('='));
        }
    }
}

#[tokio::test]
async fn a_threshold_counts_each_key_once() {
    let (envelope, first) = envelope().await;
    let (other_signer, second) = signer();
    let two = envelope.clone().countersign(&other_signer).await.unwrap().to_json().unwrap();
    let mut doubled = document(&envelope);
    let signature = doubled["signatures"][0].clone();
    doubled["signatures"].as_array_mut().unwrap().push(signature);
    let without_ids: Vec<_> =
        doubled["signatures"].as_array().unwrap().iter().map(|signature| json!({"sig": signature["sig"]})).collect();
    let doubled = serde_json::to_vec(&doubled).unwrap();
    let mut nameless = document(&envelope);
    nameless["signatures"] = without_ids.into();
    let nameless = serde_json::to_vec(&nameless).unwrap();

    assert!(accepts(&two, &[first.clone(), second.clone()], 2));
    assert!(!accepts(&two, &[first.clone(), second.clone()], 3));
    assert!(!accepts(&two, &[first.clone(), first.clone()], 2), "one key given twice");
    for signed_twice in [doubled, nameless] {
        assert!(accepts(&signed_twice, &[first.clone(), second.clone()], 1));
        assert!(!accepts(&signed_twice, &[first.clone(), second.clone()], 2), "one key signed twice");
    }
    assert!(!accepts(&two, &[], 0), "a threshold of zero accepts nothing unsigned");
    assert!(!accepts(&two, &[signer().1], 1), "another key");
}

#[tokio::test]
async fn a_key_id_only_narrows_the_choice_of_keys() {
    let (envelope, public) = envelope().await;
    let keys = [signer().1, public];
    let with_id = |id: Value| {
        let mut document = document(&envelope);
        document["signatures"][0]["keyid"] = id;
        serde_json::to_vec(&document).unwrap()
    };
    assert!(accepts(&with_id(json!("")), &keys, 1), "without an id, every key is tried");
    assert!(!accepts(&with_id(json!(keys[0].keyid())), &keys, 1), "the id of another key");
    assert!(!accepts(&with_id(json!("unknown")), &keys, 1));
    assert!(!accepts(&with_id(json!(1)), &keys, 1));
}

#[tokio::test]
async fn both_alphabets_are_read_and_unknown_fields_are_ignored() {
    let (envelope, public) = envelope().await;
    let mut document = document(&envelope);
    document["payload"] =
        URL_SAFE.encode(&envelope.clone().verify(std::slice::from_ref(&public), 1).unwrap().payload).into();
    let sig = STANDARD.decode(document["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    document["signatures"][0]["sig"] = URL_SAFE.encode(sig).into();
    document["extra"] = json!({"a": 1});
    document["signatures"][0]["cert"] = json!("x");
    assert!(accepts(&serde_json::to_vec(&document).unwrap(), &[public], 1));
}

#[tokio::test]
async fn a_malformed_envelope_is_refused() {
    let (envelope, public) = envelope().await;
    let text = String::from_utf8(envelope.to_json().unwrap()).unwrap();
    let twice = text.replacen('{', r#"{"payload":"","#, 1);
    let unsigned = {
        let mut document = document(&envelope);
        document["signatures"] = json!([]);
        document.to_string()
    };
    let crowded = {
        let mut document = document(&envelope);
        document["signatures"] = vec![document["signatures"][0].clone(); 33].into();
        document.to_string()
    };
    for (text, part) in [
        (twice.as_str(), "twice"),
        (unsigned.as_str(), "1 to 32"),
        (crowded.as_str(), "1 to 32"),
        ("[]", "no object"),
        (r#"{"payloadType":"t","payload":"","signatures":[["","AA=="]]}"#, "invalid type"),
        ("{}", "missing field"),
        ("", "EOF"),
        (&format!("{text}{text}"), "trailing"),
    ] {
        let error = Envelope::read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(Envelope::read(&vec![b' '; MAX_ENVELOPE_BYTES + 1]).unwrap_err().to_string().contains("more than"));
    assert!(accepts(text.as_bytes(), &[public], 1));
}

#[tokio::test]
async fn a_signed_payload_that_is_no_statement_is_refused() {
    let (signer, public) = signer();
    let statement = |payload: &'static str| {
        let (signer, keys) = (&signer, [public.clone()]);
        async move { sign(payload.into(), signer).await.unwrap().verify(&keys, 1).unwrap().statement() }
    };
    let subject = r#""subject":[{"digest":{"sha256":"a"}}],"predicateType":"t","predicate":{}"#;
    for payload in [
        "{}",
        r#"{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"digest":{"sha256":"a"}}],"predicateType":"t","predicate":{}}"#,
        r#"{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"t","predicate":{}}"#,
        r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"n"}],"predicateType":"t","predicate":{}}"#,
        r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"a","sha256":"b"}}],"predicateType":"t","predicate":{}}"#,
    ] {
        assert!(matches!(statement(payload).await, Err(AttestationError::Statement(_))), "{payload}");
    }
    let good = format!(r#"{{"_type":"https://in-toto.io/Statement/v1",{subject}}}"#);
    let good = statement(good.leak()).await.unwrap();
    assert!(good.test_result().is_err(), "another predicate");
}

#[test]
fn only_a_result_without_reservation_is_passed() {
    let result = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = passed();
        change(&mut evidence);
        statement(&evidence, "e").unwrap().test_result().unwrap()
    };
    let finding = Finding {
        severity: Severity::Note,
        tool: "eslint".into(),
        file: "a.ts".into(),
        line: None,
        column: None,
        end_line: None,
        rule: None,
        message: "m".into(),
        url: None,
    };
    let weakening =
        Weakening { kind: "test_deleted".into(), path: "a".into(), line: None, message: "m".into(), difference: None };
    let approval = Approval {
        gate_id: "g".into(),
        by: "ann".into(),
        at: "2026-11-28T10:00:00Z".into(),
        subject: "s".into(),
        waived: false,
    };
    let source = |source| move |evidence: &mut Evidence| evidence.definition.as_mut().unwrap().source = source;
    assert_eq!(result(&|_| ()).result, TestVerdict::Passed);
    for reservation in [
        &source(Source::Candidate) as &dyn Fn(&mut Evidence),
        &source(Source::Approved),
        &|evidence| evidence.definition = None,
        &|evidence| evidence.findings = Findings::of(vec![finding.clone()]),
        &|evidence| evidence.integrity = Some(Listed::of([weakening.clone()])),
        &|evidence| evidence.approvals = vec![approval.clone()],
    ] {
        let warned = result(reservation);
        assert_eq!((warned.result, warned.warned_tests.len()), (TestVerdict::Warned, 1));
        assert!(warned.passed_tests.is_empty());
    }
    for verdict in [Verdict::Failed, Verdict::Blocked] {
        let failed = result(&|evidence| evidence.verdict = verdict);
        assert_eq!(
            (failed.result, failed.failed_tests.as_slice()),
            (TestVerdict::Failed, ["gate:unit".to_owned()].as_slice())
        );
        assert!(failed.passed_tests.is_empty() && failed.warned_tests.is_empty());
    }
}

#[test]
fn failed_tests_are_listed_with_their_suite() {
    let failure = TestFailure { suite: "sum".into(), name: "adds".into(), file: None, message: "m".into() };
    let tests = Tests { total: 2, passed: 1, failed: 1, failures: Listed::of([failure]), ..Tests::default() };
    let evidence = Evidence { verdict: Verdict::Failed, tests: Some(tests), ..passed() };
    let result = statement(&evidence, "e").unwrap().test_result().unwrap();
    assert_eq!(result.failed_tests, ["gate:unit", "sum > adds"]);
}

#[test]
fn a_statement_names_the_attempt_and_whose_definition_counted() {
    let attempt = Attempt { run_id: "r".into(), step_id: "s".into(), number: 2 };
    let evidence = Evidence { attempt: Some(attempt.clone()), ..passed() };
    let result = statement(&evidence, "e").unwrap().test_result().unwrap();
    assert_eq!((result.attempt(), result.source()), (Some(attempt), Some(Source::Base)));
    assert_eq!(result.evidence_sha256(), Some("e"));
    // Earlier releases named no attempt, and neither does `nofx gate`.
    let earlier = statement(&passed(), "e").unwrap().test_result().unwrap();
    assert_eq!((earlier.attempt(), earlier.evidence_sha256()), (None, Some("e")));
    let unread = statement(&Evidence { definition: None, ..passed() }, "e").unwrap().test_result().unwrap();
    assert_eq!(unread.source(), None);
}

#[tokio::test]
async fn a_key_that_is_not_given_is_named_with_those_that_are() {
    let (envelope, public) = envelope().await;
    let other = signer().1;
    let error = envelope.verify(std::slice::from_ref(&other), 1).unwrap_err().to_string();
    assert!(
        error.contains(&format!("it names {}, and the given keys are {}", public.keyid(), other.keyid())),
        "{error}"
    );
}

#[test]
fn without_a_workspace_the_statement_is_about_the_evidence() {
    let evidence = Evidence { subject: None, verdict: Verdict::Failed, ..passed() };
    let statement = statement(&evidence, "e").unwrap();
    assert!(statement.names_archive("e") && !statement.names_tree(&tree("1")));
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,200}") {
        let _ = Envelope::read(&bytes);
        let _ = Envelope::read(text.as_bytes());
        let payload = STANDARD.encode(&bytes);
        let sig = STANDARD.encode(text.as_bytes());
        let document = json!({"payloadType": PAYLOAD_TYPE, "payload": payload, "signatures": [{"sig": sig}]});
        let envelope = Envelope::read(&serde_json::to_vec(&document).unwrap()).unwrap();
        let key = PrivateKey::generate().unwrap().public().clone();
        prop_assert!(envelope.verify(&[key], 1).is_err());
        let _ = Statement::read(&bytes);
        let _ = Statement::read(text.as_bytes());
    }
}
