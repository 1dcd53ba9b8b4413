//! The routers, API Gateway and `cargo lambda watch` must have the same routes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::template::{functions, globals, read, text};

/// Method, path, function.
type Route = (String, String, String);

/// The routes of the functions' routers.
fn of_routers() -> BTreeSet<Route> {
    let tables = [("api", api::routes()), ("approvals", approvals::routes()), ("console", console::routes())];
    let mut routes = BTreeSet::new();
    for (function, table) in tables {
        for shared::http::Route { method, path, .. } in table.table() {
            let route = (method.to_string(), (*path).to_owned(), function.to_owned());
            assert!(routes.insert(route.clone()), "{route:?} is listed twice");
        }
    }
    routes
}

#[test]
fn api_gateway_has_exactly_the_routes_of_the_routers() {
    let mut routes = BTreeSet::new();
    for (function, (_, properties)) in functions() {
        for event in properties["Events"].as_object().into_iter().flat_map(|events| events.values()) {
            if event["Type"] == "Api" {
                let event = &event["Properties"];
                assert_eq!(event["RestApiId"], "Api");
                // No route may bypass the API's authorizer, if it has one.
                assert!(event["Auth"].is_null(), "{event}");
                let route = (text(&event["Method"]).to_owned(), text(&event["Path"]).to_owned(), function.clone());
                assert!(routes.insert(route.clone()), "{route:?} is listed twice");
            }
        }
    }
    assert_eq!(routes, of_routers());
}

/// A text, because YAML reads a bare `on` as true. `local` would let everybody in.
#[test]
fn every_http_function_demands_credentials_and_no_other_is_asked_for_them() {
    assert!(globals()["NOFX_AUTH"].is_null(), "functions without routes identify nobody");
    for (function, (_, properties)) in functions() {
        let events = properties["Events"].as_object().into_iter().flat_map(|events| events.values());
        let has_routes = events.into_iter().any(|event| event["Type"] == "Api");
        let mode = &properties["Environment"]["Variables"]["NOFX_AUTH"];
        let expected = if has_routes { Value::from("on") } else { Value::Null };
        assert_eq!(*mode, expected, "{function}");
    }
    assert!(!read("template.yaml").contains("NOFX_AUTH: !"), "the mode is no parameter");
}

#[test]
fn cargo_lambda_watch_serves_exactly_the_paths_of_the_routers() {
    let manifest = read("Cargo.toml");
    let section = manifest.split("[workspace.metadata.lambda.watch.router]").nth(1).expect("the router of the watch");
    let paths: BTreeMap<String, String> = section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(path, function)| {
            (path.trim().trim_matches('"').to_owned(), function.trim().trim_matches('"').to_owned())
        })
        .collect();
    let expected: BTreeMap<_, _> = of_routers().into_iter().map(|(_, path, function)| (path, function)).collect();
    assert_eq!(paths, expected);
}

#[test]
fn no_route_bypasses_the_tables() {
    for (function, extra) in [("api", 0), ("approvals", 0), ("console", 2)] {
        let source = read(&format!("functions/{function}/src/lib.rs"));
        // The console's answers to addresses without a page: `/ui/` leads to `/ui`, and others get "not found".
        assert_eq!(source.matches(".route(").count(), extra, "functions/{function}/src/lib.rs");
    }
}
