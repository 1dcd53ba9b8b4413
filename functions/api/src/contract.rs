//! Describes the routes of this function for `openapi.json`.

mod access;
mod costs;

use axum::http::Method;
use serde_json::{Value, json};
use shared::domain::artifact_storage::{MAX_REASON_CHARS, RESTORE_DAYS, TIERS};
use shared::domain::rule::{FIELDS, MAX_ROWS};
use shared::domain::{RunStatus, policy};
use shared::error::Code;
use shared::http::ACTOR;
use shared::http::contract::{FILLED, Operation, Schemas, dotted, object, plain_name, who_and_why};
use shared::view::{
    Artifact, ArtifactPage, AuditPage, Event, Gate, Health, Lineage, PlanChecked, Policy, PolicyPage, QueueDetail,
    QueueList, Redriven, RuleDeleted, RuleDetail, RulePage, RunChange, RunCreated, RunDetail, RunPage, SigningKeys,
    Step, StepPage, StepWhy, StorageChange, Upload,
};

use crate::artifacts::{DELETION, MAX_UPLOAD_BYTES, MEDIA_TYPES, RESTORE, UPLOAD};
use crate::audit as audit_route;
use crate::policy as policy_route;
use crate::run_filter::MAX_TEXT_CHARS;
use crate::runs::{DOT, LINEAGE_FORMATS, MERMAID};

const RUNS: &str = "Runs";
const STEPS: &str = "Steps";
const ARTIFACTS: &str = "Artifacts";
const RULES: &str = "Rules of db_write";
const POLICY: &str = "Policy";
const AUDIT: &str = "Audit";
const QUEUES: &str = "Queues";
const SERVER: &str = "Server";

/// Every route, except those of pages.
pub fn contract(schemas: &mut Schemas) -> Vec<Operation> {
    [
        access::access(schemas),
        runs(schemas),
        costs::costs(schemas),
        controls(schemas),
        steps(schemas),
        artifacts(schemas),
        rules(schemas),
        policies(schemas),
        audit(schemas),
        queues(schemas),
        server(schemas),
    ]
    .concat()
}

fn get(path: &'static str, id: &'static str, group: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, id, group, summary)
}

fn runs(schemas: &mut Schemas) -> Vec<Operation> {
    let events = schemas.list_of::<Event>();
    let gates = schemas.list_of::<Gate>();
    let seq = json!({
        "description": "The `seq` of the last event seen. Empty or 0 for the first page.", "default": 0,
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": i64::MAX}, {"const": ""}],
    });
    let key = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"});
    let example = json!({"plan": {"goal": "say hello", "steps": [
        {"name": "hello", "tool": "echo", "inputs": {"text": "hello"}},
        {"name": "approve", "tool": "manual:release", "depends_on": ["hello"], "timeout_s": 3600}]}});
    let mut new_run = schemas.plan();
    new_run["properties"]["actor"] = who_and_why("actor");
    new_run["properties"]["actor"]["description"] = json!("The name to record on a stack without logins.");
    vec![
        Operation::new(Method::POST, "/runs", "createRun", RUNS, "Create a run of a plan.")
            .header("Idempotency-Key", "Makes it safe to repeat the request: the same key creates one run.", key)
            .header("traceparent", "W3C trace context; the run continues this trace.", json!({"type": "string"}))
            .takes(new_run.clone(), example.clone())
            .answers(201, "The run was created.", schemas.of::<RunCreated>())
            .with("Location")
            .example("run", "POST /runs")
            .answers(200, "An earlier request with this Idempotency-Key created it.", schemas.of::<RunCreated>())
            .with("Location")
            .refuses(&[Code::IdempotencyConflict, Code::LimitExceeded]),
        Operation::new(Method::POST, "/plans/check", "checkPlan", RUNS, "Check a plan without creating a run.")
            .takes(new_run, example)
            .answers(200, "POST /runs would accept the plan.", schemas.of::<PlanChecked>()),
        get("/runs", "listRuns", RUNS, "List runs that match all filters, newest first.")
            .parameter(
                "status",
                json!({
                    "description": "The run is in one of these states.",
                    "type": "array", "minItems": 1, "items": {"type": "string", "enum": RunStatus::ALL},
                }),
            )
            .parameter("tool", text("The run has a step of this tool. A prefix such as `gate:` stands for all tools that begin with it."))
            .parameter("goal", text("The goal contains this text, ignoring case."))
            .parameter("created_by", text("Somebody with exactly this name started the run."))
            .parameter("created_from", timestamp("The run was created at this time or later."))
            .parameter("created_to", timestamp("The run was created before this time."))
            .answers(200, "A page.", schemas.of::<RunPage>())
            .with("Link")
            .example("run", "GET /runs"),
        get("/runs/{id}", "fetchRun", RUNS, "Read a run with the first page of its steps and of its artifacts.")
            .answers(200, "The run.", schemas.of::<RunDetail>())
            .with("Link")
            .example("run", "GET /runs/{id}, failed")
            .has_etag(),
        get("/runs/{id}/plan", "fetchPlan", RUNS, "Read the plan as it was posted.")
            .answers(200, "The plan.", json!({"type": "object"}))
            .example("run", "GET /runs/{id}/plan"),
        get("/runs/{id}/timeline", "listEvents", RUNS, "List the events of a run, oldest first.")
            .parameter("after", seq)
            .answers(200, "A page.", events)
            .with("Link")
            .example("run", "GET /runs/{id}/timeline?limit=2")
            .has_etag(),
        get("/runs/{id}/gates", "listRunGates", RUNS, "List the gates of a run, oldest first.")
            .answers(200, "A page.", gates)
            .with("Link"),
        get("/runs/{id}/lineage", "fetchLineage", RUNS, "Read which artifacts of a run were made from which.")
            .parameter(
                "format",
                json!({
                    "description": "Another form: `dot` draws the graph for Graphviz, `mermaid` for Mermaid, both as text.",
                    "type": "string", "enum": LINEAGE_FORMATS, "default": "json",
                }),
            )
            .answers(200, "The graph.", schemas.of::<Lineage>())
            .or_text(DOT)
            .or_text(MERMAID)
            .example("run", "GET /runs/{id}/lineage"),
        get("/runs/{id}/proof", "fetchProof", RUNS, "Download the proof of a run that has ended.")
            .answers(302, "A signed URL of the proof is in Location, valid for 5 minutes.", None)
            .with("Location")
            .refuses(&[Code::NotSealed, Code::RunNotFinished]),
    ]
}

