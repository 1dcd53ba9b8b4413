//! Compares the numbers in the template with those in the code, and checks their order.

use nofx_local::MIN_COMPRESSED_BYTES;
use nofx_local::function::{self, HTTP_FUNCTIONS, SWEEPER, SWEEPER_TIMEOUT, polled_handlers, queue_functions};
use serde_json::{Value, json};
use shared::domain::tool::HandlerSpec;

use crate::template::{
    self, LONG_GATES_QUEUE, function, functions, of_type, parameters, queue, read, resource_of, resources,
    resources_of, text, texts,
};

/// A claim adds this to a function's timeout: see `nofx.steps_claim`.
const LEASE_MARGIN_S: u32 = 5;
/// The integration timeout of API Gateway.
const GATEWAY_TIMEOUT_S: u64 = 29;

#[test]
fn the_template_deploys_every_function_and_no_other() {
    let mut names: Vec<String> = function::names().map(str::to_owned).collect();
    names.sort_unstable();
    assert_eq!(functions().into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn every_handlers_queue_has_the_numbers_of_the_code() {
    for queue_function in queue_functions() {
        let (spec, name) = (queue_function.spec, queue_function.name());
        let (_, properties) = function(name);
        assert_eq!(properties["Timeout"], json!(spec.function_timeout_s), "{name}");
        let event = &properties["Events"]["StepReady"]["Properties"];
        assert_eq!(event["BatchSize"], json!(spec.batch_size), "{name}");
        assert_eq!(event["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]), "{name}");
        assert!((2..=1000).contains(&event["ScalingConfig"]["MaximumConcurrency"].as_i64().unwrap_or(0)), "{name}");

        check_queue(spec, &resource_of(&event["Queue"], name, "Events.StepReady.Queue"));
    }
    // These queues exist whether or not somebody polls them, because every function may send to them.
    for spec in polled_handlers() {
        check_queue(spec, LONG_GATES_QUEUE);
    }
    let queues = of_type("AWS::SQS::Queue");
    assert_eq!(queues.len(), 2 * (queue_functions().count() + polled_handlers().count()));
    let only_tls = texts(&resources()["QueuesOnlyTls"]["Properties"]["Queues"]);
    for (logical, queue) in queues {
        assert_eq!(queue["SqsManagedSseEnabled"], true, "{logical}");
        assert!(only_tls.contains(&logical), "QueuesOnlyTls of template.yaml lacks {logical}");
    }
}

fn check_queue(spec: &HandlerSpec, logical: &str) {
    let (queue, name) = (queue(logical), spec.name);
    assert_eq!(queue["QueueName"], json!(spec.queue("${Prefix}")), "{name}");
    assert_eq!(queue["VisibilityTimeout"], json!(spec.visibility_s()), "{name}");
    let lease_s = spec.function_timeout_s + LEASE_MARGIN_S;
    assert!(spec.function_timeout_s < lease_s && lease_s < spec.visibility_s(), "{name}");

    let redrive = &queue["RedrivePolicy"];
    assert_eq!(redrive["maxReceiveCount"], 5, "{name}");
    let dead_letters =
        template::queue(&resource_of(&redrive["deadLetterTargetArn"], name, "RedrivePolicy.deadLetterTargetArn"));
    assert_eq!(dead_letters["QueueName"], json!(spec.dead_letter_queue("${Prefix}")), "{name}");
    let source = &dead_letters["RedriveAllowPolicy"]["sourceQueueArns"][0];
    let ends = source.as_str().is_some_and(|source| source.ends_with(&format!(":{}", spec.queue("${Prefix}"))));
    assert!(ends, "RedriveAllowPolicy.sourceQueueArns of the dead letters of {name} is {source}");
}

#[test]
fn api_gateway_and_the_local_gateway_compress_from_the_same_size() {
    let api = of_type("AWS::Serverless::Api").remove("Api").expect("template.yaml has the API");
    assert_eq!(api["MinimumCompressionSize"], json!(MIN_COMPRESSED_BYTES));
}

#[test]
fn functions_without_a_queue_have_timeouts() {
    for name in HTTP_FUNCTIONS {
        let (_, properties) = function(name);
        assert!(properties["Timeout"].as_u64().is_some_and(|timeout_s| timeout_s <= GATEWAY_TIMEOUT_S), "{name}");
    }
    let (_, sweeper) = function(SWEEPER);
    assert_eq!(sweeper["Timeout"], json!(SWEEPER_TIMEOUT.as_secs()));
    assert_eq!(sweeper["Events"]["EveryMinute"]["Properties"]["Schedule"], "rate(1 minute)");
}

#[test]
fn every_function_has_its_own_log_group_with_a_retention_time() {
    let groups = of_type("AWS::Logs::LogGroup");
    for (name, (_, properties)) in functions() {
        assert_eq!(properties["FunctionName"], json!(format!("${{Prefix}}{name}")));
        assert_eq!(properties["LoggingConfig"]["LogFormat"], "JSON");
        let group = groups.get(text(&properties["LoggingConfig"]["LogGroup"]));
        let group = group.unwrap_or_else(|| panic!("template.yaml has no log group of {name}"));
        assert_eq!(group["LogGroupName"], json!(format!("/aws/lambda/${{Prefix}}{name}")));
    }
    assert!(groups.values().all(|group| !group["RetentionInDays"].is_null()));
}

#[test]
fn storage_requires_tls_and_the_functions_identify_callers_unless_the_command_adds_iam() {
    let api = &resources()["Api"]["Properties"];
    assert!(api["Auth"].is_null());
    let with_iam = nofx::deploy::iam::with_iam(&read("template.yaml")).expect("the line");
    let api = resources_of(&with_iam).remove("Api").expect("an API");
    assert_eq!(api["Properties"]["Auth"], serde_json::json!({ "DefaultAuthorizer": "AWS_IAM", "InvokeRole": "NONE" }));
    // These deny public access, and access without TLS.
    let bucket = &resources()["ArtifactsBucket"];
    let blocked = bucket["Properties"]["PublicAccessBlockConfiguration"].as_object().expect("a block").clone();
    assert!(blocked.len() == 4 && blocked.values().all(|block| *block == Value::Bool(true)));
    assert_eq!(bucket["DeletionPolicy"], "Retain");
    for policy in ["BucketOnlyTls", "QueuesOnlyTls"] {
        let statement = &resources()[policy]["Properties"]["PolicyDocument"]["Statement"][0];
        assert_eq!(statement["Effect"], "Deny");
        assert_eq!(statement["Condition"]["Bool"]["aws:SecureTransport"], "false");
    }
}

#[test]
fn the_cost_model_uses_the_memory_sizes_of_the_template() {
    let prices: Value = serde_json::from_str(&read("perf/prices.json")).expect("a price list");
    let default = |name: &str| parameters()[name]["Default"].as_f64();
    let memory_mb = &prices["assumptions"]["memory_mb"];
    assert_eq!(memory_mb["gate"], function("gate").1["MemorySize"]);
    assert_eq!(memory_mb["gate_runner"].as_f64(), default("GateMemory"));
    assert_eq!(memory_mb["other"].as_f64(), default("WorkerMemory"));
}
