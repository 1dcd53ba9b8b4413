//! Checks the attestation of a gate, as `nofx verify` does.

use nofx_gates::attestation::{Envelope, Statement, TestVerdict};
use shared::signing::PublicKey;

/// What an attestation is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// A key of this system signed it, and it names this evidence.
    Valid(Signed),
    /// It proves nothing, for this reason.
    Wrong(String),
    /// Nobody knows, for this reason.
    Unchecked(String),
    /// The evidence has no attestation.
    Missing,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub keyids: Vec<String>,
    /// `PASSED`, `WARNED` or `FAILED`.
    pub result: &'static str,
    /// The code that was judged.
    pub subjects: Vec<Subject>,
    /// The statement, as JSON.
    pub statement: String,
}

/// A digest of the code that a gate judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// With its article.
    pub name: &'static str,
    pub digest: String,
}

/// Verifies an envelope with these keys. `evidence` is the digest of the evidence that it must name.
pub fn check(envelope: &[u8], keys: &[PublicKey], evidence: Option<&str>) -> Signature {
    if keys.is_empty() {
        return Signature::Unchecked("no public key is configured".into());
    }
    match verify(envelope, keys, evidence) {
        Ok(signed) => Signature::Valid(signed),
        Err(why) => Signature::Wrong(why),
    }
}

fn verify(envelope: &[u8], keys: &[PublicKey], evidence: Option<&str>) -> Result<Signed, String> {
    let verified =
        Envelope::read(envelope).and_then(|envelope| envelope.verify(keys, 1)).map_err(|error| error.to_string())?;
    let statement = verified.statement().map_err(|error| error.to_string())?;
    let result = statement.test_result().map_err(|error| error.to_string())?;
    if evidence.is_some() && result.evidence_sha256() != evidence {
        return Err("it is about other evidence".into());
    }
    Ok(Signed {
        result: match result.result {
            TestVerdict::Passed => "PASSED",
            TestVerdict::Warned => "WARNED",
            TestVerdict::Failed => "FAILED",
        },
        subjects: subjects(&statement),
        statement: String::from_utf8_lossy(&verified.payload).trim_end().to_owned(),
        keyids: verified.keyids.into_iter().collect(),
    })
}

/// The archive and the tree. Of a tree only the sha256 counts, because others with the same sha1 can be made.
fn subjects(statement: &Statement) -> Vec<Subject> {
    const NAMES: [(&str, &str, &str); 2] =
        [("workspace", "sha256", "the workspace"), ("tree (sha256)", "gitTree", "the tree")];
    let of = |descriptor: &nofx_gates::attestation::Descriptor| {
        let (_, algorithm, name) = NAMES.iter().find(|(name, _, _)| *name == descriptor.name)?;
        Some(Subject { name, digest: descriptor.digest.get(*algorithm)?.clone() })
    };
    statement.subject.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use nofx_gates::attestation::{PREDICATE_TYPE, STATEMENT_TYPE, sign};
    use serde_json::json;
    use shared::signing::{PrivateKey, Signer};

    use super::*;

    async fn envelope(key: &PrivateKey, result: &str, evidence: &str) -> Vec<u8> {
        let configuration = json!([{"name": "evidence", "digest": {"sha256": evidence},
                                    "annotations": {"schema": "nofx.gate_evidence.v2"}}]);
        let statement = json!({
            "_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE,
            "subject": [{"name": "workspace", "digest": {"sha256": "ab"}}, {"name": "tree", "digest": {"gitTree": "cd"}},
                        {"name": "tree (sha256)", "digest": {"gitTree": "ef"}}],
            "predicate": {"result": result, "configuration": configuration}});
        let signer = Signer::with_key(PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap());
        sign(statement.to_string().into_bytes(), &signer).await.unwrap().to_json().unwrap()
    }

    #[tokio::test]
    async fn only_our_key_and_only_this_evidence_make_a_valid_signature() {
        let (ours, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = [ours.public().clone()];
        let signed = envelope(&ours, "WARNED", "e1").await;
        let Signature::Valid(found) = check(&signed, &keys, Some("e1")) else { panic!("it is valid") };
        assert_eq!((found.result, found.keyids), ("WARNED", vec![ours.public().keyid().to_owned()]));
        let subject = |name, digest: &str| Subject { name, digest: digest.into() };
        assert_eq!(found.subjects, [subject("the workspace", "ab"), subject("the tree", "ef")]);
        assert!(found.statement.starts_with("{\"_type\""));

        assert_eq!(check(&signed, &keys, Some("e2")), Signature::Wrong("it is about other evidence".into()));
        let forged = envelope(&other, "PASSED", "e1").await;
        assert!(
            matches!(check(&forged, &keys, Some("e1")), Signature::Wrong(why) if why.contains("0 of the given keys"))
        );
        assert!(matches!(check(&signed, &[], Some("e1")), Signature::Unchecked(_)));
        for other in [b"".as_slice(), b"{}", b"\xff", b"{\"payload\": 1}"] {
            assert!(matches!(check(other, &keys, Some("e1")), Signature::Wrong(_)));
        }
        let changed = String::from_utf8(signed).unwrap().replacen("\"payload\":\"e", "\"payload\":\"f", 1);
        assert!(matches!(check(changed.as_bytes(), &keys, Some("e1")), Signature::Wrong(_)));
    }
}
