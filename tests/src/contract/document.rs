//! Builds the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use axum::http::Method;
use serde_json::{Map, Value, json};
use shared::domain::Permission;
use shared::error::Code;
use shared::http::contract::{Answer, Operation, Schemas, parameter};
use shared::http::{BodyKind, ProblemDocument, Route};

use super::path;

/// Routes that answer with pages and are not in the document.
pub const PAGES: [&str; 4] = ["/docs", "/docs/schemas", "/docs/errors", "/docs/style.css"];

/// Groups of operations, in the order of the page.
const GROUPS: [&str; 12] = [
    "Runs",
    "Steps",
    "Gates",
    "Artifacts",
    "Rules of db_write",
    "Policy",
    "Account",
    "Members",
    "Tokens",
    "Audit",
    "Queues",
    "Server",
];

/// Codes that only the local HTTP front sends.
const FRONT: [Code; 4] = [Code::MisdirectedRequest, Code::FunctionFailed, Code::NotTaken, Code::FunctionTimedOut];

/// How a request may prove who sends it: names and descriptions.
const SCHEMES: [(&str, &str); 2] = [
    ("bearer", "`Authorization: Bearer` with an API token, or with the JWT of a person."),
    ("nofxBearer", "`Nofx-Authorization: Bearer`, where `Authorization` belongs to the gateway, as with IAM."),
];

fn security_schemes() -> Value {
    let [(bearer, about), (own, about_own)] = SCHEMES;
    json!({
        bearer: {"type": "http", "scheme": "bearer", "description": about},
        own: {"type": "apiKey", "in": "header", "name": "Nofx-Authorization", "description": about_own},
    })
}

/// The routes of the functions, and their descriptions.
pub fn operations(schemas: &mut Schemas) -> (Vec<Route>, Vec<Operation>) {
    let routes = [api::routes().table().to_vec(), approvals::routes().table().to_vec()].concat();
    let routes = routes.into_iter().filter(|route| !PAGES.contains(&route.path)).collect();
    (routes, [api::contract::contract(schemas), approvals::contract::contract(schemas)].concat())
}

/// An OpenAPI 3.1 document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let (routes, operations) = operations(&mut schemas);
    let problem = schemas.of::<ProblemDocument>();
    let mut refusals = BTreeMap::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in &operations {
        let route = routes.iter().find(|route| route.path == operation.path && route.method == operation.method);
        let route = route.unwrap_or_else(|| panic!("no router has {} {}", operation.method, operation.path));
        let described = described(operation, route, &problem, &mut refusals);
        paths.entry(operation.path).or_default().insert(operation.method.as_str().to_lowercase(), described);
    }
    let groups: BTreeSet<&str> = operations.iter().map(|operation| operation.group).collect();
    assert_eq!(groups, GROUPS.into(), "the groups of operations");
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "NOFX control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Runs plans durably.",
            "description": "Lists are pages: `Link` leads to the next one. Every answer has `x-request-id`. Errors are problem documents (RFC 9457); their `type` leads to a section of /docs/errors.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": GROUPS.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "headers": headers(), "responses": refusals, "schemas": schemas.kept(), "securitySchemes": security_schemes(),
        },
    });
    link(&mut document);
    document
}

/// Types of ids, and the paths that take one.
const ADDRESSES: [(&str, &str); 3] =
    [("RunId", "/runs/{id}"), ("GateId", "/gates/{id}"), ("ArtifactId", "/artifacts/{id}")];

/// Says which operations take what an answer has: the id of what was created, and the cursor of the next page.
fn link(document: &mut Value) {
    let mut links = Map::new();
    let operations: Vec<(String, String, Value)> = operations_of(document).collect();
    for (_, path, operation) in &operations {
        let of_path = ADDRESSES.iter().find(|(_, address)| path.starts_with(address));
        if path.matches('{').count() == 1 && of_path.is_some() {
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            let link = json!({"operationId": id, "parameters": {"id": "$response.body#/id"}});
            links.insert(id, link);
        }
    }
    for (method, path, operation) in &operations {
        let creates = !operation["responses"]["201"].is_null();
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            let answer = resolved(document, &response["content"]["application/json"]["schema"]);
            let kind = answer["properties"]["id"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
            let address =
                ADDRESSES.iter().find(|(name, _)| creates && kind == Some(*name)).map(|(_, address)| *address);
            let mut of_answer: Map<String, Value> = operations
                .iter()
                .filter(|(_, path, _)| address.is_some_and(|address| path.starts_with(address)))
                .filter_map(|(_, _, operation)| operation["operationId"].as_str())
                .filter(|id| links.contains_key(*id))
                .map(|id| (id.to_owned(), json!({"$ref": format!("#/components/links/{id}")})))
                .collect();
            if !answer["properties"]["next"].is_null() {
                let mut parameters = json!({"after": "$response.body#/next"});
                if path.contains("{id}") {
                    parameters["id"] = json!("$request.path.id");
                }
                let next = json!({"operationId": operation["operationId"], "parameters": parameters});
                of_answer.insert("next".to_owned(), next);
            }
            if !of_answer.is_empty() {
                document["paths"][path][method]["responses"][status]["links"] = of_answer.into();
            }
        }
    }
    document["components"]["links"] = links.into();
}

/// Method, path and operation.
fn operations_of(document: &Value) -> impl Iterator<Item = (String, String, Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(|(method, operation)| (method.clone(), path.clone(), operation.clone()))
    })
}

/// The schema, or the one that it refers to.
fn resolved(document: &Value, schema: &Value) -> Value {
    let named = schema["$ref"].as_str().and_then(|reference| document.pointer(&reference[1..]));
    named.unwrap_or(schema).clone()
}

