//! Every role allows exactly the calls of its function's code. In `local.rs` the emulator enforces the roles, which finds
//! missing rights. This test also finds unneeded ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nofx_local::function::{GATE_RUNNER, HTTP_FUNCTIONS, queue_functions};
use serde_json::Value;

use crate::template::{LONG_GATES_QUEUE, function, functions, read, resources, root, text, texts};

/// An action and a resource, as written in the template.
type Right = (String, String);

/// Every call to AWS in the code, and the action that it needs. A presigned request needs it when it is used.
const CALLS: [(&str, &str, &str); 19] = [
    ("invoke.rs", "invoke", "lambda:InvokeFunction"),
    ("queue.rs", "delete_message", "sqs:DeleteMessage"),
    ("queue.rs", "receive_message", "sqs:ReceiveMessage"),
    ("queue.rs", "get_queue_attributes", "sqs:GetQueueAttributes"),
    ("queue.rs", "get_queue_url", "sqs:GetQueueUrl"),
    ("queue.rs", "send_message", "sqs:SendMessage*"),
    ("queue.rs", "send_message_batch", "sqs:SendMessage*"),
    ("queue.rs", "change_message_visibility", "sqs:ChangeMessageVisibility"),
    ("secrets.rs", "get_secret_value", "secretsmanager:GetSecretValue"),
    ("signing.rs", "get_public_key", "kms:GetPublicKey"),
    ("signing.rs", "sign", "kms:Sign"),
    ("storage.rs", "get_object", "s3:GetObject"),
    ("storage/archive.rs", "head_object", "s3:GetObject"),
    ("storage/archive.rs", "put_object_tagging", "s3:PutObjectTagging"),
    ("storage/archive.rs", "restore_object", "s3:RestoreObject"),
    ("storage/archive.rs", "list_object_versions", "s3:ListBucketVersions"),
    ("storage/archive.rs", "list_objects_v2", "s3:ListBucket"),
    // With a version it needs s3:DeleteObjectVersion too.
    ("storage/archive.rs", "delete_object", "s3:DeleteObject"),
    ("storage.rs", "put_object", "s3:PutObject"),
];

/// Code that uses storage, a secret or a key, and the rights that it needs.
const USES: [(&str, &[(&str, &str)]); 23] = [
    (".sign_download(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*")]),
    (".sign_attachment(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*")]),
    (".sign_view(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*")]),
    (".read_start(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*"), ("s3:ListBucket", "ArtifactsBucket.Arn")]),
    (".sign_upload(", &[("s3:PutObject", "${ArtifactsBucket.Arn}/workspaces/*")]),
    ("store_workspace(", &[("s3:PutObject", "${ArtifactsBucket.Arn}/workspaces/*")]),
    // Without the right to list, S3 answers "access denied" for a missing object.
    ("store.get(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*"), ("s3:ListBucket", "ArtifactsBucket.Arn")]),
    ("store.put(", &[("s3:PutObject", "${ArtifactsBucket.Arn}/tenants/*")]),
    (".sign_read(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*")]),
    (".sign_scratch(", &[("s3:PutObject", "${ArtifactsBucket.Arn}/scratch/*")]),
    (".put_scratch(", &[("s3:PutObject", "${ArtifactsBucket.Arn}/scratch/*")]),
    ("store.remember(", &[("s3:PutObject", "${ArtifactsBucket.Arn}/reuse/*")]),
    ("store.recall(", &[("s3:GetObject", "${ArtifactsBucket.Arn}/*"), ("s3:ListBucket", "ArtifactsBucket.Arn")]),
    ("functions.invoke(", &[("lambda:InvokeFunction", "GateRunnerFunction.Arn")]),
    ("signing::public_keys(", &[("kms:GetPublicKey", "SigningKey.Arn")]),
    ("config.decisions", &[("kms:GetPublicKey", "DecisionKey.Arn")]),
    ("flow::decide_gate::", &[("kms:Sign", "DecisionKey.Arn"), ("kms:GetPublicKey", "DecisionKey.Arn")]),
    ("config.seals", &[("kms:GetPublicKey", "SealKey.Arn")]),
    (
        "flow::seal_runs",
        &[
            ("kms:Sign", "SealKey.Arn"),
            ("kms:GetPublicKey", "SealKey.Arn"),
            ("s3:GetObject", "${ArtifactsBucket.Arn}/*"),
            ("s3:ListBucket", "ArtifactsBucket.Arn"),
            ("s3:PutObject", "${ArtifactsBucket.Arn}/tenants/*"),
        ],
    ),
    (
        "flow::keep_artifacts",
        &[
            ("s3:GetObject", "${ArtifactsBucket.Arn}/*"),
            ("s3:ListBucket", "ArtifactsBucket.Arn"),
            ("s3:ListBucketVersions", "ArtifactsBucket.Arn"),
            ("s3:PutObjectTagging", "${ArtifactsBucket.Arn}/tenants/*"),
            ("s3:RestoreObject", "${ArtifactsBucket.Arn}/tenants/*"),
            ("s3:DeleteObject", "${ArtifactsBucket.Arn}/tenants/*"),
            ("s3:DeleteObjectVersion", "${ArtifactsBucket.Arn}/tenants/*"),
            ("s3:PutObjectTagging", "${ArtifactsBucket.Arn}/workspaces/*"),
            ("s3:RestoreObject", "${ArtifactsBucket.Arn}/workspaces/*"),
            ("s3:DeleteObject", "${ArtifactsBucket.Arn}/workspaces/*"),
            ("s3:DeleteObjectVersion", "${ArtifactsBucket.Arn}/workspaces/*"),
            ("s3:PutObjectTagging", "${ArtifactsBucket.Arn}/runs/*"),
            ("s3:RestoreObject", "${ArtifactsBucket.Arn}/runs/*"),
            ("s3:DeleteObject", "${ArtifactsBucket.Arn}/runs/*"),
            ("s3:DeleteObjectVersion", "${ArtifactsBucket.Arn}/runs/*"),
        ],
    ),
    (
        "flow::clear_leftovers",
        &[
            ("s3:ListBucket", "ArtifactsBucket.Arn"),
            ("s3:ListBucketVersions", "ArtifactsBucket.Arn"),
            ("s3:DeleteObject", "${ArtifactsBucket.Arn}/tenants/*"),
            ("s3:DeleteObjectVersion", "${ArtifactsBucket.Arn}/tenants/*"),
        ],
    ),
    ("Signer::new(", &[("kms:Sign", "SigningKey.Arn"), ("kms:GetPublicKey", "SigningKey.Arn")]),
    ("secrets.get(", &[("secretsmanager:GetSecretValue", "LlmSecret.Id")]),
];