fn text(about: &str) -> Value {
    json!({"description": about, "type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "pattern": r"^[^\x00]+$"})
}

fn timestamp(about: &str) -> Value {
    json!({"description": about, "type": "string", "format": "date-time"})
}

fn controls(schemas: &mut Schemas) -> Vec<Operation> {
    let mut control = |path, id, summary, code, example| {
        Operation::new(Method::POST, path, id, RUNS, summary)
            .may_take(object(&[ACTOR], &[], who_and_why), json!({"actor": "ann"}))
            .answers(200, "What changed.", schemas.of::<RunChange>())
            .example("control", example)
            .refuses(&[code])
    };
    vec![
        control("/runs/{id}/cancel", "cancelRun", "Cancel a run.", Code::RunFinished, "cancel"),
        control("/runs/{id}/pause", "pauseRun", "Pause a run: no further step starts.", Code::RunFinished, "pause"),
        control("/runs/{id}/resume", "resumeRun", "Resume a paused run.", Code::RunFinished, "resume"),
        control(
            "/runs/{id}/retry",
            "retryRun",
            "Retry a failed or cancelled run as its next generation.",
            Code::RunNotRetryable,
            "retry",
        )
        .refuses(&[Code::LimitExceeded, Code::ArtifactDeleted]),
    ]
}

fn steps(schemas: &mut Schemas) -> Vec<Operation> {
    vec![
        get("/runs/{id}/steps", "listSteps", STEPS, "List the steps of a run in the order of its plan.")
            .answers(200, "A page.", schemas.of::<StepPage>())
            .with("Link")
            .example("run", "GET /runs/{id}/steps?limit=1")
            .has_etag(),
        get("/runs/{id}/steps/{name}", "fetchStep", STEPS, "Read a step with its inputs and outputs, however large.")
            .answers(200, "The step.", schemas.of::<Step>())
            .example("run", "GET /runs/{id}/steps/write")
            .has_etag(),
        get("/runs/{id}/steps/{name}/why", "explainStep", STEPS, "Read what a step waits for, or how it ended.")
            .answers(200, "A sentence and the facts behind it.", schemas.of::<StepWhy>())
            .example("run", "why, pending"),
    ]
}

fn artifacts(schemas: &mut Schemas) -> Vec<Operation> {
    let upload = object(UPLOAD, &["sha256", "size_bytes"], |field| match field {
        "sha256" => {
            json!({"description": "Of the archive, in lower-case hex.", "type": "string", "pattern": "^[0-9a-f]{64}$"})
        }
        "size_bytes" => json!({"type": "integer", "minimum": 1, "maximum": MAX_UPLOAD_BYTES}),
        "media_type" => json!({"description": "application/gzip by default.", "enum": media_types()}),
        "name" => json!({"type": ["string", "null"], "maxLength": 200, "pattern": FILLED}),
        other => unreachable!("the field {other} has no schema"),
    });
    let example = json!({"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size_bytes": 1024,
        "name": "workspace.tar.gz"});
    vec![
        get("/runs/{id}/artifacts", "listArtifacts", ARTIFACTS, "List the artifacts of a run, oldest first.")
            .answers(200, "A page.", schemas.of::<ArtifactPage>())
            .with("Link")
            .example("run", "GET /runs/{id}/artifacts")
            .has_etag(),
        get("/artifacts/{id}", "fetchArtifact", ARTIFACTS, "Read what is recorded about an artifact.")
            .answers(200, "The artifact.", schemas.of::<Artifact>())
            .example("run", "GET /artifacts/{id}"),
        get("/artifacts/{id}/download", "downloadArtifact", ARTIFACTS, "Download an artifact.")
            .answers(302, "A signed URL for its bytes is in Location, valid for 5 minutes.", None)
            .with("Location")
            .refuses(&[Code::Forbidden, Code::ArtifactArchived, Code::ArtifactDeleted]),
        Operation::new(
            Method::POST,
            "/artifacts/{id}/restore",
            "restoreArtifact",
            ARTIFACTS,
            "Ask for a copy of an archived artifact that can be read for some days.",
        )
        .takes(object(RESTORE, &["days"], storage_field), json!({"days": 7, "tier": "standard", "actor": "ann"}))
        .answers(202, "It is asked for.", schemas.of::<StorageChange>())
        .answers(200, "It is asked for already, or can be read for long enough.", schemas.of::<StorageChange>())
        .example("run", "restore, hot")
        .refuses(&[Code::ArtifactArchived, Code::ArtifactDeleted]),
        Operation::new(
            Method::DELETE,
            "/artifacts/{id}",
            "deleteArtifact",
            ARTIFACTS,
            "Delete the bytes of an artifact. What is recorded about it stays.",
        )
        .takes(object(DELETION, &["reason"], storage_field), json!({"reason": "it has a secret", "actor": "ann"}))
        .answers(202, "Its bytes go within minutes.", schemas.of::<StorageChange>())
        .example("run", "delete artifact")
        .answers(200, "It was deleted before.", schemas.of::<StorageChange>())
        .refuses(&[Code::ArtifactInUse]),
        Operation::new(
            Method::POST,
            "/workspaces",
            "createWorkspace",
            ARTIFACTS,
            "Announce the upload of a workspace.",
        )
        .takes(upload, example)
        .answers(201, "Where to PUT the bytes.", schemas.of::<Upload>())
        .refuses(&[Code::LimitExceeded]),
    ]
}

fn storage_field(field: &str) -> Value {
    match field {
        "days" => json!({"description": "How long it can be read.", "type": "integer",
            "minimum": RESTORE_DAYS.start(), "maximum": RESTORE_DAYS.end()}),
        "tier" => {
            let tiers: Vec<Value> = TIERS.iter().map(|tier| json!(tier)).chain([Value::Null]).collect();
            json!({"description": "How fast: in minutes, hours, or half a day.", "enum": tiers, "default": "standard"})
        }
        "reason" => json!({"description": "Why, for the record.", "type": "string", "minLength": 1,
            "maxLength": MAX_REASON_CHARS, "pattern": FILLED}),
        other => who_and_why(other),
    }
}

fn media_types() -> Vec<Value> {
    MEDIA_TYPES.iter().map(|kind| json!(kind)).chain([Value::Null]).collect()
}

fn rules(schemas: &mut Schemas) -> Vec<Operation> {
    let example = json!({"allowed_ops": ["insert"], "columns": ["name", "price"], "max_rows": 100, "actor": "ann"});
    vec![
        get("/rules", "listRules", RULES, "List the rules by the name of their table.")
            .answers(200, "A page.", schemas.of::<RulePage>())
            .with("Link"),
        get(
            "/rules/{table}",
            "fetchRule",
            RULES,
            "Read the rule of a table, the table's definition, and the rule's latest changes.",
        )
        .answers(200, "The rule.", schemas.of::<RuleDetail>())
        .example("rule", "GET /rules/{table}"),
        Operation::new(Method::PUT, "/rules/{table}", "setRule", RULES, "Set the rule of a table.")
            .takes(rule_body(), example)
            .answers(201, "The rule is new.", schemas.of::<RuleDetail>())
            .answers(200, "The rule replaced another.", schemas.of::<RuleDetail>()),
        Operation::new(Method::DELETE, "/rules/{table}", "deleteRule", RULES, "Delete the rule of a table.")
            .may_take(object(&[ACTOR], &[], who_and_why), json!({"actor": "ann"}))
            .answers(200, "It was deleted.", schemas.of::<RuleDeleted>())
            .example("rule", "DELETE /rules/{table}"),
    ]
}

fn policies(schemas: &mut Schemas) -> Vec<Operation> {
    let example = json!({"document": {"gates": {"on_weakening": "fail", "require_base": true}}, "actor": "ann",
        "reason": "releases need a base"});
    let after = json!({
        "description": "Cursor: `next` of the page before, which is the last version seen. Empty for the first page.",
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": u32::MAX}, {"const": ""}],
    });
    let if_match = "`ETag` of the policy that the client has seen. If another is current, nothing is changed.";
    vec![
        get(
            "/policy",
            "fetchPolicy",
            POLICY,
            "Read the tenant's policy. Version 0 is that of a tenant that has set none.",
        )
        .answers(200, "The policy.", schemas.of::<Policy>())
        .example("rule", "GET /policy")
        .has_etag(),
        Operation::new(Method::PUT, "/policy", "setPolicy", POLICY, "Replace the policy by its next version.")
            .header("If-Match", if_match, json!({"type": "string"}))
            .takes(policy_body(), example)
            .answers(200, "The policy.", schemas.of::<Policy>())
            .example("rule", "PUT /policy")
            .refuses(&[Code::PolicyChanged]),
        get("/policy/history", "listPolicies", POLICY, "List the versions of the policy, newest first.")
            .parameter("after", after)
            .answers(200, "A page.", schemas.of::<PolicyPage>())
            .with("Link")
            .example("rule", "GET /policy/history"),
    ]
}

fn policy_body() -> Value {
    object(policy_route::FIELDS, &["document"], |field| match field {
        "document" => {
            let gates = object(policy::GATE_FIELDS, &[], gate_policy_field);
            let gates =
                json!({"description": "What gates demand, whatever a plan says.", "anyOf": [gates, {"type": "null"}]});
            let part = |about: &str| json!({"description": about, "type": ["object", "null"]});
            let mut document = object(policy::FIELDS, &[], |field| match field {
                "gates" => gates.clone(),
                "approvals" => part("What gates that people decide demand: docs/policy.md."),
                "models" => part("Order, prices, budgets and models that may be asked: docs/policy.md."),
                "artifacts" => part("How long artifacts are kept, and where: docs/storage.md."),
                other => unreachable!("the field {other} has no schema"),
            });
            document["description"] = json!("What is left out or null has its default. Unknown fields are refused.");
            document
        }
        other => who_and_why(other),
    })
}

fn gate_policy_field(field: &str) -> Value {
    let words = |about: &str, words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| json!(word)).chain([Value::Null]).collect();
        json!({"description": about, "enum": words, "default": words[0]})
    };
    let flag = |about: &str| json!({"description": about, "type": ["boolean", "null"], "default": false});
    match field {
        "on_weakening" => words("What happens when a change weakens its own gates.", &["ask", "fail"]),
        "require_base" => flag("Whether a gate without a base fails."),
        "trusted_base" => json!({
            "description": "Which bases may define gates: any, those that workspace:git fetched from the default branch of a repository that the policy names with its whole URL (git), or those with these digests.",
            "default": "any",
            "anyOf": [{"enum": ["any", "git", null]}, {
                "type": "array", "maxItems": policy::MAX_BASES,
                "items": {"type": "string", "pattern": policy::BASE_PATTERN},
            }],
        }),
        "network" => words("Whether a gate may use the network while it tests.", &["never", "when_asked"]),
        "minimum_sandbox" => words("The weakest isolation that a gate accepts.", &["limits", "landlock", "namespaces"]),
        "reuse_evidence" => flag("Whether evidence of the same inputs is used again."),
        "repositories" => json!({
            "description": "Repositories that workspace:git may fetch, as the beginnings of their URLs; none by default.",
            "type": ["array", "null"], "maxItems": policy::MAX_REPOSITORIES,
            "items": {"type": "string", "maxLength": policy::MAX_URL_BYTES, "pattern": policy::URL_PATTERN},
        }),
        "minimum_threshold" => json!({
            "description": "The lowest coverage that a gate may demand.",
            "type": ["number", "null"], "minimum": 0, "maximum": 1,
        }),
        "max_timeout_s" => json!({
            "description": "The longest time that a gate may take, in seconds.", "type": ["integer", "null"],
            "minimum": policy::TIMEOUT_S.start(), "maximum": policy::TIMEOUT_S.end(),
        }),
        other => unreachable!("the field {other} has no schema"),
    }
}

