//! `nofx verify` of decisions: what the signed statements say counts, and not what the API adds to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use shared::domain::digest::sha256_hex;
use shared::signing::{PrivateKey, Signer, dsse};
use tempfile::TempDir;

const GATE: &str = "0193c0de-0000-7000-8000-000000000001";
const OTHER: &str = "0193c0de-0000-7000-8000-000000000002";
const RUN: &str = "0193c0de-0000-7000-8000-00000000000a";
const TYPE: &str = "https://nofx.dev/attestation/decision/v1";

/// A folder with the file of the keys that are trusted, `keys.pem`.
struct Person {
    folder: TempDir,
    signer: Signer,
}

impl Person {
    fn new() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), PrivateKey::generate().unwrap());
        fs::write(folder.path().join("keys.pem"), key.public().to_pem()).unwrap();
        Self { folder, signer: Signer::with_key(key) }
    }

    /// The envelope of a decision about [`GATE`], whose rule requires two people, with changes of its predicate.
    async fn signed(&self, decision: &str, who: &str, changes: Value) -> Value {
        let mut predicate = json!({
            "decision": decision, "gate": {"id": GATE, "type": "manual:go", "on_pass": "finish", "generation": 1}, "run": RUN,
            "digest": "d1", "covers": {"v": 1}, "rule": {"required": 2}, "person": {"name": who, "subject": who},
        });
        for (name, value) in changes.as_object().unwrap() {
            predicate[name] = value.clone();
        }
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": TYPE, "predicate": predicate,
            "subject": [{"name": "decision", "digest": {"sha256": "d1"}}],
        });
        dsse::seal(&statement, &self.signer).await.unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// The exit code of `nofx verify`, and everything that it says.
    fn verify(&self, url: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
        command.arg("verify").args(arguments).args(["--key", "keys.pem"]).current_dir(self.folder.path());
        command.env("NOFX_API_URL", url).env("NOFX_CONFIG", self.folder.path().join("config.toml"));
        let done = command.env_remove("NOFX_TOKEN").output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).unwrap())
    }
}

/// A gate as the API shows it.
fn gate(status: &str, required: Option<u32>, attestations: &[Value]) -> Value {
    json!({
        "id": GATE, "run_id": RUN, "gate_type": "manual:go", "status": status, "on_pass": "finish", "generation": 1,
        "created_at": "2026-11-23T10:00:00+00:00", "digest": "d1", "required": required, "attestations": attestations,
    })
}

/// An API that answers these paths, each with a document.
fn serve(answers: &[(String, Value)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers: BTreeMap<String, String> = answers.iter().map(|(path, it)| (path.clone(), it.to_string())).collect();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
            let (status, body) = answers.get(path).map_or(("404 Not Found", "{}"), |body| ("200 OK", body.as_str()));
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json");
            write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    url
}

fn serve_gate(document: Value) -> String {
    serve(&[(format!("/gates/{GATE}"), document)])
}

#[tokio::test]
async fn a_gate_is_the_one_that_was_asked_for() {
    let person = Person::new();
    let (ann, ben) =
        (person.signed("approve", "ann", json!({})).await, person.signed("approve", "ben", json!({})).await);
    let approved = gate("passed", Some(2), &[ann, ben]);
    assert_eq!(person.verify(&serve_gate(approved.clone()), &[GATE]).0, Some(0));
    let (code, said) = person.verify(&serve(&[(format!("/gates/{OTHER}"), approved)]), &[OTHER]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("asked for the gate {OTHER}")) && said.contains(GATE), "{said}");
}

#[tokio::test]
async fn how_many_people_must_approve_is_what_was_signed() {
    let person = Person::new();
    let ann = person.signed("approve", "ann", json!({})).await;
    for lie in [Some(1), None] {
        let (code, said) = person.verify(&serve_gate(gate("passed", lie, std::slice::from_ref(&ann))), &[GATE]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("1 of 2 decisions that the gate needed are signed"), "{said}");
    }
    // The greatest number counts, also that of a statement about earlier bytes.
    let strict = person.signed("approve", "ann", json!({"digest": "d0", "rule": {"required": 3}})).await;
    let ben = person.signed("approve", "ben", json!({})).await;
    let (code, said) = person.verify(&serve_gate(gate("passed", Some(2), &[strict, ann.clone(), ben])), &[GATE]);
    assert!(code == Some(1) && said.contains("2 of 3"), "{said}");
    // Statements without a rule leave only the API's word.
    let old = person.signed("approve", "ann", json!({"rule": null})).await;
    let said_by_api = |required| serve_gate(gate("passed", required, std::slice::from_ref(&old)));
    let (code, said) = person.verify(&said_by_api(Some(1)), &[GATE]);
    assert!(code == Some(0) && said.contains("1 of 1, as the API says: no signed statement has the rule"), "{said}");
    let (code, said) = person.verify(&said_by_api(Some(2)), &[GATE]);
    assert!(code == Some(1) && said.contains("1 of 2"), "{said}");
    let (code, said) = person.verify(&said_by_api(None), &[GATE]);
    assert!(code == Some(1) && said.contains("nothing says how many people"), "{said}");
    let signed = |said: &str| !said.contains("as the API says");
    let waived = person.signed("waive", "ann", json!({})).await;
    let (code, said) = person.verify(&serve_gate(gate("waived", Some(9), &[waived])), &[GATE]);
    assert!(code == Some(0) && signed(&said), "one admin waives: {said}");
}

