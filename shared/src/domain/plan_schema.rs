//! JSON Schema (2020-12) of a plan, for editors and for programs that write plans. It uses the tables and limits of the
//! reader in `plan`, and accepts every plan that the reader accepts. The reader also checks that names are unique, that
//! dependencies and references name existing steps, and sizes.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::approval::{self, ASK_FIELDS, MAX_PEOPLE, MAX_PERSON_CHARS, MAX_REASON_CHARS, REQUIRED, ROLES, SECONDS};
use super::gate::GATE_CHANGE;
use super::plan::{
    ATTEMPTS, BACKOFF_MS, BUDGET, DEFAULT_ATTEMPTS, DEFAULT_BACKOFF_MS, FORBIDDEN_NAMES, Limits, MAX_BUDGET_USD,
    MAX_GOAL_CHARS, MAX_NAME_CHARS, Object, PLAN, RETRY, RISKY_TOOLS, RUN_TIMEOUT_S, STEP, WORKSPACE,
};
use super::tool::{HANDLERS, HandlerSpec, Tools, long_variant, prefixed_pattern};

/// A text that is not blank and contains no NUL. The reader also counts other white space as blank.
const FILLED: &str = r"^[^\u0000]*[^ \t\n\r\u0000][^\u0000]*$";
/// A UUID, also as a URN, in braces or without hyphens.
const UUID: &str = r"^((urn:uuid:)?[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|\{[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\}|[0-9A-Fa-f]{32})$";

/// The schema of `{"plan": {...}}`, the body of `POST /runs`.
pub fn schema(limits: &Limits) -> Value {
    let place = "#/$defs";
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NOFX plan",
        "description": "A goal and a graph of steps, as `nofx run` and `POST /runs` take it.",
        "type": "object",
        "properties": {
            "$schema": {
                "type": "string",
                "description": "Where this schema is, for editors. `nofx` leaves it out when it posts the plan.",
            },
            "plan": {"$ref": format!("{place}/{PLAN_NAME}")},
        },
        "required": ["plan"],
        "additionalProperties": false,
        "$defs": definitions(limits, place),
    })
}

/// Name of the schema of a plan among the definitions.
pub const PLAN_NAME: &str = "Plan";

/// The schemas of a plan and of its parts, by name. `place` is the object that they are put into, such as `#/$defs`: there
/// they refer to each other.
pub fn definitions(limits: &Limits, place: &str) -> Map<String, Value> {
    let definitions = Definitions { limits, place };
    let named = [
        (PLAN_NAME, object(&PLAN, "A goal and its steps.", |field| definitions.plan_field(field))),
        (
            "PlanBudget",
            object(&BUDGET, "What a run may spend on models. Its steps wait when that is exhausted.", budget_field),
        ),
        ("PlanWorkspace", workspace()),
        ("PlanStep", definitions.step()),
        ("PlanRetry", object(&RETRY, "When a retryable failure is tried again.", retry_field)),
        (
            "PlanApproval",
            object(
                &APPROVAL,
                "Who must approve a step before it starts. The tenant's policy can demand more.",
                approval_field,
            ),
        ),
        (
            "PlanAsk",
            object(
                &ASK,
                "Who decides the gate of a step that asks. The tenant's policy can demand more.",
                approval_field,
            ),
        ),
        ("StepName", text(MAX_NAME_CHARS, "The name of a step.")),
    ];
    named.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

const APPROVAL: Object = Object { known: approval::FIELDS, required: &[] };
const ASK: Object = Object { known: ASK_FIELDS, required: &[] };

struct Definitions<'a> {
    limits: &'a Limits,
    place: &'a str,
}

impl Definitions<'_> {
    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    fn plan_field(&self, field: &str) -> Value {
        match field {
            "goal" => text(MAX_GOAL_CHARS, "What the plan is for."),
            "timeout_s" => whole(
                &RUN_TIMEOUT_S,
                "How long a run may take, in seconds. Then its open steps are cancelled, and it fails with `run_timeout`.",
            ),
            "risky" => json!({
                "description": format!("Allows the tools that start the workspace's own program: {}.", RISKY_TOOLS.join(", ")),
                "type": "boolean", "default": false,
            }),
            "budget" => json!({"$ref": self.reference("PlanBudget")}),
            "workspace" => json!({"$ref": self.reference("PlanWorkspace")}),
            "steps" => json!({
                "description": "The steps. If none of them has `depends_on`, each waits for the one before.",
                "type": "array", "items": {"$ref": self.reference("PlanStep")}, "minItems": 1, "maxItems": self.limits.steps,
            }),
            other => no_schema(other),
        }
    }

    fn step(&self) -> Value {
        let mut schema = object(&STEP, "One call of a tool.", |field| self.step_field(field));
        let bounded = |handler: &HandlerSpec| {
            let long = long_variant(handler).filter(|_| self.limits.long_gates);
            let mut timeout_s = json!({"maximum": long.unwrap_or(handler).max_timeout_s});
            if let Some(default_s) = handler.default_timeout_s {
                timeout_s["default"] = json!(default_s);
            }
            let mut properties = json!({"timeout_s": timeout_s});
            if handler.name == "manual" {
                properties["approval"] = json!(false);
                properties["inputs"] = json!({"properties": {"approval": {"$ref": self.reference("PlanAsk")}}});
            }
            json!({
                "if": {"properties": {"tool": tools(handler)}, "required": ["tool"]},
                "then": {"properties": properties},
            })
        };
        schema["allOf"] = HANDLERS.iter().map(bounded).collect();
        schema
    }

    fn step_field(&self, field: &str) -> Value {
        match field {
            "name" => json!({
                "description": "Unique in the plan.", "$ref": self.reference("StepName"), "not": {"enum": FORBIDDEN_NAMES},
            }),
            "tool" => json!({
                "description": "What the step does.",
                "anyOf": HANDLERS.iter().map(|handler| {
                    let mut schema = tools(handler);
                    schema["description"] = json!(handler.about);
                    schema
                }).collect::<Value>(),
            }),
            "inputs" => json!({
                "description": format!(
                    "What the tool takes; at most {} bytes. `${{{{ steps.NAME.outputs.PATH }}}}` stands for an output of a step upstream.",
                    self.limits.inputs_bytes
                ),
                "type": "object", "default": {},
            }),
            "depends_on" => json!({
                "description": "Steps that must succeed first.",
                "type": "array", "items": {"$ref": self.reference("StepName")},
            }),
            "retry" => json!({"$ref": self.reference("PlanRetry")}),
            "approval" => json!({"$ref": self.reference("PlanApproval")}),
            "timeout_s" => json!({
                "description": "How long one attempt may take, in seconds; for `manual:` how long the gate waits.",
                "type": "integer", "minimum": 1,
            }),
            other => no_schema(other),
        }
    }
}