fn audit(schemas: &mut Schemas) -> Vec<Operation> {
    let seq = |about: &str| {
        json!({
            "description": about, "anyOf": [{"type": "integer", "minimum": 0, "maximum": u32::MAX}, {"const": ""}],
        })
    };
    vec![
        get("/audit", "listAudit", AUDIT, "List the entries of the audit that match all filters, newest first.")
            .parameter(
                "after",
                seq("Cursor: `next` of the page before, which is the last entry seen. Empty for the first page."),
            )
            .parameter("action", text("The action, such as `policy.set`."))
            .parameter("actor", text("The exact name of who did it."))
            .answers(200, "A page.", schemas.of::<AuditPage>())
            .with("Link")
            .example("rule", "GET /audit"),
        get("/audit/export", "exportAudit", AUDIT, "Export the audit as it is chained, oldest first.")
            .parameter("after", seq("The `seq` of the last row that the client has. Empty or 0 for the first page."))
            .answers(
                200,
                "A page: lines `{seq, prev_hash, hash, body}`. The last page ends with `{tenant, head}`.",
                json!({"type": "string"}),
            )
            .as_media_type(audit_route::LINES)
            .with("Link"),
    ]
}

fn queues(schemas: &mut Schemas) -> Vec<Operation> {
    vec![
        get("/queues", "listQueues", QUEUES, "Read how many messages the queues of each handler hold.").answers(
            200,
            "The queues.",
            schemas.of::<QueueList>(),
        ),
        get("/queues/{handler}", "fetchQueue", QUEUES, "Read the queues of a handler, and some of its dead letters.")
            .answers(200, "The queues.", schemas.of::<QueueDetail>()),
        Operation::new(
            Method::POST,
            "/queues/{handler}/redrive",
            "redriveQueue",
            QUEUES,
            "Move dead letters of a handler back to its queue, at most 100 a call.",
        )
        .may_take(object(&[ACTOR], &[], who_and_why), json!({"actor": "ann"}))
        .answers(200, "How many were moved, and whether more may be left.", schemas.of::<Redriven>()),
    ]
}

