//! The outside of a proof: its bytes, its seal, and the digests that the seal names.

use nofx_gates::attestation::Envelope;
use serde_json::Value;
use shared::domain::proof::{self, Fault, SCHEMA, SEAL_TYPE, SECTIONS, SealPredicate, SectionDigest};
use shared::view::KeyPurpose;

use super::fault;
use super::report::Report;
use crate::client::keyring::Keyring;

/// A proof whose every byte is as it was sealed.
pub struct Opened {
    pub content: Value,
    seal: SealPredicate,
    keyid: String,
    has_low_s: bool,
}

impl Opened {
    pub fn of(bytes: &[u8], keys: &Keyring) -> Result<Self, Fault> {
        let Value::Object(mut file) = proof::read(bytes)? else { return Err(fault("", "it is no object")) };
        if file.get("schema").and_then(Value::as_str) != Some(SCHEMA) {
            return Err(fault("schema", format!("it is not {SCHEMA}")));
        }
        let (content, seal) = (file.remove("content").unwrap_or_default(), file.remove("seal").unwrap_or_default());
        if let Some(name) = file.keys().find(|name| *name != "schema") {
            return Err(fault(name.clone(), "a proof has no such member"));
        }
        let (predicate, keyid, has_low_s) = opened(&seal, keys)?;
        matches(&content, &predicate)?;
        Ok(Self { content, seal: predicate, keyid, has_low_s })
    }

    pub fn describe(&self, report: &mut Report) {
        let Self { seal, keyid, has_low_s, .. } = self;
        report.run.clone_from(&seal.run);
        report.tenant.clone_from(&seal.tenant);
        report.generation = seal.generation;
        report.status.clone_from(&seal.status);
        report.sealed_at.clone_from(&seal.sealed_at);
        report.check("seal", format!("a key that you trust, {keyid}"));
        report.check("sections", format!("{} are as they were sealed", SECTIONS.len()));
        if !has_low_s {
            report.doubt(
                "seal_respelled",
                "The seal's signature has the higher s: an earlier release made it, or somebody spelled it anew.",
            );
        }
    }
}

/// The signed predicate, the key that signed it, and whether its signature has the lower s. The key id is not signed, so the envelope must be written in the only way
/// that we write it.
fn opened(seal: &Value, keys: &Keyring) -> Result<(SealPredicate, String, bool), Fault> {
    let wrong = |message: String| fault("seal", message);
    let canonical = |value: &Value| serde_json_canonicalizer::to_vec(value).map_err(|error| wrong(error.to_string()));
    let bytes = canonical(seal)?;
    let envelope = Envelope::read(&bytes).map_err(|error| wrong(error.to_string()))?;
    let again = envelope.to_json().and_then(|json| serde_json::from_slice::<Value>(&json));
    let is_one = matches!(envelope.keyids().as_slice(), [keyid] if !keyid.is_empty());
    if canonical(&again.map_err(|error| wrong(error.to_string()))?)? != bytes || !is_one {
        return Err(wrong("the envelope is not written as seals are: one signature, with its key id".to_owned()));
    }
    let has_low_s = envelope.has_low_s();
    let verified = envelope.verify(&keys.keys(KeyPurpose::Seals), 1).map_err(|error| wrong(error.to_string()))?;
    let statement = verified.statement().map_err(|error| wrong(error.to_string()))?;
    if statement.predicate_type != SEAL_TYPE {
        return Err(wrong(format!("the statement is no seal but {}", statement.predicate_type)));
    }
    let predicate = serde_json::from_value(statement.predicate).map_err(|error| wrong(error.to_string()))?;
    Ok((predicate, verified.keyids.into_iter().next().unwrap_or_default(), has_low_s))
}

/// Whether every section is what was sealed.
fn matches(content: &Value, seal: &SealPredicate) -> Result<(), Fault> {
    let names: Vec<&String> = content.as_object().map(|content| content.keys().collect()).unwrap_or_default();
    if names != SECTIONS || seal.sections.keys().collect::<Vec<_>>() != SECTIONS {
        return Err(fault("content", "it does not have the sections of a proof"));
    }
    for (name, sealed) in &seal.sections {
        let section = &content[name];
        let found = SectionDigest::of(section).map_err(|error| fault(format!("content.{name}"), error.to_string()))?;
        if *sealed != found {
            let path = format!("content.{name}{}", sealed.difference(&found, section));
            return Err(fault(path, format!("the section {name} was changed after it was sealed")));
        }
    }
    let run = &content["run"];
    for (path, sealed) in [
        ("id", Value::from(seal.run.as_str())),
        ("tenant", seal.tenant.as_str().into()),
        ("generation", seal.generation.into()),
        ("status", seal.status.as_str().into()),
        ("plan_digest", seal.plan_digest.as_str().into()),
        ("events", seal.events.into()),
    ] {
        if run[path] != sealed {
            return Err(fault(format!("content.run.{path}"), "the seal says something else"));
        }
    }
    Ok(())
}