/// The rights that every function needs.
const EVERY: [(&str, &str); 3] = [
    // The keys of another artifact store: see `shared::config`.
    ("secretsmanager:GetSecretValue", "StorageSecretArn"),
    ("xray:PutTraceSegments", "*"),
    ("xray:PutTelemetryRecords", "*"),
];

#[test]
fn every_role_allows_exactly_what_its_function_calls() {
    let queue_functions: Vec<&str> = queue_functions().map(|function| function.name()).collect();
    let mut queues: Vec<String> = queue_functions.iter().map(|name| queue_of(name)).collect();
    queues.push(format!("{LONG_GATES_QUEUE}.Arn"));
    for (name, (logical, properties)) in functions() {
        let role = text(&properties["Role"]).strip_suffix(".Arn").expect("a role's ARN").to_owned();
        assert_eq!(role, logical.replace("Function", "Role"), "its own role");
        let right = |action: &str, resource: &str| (action.to_owned(), resource.to_owned());
        let logs = format!(
            "arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:${{{}}}:*",
            text(&properties["LoggingConfig"]["LogGroup"])
        );
        let logs = ["logs:CreateLogStream", "logs:PutLogEvents"].map(|action| right(action, &logs));
        if name == GATE_RUNNER {
            // It runs untrusted code, so it may write logs and nothing else.
            assert_eq!(rights_of(&role), BTreeSet::from(logs), "{role}");
            continue;
        }
        let mut expected: BTreeSet<Right> = EVERY.iter().map(|(action, resource)| right(action, resource)).collect();
        // Only HTTP functions read tables; the login of the others can only execute transitions.
        let is_http = HTTP_FUNCTIONS.contains(&name.as_str());
        let database = if is_http { "DatabaseSecretArn" } else { "WorkerDatabaseSecretArn" };
        expected.insert(right("secretsmanager:GetSecretValue", database));
        let secret = &properties["Environment"]["Variables"]["DATABASE_SECRET_ID"];
        assert_eq!(secret.as_str().unwrap_or("DatabaseSecretArn"), database, "{name}: DATABASE_SECRET_ID");
        if is_http {
            // The shared secret of the issuer: see `shared::config`.
            expected.insert(right("secretsmanager:GetSecretValue", "AuthHs256SecretArn"));
        }
        expected.extend(logs);
        // Every function may make steps ready, so it may send wake-ups to every queue.
        for queue in &queues {
            expected.extend(["sqs:GetQueueUrl", "sqs:SendMessage*"].map(|action| right(action, queue)));
        }
        if queue_functions.contains(&name.as_str()) {
            let event_source = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];
            expected.extend(event_source.map(|action| right(action, &queue_of(&name))));
            expected.insert(right("sqs:ChangeMessageVisibility", &queue_of(&name)));
        }
        let code = sources(&root().join("functions").join(&name).join("src"));
        if code.contains("flow::queues") {
            for queue in &queues {
                expected.insert(right("sqs:GetQueueAttributes", queue));
                let dead = queue.replace("Queue.Arn", "DeadLetters.Arn");
                let calls = ["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage"];
                expected.extend(calls.map(|action| right(action, &dead)));
            }
        }
        for (_, rights) in USES.iter().filter(|(call, _)| code.contains(call)) {
            expected.extend(rights.iter().map(|(action, resource)| right(action, resource)));
        }
        let rights = rights_of(&role);
        let (missing, unneeded) = (expected.difference(&rights), rights.difference(&expected));
        let (missing, unneeded): (Vec<_>, Vec<_>) = (missing.collect(), unneeded.collect());
        assert!(missing.is_empty() && unneeded.is_empty(), "{role} lacks {missing:?} and does not need {unneeded:?}");
    }
}