#[tokio::test]
async fn a_rejection_that_the_api_hides_behind_its_status_is_found() {
    let person = Person::new();
    let mut all = Vec::new();
    for (decision, who) in [("approve", "ann"), ("approve", "ben"), ("reject", "carol")] {
        all.push(person.signed(decision, who, json!({})).await);
    }
    let (code, said) = person.verify(&serve_gate(gate("passed", Some(2), &all)), &[GATE]);
    assert!(code == Some(1) && said.contains("carol rejected it"), "{said}");
    let (code, said) = person.verify(&serve_gate(gate("failed", Some(2), &all)), &[GATE]);
    assert!(code == Some(7) && said.contains("REJECTED"), "{said}");
}

#[tokio::test]
async fn a_file_passes_only_with_as_many_people_as_the_rule_says() {
    let person = Person::new();
    let (ann, ben) =
        (person.signed("approve", "ann", json!({})).await, person.signed("approve", "ben", json!({})).await);
    let nowhere = "http://127.0.0.1:1";
    let verify = |content: &str| {
        person.write("decision.json", content);
        person.verify(nowhere, &["decision.json"])
    };
    let (code, said) = verify(&ann.to_string());
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("NOT PASSED") && said.contains("1 of 2 approvals are in the file"), "{said}");
    let (code, said) = verify(&format!("{ann}\n{ben}\n"));
    assert!(code == Some(0) && said.contains("PASSED") && !said.contains("NOT PASSED"), "{said}");
    assert_eq!(verify(&serde_json::to_string_pretty(&json!([ann, ben])).unwrap()).0, Some(0));
    assert_eq!(verify(&json!([ann, ann]).to_string()).0, Some(7), "one person twice");
    let earlier = person.signed("approve", "ben", json!({"digest": "d0"})).await;
    assert_eq!(verify(&json!([ann, earlier]).to_string()).0, Some(7), "about other bytes");
    let one = person.signed("approve", "ann", json!({"rule": {"required": 1}})).await;
    assert_eq!(verify(&one.to_string()).0, Some(0));
    let rejected = person.signed("reject", "carol", json!({})).await;
    let (code, said) = verify(&json!([ann, ben, rejected]).to_string());
    assert!(code == Some(7) && said.contains("REJECTED"), "{said}");
    let waived = person.signed("waive", "carol", json!({})).await;
    assert_eq!(verify(&waived.to_string()).0, Some(0));
    let old = person.signed("approve", "ann", json!({"rule": null})).await;
    let (code, said) = verify(&old.to_string());
    assert!(code == Some(7) && said.contains("how many people must approve is not signed"), "{said}");
    let elsewhere = person.signed("approve", "ben", json!({"gate": {"id": OTHER, "type": "manual:go"}})).await;
    let (code, said) = verify(&json!([ann, elsewhere]).to_string());
    assert!(code == Some(1) && said.contains("about different gates"), "{said}");
    let (code, said) = verify(&json!([ann, Person::new().signed("approve", "ben", json!({})).await]).to_string());
    assert!(code == Some(1) && said.contains("not verified"), "{said}");
}

#[tokio::test]
async fn what_is_at_hand_is_compared_with_what_the_decisions_cover_and_is_never_ignored() {
    let person = Person::new();
    person.write("evidence.json", "seen");
    person.write("code.tar.gz", "code");
    let covers =
        json!({"v": 1, "evidence": sha256_hex(b"seen"), "workspace": {"archive": sha256_hex(b"code"), "base": "b"}});
    let one = json!({"rule": {"required": 1}});
    let bare = person.signed("approve", "ann", one.clone()).await;
    let full = person.signed("approve", "ann", json!({"rule": {"required": 1}, "covers": covers})).await;
    for decision in [&bare, &full] {
        person.write("decision.json", &decision.to_string());
        let url = serve_gate(gate("passed", Some(1), std::slice::from_ref(decision)));
        for (option, file, other) in [
            ("--evidence", "evidence.json", "code.tar.gz"),
            ("--archive", "code.tar.gz", "evidence.json"),
            ("--workspace", "", "."),
        ] {
            for what in ["decision.json", GATE] {
                if decision == &bare {
                    let (code, said) = person.verify(&url, &[what, option, other]);
                    assert!(code == Some(1) && said.contains("decisions name no "), "{option}: {said}");
                    continue;
                }
                let (code, said) = person.verify(&url, &[what, option, other]);
                assert!(code == Some(1) && said.contains("not verified: the decision of ann is about "), "{said}");
                if !file.is_empty() {
                    let (code, said) = person.verify(&url, &[what, option, file]);
                    assert!(code == Some(0) && said.contains("is what was signed"), "{option}: {said}");
                }
            }
        }
    }
    person.write("decision.json", &bare.to_string());
    let (_, said) = person.verify("http://127.0.0.1:1", &["decision.json", "--evidence", "evidence.json"]);
    assert!(said.contains("decisions name no evidence file"), "{said}");
}

#[tokio::test]
async fn json_is_one_document_that_says_whether_the_gate_passes() {
    let person = Person::new();
    let ann = person.signed("approve", "ann", json!({})).await;
    person.write("decision.json", &ann.to_string());
    let (code, said) = person.verify("http://127.0.0.1:1", &["decision.json", "--json"]);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(7));
    let names: BTreeSet<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["decisions", "passes", "required", "keys_are_kept"]));
    assert_eq!(
        (&document["passes"], &document["required"], &document["keys_are_kept"]),
        (&json!(false), &json!(2), &json!(true))
    );
    let decision = &document["decisions"][0];
    assert_eq!(
        (&decision["decision"], &decision["subject"], &decision["gate"]),
        (&json!("approve"), &json!("ann"), &json!(GATE))
    );
    let ben = person.signed("approve", "ben", json!({})).await;
    let url = serve_gate(gate("passed", Some(2), &[ann, ben]));
    let (code, said) = person.verify(&url, &[GATE, "--json"]);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &document["passes"], document["decisions"].as_array().unwrap().len()),
        (Some(0), &json!(true), 2)
    );
}
