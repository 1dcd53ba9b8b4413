//! Reads the template as JSON. Short forms lose their tag: `!Ref X` and `!Sub X` become the string `X`, `!If` a list.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// The queue of long gates. No function has it as its event source.
pub const LONG_GATES_QUEUE: &str = "LongGatesQueue";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every resource by its logical name.
pub fn resources() -> BTreeMap<String, Value> {
    section("Resources")
}

/// The variables of every function.
pub fn globals() -> Value {
    section("Globals").remove("Function").expect("settings of functions")["Environment"]["Variables"].take()
}

/// Every parameter by its name.
pub fn parameters() -> BTreeMap<String, Value> {
    section("Parameters")
}

/// The resources of a template's text.
pub fn resources_of(text: &str) -> BTreeMap<String, Value> {
    section_of(text, "Resources")
}

fn section(name: &str) -> BTreeMap<String, Value> {
    section_of(&read("template.yaml"), name)
}

fn section_of(text: &str, name: &str) -> BTreeMap<String, Value> {
    let documents = Yaml::load_from_str(text).expect("template.yaml is YAML");
    match json(&documents[0])[name].take() {
        Value::Object(entries) => entries.into_iter().collect(),
        _ => panic!("template.yaml has no {name}"),
    }
}

/// Logical names and properties of the resources of a type.
pub fn of_type(kind: &str) -> BTreeMap<String, Value> {
    let of_kind = resources().into_iter().filter(|(_, resource)| resource["Type"] == kind);
    of_kind.map(|(name, mut resource)| (name, resource["Properties"].take())).collect()
}

/// The functions by the name of their binary: logical name and properties.
pub fn functions() -> BTreeMap<String, (String, Value)> {
    of_type("AWS::Serverless::Function")
        .into_iter()
        .map(|(logical, properties)| {
            let code_uri = text(&properties["CodeUri"]);
            let name = code_uri.strip_prefix("target/lambda/").and_then(|rest| rest.strip_suffix('/'));
            (name.unwrap_or_else(|| panic!("{logical} has its code at {code_uri}")).to_owned(), (logical, properties))
        })
        .collect()
}

/// One of the functions: logical name and properties.
pub fn function(name: &str) -> (String, Value) {
    let found = functions().remove(name);
    found.unwrap_or_else(|| panic!("template.yaml has no function whose code is at target/lambda/{name}/"))
}

/// One of the queues.
pub fn queue(logical: &str) -> Value {
    let found = of_type("AWS::SQS::Queue").remove(logical);
    found.unwrap_or_else(|| panic!("template.yaml has no queue {logical}"))
}

/// The resource of a `!GetAtt Resource.Arn`. `owner` and `key` locate it in an error.
pub fn resource_of(arn: &Value, owner: &str, key: &str) -> String {
    let logical = arn.as_str().and_then(|arn| arn.strip_suffix(".Arn"));
    logical
        .unwrap_or_else(|| panic!("{key} of {owner} in template.yaml is not the ARN of a resource: {arn}"))
        .to_owned()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Every string in a value, in order.
pub fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        other => vec![text(other).to_owned()],
    }
}

fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Value(Scalar::String(text)) => Value::from(text.as_ref()),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::Boolean(flag)) => Value::from(*flag),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::from(number.into_inner()),
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(entries) => {
            let entries = entries.iter().map(|(key, value)| (text(&json(key)).to_owned(), json(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Yaml::Tagged(_, inner) => json(inner),
        Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => {
            panic!("CloudFormation does not support this YAML: {yaml:?}")
        }
    }
}