fn workspace() -> Value {
    let mut schema = object(&WORKSPACE, "Uploaded files that the plan's gates judge.", |field| match field {
        "archive" => json!({"description": "Artifact id of the workspace.", "type": "string", "pattern": UUID}),
        "base" => json!({
            "description": "Artifact id of the workspace before the change; instead of `diff`.",
            "type": ["string", "null"], "pattern": UUID,
        }),
        "diff" => json!({
            "description": "Artifact id of a unified diff of the change; instead of `base`.",
            "type": ["string", "null"], "pattern": UUID,
        }),
        other => no_schema(other),
    });
    let given = json!({"type": "string"});
    schema["not"] = json!({"properties": {"base": given, "diff": given}, "required": ["base", "diff"]});
    schema
}

fn budget_field(field: &str) -> Value {
    match field {
        "usd" => json!({
            "description": "Dollars with at most 6 decimals, as a string or a number.",
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,30})?$"},
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_BUDGET_USD},
            ],
        }),
        other => no_schema(other),
    }
}

fn approval_field(field: &str) -> Value {
    match field {
        "required" => whole(&REQUIRED, "Different people who must approve."),
        "roles" => json!({
            "description": "Roles that may decide. A role includes those below it, so the least one counts.",
            "type": "array", "items": {"enum": ROLES}, "minItems": 1, "maxItems": ROLES.len(),
        }),
        "people" => json!({
            "description": "Members who may decide: their subjects or e-mail addresses.",
            "type": "array", "items": text(MAX_PERSON_CHARS, "A subject or an e-mail address."), "minItems": 1, "maxItems": MAX_PEOPLE,
        }),
        "self" => json!({
            "description": "False: people do not decide about their own work, even if the policy allows it.", "type": "boolean",
        }),
        "expires_after_s" => {
            whole(&SECONDS, "How long the gate waits, in seconds. Without it, for as long as the run does.")
        }
        "remind_after_s" => whole(&SECONDS, "After how many seconds an event reminds of the gate."),
        "reason" => text(MAX_REASON_CHARS, "What the people who decide read."),
        other => no_schema(other),
    }
}

fn retry_field(field: &str) -> Value {
    let (mut schema, default) = match field {
        "max_attempts" => (whole(&ATTEMPTS, "Maximum number of attempts, the first included."), DEFAULT_ATTEMPTS),
        "backoff_ms" => (
            whole(&BACKOFF_MS, "The first delay, in milliseconds. It doubles with each failure, up to 15 minutes."),
            DEFAULT_BACKOFF_MS,
        ),
        other => no_schema(other),
    };
    schema["default"] = json!(default);
    schema
}

/// The tools of a handler.
fn tools(handler: &HandlerSpec) -> Value {
    match handler.tools {
        Tools::Listed(tools) => json!({"enum": tools}),
        Tools::Prefixed(prefix) => {
            let mut schema = json!({"type": "string", "pattern": prefixed_pattern(prefix)});
            if GATE_CHANGE.starts_with(prefix) {
                schema["not"] = json!({"const": GATE_CHANGE});
            }
            schema
        }
    }
}

fn object(object: &Object, about: &str, describe: impl Fn(&str) -> Value) -> Value {
    let names = object.known.iter().filter_map(|names| names.first());
    let properties: Map<String, Value> = names.map(|name| ((*name).to_owned(), describe(name))).collect();
    json!({
        "description": about,
        "type": "object", "properties": properties, "required": object.required, "additionalProperties": false,
    })
}

fn text(max_chars: usize, about: &str) -> Value {
    json!({"description": about, "type": "string", "minLength": 1, "maxLength": max_chars, "pattern": FILLED})
}

fn whole(range: &RangeInclusive<u64>, about: &str) -> Value {
    json!({"description": about, "type": "integer", "minimum": range.start(), "maximum": range.end()})
}

/// A table of the reader has a field that this file does not describe. A test makes the schema and finds it.
fn no_schema(field: &str) -> ! {
    unreachable!("the field {field} of a plan has no schema")
}