/// The containers that run long gates have the rights of `gate` on their own queue. They invoke no function, and `gate_runner` beside
/// them needs no URLs for results. ECS writes their logs.
#[test]
fn the_role_of_long_gates_allows_what_the_code_of_gate_calls_without_a_runner_function() {
    let right = |action: &str, resource: &str| (action.to_owned(), resource.to_owned());
    let queue = format!("{LONG_GATES_QUEUE}.Arn");
    let of_gate = rights_of("GateRole").into_iter().filter(|(action, resource)| {
        // The event source of Lambda reads attributes of its queue.
        !matches!(action.as_str(), "lambda:InvokeFunction" | "sqs:GetQueueAttributes")
            && !action.starts_with("logs:")
            && !resource.ends_with("/scratch/*")
    });
    let is_own =
        |action: &str| ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"].contains(&action);
    let expected: BTreeSet<Right> = of_gate
        .map(|(action, resource)| if is_own(&action) { right(&action, &queue) } else { (action, resource) })
        .collect();
    assert_eq!(rights_of("LongGatesRole"), expected);
    assert!(expected.contains(&right("sqs:ReceiveMessage", &queue)));

    let execution: BTreeSet<String> =
        rights_of("LongGatesExecutionRole").into_iter().map(|(action, _)| action).collect();
    let needed = ["logs:CreateLogStream", "logs:PutLogEvents", "ecr:GetAuthorizationToken"];
    let layers = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"];
    assert_eq!(execution, needed.into_iter().chain(layers).map(str::to_owned).collect());
    for role in ["LongGatesRole", "LongGatesExecutionRole"] {
        let trusted = &resources()[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"];
        assert_eq!(trusted["Service"], "ecs-tasks.amazonaws.com", "{role}");
    }
}

#[test]
fn every_call_on_a_client_is_in_the_table() {
    let mut found = BTreeSet::new();
    for file in ["invoke.rs", "queue.rs", "secrets.rs", "signing.rs", "storage.rs", "storage/archive.rs"] {
        let code: String = read(&format!("shared/src/{file}")).split_whitespace().collect();
        for after in code.split("client.").skip(1) {
            let call: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert((file.to_owned(), call));
        }
    }
    let listed: BTreeSet<_> = CALLS.iter().map(|(file, call, _)| ((*file).to_owned(), (*call).to_owned())).collect();
    assert_eq!(found, listed);
    // No function creates its own client.
    let own = sources(&root().join("functions"));
    assert!(
        !own.contains("aws_sdk_"),
        "a function calls AWS outside of shared::{{invoke, queue, secrets, signing, storage}}"
    );

    let mut allowed = BTreeSet::new();
    for (_, (logical, _)) in functions() {
        allowed.extend(rights_of(&logical.replace("Function", "Role")).into_iter().map(|(action, _)| action));
    }
    for (_, call, action) in CALLS {
        assert!(allowed.contains(action), "no role allows {call}");
    }
}

fn queue_of(name: &str) -> String {
    let (_, properties) = function(name);
    text(&properties["Events"]["StepReady"]["Properties"]["Queue"]).to_owned()
}

/// The rights of a role, from its own policies and the template's managed policies.
fn rights_of(role: &str) -> BTreeSet<Right> {
    let resources = resources();
    let role = &resources.get(role).unwrap_or_else(|| panic!("template.yaml has no role {role}"))["Properties"];
    let mut rights = BTreeSet::new();
    collect(&role["Policies"], &mut rights);
    // Roles that only run something have no managed policy.
    let managed = if role["ManagedPolicyArns"].is_null() { Vec::new() } else { texts(&role["ManagedPolicyArns"]) };
    for name in managed {
        // The list also contains conditions and `AWS::NoValue`.
        if let Some(policy) = resources.get(&name) {
            collect(&policy["Properties"]["PolicyDocument"], &mut rights);
        } else {
            let others = ["HasStorageSecret", "HasAuthSecret", "AWS::NoValue"];
            assert!(others.contains(&name.as_str()), "an unknown policy: {name}");
        }
    }
    rights
}

fn collect(value: &Value, rights: &mut BTreeSet<Right>) {
    match value {
        Value::Object(statement) if statement.contains_key("Effect") => {
            assert_eq!(statement["Effect"], "Allow");
            for action in texts(&statement["Action"]) {
                rights.extend(texts(&statement["Resource"]).into_iter().map(|resource| (action.clone(), resource)));
            }
        }
        Value::Object(fields) => fields.values().for_each(|value| collect(value, rights)),
        Value::Array(items) => items.iter().for_each(|value| collect(value, rights)),
        _ => {}
    }
}

/// The code below a folder, without tests.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "node_modules" {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !name.ends_with("tests.rs") {
            let code = fs::read_to_string(&path).expect("a readable source");
            text.push_str(code.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
    text
}
