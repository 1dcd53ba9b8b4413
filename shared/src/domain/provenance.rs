//! Provenance of artifacts: in-toto statements with the predicate SLSA provenance v1, made from the content of a proof.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::proof::envelope_sha256;

/// The type of the predicate.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters of our provenance mean: docs/proof.md.
pub const BUILD_TYPE: &str = "https://nofx.dev/build/step/v1";
/// The id of a builder is this, the function, `@` and its version.
pub const BUILDERS: &str = "https://nofx.dev/functions/";
/// What provenance repeats of an artifact's metadata, if it is there.
const PARAMETERS: [&str; 11] = [
    "provider",
    "model_requested",
    "model_served",
    "prompt_sha256",
    "instructions_sha256",
    "template",
    "template_version",
    "template_sha256",
    "parameters",
    "repository",
    "commit",
];

/// The content of a proof by id, to look things up.
pub struct Index<'a> {
    plan_digest: &'a str,
    run: &'a str,
    artifacts: HashMap<&'a str, &'a Value>,
    parents: HashMap<&'a str, Vec<&'a str>>,
    children: HashMap<&'a str, Vec<&'a str>>,
    /// By step and attempt.
    attempts: HashMap<(&'a str, u64), &'a Value>,
    /// Artifacts by step and attempt.
    made: HashMap<(&'a str, u64), Vec<&'a Value>>,
    /// By name.
    steps: HashMap<&'a str, &'a Value>,
    gates: Vec<&'a Value>,
    decisions: Vec<&'a Value>,
}

/// An empty text if it is none.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Who made it: its step and attempt.
fn maker(artifact: &Value) -> (&str, u64) {
    (text(&artifact["step"]), artifact["attempt"].as_u64().unwrap_or_default())
}

impl<'a> Index<'a> {
    pub fn of(content: &'a Value) -> Self {
        let mut parents: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut children: HashMap<&str, Vec<&str>> = HashMap::new();
        for edge in items(&content["edges"]) {
            parents.entry(text(&edge["to"])).or_default().push(text(&edge["from"]));
            children.entry(text(&edge["from"])).or_default().push(text(&edge["to"]));
        }
        let mut made: HashMap<(&str, u64), Vec<&Value>> = HashMap::new();
        for artifact in items(&content["artifacts"]).filter(|artifact| artifact["is_own"] == true) {
            made.entry(maker(artifact)).or_default().push(artifact);
        }
        let attempts = items(&content["attempts"]).map(|attempt| (maker(attempt), attempt));
        Self {
            plan_digest: text(&content["run"]["plan_digest"]),
            run: text(&content["run"]["id"]),
            artifacts: items(&content["artifacts"]).map(|artifact| (text(&artifact["id"]), artifact)).collect(),
            parents,
            children,
            attempts: attempts.collect(),
            made,
            steps: items(&content["steps"]).map(|step| (text(&step["name"]), step)).collect(),
            gates: items(&content["gates"]).collect(),
            decisions: items(&content["decisions"]).collect(),
        }
    }

    pub fn artifact(&self, id: &str) -> Option<&'a Value> {
        self.artifacts.get(id).copied()
    }

    /// The artifacts that this one was made from.
    pub fn parents(&self, id: &str) -> Vec<&'a Value> {
        self.parents.get(id).into_iter().flatten().filter_map(|parent| self.artifact(parent)).collect()
    }

    pub fn step(&self, name: &str) -> Option<&'a Value> {
        self.steps.get(name).copied()
    }

    /// The artifacts of an attempt.
    pub fn made<'b>(&'b self, step: &'b str, attempt: u64) -> &'b [&'a Value] {
        self.made.get(&(step, attempt)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The statement about an artifact of the run.
    pub fn statement(&self, artifact: &Value) -> Value {
        let (step_name, number) = maker(artifact);
        let step = self.step(step_name).unwrap_or(&Value::Null);
        let attempt = self.attempts.get(&(step_name, number)).copied().unwrap_or(&Value::Null);
        let id = text(&artifact["id"]);
        let dependencies: Vec<Value> = self.parents(id).into_iter().map(descriptor).collect();
        let others = self.made(step_name, number).iter().filter(|other| other["id"] != artifact["id"]);
        let byproducts: Vec<Value> = others.map(|other| descriptor(other)).collect();
        let mut internal = parameters(&artifact["metadata"]);
        internal.insert("gates".to_owned(), self.gates_about(artifact, step).into());
        internal.insert("approvals".to_owned(), self.approvals_of(step).into());
        let mut metadata = Map::new();
        metadata.insert("invocationId".to_owned(), invocation(self.run, text(&step["id"]), number).into());
        for (name, at) in [("startedOn", &attempt["started_at"]), ("finishedOn", &artifact["created_at"])] {
            if at.is_string() {
                metadata.insert(name.to_owned(), at.clone());
            }
        }
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": artifact["name"], "digest": { "sha256": artifact["hash"] } }],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "tool": step["tool"],
                        "step": step_name,
                        "inputs_sha256": artifact["inputs_sha256"],
                        "refs": step["refs"],
                        "plan_sha256": self.plan_digest,
                    },
                    "internalParameters": internal,
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": { "id": builder(artifact, step) },
                    "metadata": metadata,
                    "byproducts": byproducts,
                },
            },
        })
    }

    /// Gates of the step that made the artifact, and gates whose evidence was made from it.
    fn gates_about(&self, artifact: &Value, step: &Value) -> Vec<Value> {
        let judged = self.children.get(text(&artifact["id"])).map(Vec::as_slice).unwrap_or_default();
        let is_about = |gate: &&&Value| {
            let has_ended = matches!(text(&gate["status"]), "passed" | "waived" | "failed");
            has_ended && (gate["step_id"] == step["id"] || judged.contains(&text(&gate["evidence_id"])))
        };
        let gates = self.gates.iter().filter(is_about).map(|gate| {
            let evidence = self.artifact(text(&gate["evidence_id"])).map(|evidence| &evidence["hash"]);
            json!({ "id": gate["id"], "type": gate["gate_type"], "status": gate["status"], "evidence_sha256": evidence })
        });
        gates.collect()
    }

    /// What people decided about the step.
    fn approvals_of(&self, step: &Value) -> Vec<Value> {
        let gates: Vec<&Value> =
            self.gates.iter().filter(|gate| gate["step_id"] == step["id"]).map(|gate| &gate["id"]).collect();
        let decisions = self.decisions.iter().filter(|decision| gates.contains(&&decision["gate"]));
        let approvals = decisions.map(|decision| {
            let envelope = Some(&decision["envelope"]).filter(|envelope| envelope.is_object());
            json!({
                "gate": decision["gate"],
                "decision": decision["decision"],
                "digest": decision["digest"],
                "envelope_sha256": envelope.map(envelope_sha256),
            })
        });
        approvals.collect()
    }
}

