//! The service that runs long gates: off by default, and the same program with the same variables as the function `gate`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::template::{function, globals, parameters, resources, text};

#[test]
fn without_the_parameter_only_the_queue_exists() {
    assert_eq!(parameters()["LongGates"]["Default"], "false");
    let all = resources();
    let without_queues = all.iter().filter(|(name, _)| name.starts_with("LongGates"));
    for (name, resource) in without_queues {
        let is_queue = resource["Type"] == "AWS::SQS::Queue";
        assert_eq!(resource["Condition"] == "HasLongGates", !is_queue, "{name}");
    }
    assert!(all.values().filter(|it| text(&it["Type"]).starts_with("AWS::ECS::")).all(|it| !it["Condition"].is_null()));
    // The API accepts long gates if and only if a service runs them.
    let (_, api) = function("api");
    assert_eq!(api["Environment"]["Variables"]["LONG_GATES"], "LongGates");
}

#[test]
fn the_container_polls_as_root_on_a_file_system_that_commands_cannot_change() {
    let container = container();
    assert_eq!(container["EntryPoint"], json!(["/opt/nofx/gate", "poll"]));
    // Only root can give each command a uid of its own. The time after SIGTERM is the maximum of Fargate.
    assert_eq!((&container["User"], &container["StopTimeout"]), (&json!("0"), &json!(120)));
    assert_eq!(container["ReadonlyRootFilesystem"], true);
    let dropped = &container["LinuxParameters"]["Capabilities"];
    assert_eq!(dropped, &json!({ "Drop": ["NET_RAW", "MKNOD"] }));
    let folder = &container["MountPoints"][0]["ContainerPath"];
    let variables = variables(&container);
    assert_eq!((&variables["TMPDIR"], &variables["HOME"]), (folder, folder), "work folders are below TMPDIR");
}

#[test]
fn the_container_has_the_variables_of_the_function_gate() {
    let (_, gate) = function("gate");
    let mut expected = globals().as_object().expect("variables").clone();
    expected.extend(gate["Environment"]["Variables"].as_object().expect("variables").clone());
    // It starts gate_runner itself.
    expected.remove("GATE_RUNNER");
    let mut variables = variables(&container());
    for own in ["AWS_LAMBDA_LOG_FORMAT", "TMPDIR", "HOME"] {
        assert!(variables.remove(own).is_some(), "{own}");
    }
    assert_eq!(json!(variables), Value::Object(expected));
}

fn container() -> Value {
    resources()["LongGatesTask"]["Properties"]["ContainerDefinitions"][0].clone()
}

fn variables(container: &Value) -> BTreeMap<String, Value> {
    let listed = container["Environment"].as_array().expect("variables");
    listed.iter().map(|it| (text(&it["Name"]).to_owned(), it["Value"].clone())).collect()
}