fn server(schemas: &mut Schemas) -> Vec<Operation> {
    vec![
        get("/keys", "listKeys", SERVER, "List the public keys that verify attestations of gates.").answers(
            200,
            "The key that signs now comes first.",
            schemas.of::<SigningKeys>(),
        ),
        get("/health", "health", SERVER, "Check that the database is available.")
            .answers(200, "It is available.", schemas.of::<Health>())
            .example("rule", "GET /health"),
        get("/openapi.json", "openapi", SERVER, "Read this document.").answers(
            200,
            "An OpenAPI document.",
            json!({"type": "object"}),
        ),
    ]
}

fn rule_body() -> Value {
    let names = |about: &str| json!({"description": about, "type": "array", "maxItems": 1_000, "uniqueItems": true, "items": plain_name()});
    let mut fields = FIELDS.to_vec();
    fields.push(ACTOR);
    object(&fields, &["allowed_ops"], |field| match field {
        "allowed_ops" => {
            json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"enum": ["insert", "update", "delete"]}})
        }
        "columns" => names("Columns that plans may write; none by default."),
        "key" => names("Columns that together identify rows; none by default."),
        "max_rows" => {
            json!({"description": "Maximum number of rows of one write.", "type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": 100})
        }
        "role" => {
            let mut role = plain_name();
            role["description"] = json!("The database role that writes; nofx_writer by default.");
            role
        }
        "triggers" => json!({
            "description": "Triggers and rewrite rules that may run: schema.table.name, and the sha256 of the definition.",
            "type": "object", "maxProperties": 1_000, "propertyNames": {"pattern": dotted(3)},
            "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        }),
        "dependants" => json!({
            "description": "Other tables that cascades and triggers may change: schema.table, and the maximum number of rows.",
            "type": "object", "maxProperties": 1_000, "propertyNames": {"pattern": dotted(2)},
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 999_999},
        }),
        "allow" => json!({
            "description": "Allowed targets other than plain tables.",
            "type": "array", "uniqueItems": true, "items": {"enum": ["view", "foreign_table", "inheritance"]},
        }),
        other => who_and_why(other),
    })
}