/// `run/step/attempt`, which names an attempt.
pub fn invocation(run: &str, step: &str, attempt: u64) -> String {
    format!("{run}/{step}/{attempt}")
}

/// The id of the function that made an artifact, with its version if it was recorded.
pub fn builder(artifact: &Value, step: &Value) -> String {
    let known = artifact["builder"].as_str();
    format!("{BUILDERS}{}", known.unwrap_or_else(|| text(&step["handler"])))
}

/// in-toto's ResourceDescriptor of an artifact.
fn descriptor(artifact: &Value) -> Value {
    json!({
        "name": artifact["name"],
        "digest": { "sha256": artifact["hash"] },
        "mediaType": artifact["media_type"],
        "annotations": { "artifact": artifact["id"], "type": artifact["type"] },
    })
}

fn parameters(metadata: &Value) -> Map<String, Value> {
    let known: BTreeMap<_, _> = PARAMETERS
        .into_iter()
        .filter_map(|name| Some((name, metadata.get(name).filter(|value| !value.is_null())?)))
        .collect();
    known.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_what_it_was_made_from_by_whom_and_what_judged_it() {
        let artifact = |id: &str, own: bool, kind: &str| {
            json!({ "id": id, "is_own": own, "step": if own { "write" } else { "" }, "attempt": 2, "name": format!("{id}.md"), "type": kind,
                    "hash": id.repeat(8), "media_type": "text/plain", "builder": "codegen@0.1.0", "inputs_sha256": "i",
                    "metadata": { "model_served": "m", "tokens": 3 }, "created_at": "2026-11-30T00:00:02Z" })
        };
        let mut evidence = artifact("e", true, "gate_evidence");
        evidence["step"] = json!("judge");
        let content = json!({
            "run": { "id": "r", "plan_digest": "p" },
            "artifacts": [artifact("a", false, "workspace"), artifact("b", true, "code"), artifact("l", true, "text"), evidence],
            "edges": [{ "from": "a", "to": "b" }, { "from": "b", "to": "e" }],
            "steps": [{ "id": "s", "name": "write", "tool": "codegen", "handler": "codegen", "refs": ["plan"] }],
            "attempts": [{ "step": "write", "attempt": 2, "started_at": "2026-11-30T00:00:01Z" }],
            "gates": [{ "id": "g", "step_id": "t", "gate_type": "gate:lint", "status": "passed", "evidence_id": "e" },
                      { "id": "h", "step_id": "s", "gate_type": "approval:codegen", "status": "passed" }],
            "decisions": [{ "gate": "h", "decision": "approve", "digest": "d", "envelope": { "payload": "x" } }],
        });
        let index = Index::of(&content);
        let made = index.statement(&content["artifacts"][1]);
        let build = &made["predicate"]["buildDefinition"];
        assert_eq!(made["subject"][0]["digest"]["sha256"], "bbbbbbbb");
        assert_eq!(build["resolvedDependencies"][0]["digest"]["sha256"], "aaaaaaaa");
        assert_eq!(build["externalParameters"]["tool"], "codegen");
        assert_eq!(
            (&build["internalParameters"]["model_served"], &build["internalParameters"]["tokens"]),
            (&json!("m"), &Value::Null)
        );
        let gates = build["internalParameters"]["gates"].as_array().unwrap();
        assert_eq!(gates.iter().map(|gate| gate["id"].as_str().unwrap()).collect::<Vec<_>>(), ["g", "h"]);
        assert_eq!(
            build["internalParameters"]["approvals"][0]["envelope_sha256"],
            envelope_sha256(&json!({ "payload": "x" }))
        );
        let details = &made["predicate"]["runDetails"];
        assert_eq!(details["builder"]["id"], "https://nofx.dev/functions/codegen@0.1.0");
        assert_eq!(details["metadata"]["invocationId"], "r/s/2");
        assert_eq!(details["byproducts"][0]["name"], "l.md");
    }
}
