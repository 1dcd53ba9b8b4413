//! `plan.schema.json` is generated from the tables of the plan parser, and is never stricter than the parser.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use nofx::client::plan_file;
use nofx::commands::plan::schema;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use shared::domain::plan::{self, Limits};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).expect("the schema is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("the schema is one of 2020-12");
    jsonschema::draft202012::new(&schema).expect("the schema compiles")
}

fn violations(validator: &Validator, body: &Value) -> Vec<String> {
    validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn parser_accepts(body: &Value) -> bool {
    plan::parse(&body["plan"], &Limits::default()).is_ok()
}

#[test]
fn the_published_schema_matches_the_parser() {
    let published = fs::read_to_string(root().join("plan.schema.json")).unwrap_or_default();
    assert!(published == schema(), "it differs; run: cargo run --bin nofx -- plan schema > plan.schema.json");
}

#[test]
fn every_example_is_valid() {
    let validator = validator();
    let mut count = 0;
    for entry in fs::read_dir(root().join("examples")).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        let body = plan_file::read(&path).expect("a plan").value;
        assert_eq!(violations(&validator, &body), [""; 0], "{}", path.display());
        assert!(parser_accepts(&body), "{}", path.display());
        count += 1;
    }
    assert!(count >= 5, "{count} examples");

    let page = fs::read_to_string(root().join("docs/plans.md")).expect("the page");
    let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let body: Value = serde_json::from_str(example).expect("JSON");
    assert_eq!(violations(&validator, &body), [""; 0]);
    assert!(parser_accepts(&body));
}

#[test]
fn the_yaml_example_names_its_schema_for_editors() {
    let path = root().join("examples/release.yaml");
    let text = fs::read_to_string(&path).expect("the example");
    let line = text.lines().find_map(|line| line.strip_prefix("# yaml-language-server: $schema="));
    let schema = path.parent().expect("a folder").join(line.expect("the line that editors read"));
    assert_eq!(schema.canonicalize().expect("a file"), root().join("plan.schema.json").canonicalize().expect("a file"));
    // A plan in JSON names it with a key, which the command removes.
    assert_eq!(violations(&validator(), &json!({"$schema": "plan.schema.json", "plan": plan_of(json!({}))})), [""; 0]);
}

/// A plan of one step with these fields besides its name and its tool.
fn plan_of(fields: Value) -> Value {
    let mut step = json!({"name": "a", "tool": "echo"});
    for (name, value) in fields.as_object().expect("fields") {
        step[name] = value.clone();
    }
    json!({"goal": "g", "steps": [step]})
}

#[test]
fn the_schema_and_the_parser_reject_invalid_plans() {
    let validator = validator();
    let with = |field: &str, value: Value| {
        let mut plan = plan_of(json!({}));
        plan[field] = value;
        plan
    };
    let id = "0190a0a0-0000-7000-8000-000000000001";
    let bad = [
        json!([]),
        json!({}),
        json!({"goal": "g"}),
        json!({"steps": [{"name": "a", "tool": "echo"}]}),
        with("goal", json!("")),
        with("goal", json!(" \n")),
        with("goal", json!("a\0")),
        with("goal", json!("x".repeat(2_001))),
        with("goal", Value::Null),
        with("acter", json!("me")),
        with("timeout_s", json!(0)),
        with("timeout_s", json!(31_536_001)),
        with("timeout_s", json!(1.5)),
        with("timeout_s", Value::Null),
        with("workspace", json!({})),
        with("workspace", json!({"archive": "x"})),
        with("workspace", json!({"archive": null})),
        with("workspace", json!({"archive": id, "base": id, "diff": id})),
        with("workspace", json!({"archive": id, "bases": id})),
        with("steps", json!([])),
        with("steps", json!({})),
        with("steps", json!([1])),
        with("steps", json!([{"name": "a"}])),
        with("steps", json!([{"tool": "echo"}])),
        with("steps", json!(vec![json!({"name": "a", "tool": "echo"}); 1_001])),
        plan_of(json!({"name": "."})),
        plan_of(json!({"name": ".."})),
        plan_of(json!({"name": "x".repeat(201)})),
        plan_of(json!({"tool": "bash"})),
        plan_of(json!({"tool": "gate:"})),
        plan_of(json!({"tool": "gate:a/b"})),
        plan_of(json!({"tool": "manual:"})),
        plan_of(json!({"tool": "manual:a b"})),
        plan_of(json!({"tool": format!("manual:{}", "x".repeat(65))})),
        plan_of(json!({"inputs": []})),
        plan_of(json!({"inputs": null})),
        plan_of(json!({"depends_on": "b"})),
        plan_of(json!({"depends_on": [1]})),
        plan_of(json!({"depends_on": null})),
        plan_of(json!({"dependsOn": []})),
        plan_of(json!({"retry": {"max_attempts": 0}})),
        plan_of(json!({"retry": {"max_attempts": 21}})),
        plan_of(json!({"retry": {"backoff_ms": 900_001}})),
        plan_of(json!({"retry": {"backoff": 1}})),
        plan_of(json!({"timeout_s": 0})),
        plan_of(json!({"timeout_s": 26})),
        plan_of(json!({"tool": "gate:unit", "timeout_s": 581})),
    ];
    for plan in bad {
        let body = json!({"plan": plan});
        assert!(!parser_accepts(&body), "the parser accepts {body:.200}");
        assert!(!violations(&validator, &body).is_empty(), "the schema accepts {body:.200}");
    }
}

