//! `openapi.json` and its pages match the code. `UPDATE=1` writes them.

use std::collections::BTreeSet;
use std::{env, fs};

use nofx::commands::plan::schema;
use nofx_tests::contract::{dead_ends, examples, files, operations};
use serde_json::Value;
use shared::http::contract::Schemas;

#[test]
fn the_published_documents_match_the_code() {
    for (path, text) in files() {
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, text).expect("write the document");
            continue;
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(published == text, "{} differs; run `make openapi`", path.display());
    }
}

#[test]
fn the_document_has_exactly_the_json_routes() {
    let (routes, operations) = operations(&mut Schemas::default());
    let of_routers: BTreeSet<_> = routes.iter().map(|route| (route.path, route.method.as_str())).collect();
    let of_document: BTreeSet<_> = operations.iter().map(|one| (one.path, one.method.as_str())).collect();
    assert_eq!(of_routers, of_document);
    let ids: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
    assert_eq!(ids.len(), operations.len(), "an operationId is used twice");
}

#[test]
fn every_example_fits_its_schema_and_every_link_has_an_end() {
    let (wrong, right) = examples();
    assert_eq!(wrong, [""; 0]);
    assert!(right > 25, "only {right} examples");
    assert_eq!(dead_ends(), [""; 0]);
}

#[test]
fn the_document_has_the_published_schema_of_plans() {
    let document = files().into_iter().find(|(path, _)| path.ends_with("openapi.json")).expect("the document").1;
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let published: Value = serde_json::from_str(&schema()).expect("JSON");
    for path in ["/runs", "/plans/check"] {
        let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["properties"]["plan"]["$ref"], "#/components/schemas/Plan", "{path}");
    }
    for (name, schema) in published["$defs"].as_object().expect("definitions") {
        let there = document["components"]["schemas"][name].to_string().replace("#/components/schemas/", "#/$defs/");
        assert_eq!(there, schema.to_string(), "{name}");
    }
}

#[test]
fn the_pages_are_small_and_load_nothing_external() {
    for (path, text) in files() {
        if path.extension().is_some_and(|extension| extension == "html") {
            assert!(text.len() < 100 << 10, "{}: {} bytes", path.display(), text.len());
            for external in ["<script", "style=", "src=", "href=\"http", "href=\"//"] {
                assert!(!text.contains(external), "{} contains {external}", path.display());
            }
        }
    }
}
