//! The signed provenance of every artifact that the run made.

use std::collections::BTreeSet;

use nofx_gates::attestation::{Envelope, Statement};
use serde_json::Value;
use shared::domain::provenance::{BUILDERS, Index, PREDICATE_TYPE, builder, invocation};
use shared::signing::PublicKey;
use shared::view::KeyPurpose;

use super::content::{items, text};
use super::report::Report;
use super::{Options, fault};

pub fn check(content: &Value, index: &Index<'_>, options: &Options, report: &mut Report) {
    let keys = options.keys.keys(KeyPurpose::Seals);
    let own: Vec<&Value> = items(content, "artifacts").iter().filter(|artifact| artifact["is_own"] == true).collect();
    let envelopes = items(content, "provenance");
    let mut builders = BTreeSet::new();
    let mut unversioned = 0;
    for (at, envelope) in envelopes.iter().enumerate() {
        let path = format!("content.provenance[{at}]");
        let Some(artifact) = own.get(at) else {
            report.faults.push(fault(path, "it is about no artifact of the run"));
            continue;
        };
        match verified(envelope, &keys) {
            Ok(statement) => {
                for message in differences(&statement, artifact, content, index) {
                    report.faults.push(fault(path.clone(), message));
                }
                let id = text(&statement.predicate["runDetails"]["builder"]["id"]).to_owned();
                if !is_allowed(&id, &options.builders) {
                    report.faults.push(fault(path, format!("the builder {id} is not one that you allow")));
                }
                unversioned += usize::from(!id.contains('@'));
                builders.insert(id);
            }
            Err(message) => report.faults.push(fault(path, message)),
        }
    }
    report.check("provenance", format!("{} of {} artifacts", envelopes.len(), own.len()));
    for id in &builders {
        report.check("builder", id.clone());
    }
    if envelopes.len() < own.len() {
        let missing = own.len() - envelopes.len();
        report.doubt("provenance_missing", &format!("{missing} artifacts have no provenance: the run made too many."));
        if !options.builders.is_empty() {
            report.missing.push(format!("of {missing} artifacts the builder is not signed"));
        }
    }
    if unversioned > 0 {
        report.doubt(
            "builder_version_unknown",
            "Some artifacts were made before the version of a function was recorded.",
        );
    }
    if own.iter().any(|artifact| artifact["metadata"]["template"] == true) {
        report.doubt("no_model", "A template wrote some of the texts, and no model.");
    }
    let is_of_model =
        |artifact: &Value| artifact["metadata"]["model_served"].is_string() && artifact["metadata"]["template"] != true;
    if own.iter().any(|artifact| is_of_model(artifact)) {
        report.doubt(
            "model_as_reported",
            "The model that answered is the one that the provider named; the provider signed nothing.",
        );
    }
}

fn verified(envelope: &Value, keys: &[PublicKey]) -> Result<Statement, String> {
    let envelope = Envelope::read(envelope.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let verified = envelope.verify(keys, 1).map_err(|error| error.to_string())?;
    verified.statement().map_err(|error| error.to_string())
}

/// What a statement says otherwise than the proof that contains it.
fn differences(statement: &Statement, artifact: &Value, content: &Value, index: &Index<'_>) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut require = |holds: bool, message: &'static str| {
        if !holds {
            found.push(message);
        }
    };
    let digests = |list: &[Value]| -> BTreeSet<String> {
        list.iter().map(|one| text(&one["digest"]["sha256"]).to_owned()).collect()
    };
    require(statement.predicate_type == PREDICATE_TYPE, "it is no provenance");
    let subjects: Vec<&String> = statement.subject.iter().filter_map(|subject| subject.digest.get("sha256")).collect();
    require(subjects == [text(&artifact["hash"])], "it is about another artifact");
    let build = &statement.predicate["buildDefinition"];
    let made_from: BTreeSet<String> =
        index.parents(text(&artifact["id"])).iter().map(|parent| text(&parent["hash"]).to_owned()).collect();
    let named = build["resolvedDependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    require(digests(named) == made_from, "it names other artifacts that this one was made from than the lineage");
    let step = index.step(text(&artifact["step"])).unwrap_or(&Value::Null);
    let details = &statement.predicate["runDetails"];
    require(text(&details["builder"]["id"]) == builder(artifact, step), "it names another builder than the artifact");
    let number = artifact["attempt"].as_u64().unwrap_or_default();
    let invoked = invocation(text(&content["run"]["id"]), text(&step["id"]), number);
    require(details["metadata"]["invocationId"] == invoked.as_str(), "it is about another attempt");
    let parameters = &build["externalParameters"];
    require(parameters["tool"] == step["tool"], "it names another tool");
    require(parameters["inputs_sha256"] == artifact["inputs_sha256"], "it names other inputs");
    found
}

/// An id that is allowed, with its version or without one, or the name of a function of NOFX.
fn is_allowed(id: &str, allowed: &[String]) -> bool {
    let unversioned = id.split_once('@').map_or(id, |(id, _)| id);
    let short = |id: &str| id.strip_prefix(BUILDERS).unwrap_or(id).to_owned();
    allowed.is_empty()
        || allowed
            .iter()
            .any(|one| [id, unversioned].contains(&one.as_str()) || [short(id), short(unversioned)].contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_is_allowed_with_and_without_its_version() {
        let id = "https://nofx.dev/functions/gate@0.1.0+abc";
        for allowed in [id, "https://nofx.dev/functions/gate", "gate", "gate@0.1.0+abc"] {
            assert!(is_allowed(id, &["echo".to_owned(), allowed.to_owned()]), "{allowed}");
        }
        for other in ["gate@0.1.0", "gat", "https://evil.test/functions/gate@0.1.0+abc", ""] {
            assert!(!is_allowed(id, &[other.to_owned()]), "{other}");
        }
        assert!(is_allowed(id, &[]));
    }
}