fn described(operation: &Operation, route: &Route, problem: &Value, refusals: &mut BTreeMap<String, Value>) -> Value {
    let mut responses: BTreeMap<String, Value> =
        operation.answers.iter().map(|answer| (answer.status.to_string(), answered(answer))).collect();
    let mut codes: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes_of(operation, route) {
        codes.entry(code.status()).or_default().push(code);
    }
    if operation.codes.contains(&Code::LimitExceeded) {
        // Waiting does not help.
        codes.entry(403).or_default().push(Code::LimitExceeded);
    }
    for (status, codes) in codes {
        let name = codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join("-");
        responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{name}")}));
        refusals.entry(name).or_insert_with(|| refused(&codes, problem));
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.group],
        "summary": operation.summary,
        "responses": responses,
    });
    let parameters = parameters(operation, route);
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    described["security"] = match route.permission {
        Permission::Public => json!([]),
        _ => json!(SCHEMES.map(|(name, _)| json!({ name: [] }))),
    };
    if route.permission != Permission::Public {
        described["x-permission"] = json!(route.permission);
    }
    assert_eq!(operation.body.is_some(), matches!(route.takes.body, BodyKind::Json), "{}", operation.id);
    if let Some(body) = &operation.body {
        let content = json!({"application/json": {"schema": body.schema, "example": body.example}});
        described["requestBody"] = json!({"required": body.is_required, "content": content});
    }
    described
}

/// Every code of an operation: its own, and those that follow from its method and path.
fn codes_of(operation: &Operation, route: &Route) -> BTreeSet<Code> {
    let always = [Code::Invalid, Code::Internal, Code::Unavailable];
    let mut codes: BTreeSet<Code> = operation.codes.iter().chain(&always).chain(&FRONT).copied().collect();
    if route.permission != Permission::Public {
        codes.extend([Code::Unauthenticated, Code::Forbidden, Code::LimitExceeded]);
    }
    if operation.path.contains('{') {
        codes.insert(Code::NotFound);
    }
    if operation.method != Method::GET {
        codes.extend([
            Code::OutcomeUnknown,
            Code::ForbiddenOrigin,
            Code::RequestTimeout,
            Code::TooLarge,
            Code::UnsupportedMediaType,
        ]);
    }
    codes
}

fn parameters(operation: &Operation, route: &Route) -> Vec<Value> {
    let with = |name: &str, place: &str| {
        let own = operation.parameters.iter().find(|(own, _)| *own == name);
        let mut schema = own.map_or_else(|| parameter(name), |(_, schema)| schema.clone());
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({"name": name, "in": place, "schema": schema});
        if place == "path" {
            parameter["required"] = json!(true);
        }
        if let Some(about) = about {
            parameter["description"] = about;
        }
        if parameter["schema"]["type"] == "array" {
            // `name=a,b`, not `name=a&name=b`.
            parameter["style"] = json!("form");
            parameter["explode"] = json!(false);
        }
        parameter
    };
    let in_path = operation.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let in_path = in_path.map(|name| with(name, "path"));
    let in_query = route.takes.query.iter().map(|name| with(name, "query"));
    let in_headers = operation.headers.iter().map(
        |header| json!({"name": header.name, "in": "header", "description": header.about, "schema": header.schema}),
    );
    in_path.chain(in_query).chain(in_headers).collect()
}

fn answered(answer: &Answer) -> Value {
    let names = answer.headers.iter().chain(&["x-request-id"]);
    let headers: Map<_, _> =
        names.map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}))).collect();
    let mut described = json!({"description": answer.about, "headers": headers});
    if let Some(schema) = &answer.schema {
        let mut content = json!({"schema": schema});
        if let Some((file, name)) = answer.example {
            content["example"] = recorded(file, name);
        }
        described["content"] = json!({answer.media_type: content});
        for media_type in &answer.texts {
            described["content"][media_type] = json!({"schema": {"type": "string"}});
        }
    }
    described
}

fn refused(codes: &[Code], problem: &Value) -> Value {
    let words: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let listed = words.iter().map(|word| format!("[`{word}`](/docs/errors#{word})")).collect::<Vec<_>>().join(" or ");
    let local = if codes.iter().all(|code| FRONT.contains(code)) { ", from the local stack" } else { "" };
    json!({
        "description": format!("{listed}{local}."),
        "headers": {"x-request-id": {"$ref": "#/components/headers/x-request-id"}},
        "content": {"application/problem+json": {
            "schema": {"allOf": [problem, {"properties": {"code": {"enum": words}}}]},
        }},
    })
}

fn headers() -> Value {
    let text = |about: &str| json!({"description": about, "schema": {"type": "string"}});
    json!({
        "x-request-id": {"description": "Finds the request in the log.", "required": true, "schema": {"type": "string"}},
        "Location": text("Where it is."),
        "ETag": text("Changes whenever the answer changes. Send it in If-None-Match."),
        "Cache-Control": text("`private, no-cache`: only the client's own cache may store the answer, and it must revalidate it."),
        "Link": text("If more rows follow, the address of the next page, with rel=\"next\"."),
    })
}

/// A recorded response, with a fixed id and time in place of the real ones.
fn recorded(file: &str, name: &str) -> Value {
    let text = fs::read_to_string(path(&format!("tests/tests/functions/shapes/{file}.json"))).expect("a record");
    let text = text
        .replace("<id>", "0198c0de-0000-7000-8000-000000000001")
        .replace("<time>", "2026-11-23T10:00:00.123456+00:00");
    let answers: Value = serde_json::from_str(&text).expect("the record is JSON");
    let body = &answers[name]["body"];
    assert!(!body.is_null(), "{file}.json has no {name}");
    short(body)
}

/// The value with the first entry of each list, which is enough for an example.
fn short(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().take(1).map(short).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), short(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}