/// Plans, most of which are valid.
fn some_plan() -> impl Strategy<Value = Value> {
    let goal = prop_oneof![9 => "\\PC{1,20}", 1 => "[ \\x00\\u{85}\\u{feff}\\u{3000}a]{0,3}"];
    let id = prop_oneof![
        Just("0190a0a0-0000-7000-8000-00000000000A"),
        Just("0190a0a0000070008000000000000001"),
        Just("urn:uuid:0190a0a0-0000-7000-8000-000000000001"),
        Just("{0190a0a0-0000-7000-8000-000000000001}"),
    ];
    let workspace =
        (id.clone(), prop::option::of(prop::option::of(id)), any::<bool>()).prop_map(|(archive, change, is_base)| {
            let mut workspace = json!({"archive": archive});
            if let Some(change) = change {
                workspace[if is_base { "base" } else { "diff" }] = json!(change);
                workspace[if is_base { "diff" } else { "base" }] = Value::Null;
            }
            workspace
        });
    let timeout_s = prop::option::of(prop_oneof![1_u64..=25, 1_u64..=31_536_001]);
    let plan = (goal, timeout_s, prop::option::of(workspace), prop::collection::vec(some_step(), 1..5));
    plan.prop_map(|(goal, timeout_s, workspace, mut steps)| {
        for (index, step) in steps.iter_mut().enumerate() {
            step["name"] = json!(format!("{}{index}", step["name"].as_str().unwrap_or_default()));
        }
        let mut plan = json!({"goal": goal, "steps": steps});
        given(&mut plan, "timeout_s", timeout_s.map(Value::from));
        given(&mut plan, "workspace", workspace);
        plan
    })
}

fn some_step() -> impl Strategy<Value = Value> {
    let tool = prop::sample::select(vec![
        "gate:typecheck",
        "gate:my-own_1.x",
        "codegen",
        "manual:a.B_1-c",
        "db_write",
        "echo",
    ]);
    let retry = (prop::option::of(1_u32..=20), prop::option::of(0_u32..=900_000));
    let retry = prop::option::of(retry.prop_map(|(attempts, backoff)| {
        let mut retry = json!({});
        given(&mut retry, "max_attempts", attempts.map(Value::from));
        given(&mut retry, "backoff_ms", backoff.map(Value::from));
        retry
    }));
    let inputs = prop::option::of(prop_oneof![
        Just(json!({})),
        Just(json!({"a": [1, null, {"b": 1.5}], "": "$${{"})),
        "\\PC{0,9}".prop_map(|text| json!({"text": text})),
    ]);
    let timeout_s = prop::option::of(prop_oneof![9 => 1_u64..=25, 1 => 26_u64..=700]);
    let step = ("\\PC{0,5}", tool, inputs, any::<bool>(), retry, timeout_s);
    step.prop_map(|(name, tool, inputs, is_root, retry, timeout_s)| {
        let mut step = json!({"name": name, "tool": tool});
        given(&mut step, "inputs", inputs);
        given(&mut step, "depends_on", is_root.then(|| json!([])));
        given(&mut step, "retry", retry);
        given(&mut step, "timeout_s", timeout_s.map(Value::from));
        step
    })
}

fn given(object: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[name] = value;
    }
}

#[test]
fn the_schema_accepts_every_plan_that_the_parser_accepts() {
    let validator = validator();
    let (cases, accepted) = (2_000, Cell::new(0));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&some_plan(), |plan| {
        let body = json!({"plan": plan});
        if parser_accepts(&body) {
            accepted.set(accepted.get() + 1);
            prop_assert_eq!(violations(&validator, &body), [""; 0]);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(accepted.get() > cases / 4, "the parser accepts only {} of {cases} plans", accepted.get());
}
