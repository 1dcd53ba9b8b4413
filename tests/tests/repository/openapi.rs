//! `openapi.json` and its pages match the code. `UPDATE=1` writes them.

use std::collections::BTreeSet;
use std::{env, fs};

use nofx_tests::contract::{files, operations};
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
